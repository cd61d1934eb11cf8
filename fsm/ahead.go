package fsm

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	eventlog "cairn/log"
	"cairn/snapshot"
)

// foldShare is the part of a log that a node rather folds than fetches the state
// as of its end: a quarter.
const foldShare = 4

// Memory of a fold beside a running machine, in bytes.
const (
	aheadSavepointBytes = 16 << 20
	aheadCacheBytes     = 16 << 20
)

// FoldAhead makes the state as of a snapshot from this machine's own: it shares
// the tables of its newest savepoint into stateDir, a folder that does not
// exist, and folds what the log in logDir has beyond it. It returns false, and
// may leave a part of stateDir, when too much is missing for that, or when this
// machine's last event is not the one that the snapshot's log has there. It may
// be called while the machine applies.
func (m *Machine) FoldAhead(ctx context.Context, man *snapshot.Manifest, logDir, stateDir string) (bool, error) {
	gen, err := m.hold()
	if err != nil {
		return false, err
	}
	defer gen.release()
	_, own := m.Durable()
	if own == 0 || own > man.Position || man.Position-own > man.Position/foldShare {
		return false, nil
	}
	same, err := m.sameEvent(gen, own, man, logDir)
	if err != nil || !same {
		return false, err
	}
	if err := gen.checkpoint(stateDir); err != nil {
		return false, err
	}
	folded, err := Fold(ctx, FoldOptions{
		FS: m.opts.FS, LogDir: logDir, StateDir: stateDir, Index: man.Index, Position: man.Position,
		SavepointBytes: aheadSavepointBytes, CacheBytes: aheadCacheBytes, Logger: m.logger,
		OnError: func(err error) { _ = m.fail(fmt.Errorf("fold the state of a snapshot: %w", err)) },
	})
	if err != nil {
		return false, err
	}
	if folded.LogID != man.LogID || folded.Version != man.Version {
		return false, fmt.Errorf("the log folds to log %s in version %d, its manifest says log %s in version %d", folded.LogID, folded.Version, man.LogID, man.Version)
	}
	m.logger.Info("state folded ahead", "from", own, "to", man.Position, "events", folded.Events)
	return true, nil
}

// sameEvent compares the event at a position of this machine's log with that of
// another one. Header and Raft index together stand for all before: positions of
// committed entries never differ, but a disk may have been mixed up.
func (m *Machine) sameEvent(gen *generation, position uint64, man *snapshot.Manifest, logDir string) (bool, error) {
	other, err := eventlog.Open(eventlog.Options{FS: m.opts.FS, Dir: logDir, Through: man.Position, Logger: m.logger})
	if err != nil {
		return false, err
	}
	own, err := gen.log.ReadRecord(position)
	if err != nil {
		return false, errors.Join(fmt.Errorf("read position %d: %w", position, err), other.Close())
	}
	theirs, err := other.ReadRecord(position)
	if err != nil {
		return false, errors.Join(fmt.Errorf("read position %d: %w", position, err), other.Close())
	}
	return bytes.Equal(own.Header, theirs.Header), other.Close()
}
