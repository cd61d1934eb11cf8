package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"

	"cairn/event"
)

// followSilence is how long a follower hears nothing before it gives a
// connection up. A server says something every 10 s.
const followSilence = 25 * time.Second

// FollowOptions say what to follow, from where.
type FollowOptions struct {
	// Filter chooses the events. Filter.Stream follows that stream alone, from
	// its beginning if it does not exist yet; nothing else of Filter may be set
	// then.
	Filter event.Filter

	// After is the position after which to begin; 0 = from the first event on.
	After uint64
	// Log is the id of the log that After belongs to, "" = not known. If the
	// cluster has another log, Follow fails with an error for which
	// IsLogChanged holds, as it does when the log changes on the way.
	Log string

	// CaughtUp, if set, is called when all events up to position have been
	// delivered and the next ones are live; after each reconnection again.
	CaughtUp func(position uint64)
	// Progress, if set, is called with each position up to which everything
	// chosen has been delivered: what to remember, with log, in order to
	// resume there.
	Progress func(position uint64, log string)
	// Interrupted, if set, is called when the connection is lost, before it is
	// made again.
	Interrupted func(err error)

	Local bool // follow what the asked node has, without asking the others at the start
	Raw   bool // events as they are stored, not brought to the newest schema of their type
}

// Follow yields the chosen events, each once, in order: what there is after
// the start, then live. When a connection breaks or goes silent it goes on at
// another node, for as long as it takes. It ends when ctx is done, with its
// error, or at a refusal, with the *Problem. Callbacks run in the caller's
// goroutine.
func (c *Client) Follow(ctx context.Context, o FollowOptions) iter.Seq2[event.Event, error] {
	return func(yield func(event.Event, error) bool) {
		f := &follower{c: c, o: o, position: o.After, log: o.Log, yield: yield}
		if err := f.run(ctx); err != nil {
			yield(event.Event{}, err)
		}
	}
}

// follower is the state of one Follow. Its caller's goroutine owns it.
type follower struct {
	c        *Client
	o        FollowOptions
	target   string
	position uint64 // everything chosen up to here has been delivered
	log      string // "" = not known yet
	yield    func(event.Event, error) bool
	stopped  bool // yield returned false
}

func (f *follower) run(ctx context.Context) error {
	if err := f.setTarget(); err != nil {
		return err
	}
	f.c.learnIfDue(ctx)
	t := f.c.newTrial(false)
	for {
		before := f.position
		err := f.connect(ctx, t)
		switch {
		case f.stopped:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case isFatal(err):
			return t.settle(err, false)
		}
		if f.position != before { // it worked for a while: begin anew
			t = f.c.newTrial(false)
		}
		if f.o.Interrupted != nil {
			f.o.Interrupted(err)
		}
		if err := t.pause(ctx, err); err != nil {
			return context.Cause(ctx)
		}
	}
}

// logChanged says that a node serves another log than the one followed.
func logChanged(node, is, was string) error {
	return &Problem{Type: problemPrefix + CodeLogChanged, Code: CodeLogChanged, Status: http.StatusConflict, Node: node, Log: is,
		Detail: fmt.Sprintf("node %s serves log %s, not %s: positions of one mean nothing in the other", node, is, was)}
}

// isFatal reports whether another attempt would end like this one.
func isFatal(err error) bool {
	var p *Problem
	var invalid *invalidStreamError
	return errors.As(err, &p) && !p.transient() || errors.As(err, &invalid)
}

// invalidStreamError says that a node sent what is not Cairn's form.
type invalidStreamError struct {
	node string
	err  error
}

func (e *invalidStreamError) Error() string {
	return fmt.Sprintf("what %s sends is not a stream of events: %v", e.node, e.err)
}
func (e *invalidStreamError) Unwrap() error { return e.err }

