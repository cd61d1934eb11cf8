package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// maxAppendEntries bounds one Raft message, together with entryBytes.
	maxAppendEntries = 32
	// neverSnapshot turns the library's own snapshots off.
	neverSnapshot = 10 * 365 * 24 * time.Hour
	// handOverTimeout is how long Close tries to hand leadership over.
	handOverTimeout = 3 * time.Second
	// endTimeout is how long Close waits for what should end at once.
	endTimeout = 5 * time.Second
)

// errBehind is why Ready is not nil before the node has caught up.
var errBehind = errors.New("has not yet applied what was committed when it started")

// Node is one member of a cluster. Its methods may be called concurrently; after
// Close they return ErrClosed.
type Node struct {
	cfg    Config
	sm     StateMachine
	logger *slog.Logger
	stats  *metrics
	fatal  *fatal

	stores  *stores
	log     *logStore
	cache   *logCache
	network Network
	peers   *peerClient
	server  *peerServer
	raft    *raft.Raft
	members memberships
	voters  atomic.Pointer[memberships] // members once it is there, for the goroutine that guards votes

	views       *views
	leadership  *leadership
	proposer    *proposer
	localReads  *readRounds
	remoteReads *readRounds
	commands    *commandFinder
	transfers   chan struct{} // holds a token while leadership is handed over: one at a time
	reloads     sync.Mutex    // one change of Raft's configuration at a time
	snapshots   chan struct{} // holds a token while a snapshot is taken: one at a time
	caughtUp    atomic.Bool
	running     sync.WaitGroup // goroutines that end with ending or with stopped
	futures     atomic.Int64   // goroutines that wait for Raft
	gate        gate           // calls of this node's methods
	served      gate           // calls of peers
	ending      context.Context
	end         context.CancelFunc
	stopped     chan struct{} // closed when outcomes are no longer waited for
	closeOnce   sync.Once
	closeErr    error
	unregister  func() // metrics; nil if none are registered
}

// Start runs a node: it checks what the disk holds, opens Raft's files and the
// listener, starts Raft and the membership, and returns. Ready says when the
// node may be used. ctx bounds the start, not the node. A StartError means that
// the node must not start on this data.
func Start(ctx context.Context, cfg Config, sm StateMachine, snaps raft.SnapshotStore) (*Node, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	n := &Node{
		cfg: cfg, sm: sm, logger: cfg.Logger, stats: newMetrics(), fatal: newFatal(cfg.OnFatal, cfg.Logger),
		server: newPeerServer(), leadership: newLeadership(), stopped: make(chan struct{}), transfers: make(chan struct{}, 1), snapshots: make(chan struct{}, 1),
	}
	n.ending, n.end = context.WithCancel(context.Background())
	n.views = newViews(raft.ServerID(cfg.NodeID), n.newForwarder, n.ending.Done())
	steps := []func(context.Context, raft.SnapshotStore) error{
		n.startStores, n.startNetwork, n.startRaft, n.startLoops, n.startMembers,
	}
	for _, step := range steps {
		if err := step(ctx, snaps); err != nil {
			return nil, errors.Join(err, n.undo())
		}
	}
	return n, nil
}

// startStores opens Raft's files and brings them and the state machine together.
func (n *Node) startStores(_ context.Context, snaps raft.SnapshotStore) error {
	s, err := openStores(&n.cfg, n.fatal, n.stats)
	if err != nil {
		return err
	}
	n.stores, n.log, n.cache = s, s.log, s.cache
	if err := prepare(&n.cfg, s, n.sm, snaps); err != nil {
		return err
	}
	s.log.sizes.setLimit(n.cfg.SnapshotBytes)
	n.commands = &commandFinder{log: s.cache, applied: n.sm.Applied}
	return nil
}

// startNetwork opens the listener, so that the address is known to all that
// follow, and makes the membership half, which registers its handlers.
func (n *Node) startNetwork(context.Context, raft.SnapshotStore) error {
	o := NetworkOptions{
		NodeID: n.cfg.NodeID, Raft: n.cfg.Raft, Secret: n.cfg.Secret, Logger: n.logger,
		LogID: n.sm.LogID, Address: n.memberAddress, Offer: n.offer,
	}
	last, err := n.log.LastIndex()
	if err != nil {
		return err
	}
	if index, _ := n.sm.Durable(); last == 0 && index == 0 {
		o.MayVote = n.mayVote
	}
	if n.cfg.Network != nil {
		n.network, err = n.cfg.Network(o)
	} else {
		n.network, err = openTCPNetwork(o)
	}
	if err != nil {
		return err
	}
	n.cfg.Raft.Advertise = string(n.network.Transport().LocalAddr())
	n.peers = &peerClient{n.network}
	n.server.handle(callTerm, n.serveTerm)
	n.server.handle(callReadIndex, n.serveReadIndex)
	n.server.handle(callForward, n.serveForward)
	n.server.handle(callTransfer, n.serveTransfer)
	n.server.handle(callWatch, n.serveWatch)
	n.server.handle(callOffer, n.serveOffer)
	n.members, err = n.cfg.members(&n.cfg, membershipDeps{
		raft:          func() *raft.Raft { return n.raft },
		sm:            n.sm,
		peers:         n.peers,
		server:        n.server,
		proposeSystem: n.proposeSystem,
		handover:      n.giveUpLeadership,
		expel:         n.fatal.expel,
	})
	n.server.seal()
	if err == nil {
		n.voters.Store(&n.members)
	}
	return err
}

