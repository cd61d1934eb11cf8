package cluster

import (
	"errors"
	"fmt"
)

// Errors of Propose and ReadIndex after which nothing was written.
var (
	// ErrNoLeader means that no leader was found in time.
	ErrNoLeader = errors.New("no leader")
	// ErrOverloaded means that the leader or this node has too much to do.
	ErrOverloaded = errors.New("overloaded")
	// ErrTimeout means that the time was up before anything was sent.
	ErrTimeout = errors.New("timed out before anything was written")
)

// ErrUnknownMember means that no member has this node id.
var ErrUnknownMember = errors.New("unknown member")

// ErrClosed means that the node is closing.
var ErrClosed = errors.New("node is closed")

// UnknownError means that an append may or may not have been accepted: it was
// on its way when its fate could no longer be learned. A retry with ids that
// the client chose is safe.
type UnknownError struct{ Cause error }

func (e *UnknownError) Error() string { return fmt.Sprintf("outcome unknown: %v", e.Cause) }

func (e *UnknownError) Unwrap() error { return e.Cause }

// PeerError is an error that another node answered with: the call arrived and
// was refused or failed there.
type PeerError struct {
	Code    string // one of the peer codes, or one of the handler's own
	Message string // for people
}

func (e *PeerError) Error() string { return "peer: " + e.Message }

// notSentError means that a call to a peer never left this node, so that it had
// no effect there.
type notSentError struct{ cause error }

func (e *notSentError) Error() string { return "not sent: " + e.cause.Error() }

func (e *notSentError) Unwrap() error { return e.cause }
