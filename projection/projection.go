package projection

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"cairn/event"
	"cairn/projection/expr"
)

// Projection is a compiled definition.
type Projection struct {
	def      *Definition
	key      *program
	byStream bool
	init     expr.Value
	rules    map[string]*rules // of the types that the definition names
	others   *rules            // of every other type
}

// rules are what happens to an event of one type.
type rules struct {
	when   *program // nil: nothing
	guards []guard  // of the type, then those of every type
}

type guard struct {
	Guard
	holds *program
}

// program is an expression, and where it stands in the definition.
type program struct {
	*expr.Program
	path             string
	needData, ofMeta bool // whether it may look at event.data and event.meta
}

// Compile compiles a definition that ParseDefinition returned and that no one
// changes any more. The error is an *Error.
func Compile(d *Definition) (*Projection, error) {
	p := &Projection{def: d, byStream: strings.TrimSpace(d.Key) == "event.stream", rules: map[string]*rules{}}
	var err error
	if p.init, err = expr.Parse(d.Init); err != nil {
		return nil, wrong("init", "%v", err)
	}
	if p.key, err = compile("key", d.Key, "a string, or null for an event that no row is for", []expr.Kind{expr.String, expr.Null}, "event"); err != nil {
		return nil, err
	}
	when := map[string]*program{}
	for _, typ := range slices.Sorted(maps.Keys(d.When)) {
		if when[typ], err = compile("when."+typ, d.When[typ], "a map, the merge patch for the row", []expr.Kind{expr.Map, expr.Null}, "event", "state"); err != nil {
			return nil, err
		}
	}
	guards := map[string][]guard{}
	for _, typ := range slices.Sorted(maps.Keys(d.Guards)) {
		for i, g := range d.Guards[typ] {
			path := fmt.Sprintf("guards.%s[%d].rule", typ, i)
			holds, err := compile(path, g.Rule, "true or false", []expr.Kind{expr.Bool}, "event", "state")
			if err != nil {
				return nil, err
			}
			guards[typ] = append(guards[typ], guard{g, holds})
		}
	}
	p.others = &rules{when["*"], guards["*"]}
	for typ := range when {
		p.rules[typ] = nil
	}
	for typ := range guards {
		p.rules[typ] = nil
	}
	for typ := range p.rules {
		r := &rules{when[typ], slices.Concat(guards[typ], guards["*"])}
		if r.when == nil {
			r.when = when["*"]
		}
		p.rules[typ] = r
	}
	weight := p.key.Patterns()
	for _, one := range when {
		weight += one.Patterns()
	}
	for _, list := range guards {
		for _, g := range list {
			weight += g.holds.Patterns()
		}
	}
	if weight > maxPatterns {
		return nil, wrong("definition", "the patterns of all matches() are too complex together: their bytes times the copies that their repeats make are %d, the most is %d", weight, maxPatterns)
	}
	delete(p.rules, "*") // no type: an event that is called so is one of the others
	return p, nil
}

func compile(path, source, yields string, kinds []expr.Kind, variables ...string) (*program, error) {
	compiled, err := expr.Compile(source, variables...)
	var at *expr.Error
	if errors.As(err, &at) {
		return nil, &Error{path, at.Line, at.Column, at.Message}
	}
	if err != nil {
		return nil, wrong(path, "%v", err)
	}
	if err := compiled.CheckMembers("event", eventNames); errors.As(err, &at) {
		return nil, &Error{path, at.Line, at.Column, at.Message}
	}
	if !compiled.Yields(kinds...) {
		return nil, &Error{path, 1, 1, "must yield " + yields}
	}
	return &program{compiled, path, compiled.Reads("event", "data"), compiled.Reads("event", "meta")}, nil
}

// Definition returns what p was compiled from.
func (p *Projection) Definition() *Definition { return p.def }

// Guarding reports whether there are guards.
func (p *Projection) Guarding() bool { return p.def.Guarding() }

// ByStream reports whether the key of a row is the name of its events' stream.
func (p *Projection) ByStream() bool { return p.byStream }

// Filter finds all events that match, and perhaps more.
func (p *Projection) Filter() event.Filter {
	m := &p.def.Match
	f := event.Filter{Category: m.Category, StreamPrefix: m.StreamPrefix}
	if len(m.Streams) == 1 {
		f.Stream = m.Streams[0]
	}
	if len(m.Types) > 0 || len(m.Tags) > 0 {
		f.Query.Items = []event.QueryItem{{Types: m.Types, Tags: m.Tags}}
	}
	return f
}

// Matches reports whether p is for an event.
func (p *Projection) Matches(e *event.Event) bool {
	m := &p.def.Match
	if event.IsSystem(e.Stream) || !m.mayMatchType(e.Type) ||
		m.Category != "" && m.Category != event.Category(e.Stream) || !strings.HasPrefix(e.Stream, m.StreamPrefix) {
		return false
	}
	if len(m.Streams) > 0 {
		if _, ok := slices.BinarySearch(m.Streams, e.Stream); !ok {
			return false
		}
	}
	for _, tag := range m.Tags {
		if !slices.Contains(e.Tags, tag) {
			return false
		}
	}
	return true
}

// rulesOf returns what happens to events of a type.
func (p *Projection) rulesOf(typ string) *rules {
	if r := p.rules[typ]; r != nil {
		return r
	}
	return p.others
}
