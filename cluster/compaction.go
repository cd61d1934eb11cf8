package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// snapshotPause is the time between two attempts at a snapshot: the state
// machine takes none while it is still writing a savepoint, and Raft none while
// a change of its servers is under way.
const snapshotPause = time.Second

// compact takes a snapshot, after which Raft drops the entries before it,
// whenever so many bytes were written to Raft's log since the last one. The
// library's own trigger counts entries, of which ours hold from one append to
// thousands, and is off.
func (n *Node) compact(ctx context.Context) {
	for {
		select {
		case <-n.log.sizes.full:
		case <-ctx.Done():
			return
		}
		for n.log.sizes.pending() >= n.cfg.SnapshotBytes {
			err := n.snapshot(ctx)
			if err == nil || errors.Is(err, raft.ErrNothingNewToSnapshot) {
				continue
			}
			if ctx.Err() != nil || errors.Is(err, raft.ErrRaftShutdown) {
				return
			}
			n.logger.Debug("no snapshot now", "reason", err)
			select {
			case <-time.After(snapshotPause):
			case <-ctx.Done():
				return
			}
		}
	}
}

// Snapshot has a snapshot taken of what this node has applied, and returns when
// it is complete; at once if Raft has nothing to take one of.
func (n *Node) Snapshot(ctx context.Context) error {
	if !n.gate.enter() {
		return ErrClosed
	}
	defer n.gate.leave()
	for {
		err := n.snapshot(ctx)
		switch {
		case err == nil || errors.Is(err, raft.ErrNothingNewToSnapshot):
			return nil
		case errors.Is(err, raft.ErrRaftShutdown):
			return ErrClosed
		}
		select {
		case <-time.After(snapshotPause / 4): // a savepoint is being written
		case <-ctx.Done():
			return fmt.Errorf("take a snapshot: %w, the last try: %w", ctx.Err(), err)
		}
	}
}

// snapshot has Raft take one and keep entries behind it for the slowest live
// follower, as many as Config.TrailingBytes allow.
func (n *Node) snapshot(ctx context.Context) error {
	select {
	case n.snapshots <- struct{}{}:
		defer func() { <-n.snapshots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	begun := time.Now()
	fresh := n.log.sizes.begin()
	trailing := n.log.sizes.trailing(n.cfg.TrailingBytes, n.members.slowest())
	err := n.reload(func(c *raft.ReloadableConfig) { c.TrailingLogs = trailing })
	if err == nil {
		err = n.waitFuture(ctx, func() raft.Future { return n.raft.Snapshot() })
	}
	if err != nil {
		if !errors.Is(err, raft.ErrNothingNewToSnapshot) {
			n.log.sizes.put(fresh)
		}
		return err
	}
	n.stats.snapshots.Inc()
	n.logger.Info("snapshot taken", "took", time.Since(begun), "log_bytes", fresh, "trailing_entries", trailing)
	return nil
}
