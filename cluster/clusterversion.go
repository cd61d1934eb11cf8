package cluster

import (
	"context"
	"fmt"

	"cairn/event"
)

// The cluster versions whose forms this program writes and reads.
const (
	oldestClusterVersion = event.ClusterVersionFirst
	newestClusterVersion = event.ClusterVersionNewest
)

// nextClusterVersion returns the version to raise the cluster to: one above the
// current one, when every member supports that. One step at a time, so that
// each step has to be safe only from the one before.
func nextClusterVersion(current uint32, supported [][2]uint32) (uint32, bool) {
	if current == 0 || len(supported) == 0 {
		return 0, false
	}
	next := current + 1
	for _, forms := range supported {
		if next < forms[0] || next > forms[1] {
			return 0, false
		}
	}
	return next, true
}

// raiseVersion proposes the next cluster version when every server of Raft's
// list, non-voters too, is alive in gossip with a program that supports it. One
// that is away could be an older program, and that one would have to exit.
func (m *membership) raiseVersion(ctx context.Context, seen sighting) error {
	var supported [][2]uint32
	for _, s := range seen.servers {
		i, ok := m.roster.get(string(s.ID))
		if !ok || !i.alive {
			return nil
		}
		supported = append(supported, i.Forms)
	}
	next, ok := nextClusterVersion(m.deps.sm.ClusterVersion(), supported)
	if !ok {
		return nil
	}
	c, err := event.SystemCommand(event.StreamLog, event.TypeClusterVersion, event.ClusterVersion{Version: next})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, m.tune.change)
	defer cancel()
	out, err := m.deps.proposeSystem(ctx, c)
	if err != nil {
		return fmt.Errorf("raise the cluster version to %d: %w", next, err)
	}
	if !out.OK() {
		return fmt.Errorf("raise the cluster version to %d: refused: %s", next, out.Reason)
	}
	m.log.Info("cluster version raised", "version", next)
	return nil
}
