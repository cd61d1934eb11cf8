package schema

import (
	"fmt"

	"cairn/event"
)

// Check reports why an event, as it is stored, is not read in the form of the
// newest schema of its type: its upcast fails, or gives data that is not valid
// under it, or there is no way there. nil = it is, or its type has no schemas.
func (g *Registry) Check(e *event.Event) error {
	if g.Newest(e.Type) == 0 || event.IsSystem(e.Stream) {
		return nil
	}
	if e.ContentType != "" {
		return fmt.Errorf("is %s, which schemas say nothing about", e.ContentType)
	}
	brought := *e
	if err := g.Upcast(&brought, 0); err != nil {
		return err
	}
	c := g.types[brought.Type]
	newest := c.newest()
	if newest == 0 { // of the type that this one was renamed to
		return nil
	}
	if brought.Schema > newest {
		return fmt.Errorf("has schema %d of type %s, of which nothing is known", brought.Schema, brought.Type)
	}
	const stuck = "is older than schema 1, which has no upcast"
	found := c.steps[newest-1].document.validate(brought.Data)
	switch left := brought.Schema < newest; {
	case left && found != nil:
		return fmt.Errorf(stuck+", and %w", &Violation{brought.Type, newest, found})
	case left && c.renamed != "":
		return fmt.Errorf(stuck+": it keeps the name %s", brought.Type)
	case found != nil:
		return &Violation{brought.Type, newest, found}
	}
	return nil
}