// mayVote keeps a node whose disk was empty at its start from voting before it
// has entries. It may be a voter that was wiped and came back under its old id:
// an empty log loses to every candidate's, and so might help one to win that
// lacks what this node once acknowledged. Such a node is found out and ends, but
// only after it has met the others. One that agreed to form a cluster may vote.
func (n *Node) mayVote() bool {
	last, err := n.log.LastIndex()
	former := n.voters.Load()
	return err == nil && last > 0 || former != nil && (*former).tookPart()
}

// startRaft starts Raft itself. It may apply entries before this returns.
func (n *Node) startRaft(_ context.Context, snaps raft.SnapshotStore) error {
	n.localReads, n.remoteReads = &readRounds{run: n.readLocal}, &readRounds{run: n.readRemote}
	machine := &replica{StateMachine: n.sm, fatal: n.fatal, stores: n.log.stores.Load, stats: n.stats}
	r, err := raft.NewRaft(n.raftConfig(), machine, n.cache, n.stores.stable, namedSnapshots{snaps}, n.network.Transport())
	if err != nil {
		return fmt.Errorf("start Raft: %w", err)
	}
	n.raft = r
	// The filter runs on Raft's own goroutine at each change of leader, so no
	// notice is ever lost.
	r.RegisterObserver(raft.NewObserver(nil, false, func(o *raft.Observation) bool {
		if _, ok := o.Data.(raft.LeaderObservation); ok {
			n.views.refresh(r.LeaderWithID)
		}
		return false
	}))
	q := &queue{
		maxCount: n.cfg.QueueAppends, maxBytes: n.cfg.QueueBytes, maxFlying: n.cfg.InFlight, batch: entryBytes,
		closed: true, // until this node leads
	}
	n.proposer = newProposer(q, r, n.members.clockStamp, n.stats)
	return n.registerMetrics(n.cfg.Registerer)
}

func (n *Node) raftConfig() *raft.Config {
	return &raft.Config{
		ProtocolVersion:          raft.ProtocolVersionMax,
		LocalID:                  raft.ServerID(n.cfg.NodeID),
		HeartbeatTimeout:         n.cfg.HeartbeatTimeout,
		ElectionTimeout:          n.cfg.ElectionTimeout,
		LeaderLeaseTimeout:       n.cfg.LeaseTimeout,
		CommitTimeout:            n.cfg.CommitTimeout,
		MaxAppendEntries:         maxAppendEntries,
		BatchApplyCh:             true,
		ShutdownOnRemove:         false,
		NoSnapshotRestoreOnStart: true, // start.go has seen to it
		SnapshotInterval:         neverSnapshot,
		SnapshotThreshold:        math.MaxUint64,
		TrailingLogs:             0, // set before each snapshot
		NoLegacyTelemetry:        true,
		NotifyCh:                 n.leadership.notices,
		Logger:                   newRaftLogger(n.logger, "raft"),
	}
}

// startLoops starts the goroutines of this half.
func (n *Node) startLoops(context.Context, raft.SnapshotStore) error {
	n.views.refresh(n.raft.LeaderWithID) // the observer is younger than Raft
	n.running.Go(func() { n.leadership.drain(n.ending) })
	n.running.Go(func() { n.follow(n.ending) })
	n.running.Go(func() { n.compact(n.ending) })
	n.running.Go(func() { n.watchLeader(n.ending) })
	n.running.Go(func() { n.catchUp(n.ending) })
	n.network.Serve(n.serve)
	return nil
}

func (n *Node) startMembers(ctx context.Context, _ raft.SnapshotStore) error {
	return n.members.start(ctx)
}

// serve runs a call of a peer.
func (n *Node) serve(ctx context.Context, name string, body []byte) ([]byte, error) {
	if !n.served.enter() {
		return nil, ErrClosed
	}
	defer n.served.leave()
	return n.server.serve(ctx, name, body)
}

// memberAddress returns where gossip has a member.
func (n *Node) memberAddress(id raft.ServerID) (raft.ServerAddress, bool) {
	if n.members == nil { // the transport is older than the membership
		return "", false
	}
	return n.members.address(id)
}