func (f *follower) setTarget() error {
	v := url.Values{}
	if f.o.Local {
		v.Set("consistency", "local")
	}
	if f.o.Raw {
		v.Set("raw", "true")
	}
	path := "/v1/events"
	if stream := f.o.Filter.Stream; stream != "" {
		rest := f.o.Filter
		rest.Stream = ""
		if !rest.IsZero() {
			return errors.New("follow one stream or filter all streams, not both")
		}
		path = "/v1/streams/" + url.PathEscape(stream) + "/events"
	} else if err := filterParameters(&f.o.Filter, v); err != nil {
		return err
	}
	f.target = withQuery(path, v)
	return nil
}

// connect follows by one connection until it breaks.
func (f *follower) connect(ctx context.Context, t *trial) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	node := t.next()
	watch := time.AfterFunc(f.c.cfg.AttemptTimeout, func() { cancel(fmt.Errorf("%s has fallen silent", node)) })
	defer watch.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, node+f.target, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", typeEvents)
	if f.position > 0 {
		req.Header.Set("Last-Event-ID", f.lastEventID())
	}
	resp, err := f.c.plain.RoundTrip(req)
	if err != nil {
		err = causeOf(ctx, err)
		t.note(ctx, nil, err, &call{})
		return err
	}
	defer resp.Body.Close()
	name := nodeName(resp, node)
	if resp.StatusCode != http.StatusOK {
		content, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		err := &answeredError{header: resp.Header, Problem: decodeProblem(resp.StatusCode, name, content)}
		t.note(ctx, nil, err, &call{})
		return err
	}
	t.note(ctx, &answer{header: resp.Header}, nil, &call{})
	if err := f.checkLog(name, resp.Header.Get(headerLog)); err != nil {
		return err
	}
	err = f.deliver(name, &messageReader{r: bufio.NewReaderSize(resp.Body, 64<<10)}, watch)
	if !f.stopped && err != nil && !isFatal(err) {
		err = causeOf(ctx, err)
		f.c.nodes.failed(node)
	}
	return err
}

// lastEventID is where to resume. With the log's id a node of another history
// refuses instead of going on somewhere.
func (f *follower) lastEventID() string {
	id := strconv.FormatUint(f.position, 10)
	if f.log != "" {
		id += "@" + f.log
	}
	return id
}

func (f *follower) checkLog(node, log string) error {
	if f.log == "" {
		f.log = log
	}
	if log != "" && log != f.log {
		return logChanged(node, log, f.log)
	}
	return nil
}

// deliver takes messages until the connection ends, which is always an error.
// The silence that watch ends is the server's: while the caller is busy with
// an event it does not run.
func (f *follower) deliver(node string, r *messageReader, watch *time.Timer) error {
	for !f.stopped {
		watch.Reset(f.c.silence)
		m, err := r.next()
		watch.Stop()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("%s ended the stream: %w", node, io.ErrUnexpectedEOF)
		}
		if err != nil {
			return err
		}
		if err := f.take(node, m); err != nil {
			return err
		}
	}
	return nil
}

func (f *follower) take(node string, m *message) error {
	position, log, err := m.position()
	if err != nil {
		return &invalidStreamError{node, err}
	}
	if err := f.checkLog(node, log); err != nil {
		return err
	}
	switch {
	case m.event == "caught_up":
		var body struct {
			Position uint64 `json:"position"`
		}
		if err := json.Unmarshal(m.data, &body); err != nil {
			return &invalidStreamError{node, err}
		}
		f.advance(max(position, body.Position))
		if f.o.CaughtUp != nil {
			f.o.CaughtUp(f.position)
		}
		return nil
	case len(m.data) == 0: // a heartbeat
		f.advance(position)
		return nil
	case m.event != "" && m.event != "message":
		return nil // of a newer server
	}
	e, err := event.DecodeEvent(m.data)
	if err != nil {
		return &invalidStreamError{node, err}
	}
	if e.Position <= f.position {
		return nil // delivered before the connection broke
	}
	if !f.yield(e, nil) {
		f.stopped = true
		return nil
	}
	f.advance(e.Position)
	return nil
}

func (f *follower) advance(position uint64) {
	if position <= f.position {
		return
	}
	f.position = position
	if f.o.Progress != nil {
		f.o.Progress(position, f.log)
	}
}
