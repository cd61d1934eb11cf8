package projection

import (
	"errors"
	"fmt"

	"cairn/event"
	"cairn/projection/expr"
)

// Input is one event in the form in which expressions see it. It is read once
// for all projections, and what none looks at is not read at all.
type Input struct {
	event      *event.Event
	budget     *Budget // nil = only the limit of each evaluation
	value      expr.Value
	members    [12]expr.Value // of value, by eventNames
	data, meta bool           // whether they are among members
	dataErr    error
	metaErr    error
}

// eventNames are the members of the variable event, in byte order. All are
// there in every event: ids that it lacks are "", tags [], meta {}. Data that is
// not JSON is null.
var eventNames = []string{
	"causation_id", "compensates", "correlation_id", "data", "id", "meta", "position", "stream", "tags", "time", "type", "version",
}

const (
	dataPlace = 3
	metaPlace = 5
)

// NewInput prepares an event for Key and Step. The event must not change
// meanwhile; one goroutine may use the Input.
func NewInput(e *event.Event) *Input { return NewInputWithin(e, nil) }

// NewInputWithin is NewInput for one event of an append: what Key and Step do
// with it is taken off b. When that is used up they fail with ErrBudget. nil
// leaves the limit of each evaluation.
func NewInputWithin(e *event.Event, b *Budget) *Input {
	tags := noTags
	if len(e.Tags) > 0 {
		list := make([]expr.Value, len(e.Tags))
		for i, tag := range e.Tags {
			list[i] = expr.TextOf(tag)
		}
		tags = expr.ListOf(list...)
	}
	in := &Input{event: e, budget: b, members: [12]expr.Value{
		expr.TextOf(e.CausationID), expr.TextOf(e.Compensates), expr.TextOf(e.CorrelationID), {}, expr.TextOf(e.ID), {},
		expr.NumberOf(float64(e.Position)), expr.TextOf(e.Stream), tags, expr.TimeOf(e.Time),
		expr.TextOf(e.Type), expr.NumberOf(float64(e.Version)),
	}}
	in.value = expr.MapOf(eventNames, in.members[:])
	return in
}

var noTags = expr.ListOf()

// run evaluates a program over the event and, where it is given, a row.
func (in *Input) run(p *program, state ...expr.Value) (expr.Value, error) {
	if p.needData && !in.data {
		if err := in.budget.spend(textSteps(in.event.Data)); err != nil {
			return expr.Value{}, err
		}
		in.data = true
		if in.event.ContentType == "" {
			in.members[dataPlace], in.dataErr = expr.Parse(in.event.Data)
		}
	}
	if p.ofMeta && !in.meta {
		if err := in.budget.spend(textSteps(in.event.Meta)); err != nil {
			return expr.Value{}, err
		}
		in.meta = true
		meta := in.event.Meta
		if len(meta) == 0 {
			meta = []byte("{}")
		}
		in.members[metaPlace], in.metaErr = expr.Parse(meta)
	}
	if p.needData && in.dataErr != nil {
		return expr.Value{}, fmt.Errorf("event.data: %w", in.dataErr)
	}
	if p.ofMeta && in.metaErr != nil {
		return expr.Value{}, fmt.Errorf("event.meta: %w", in.metaErr)
	}
	steps := in.budget.most()
	var v expr.Value
	var took int
	var err error
	if len(state) == 0 {
		v, took, err = p.EvalWithin(steps, in.value)
	} else {
		v, took, err = p.EvalWithin(steps, in.value, state[0])
	}
	if out := in.budget.spend(took); out != nil {
		return expr.Value{}, out
	}
	if err != nil {
		return expr.Value{}, fmt.Errorf("%s: %w", p.path, err)
	}
	return v, nil
}

// Key returns the key of the row that an event is for, which Matches must have
// chosen. ok is false if it is for none. The error is why the key can't be
// told: a fold failure without a row; or ErrBudget.
func (p *Projection) Key(in *Input) (key string, ok bool, err error) {
	if p.byStream {
		return in.event.Stream, true, nil
	}
	v, err := in.run(p.key)
	if err != nil {
		return "", false, err
	}
	switch {
	case v.Kind() == expr.Null:
		return "", false, nil
	case v.Kind() != expr.String:
		return "", false, fmt.Errorf("key: it is a %s, but must be a string or null", v.Kind())
	case v.Text() == "" || len(v.Text()) > MaxKey:
		return "", false, fmt.Errorf("key: it has %d bytes, but must have 1 to %d", len(v.Text()), MaxKey)
	}
	return v.Text(), true, nil
}

// Violation is a guard that does not hold.
type Violation struct {
	Guard         int // its place among those of the event's type, followed by those of "*"
	Rule, Message string
}

// Step folds one event into a row. state is the row's canonical JSON, nil if
// there is none yet; next is what it becomes. changed is false, and next is
// state, if the definition has no "when" for the event. With guards they are
// evaluated first; the first that does not hold is v, and nothing is folded.
// The error is a fold failure: text for people, the same on every node; or
// ErrBudget.
func (p *Projection) Step(state []byte, in *Input, guards bool) (next []byte, changed bool, v *Violation, err error) {
	r := p.rulesOf(in.event.Type)
	if r.when == nil && (!guards || len(r.guards) == 0) {
		return state, false, nil, nil
	}
	if err := in.budget.spend(2 * textSteps(state)); err != nil { // to read it and to write what becomes of it
		return nil, false, nil, err
	}
	before := p.init
	if state != nil {
		if before, err = expr.Parse(state); err != nil {
			return nil, false, nil, fmt.Errorf("the row: %w", err)
		}
	}
	if guards {
		if v, err := violated(r.guards, in, before); v != nil || err != nil {
			return nil, false, v, err
		}
	}
	if r.when == nil {
		return state, false, nil, nil
	}
	patch, err := in.run(r.when, before)
	if err != nil {
		return nil, false, nil, err
	}
	next, err = patched(before, patch, in.budget)
	if errors.Is(err, ErrBudget) {
		return nil, false, nil, err
	}
	if err != nil {
		return nil, false, nil, fmt.Errorf("%s: %w", r.when.path, err)
	}
	return next, true, nil, nil
}

func violated(guards []guard, in *Input, state expr.Value) (*Violation, error) {
	for i, g := range guards {
		v, err := in.run(g.holds, state)
		if err != nil {
			return nil, err
		}
		if v.Kind() != expr.Bool {
			return nil, fmt.Errorf("%s: it is a %s, but must be true or false", g.holds.path, v.Kind())
		}
		if !v.Truth() {
			message := g.Message
			if message == "" {
				message = "this does not hold: " + g.Rule
			}
			return &Violation{i, g.Rule, message}, nil
		}
	}
	return nil, nil
}

// patched merges a patch into a row; null changes nothing.
func patched(state, patch expr.Value, b *Budget) ([]byte, error) {
	switch patch.Kind() {
	case expr.Null:
	case expr.Map:
		var looked int
		var err error
		state, looked, err = expr.Merge(state, patch)
		if out := b.spend(looked); out != nil {
			return nil, out
		}
		if err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("it is a %s, but must be a map (a merge patch) or null", patch.Kind())
	}
	next, err := state.AppendJSON(make([]byte, 0, 256), MaxState)
	if err != nil {
		return nil, fmt.Errorf("the row: %w", err)
	}
	return next, b.spend(textSteps(next))
}
