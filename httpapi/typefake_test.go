package httpapi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"cairn/event"
)

var errFakeNumber = errors.New("fake: the next schema is number 3")

// fakeTypes are the types of a fakeStore. Those whose names begin with "Old" are
// read in another form: their newest schema is 2.
type fakeTypes struct {
	*fakeStore
	bodies  map[string][]string // by type; owned by the store's mu, as are the others
	upcasts Upcasts
	fault   error // of Register
}

func newFakeTypes(f *fakeStore) *fakeTypes {
	return &fakeTypes{fakeStore: f, bodies: map[string][]string{}}
}

func (f *fakeTypes) Register(_ context.Context, typ string, number uint32, body []byte) (Registered, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fault != nil {
		return Registered{}, f.fault
	}
	if strings.Contains(string(body), "sum") {
		return Registered{}, errFakeDefinition
	}
	known := f.bodies[typ]
	if int(number) <= len(known) && known[number-1] == string(body) {
		return Registered{}, nil
	}
	if int(number) != len(known)+1 {
		return Registered{}, errFakeNumber
	}
	f.addLocked(event.Event{Stream: event.StreamTypes, Type: event.TypeSchemaRegistered, Data: []byte(`{}`)})
	f.bodies[typ] = append(known, string(body))
	return Registered{Created: true, Pending: strings.Contains(string(body), "pending")}, nil
}

func (f *fakeTypes) Schema(typ string, number uint32) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if int(number) > len(f.bodies[typ]) {
		return nil, errFakeNotFound
	}
	return []byte(f.bodies[typ][number-1]), nil
}

func (f *fakeTypes) List() (list []TypeSchemas) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for typ, bodies := range f.bodies {
		t := TypeSchemas{Type: typ, Newest: uint32(len(bodies))}
		for i := range bodies {
			t.Schemas = append(t.Schemas, uint32(i+1))
		}
		if strings.Contains(bodies[len(bodies)-1], "renamed") {
			t.Renamed = "New" + typ
		}
		list = append(list, t)
	}
	slices.SortFunc(list, func(a, b TypeSchemas) int { return strings.Compare(a.Type, b.Type) })
	return list
}

func (f *fakeTypes) Upcasts() Upcasts {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.upcasts
}

// fakeUpcasts wraps the data into an object and renames OldName to NewName. Data
// with "bad" in it can't be upcast, and "grow" makes it longer by that much.
type fakeUpcasts struct{ grow int }

func (fakeUpcasts) NeedsUpcast(typ string, schema uint32) bool {
	return strings.HasPrefix(typ, "Old") && schema < 2
}

func (u fakeUpcasts) Upcast(e *event.Event, to uint32) error {
	switch {
	case to != 0:
		panic("a read asks for the newest")
	case strings.Contains(string(e.Data), "bad"):
		return errors.New(`it is "bad"`)
	}
	e.Data = fmt.Appendf(nil, `{"was":%s,"more":"%s"}`, e.Data, strings.Repeat("x", u.grow))
	e.Schema = 2
	if e.Type == "OldName" {
		e.Type = "NewName"
	}
	return nil
}
