package httpapi

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"sync"

	"golang.org/x/sync/semaphore"

	"cairn/event"
)

const (
	// maxLines is how many lines one request may have over HTTP/1.1, where they
	// are answered after they were read.
	maxLines = 10_000
	// windowLines and windowBytes bound what one request has under way.
	windowLines = 256
	windowBytes = 4 << 20
)

// appendLines is POST /v1/append with a line of NDJSON for each append. One
// goroutine reads lines, each line has one that proposes it, and the goroutine
// of the request writes the answers, in the order of the lines.
func (s *Server) appendLines(x *exchange) error {
	p := x.params("on_error")
	goOn := p.choice("on_error", "stop", "continue") == "continue"
	if p.err != nil {
		return p.err
	}
	if len(x.r.Header["Idempotency-Key"]) > 0 {
		return problemf(InvalidRequest, "Idempotency-Key: would be the same for every line; give the events ids instead")
	}
	if err := x.stay(); err != nil {
		return err
	}
	s.metrics.streams.Inc()
	defer s.metrics.streams.Dec()

	duplex := x.r.ProtoMajor >= 2
	ctx, cancel := context.WithCancel(x.r.Context())
	l := &lineup{
		s: s, ctx: ctx, lines: newLineReader(x, duplex), duplex: duplex, goOn: goOn,
		window: make(chan *pending, windowLines), ended: make(chan struct{}), bytes: semaphore.NewWeighted(windowBytes),
		newest: map[string]*pending{}, sweep: 16 << 10,
	}
	l.work.Go(l.readAll)
	defer func() {
		cancel()
		select {
		case <-l.ended:
		default:
			l.lines.stop()
		}
		for range l.window {
		}
		l.work.Wait()
		l.lines.release()
	}()
	x.about(s.opts.Waiter.Applied())
	x.Header()["Content-Type"] = mediaLines
	x.relax() // reading the lines may have taken longer than writing may
	if !duplex {
		return l.answerAtEnd(x)
	}
	x.WriteHeader(http.StatusOK)
	if err := x.flush(); err != nil {
		return err
	}
	x.relax()
	return l.answerAll(x)
}

// pending is a line that was read. done is closed once answer and failed are
// set for good.
type pending struct {
	append event.Append
	fault  *problem // known from reading alone
	size   int64    // bytes it holds of the window and the budget
	after  []*pending
	simple bool    // a convoy may take it: it is in order and has no conditions
	convoy *convoy // it is proposed with; owned by the reader
	done   chan struct{}
	answer []byte
	failed bool
	undone bool // failed, but sent again it may yet succeed
}

// compensates reports whether an event of an append takes back another one, which
// may stand in a line before it: that one must be applied first.
func compensates(a *event.Append) bool {
	return slices.ContainsFunc(a.Events, func(e event.Event) bool { return e.Compensates != "" })
}

// lineup is the appends of one request that are under way. A line is proposed
// when those before it that it may depend on are decided: without goOn the one
// line before, else those that touch one of its streams. A query may look at
// anything, so that a line with one waits for all, and all wait for it. Thus
// the outcome is that of one line after another. That holds for a client too
// that sends a line again which was not decided: with goOn those that depend on
// it are not attempted either, else they would overtake it.
type lineup struct {
	s      *Server
	ctx    context.Context
	lines  *lineReader
	duplex bool
	goOn   bool
	window chan *pending       // in order; closed by the reader at the end
	ended  chan struct{}       // closed when the reader has ended
	bytes  *semaphore.Weighted // of windowBytes
	work   sync.WaitGroup      // the reader and every line under way

	// The rest is owned by the reader.
	last    *pending
	newest  map[string]*pending // the last line that touches a stream
	barrier *pending            // the last line with a query
	since   []*pending          // the lines behind it
	sweep   int                 // how large newest may get before it is swept
}

// readAll reads lines until the end, and puts each in the window.
func (l *lineup) readAll() {
	defer close(l.window)
	defer close(l.ended)
	for n := 1; ; n++ {
		line, err := l.lines.next()
		p := &pending{done: make(chan struct{})}
		switch {
		case err == io.EOF, errors.Is(err, errStopped), err != nil && l.ctx.Err() != nil:
			return
		case !l.duplex && n > maxLines:
			l.end(p, problemf(TooLarge, "lines: over HTTP/1.1 there may be %d; this line and those behind it were not read", maxLines))
			return
		case errors.Is(err, errLineTooLong):
			p.fault = problemf(TooLarge, "line: is over the limit of %d bytes", maxBody)
		case err != nil:
			l.end(p, l.s.problemOf(l.lines.x.brokenLine(err)))
			return
		default:
			p.size = int64(len(line))
			if l.bytes.Acquire(l.ctx, p.size) != nil || l.s.budget.sem.Acquire(l.ctx, p.size) != nil {
				return
			}
			p.append, p.fault = l.parse(line)
			p.simple = p.fault == nil && len(p.append.Conditions) == 0 && !compensates(&p.append)
		}
		l.order(p)
		if !l.enqueue(p) {
			l.s.budget.sem.Release(p.size)
			return
		}
		if !l.board(p) {
			c := &convoy{lines: []*pending{p}, bytes: p.size, events: len(p.append.Events)}
			p.convoy = c
			l.work.Go(func() { l.run(c, p) })
		}
	}
}

