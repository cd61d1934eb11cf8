package workload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"cairn/client"
	"cairn/event"
	"cairn/jepsen-lite/history"
)

// actor is one client. All of it but group belongs to its goroutine.
type actor struct {
	of       *Run
	number   int
	workload string
	group    *group
	rng      *rand.Rand

	made  int               // events, for their ids
	known map[string]uint64 // versions that it last heard streams to have
	open  *event.Append     // an append that it has no definite answer for
	last  uint64            // position that its last append came to
	// accounts is what it has added up, by stream.
	accounts map[string]*statement
}

// run takes a step every pause, until ctx is done. A step that takes longer
// delays the next.
func (a *actor) run(ctx context.Context, pause time.Duration, step func(*actor, context.Context)) {
	// What is under way when the run ends gets its answer, or its timeout.
	operation := context.WithoutCancel(ctx)
	wait := time.Duration(a.rng.Int64N(int64(pause)))
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		began := time.Now()
		step(a, operation)
		wait = max(0, pause-time.Since(began))
	}
}

// anyNode returns the number of a node, from 0.
func (a *actor) anyNode() int { return a.rng.IntN(len(a.of.clients)) }

// event makes an event with an id of its own and size bytes of ballast.
func (a *actor) event(stream, typ string, amount int64, size int) event.Event {
	a.made++
	e := event.Event{Stream: stream, Type: typ, ID: fmt.Sprintf("%s-%d-%d", a.workload, a.number, a.made), IDChosen: true}
	ballast := make([]byte, size)
	for i := range ballast {
		ballast[i] = 'a' + byte(a.rng.IntN(26))
	}
	e.Data = fmt.Appendf(nil, `{"n":%d,"amount":%d,"ballast":"%s"}`, a.made, amount, ballast)
	return e
}

// append sends an append to a node and records what came of it.
func (a *actor) append(ctx context.Context, node int, what event.Append) (client.Result, history.Outcome) {
	sent := &history.Append{Conditions: conditions(what.Conditions)}
	for i := range what.Events {
		sent.Events = append(sent.Events, Seen(&what.Events[i]))
	}
	op := history.Op{
		Client: a.number, Workload: a.workload, Node: a.of.opts.Nodes[node].Name, Append: sent, Start: a.of.opts.Recorder.Now(),
	}
	answer, err := a.of.clients[node].AppendMany(ctx, what)
	op.End = a.of.opts.Recorder.Now()
	op.Outcome, op.Code, op.Detail = outcome(err)
	op.Refusal = refusal(err)
	if err == nil {
		sent.First, sent.Last, sent.Versions, sent.Duplicate = answer.First, answer.Last, answer.Versions, answer.Duplicate
		for stream, version := range answer.Versions {
			a.known[stream] = version
		}
	}
	a.of.opts.Recorder.Op(op)
	return answer, op.Outcome
}

// read reads from a node and records what it saw. Stream "" is the whole log.
func (a *actor) read(ctx context.Context, node int, what history.Read) (seen []history.Event, ok bool) {
	c, o := a.of.clients[node], client.ReadOptions{Limit: what.Limit, Local: what.Local, MinPosition: what.MinPosition, Raw: what.Raw}
	op := history.Op{
		Client: a.number, Workload: a.workload, Node: a.of.opts.Nodes[node].Name, Read: &what, Start: a.of.opts.Recorder.Now(),
	}
	var page client.Page
	var err error
	if what.Stream == "" {
		o.After = what.After
		page, err = c.Events(ctx, event.Filter{}, o)
	} else {
		o.From = what.After + 1
		page, err = c.ReadStream(ctx, what.Stream, o)
	}
	op.End = a.of.opts.Recorder.Now()
	if what.Stream != "" && client.IsNotFound(err) {
		// The stream has no events, as of the position that the answer names.
		var absent *client.Problem
		if errors.As(err, &absent) && absent.Position > 0 {
			page, err = client.Page{Position: absent.Position}, nil
		}
	}
	op.Outcome, op.Code, op.Detail = outcome(err)
	if err == nil {
		what.Position, what.Version = page.Position, page.Version
		if page.Next != "" { // a page may end early, where it gets too large, and says so
			what.Limit = len(page.Events)
		}
		for i := range page.Events {
			what.Events = append(what.Events, Seen(&page.Events[i]))
		}
		if what.Stream != "" {
			a.known[what.Stream] = page.Version
		}
	}
	a.of.opts.Recorder.Op(op)
	return what.Events, err == nil
}

// outcome says what an error of the client means for the operation.
func outcome(err error) (o history.Outcome, code, detail string) {
	var problem *client.Problem
	switch {
	case err == nil:
		return history.OK, "", ""
	case client.IsUnknown(err):
		o, code = history.Unknown, client.CodeOutcomeUnknown
	case client.IsUnavailable(err):
		o, code = history.Refused, "unavailable"
	case errors.As(err, &problem):
		o = history.Refused
	default:
		o, code = history.Unknown, "broken"
	}
	if errors.As(err, &problem) {
		code = problem.Code
	}
	return o, code, err.Error()
}

// refusal is what an error says of why an append was refused, nil if it does not.
func refusal(err error) *history.Refusal {
	var p *client.Problem
	if !errors.As(err, &p) {
		return nil
	}
	switch p.Code {
	case client.CodeGuardFailed, client.CodeFoldFailed, client.CodeSchemaViolation:
		return &history.Refusal{Event: p.Event, Projection: p.Projection, Key: p.Key, Guard: p.Guard, State: p.StatePosition, Schema: p.Schema}
	}
	return nil
}

// Seen is an event as the history has it.
func Seen(e *event.Event) history.Event {
	seen := history.Event{
		Position: e.Position, Version: e.Version, Time: e.Time, Stream: e.Stream, Type: e.Type, ID: e.ID, Tags: e.Tags,
		Sum: history.Sum(e.Data), Amount: amount(e.Data), Schema: e.Schema,
	}
	if folded(e.Stream) {
		seen.Data = slices.Clone(e.Data)
	}
	return seen
}

// folded reports whether the checkers need the data of a stream's events.
func folded(stream string) bool {
	category, _, _ := strings.Cut(stream, "-")
	return event.IsSystem(stream) || slices.Contains([]string{bankCategory, rowCategory, schemaCategory}, category)
}

// amount reads the amount out of the data that actor.event makes.
func amount(data []byte) int64 {
	_, rest, _ := bytes.Cut(data[:min(len(data), 64)], []byte(`,"amount":`))
	digits, _, found := bytes.Cut(rest, []byte(","))
	n, err := strconv.ParseInt(string(digits), 10, 64)
	if !found || err != nil {
		return 0 // not one of ours
	}
	return n
}

func conditions(sent []event.Condition) []history.Condition {
	var found []history.Condition
	for _, c := range sent {
		switch c.Kind {
		case event.StreamAtVersion:
			found = append(found, history.Condition{Stream: c.Stream, Version: c.Version})
		case event.NoMatch:
			found = append(found, history.Condition{Tag: c.Query.Items[0].Tags[0], After: c.After})
		}
	}
	return found
}
