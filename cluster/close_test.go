package cluster

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// A node that stops hands leadership over first: appends through the others go
// on without an election, and those through itself are still answered.
func TestClose_HandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// With this timeout no election, however hasty, is over within 100 ms.
		c := newMemCluster(t, 3, func(_ int, cfg *Config) { cfg.HeartbeatTimeout = 400 * time.Millisecond })
		defer c.closeAll()
		l := c.leader()
		f := (l + 1) % 3
		closed := make(chan struct{})
		leaving := c.nodes[l]
		c.nodes[l] = nil
		begun := time.Now()
		go func() {
			defer close(closed)
			if err := leaving.Close(context.Background()); err != nil {
				t.Errorf("close: %v", err)
			}
		}()
		longest := time.Duration(0)
		for i := 0; time.Since(begun) < time.Second; i++ {
			sent := time.Now()
			if _, err := c.nodes[f].Propose(context.Background(), one(fmt.Sprint(i))); err != nil {
				t.Fatalf("append %d: %v", i, err)
			}
			longest = max(longest, time.Since(sent))
			time.Sleep(time.Millisecond)
		}
		if longest >= 100*time.Millisecond {
			t.Errorf("an append took %s while the leader stopped", longest)
		}
		<-closed
		if _, err := leaving.Propose(context.Background(), one("late")); !errors.Is(err, ErrClosed) {
			t.Errorf("propose on a closed node: %v", err)
		}
		if err := leaving.ReadIndex(context.Background()); !errors.Is(err, ErrClosed) {
			t.Errorf("read index on a closed node: %v", err)
		}
		if err := leaving.Ready(); !errors.Is(err, ErrClosed) {
			t.Errorf("a closed node: %v", err)
		}
		if err := leaving.Close(context.Background()); err != nil {
			t.Errorf("closed again: %v", err)
		}
	})
}

// Without a majority Close does not hang, and who waits learns that the outcome
// is unknown or that nothing was written.
func TestClose_WithoutMajority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, 3, nil)
		defer c.closeAll()
		l := c.leader()
		for i := range c.nodes {
			if i != l {
				c.hub.setCut(nodeID(i), true)
			}
		}
		n := c.nodes[l]
		c.nodes[l] = nil
		result := make(chan error)
		go func() {
			_, err := n.Propose(context.Background(), one("x"))
			result <- err
		}()
		begun := time.Now()
		if err := n.Close(context.Background()); err != nil {
			t.Errorf("close: %v", err)
		}
		if took := time.Since(begun); took > 8*time.Second {
			t.Errorf("close took %s", took)
		}
		if err := <-result; err == nil {
			t.Error("an append without a majority was accepted")
		}
		// One that waits for a leader is told at once, and was not written.
		f := (l + 1) % 3
		n, c.nodes[f] = c.nodes[f], nil
		time.Sleep(time.Second)
		go func() {
			_, err := n.Propose(context.Background(), one("y"))
			result <- err
		}()
		synctest.Wait()
		go func() {
			if err := n.Close(context.Background()); err != nil {
				t.Errorf("close: %v", err)
			}
		}()
		if err := <-result; !errors.Is(err, ErrClosed) {
			t.Errorf("an append that waited for a leader while the node closed: %v", err)
		}
	})
}

// After the leader has died the next append through another node succeeds when
// the others have elected one, and nothing that was acknowledged is lost.
func TestFailover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, 3, func(_ int, cfg *Config) { cfg.HeartbeatTimeout = 400 * time.Millisecond })
		defer c.closeAll()
		for i := range 20 {
			c.propose(i%3, fmt.Sprint(i))
		}
		l := c.leader()
		dead := c.nodes[l]
		c.hub.setCut(nodeID(l), true)
		begun := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		out, err := c.nodes[(l+1)%3].Propose(ctx, one("after"))
		if err != nil || !out.OK() {
			t.Fatalf("%+v, %v", out, err)
		}
		t.Logf("the next append succeeded after %s", time.Since(begun))
		for i := range c.nodes {
			if i == l {
				continue
			}
			if err := c.nodes[i].ReadIndex(ctx); err != nil {
				t.Fatal(err)
			}
			if got := len(c.machines[i].events()); got != 21 {
				t.Errorf("%s has %d events", nodeID(i), got)
			}
		}
		// The old leader can't say anything about reads or appends meanwhile.
		short, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
		defer cancel()
		if err := dead.ReadIndex(short); !errors.Is(err, ErrNoLeader) && !errors.Is(err, ErrTimeout) {
			t.Errorf("read index on the one that was cut off: %v", err)
		}
		c.hub.setCut(nodeID(l), false)
		if err := dead.ReadIndex(ctx); err != nil {
			t.Errorf("read index when it is back: %v", err)
		}
	})
}

// A leader whose process dies is replaced much sooner than the heartbeat timeout
// alone would have it, and then the followers are as patient as before.
func TestFailover_KilledLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const heartbeat = 400 * time.Millisecond
		c := newMemCluster(t, 3, func(_ int, cfg *Config) { cfg.HeartbeatTimeout = heartbeat })
		defer c.closeAll()
		c.propose(0, "before")
		time.Sleep(time.Second)
		l := c.leader()
		c.hub.kill(nodeID(l))
		begun := time.Now()
		survivor := c.nodes[(l+1)%3]
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if out, err := survivor.Propose(ctx, one("after")); err != nil || !out.OK() {
			t.Fatalf("%+v, %v", out, err)
		}
		if took := time.Since(begun); took > 2*heartbeat {
			t.Errorf("the next append took %s", took)
		}
		time.Sleep(time.Second)
		for i, n := range c.nodes {
			if got := n.raft.ReloadableConfig().HeartbeatTimeout; i != l && got != heartbeat {
				t.Errorf("%s stays impatient: %s", nodeID(i), got)
			}
		}
	})
}

// A leader that is merely cut off refuses no connection: nobody gets impatient.
func TestFailover_CutOffLeaderIsNotDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, 3, nil)
		defer c.closeAll()
		l := c.leader()
		time.Sleep(time.Second)
		v := c.nodes[(l+1)%3].views.load()
		c.hub.setCut(nodeID(l), true)
		if c.nodes[(l+1)%3].leaderDied(context.Background(), v) {
			t.Error("a leader that can't be reached is taken for dead")
		}
		c.hub.setCut(nodeID(l), false)
	})
}

func TestPropose_NoLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, 3, nil)
		defer c.closeAll()
		l := c.leader()
		for i := range c.nodes {
			c.hub.setCut(nodeID(i), true)
		}
		time.Sleep(2 * time.Second)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		begun := time.Now()
		_, err := c.nodes[l].Propose(ctx, one("x"))
		if !errors.Is(err, ErrNoLeader) || time.Since(begun) != time.Second {
			t.Errorf("after %s: %v", time.Since(begun), err)
		}
		if unknown := (*UnknownError)(nil); errors.As(err, &unknown) {
			t.Errorf("the outcome of what was never sent is unknown: %v", err)
		}
		if err := c.nodes[l].Ready(); !errors.Is(err, ErrNoLeader) {
			t.Errorf("a node without a leader: %v", err)
		}
	})
}

func TestPropose_Overloaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, 3, nil)
		defer c.closeAll()
		l := c.leader()
		c.machines[l].mu.Lock()
		c.machines[l].busy = true
		c.machines[l].mu.Unlock()
		for i := range c.nodes {
			if _, err := c.nodes[i].Propose(context.Background(), one("x")); !errors.Is(err, ErrOverloaded) {
				t.Errorf("through %s: %v", nodeID(i), err)
			}
		}
	})
}
