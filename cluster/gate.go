package cluster

import (
	"context"
	"sync"
)

// gate counts calls under way, so that Close can wait for them.
type gate struct {
	mu     sync.Mutex
	inside int           // under mu
	closed bool          // under mu
	empty  chan struct{} // under mu; made by close, closed when the last call has left
}

// enter lets a call in, unless the gate is closed.
func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.inside++
	return true
}

// leave ends a call that was let in.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside--; g.inside == 0 && g.closed {
		close(g.empty)
	}
}

// close lets no more calls in. It may be called once.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed, g.empty = true, make(chan struct{})
	if g.inside == 0 {
		close(g.empty)
	}
}

// wait waits until the last call has left. The gate must be closed.
func (g *gate) wait(ctx context.Context) error {
	select {
	case <-g.empty:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
