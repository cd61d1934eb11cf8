package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"cairn/event"
)

const (
	// callTransfer asks the leader to hand leadership over.
	callTransfer = "transfer"
	// drainTimeout is how long a transfer waits for entries under way; those
	// that are not done by then end with an unknown outcome.
	drainTimeout = 2 * time.Second
	// pickTimeout is how long a transfer waits for the voters to say how far they
	// are.
	pickTimeout = 300 * time.Millisecond
	// probePause is the time between two looks at a transfer that failed.
	probePause = 100 * time.Millisecond
)

// leadership follows Raft's notices of winning and losing an election. Raft
// blocks until a notice is taken, so one goroutine does nothing else, and makes
// no calls of Raft; another one acts on the latest.
type leadership struct {
	notices chan bool     // Raft's NotifyCh
	changed chan struct{} // has room for one token

	mu     sync.Mutex
	leads  bool   // under mu; the latest notice
	change uint64 // under mu; how many there were
}

func newLeadership() *leadership {
	return &leadership{notices: make(chan bool, 8), changed: make(chan struct{}, 1)}
}

// drain takes notices until ctx ends.
func (l *leadership) drain(ctx context.Context) {
	for {
		select {
		case leads := <-l.notices:
			l.mu.Lock()
			l.leads = leads
			l.change++
			l.mu.Unlock()
			select {
			case l.changed <- struct{}{}:
			default:
			}
		case <-ctx.Done():
			return
		}
	}
}

func (l *leadership) latest() (leads bool, change uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leads, l.change
}

// follow runs lead whenever this node is the leader, once for each election it
// has won, and ends it when leadership is lost.
func (n *Node) follow(ctx context.Context) {
	stop := func() {}
	seen := uint64(0)
	for {
		select {
		case <-n.leadership.changed:
		case <-ctx.Done():
			stop()
			return
		}
		leads, change := n.leadership.latest()
		if change == seen {
			continue
		}
		seen = change
		stop() // even if this node leads again: it is another term
		stop = func() {}
		n.stats.elections.Inc()
		if leads {
			stop = n.startLeading(ctx)
		}
	}
}

// startLeading runs lead on a goroutine of its own and returns what ends it.
func (n *Node) startLeading(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.lead(ctx)
	}()
	return func() {
		cancel()
		n.views.open(0)
		n.proposer.queue.shut()
		<-done
	}
}

// lead makes this node ready to take appends and reads, which it is when it has
// applied all that was committed before it was elected, and then looks after
// the members until ctx ends.
func (n *Node) lead(ctx context.Context) {
	term, err := n.takeOver(ctx)
	if err != nil {
		if ctx.Err() == nil {
			n.logger.Warn("could not take over as leader", "error", err)
		}
		return
	}
	n.logger.Info("leading", "term", term)
	n.views.open(term)
	n.members.leaderLoop(ctx)
}

