package cluster

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/raft"
)

// tuning holds the periods and deadlines of the membership half. They decide
// how fast things happen, never whether they are right; tests shorten them.
type tuning struct {
	leaderTick time.Duration // between two rounds of the leader
	busyTick   time.Duration // the same while a member is being taken in
	idleTick   time.Duration // between two rounds of any other node
	formTick   time.Duration // between two attempts to form a cluster
	selfTick   time.Duration // between two looks at our own state machine
	call       time.Duration // a call to a peer
	glance     time.Duration // the calls of one Status
	change     time.Duration // a change of Raft's servers, until it is committed
	remove     time.Duration // Remove, when its context has no deadline
	joinMin    time.Duration // first pause after a seed was not reached
	joinMax    time.Duration // longest pause
	leave      time.Duration // telling the others that we go

	probeInterval  time.Duration // of memberlist, as are the next three
	probeTimeout   time.Duration
	gossipInterval time.Duration
	pushPull       time.Duration
}

func defaultTuning() tuning {
	return tuning{
		leaderTick: time.Second,
		busyTick:   250 * time.Millisecond,
		idleTick:   5 * time.Second,
		formTick:   250 * time.Millisecond,
		selfTick:   200 * time.Millisecond,
		call:       800 * time.Millisecond,
		glance:     400 * time.Millisecond,
		change:     5 * time.Second,
		remove:     15 * time.Second,
		joinMin:    250 * time.Millisecond,
		joinMax:    5 * time.Second,
		leave:      time.Second,

		probeInterval:  500 * time.Millisecond,
		probeTimeout:   250 * time.Millisecond,
		gossipInterval: 100 * time.Millisecond,
		pushPull:       10 * time.Second,
	}
}

// membership is the half of a node that knows who the others are. Gossip only
// proposes: it says who seems to be alive and where. What counts is decided by
// calls to the nodes themselves (forming a cluster, telling two nodes of one id
// apart) and by Raft and the log (who is a member, who was removed).
//
// Goroutines: five loops from start to close, and leaderLoop, which the Raft
// half runs while this node leads. Each waits only with its context.
type membership struct {
	cfg  *Config
	deps membershipDeps
	log  *slog.Logger
	tune tuning
	run  string // random; tells this run of the node from its earlier ones

	roster  *roster
	clock   *clock
	former  *former
	changer *changer

	// Bells that wake the loops; rung on every change of the roster.
	settleBell, joinBell, formBell, roundBell, leaderBell bell

	list    *memberlist.Memberlist // set by start before any loop runs
	cancel  context.CancelFunc     // ends the loops; likewise
	loops   sync.WaitGroup
	gossip  atomic.Pointer[string] // our gossip address, nil before start
	closed  atomic.Bool
	leading atomic.Bool // leaderLoop runs: it makes the rounds

	empty   bool        // this node had no Raft state at start and had pledged nothing; set by start
	checked atomic.Bool // a peer has confirmed that an empty node may be empty

	mu   sync.Mutex
	seen map[string]heard // last answer of each node id; under mu
}

var _ memberships = (*membership)(nil)

// newMembership registers the calls that peers make and starts nothing.
func newMembership(cfg *Config, deps membershipDeps) (*membership, error) {
	var run [8]byte
	_, _ = rand.Read(run[:]) // never fails: crypto/rand ends the process instead
	m := &membership{
		cfg:        cfg,
		deps:       deps,
		log:        cfg.Logger,
		tune:       defaultTuning(),
		run:        hex.EncodeToString(run[:]),
		clock:      newClock(time.Now),
		changer:    newChanger(),
		settleBell: newBell(),
		joinBell:   newBell(),
		formBell:   newBell(),
		roundBell:  newBell(),
		leaderBell: newBell(),
		seen:       map[string]heard{},
	}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	m.roster = newRoster(cfg.NodeID, m.log, m.rosterChanged)
	var store pledgeStore = &memoryPledge{}
	if cfg.StableDB != "" {
		store = filePledge(filepath.Join(filepath.Dir(cfg.StableDB), pledgeFile))
	}
	held, err := store.load()
	if err != nil {
		return nil, fmt.Errorf("read the pledge to form a cluster: %w", err)
	}
	m.former = &former{store: store, held: held}
	// With an id of full length in place of the log's, so that the profile
	// cannot outgrow its room later.
	full := m.profile()
	full.LogID = "00000000-0000-0000-0000-000000000000"
	if size := len(full.encode()); size > memberlist.MetaMaxSize {
		return nil, fmt.Errorf("node id, addresses and version take %d bytes in gossip, at most %d fit", size, memberlist.MetaMaxSize)
	}
	deps.server.handle("status", m.serveStatus)
	deps.server.handle("probe", m.serveProbe)
	deps.server.handle("pledge", m.servePledge)
	deps.server.handle("withdraw", m.serveWithdraw)
	deps.server.handle("remove", m.serveRemove)
	return m, nil
}

// start brings the gossip up and starts the loops. It does not wait for others.
func (m *membership) start(ctx context.Context) error {
	r := m.deps.raft()
	m.empty = !hasState(r) && m.former.pledged() == nil
	m.roster.setLogID(m.deps.sm.LogID())
	// The loops outlive the call of start: only close ends them.
	lifetime, cancel := context.WithCancel(context.WithoutCancel(ctx))
	list, err := m.openGossip(ctx, lifetime)
	if err != nil {
		cancel()
		return err
	}
	own := list.LocalNode().Address()
	m.list, m.cancel = list, cancel
	m.gossip.Store(&own) // peers may ask for it already
	for _, loop := range []func(context.Context){m.settleLoop, m.joinLoop, m.formLoop, m.roundLoop, m.selfLoop} {
		m.loops.Go(func() { loop(lifetime) })
	}
	return nil
}

