package schema

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"cairn/event"
)

// Registry is the schemas of all types. It never changes: With makes the next
// one. A nil Registry has none.
type Registry struct {
	types map[string]*chain
}

// chain is the schemas of one type.
type chain struct {
	steps []*step // that of number n at n-1
	// from is the number from which on there is a way to the newest: 0 if
	// schema 1 has an upcast, else 1.
	from uint32
	// renamed and entry are where the newest leads, if it gives a new name.
	renamed string
	entry   uint32
}

// step is a registration, ready to be used.
type step struct {
	*Registration
	document *document
	upcast   *upcast // nil = none
}

func (c *chain) newest() uint32 {
	if c == nil {
		return 0
	}
	return uint32(len(c.steps))
}

// Empty returns the registry of a log without schemas.
func Empty() *Registry { return &Registry{types: map[string]*chain{}} }

// With returns the registry with r in it. It is r's place that is checked
// first: the error is ErrUnchanged for what is there already, the same, and a
// *NumberError for another number than the next. Any other reason to refuse r is
// an *Error.
func (g *Registry) With(r *Registration) (*Registry, error) {
	c := g.types[r.Type]
	newest := c.newest()
	if 0 < r.Number && r.Number <= newest && bytes.Equal(c.steps[r.Number-1].Canonical(), r.Canonical()) {
		return g, ErrUnchanged
	}
	if renamed, _ := g.Renamed(r.Type); r.Number != newest+1 || renamed != "" {
		return nil, &NumberError{Type: r.Type, Number: r.Number, Newest: newest, Renamed: renamed}
	}
	if err := r.checkForm(); err != nil {
		return nil, err
	}
	s, err := newStep(r)
	if err != nil {
		return nil, err
	}
	next := &chain{renamed: r.Renamed}
	if c != nil {
		next.steps, next.from = slices.Clip(c.steps), c.from
	} else if s.upcast == nil {
		next.from = 1
	}
	next.steps = append(next.steps, s)
	if r.Renamed != "" {
		// So that there are no circles: a new name is never one that is gone.
		if further, _ := g.Renamed(r.Renamed); further != "" {
			return nil, refusef("renamed", "%s was renamed itself: give the name %s", r.Renamed, further)
		}
		next.entry = g.Newest(r.Renamed)
	}
	if err := g.checkExamples(s, c); err != nil {
		return nil, err
	}
	types := maps.Clone(g.types)
	types[r.Type] = next
	return &Registry{types: types}, nil
}

func newStep(r *Registration) (*step, error) {
	s := &step{Registration: r}
	var err error
	if s.document, err = compile(r.Schema); err != nil {
		return nil, err
	}
	if r.Upcast != "" {
		if s.upcast, err = compileUpcast(r.Upcast, s.document); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// checkExamples tries the upcast of s, which comes after the chain before.
func (g *Registry) checkExamples(s *step, before *chain) error {
	for i, ex := range s.Examples {
		at := fmt.Sprintf("examples[%d]", i)
		if before != nil {
			if found := before.steps[s.Number-2].document.validate(ex.Old); found != nil {
				return refusef(at+".old", "is %v", &Violation{s.Type, s.Number - 1, found})
			}
		}
		got, err := s.upcast.run(specimen(s.Type, s.Number-1, ex.Old))
		if err != nil {
			return refusef(at+".old", "the upcast fails: %v", err)
		}
		if !equal(got, ex.New) {
			return refusef(at+".new", "is not what the upcast makes of the old data, which is %s", clip(string(got)))
		}
		if found := s.document.validate(ex.New); found != nil {
			return refusef(at+".new", "is %v", &Violation{s.Type, s.Number, found})
		}
		if c := g.types[s.Renamed]; c != nil {
			if found := c.steps[len(c.steps)-1].document.validate(ex.New); found != nil {
				return refusef(at+".new", "is %v", &Violation{s.Renamed, c.newest(), found})
			}
		}
	}
	return nil
}

// specimen is the event that an upcast sees when it is tried with an example.
func specimen(typ string, number uint32, data []byte) *event.Event {
	return &event.Event{Position: 1, Version: 1, Stream: "example-1", Type: typ, ID: "example", Schema: number, Data: data}
}

// Types returns the types that have schemas, in the order of their names.
func (g *Registry) Types() []string {
	if g == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(g.types))
}

// Any reports whether there is any schema.
func (g *Registry) Any() bool { return g != nil && len(g.types) > 0 }

// Newest returns the number of the newest schema of a type, 0 if it has none.
func (g *Registry) Newest(typ string) uint32 {
	if g == nil {
		return 0
	}
	return g.types[typ].newest()
}

// Renamed returns what a type was renamed to, and at which of that name's
// schemas its events go on; "" if it was not.
func (g *Registry) Renamed(typ string) (name string, number uint32) {
	if g == nil || g.types[typ] == nil {
		return "", 0
	}
	return g.types[typ].renamed, g.types[typ].entry
}

// Registration returns a schema of a type, nil if there is none of that number.
func (g *Registry) Registration(typ string, number uint32) *Registration {
	if number == 0 || number > g.Newest(typ) {
		return nil
	}
	return g.types[typ].steps[number-1].Registration
}

// Validate checks the data of an event that is to be appended against a schema
// of its type. Number 0 stands for the newest. A type without schemas takes any
// data. The error is a *Violation, also where there is no such schema, or where
// the newest gives the type a new name: only what is older is appended under the
// old one.
func (g *Registry) Validate(typ string, number uint32, data []byte) error {
	newest := g.Newest(typ)
	if newest == 0 {
		return nil
	}
	if number == 0 {
		number = newest
	}
	c := g.types[typ]
	if number > newest {
		return &Violation{typ, number, []ViolationError{{Message: fmt.Sprintf("there is no such schema; the newest is %d", newest)}}}
	}
	if c.steps[number-1].Renamed != "" {
		return &Violation{typ, number, []ViolationError{{Message: fmt.Sprintf("the type is called %s from this schema on: append that", c.renamed)}}}
	}
	if found := c.steps[number-1].document.validate(data); found != nil {
		return &Violation{typ, number, found}
	}
	return nil
}
