package client

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"cairn/event"
)

// PipelineOptions say how AppendStream sends.
type PipelineOptions struct {
	// Window is how many appends may be on their way unanswered. 0 = 1024.
	Window int
	// WindowBytes is how many bytes they may have together. 0 = 4 MiB.
	WindowBytes int
	// OneByOne lets each append wait for the success of the one before it,
	// whatever their streams; after one that fails the rest is not attempted.
	// Much slower.
	OneByOne bool
	// Interrupted, if set, is called when the connection is lost, before it is
	// made again.
	Interrupted func(err error)
}

// LineOutcome is what became of one append of AppendStream.
type LineOutcome struct {
	Line   int // which one, from 0
	Result Result
	Err    error // why it was refused, nil if it was not
}

// AppendStream sends appends over one connection, many on their way at once,
// and yields the outcome of each, in their order. Those to one stream are
// decided in their order, others as it comes. One that is refused does not hold
// up those behind it. OneByOne changes both.
//
// When the connection breaks, or a node can't serve for a while, everything
// unanswered is sent again: ids make that safe. The sequence ends after the
// last outcome, or with an error: an *UnknownError with the ids of what was
// left unanswered, an *UnavailableError if none of those was sent, or a
// *Problem if the server refuses the whole.
//
// lines runs in a goroutine of its own and must end soon when ctx is done or
// its yield returns false: AppendStream waits for that.
func (c *Client) AppendStream(ctx context.Context, lines iter.Seq[event.Append], o PipelineOptions) iter.Seq2[LineOutcome, error] {
	return func(yield func(LineOutcome, error) bool) {
		if o.Window <= 0 {
			o.Window = 1024
		}
		if o.WindowBytes <= 0 {
			o.WindowBytes = 4 << 20
		}
		ctx, cancel := context.WithCancelCause(ctx)
		p := &pipeline{c: c, o: o, yield: yield, queue: newLineQueue(o.Window, o.WindowBytes)}
		var feeder sync.WaitGroup
		feeder.Go(func() { p.queue.feed(lines) })
		unhook := context.AfterFunc(ctx, p.queue.stop)
		err := p.run(ctx)
		unhook()
		cancel(nil)
		p.queue.stop()
		if err != nil {
			yield(LineOutcome{}, err) // before Wait, so that the caller can make lines end
		}
		feeder.Wait()
	}
}

// pipeline is the receiving side of one AppendStream. Its caller's goroutine
// owns it.
type pipeline struct {
	c        *Client
	o        PipelineOptions
	queue    *lineQueue
	yield    func(LineOutcome, error) bool
	answered int  // outcomes yielded
	stopped  bool // yield returned false
}

func (p *pipeline) run(ctx context.Context) error {
	p.c.learnIfDue(ctx)
	t := p.c.newTrial(true)
	for p.queue.wait() {
		before := p.answered
		err := p.connect(ctx, t)
		var refused *Problem
		switch {
		case p.stopped, err == nil && p.queue.done():
			return nil
		case errors.As(err, &refused) && !refused.transient():
			return t.settle(err, false)
		}
		if p.answered != before || len(p.queue.open()) == 0 { // or it broke while there was nothing to send
			t = p.c.newTrial(true)
		}
		if ctx.Err() != nil || t.over() {
			return p.giveUp(ctx, t, err)
		}
		if err == nil { // ended while nothing was on its way: a server that is being stopped
			continue
		}
		if p.o.Interrupted != nil {
			p.o.Interrupted(err)
		}
		if t.pause(ctx, err) != nil {
			return p.giveUp(ctx, t, err)
		}
	}
	if ctx.Err() != nil {
		return p.giveUp(ctx, t, context.Cause(ctx))
	}
	return nil
}

// giveUp says what is open when there will be no more attempt.
func (p *pipeline) giveUp(ctx context.Context, t *trial, err error) error {
	ids := p.queue.open()
	t.unknown = len(ids) > 0
	err = t.giveUp(ctx, err)
	var fate *fateError
	if errors.As(err, &fate) {
		return &UnknownError{IDs: ids, Err: fate.error}
	}
	return err
}

