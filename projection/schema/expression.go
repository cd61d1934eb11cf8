package schema

import (
	"errors"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"cairn/event"
	"cairn/projection/expr"
)

// upcast is a compiled expression that makes new data of old.
type upcast struct {
	program *expr.Program
	members []string // of the event that it may look at, in byte order
}

// compileUpcast compiles an expression whose results are to be valid under a
// schema. The error is an *Error.
func compileUpcast(source string, to *document) (*upcast, error) {
	p, err := expr.Compile(source, "data", "event")
	var fault *expr.Error
	if errors.As(err, &fault) {
		return nil, &Error{Path: "upcast", Line: fault.Line, Column: fault.Column, Message: fault.Message}
	}
	if err != nil {
		return nil, refusef("upcast", "%v", err)
	}
	if kinds := kindsOf(to.schema); kinds != nil && !p.Yields(kinds...) {
		return nil, refusef("upcast", "its result is never one of the types that the schema allows: %v", to.schema.Types)
	}
	names := make([]string, len(eventMembers))
	for i, m := range eventMembers {
		names[i] = m.name
	}
	if err := p.CheckMembers("event", names); errors.As(err, &fault) {
		return nil, &Error{Path: "upcast", Line: fault.Line, Column: fault.Column, Message: fault.Message}
	}
	u := &upcast{program: p}
	for _, m := range eventMembers {
		if p.Reads("event", m.name) {
			u.members = append(u.members, m.name)
		}
	}
	return u, nil
}

// kindsOf returns the kinds of values that the "type" of a schema allows, as an
// expression yields them; nil = it has none.
func kindsOf(s *jsonschema.Schema) []expr.Kind {
	if s.Types == nil {
		return nil
	}
	var kinds []expr.Kind
	for _, name := range s.Types.ToStrings() {
		kinds = append(kinds, map[string][]expr.Kind{
			"null": {expr.Null}, "boolean": {expr.Bool}, "number": {expr.Number}, "integer": {expr.Number},
			"string": {expr.String, expr.Timestamp, expr.Duration}, // what has no form in JSON is written as text
			"array":  {expr.List}, "object": {expr.Map},
		}[name]...)
	}
	return kinds
}

// run returns what the data of e becomes.
func (u *upcast) run(e *event.Event) ([]byte, error) {
	data, err := expr.Parse(e.Data)
	if err != nil {
		return nil, err
	}
	seen, err := u.view(e, data)
	if err != nil {
		return nil, err
	}
	v, err := u.program.Eval(data, seen)
	if err != nil {
		return nil, err
	}
	return v.AppendJSON(nil, event.MaxData)
}

// view returns what the expression looks at of an event.
func (u *upcast) view(e *event.Event, data expr.Value) (expr.Value, error) {
	if len(u.members) == 0 {
		return expr.Value{}, nil
	}
	values := make([]expr.Value, 0, len(u.members))
	for _, m := range eventMembers {
		if len(values) < len(u.members) && u.members[len(values)] == m.name {
			v, err := m.of(e, data)
			if err != nil {
				return expr.Value{}, err
			}
			values = append(values, v)
		}
	}
	return expr.MapOf(u.members, values), nil
}

// eventMembers are the members of "event" in an expression, in byte order.
var eventMembers = []struct {
	name string
	of   func(e *event.Event, data expr.Value) (expr.Value, error)
}{
	{"causation_id", textOf(func(e *event.Event) string { return e.CausationID })},
	{"compensates", textOf(func(e *event.Event) string { return e.Compensates })},
	{"correlation_id", textOf(func(e *event.Event) string { return e.CorrelationID })},
	{"data", func(_ *event.Event, data expr.Value) (expr.Value, error) { return data, nil }},
	{"id", textOf(func(e *event.Event) string { return e.ID })},
	{"meta", metaOf},
	{"position", func(e *event.Event, _ expr.Value) (expr.Value, error) { return expr.NumberOf(float64(e.Position)), nil }},
	{"stream", textOf(func(e *event.Event) string { return e.Stream })},
	{"tags", tagsOf},
	{"time", func(e *event.Event, _ expr.Value) (expr.Value, error) { return expr.TimeOf(e.Time), nil }},
	{"type", textOf(func(e *event.Event) string { return e.Type })},
	{"version", func(e *event.Event, _ expr.Value) (expr.Value, error) { return expr.NumberOf(float64(e.Version)), nil }},
}

func textOf(member func(*event.Event) string) func(*event.Event, expr.Value) (expr.Value, error) {
	return func(e *event.Event, _ expr.Value) (expr.Value, error) { return expr.TextOf(member(e)), nil }
}

func metaOf(e *event.Event, _ expr.Value) (expr.Value, error) {
	if len(e.Meta) == 0 {
		return expr.MapOf(nil, nil), nil
	}
	return expr.Parse(e.Meta)
}

func tagsOf(e *event.Event, _ expr.Value) (expr.Value, error) {
	tags := make([]expr.Value, len(e.Tags))
	for i, tag := range e.Tags {
		tags[i] = expr.TextOf(tag)
	}
	return expr.ListOf(tags...), nil
}
