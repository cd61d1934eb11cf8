package cluster

import (
	"context"
	"errors"
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
)

// A follower finds out that its leader's process has died long before the
// heartbeat timeout: it keeps a call open that the leader never answers, and
// the operating system breaks it. If the leader's port then refuses a
// connection, nothing there can send a heartbeat any more, and the follower
// shortens its patience to the leader's lease. A leader that is cut off, paused
// or slow refuses nothing: for that one the whole timeout passes. Raft is as
// safe with any timeout; pre-votes keep a follower that is wrong from doing any
// harm.
const (
	callWatch    = "watch"
	watchTimeout = 40 * time.Second // of one call; then the next one is opened
	watchPause   = 50 * time.Millisecond
	// refusedTimeout bounds the question whether the leader's port is closed.
	refusedTimeout = 250 * time.Millisecond
	// hastyLimit is how long a follower stays impatient without a new leader.
	hastyLimit = 5 * time.Second
)

// watchLeader watches over whoever leads, until ctx ends.
func (n *Node) watchLeader(ctx context.Context) {
	for ctx.Err() == nil {
		v := n.views.load()
		if v.forward == nil {
			_ = n.views.await(ctx, v, watchTimeout) // the loop looks at ctx
			continue
		}
		if n.leaderDied(ctx, v) {
			n.hasten(ctx, v)
		}
		_ = n.views.await(ctx, v, watchPause)
	}
}

// leaderDied returns false when the leader of a view is no longer the leader,
// ends the call itself, or may be alive.
func (n *Node) leaderDied(ctx context.Context, v *view) bool {
	watch, cancel := context.WithTimeout(ctx, watchTimeout)
	defer cancel()
	stop := make(chan struct{})
	defer close(stop)
	n.running.Go(func() {
		select {
		case <-v.changed:
			cancel()
		case <-stop:
		}
	})
	_, err := n.peers.call(watch, v.forward.addr(), callWatch, nil)
	if err == nil || watch.Err() != nil {
		return false
	}
	probe, cancel := context.WithTimeout(ctx, refusedTimeout)
	defer cancel()
	_, err = n.peers.call(probe, v.forward.addr(), callTerm, []byte(v.leader))
	return errors.Is(err, syscall.ECONNREFUSED)
}

// serveWatch answers nothing for as long as the caller waits.
func (n *Node) serveWatch(ctx context.Context, _ []byte) ([]byte, error) {
	select {
	case <-ctx.Done():
	case <-n.ending.Done():
	}
	return nil, nil
}

// hasten lets this node call an election when the lease of a dead leader is
// over, instead of one to two heartbeat timeouts after its last message, and
// keeps it impatient until somebody leads. A random part keeps the followers
// from all doing so at once.
func (n *Node) hasten(ctx context.Context, dead *view) {
	lease := n.cfg.LeaseTimeout
	hasty := min(lease+time.Millisecond+rand.N(lease/4), n.cfg.HeartbeatTimeout)
	n.logger.Info("leader died", "leader", string(dead.leader))
	n.setPatience(hasty)
	defer n.setPatience(0)
	// Raft looks at the timeout when its timer rings or when it is told of a
	// shorter one. Telling it when the time is up spares the rest of its timer.
	if n.views.await(ctx, dead, hasty-time.Since(n.raft.LastContact())) != nil {
		return
	}
	n.setPatience(hasty - time.Millisecond)
	limit := time.Now().Add(hastyLimit)
	for v := n.views.load(); time.Now().Before(limit); v = n.views.load() {
		if v.open() || v.leader != "" && v.leader != dead.leader || n.views.await(ctx, v, watchPause) != nil {
			return
		}
	}
}

// setPatience sets the time after which this node calls an election; 0 is that
// of the configuration.
func (n *Node) setPatience(d time.Duration) {
	err := n.reload(func(c *raft.ReloadableConfig) {
		c.HeartbeatTimeout, c.ElectionTimeout = d, d
		if d == 0 {
			c.HeartbeatTimeout, c.ElectionTimeout = n.cfg.HeartbeatTimeout, n.cfg.ElectionTimeout
		}
	})
	if err != nil {
		n.logger.Warn("raft does not take a timeout", "timeout", d, "error", err)
	}
}

// reload changes some of what Raft lets one change while it runs.
func (n *Node) reload(change func(*raft.ReloadableConfig)) error {
	n.reloads.Lock()
	defer n.reloads.Unlock()
	c := n.raft.ReloadableConfig()
	change(&c)
	return n.raft.ReloadConfig(c)
}