// connect sends the unanswered lines and those that follow them over one
// connection, until the last is answered or it breaks.
func (p *pipeline) connect(ctx context.Context, t *trial) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	node := t.next()
	body := p.queue.rewind()
	defer body.Close()
	stopWatch := p.watch(node, cancel)
	defer stopWatch()
	target := "/v1/append?on_error=continue"
	if p.o.OneByOne {
		target = "/v1/append"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, node+target, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", typeLines)
	req.Header.Set("Accept", typeLines)
	resp, err := p.c.streaming.RoundTrip(req)
	if err != nil {
		err = causeOf(ctx, err)
		t.note(ctx, nil, err, &call{})
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		content, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		err := &answeredError{header: resp.Header, Problem: decodeProblem(resp.StatusCode, nodeName(resp, node), content)}
		t.note(ctx, nil, err, &call{})
		return err
	}
	t.note(ctx, &answer{header: resp.Header}, nil, &call{})
	err = p.receive(nodeName(resp, node), bufio.NewReaderSize(resp.Body, 64<<10))
	var answered *answeredError
	if err != nil && !p.stopped && !errors.As(err, &answered) {
		err = causeOf(ctx, err)
		p.c.nodes.failed(node)
	}
	return err
}

// watch cancels a connection that leaves a line unanswered for longer than an
// attempt may take.
func (p *pipeline) watch(node string, cancel context.CancelCauseFunc) (stop func()) {
	limit := p.c.cfg.AttemptTimeout
	var mu sync.Mutex
	var timer *time.Timer
	stopped := false
	mu.Lock()
	timer = time.AfterFunc(limit, func() {
		mu.Lock()
		defer mu.Unlock()
		left := limit - p.queue.waiting()
		switch {
		case stopped:
		case left <= 0:
			cancel(fmt.Errorf("%s left an append unanswered for %s", node, limit))
		default:
			timer.Reset(left)
		}
	})
	mu.Unlock()
	return func() {
		mu.Lock()
		defer mu.Unlock()
		stopped = true
		timer.Stop()
	}
}

// receive yields outcomes until the connection ends, which is an error unless
// nothing is left to answer.
func (p *pipeline) receive(node string, r *bufio.Reader) error {
	for {
		if !p.yieldUnsendable() {
			return nil
		}
		raw, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) && len(bytes.TrimSpace(raw)) == 0 {
			if p.queue.empty() {
				return nil
			}
			return fmt.Errorf("%s ended the connection with appends unanswered: %w", node, io.ErrUnexpectedEOF)
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		out, err := decodeLine(node, raw)
		if err != nil {
			return err
		}
		if !p.yieldUnsendable() { // that came while this answer was awaited
			return nil
		}
		line, ok := p.queue.pop()
		if !ok {
			return fmt.Errorf("%s answered a line that was not sent", node)
		}
		out.Result.IDs = line.ids
		if out.Err != nil {
			out.Result = Result{IDs: line.ids}
		}
		if !p.deliver(out) {
			return nil
		}
	}
}

// yieldUnsendable yields the lines at the head of the queue that could not be
// encoded and so are never sent. It reports whether to go on.
func (p *pipeline) yieldUnsendable() bool {
	for {
		line, ok := p.queue.popUnsendable()
		if !ok {
			return true
		}
		if !p.deliver(LineOutcome{Err: line.err, Result: Result{IDs: line.ids}}) {
			return false
		}
	}
}

func (p *pipeline) deliver(out LineOutcome) bool {
	out.Line = p.answered
	p.answered++
	p.stopped = !p.yield(out, nil)
	return !p.stopped
}

// decodeLine reads the answer to one line. An error means that the line, and
// with it all behind it, is to be sent again.
func decodeLine(node string, raw []byte) (LineOutcome, error) {
	var form resultForm
	err := json.Unmarshal(raw, &form)
	if err == nil && form.Status/100 == 2 {
		var out LineOutcome
		if out.Result, err = form.result(); err == nil {
			return out, nil
		}
	}
	if err == nil && form.Status >= 400 {
		problem := decodeProblem(form.Status, node, raw)
		if problem.transient() {
			return LineOutcome{}, &answeredError{Problem: problem}
		}
		return LineOutcome{Err: problem}, nil
	}
	if err == nil {
		err = fmt.Errorf("status %d", form.Status)
	}
	return LineOutcome{}, fmt.Errorf("%s: answer to a line: %w", node, err)
}
