package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"cairn/cluster"
	"cairn/event"
	"cairn/fsm"
	"cairn/jepsen-lite/history"
)

// How much there is: few streams, so that clients get into each other's way.
const (
	streams  = 5
	accounts = 4
	names    = 24
)

// client is one of the clients of a run. It does one operation after the other,
// each on any node.
type client struct {
	w        *world
	id       int
	rng      *rand.Rand
	made     int // events, for their ids
	position uint64
	versions map[string]uint64 // last known
}

func newClient(w *world, id int) *client {
	return &client{w: w, id: id, rng: w.fork(), versions: map[string]uint64{}}
}

// work runs until the context ends.
func (c *client) work(ctx context.Context) {
	for ctx.Err() == nil {
		switch n := c.rng.IntN(100); {
		case n < 35:
			c.add()
		case n < 50:
			c.transfer()
		case n < 60:
			c.unique()
		case n < 80:
			c.read(false)
		default:
			c.read(true)
		}
		pause := time.Duration(c.rng.Int64N(int64(2 * thinkTime)))
		if c.rng.IntN(20) == 0 {
			pause = 0 // a burst
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// thinkTime is a client's pause between two operations, on average.
const thinkTime = 120 * time.Millisecond

// add appends one to three events to a stream, often at the version at which the
// client believes it to be.
func (c *client) add() {
	stream := fmt.Sprintf("s-%d", c.rng.IntN(streams))
	var a history.Append
	for range 1 + c.rng.IntN(3) {
		a.Events = append(a.Events, c.event(stream, "Added", 0))
	}
	if c.rng.IntN(2) == 0 {
		a.Conditions = []history.Condition{{Stream: stream, Version: c.versions[stream]}}
	}
	c.append("append", &a)
}

// transfer moves an amount between two accounts, in one append.
func (c *client) transfer() {
	from := c.rng.IntN(accounts)
	to := (from + 1 + c.rng.IntN(accounts-1)) % accounts
	a, b := fmt.Sprintf("account-%d", from), fmt.Sprintf("account-%d", to)
	amount := 1 + c.rng.Int64N(100)
	append := history.Append{Events: []history.Event{c.event(a, "Withdrawn", -amount), c.event(b, "Deposited", amount)}}
	if c.rng.IntN(2) == 0 {
		append.Conditions = []history.Condition{{Stream: a, Version: c.versions[a]}, {Stream: b, Version: c.versions[b]}}
	}
	c.append("transfer", &append)
}

// unique takes a name, which can be done once.
func (c *client) unique() {
	tag := fmt.Sprintf("name:%d", c.rng.IntN(names))
	e := c.event(fmt.Sprintf("user-%d", c.rng.IntN(100)), "Registered", 0)
	e.Tags = []string{tag}
	c.append("unique", &history.Append{Events: []history.Event{e}, Conditions: []history.Condition{{Tag: tag}}})
}

// event makes an event with an id of the client's own.
func (c *client) event(stream, kind string, amount int64) history.Event {
	c.made++
	e := history.Event{Stream: stream, Type: kind, ID: fmt.Sprintf("c%d-%d", c.id, c.made), Amount: amount}
	e.Sum = history.Sum(payload(&e))
	return e
}

// payload is the data of an event: a function of what the history knows of it,
// of very different lengths.
func payload(e *history.Event) []byte {
	filling := make([]byte, 40+len(e.ID)*len(e.Stream)%17*20)
	for i := range filling {
		filling[i] = 'a' + byte(i%26)
	}
	return fmt.Appendf(nil, `{"id":%q,"amount":%d,"filling":%q}`, e.ID, e.Amount, filling)
}

// append sends an append, and sends it again, with the same ids, while its
// outcome is unknown and the client has patience.
func (c *client) append(workload string, a *history.Append) {
	for {
		op := c.try(workload, a)
		if op.Outcome == history.OK {
			c.position = max(c.position, op.Append.Last)
			for stream, v := range op.Append.Versions {
				c.versions[stream] = max(c.versions[stream], v)
			}
		}
		if op.Outcome != history.Unknown || c.rng.IntN(4) == 0 {
			return
		}
		time.Sleep(time.Duration(c.rng.Int64N(int64(time.Second))))
	}
}

// try sends an append once.
func (c *client) try(workload string, a *history.Append) history.Op {
	op, r := c.begin(workload)
	sent := *a
	op.Append = &sent
	if r == nil {
		return c.end(op, nil, errDown)
	}
	defer r.leave()
	ctx, cancel := c.patience(r)
	defer cancel()
	out, err := r.node.Cluster().Propose(ctx, request(a))
	if err == nil && !r.end.killed() {
		switch out.Code {
		case event.Accepted, event.Duplicate:
			sent.First, sent.Last, sent.Duplicate = out.First, out.Last, out.Code == event.Duplicate
			sent.Versions = map[string]uint64{}
			for _, v := range out.Versions {
				sent.Versions[v.Stream] = v.Version
			}
		default:
			op.Outcome, op.Code = history.Refused, refusals[out.Code]
			if out.Conflict != nil {
				op.Detail = out.Conflict.String()
			}
		}
	}
	return c.end(op, r, err)
}

var refusals = map[event.OutcomeCode]string{
	event.ConditionFailed: "condition-failed", event.IDReused: "id-reused", event.Refused: "refused",
}

// request is an append as the node gets it.
func request(a *history.Append) *event.Append {
	r := &event.Append{}
	for i := range a.Events {
		e := &a.Events[i]
		r.Events = append(r.Events, event.Event{Stream: e.Stream, Type: e.Type, ID: e.ID, IDChosen: true, Tags: e.Tags, Data: payload(e)})
	}
	for _, d := range a.Conditions {
		switch {
		case d.Tag != "":
			query := event.Query{Items: []event.QueryItem{{Tags: []string{d.Tag}}}}
			r.Conditions = append(r.Conditions, event.Condition{Kind: event.NoMatch, Query: query, After: d.After})
		case d.Version == 0:
			r.Conditions = append(r.Conditions, event.Condition{Kind: event.StreamMissing, Stream: d.Stream})
		default:
			r.Conditions = append(r.Conditions, event.Condition{Kind: event.StreamAtVersion, Stream: d.Stream, Version: d.Version})
		}
	}
	return r
}

var errDown = errors.New("the node is down")

// begin chooses a node, enters its run and starts the clock of an operation. The
// run is nil if the node is down.
func (c *client) begin(workload string) (history.Op, *run) {
	h := c.w.hosts[c.rng.IntN(len(c.w.hosts))]
	op := history.Op{Client: c.id, Workload: workload, Node: h.name, Start: c.w.rec.Now()}
	r := h.current()
	if r != nil && !r.enter() {
		r = nil
	}
	return op, r
}

// patience bounds an operation, which does not outlive the node's run.
func (c *client) patience(r *run) (context.Context, context.CancelFunc) {
	return context.WithTimeout(r.lifetime, 500*time.Millisecond+time.Duration(c.rng.Int64N(int64(3*time.Second))))
}

// end records an operation. An answer of a node that was killed meanwhile never
// reached the client.
func (c *client) end(op history.Op, r *run, err error) history.Op {
	unknown := (*cluster.UnknownError)(nil)
	switch {
	case r == nil:
		op.Outcome, op.Code = history.Refused, "down"
	case r.end.killed():
		op.Outcome = history.Unknown
		op.Detail = "the node was killed"
	case errors.As(err, &unknown):
		op.Outcome = history.Unknown
	case err != nil:
		op.Outcome, op.Code = history.Refused, refusal(err)
	case op.Outcome == "":
		op.Outcome = history.OK
	}
	if err != nil && op.Detail == "" {
		op.Detail = err.Error()
	}
	op.End = c.w.rec.Now()
	c.w.rec.Op(op)
	return op
}

func refusal(err error) string {
	switch {
	case errors.Is(err, cluster.ErrNoLeader):
		return "no-leader"
	case errors.Is(err, cluster.ErrOverloaded):
		return "overloaded"
	case errors.Is(err, cluster.ErrClosed), errors.Is(err, fsm.ErrClosed):
		return "closed"
	}
	return "timeout"
}

// read reads a stream or the whole log on any node, linearizably or, if local,
// as far as the node is, sometimes at least as far as the client knows.
func (c *client) read(local bool) {
	read := history.Read{Local: local, Limit: 20}
	switch c.rng.IntN(4) {
	case 0:
		read.After = c.position - min(c.position, 10)
	case 1:
		read.Stream = fmt.Sprintf("account-%d", c.rng.IntN(accounts))
	default:
		read.Stream = fmt.Sprintf("s-%d", c.rng.IntN(streams))
	}
	if read.Stream != "" {
		read.After = c.versions[read.Stream] - min(c.versions[read.Stream], 5)
	}
	if local && c.rng.IntN(2) == 0 {
		read.MinPosition = c.position
	}
	op, r := c.begin("read")
	op.Read = &read
	if r == nil {
		c.end(op, nil, errDown)
		return
	}
	defer r.leave()
	ctx, cancel := c.patience(r)
	defer cancel()
	err := r.read(ctx, &read)
	if op = c.end(op, r, err); op.Outcome == history.OK {
		c.position = max(c.position, read.Position)
		if read.Stream != "" {
			c.versions[read.Stream] = max(c.versions[read.Stream], read.Version)
		}
	}
}
