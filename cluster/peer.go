package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// peerTimeout bounds a call to a peer whose context has no deadline.
const peerTimeout = 10 * time.Second

// Codes of a PeerError. A handler may return a *PeerError with a code of its
// own; any other error travels as codeFailed.
const (
	codeFailed        = "failed"
	codeNoHandler     = "no-handler"
	codeTooLarge      = "too-large"
	codeUnknownMember = "unknown-member"
)

// PeerHandler answers a call of another node. The body is its own to keep.
type PeerHandler func(ctx context.Context, body []byte) ([]byte, error)

// peerServer holds the handlers for calls of other nodes. Handlers are
// registered before the network is told to serve; later calls of handle panic.
type peerServer struct {
	mu       sync.RWMutex
	sealed   bool                   // under mu
	handlers map[string]PeerHandler // under mu
}

func newPeerServer() *peerServer { return &peerServer{handlers: map[string]PeerHandler{}} }

// handle registers the handler of a name, which is made of letters, digits, '-'
// and '/'.
func (p *peerServer) handle(name string, h func(ctx context.Context, body []byte) ([]byte, error)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sealed {
		panic("cluster: peer handler registered too late: " + name)
	}
	if _, ok := p.handlers[name]; ok {
		panic("cluster: peer handler registered twice: " + name)
	}
	p.handlers[name] = h
}

// seal ends registration.
func (p *peerServer) seal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sealed = true
}

// serve runs the handler of a name.
func (p *peerServer) serve(ctx context.Context, name string, body []byte) ([]byte, error) {
	p.mu.RLock()
	h := p.handlers[name]
	p.mu.RUnlock()
	if h == nil {
		return nil, &PeerError{Code: codeNoHandler, Message: fmt.Sprintf("unknown call %q", name)}
	}
	return h(ctx, body)
}

// peerClient calls other nodes. Any goroutine may use it.
type peerClient struct{ net Network }

// call runs the handler of a name on the node whose Raft listener has this
// address and returns its answer. A context without a deadline gets
// peerTimeout. Errors: *notSentError when nothing was sent; *PeerError when the
// peer answered with one; anything else means that the call may have happened.
func (p *peerClient) call(ctx context.Context, addr, name string, body []byte) ([]byte, error) {
	if addr == "" {
		return nil, &notSentError{errors.New("no address")}
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, peerTimeout)
		defer cancel()
	}
	return p.net.Call(ctx, addr, name, body)
}
