package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"cairn/bug"
)

// A linearizable read needs an index that is at least the commit index at some
// moment after it began. The leader of term T has it if it still leads at such
// a moment, and that is what it must prove: VerifyLeader does not, since it
// counts non-voters and answers to messages that were sent before the read.
//
//  1. on winning term T the leader applies a barrier, so that its commit index
//     covers all that earlier terms committed (leader.go)
//  2. it captures c, its commit index
//  3. after that it asks the voters for their terms. When a majority, itself
//     included, is still in T, no later leader had been elected at 2, and so
//     nobody else had committed anything
//  4. the answer is the last *command* at or before c, because no-ops, barriers
//     and configurations never reach the state machine
//
// Readers are batched: while one round runs the next one gathers.
const (
	callTerm      = "term"
	callReadIndex = "read-index"
	// roundTimeout bounds one round; the reader tries again until its own time
	// is up.
	roundTimeout = 2 * time.Second
)

var (
	errDeposed   = errors.New("no longer the leader")
	errNoQuorum  = errors.New("no majority of the voters answers")
	errOtherNode = errors.New("another node answers at this address")
)

// readRounds batches callers: each joins a round that begins after it came.
type readRounds struct {
	run func() (uint64, error)

	mu      sync.Mutex
	next    *readRound // under mu; gathering, not begun
	running bool       // under mu
}

type readRound struct {
	done  chan struct{} // closed when index and err are set
	index uint64
	err   error
}

// join returns a round that has not begun, and starts it when the one before
// has ended. start runs a function on a goroutine that the caller owns.
func (r *readRounds) join(start func(func())) *readRound {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next == nil {
		r.next = &readRound{done: make(chan struct{})}
	}
	joined := r.next
	if !r.running {
		r.running = true
		start(r.loop)
	}
	return joined
}

func (r *readRounds) loop() {
	for {
		r.mu.Lock()
		begun := r.next
		r.next = nil
		r.running = begun != nil
		r.mu.Unlock()
		if begun == nil {
			return
		}
		begun.index, begun.err = r.run()
		close(begun.done)
	}
}

// ReadIndex returns nil when the local state machine has applied everything
// that was acknowledged anywhere before the call. It tries again while no
// leader answers, until ctx ends or, without a deadline, for
// Config.ProposeTimeout; then ErrNoLeader or ErrTimeout.
func (n *Node) ReadIndex(ctx context.Context) error {
	if !n.gate.enter() {
		return ErrClosed
	}
	defer n.gate.leave()
	if bug.Is(bug.StaleReads) {
		return nil
	}
	return n.readIndex(ctx)
}

// readIndex is ReadIndex for the node itself: Close does not wait for it.
func (n *Node) readIndex(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.ProposeTimeout) // an earlier deadline of ctx stays
	defer cancel()
	defer context.AfterFunc(n.ending, cancel)()
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		v := n.views.load()
		index, err := n.askReadIndex(ctx, v)
		if err == nil {
			if err = n.sm.WaitIndex(ctx, index); err == nil {
				return nil
			}
			if ctx.Err() == nil {
				return fmt.Errorf("wait for index %d: %w", index, err)
			}
		}
		if cause := n.views.await(ctx, v, pause); cause != nil {
			if n.ending.Err() != nil {
				cause = ErrClosed // which has ended ctx too
			}
			return n.tooLate(cause, err)
		}
	}
}

