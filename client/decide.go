package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"cairn/event"
)

// Decider says what Decide reads and what becomes of it. S is the state that
// the events are folded into; it holds what the decision needs.
type Decider[S any] struct {
	// Streams and Query choose the events the decision depends on: those of
	// the streams, and those that the query matches if it has items. At least
	// one of the two is needed. A stream need not exist. Together with the
	// query they are at most 64.
	Streams []string
	Query   event.Query

	// Begin returns the state before the first event; nil = the zero S.
	Begin func() S
	// Fold adds an event to the state. It is called with each chosen event
	// once, in the order of their positions, however often Decide has to read.
	// An error ends Decide.
	Fold func(state *S, e *event.Event) error
	// Decide returns the events to append, none if nothing is to be done, or
	// an error, which ends Decide and is returned as it is. It may be called
	// several times, so it must have no effects of its own. An event without a
	// stream goes to Streams[0] if there is one.
	Decide func(state *S) ([]event.Event, error)

	// Tries is how many decisions may be refused because something has changed
	// before Decide gives up; 0 = 30.
	Tries int
}

const defaultTries = 30

// Decision is what Decide came to.
type Decision[S any] struct {
	State    S             // that was decided from
	Events   []event.Event // appended, with their ids; none if nothing was to be done
	Result   Result        // of the append; zero without events
	Position uint64        // what State is as of
	Tries    int           // decisions made
}

// Decide reads, folds, decides and appends on the condition that nothing of
// what was read has changed: the streams are at the versions that were read,
// and no event the query matches has come. If something has, it reads what is
// new, decides again and appends again, after a random pause when that happens
// repeatedly. What it appends is therefore always decided from all there was.
//
// Events without an id get one, once for each decision. If it can't be told
// whether an append happened, that same append is repeated until it can.
//
// Its errors are those of Fold and Decider.Decide, the refusal of the append
// (IsConflict: after so many tries something still changed each time, or a
// guard or an id stands in the way), and an UnknownError if ctx ended before
// the fate of an append was known.
//
// Decide may be called by any number of goroutines at once, with one Decider
// too if its functions allow it.
func Decide[S any](ctx context.Context, c *Client, d Decider[S]) (Decision[S], error) {
	if len(d.Streams)+len(d.Query.Items) == 0 {
		return Decision[S]{}, errors.New("decide: nothing to read; name streams or a query")
	}
	if d.Tries == 0 {
		d.Tries = defaultTries
	}
	m := &model{c: c, query: d.Query}
	for _, name := range d.Streams {
		m.streams = append(m.streams, event.StreamVersion{Stream: name})
	}
	var made Decision[S]
	if d.Begin != nil {
		made.State = d.Begin()
	}
	fold := func(e *event.Event) error { return d.Fold(&made.State, e) }
	for {
		if err := m.read(ctx, fold); err != nil {
			return made, err
		}
		made.Position = m.position
		made.Tries++
		events, err := d.Decide(&made.State)
		if err != nil || len(events) == 0 {
			return made, err
		}
		events, _ = withIDs(events)
		events = withStream(events, d.Streams)
		made.Result, err = c.appendKnown(ctx, event.Append{Events: events, Conditions: m.conditions()})
		if err == nil {
			made.Events = events
			return made, nil
		}
		if IsUnknown(err) || codeOf(err) != CodeConditionFailed {
			return made, err
		}
		if made.Tries >= d.Tries {
			return made, fmt.Errorf("what was read has changed at each of %d tries: %w", made.Tries, err)
		}
		if err := c.contend(ctx, made.Tries); err != nil {
			return made, err
		}
	}
}

// withStream gives events without a stream the first of those that were read.
func withStream(events []event.Event, streams []string) []event.Event {
	if len(streams) == 0 {
		return events
	}
	named := make([]event.Event, len(events))
	for i, e := range events {
		if e.Stream == "" {
			e.Stream = streams[0]
		}
		named[i] = e
	}
	return named
}

// contend waits before the next decision: not at all after the first conflict,
// then for a random time whose bound doubles, so that those who want the same
// thing come one after the other.
func (c *Client) contend(ctx context.Context, tries int) error {
	if tries == 1 {
		return ctx.Err()
	}
	bound := c.cfg.MaxBackoff
	if doublings := tries - 2; doublings < 20 {
		bound = min(c.cfg.MinBackoff<<doublings, bound)
	}
	return sleep(ctx, rand.N(bound+1))
}

// appendKnown appends, and repeats the append for as long as its fate is not
// known and ctx lives.
func (c *Client) appendKnown(ctx context.Context, a event.Append) (Result, error) {
	var unknown *UnknownError
	for {
		r, err := c.AppendMany(ctx, a)
		if err == nil {
			return r, nil
		}
		var latest *UnknownError
		switch {
		case errors.As(err, &latest):
			unknown = latest
		case unknown == nil || refusedForGood(err):
			return Result{}, err
		}
		// Nothing but an answer to this very append tells what became of the
		// attempt before: it may be on its way still.
		if sleep(ctx, c.cfg.MinBackoff+rand.N(c.cfg.MinBackoff+1)) != nil {
			return Result{}, unknown
		}
	}
}

// refusedForGood reports whether err, the refusal of an append's repetition,
// binds an earlier attempt that may yet arrive: once something has changed it
// stays changed.
func refusedForGood(err error) bool {
	var p *Problem
	return errors.As(err, &p) && p.Code == CodeConditionFailed && !p.mayHoldLater()
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
