package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"
)

// caughtUp is how many entries a non-voter may be behind to become a voter.
const caughtUp = 64

// tenure is what a leader remembers from round to round.
type tenure struct {
	near map[string]int  // rounds in a row in which a non-voter was close behind, by id
	told map[change]bool // changes whose failure was logged
}

// leaderLoop keeps Raft's list of servers in step with the members, the clock
// in bounds and the cluster version current, as long as this node leads.
func (m *membership) leaderLoop(ctx context.Context) {
	m.leading.Store(true)
	defer m.leading.Store(false)
	if m.changer.forget(ctx) != nil {
		return
	}
	memory := tenure{near: map[string]int{}, told: map[change]bool{}}
	for {
		seen := m.look(ctx)
		if ctx.Err() != nil {
			return
		}
		m.mindClock(ctx)
		m.countNear(seen, memory.near)
		busy := m.reconcile(ctx, seen, memory)
		if err := m.raiseVersion(ctx, seen); err != nil && ctx.Err() == nil {
			m.log.Warn("cluster version not raised", "error", err)
		}
		wait := m.tune.leaderTick
		if busy {
			wait = m.tune.busyTick
		}
		if !pause(ctx, wait, m.leaderBell) {
			return
		}
	}
}

// mindClock hands leadership over when our clock is off.
func (m *membership) mindClock(ctx context.Context) {
	if !m.clock.tooFarAhead() {
		return
	}
	m.log.Warn("own clock is more than a second ahead of the voters' median, handing over")
	ctx, cancel := context.WithTimeout(ctx, m.tune.change)
	defer cancel()
	if err := m.deps.handover(ctx); err != nil && ctx.Err() == nil {
		m.log.Warn("leadership not handed over", "error", err)
	}
}

// countNear counts, for each non-voter, the rounds in a row in which it was
// close behind. Both measures matter: Raft's index says that the entries were
// handed to the state machine, the command's that they were applied.
func (m *membership) countNear(seen sighting, near map[string]int) {
	command, _ := m.deps.sm.Applied()
	for _, s := range seen.servers {
		id := string(s.ID)
		a, ok := seen.answers[id]
		if s.Suffrage == raft.Voter || !ok || a.Applied+caughtUp < a.asked || a.Command+caughtUp < command {
			delete(near, id)
			continue
		}
		near[id]++
	}
}

// reconcile makes the changes that this round calls for, one after the other,
// each planned from the list that the one before has left. It reports whether
// more is likely to come soon.
func (m *membership) reconcile(ctx context.Context, seen sighting, memory tenure) (busy bool) {
	failed := map[change]bool{}
	for ctx.Err() == nil {
		list := servers(m.deps.raft())
		next, ok := m.plan(list, seen, memory.near, failed)
		if !ok {
			return slices.ContainsFunc(list, func(s raft.Server) bool {
				return s.Suffrage != raft.Voter && seen.answers[string(s.ID)].ID != ""
			})
		}
		if err := m.apply(ctx, next); err != nil {
			failed[next] = true
			if ctx.Err() == nil && !memory.told[next] {
				memory.told[next] = true
				m.log.Warn("change of servers failed", "change", string(next.kind), "id", next.id, "error", err)
			}
			continue
		}
		m.log.Info("servers changed", "change", string(next.kind), "id", next.id, "raft", next.addr)
	}
	return false
}

// changeKind is what a change does to Raft's list of servers.
type changeKind string

const (
	changeRemove  changeKind = "remove"  // the log says that it was removed
	changeMove    changeKind = "move"    // it has another address
	changeVacate  changeKind = "vacate"  // another node lives at its address now
	changeAdd     changeKind = "add"     // as a non-voter
	changePromote changeKind = "promote" // to voter
)

// change is one change of one server.
type change struct {
	kind changeKind
	id   string
	addr string // new address; of promote the present one
}

// plan returns the next change, if any, that did not fail before. It decides
// nothing that others could decide differently at the same time: only the
// leader plans, and apply makes sure that the list is still the one planned on.
func (m *membership) plan(list []raft.Server, seen sighting, near map[string]int, failed map[change]bool) (change, bool) {
	try := func(c change) bool { return !failed[c] }
	for _, s := range list {
		id := string(s.ID)
		if c := (change{kind: changeRemove, id: id}); m.deps.sm.Removed(id) && id != m.cfg.NodeID && try(c) {
			return c, true
		}
	}
	alive := m.roster.alive()
	for _, i := range alive {
		s, ok := findServer(list, i.ID)
		if !ok || string(s.Address) == i.Raft {
			continue
		}
		if c := (change{changeMove, i.ID, i.Raft}); try(c) {
			return m.freeing(list, alive, c), true
		}
	}
	for _, s := range list {
		id := string(s.ID)
		if c := (change{changePromote, id, string(s.Address)}); s.Suffrage != raft.Voter && near[id] >= 2 && try(c) {
			return c, true
		}
	}
	for _, i := range alive {
		if c := (change{changeAdd, i.ID, i.Raft}); m.mayAdd(list, i, seen) && try(c) {
			return m.freeing(list, alive, c), true
		}
	}
	return change{}, false
}

