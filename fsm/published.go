package fsm

import (
	"context"
	"sync"

	"cairn/projection"
)

// published is what readers may see of the machine's progress.
type published struct {
	mu       sync.Mutex // guards all below
	index    uint64
	position uint64
	logID    string
	member   *membership // never changed, only replaced
	catalog  *projection.Catalog
	wake     chan struct{} // closed at the next advance
	waited   bool          // somebody holds wake
	closed   bool
}

// membership is what the '$' streams say about the cluster.
type membership struct {
	version uint32
	removed map[string]struct{}
}

func (p *published) init() {
	p.wake = make(chan struct{})
	p.member = &membership{}
	p.catalog = projection.NewCatalog()
}

// advance makes everything that s has visible and wakes those who wait.
func (p *published) advance(s *state) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.index, p.position, p.logID, p.catalog = s.index, s.position, s.logID, s.catalog
	if p.waited && !p.closed {
		close(p.wake)
		p.wake, p.waited = make(chan struct{}), false
	}
}

func (p *published) setMembers(m *membership) {
	p.mu.Lock()
	p.member = m
	p.mu.Unlock()
}

func (p *published) members() *membership {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.member
}

func (p *published) projections() *projection.Catalog {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.catalog
}

func (p *published) get() (index, position uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.index, p.position
}

func (p *published) log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.logID
}

func (p *published) changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waited = true
	return p.wake
}

// wait returns nil once reached says so of the published index and position.
func (p *published) wait(ctx context.Context, reached func(index, position uint64) bool) error {
	for {
		p.mu.Lock()
		if reached(p.index, p.position) {
			p.mu.Unlock()
			return nil
		}
		if p.closed {
			p.mu.Unlock()
			return ErrClosed
		}
		p.waited = true
		wake := p.wake
		p.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// close wakes all who wait for good.
func (p *published) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.closed = true
		close(p.wake)
	}
}
