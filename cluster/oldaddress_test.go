package cluster

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// Raft sends a voter's messages to its address. Another node that listens there
// now, such as one whose disk was wiped and that has a new id, must not get
// them: it would be counted as the voter it was, without its votes and entries.
func TestMembership_NewNodeAtOldAddress(t *testing.T) {
	t.Parallel()
	c := gossiping(t, 3)
	for i := range c.nodes {
		c.awaitReady(i)
	}
	if err := c.nodes[c.leader()].Transfer(t.Context(), "node-1"); err != nil && c.leader() != 0 {
		t.Fatal(err)
	}
	eventually(t, "node-1 leads", func() bool { return c.leader() == 0 })
	addr := c.nodes[2].cfg.Raft.Advertise
	c.stop(2)
	change := c.change
	c.change = func(cfg *Config) {
		change(cfg)
		cfg.Raft.Bind, cfg.Join = addr, []string{"127.0.0.1:1"} // where nobody is
	}
	c.add() // node-4
	refused := make(chan raft.Observation)
	o := raft.NewObserver(refused, true, func(o *raft.Observation) bool {
		f, ok := o.Data.(raft.FailedHeartbeatObservation)
		return ok && f.PeerID == "node-3"
	})
	c.nodes[0].raft.RegisterObserver(o)
	defer c.nodes[0].raft.DeregisterObserver(o)
	for range 5 {
		select {
		case <-refused:
		case <-time.After(memberDeadline):
			t.Fatal("node-1 reaches node-3, which is not there")
		}
	}
	if r := c.nodes[3].raft; r.LastIndex() != 0 || r.CurrentTerm() != 0 {
		t.Errorf("node-4 was taken for node-3: last index %d, term %d", r.LastIndex(), r.CurrentTerm())
	}
}
