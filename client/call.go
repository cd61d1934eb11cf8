package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"
)

const (
	headerPosition = "Cairn-Position"
	headerLog      = "Cairn-Log"
	headerNode     = "Cairn-Node"
	headerLeader   = "Cairn-Leader"

	typeJSON   = "application/json"
	typeLines  = "application/x-ndjson"
	typeEvents = "text/event-stream"
)

// call is one request, which may be tried at several nodes.
type call struct {
	method string
	target string // path and query
	header map[string]string
	body   []byte
	leader bool          // best sent to the leader
	write  bool          // changes something: after a broken attempt its fate is not known
	once   bool          // a repetition is not safe when the fate of an attempt is not known
	limit  time.Duration // for one attempt; 0 = Config.AttemptTimeout
}

// answer is a successful answer, read to its end.
type answer struct {
	status int
	header http.Header
	body   []byte
	node   string // address of the node that gave it
}

func (a *answer) position() uint64 {
	n, _ := strconv.ParseUint(a.header.Get(headerPosition), 10, 64)
	return n
}

// do tries r until it is answered with something that is not transient, the
// context is done, or Config.RetryFor is over. Of what it returns, *Problem is
// a refusal, *UnavailableError means nothing was written, and errFate wraps
// what leaves the fate of a write open.
func (c *Client) do(ctx context.Context, r *call) (*answer, error) {
	c.learnIfDue(ctx)
	t := c.newTrial(r.leader)
	for {
		node := t.next()
		a, err := c.attempt(ctx, node, r)
		t.note(ctx, a, err, r)
		if err == nil {
			return a, nil
		}
		var p *Problem
		if errors.As(err, &p) && !p.transient() {
			return nil, t.settle(err, p.mayHoldLater())
		}
		if ctx.Err() != nil || t.over() || (r.once && t.unknown) {
			return nil, t.giveUp(ctx, err)
		}
		if t.pause(ctx, err) != nil {
			return nil, t.giveUp(ctx, err)
		}
	}
}

// attempt sends r to one node and reads the answer.
func (c *Client) attempt(ctx context.Context, node string, r *call) (*answer, error) {
	limit := r.limit
	orDefault(&limit, c.cfg.AttemptTimeout)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("%s gave no answer within %s", node, limit))
	defer cancel()
	var body io.Reader
	if r.body != nil {
		body = bytes.NewReader(r.body)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, node+r.target, body)
	if err != nil {
		return nil, err
	}
	for name, value := range r.header {
		req.Header.Set(name, value)
	}
	resp, err := c.plain.RoundTrip(req)
	if err != nil {
		return nil, causeOf(ctx, err)
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, causeOf(ctx, fmt.Errorf("read the answer of %s: %w", node, err))
	}
	if resp.StatusCode >= 300 {
		problem := decodeProblem(resp.StatusCode, nodeName(resp, node), content)
		problem.Position, _ = strconv.ParseUint(resp.Header.Get(headerPosition), 10, 64) // 0 = it does not say
		return nil, &answeredError{header: resp.Header, Problem: problem}
	}
	return &answer{status: resp.StatusCode, header: resp.Header, body: content, node: node}, nil
}

// answeredError is a problem with the header that came with it.
type answeredError struct {
	*Problem
	header http.Header
}

func (e *answeredError) Unwrap() error { return e.Problem }

func nodeName(resp *http.Response, address string) string {
	if name := resp.Header.Get(headerNode); name != "" {
		return name
	}
	return address
}

// causeOf replaces what the transport says of a context that is done by the
// reason for it.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// notSent reports whether err proves that the node never got the request.
func notSent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// trial is the state of the repetitions of one call.
type trial struct {
	c        *Client
	leader   bool
	start    time.Time
	node     string   // of the last attempt
	tried    []string // in this round; after each round there is a pause
	asked    []string // ever
	attempts int
	backoff  time.Duration
	unknown  bool     // an attempt may have written
	problem  *Problem // of the last attempt that was answered
}