// takeOver applies a barrier and, on an empty log, its birth. Losing leadership
// ends ctx, so that it tries for as long as it makes sense.
func (n *Node) takeOver(ctx context.Context) (term uint64, err error) {
	for {
		if term, err = n.barrier(ctx); err == nil {
			n.proposer.queue.reopen()
			if err = n.giveBirth(ctx); err == nil {
				return term, nil
			}
			n.proposer.queue.shut()
		}
		if ctx.Err() != nil || !n.transient(err) {
			return 0, err
		}
		select {
		case <-time.After(probePause):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// transient reports whether a leader that could not take over should try again
// before it has lost its leadership.
func (n *Node) transient(err error) bool {
	return !errors.Is(err, raft.ErrRaftShutdown) && n.fatal.check() == nil && n.raft.State() == raft.Leader
}

// barrier returns the term that this node led in before and after it had
// applied everything in the log.
func (n *Node) barrier(ctx context.Context) (uint64, error) {
	term := n.raft.CurrentTerm()
	if err := n.waitFuture(ctx, func() raft.Future { return n.raft.Barrier(enqueueTimeout) }); err != nil {
		return 0, fmt.Errorf("barrier: %w", err)
	}
	if !n.leads(term) {
		return 0, errDeposed
	}
	return term, nil
}

// giveBirth proposes the log's first event if there is none. Two leaders may
// both have proposed it: the state machine takes the first.
func (n *Node) giveBirth(ctx context.Context) error {
	if n.sm.LogID() != "" {
		return nil
	}
	birth := event.LogCreated{
		LogID:          event.NewID(),
		SegmentSize:    n.cfg.SegmentSize,
		ClusterVersion: newestClusterVersion,
	}
	c, err := event.SystemCommand(event.StreamLog, event.TypeLogCreated, birth)
	if err != nil {
		return err
	}
	results := [1]Result{}
	n.submit(ctx, n.proposer, [][]byte{event.EncodeCommand(nil, &c)}, []int{0}, results[:])
	if r := &results[0]; r.Err != nil {
		return fmt.Errorf("birth of the log: %w", r.Err)
	} else if !r.Outcome.OK() {
		return fmt.Errorf("birth of the log: refused: %s", r.Outcome.Reason)
	}
	n.logger.Info("log created", "log", n.sm.LogID(), "segment_size", n.cfg.SegmentSize)
	return nil
}

// waitFuture asks Raft for something and waits for it, but no longer than ctx
// allows: once Raft is shut down most futures never come. Close waits for those
// that were asked for before.
func (n *Node) waitFuture(ctx context.Context, ask func() raft.Future) error {
	n.futures.Add(1) // before the check, so that Close either sees it or is seen
	if n.ending.Err() != nil {
		n.futures.Add(-1)
		return ErrClosed
	}
	done := make(chan error, 1)
	go func() {
		defer n.futures.Add(-1)
		done <- ask().Error()
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Transfer hands leadership over to a voter, or to any one if to is "". Any node
// may be asked. When it returns nil, this node knows that another one leads.
func (n *Node) Transfer(ctx context.Context, to string) error {
	if !n.gate.enter() {
		return ErrClosed
	}
	defer n.gate.leave()
	v := n.views.load()
	if v.forward == nil {
		return n.handOver(ctx, to)
	}
	_, err := n.peers.call(ctx, v.forward.addr(), callTransfer, []byte(to))
	if p := (*PeerError)(nil); errors.As(err, &p) && p.Code == codeUnknownMember {
		return fmt.Errorf("%w: %s", ErrUnknownMember, p.Message)
	}
	return err
}

func (n *Node) serveTransfer(ctx context.Context, body []byte) ([]byte, error) {
	err := n.handOver(ctx, string(body))
	if errors.Is(err, ErrUnknownMember) {
		err = &PeerError{Code: codeUnknownMember, Message: err.Error()}
	}
	return nil, err
}

// handOver is Transfer on the leader. It first stops taking appends and lets
// those under way finish: an entry that the next leader commits would leave its
// clients here without an outcome.
func (n *Node) handOver(ctx context.Context, to string) error {
	select {
	case n.transfers <- struct{}{}:
		defer func() { <-n.transfers }()
	case <-ctx.Done():
		return fmt.Errorf("%w: another transfer is under way: %w", ErrTimeout, ctx.Err())
	}
	v := n.views.load()
	if !v.open() {
		return ErrNoLeader
	}
	if to == n.cfg.NodeID {
		return nil // as asked for
	}
	target, err := n.transferTarget(ctx, to)
	if err != nil {
		return err
	}
	n.views.open(0)
	n.proposer.queue.shut()
	drain, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	if err := n.proposer.drain(drain); err != nil {
		n.logger.Warn("handing over with entries under way", "error", err)
	}
	err = n.waitFuture(ctx, func() raft.Future { return n.raft.LeadershipTransferToServer(target.ID, target.Address) })
	if err == nil {
		err = n.awaitOther(ctx)
	}
	if err != nil {
		n.running.Go(func() { n.resume(v.term) })
		return fmt.Errorf("hand leadership over: %w", err)
	}
	return nil
}

// transferTarget finds the voter to hand over to. Left the choice, it takes the
// one with the longest log among those that answer; Raft would take one that
// had the longest when it was last heard of, and may have died since.
func (n *Node) transferTarget(ctx context.Context, to string) (raft.Server, error) {
	servers := n.raft.GetConfiguration()
	if err := servers.Error(); err != nil {
		return raft.Server{}, err
	}
	var others []raft.Server
	for _, s := range servers.Configuration().Servers {
		if s.ID == raft.ServerID(n.cfg.NodeID) || s.Suffrage != raft.Voter {
			continue
		}
		if string(s.ID) == to {
			return s, nil
		}
		others = append(others, s)
	}
	if to != "" {
		return raft.Server{}, fmt.Errorf("%w: no voter %s", ErrUnknownMember, to)
	}
	return n.longestLog(ctx, others)
}

func (n *Node) longestLog(ctx context.Context, servers []raft.Server) (best raft.Server, err error) {
	ctx, cancel := context.WithTimeout(ctx, pickTimeout)
	defer cancel()
	answers := make([]voterState, len(servers))
	var asked sync.WaitGroup
	for i, s := range servers {
		asked.Go(func() { answers[i] = n.askVoter(ctx, s) })
	}
	asked.Wait()
	longest := uint64(0)
	for i, a := range answers {
		if a.last > longest {
			best, longest = servers[i], a.last
		}
	}
	if longest == 0 {
		return best, errors.New("no other voter answers")
	}
	return best, nil
}

// awaitOther waits until another node is known to lead.
func (n *Node) awaitOther(ctx context.Context) error {
	for {
		v := n.views.load()
		if v.forward != nil {
			return nil
		}
		if v.open() {
			return errors.New("this node was elected again")
		}
		if err := n.views.await(ctx, v, probePause); err != nil {
			return err
		}
	}
}

// resume takes appends again after a transfer that came to nothing, and ends
// the node if Raft does not: a transfer may stay "in progress" for ever
// (hashicorp/raft#696), and until the process ends nobody could write.
func (n *Node) resume(term uint64) {
	ctx, cancel := context.WithTimeout(n.ending, n.cfg.StallTimeout)
	defer cancel()
	for {
		err := n.waitFuture(ctx, func() raft.Future { return n.raft.Barrier(enqueueTimeout) })
		switch {
		case err == nil && n.leads(term):
			n.proposer.queue.reopen()
			n.views.open(term)
			return
		case n.ending.Err() != nil:
			return
		case !n.leads(term):
			// Another leader's affair, unless this node was elected again before
			// it closed itself.
			if term = n.raft.CurrentTerm(); !n.leads(term) {
				return
			}
		case ctx.Err() != nil:
			_ = n.fatal.fail(fmt.Errorf("a leadership transfer has been in progress for more than %s", n.cfg.StallTimeout))
			return
		}
		select {
		case <-time.After(probePause):
		case <-ctx.Done():
		}
	}
}
