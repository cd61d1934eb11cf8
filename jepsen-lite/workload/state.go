package workload

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"cairn/client"
	"cairn/jepsen-lite/history"
)

// patience is how long a workload tries to set up what it needs.
const patience = 30 * time.Second

// readState reads rows of a projection and records what it saw.
func (a *actor) readState(ctx context.Context, node int, what history.StateRead) {
	c := a.of.clients[node]
	o := client.StateOptions{AtPosition: what.AtPosition, Local: what.Local, MinPosition: what.MinPosition}
	op := a.begin(node)
	var err error
	if what.Key != "" {
		var row client.Row
		row, err = c.Row(ctx, what.Projection, what.Key, o)
		if err == nil {
			what.Rows, what.AsOf, what.Generation = []history.Row{Row(&row)}, row.AsOf, row.Generation
		}
	} else {
		for row, failed := range c.Rows(ctx, what.Projection, client.RowsOptions{Prefix: what.Prefix, Limit: what.Limit, StateOptions: o}) {
			if err = failed; err != nil {
				break
			}
			what.Rows, what.AsOf, what.Generation = append(what.Rows, Row(&row)), row.AsOf, row.Generation
		}
	}
	var absent *client.Problem
	if client.IsNotFound(err) && errors.As(err, &absent) && absent.Position > 0 {
		what.AsOf, err = absent.Position, nil
	}
	op.State = &what
	a.end(op, err)
}

// Row is a row as the history has it.
func Row(r *client.Row) history.Row {
	row := history.Row{Key: r.Key, State: string(r.State), Events: r.Events, Position: r.Position}
	if r.Failed != nil {
		row.Failed = r.Failed.Position
	}
	return row
}

// define defines a projection and records what came of it.
func (a *actor) define(ctx context.Context, node int, name, definition string) (generation uint64, err error) {
	op := a.begin(node)
	op.Define = &history.Define{Projection: name, Body: json.RawMessage(definition)}
	d, err := a.of.clients[node].DefineProjection(ctx, name, []byte(definition))
	op.Define.Generation = d.Generation
	a.end(op, err)
	return d.Generation, err
}

// register registers a schema and records what came of it.
func (a *actor) register(ctx context.Context, node int, typ string, number uint32, registration string) error {
	op := a.begin(node)
	op.Define = &history.Define{Type: typ, Number: number, Body: json.RawMessage(registration)}
	_, err := a.of.clients[node].RegisterSchema(ctx, typ, number, []byte(registration))
	a.end(op, err)
	return err
}

// begin is an operation that begins now, and end records it with what came of it.
func (a *actor) begin(node int) history.Op {
	return history.Op{Client: a.number, Workload: a.workload, Node: a.of.opts.Nodes[node].Name, Start: a.of.opts.Recorder.Now()}
}

func (a *actor) end(op history.Op, err error) {
	op.End = a.of.opts.Recorder.Now()
	op.Outcome, op.Code, op.Detail = outcome(err)
	a.of.opts.Recorder.Op(op)
}

// defineLive defines a projection and returns when it is live.
func (a *actor) defineLive(ctx context.Context, name, definition string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		node := a.anyNode()
		generation, err := a.define(ctx, node, name, definition)
		if err == nil {
			err = a.of.clients[node].WaitLive(ctx, name, generation, nil)
		}
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || client.IsBadDefinition(err) {
			return fmt.Errorf("projection %s: %w", name, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// Table reads all rows of a projection from one node's own state, once that has
// come to a position: as they are, or as of the position past if that is not 0.
func Table(ctx context.Context, c *client.Client, projection string, position, past uint64) (history.Table, error) {
	t := history.Table{Projection: projection, AtPosition: past, Past: past > 0}
	o := client.RowsOptions{StateOptions: client.StateOptions{Local: true, MinPosition: position, AtPosition: past}}
	for row, err := range c.Rows(ctx, projection, o) {
		if err != nil {
			return t, err
		}
		t.Rows, t.Generation = append(t.Rows, Row(&row)), row.Generation
		if past == 0 {
			t.AtPosition = row.AsOf
		}
	}
	return t, nil
}

// Settled returns the names of all projections when each is live and none is
// being built anew, so that nothing will change by itself any more.
func Settled(ctx context.Context, c *client.Client) ([]string, error) {
	for {
		list, err := c.Projections(ctx)
		if err != nil {
			return nil, err
		}
		var names []string
		building := ""
		for i := range list {
			p := &list[i]
			names = append(names, p.Name)
			if p.State != client.StateLive || p.Next != nil {
				building = p.Name
			}
		}
		if building == "" {
			return names, nil
		}
		select {
		case <-ctx.Done():
			return names, fmt.Errorf("projection %s is still being built: %w", building, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}
