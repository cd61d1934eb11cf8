package eventlog

import (
	"errors"
	"fmt"
)

var (
	// ErrNotFound means that no event stands at the position asked for.
	ErrNotFound = errors.New("no event at this position")
	// ErrClosed means that the log was closed.
	ErrClosed = errors.New("event log is closed")
	// ErrPoisoned means that an earlier write or sync went wrong. What the disk
	// holds is not known, so nothing is written any more; errors with it wrap
	// the first cause too. Reading goes on.
	ErrPoisoned = errors.New("event log no longer writes after an error")
	// ErrNotCut means that Cut has not been called since Open.
	ErrNotCut = errors.New("event log was not cut after it was opened")
	// ErrNotCreated means that the log is empty and has no log id yet.
	ErrNotCreated = errors.New("event log was not created")
	// ErrFormat means that an intact file has a version, a codec or a key that
	// this program does not know.
	ErrFormat = errors.New("format is not known to this program")
)

// CorruptError says that a file does not hold what was once written to it.
type CorruptError struct {
	File   string // its path
	Offset int64  // where in it the damage was noticed; the start of a record, a frame or a footer
	Reason string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("%s is damaged at offset %d: %s", e.File, e.Offset, e.Reason)
}

// formatError says why bytes are not what they should be. It knows no file;
// whoever does turns it into a CorruptError.
type formatError string

func (e formatError) Error() string { return string(e) }

// corrupt turns a formatError into a CorruptError and leaves other errors, of
// reading or of an unknown version, as they are.
func corrupt(file string, offset int64, err error) error {
	var f formatError
	if errors.As(err, &f) {
		return &CorruptError{File: file, Offset: offset, Reason: err.Error()}
	}
	return err
}

// isCorrupt reports whether err says that bytes are damaged, rather than that
// they could not be read.
func isCorrupt(err error) bool {
	var c *CorruptError
	return errors.As(err, &c)
}
