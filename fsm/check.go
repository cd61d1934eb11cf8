package fsm

import (
	"errors"
	"fmt"
	"slices"

	"cairn/event"
	"cairn/projection/schema"
)

// maxCompensatesScan is how many of the newest events of a stream are looked
// through for an id that its client did not choose: only chosen ones are indexed.
const maxCompensatesScan = 10_000

// knows reports whether any id of an append is known: it may be a retry then,
// and is for Apply to decide.
func (v *View) knows(a *event.Append) (bool, error) {
	for i := range a.Events {
		e := &a.Events[i]
		if !e.IDChosen {
			continue
		}
		if _, known, err := v.index.Lookup(e.ID, e.Stream); err != nil || known {
			return known, err
		}
	}
	return false, nil
}

func compensates(a *event.Append) bool {
	return slices.ContainsFunc(a.Events, func(e event.Event) bool { return e.Compensates != "" })
}

// checkCompensates refuses an append with an event that compensates one that is
// not in its stream, nor before it in the append.
func (v *View) checkCompensates(a *event.Append) (*event.Outcome, error) {
	for i := range a.Events {
		e := &a.Events[i]
		if e.Compensates == "" || slices.ContainsFunc(a.Events[:i], func(b event.Event) bool { return b.Stream == e.Stream && b.ID == e.Compensates }) {
			continue
		}
		found, err := v.has(e.Stream, e.Compensates)
		if err != nil {
			return nil, err
		}
		if !found {
			return &event.Outcome{Code: event.Refused, Reason: fmt.Sprintf("event %d compensates %q, which is no event of stream %q", i, e.Compensates, e.Stream)}, nil
		}
	}
	return nil, nil
}

// has reports whether a stream has an event with an id.
func (v *View) has(stream, id string) (bool, error) {
	if _, ok, err := v.index.Lookup(id, stream); err != nil || ok {
		return ok, err
	}
	head, err := v.Head(stream)
	if err != nil || head.Version == 0 {
		return false, err
	}
	events, err := v.Stream(stream, head.Version, true)
	if err != nil {
		return false, err
	}
	defer events.Close()
	for n := 0; n < maxCompensatesScan && events.Next(); n++ {
		if events.Event().ID == id {
			return true, nil
		}
	}
	return false, events.Err()
}

// Check holds the data of an append's events against the schemas of their types
// and, unless it refuses the append, stamps the schemas' numbers: that which an
// event names, or else the newest. What any node knows is good enough to accept:
// Apply sees to it that a type with schemas gets no event without one. An append
// of which an id is known may be a retry and is not held against anything.
func (m *Machine) Check(a *event.Append) (*event.Outcome, error) {
	types := m.Catalog().Types()
	for i := range a.Events {
		refusal, err := conforms(types, &a.Events[i], i)
		if err != nil {
			return nil, err
		}
		if refusal == nil {
			continue
		}
		if known, err := m.knowsAny(a); err != nil || !known {
			return refusal, err
		}
		break
	}
	for i := range a.Events {
		if e := &a.Events[i]; e.Schema == 0 {
			e.Schema = types.Newest(e.Type)
		}
	}
	return nil, nil
}

// conforms holds an event's data against the schema that it names, or else the
// newest.
func conforms(types *schema.Registry, e *event.Event, place int) (*event.Outcome, error) {
	if newest := types.Newest(e.Type); e.Schema > newest {
		return schemaUnknown(e, place, newest), nil
	}
	var v *schema.Violation
	switch err := types.Validate(e.Type, e.Schema, e.Data); {
	case errors.As(err, &v):
		return violated(place, v), nil
	default:
		return nil, err
	}
}

func (m *Machine) knowsAny(a *event.Append) (bool, error) {
	v := m.View(0)
	defer v.Close()
	return v.knows(a)
}

func violated(place int, v *schema.Violation) *event.Outcome {
	o := &event.Outcome{Code: event.SchemaViolation, Violation: &event.Violation{Event: place, Type: v.Type, Schema: v.Schema}}
	for _, d := range v.Errors {
		o.Violation.Errors = append(o.Violation.Errors, event.ViolationError{Path: d.Path, Message: d.Message})
	}
	return o
}

func schemaUnknown(e *event.Event, place int, newest uint32) *event.Outcome {
	message := fmt.Sprintf("the newest schema of type %q is %d", e.Type, newest)
	if newest == 0 {
		message = fmt.Sprintf("type %q has no schemas", e.Type)
	}
	return &event.Outcome{Code: event.SchemaViolation, Violation: &event.Violation{
		Event: place, Type: e.Type, Schema: e.Schema, Errors: []event.ViolationError{{Message: message}},
	}}
}

// stale reports whether an append was checked against other schemas than those
// in force, or touches a stream of one before it in the entry that was. It is for
// Apply.
func (m *Machine) stale(a *event.Append) bool {
	types := m.state.catalog.Types()
	if !slices.ContainsFunc(a.Events, func(e event.Event) bool {
		_, behind := m.frame.stale[e.Stream]
		return behind || e.Schema == 0 && types.Newest(e.Type) > 0
	}) {
		return false
	}
	if m.frame.stale == nil {
		m.frame.stale = make(map[string]struct{})
	}
	for i := range a.Events {
		m.frame.stale[a.Events[i].Stream] = struct{}{}
	}
	return true
}