// close tells the others that this node goes and ends the gossip. The order
// matters: first the loops, because they use the list; then the farewell, which
// needs the list's own goroutines; then those.
func (m *membership) close() error {
	if m.list == nil || m.closed.Swap(true) {
		return nil
	}
	m.cancel()
	m.loops.Wait()
	if err := m.list.Leave(m.tune.leave); err != nil {
		m.log.Debug("left without farewell", "error", err)
	}
	if err := m.list.Shutdown(); err != nil {
		return fmt.Errorf("close gossip: %w", err)
	}
	return nil
}

// rosterChanged is called from memberlist's own goroutines and never blocks.
func (m *membership) rosterChanged() {
	m.settleBell.ring()
	m.joinBell.ring()
	m.formBell.ring()
	m.roundBell.ring()
	m.leaderBell.ring()
}

// address returns where a member's Raft listener is, as gossip knows it.
func (m *membership) address(id raft.ServerID) (raft.ServerAddress, bool) {
	i, ok := m.roster.get(string(id))
	if !ok || i.Raft == "" {
		return "", false
	}
	return raft.ServerAddress(i.Raft), true
}

// tookPart says that this node agreed to form a cluster.
func (m *membership) tookPart() bool { return m.former.tookPart() }

// peers returns the HTTP addresses of the other live members by id.
func (m *membership) peers() map[string]string {
	urls := make(map[string]string)
	for _, i := range m.roster.alive() {
		if i.ID != m.cfg.NodeID && i.HTTP != "" {
			urls[i.ID] = i.HTTP
		}
	}
	return urls
}

// httpURL returns a member's HTTP address, "" if unknown.
func (m *membership) httpURL(id string) string {
	if id == m.cfg.NodeID {
		return m.cfg.HTTP
	}
	if i, ok := m.roster.get(id); ok {
		return i.HTTP
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.seen[id].HTTP
}

// slowAge is how old what was heard of a follower may be to count when entries
// are dropped; the leader asks once a second.
const slowAge = 3 * time.Second

// slowest returns the index of the first entry that some live follower lacks.
func (m *membership) slowest() uint64 {
	r := m.deps.raft()
	if r.State() != raft.Leader {
		return 0
	}
	least := uint64(0)
	list := servers(r)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range list {
		h, ok := m.seen[string(s.ID)]
		if !ok || string(s.ID) == m.cfg.NodeID || time.Since(h.at) > slowAge {
			continue
		}
		if first := h.LastIndex + 1; least == 0 || first < least {
			least = first
		}
	}
	return least
}

// clockStamp returns the leader's time, held back to the voters' median.
func (m *membership) clockStamp() int64 { return m.clock.stamp() }

// selfLoop carries what our own state machine learns to the gossip, and ends
// the node when the log has it down as removed.
func (m *membership) selfLoop(ctx context.Context) {
	told := m.deps.sm.LogID()
	for {
		if m.deps.sm.Removed(m.cfg.NodeID) {
			m.deps.expel(ErrRemoved)
		}
		if id := m.deps.sm.LogID(); id != told {
			told = id
			m.roster.setLogID(id)
			// It queues the news and would then wait until it has gone out
			// several times; we need not.
			if err := m.list.UpdateNode(time.Millisecond); err != nil {
				m.log.Debug("log id is still on its way to the others", "error", err)
			}
		}
		if !pause(ctx, m.tune.selfTick, nil) {
			return
		}
	}
}

// ask calls a peer with JSON both ways.
func (m *membership) ask(ctx context.Context, addr, name string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	reply, err := m.deps.peers.call(ctx, addr, name, body)
	if err != nil {
		return fmt.Errorf("call %s at %s: %w", name, addr, err)
	}
	if err := json.Unmarshal(reply, out); err != nil {
		return fmt.Errorf("answer to %s from %s: %w", name, addr, err)
	}
	return nil
}

// hasState says that Raft holds anything that a node could have promised: an
// entry, a snapshot or a vote. Term 1 without an entry is neither: only a crash
// in the middle of BootstrapCluster leaves it, because elections begin at 2.
func hasState(r *raft.Raft) bool { return r.LastIndex() > 0 || r.CurrentTerm() > 1 }

// servers returns Raft's latest list of servers; it may not be committed yet.
func servers(r *raft.Raft) []raft.Server { return r.GetConfiguration().Configuration().Servers }

// findServer returns the server of an id.
func findServer(list []raft.Server, id string) (raft.Server, bool) {
	for _, s := range list {
		if s.ID == raft.ServerID(id) {
			return s, true
		}
	}
	return raft.Server{}, false
}

// raftWait runs something that returns a future of Raft's and waits for it as
// long as ctx lasts. Both making and awaiting a future may block for ever once
// Raft is shut down, so the goroutine belongs to nobody; it ends when Raft
// answers, at the latest with the process.
func raftWait[F raft.Future](ctx context.Context, start func() F) (F, error) {
	type result struct {
		future F
		err    error
	}
	done := make(chan result, 1)
	go func() {
		f := start()
		done <- result{f, f.Error()}
	}()
	select {
	case r := <-done:
		return r.future, r.err
	case <-ctx.Done():
		var none F
		return none, context.Cause(ctx)
	}
}

// bell wakes one loop: a ring is remembered until the loop looks, more than one
// are one.
type bell chan struct{}

func newBell() bell { return make(bell, 1) }

func (b bell) ring() {
	select {
	case b <- struct{}{}:
	default:
	}
}

// pause waits for d or the bell and reports whether ctx still lasts.
func pause(ctx context.Context, d time.Duration, b bell) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
	case <-b:
	}
	return ctx.Err() == nil
}

// errNotReady is what a peer gets that calls before our Raft runs.
var errNotReady = errors.New("node is starting")
