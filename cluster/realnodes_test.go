package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"cairn/event"
)

// gossiping makes a test cluster's nodes find each other by themselves.
func gossiping(t *testing.T, size int) *testCluster {
	t.Helper()
	c := &testCluster{t: t, dir: t.TempDir(), book: &addressBook{addrs: map[raft.ServerID]raft.ServerAddress{}}}
	c.change = func(cfg *Config) {
		cfg.Expect, cfg.members = 3, nil
		if addr, ok := c.book.get(raft.ServerID(cfg.NodeID)); ok {
			cfg.Raft.Bind = string(addr)
		}
		for _, n := range c.nodes {
			if n != nil {
				cfg.Join = append(cfg.Join, n.members.(*membership).gossipAddress())
			}
		}
	}
	t.Cleanup(c.closeAll)
	for range size {
		c.add()
	}
	return c
}

// machineOfMembers is a memMachine that heeds removals.
func machineOfMembers() *memMachine {
	m := newMachine()
	m.onApply = func(logs []*raft.Log) error { // runs under m.mu
		for _, l := range logs {
			if l.Type != raft.LogCommand {
				continue
			}
			entry, err := event.DecodeEntry(l.Data)
			if err != nil {
				return err
			}
			for _, b := range entry.Commands {
				c, err := event.DecodeCommand(b)
				if err != nil {
					return err
				}
				var gone event.MemberRemoved
				if e := c.Append.Events[0]; e.Type == event.TypeMemberRemoved && json.Unmarshal(e.Data, &gone) == nil {
					m.removed[gone.NodeID] = true
				}
			}
		}
		return nil
	}
	return m
}

func (c *testCluster) add() {
	c.t.Helper()
	c.nodes = append(c.nodes, nil)
	c.machines = append(c.machines, machineOfMembers())
	c.snaps = append(c.snaps, raft.NewInmemSnapshotStore())
	c.fatals = append(c.fatals, make(chan error, 16))
	c.start(len(c.nodes) - 1)
}

// members returns the ids of those that a node sees alive, by role.
func (c *testCluster) members(i int) map[Role][]string {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	roles := map[Role][]string{}
	for _, m := range c.nodes[i].Status(ctx).Members {
		if m.Alive {
			roles[m.Role] = append(roles[m.Role], m.ID)
		}
	}
	return roles
}

// leave stops a node. It comes back at another address, but not under the race
// detector: the library reads a server's address without its lock.
func (c *testCluster) leave(i int) {
	c.t.Helper()
	if addr := raft.ServerAddress(c.nodes[i].cfg.Raft.Advertise); raceDetector {
		c.book.set(raft.ServerID(nodeID(i)), addr)
	}
	c.stop(i)
}

// append proposes until it succeeds: the leader may change at any time.
func (c *testCluster) append(i int, id string) {
	c.t.Helper()
	eventually(c.t, "an append through "+nodeID(i), func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), memberDeadline)
		defer cancel()
		out, err := c.nodes[i].Propose(ctx, one(id))
		return err == nil && out.OK()
	})
}

func (c *testCluster) awaitReady(i int) {
	c.t.Helper()
	eventually(c.t, nodeID(i)+" to be ready", func() bool { return c.nodes[i].Ready() == nil })
}

// Both halves of the package together, over TCP, UDP and files: three nodes
// form a cluster, one comes back at other ports, one comes back with an empty
// disk, a fourth is taken in, one is removed.
func TestMembership_RealNodes(t *testing.T) {
	t.Parallel()
	c := gossiping(t, 3)
	for i := range c.nodes {
		c.awaitReady(i)
		c.append(i, nodeID(i))
	}

	c.leave(1)
	c.start(1)
	c.awaitReady(1)
	c.append(1, "back")

	// The old id is refused on an empty disk, a new one is not.
	c.leave(2)
	if err := os.RemoveAll(filepath.Join(c.dir, nodeID(2))); err != nil {
		t.Fatal(err)
	}
	c.machines[2], c.snaps[2] = machineOfMembers(), raft.NewInmemSnapshotStore()
	c.start(2)
	select {
	case err := <-c.fatals[2]:
		if !errors.Is(err, ErrWiped) {
			t.Errorf("the wiped node met %v", err)
		}
	case <-time.After(memberDeadline):
		t.Error("the wiped node goes on under its old id")
	}
	c.stop(2)
	c.add() // node-4

	c.awaitReady(3)
	eventually(t, "node-4 to be a voter", func() bool { return slices.Contains(c.members(0)[RoleVoter], "node-4") })
	c.append(3, "new")

	ctx, cancel := context.WithTimeout(t.Context(), memberDeadline)
	defer cancel()
	if err := c.nodes[0].Remove(ctx, "node-3"); err != nil {
		t.Fatalf("remove the wiped node: %v", err)
	}
	if err := c.nodes[0].Remove(ctx, "node-2"); err != nil {
		t.Fatalf("remove: %v", err)
	}
	select {
	case err := <-c.fatals[1]:
		if !errors.Is(err, ErrRemoved) {
			t.Errorf("the removed node met %v", err)
		}
	case <-time.After(memberDeadline):
		t.Error("the removed node goes on")
	}
	c.append(3, "last")
	if got := c.members(3); len(got[RoleLeader])+len(got[RoleVoter]) != 2 || len(got[RoleNonVoter]) != 0 {
		t.Errorf("members at the end: %v", got)
	}
}
