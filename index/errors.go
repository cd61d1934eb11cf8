package index

import (
	"errors"
	"fmt"
)

// ErrClosed is returned by every method of an Index, or of a View of it, once
// Close was called.
var ErrClosed = errors.New("index: closed")

// CorruptError says that a record of the index is not what this package wrote.
// Damage below that, in Pebble's files, is an error of Pebble's own and goes
// to Options.OnError too.
type CorruptError struct {
	Key    []byte // the record's key, as in format.go
	Reason string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("index: record %q is corrupt: %s", e.Key, e.Reason)
}
