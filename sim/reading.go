package sim

import (
	"bytes"
	"context"
	"slices"
	"strconv"

	"cairn/event"
	"cairn/fsm"
	"cairn/jepsen-lite/history"
)

// read answers a read as package httpapi does.
func (r *run) read(ctx context.Context, q *history.Read) error {
	members, machine := r.node.Cluster(), r.node.Machine()
	if q.Local {
		if err := members.Ready(); err != nil {
			return err
		}
	} else if err := members.ReadIndex(ctx); err != nil {
		return err
	}
	if err := machine.WaitPosition(ctx, q.MinPosition); err != nil {
		return err
	}
	_, at := machine.Applied()
	view := machine.View(at)
	defer view.Close()
	q.Position = view.Position()
	if q.Stream == "" {
		events, err := page(view.Select(fsm.Selection{After: q.After}))(q.Limit)
		q.Events = events
		return err
	}
	head, err := view.Head(q.Stream)
	if err != nil {
		return err
	}
	q.Version = head.Version
	q.Events, err = page(view.Stream(q.Stream, q.After+1, false))(q.Limit)
	return err
}

// page returns what takes so many events from a cursor, all if limit is 0.
func page(c *fsm.Cursor, err error) func(limit int) ([]history.Event, error) {
	return func(limit int) ([]history.Event, error) {
		if err != nil {
			return nil, err
		}
		defer c.Close()
		var events []history.Event
		for (limit == 0 || len(events) < limit) && c.Next() {
			events = append(events, seen(c.Event()))
		}
		return events, c.Err()
	}
}

// seen is an event as a client sees it.
func seen(e *event.Event) history.Event {
	h := history.Event{
		Position: e.Position, Version: e.Version, Time: e.Time, Stream: e.Stream, Type: e.Type, ID: e.ID,
		Tags: slices.Clone(e.Tags), Sum: history.Sum(e.Data), // the cursor uses the slice again
	}
	if _, rest, ok := bytes.Cut(e.Data, []byte(`"amount":`)); ok {
		digits, _, _ := bytes.Cut(rest, []byte(","))
		h.Amount, _ = strconv.ParseInt(string(digits), 10, 64)
	}
	return h
}
