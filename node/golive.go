package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"cairn/cluster"
	"cairn/event"
	"cairn/fsm"
	"cairn/httpapi"
	"cairn/projection"
)

const (
	// liveEvery is the time between two looks at what is being built.
	liveEvery = 100 * time.Millisecond
	// liveLag is how many events a generation may be behind when it is put in
	// force: Apply folds them at once, on every node. Apply itself refuses more
	// than twice as many.
	liveLag = 5000
	// liveTimeout bounds one try to put something in force.
	liveTimeout = 2 * time.Second
	// askTimeout bounds asking the voters, which are asked at the same time.
	askTimeout = time.Second
	// liveGrace is how long something may be ready here and not be put in force
	// until the log of the node says why.
	liveGrace = 10 * time.Second
	// maxStatus bounds what is read of a voter's answer, in bytes: two definitions.
	maxStatus = 1 << 20
)

// liver puts the generations of projections in force, on the leader, once the
// voters that are alive have built them. Voters that can't be asked are waited
// for only if without them no majority has answered.
type liver struct {
	machine *fsm.Machine
	members *cluster.Node
	id      string
	http    *http.Client
	logger  *slog.Logger
	held    heldUp // owned by run
	cancel  context.CancelFunc
	done    sync.WaitGroup
}

// heldUp notes since when something is ready on this node and is not put in
// force, by the position of its definition or schema.
type heldUp map[uint64]*hold

type hold struct {
	since time.Time
	told  bool
}

// note takes in how a try to put something in force ended, and reports whether
// it is time to tell people, which is once.
func (h heldUp) note(id uint64, err error, now time.Time) bool {
	if err == nil || errors.Is(err, errNotBuilt) {
		delete(h, id)
		return false
	}
	if h[id] == nil {
		h[id] = &hold{since: now}
	}
	late := h[id]
	tell := !late.told && now.Sub(late.since) >= liveGrace
	late.told = late.told || tell
	return tell
}

// keep forgets what is neither among ids nor being put in force any more.
func (h heldUp) keep(ids []uint64) {
	for id := range h {
		if !slices.Contains(ids, id) {
			delete(h, id)
		}
	}
}

// errNotBuilt says that this node itself has not built a generation yet.
var errNotBuilt = errors.New("it is being built here")

func startLiver(l *liver) *liver {
	var ctx context.Context
	ctx, l.cancel = context.WithCancel(context.Background())
	l.http = &http.Client{Timeout: askTimeout}
	l.held = heldUp{}
	l.done.Go(func() { l.run(ctx) })
	return l
}

func (l *liver) close() {
	l.cancel()
	l.done.Wait()
	l.http.CloseIdleConnections()
}

func (l *liver) run(ctx context.Context) {
	tick := time.NewTicker(liveEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if leader, _ := l.members.Leader(); leader != l.id {
			clear(l.held)
			continue
		}
		l.look(ctx)
	}
}

// look puts in force what is built. If it comes to nothing, the next look tries
// again.
func (l *liver) look(ctx context.Context) {
	catalog := l.machine.Catalog()
	var ids []uint64
	try := func(what string, id uint64, put func(context.Context) error) {
		ids = append(ids, id)
		ctx, cancel := context.WithTimeout(ctx, liveTimeout)
		defer cancel()
		err := put(ctx)
		tell := l.held.note(id, err, time.Now())
		switch {
		case err == nil, errors.Is(err, errNotBuilt), errors.Is(ctx.Err(), context.Canceled): // as it should be, or the end
		case tell:
			l.logger.Warn("not in force, although it is ready on this node", "what", what, "position", id, "reason", err)
		default:
			l.logger.Debug("not in force yet", "what", what, "position", id, "reason", err)
		}
	}
	pending, lacking, with := catalog.Pending()
	if pending != nil {
		try(fmt.Sprintf("schema %d of type %s", pending.Number, pending.Type), pending.ID, func(ctx context.Context) error {
			if len(lacking) > 0 {
				return l.again(ctx, catalog, lacking)
			}
			return l.enforce(ctx, with, func(built uint64) (event.Command, error) { return fsm.SchemaLiveCommand(pending, built) })
		})
	}
	for _, g := range catalog.Generations() {
		if g.Live > 0 || slices.Contains(with, g) {
			continue
		}
		try("projection "+g.Name, g.ID, func(ctx context.Context) error {
			return l.enforce(ctx, []*projection.Generation{g}, func(built uint64) (event.Command, error) { return fsm.LiveCommand(g, built) })
		})
	}
	l.held.keep(ids)
}