// peerAddress returns where to call a server.
func (n *Node) peerAddress(id raft.ServerID, fallback raft.ServerAddress) string {
	if addr, ok := n.members.address(id); ok {
		return string(addr)
	}
	return string(fallback)
}

// catchUp notes when the node has applied what was committed when it started.
func (n *Node) catchUp(ctx context.Context) {
	for ctx.Err() == nil {
		err := n.readIndex(ctx)
		if err == nil {
			n.caughtUp.Store(true)
			_, position := n.sm.Applied()
			n.logger.Info("caught up", "position", position)
			return
		}
		n.logger.Debug("not caught up", "reason", err)
		select {
		case <-time.After(longestPause):
		case <-ctx.Done():
		}
	}
}

// Ready returns nil when the node may be sent traffic: it has applied what was
// committed when it started, and knows a leader. Else it says what is missing.
func (n *Node) Ready() error {
	switch {
	case n.ending.Err() != nil:
		return ErrClosed
	case n.fatal.check() != nil:
		return errEnded
	case !n.caughtUp.Load():
		return errBehind
	}
	if v := n.views.load(); v.forward == nil && !v.open() {
		return ErrNoLeader
	}
	return nil
}

// Leader returns id and HTTP URL of the node that leads, as far as this one
// knows; both are "" if it does not.
func (n *Node) Leader() (id, httpURL string) {
	v := n.views.load()
	if v.leader == "" {
		return "", ""
	}
	return string(v.leader), n.members.httpURL(string(v.leader))
}

// Peers returns the HTTP URLs of the other nodes that gossip knows to be alive,
// by node id.
func (n *Node) Peers() map[string]string { return n.members.peers() }

// Status describes the cluster as this node sees it.
func (n *Node) Status(ctx context.Context) Status { return n.members.status(ctx) }

// Remove takes a member out of the cluster for good.
func (n *Node) Remove(ctx context.Context, id string) error {
	if !n.gate.enter() {
		return ErrClosed
	}
	defer n.gate.leave()
	return n.members.remove(ctx, id)
}

// giveUpLeadership hands leadership over if this node has it.
func (n *Node) giveUpLeadership(ctx context.Context) error {
	if !n.views.load().open() {
		return nil
	}
	return n.handOver(ctx, "")
}

// Close stops the node. It hands leadership over first, so that the others need
// not wait for an election, and lets calls under way end as long as ctx allows;
// then their outcome is unknown. The state machine and the snapshot store are
// the caller's to close afterwards.
func (n *Node) Close(ctx context.Context) error {
	n.closeOnce.Do(func() { n.closeErr = n.shutDown(ctx) })
	return n.closeErr
}

func (n *Node) shutDown(ctx context.Context) error {
	// While this node hands over it still takes appends: they are sent on as soon
	// as the next leader is known.
	hand, cancel := context.WithTimeout(ctx, handOverTimeout)
	defer cancel()
	if err := n.giveUpLeadership(hand); err != nil {
		n.logger.Info("closing without handing leadership over", "reason", err)
	}
	n.gate.close()
	settle, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	if err := n.gate.wait(settle); err != nil {
		n.logger.Warn("closing with calls under way", "error", err)
	}
	return n.undo()
}

// undo ends what Start began, in reverse. Each step may find that its
// counterpart was never reached.
func (n *Node) undo() error {
	var errs []error
	within := func(f func(ctx context.Context) error) {
		ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
		defer cancel()
		errs = append(errs, f(ctx))
	}
	if n.members != nil {
		errs = append(errs, n.members.close())
	}
	n.end()
	n.views.close()
	if n.proposer != nil {
		within(n.proposer.close)
	}
	close(n.stopped)
	if !n.gate.closed {
		n.gate.close()
	}
	within(n.gate.wait)
	var shut raft.Future
	if n.raft != nil {
		within(n.awaitFutures)
		shut = n.raft.Shutdown()
	}
	n.served.close()
	// Before Raft's end is waited for: its goroutines may hang in messages to
	// nodes that can't be reached.
	if n.network != nil {
		errs = append(errs, n.network.Close())
	}
	if shut != nil {
		within(func(ctx context.Context) error { return awaitShut(ctx, shut) })
	}
	within(n.served.wait)
	n.running.Wait()
	if n.unregister != nil {
		n.unregister()
	}
	if n.stores != nil {
		errs = append(errs, n.stores.close())
	}
	return errors.Join(errs...)
}

// awaitFutures waits for Raft to answer what it was asked, which it may never do
// once it is shut down.
func (n *Node) awaitFutures(ctx context.Context) error {
	for n.futures.Load() > 0 {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			n.logger.Warn("raft leaves futures without an answer", "count", n.futures.Load())
			return nil
		}
	}
	return nil
}

// awaitShut waits for Raft's goroutines. One that hangs in a disk write is left
// behind: the process is about to end.
func awaitShut(ctx context.Context, shut raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- shut.Error() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("shut Raft down: %w", ctx.Err())
	}
}