// brokenLine is the problem of lines that could not be read on.
func (x *exchange) brokenLine(err error) error {
	var p *problem
	if errors.As(err, &p) {
		return p
	}
	if isTimeout(err) {
		return problemf(Timeout, "the line did not arrive within %s", x.s.opts.BodyTimeout)
	}
	return problemf(InvalidRequest, "body: ended before its end: %v", err)
}

func (l *lineup) parse(line []byte) (event.Append, *problem) {
	a, err := decodeAppend(line)
	if err == nil {
		completeIDs(&a, "")
		err = a.Check()
	}
	if err != nil {
		return event.Append{}, l.s.problemOf(err)
	}
	return a, nil
}

// end puts the last line in the window, answered.
func (l *lineup) end(p *pending, fault *problem) {
	p.answer, p.failed = fault.appendJSON(nil), true
	close(p.done)
	l.enqueue(p)
}

func (l *lineup) enqueue(p *pending) bool {
	select {
	case l.window <- p:
		return true
	case <-l.ctx.Done():
		return false
	}
}

// order sets what p has to wait for.
func (l *lineup) order(p *pending) {
	if !l.goOn {
		if l.last != nil {
			p.after = []*pending{l.last}
		}
		l.last = p
		return
	}
	if l.barrier != nil {
		p.after = append(p.after, l.barrier)
	}
	if hasQuery(&p.append) {
		p.after = append(p.after, l.since...)
		l.barrier, l.since = p, nil
		clear(l.newest)
		return
	}
	l.forgetDone()
	l.since = append(l.since, p)
	touch := func(stream string) {
		if before := l.newest[stream]; before != nil && before != p {
			p.after = append(p.after, before)
		}
		l.newest[stream] = p
	}
	for i := range p.append.Events {
		touch(p.append.Events[i].Stream)
	}
	for i := range p.append.Conditions {
		touch(p.append.Conditions[i].Stream)
	}
}

func hasQuery(a *event.Append) bool {
	for i := range a.Conditions {
		if a.Conditions[i].Kind == event.NoMatch {
			return true
		}
	}
	return false
}

// forgetDone drops lines that nobody has to wait for any more, from time to time.
func (l *lineup) forgetDone() {
	if len(l.since) < 2*windowLines && len(l.newest) < l.sweep {
		return
	}
	l.since = slices.DeleteFunc(l.since, (*pending).isDecided)
	maps.DeleteFunc(l.newest, func(_ string, p *pending) bool { return p.isDecided() })
	l.sweep = 2*len(l.newest) + 16<<10
}

// isDecided reports whether nobody has to know of a line any more: it is done,
// and sending it again would not change anything.
func (p *pending) isDecided() bool { return p.isDone() && !p.undone }

func (p *pending) isDone() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// answerAll writes each answer as soon as it is there, and together with those
// behind it that are there too.
func (l *lineup) answerAll(x *exchange) error {
	out := l.s.budget.hold()
	defer out.release()
	for {
		p, more, ready := l.poll()
		if !ready {
			if err := x.sendLines(out); err != nil {
				return err
			}
			p, more = l.await()
		}
		if !more {
			return x.sendLines(out)
		}
		if !p.isDone() || len(out.b) >= sendPiece {
			if err := x.sendLines(out); err != nil {
				return err
			}
		}
		if err := l.settled(p); err != nil {
			return err
		}
		if err := addLine(out, p.answer); err != nil {
			return err
		}
	}
}

// poll takes the next line off the window if there is one.
func (l *lineup) poll() (p *pending, more, ready bool) {
	select {
	case p, more = <-l.window:
		return p, more, true
	default:
		return nil, false, false
	}
}

// await takes the next line off the window. When the server is stopping no
// further lines are read, and those that were are still answered.
func (l *lineup) await() (p *pending, more bool) {
	stopping := l.s.stopping
	for {
		select {
		case p, more = <-l.window:
			return p, more
		case <-stopping:
			l.lines.stop()
			stopping = nil
		}
	}
}

// settled returns nil once the answer of p is there.
func (l *lineup) settled(p *pending) error {
	select {
	case <-p.done:
		return nil
	case <-l.ctx.Done():
		return &goneError{l.ctx.Err()}
	}
}

// answerAtEnd writes all answers when all lines were read: few clients of
// HTTP/1.1 take an answer while they are still sending.
func (l *lineup) answerAtEnd(x *exchange) error {
	out := l.s.budget.hold()
	defer out.release()
	var full error
	for full == nil {
		p, more := l.await()
		if !more {
			break
		}
		if err := l.settled(p); err != nil {
			return err
		}
		full = addLine(out, p.answer)
	}
	h := x.Header()
	h["Content-Type"] = mediaLines
	if full != nil || l.lines.err != io.EOF { // after more: the reader has ended
		h["Connection"] = []string{"close"}
	}
	x.about(l.s.opts.Waiter.Applied())
	if err := x.send(out.b); err != nil {
		return err
	}
	if full != nil {
		// Lines were appended: a 503 would deny it. The answer breaks off
		// where the memory for it ended.
		return &goneError{full}
	}
	return nil
}

// sendLines sends what out holds, now.
func (x *exchange) sendLines(out *held) error {
	if len(out.b) == 0 {
		return nil
	}
	if err := x.send(out.b); err != nil {
		return err
	}
	out.b = out.b[:0]
	defer x.relax()
	return x.flush()
}

func addLine(out *held, answer []byte) error {
	if err := out.grow(len(answer) + 1); err != nil {
		return err
	}
	out.b = append(append(out.b, answer...), '\n')
	return nil
}
