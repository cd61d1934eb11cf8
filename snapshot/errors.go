package snapshot

import (
	"errors"
	"fmt"
)

// ErrSuperseded is what the sink of a snapshot of this node's own returns from
// Close when an install has put another generation in place meanwhile.
var ErrSuperseded = errors.New("snapshot superseded by a newer one")

// ErrFailed is what every change returns after a sync failed: what the disk
// holds is no longer known, only a restart finds out.
var ErrFailed = errors.New("snapshot store stopped after a failed sync")

// CorruptError says which file is not what it must be. Nothing is skipped or
// repaired silently: the node refuses to go on.
type CorruptError struct {
	File   string // path, or what was decoded
	Reason string
}

func (e *CorruptError) Error() string { return fmt.Sprintf("%s is damaged: %s", e.File, e.Reason) }

// syncError marks an error after which disk and memory may differ: a failed
// fsync, or a failed rename that was to take effect. The store passes it to
// OnError and refuses every later change.
type syncError struct{ err error }

func (e *syncError) Error() string { return e.err.Error() }
func (e *syncError) Unwrap() error { return e.err }

func isSyncError(err error) bool {
	var e *syncError
	return errors.As(err, &e)
}
