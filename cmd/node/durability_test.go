package main

import (
	"testing"
	"time"
)

// counters adds up counters over the lives of processes, which begin at zero
// each.
type counters struct {
	sum  map[string]float64
	last map[*process]map[string]float64
}

func newCounters() *counters {
	return &counters{map[string]float64{}, map[*process]map[string]float64{}}
}

// look notes the counters of the nodes that run.
func (c *counters) look(nodes []*process) {
	for _, p := range nodes {
		now := p.metrics()
		for name, v := range now {
			if before := c.last[p][name]; v > before {
				c.sum[name] += v - before
			}
		}
		c.last[p] = now
	}
}

// ended forgets where a node's counters stood.
func (c *counters) ended(p *process) { delete(c.last, p) }

// The leader is killed again and again under load, then all three nodes at
// once. Nothing that was acknowledged may be lost, doubled or moved.
func TestProcess_KillLeaderUnderLoad(t *testing.T) {
	rounds := 10
	if testing.Short() {
		rounds = 3
	}
	c := newCluster(t, 3, small...)
	c.up()
	seen := newCounters()
	l := startLoad(t, c, 16, 4*time.Millisecond)
	for range rounds {
		l.progress(200)
		seen.look(c.nodes)
		leader := c.leader()
		leader.kill()
		seen.ended(leader)
		l.progress(100)
		leader.start()
		leader.waitReady()
	}
	l.progress(200)
	seen.look(c.nodes)
	for _, p := range c.nodes {
		p.kill()
		seen.ended(p)
	}
	c.up()
	l.progress(200)
	l.stop()
	seen.look(c.nodes)
	l.checkNodes()
	for _, p := range c.nodes {
		p.stop()
	}
	n := sameLogs(t, c.nodes)
	for _, name := range []string{"cairn_log_rolls_total", "cairn_savepoints_total", "cairn_raft_snapshots_total"} {
		t.Logf("%s: %.0f", name, seen.sum[name])
		if seen.sum[name] == 0 {
			t.Errorf("%s is zero: this run did not test what it is for", name)
		}
	}
	t.Logf("%d segments are the same on all nodes", n)
}
