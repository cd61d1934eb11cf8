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
	// liveTimeout bounds asking the voters, and the proposal.
	liveTimeout = 2 * time.Second
	// maxStatus bounds what is read of a voter's answer, in bytes: two definitions
	// and some failures.
	maxStatus = 1 << 20
)

// liver puts the generations of projections in force, on the leader, once the
// voters that are alive have built them.
type liver struct {
	machine *fsm.Machine
	members *cluster.Node
	id      string
	http    *http.Client
	logger  *slog.Logger
	cancel  context.CancelFunc
	done    sync.WaitGroup
}

func startLiver(l *liver) *liver {
	var ctx context.Context
	ctx, l.cancel = context.WithCancel(context.Background())
	l.http = &http.Client{Timeout: liveTimeout}
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
			continue
		}
		if err := l.look(ctx); err != nil && ctx.Err() == nil {
			l.logger.Debug("a projection does not go live yet", "reason", err)
		}
	}
}

// look puts in force what is built. If it comes to nothing, the next look tries
// again.
func (l *liver) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, liveTimeout)
	defer cancel()
	catalog := l.machine.Catalog()
	pending, lacking, with := catalog.Pending()
	var errs []error
	for _, name := range lacking {
		errs = append(errs, l.again(ctx, catalog, name))
	}
	if pending != nil && len(lacking) == 0 {
		errs = append(errs, l.enforce(ctx, with, func(built uint64) (event.Command, error) { return fsm.SchemaLiveCommand(pending, built) }))
	}
	for _, g := range catalog.Generations() {
		if g.Live == 0 && !slices.Contains(with, g) {
			errs = append(errs, l.enforce(ctx, []*projection.Generation{g}, func(built uint64) (event.Command, error) { return fsm.LiveCommand(g, built) }))
		}
	}
	return errors.Join(errs...)
}

// again defines a projection as it is defined already, for the pending schema.
func (l *liver) again(ctx context.Context, c *projection.Catalog, name string) error {
	live, next := c.Find(name)
	if next == nil {
		next = live
	}
	command, err := l.machine.DefineCommand(name, next.Definition().Canonical())
	if err != nil {
		return err
	}
	_, err = l.members.ProposeSystem(ctx, command)
	return err
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
		return nil
	}
	c, err := command(least)
	if err != nil {
		return err
	}
	out, err := l.members.ProposeSystem(ctx, c)
	if err == nil && out.OK() {
		for _, g := range all {
			l.logger.Info("projection is live", "projection", g.Name, "generation", g.ID, "position", out.First)
		}
	}
	return err
}

// least returns how far every voter that is alive has built a generation.
func (l *liver) least(ctx context.Context, g *projection.Generation) (uint64, error) {
	built := l.machine.Folded(g.ID)
	least := built.Position
	if built.Head-min(least, built.Head) > liveLag {
		return least, nil // no need to ask the others
	}
	for _, m := range l.members.Status(ctx).Members {
		if m.ID == l.id || m.Role == cluster.RoleNonVoter || !m.Alive || m.HTTP == "" {
			continue
		}
		position, err := l.ask(ctx, m.HTTP, g)
		if err != nil {
			return 0, err
		}
		least = min(least, position)
	}
	return least, nil
}

// ask returns how far another node has built a generation.
func (l *liver) ask(ctx context.Context, node string, g *projection.Generation) (uint64, error) {
	target := node + "/v1/projections/" + url.PathEscape(g.Name) + "?consistency=local"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return 0, err
	}
	resp, err := l.http.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
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
		return 0, nil // it has not heard of it
	}
	return s.Position, nil
}
