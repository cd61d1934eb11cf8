package check

import (
	"encoding/json"
	"errors"
	"fmt"

	"cairn/event"
	"cairn/jepsen-lite/history"
	"cairn/projection/schema"
)

var schemas = checker{
	"schemas",
	"Every event is valid under the schema it is stamped with. Reads and followers give it in the form of the newest, raw ones as it was sent. Only what is against a schema was refused for it.",
	judgeSchemas,
}

const codeSchemaViolation = "schema-violation"

func judgeSchemas(v *view, _ Options, verdict *Verdict) {
	stamped := v.judgeStamps(verdict)
	brought := 0
	for i := range v.h.Ops {
		op := &v.h.Ops[i]
		switch {
		case op.Define != nil && op.Define.Type != "" && op.Outcome == history.OK:
			verdict.Counts["registered"]++
			if fault := v.misregistered(op); fault != "" {
				verdict.problem("%s registered schema %d of type %s, but %s", opName(op), op.Define.Number, op.Define.Type, fault)
			}
		case appendOf(op) != nil && op.Outcome == history.Refused && op.Code == codeSchemaViolation:
			verdict.Counts["refused"]++
			if fault := v.wronglyRefused(op); fault != "" {
				verdict.problem("%s was refused (%s), but %s", opName(op), op.Code, fault)
			}
		case op.Read != nil && op.Append == nil && op.Outcome == history.OK && !op.Read.Raw:
			newest := v.defined().at(v.least(op)).Types()
			for j := range op.Read.Events {
				e := &op.Read.Events[j]
				if newest.Newest(e.Type) > 0 {
					brought++
				}
				if fault := v.misbrought(e, newest.Newest(e.Type)); fault != "" {
					verdict.problem("%s was given %s %s", opName(op), eventName(e), fault)
					break
				}
			}
		}
	}
	for i := range v.h.Deliveries {
		d := &v.h.Deliveries[i]
		if newest := v.defined().at(d.Event.Position).Types().Newest(d.Event.Type); newest > 0 {
			brought++
			if fault := v.misbrought(&d.Event, newest); fault != "" {
				verdict.problem("follower %d was given %s by %s at %.3fs %s", d.Follower, eventName(&d.Event), d.Node, d.At.Seconds(), fault)
			}
		}
	}
	verdict.Counts["stamped"] = int64(stamped)
	verdict.Counts["brought"] = int64(brought)
	verdict.Detail = fmt.Sprintf("%s with a schema; %s of such types were read; %s refused", count(stamped, "event"), comma(brought), comma(int(verdict.Counts["refused"])))
}

// judgeStamps judges the schemas of the events in the final log.
func (v *view) judgeStamps(verdict *Verdict) (stamped int) {
	asked := map[eventKey]uint32{}
	for i := range v.h.Ops {
		if a := appendOf(&v.h.Ops[i]); a != nil {
			for j := range a.Events {
				asked[keyOf(&a.Events[j])] = a.Events[j].Schema
			}
		}
	}
	all := v.defined().last().Types()
	for i := range v.log {
		e := &v.log[i]
		newest := v.defined().at(uint64(i)).Types().Newest(e.Type)
		if e.Schema > 0 {
			stamped++
		}
		switch {
		case e.Schema == 0 && newest > 0:
			verdict.problem("%s at position %d has no schema, though its type has %d since before", eventName(e), i+1, newest)
		case e.Schema > newest:
			verdict.problem("%s at position %d has schema %d, but the newest in force there is %d", eventName(e), i+1, e.Schema, newest)
		case asked[keyOf(e)] > 0 && e.Schema != asked[keyOf(e)]:
			verdict.problem("%s at position %d has schema %d, but was sent with %d", eventName(e), i+1, e.Schema, asked[keyOf(e)])
		case e.Schema > 0:
			if err := all.Validate(e.Type, e.Schema, e.Data); err != nil {
				verdict.problem("%s at position %d is not valid under schema %d: %v", eventName(e), i+1, e.Schema, err)
			}
		}
	}
	return stamped
}