// askReadIndex joins a round here, if this node leads, else one that asks the
// leader.
func (n *Node) askReadIndex(ctx context.Context, v *view) (uint64, error) {
	r := n.remoteReads
	switch {
	case v.open():
		r = n.localReads
	case v.forward == nil:
		return 0, ErrNoLeader
	}
	joined := r.join(func(f func()) { n.running.Go(f) })
	select {
	case <-joined.done:
		return joined.index, joined.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// readRemote is a round of a follower.
func (n *Node) readRemote() (uint64, error) {
	v := n.views.load()
	if v.forward == nil {
		return 0, ErrNoLeader
	}
	ctx, cancel := context.WithTimeout(n.ending, roundTimeout)
	defer cancel()
	// A leader that hangs must not hold up readers once another one leads.
	done := make(chan struct{})
	defer close(done)
	n.running.Go(func() {
		select {
		case <-v.changed:
			cancel()
		case <-done:
		}
	})
	b, err := n.peers.call(ctx, v.forward.addr(), callReadIndex, nil)
	if err != nil {
		return 0, err
	}
	if len(b) != 8 {
		return 0, errors.New("malformed read index")
	}
	return binary.LittleEndian.Uint64(b), nil
}

// serveReadIndex answers a follower's round.
func (n *Node) serveReadIndex(ctx context.Context, _ []byte) ([]byte, error) {
	if !n.views.load().open() {
		return nil, ErrNoLeader
	}
	joined := n.localReads.join(func(f func()) { n.running.Go(f) })
	select {
	case <-joined.done:
		return binary.LittleEndian.AppendUint64(nil, joined.index), joined.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// readLocal is a round of the leader, steps 2 to 4.
func (n *Node) readLocal() (uint64, error) {
	n.stats.readRounds.Inc()
	term := n.views.load().term
	if term == 0 || !n.leads(term) {
		return 0, errDeposed
	}
	committed := n.raft.CommitIndex()
	if bug.Is(bug.NoReadRound) {
		return n.lastCommand(committed)
	}
	if err := n.confirmTerm(term); err != nil {
		return 0, err
	}
	return n.lastCommand(committed)
}

func (n *Node) leads(term uint64) bool {
	return n.raft.State() == raft.Leader && n.raft.CurrentTerm() == term
}

// confirmTerm returns nil when a majority of the voters, this node included,
// says that its term is the given one and none says that it is in a later one.
// Every answer is given after the call began.
func (n *Node) confirmTerm(term uint64) error {
	servers := n.raft.GetConfiguration() // a copy that is there: it never waits
	if err := servers.Error(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(n.ending, roundTimeout)
	defer cancel()
	voters, agree := 0, 0
	terms := make(chan uint64, len(servers.Configuration().Servers)) // has room for all: a late answer blocks nobody
	for _, s := range servers.Configuration().Servers {
		switch {
		case s.Suffrage != raft.Voter:
			continue
		case s.ID == raft.ServerID(n.cfg.NodeID):
			if !n.leads(term) {
				return errDeposed
			}
			agree++
		default:
			n.running.Go(func() { terms <- n.askVoter(ctx, s).term })
		}
		voters++
	}
	for left := voters - agree; agree <= voters/2; left-- {
		if left == 0 {
			return errNoQuorum
		}
		select {
		case t := <-terms:
			if t > term {
				return errDeposed
			}
			if t == term {
				agree++
			}
		case <-ctx.Done():
			return errNoQuorum
		}
	}
	return nil
}

// voterState is what a voter says of itself: 16 bytes, little-endian. It is zero
// of one that does not answer.
type voterState struct {
	term uint64
	last uint64 // index of its last entry
}

func (n *Node) askVoter(ctx context.Context, s raft.Server) voterState {
	b, err := n.peers.call(ctx, n.peerAddress(s.ID, s.Address), callTerm, []byte(s.ID))
	if err != nil || len(b) != 16 {
		n.logger.Debug("a voter does not say its term", "node_id", string(s.ID), "error", err)
		return voterState{}
	}
	return voterState{term: binary.LittleEndian.Uint64(b), last: binary.LittleEndian.Uint64(b[8:])}
}

// serveTerm tells this node's state to a leader that means this node: after a
// change of addresses it may have reached the wrong one.
func (n *Node) serveTerm(_ context.Context, body []byte) ([]byte, error) {
	if string(body) != n.cfg.NodeID {
		return nil, errOtherNode
	}
	b := binary.LittleEndian.AppendUint64(nil, n.raft.CurrentTerm())
	return binary.LittleEndian.AppendUint64(b, n.raft.LastIndex()), nil
}

// commandFinder translates a committed index into that of the last command at
// or before it. What is committed never changes, so it remembers one answer.
type commandFinder struct {
	log     raft.LogStore
	applied func() (index, position uint64)

	mu    sync.Mutex
	upTo  uint64 // under mu; a committed index
	found uint64 // under mu; its last command
}

// find walks back over entries that are no commands.
func (f *commandFinder) find(committed uint64) (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var l raft.Log
	for i := committed; i > 0; i-- {
		if i == f.upTo {
			return f.rememberLocked(committed, f.found), nil
		}
		err := f.log.GetLog(i, &l)
		if errors.Is(err, raft.ErrLogNotFound) {
			break
		}
		if err != nil {
			return 0, err
		}
		if l.Type == raft.LogCommand {
			return f.rememberLocked(committed, i), nil
		}
	}
	// No command since the log was compacted: all there are have been applied.
	// A later one that was applied too is committed, and will do as well.
	index, _ := f.applied()
	if index <= committed {
		f.rememberLocked(committed, index)
	}
	return index, nil
}

func (f *commandFinder) rememberLocked(committed, found uint64) uint64 {
	if committed > f.upTo {
		f.upTo, f.found = committed, found
	}
	return found
}

func (n *Node) lastCommand(committed uint64) (uint64, error) { return n.commands.find(committed) }
