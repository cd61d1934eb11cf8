package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"cairn/event"
)

// fakeRaft takes entries and answers when it is told to.
type fakeRaft struct {
	mu      sync.Mutex
	flights []*fakeFuture
	arrived chan struct{}
}

type fakeFuture struct {
	data     []byte
	done     chan struct{}
	err      error
	response any
}

func (f *fakeFuture) Error() error  { <-f.done; return f.err }
func (f *fakeFuture) Response() any { return f.response }
func (f *fakeFuture) Index() uint64 { return 0 }

func newFakeRaft() *fakeRaft { return &fakeRaft{arrived: make(chan struct{}, 1000)} }

func (r *fakeRaft) ApplyLog(l raft.Log, _ time.Duration) raft.ApplyFuture {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := &fakeFuture{data: l.Data, done: make(chan struct{})}
	r.flights = append(r.flights, f)
	r.arrived <- struct{}{}
	return f
}

// next waits for the k-th entry.
func (r *fakeRaft) next(k int) *fakeFuture {
	<-r.arrived
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.flights[k]
}

func (f *fakeFuture) accept(t *testing.T) int {
	t.Helper()
	entry, err := event.DecodeEntry(f.data)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]event.Outcome, len(entry.Commands))
	for i, c := range entry.Commands {
		out[i] = event.Outcome{Code: event.Accepted, Reason: string(c)}
	}
	f.response = out
	close(f.done)
	return len(out)
}

func newTestProposer(r applier, flying int) *proposer {
	return newProposer(newQueue(10_000, 1<<20, flying, entryBytes), r, func() int64 { return 42 }, newMetrics())
}

// One entry is under way, all that come meanwhile make the next one; each gets
// its own outcome.
func TestProposer_Coalesces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFakeRaft()
		p := newTestProposer(r, 1)
		var wg sync.WaitGroup
		submit := func(id string) {
			wg.Go(func() {
				tk := ticketOf(id)
				if errs, err := p.submit(context.Background(), tk); errs != nil || err != nil {
					t.Errorf("%s: %v, %v", id, errs, err)
				}
				if got := tk.proposals[0].outcome.Reason; got != id {
					t.Errorf("%s got the outcome of %s", id, got)
				}
			})
		}
		submit("first")
		first := r.next(0)
		for i := range 100 {
			submit(fmt.Sprintf("e%d", i))
		}
		synctest.Wait()
		if n := first.accept(t); n != 1 {
			t.Errorf("%d commands in the first entry", n)
		}
		if n := r.next(1).accept(t); n != 100 {
			t.Errorf("%d commands in the second entry, want 100", n)
		}
		wg.Wait()
		if entry, err := event.DecodeEntry(first.data); err != nil || entry.Time != 42 {
			t.Errorf("the entry is stamped %d, %v", entry.Time, err)
		}
		if err := p.close(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

func TestProposer_Errors(t *testing.T) {
	fsmErr := errors.New("disk full")
	tests := []struct {
		name     string
		err      error
		response any
		written  bool // it may have been
	}{
		{"not leader", raft.ErrNotLeader, nil, false},
		{"transfer", raft.ErrLeadershipTransferInProgress, nil, false},
		{"enqueue", raft.ErrEnqueueTimeout, nil, false},
		{"leadership lost", raft.ErrLeadershipLost, nil, true},
		{"shutdown", raft.ErrRaftShutdown, nil, true},
		{"aborted", raft.ErrAbortedByRestore, nil, true},
		{"any other", errors.New("i/o error"), nil, true},
		{"state machine", nil, fsmErr, true},
		{"wrong response", nil, 7, true},
		{"too few outcomes", nil, []event.Outcome{}, true},
	}
	for _, tt := range tests {
		r := newFakeRaft()
		p := newTestProposer(r, 2)
		done := make(chan error)
		go func() {
			tk := ticketOf("x")
			_, err := p.submit(context.Background(), tk)
			done <- errors.Join(err, tk.proposals[0].err)
		}()
		f := r.next(0)
		f.err, f.response = tt.err, tt.response
		close(f.done)
		err := <-done
		unknown, retry := (*UnknownError)(nil), (*retryError)(nil)
		if errors.As(err, &unknown) != tt.written || errors.As(err, &retry) == tt.written {
			t.Errorf("%s: %v", tt.name, err)
		}
		if tt.err != nil && !errors.Is(err, tt.err) {
			t.Errorf("%s: the cause is lost: %v", tt.name, err)
		}
		if err := p.close(context.Background()); err != nil {
			t.Error(err)
		}
	}
}

// Futures of Raft may never return once it was shut down. Nobody waits for one
// without a context, and closing releases those whose context has no end.
func TestProposer_FutureThatNeverReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFakeRaft()
		p := newTestProposer(r, 2)
		unknown := (*UnknownError)(nil)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if errs, err := p.submit(ctx, ticketOf("patience of a second")); err != nil || !errors.As(errs[0], &unknown) {
			t.Errorf("a caller whose time is up: %v, %v", errs, err)
		}
		released := make(chan error)
		submit := func(tk *ticket) {
			errs, err := p.submit(context.Background(), tk)
			released <- errors.Join(append(errs, err, tk.proposals[0].err)...)
		}
		go submit(ticketOf("sent"))
		synctest.Wait()
		go submit(ticketOf("in the queue"))
		synctest.Wait()
		ctx, cancel = context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		closed := make(chan error)
		go func() { closed <- p.close(ctx) }()
		if retry := (*retryError)(nil); !errors.As(<-released, &retry) {
			t.Error("what was in the queue is not returned as not written")
		}
		if err := <-closed; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("close: %v", err)
		}
		if err := <-released; !errors.As(err, &unknown) {
			t.Errorf("what was sent: %v", err)
		}
		for _, f := range r.flights { // only so that the bubble ends
			close(f.done)
		}
		close(p.flights)
	})
}

// Entries are made in the order of the appends, whoever makes them.
func TestProposer_KeepsOrder(t *testing.T) {
	r := newFakeRaft()
	p := newTestProposer(r, 4)
	var got []string
	seen := make(chan struct{})
	go func() {
		defer close(seen)
		for k := 0; len(got) < 300; k++ {
			f := r.next(k)
			entry, err := event.DecodeEntry(f.data)
			if err != nil {
				t.Error(err)
				return
			}
			for _, c := range entry.Commands {
				got = append(got, string(c))
			}
			f.accept(t)
		}
	}()
	var wg sync.WaitGroup
	for i := range 100 {
		tk := ticketOf(fmt.Sprintf("%03da", i), fmt.Sprintf("%03db", i), fmt.Sprintf("%03dc", i))
		// The next one is put only when this one is in the queue; waiting goes on
		// beside it.
		start, err := p.queue.put(tk)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			if start {
				p.send()
			}
			<-tk.done
		})
	}
	wg.Wait()
	<-seen
	for i := 1; i < len(got); i++ {
		if got[i] <= got[i-1] {
			t.Fatalf("%s was proposed after %s", got[i], got[i-1])
		}
	}
	if err := p.close(context.Background()); err != nil {
		t.Error(err)
	}
}