// again defines projections as they are defined already, for the pending schema.
func (l *liver) again(ctx context.Context, c *projection.Catalog, names []string) error {
	var errs []error
	for _, name := range names {
		live, next := c.Find(name)
		if next == nil {
			next = live
		}
		command, err := l.machine.DefineCommand(name, next.Definition().Canonical())
		if err == nil {
			_, err = l.propose(ctx, command)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("define projection %s for it: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// propose returns the outcome of a command that is in the log.
func (l *liver) propose(ctx context.Context, c event.Command) (event.Outcome, error) {
	out, err := l.members.ProposeSystem(ctx, c)
	if err == nil {
		err = refusal(&out)
	}
	return out, err
}

// enforce proposes a command that puts generations in force, if the voters are
// close enough to the head with all of them.
func (l *liver) enforce(ctx context.Context, all []*projection.Generation, command func(built uint64) (event.Command, error)) error {
	head := l.machine.Folded(0).Head
	least := head
	for _, g := range all {
		position, err := l.least(ctx, g)
		if err != nil {
			return err
		}
		least = min(least, position)
	}
	if head-least > liveLag {
		return fmt.Errorf("a voter has built it to position %d of %d", least, head)
	}
	c, err := command(least)
	if err != nil {
		return err
	}
	out, err := l.propose(ctx, c)
	if err != nil {
		return err
	}
	for _, g := range all {
		l.logger.Info("projection is live", "projection", g.Name, "generation", g.ID, "position", out.First)
	}
	return nil
}

// least returns how far every voter that is alive and answers has built a
// generation.
func (l *liver) least(ctx context.Context, g *projection.Generation) (uint64, error) {
	built := l.machine.Folded(g.ID)
	if built.Head-min(built.Position, built.Head) > liveLag {
		return 0, errNotBuilt // no need to ask the others
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var others []*voter
	var asking sync.WaitGroup
	for _, m := range l.members.Status(ctx).Members {
		if m.ID == l.id || m.Role == cluster.RoleNonVoter {
			continue
		}
		v := &voter{id: m.ID, alive: m.Alive && m.HTTP != ""}
		others = append(others, v)
		if v.alive {
			asking.Go(func() { v.built, v.err = l.ask(ctx, m.HTTP, g) })
		}
	}
	asking.Wait()
	return leastOf(built.Position, others)
}

// voter is what another voter answered.
type voter struct {
	id    string
	alive bool // the others are not asked
	built uint64
	err   error // it can't be asked
}

// leastOf returns how far all have built that can be asked: this node, and others
// of the voters. It is an error if some that are alive can't be, and those that
// can are no majority.
func leastOf(own uint64, others []*voter) (uint64, error) {
	least, answered := own, 1
	var errs []error
	for _, v := range others {
		switch {
		case !v.alive:
		case v.err != nil:
			errs = append(errs, fmt.Errorf("ask %s: %w", v.id, v.err))
		default:
			least = min(least, v.built)
			answered++
		}
	}
	if len(errs) > 0 && 2*answered <= len(others)+1 {
		return 0, errors.Join(errs...)
	}
	return least, nil
}

// ask returns how far another node has built a generation.
func (l *liver) ask(ctx context.Context, node string, g *projection.Generation) (uint64, error) {
	target := node + "/v1/projections/" + url.PathEscape(g.Name) + "?consistency=local&failures=false"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return 0, err
	}
	resp, err := l.http.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		return 0, nil // it has not heard of it
	}
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("GET %s: %s", target, resp.Status)
	}
	var s httpapi.ProjectionStatus
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxStatus)).Decode(&s); err != nil {
		return 0, fmt.Errorf("GET %s: %w", target, err)
	}
	if s.Next != nil {
		s = *s.Next
	}
	if s.Generation != g.ID {
		return 0, nil // nor of this generation
	}
	return s.Position, nil
}