func (c *Client) newTrial(leader bool) *trial {
	return &trial{c: c, leader: leader && !c.cfg.Fixed, start: time.Now(), backoff: c.cfg.MinBackoff}
}

// next returns the node to try now.
func (t *trial) next() string {
	node := t.c.nodes.pick(t.leader, t.tried)
	if node == "" {
		t.tried = t.tried[:0]
		node = t.c.nodes.pick(t.leader, nil)
	}
	t.tried = append(t.tried, node)
	if !slices.Contains(t.asked, node) {
		t.asked = append(t.asked, node)
	}
	t.node = node
	t.attempts++
	return node
}

// note takes in how the last attempt, one of r, ended.
func (t *trial) note(ctx context.Context, a *answer, err error, r *call) {
	var answered *answeredError
	switch {
	case err == nil:
		t.c.nodes.answered(t.node, a.header.Get(headerLeader), t.c.cfg.Fixed)
	case errors.As(err, &answered):
		t.problem = answered.Problem
		t.unknown = t.unknown || r.write && answered.unknown()
		if answered.Status >= 500 && answered.Code != CodeOverloaded && answered.Code != CodeNoLeader {
			t.c.nodes.failed(t.node)
		} else {
			t.c.nodes.answered(t.node, answered.header.Get(headerLeader), t.c.cfg.Fixed)
		}
	default:
		t.unknown = t.unknown || r.write && !notSent(err)
		if ctx.Err() == nil { // else it is the caller who had enough
			t.c.nodes.failed(t.node)
		}
	}
}

// over reports whether the time for repetitions is used up.
func (t *trial) over() bool { return time.Since(t.start) >= t.c.cfg.RetryFor }

// pause waits before the next attempt: not at all when the node failed and
// another has not been tried yet, else for the backoff with a jitter, or as
// long as an overloaded server asks for.
func (t *trial) pause(ctx context.Context, err error) error {
	var answered *answeredError
	isAnswer := errors.As(err, &answered)
	if !isAnswer && t.c.nodes.pick(t.leader, t.tried) != "" {
		return ctx.Err()
	}
	wait := t.backoff/2 + rand.N(t.backoff/2+1)
	t.backoff = min(2*t.backoff, t.c.cfg.MaxBackoff)
	if isAnswer && answered.Code == CodeOverloaded {
		if s, err := strconv.Atoi(answered.header.Get("Retry-After")); err == nil {
			wait = max(wait, min(time.Duration(s)*time.Second, t.c.cfg.MaxBackoff))
		}
	}
	if isAnswer {
		t.tried = t.tried[:0]
		if !t.leader || answered.Code == CodeNoLeader || answered.Code == CodeTimeout {
			t.tried = append(t.tried, t.node) // another may see the cluster from a better side
		}
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// settle wraps a refusal. If an earlier attempt may still be on its way and
// the refusal does not bind it, the fate of the append is open after all.
func (t *trial) settle(err error, mayHoldLater bool) error {
	var answered *answeredError
	if errors.As(err, &answered) {
		err = answered.Problem
	}
	if t.unknown && mayHoldLater {
		return &fateError{err}
	}
	return err
}

// giveUp says why the call ended without success.
func (t *trial) giveUp(ctx context.Context, err error) error {
	var answered *answeredError
	if errors.As(err, &answered) {
		err = answered.Problem
	} else if t.problem != nil && !t.unknown { // it says more than that time is up
		err = t.problem
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		err = fmt.Errorf("%w, while: %w", cause, err)
	}
	if t.unknown {
		return &fateError{err}
	}
	return &UnavailableError{Nodes: t.asked, Attempts: t.attempts, Err: err}
}

// fateError says that a write may or may not have happened. Appends make an
// UnknownError with ids of it.
type fateError struct{ error }

func (e *fateError) Unwrap() error { return e.error }
