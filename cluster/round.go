package cluster

import (
	"context"
	"errors"

	"github.com/hashicorp/raft"
)

// ErrWiped ends a node whose id is a voter's while its own disk is empty: it
// has forgotten its votes, so it must come back under a new id.
var ErrWiped = errors.New("this node's id belongs to a voter but its disk is empty: start it with a new node id")

// sighting is what one look at all nodes has shown.
type sighting struct {
	servers []raft.Server // Raft's list before the nodes were asked
	answers map[string]answer
}

// roundLoop looks at the others from time to time, so that a node that becomes
// leader knows their clocks already, and that a node that was removed while it
// was away learns it. While this node leads, leaderLoop makes the rounds.
func (m *membership) roundLoop(ctx context.Context) {
	for {
		wait := m.tune.idleTick
		if !m.leading.Load() {
			m.look(ctx)
			if !m.clock.known() {
				wait = m.tune.busyTick
			}
		}
		if !pause(ctx, wait, m.roundBell) {
			return
		}
	}
}

// look makes a round: it asks the servers of Raft's list and whoever else is
// alive in gossip.
func (m *membership) look(ctx context.Context) sighting {
	seen := sighting{servers: servers(m.deps.raft())}
	addrs := m.addresses(seen.servers)
	for _, i := range m.roster.alive() {
		addrs[i.ID] = i.Raft
	}
	addrs[m.cfg.NodeID] = m.raftAddress()
	seen.answers = m.askAll(ctx, addrs, m.tune.call)
	m.clock.update(voters(seen.servers), m.cfg.NodeID, seen.answers)
	m.heed(seen.answers)
	return seen
}

// heed ends this node if another one knows that it must not go on. A node that
// was away when it was removed gets nothing from Raft any more: the others must
// tell it.
func (m *membership) heed(answers map[string]answer) {
	own := m.deps.sm.LogID()
	for id, a := range answers {
		if id == m.cfg.NodeID || a.LogID == "" && len(a.Servers) == 0 {
			continue
		}
		if a.LogID != "" && a.Removed && (own == "" || own == a.LogID) {
			m.deps.expel(ErrRemoved)
		}
		// The first node that knows the servers decides, whether or not its log is
		// born. Later on an empty node may well have become a voter.
		if m.empty && !m.checked.Swap(true) && a.Voter && !m.former.tookPart() {
			m.deps.expel(ErrWiped)
		}
	}
}

// voters returns the ids of the voters of a list.
func voters(list []raft.Server) []string {
	var ids []string
	for _, s := range list {
		if s.Suffrage == raft.Voter {
			ids = append(ids, string(s.ID))
		}
	}
	return ids
}