// freeing returns c, or what must come before it. Raft refuses a list with one
// address twice, and a node whose disk was wiped comes back under a new id at
// the address of its old one. That one can't be there any more, so its address
// is replaced by one that nobody has; should it turn up elsewhere, it is moved.
func (m *membership) freeing(list []raft.Server, alive []instance, c change) change {
	for _, s := range list {
		id := string(s.ID)
		if string(s.Address) != c.addr || id == c.id {
			continue
		}
		if !slices.ContainsFunc(alive, func(i instance) bool { return i.ID == id && i.Raft == c.addr }) {
			return change{changeVacate, id, vacant(id)}
		}
	}
	return c
}

// vacant is an address where nobody can be (RFC 6761).
func vacant(id string) string { return id + ".invalid:0" }

// mayAdd says that a node alive in gossip is to become a server. It must answer
// for itself, hold our log or nothing at all, and understand the cluster version
// in force.
func (m *membership) mayAdd(list []raft.Server, i instance, seen sighting) bool {
	a, ok := seen.answers[i.ID]
	if _, listed := findServer(list, i.ID); listed || !ok || a.Run != i.Run || m.deps.sm.Removed(i.ID) {
		return false
	}
	own := m.deps.sm.LogID()
	if own == "" {
		return false // the birth of our log comes first
	}
	if v := m.deps.sm.ClusterVersion(); v < i.Forms[0] || v > i.Forms[1] {
		m.roster.once(i.name+" version", func() {
			m.log.Warn("node not taken in: it does not support the cluster version", "id", i.ID, "cluster_version", v)
		})
		return false
	}
	// Entries but no log id: it was taken in before, by us if its list has one
	// of our servers, and has not applied the log's birth yet.
	ours := a.LogID == own || a.LogID == "" && (a.LastIndex == 0 || slices.ContainsFunc(a.Servers, func(id string) bool {
		_, ok := findServer(list, id)
		return ok
	}))
	if !ours {
		m.roster.once(i.name+" entries", func() {
			m.log.Warn("node not taken in: its Raft log is of another cluster", "id", i.ID, "raft", i.Raft)
		})
	}
	return ours
}

// changer makes changes of Raft's list one at a time.
type changer struct {
	turn chan struct{} // holds one token; who has it may change the list
	// last is the index of the committed list that we know, 0 = unknown.
	// Owned by who has the turn.
	last uint64
}

func newChanger() *changer {
	c := &changer{turn: make(chan struct{}, 1)}
	c.release()
	return c
}

// take waits for the turn; release gives it back.
func (c *changer) take(ctx context.Context) error {
	select {
	case <-c.turn:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *changer) release() { c.turn <- struct{}{} }

// forget is called when leadership begins: another leader may have changed the
// list since.
func (c *changer) forget(ctx context.Context) error {
	if err := c.take(ctx); err != nil {
		return err
	}
	defer c.release()
	c.last = 0
	return nil
}

// apply makes one change and returns when it is committed.
//
// A change waits in Raft until the one before is committed and the leader has
// committed an entry of its term. It may wait across a loss and return of
// leadership, while another leader changes the list; so it names the index of
// the list it was planned on, and Raft refuses it if that is no longer the
// latest. GetConfiguration does not tell the index (it is always 0 in v1.7.3):
// only a change of our own does, so the first one of a leadership is a change of
// nothing.
//
// The library changes a server's address under a lock and reads it without one,
// for some of its log lines. It finds the same id before and after, so the worst
// is a garbled line.
func (m *membership) apply(ctx context.Context, c change) error {
	ctx, cancel := context.WithTimeout(ctx, m.tune.change)
	defer cancel()
	if err := m.changer.take(ctx); err != nil {
		return err
	}
	defer m.changer.release()
	r := m.deps.raft()
	var err error
	if m.changer.last == 0 {
		if m.changer.last, err = awaitChange(ctx, func(t time.Duration) raft.IndexFuture { return r.DemoteVoter("", 0, t) }); err != nil {
			return fmt.Errorf("learn the index of the list of servers: %w", err)
		}
	}
	s, listed := findServer(servers(r), c.id)
	id, addr, last := raft.ServerID(c.id), raft.ServerAddress(c.addr), m.changer.last
	var start func(t time.Duration) raft.IndexFuture
	switch {
	case c.kind == changeRemove:
		if !listed {
			return nil
		}
		start = func(t time.Duration) raft.IndexFuture { return r.RemoveServer(id, last, t) }
	case m.deps.sm.Removed(c.id):
		return ErrRemoved
	case c.kind == changeAdd && listed, c.kind != changeAdd && !listed:
		return errors.New("the list of servers has changed")
	case c.kind == changePromote, c.kind != changeAdd && s.Suffrage == raft.Voter:
		start = func(t time.Duration) raft.IndexFuture { return r.AddVoter(id, addr, last, t) }
	default:
		start = func(t time.Duration) raft.IndexFuture { return r.AddNonvoter(id, addr, last, t) }
	}
	m.changer.last, err = awaitChange(ctx, start)
	return err
}

// awaitChange waits for a change of the list and returns its index, 0 with any
// error: then it is unknown.
func awaitChange(ctx context.Context, start func(time.Duration) raft.IndexFuture) (uint64, error) {
	deadline, _ := ctx.Deadline()
	f, err := raftWait(ctx, func() raft.IndexFuture { return start(max(time.Until(deadline), time.Millisecond)) })
	if err != nil {
		if strings.Contains(err.Error(), "configuration changed since") {
			return 0, errors.New("the list of servers has changed")
		}
		return 0, err
	}
	return f.Index(), nil
}
