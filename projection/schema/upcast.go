package schema

import (
	"fmt"

	"cairn/event"
)

// NeedsUpcast reports whether events of a type that were stored with that schema
// are read in another form. It is a look-up in a map, and costs a nil Registry
// nothing.
func (g *Registry) NeedsUpcast(typ string, schema uint32) bool {
	if !g.Any() {
		return false
	}
	c := g.types[typ]
	return c != nil && schema >= c.from && schema < c.newest()
}

// Upcasting reports whether there are events that are read in another form than
// they may be stored in.
func (g *Registry) Upcasting() bool {
	if g == nil {
		return false
	}
	for _, c := range g.types {
		if c.from < c.newest() {
			return true
		}
	}
	return false
}

// Upcast brings e, a copy of the stored event, from the schema in e.Schema to
// another: it sets Data, Schema and, if the type was renamed on the way, Type.
// to is a schema of e's type; the way ends at it, or with the new name it gives
// to the type. 0 stands for the newest there is, of whatever the type was
// renamed to. An event that is there already, that has no way there, of the
// store's own or without JSON is left alone.
//
// An error says which step failed, for people. e is then as it was.
func (g *Registry) Upcast(e *event.Event, to uint32) error {
	return g.bring(e, func(typ string, newest uint32) uint32 {
		if to == 0 {
			return newest
		}
		if typ != e.Type { // the number means nothing to another type
			return 0
		}
		return min(to, newest)
	})
}

// UpcastTo is Upcast to the numbers given for each type, as they were the newest
// at some time: types that are not named are left alone.
func (g *Registry) UpcastTo(e *event.Event, numbers map[string]uint32) error {
	return g.bring(e, func(typ string, newest uint32) uint32 { return min(numbers[typ], newest) })
}

// bring upcasts e along the types that it is renamed to, in each up to the
// number that goal gives.
func (g *Registry) bring(e *event.Event, goal func(typ string, newest uint32) uint32) error {
	if g == nil || e.ContentType != "" || event.IsSystem(e.Stream) {
		return nil
	}
	now := *e
	for c := g.types[now.Type]; c != nil && now.Schema >= c.from && now.Schema < c.newest(); c = g.types[now.Type] {
		if now.Schema >= goal(now.Type, c.newest()) {
			break
		}
		s := c.steps[now.Schema]
		data, err := s.upcast.run(&now)
		if err != nil {
			return fmt.Errorf("upcast of type %s to schema %d: %s", s.Type, s.Number, clip(err.Error()))
		}
		now.Data, now.Schema = data, s.Number
		if s.Renamed != "" {
			now.Type, now.Schema = s.Renamed, c.entry
		}
	}
	e.Type, e.Schema, e.Data = now.Type, now.Schema, now.Data
	return nil
}
