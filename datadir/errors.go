package datadir

import (
	"errors"
	"fmt"
)

// ErrInUse means that another process, or this one, has the directory open.
var ErrInUse = errors.New("is in use by another process: stop that one first, or give this node a directory of its own")

// ErrMissing means that there is no data directory and none was to be built.
var ErrMissing = errors.New("does not exist")

// MissingPartError means that a directory is not whole. Going on would make the
// node forget what it has promised to the others: its vote, or entries that it
// said were durable.
type MissingPartError struct {
	Dir  string
	Part string // relative to Dir
}

func (e *MissingPartError) Error() string {
	return fmt.Sprintf("data directory %s is not whole: %s is missing; put it back, or remove the whole directory "+
		"and let the node join again under a new node id", e.Dir, e.Part)
}

// ForeignError means that there is something else at the place.
type ForeignError struct{ Dir, Reason string }

func (e *ForeignError) Error() string {
	return fmt.Sprintf("%s is not a Cairn data directory: %s; name another one, which is empty or does not exist", e.Dir, e.Reason)
}

// DamageError means that node.json does not hold what was written.
type DamageError struct{ File, Reason string }

func (e *DamageError) Error() string {
	return fmt.Sprintf("%s is damaged: %s; put back a good copy, or remove the whole directory and let the node join "+
		"again under a new node id", e.File, e.Reason)
}

// VersionError means that a newer binary has used the directory in a way that
// this one does not understand.
type VersionError struct {
	Dir   string
	What  string // "format" or "cluster version"
	Needs uint32
	Knows uint32
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("data directory %s needs %s %d, this cairn-node knows up to %d: start the newer cairn-node that was used last",
		e.Dir, e.What, e.Needs, e.Knows)
}

// IdentityError means that the directory is that of another node or log.
type IdentityError struct {
	Dir   string
	What  string // "node" or "log"
	Has   string
	Asked string
}

func (e *IdentityError) Error() string {
	return fmt.Sprintf("data directory %s belongs to %s %q, not %q: use the directory of %q, or leave this one to %q",
		e.Dir, e.What, e.Has, e.Asked, e.Asked, e.Has)
}
