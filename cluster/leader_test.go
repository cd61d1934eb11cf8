package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// Appends go on while leadership moves around: each is accepted, once, whichever
// node it was sent to, and none ends with an unknown outcome.
func TestTransfer_LosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, 3, nil)
		defer c.closeAll()
		ctx, stop := context.WithCancel(context.Background())
		var clients sync.WaitGroup
		accepted := make([][]string, 6)
		for k := range accepted {
			clients.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					id := fmt.Sprintf("%d-%d", k, i)
					out, err := c.nodes[k%3].Propose(context.Background(), one(id))
					if err != nil || !out.OK() {
						t.Errorf("%s: %+v, %v", id, out, err)
						return
					}
					accepted[k] = append(accepted[k], id)
					time.Sleep(3 * time.Millisecond)
				}
			})
		}
		for range 4 {
			old := c.leader()
			to := (old + 1) % 3
			asked := c.nodes[(old+2)%3] // any node may be asked
			if err := asked.Transfer(ctx, nodeID(to)); err != nil {
				t.Fatalf("transfer to %s: %v", nodeID(to), err)
			}
			if got := c.leader(); got != to {
				t.Errorf("%s leads, want %s", nodeID(got), nodeID(to))
			}
			time.Sleep(50 * time.Millisecond)
		}
		stop()
		clients.Wait()
		if err := c.nodes[0].ReadIndex(context.Background()); err != nil {
			t.Fatal(err)
		}
		got, want := c.machines[0].events(), slices.Concat(accepted...)
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%d events for %d appends", len(got), len(want))
		}
		if c.machines[0].births != 1 {
			t.Errorf("the log was born %d times", c.machines[0].births)
		}
	})
}

// A leader that stops does not hand over to a node that has died.
func TestTransfer_PicksOneThatLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for dead := range 2 {
			c := newMemCluster(t, 3, nil)
			c.propose(0, "x")
			time.Sleep(time.Second) // all have everything
			l := c.leader()
			gone, lives := (l+1+dead)%3, (l+2-dead)%3
			c.hub.setCut(nodeID(gone), true)
			if err := c.nodes[l].Transfer(context.Background(), ""); err != nil {
				t.Errorf("transfer with %s gone: %v", nodeID(gone), err)
			}
			if !c.nodes[lives].views.load().open() {
				time.Sleep(50 * time.Millisecond)
			}
			if v := c.nodes[lives].views.load(); !v.open() {
				t.Errorf("%s does not lead: %+v", nodeID(lives), v)
			}
			c.hub.setCut(nodeID(gone), false)
			c.closeAll()
		}
	})
}

func TestTransfer_UnknownTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, 3, nil)
		defer c.closeAll()
		l := c.leader()
		for i := range c.nodes {
			if err := c.nodes[i].Transfer(context.Background(), "nobody"); !errors.Is(err, ErrUnknownMember) {
				t.Errorf("transfer to nobody, asked of %s: %v", nodeID(i), err)
			}
			// To the one that leads there is nothing to do.
			if err := c.nodes[i].Transfer(context.Background(), nodeID(l)); err != nil {
				t.Errorf("transfer to the leader, asked of %s: %v", nodeID(i), err)
			}
			if got := c.leader(); got != l {
				t.Fatalf("%s leads, want %s", nodeID(got), nodeID(l))
			}
		}
		c.propose(l, "still leading")
	})
}

// A transfer to a node that hangs fails, and the leader goes on. One that Raft
// never gets out of (hashicorp/raft#696) ends the process, because until then
// nobody can write.
func TestTransfer_Watchdog(t *testing.T) {
	// Not in a bubble: the library's goroutine never ends.
	c := newMemCluster(t, 3, func(_ int, cfg *Config) {
		cfg.StallTimeout, cfg.HeartbeatTimeout, cfg.LeaseTimeout = time.Second, 300*time.Millisecond, 300*time.Millisecond
	})
	defer c.testCluster.closeAll()
	l := c.leader()
	hung := (l + 1) % 3
	n := c.nodes[l]
	c.hub.freeze(nodeID(hung))
	defer c.hub.thaw(nodeID(hung))
	c.propose(l, "not on the one that hangs")
	ctx := context.Background()
	if err := n.Transfer(ctx, nodeID(hung)); err == nil {
		t.Fatal("leadership went to a node that hangs")
	}
	c.propose(l, "after a transfer that failed")
	if err := n.Transfer(ctx, nodeID(hung)); err == nil {
		t.Fatal("leadership went to a node that hangs")
	}
	// Raft now waits for the follower's goroutine, for ever.
	select {
	case err := <-c.fatals[l]:
		if !strings.Contains(err.Error(), "transfer has been in progress") {
			t.Errorf("fatal error: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("a transfer is in progress for ever, and the node lives on")
	}
	// The process would be gone by now. Were the other one to ask for a vote
	// while this Raft still runs, it would panic: it can't store a term any more.
	ending, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_ = n.Close(ending) // its Raft can't end cleanly
	c.nodes[l] = nil
}

// A new leader takes no appends before it has applied what was committed before
// it led, so that its checks and reads are not of the past.
func TestLead_WaitsForTheBarrier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, 3, nil)
		defer c.closeAll()
		old := c.leader()
		next := (old + 1) % 3
		hold := make(chan struct{})
		c.machines[next].mu.Lock()
		c.machines[next].hold = hold
		c.machines[next].mu.Unlock()
		c.propose(old, "x")
		time.Sleep(100 * time.Millisecond) // it has the entry, but does not apply it
		if err := c.nodes[old].Transfer(context.Background(), nodeID(next)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if c.nodes[next].raft.State() != raft.Leader {
			t.Fatal("it does not lead")
		}
		if c.nodes[next].views.load().open() {
			t.Error("takes appends before it has applied what was committed")
		}
		close(hold)
		if got := c.leader(); got != next {
			t.Errorf("%s leads", nodeID(got))
		}
	})
}

// NotifyCh blocks Raft when it is not drained, even while this half is busy with
// an earlier change.
func TestLeadership_Drains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeadership()
		ctx, cancel := context.WithCancel(context.Background())
		go l.drain(ctx)
		for i := range 100 {
			l.notices <- i%2 == 0
		}
		synctest.Wait()
		if leads, change := l.latest(); leads || change != 100 {
			t.Errorf("leads %v after %d changes", leads, change)
		}
		cancel()
	})
}

// waitFuture never waits longer than its context, whatever Raft does.
func TestWaitFuture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &Node{}
		n.ending, n.end = context.WithCancel(context.Background())
		f := &fakeFuture{done: make(chan struct{})}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := n.waitFuture(ctx, func() raft.Future { return f }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		if n.futures.Load() != 1 {
			t.Error("the goroutine that waits is not counted")
		}
		close(f.done)
		synctest.Wait()
		if n.futures.Load() != 0 {
			t.Error("the goroutine that waited is still counted")
		}
		n.end()
		err := n.waitFuture(context.Background(), func() raft.Future { t.Error("asked for while closing"); return f })
		if !errors.Is(err, ErrClosed) {
			t.Errorf("while closing: %v", err)
		}
	})
}

// One transfer at a time; who waits for another one's end does so as long as it
// has time.
func TestTransfer_WaitsForAnotherWithinItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, 3, nil)
		defer c.closeAll()
		leader := c.nodes[c.leader()]
		leader.transfers <- struct{}{}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := leader.Transfer(ctx, ""); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("beside another transfer: %v", err)
		}
		<-leader.transfers
		if err := leader.Transfer(context.Background(), ""); err != nil {
			t.Errorf("after it: %v", err)
		}
	})
}