// misbrought says how an event that was read is not in the form of a schema that
// is at least newest, or "".
func (v *view) misbrought(got *history.Event, newest uint32) string {
	if got.Schema < newest && newest > 0 {
		if e, ok := v.storedAt(got); !ok || !staysBehind(v.defined().last().Types(), &e) {
			return fmt.Sprintf("in the form of schema %d, though %d was in force before", got.Schema, newest)
		}
	}
	want, ok := v.storedAt(got)
	if !ok || got.Schema == want.Schema {
		return "" // other checkers compare it
	}
	all := v.defined().last().Types()
	if err := all.Upcast(&want, got.Schema); err != nil || want.Schema != got.Schema {
		return fmt.Sprintf("in the form of schema %d, to which nothing leads from what is stored", got.Schema)
	}
	if string(want.Data) != string(got.Data) {
		return fmt.Sprintf("as %s, but what is stored gives %s under schema %d", got.Data, want.Data, got.Schema)
	}
	return ""
}

// staysBehind reports whether no upcast leads on from the form that an event has.
func staysBehind(all *schema.Registry, e *event.Event) bool {
	return !all.NeedsUpcast(e.Type, e.Schema)
}

// storedAt returns the event of the final log that one that was read is.
func (v *view) storedAt(e *history.Event) (event.Event, bool) {
	place, ok := v.at[keyOf(e)]
	if !ok {
		return event.Event{}, false
	}
	return stored(&v.log[place]), true
}

// wronglyRefused says why an append was not against a schema, or "". The leader
// holds it against the schemas that it knows, which are those in force at some
// moment between request and answer.
func (v *view) wronglyRefused(op *history.Op) string {
	r := op.Refusal
	if r == nil || r.Event < 0 || r.Event >= len(op.Append.Events) {
		return "the answer does not say for which event"
	}
	e := &op.Append.Events[r.Event]
	d, least, most := v.defined(), v.least(op), v.most(op.End)
	first, last := d.at(least).Types().Newest(e.Type), d.at(max(least, most)).Types().Newest(e.Type)
	if e.Schema > 0 && r.Schema != e.Schema {
		return fmt.Sprintf("for schema %d in place of %d, which it names", r.Schema, e.Schema)
	}
	if e.Schema == 0 && (r.Schema < first || r.Schema > last) {
		return fmt.Sprintf("for schema %d, though the newest then was %d to %d", r.Schema, first, last)
	}
	if r.Schema > first {
		if e.Schema > 0 {
			return "" // it may not have been in force yet
		}
	}
	var violation *schema.Violation
	switch err := d.last().Types().Validate(e.Type, r.Schema, e.Data); {
	case errors.As(err, &violation):
		return ""
	case err != nil:
		return err.Error()
	}
	return fmt.Sprintf("%s is valid under schema %d", e.Data, r.Schema)
}

// misregistered says how the final log does not have a schema as it was
// acknowledged, or "".
func (v *view) misregistered(op *history.Op) string {
	want, err := schema.Parse(op.Define.Type, op.Define.Number, op.Define.Body)
	if err != nil {
		return "it is none: " + err.Error()
	}
	for i := range v.log {
		e := &v.log[i]
		var body event.SchemaRegistered
		if e.Stream != event.StreamTypes || e.Type != event.TypeSchemaRegistered || json.Unmarshal(e.Data, &body) != nil ||
			body.Type != want.Type || body.Number != want.Number {
			continue
		}
		got, err := schema.Parse(body.Type, body.Number, body.Body)
		if err != nil || string(got.Canonical()) != string(want.Canonical()) {
			return fmt.Sprintf("another one stands at position %d", i+1)
		}
		return ""
	}
	return "the final log has none of that number"
}
