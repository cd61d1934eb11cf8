package workload

import (
	"context"
	"errors"
	"fmt"

	"cairn/client"
	"cairn/event"
	"cairn/jepsen-lite/history"
)

const (
	schemaCategory = "schema"
	schemaType     = "Measured"
	schemaStreams  = 10
)

// schemaDefinition folds events of every form that the type ever has, and says
// in which one it saw the last.
const schemaDefinition = `{
	"match": {"category": "schema"},
	"init": {"sum": 0, "n": 0},
	"when": {"*": "{'sum': state.sum + ` + schemaAmount + `, 'n': state.n + 1, 'form': has(event.data.form) ? event.data.form : 0}"},
	"guards": {"*": [{"rule": "state.sum + ` + schemaAmount + ` >= 0", "message": "below zero"}]}
}`

const schemaAmount = `(!has(event.data.form) || event.data.form == 1 ? event.data.amount : event.data.form == 4 ? event.data.amount.ct : event.data.value.amount)`

// schemaChange is the next schema of the type and the step with which it comes.
type schemaChange struct {
	step         int
	registration string
}

// schemaChanges returns schemas 1, 2, 3, …, each with a way from the one before.
func schemaChanges() []schemaChange {
	return []schemaChange{
		{40, `{"schema": {"type": "object", "required": ["amount", "form"], "properties": {"amount": {"type": "number"}, "form": {"const": 1}}},
			"upcast": "{'n': data.n, 'amount': data.amount, 'form': 1}",
			"examples": [{"old": {"n": 1, "amount": 2, "ballast": "x"}, "new": {"n": 1, "amount": 2, "form": 1}}]}`},
		{90, `{"schema": {"type": "object", "required": ["value", "form"], "properties": {"value": {"type": "object", "required": ["amount"]}, "form": {"const": 2}}},
			"upcast": "{'n': data.n, 'value': {'amount': data.amount}, 'form': 2}",
			"examples": [{"old": {"n": 1, "amount": 2, "form": 1}, "new": {"n": 1, "value": {"amount": 2}, "form": 2}}]}`},
		{150, `{"schema": {"type": "object", "required": ["value", "form"], "properties": {"value": {"type": "object", "required": ["amount", "unit"]}, "form": {"const": 3}}},
			"upcast": "{'n': data.n, 'value': {'amount': data.value.amount, 'unit': 'ct'}, 'form': 3}",
			"examples": [{"old": {"n": 1, "value": {"amount": 2}, "form": 2}, "new": {"n": 1, "value": {"amount": 2, "unit": "ct"}, "form": 3}}]}`},
		{220, `{"schema": {"type": "object", "required": ["amount", "form"], "properties": {"amount": {"type": "object", "required": ["ct"]}, "form": {"const": 4}}},
			"upcast": "{'n': data.n, 'amount': {data.value.unit: data.value.amount}, 'form': 4}",
			"examples": [{"old": {"n": 1, "value": {"amount": 2, "unit": "ct"}, "form": 3}, "new": {"n": 1, "amount": {"ct": 2}, "form": 4}}]}`},
	}
}

// formed is the data of an event in the form of a schema, 0 = as before any.
func formed(form uint32, n int, amount int64) []byte {
	switch form {
	case 0:
		return fmt.Appendf(nil, `{"n":%d,"amount":%d,"ballast":"%0*d"}`, n, amount, ballast, 0)
	case 1:
		return fmt.Appendf(nil, `{"n":%d,"amount":%d,"form":1}`, n, amount)
	case 2:
		return fmt.Appendf(nil, `{"n":%d,"value":{"amount":%d},"form":2}`, n, amount)
	case 3:
		return fmt.Appendf(nil, `{"n":%d,"value":{"amount":%d,"unit":"ct"},"form":3}`, n, amount)
	default:
		return fmt.Appendf(nil, `{"n":%d,"amount":{"ct":%d},"form":4}`, n, amount)
	}
}

func (a *actor) beginSchemas(ctx context.Context) error {
	return a.defineLive(ctx, "schema-sum", schemaDefinition)
}

// stepSchemas registers the next schema when its time has come, or appends in
// the form of the newest one that is known, or of the one before, or reads.
func (a *actor) stepSchemas(ctx context.Context) {
	n, known := a.group.next(), a.group.schema()
	if changes := schemaChanges(); int(known) < len(changes) && n >= changes[known].step && a.rng.IntN(4) == 0 {
		err := a.register(ctx, a.anyNode(), schemaType, known+1, changes[known].registration)
		var problem *client.Problem
		if err == nil || errors.As(err, &problem) && problem.Newest > known { // another client was first
			a.group.setSchema(known + 1)
		}
		return
	}
	stream := fmt.Sprintf("%s-%d", schemaCategory, a.rng.IntN(schemaStreams))
	switch a.rng.IntN(10) {
	case 0:
		a.read(ctx, a.anyNode(), history.Read{Stream: stream, Limit: 1000, Raw: true})
		return
	case 1:
		a.read(ctx, a.anyNode(), history.Read{Stream: stream, Limit: 1000})
		return
	case 2:
		a.readState(ctx, a.anyNode(), history.StateRead{Projection: "schema-sum", Key: stream})
		return
	}
	form := known
	if form > 0 && a.rng.IntN(4) == 0 {
		form--
	}
	var events []event.Event
	for range 1 + a.rng.IntN(2) {
		e := a.event(stream, schemaType, 0, 0)
		e.Data = formed(form, a.made, a.rng.Int64N(100)-40)
		if a.rng.IntN(2) == 0 { // else the newest is meant
			e.Schema = form
		}
		events = append(events, e)
	}
	a.append(ctx, a.anyNode(), event.Append{Events: events})
}

// schema returns the number of the newest schema that the group knows of.
func (g *group) schema() uint32 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.newest
}

func (g *group) setSchema(n uint32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.newest = max(g.newest, n)
}
