package cluster

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// view is what a node knows at one moment about who leads. A view never
// changes: when something does, a new one takes its place and changed is
// closed.
type view struct {
	leader raft.ServerID      // "" = unknown
	addr   raft.ServerAddress // of the leader, as Raft was told
	// term is not 0 while this node leads, has applied all that was committed
	// before it did, and takes appends.
	term    uint64
	forward *forwarder // to the leader; nil if that is unknown or this node
	changed chan struct{}
}

// open reports whether this node takes appends as the leader.
func (v *view) open() bool { return v.term != 0 }

// views holds the current view. Raft's goroutines and the leader's loop change
// it, anybody reads it.
type views struct {
	self    raft.ServerID
	forward func(addr raft.ServerAddress, id raft.ServerID) *forwarder
	ending  <-chan struct{} // closed when the node ends

	mu      sync.Mutex // makes changes one by one
	former  []*view    // under mu; those whose forwarders may have something under way still
	current atomic.Pointer[view]
}

func newViews(self raft.ServerID, forward func(raft.ServerAddress, raft.ServerID) *forwarder, ending <-chan struct{}) *views {
	v := &views{self: self, forward: forward, ending: ending}
	v.current.Store(&view{changed: make(chan struct{})})
	return v
}

func (v *views) load() *view { return v.current.Load() }

// refresh takes up what Raft says about who leads. It runs on Raft's main
// goroutine at each change, and does not block. It asks under the lock, so that
// the last one to ask is the one who knows best.
func (v *views) refresh(leader func() (raft.ServerAddress, raft.ServerID)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	addr, id := leader()
	old := v.load()
	if old.leader == id && old.addr == addr {
		return
	}
	next := &view{leader: id, addr: addr}
	if id == v.self {
		next.term = old.term
	} else if id != "" {
		next.forward = v.forward(addr, id)
	}
	v.replaceLocked(old, next)
}

// open says that this node takes appends as the leader of a term; 0 says that
// it no longer does.
func (v *views) open(term uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	old := v.load()
	if old.term == term || term != 0 && old.leader != v.self {
		return // no longer the leader, by the time it was ready to be
	}
	v.replaceLocked(old, &view{leader: old.leader, addr: old.addr, term: term, forward: old.forward})
}

func (v *views) replaceLocked(old, next *view) {
	next.changed = make(chan struct{})
	v.current.Store(next)
	if old.forward != nil && old.forward != next.forward {
		old.forward.shut()
		v.former = append(v.former, old)
	}
	close(old.changed)
	if next.leader == "" {
		return // the old one may lead on: what it has may yet be decided
	}
	v.former = slices.DeleteFunc(v.former, func(f *view) bool {
		other := f.leader != next.leader || f.addr != next.addr // at another address it is another process
		if other {
			f.forward.abandon()
		}
		return other || f.forward.queue.idle()
	})
}

// close ends the last forwarder.
func (v *views) close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if f := v.load().forward; f != nil {
		f.shut()
	}
}

// await returns when old is no longer the current view or when d has passed; or
// with the error of ctx, or ErrClosed when the node ends. A node that knows no
// leader has nothing to do but wait, so d is only there for what the view can't
// tell.
func (v *views) await(ctx context.Context, old *view, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-old.changed:
		return nil
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-v.ending:
		return ErrClosed
	}
}
