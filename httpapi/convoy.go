package httpapi

import (
	"context"
	"net/http"
	"sync"

	"cairn/event"
)

// convoy is lines that are proposed together: the first, and those behind it
// that would only have to wait for it. They are simple, so that they are written
// together or not at all.
type convoy struct {
	mu     sync.Mutex
	left   bool       // under mu; nobody may join any more
	lines  []*pending // under mu until it has left; in order
	bytes  int64      // under mu
	events int        // under mu
}

// What one convoy may hold, which is what Appender.ProposeAll takes.
const (
	convoyBytes  = 128 << 10
	convoyEvents = 1024
)

// board puts p in the convoy that all lines it depends on are in, if there is
// one and it has not left yet.
func (l *lineup) board(p *pending) bool {
	if !l.goOn || !p.simple {
		return false
	}
	var c *convoy
	for _, before := range p.after {
		switch {
		case before.isDecided():
		case !before.simple || c != nil && before.convoy != c:
			return false
		default:
			c = before.convoy
		}
	}
	if c == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left || c.bytes+p.size > convoyBytes || c.events+len(p.append.Events) > convoyEvents {
		return false
	}
	c.lines, c.bytes, c.events = append(c.lines, p), c.bytes+p.size, c.events+len(p.append.Events)
	p.convoy = c
	return true
}

// depart closes the convoy.
func (c *convoy) depart() []*pending {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left = true
	return c.lines
}

// run decides the lines of a convoy, once those that its first one waits for are
// decided. The others wait for nothing that the first does not wait for too.
func (l *lineup) run(c *convoy, first *pending) {
	failed, undone, ok := l.awaitThose(first.after)
	lines := c.depart()
	defer func() {
		for _, p := range lines {
			p.append, p.after = event.Append{}, nil
			l.bytes.Release(p.size)
			l.s.budget.sem.Release(p.size)
			close(p.done)
		}
	}()
	if !ok { // nobody reads the answers any more
		for _, p := range lines {
			p.failed = true
		}
		return
	}
	switch {
	case failed && !l.goOn:
		first.fail(problemf(NotAttempted, "an earlier line failed"))
	case first.fault != nil:
		first.fail(first.fault)
	case undone:
		for _, p := range lines {
			p.fail(problemf(NotAttempted, "an earlier line that this one depends on was not decided; send both again"))
		}
	case len(lines) == 1:
		o, fault := l.s.propose(l.ctx, &first.append, http.StatusConflict)
		first.settle(&o, fault)
	default:
		l.s.proposeAll(l.ctx, lines)
	}
}

// awaitThose waits until the lines are done and returns what became of them; not
// ok means that the request has ended.
func (l *lineup) awaitThose(lines []*pending) (failed, undone, ok bool) {
	for _, p := range lines {
		select {
		case <-p.done:
			failed = failed || p.failed
			undone = undone || p.undone
		case <-l.ctx.Done():
			return false, false, false
		}
	}
	return failed, undone, true
}

// proposeAll has the lines of a convoy decided.
func (s *Server) proposeAll(ctx context.Context, lines []*pending) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.AppendTimeout)
	defer cancel()
	appends := make([]*event.Append, len(lines))
	for i, p := range lines {
		appends[i] = &p.append
	}
	outcomes, err := s.opts.Appender.ProposeAll(ctx, appends)
	for i, p := range lines {
		var o event.Outcome
		if err == nil {
			o = outcomes[i]
		}
		p.settle(&o, s.decided(ctx, &p.append, &o, err, http.StatusConflict))
	}
}

// settle makes the answer of a line that was proposed.
func (p *pending) settle(o *event.Outcome, fault *problem) {
	switch {
	case fault != nil:
		p.fail(fault)
	case o.Code == event.Duplicate:
		p.answer = appendOutcome(nil, o, http.StatusOK)
	default:
		p.answer = appendOutcome(nil, o, http.StatusCreated)
	}
}

func (p *pending) fail(fault *problem) {
	p.answer, p.failed, p.undone = fault.appendJSON(nil), true, fault.code.mayYetSucceed()
}
