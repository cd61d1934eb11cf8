package cluster

import (
	"context"
	"errors"

	"github.com/hashicorp/raft"
)

// Network is how a node and its peers reach each other: Raft's transport and
// small calls over the same address. The default is TCP (transport.go); a test
// may put a network in memory in its place through Config.Network.
type Network interface {
	// Transport is what Raft talks through.
	Transport() raft.Transport
	// Serve starts to answer the calls of peers; it is called once.
	Serve(s PeerService)
	// Call runs a call on the node at a Raft address. Its error is a NotSent when
	// nothing was sent, an Answered when the peer answered with an error; after
	// any other the call may have happened.
	Call(ctx context.Context, addr, name string, body []byte) ([]byte, error)
	// Close ends every connection, and what waits for one, and joins every
	// goroutine. Raft has been told to shut down before.
	Close() error
}

// PeerService answers the calls of peers; any error but a *PeerError travels as
// text.
type PeerService func(ctx context.Context, name string, body []byte) ([]byte, error)

// NotSent is the error of a call that never left this node, so that it had no
// effect on the peer.
func NotSent(cause error) error { return &notSentError{cause} }

// Answered is the error of a call that a peer's PeerService answered with err.
func Answered(err error) error {
	if p := (*PeerError)(nil); errors.As(err, &p) {
		return p
	}
	return &PeerError{Code: codeFailed, Message: err.Error()}
}
