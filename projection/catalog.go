package projection

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"cairn/event"
	"cairn/projection/schema"
)

const (
	// maxProjections is how many projections a log may have at a time.
	maxProjections = 128
	// maxSchemas is how many schemas all types together may have: each is kept,
	// ready to be used, for ever.
	maxSchemas = 4096
)

// Catalog is what the '$projections' and '$types' streams say: which projections
// there are, which of their generations are in force, and the schemas of types.
// It is a function of those events alone. A Catalog never changes: an event
// makes the next one of it. It may be shared between goroutines.
type Catalog struct {
	names    map[string]named
	guarding []*Generation // in force, in order of their names
	types    *schema.Registry
	coming   *schema.Registry // types, and the pending schema
	pending  *Pending         // nil = none
	schemas  int              // registered, of all types
}

// Pending is a schema that is registered but not in force: it waits until each
// projection that folds its type has a generation for it.
type Pending struct {
	Type   string
	Number uint32
	ID     uint64 // position of its registration
}

// named is a projection: the generation in force and the one that is being
// built, either of which may be missing.
type named struct{ live, next *Generation }

// Generation is one built version of a projection.
type Generation struct {
	*Projection
	ID      uint64            // position of its definition
	Name    string            // of the projection
	Schemas map[string]uint32 // to which events are brought before they are folded
	Live    uint64            // position of the event that put it in force; 0 = it is being built
}

// NewCatalog returns that of a log without projections and schemas.
func NewCatalog() *Catalog {
	return &Catalog{names: map[string]named{}, types: schema.Empty(), coming: schema.Empty()}
}

// Refusal is why an event can't be taken up: a rule, the same on every node.
type Refusal struct{ Reason string }

func (r *Refusal) Error() string { return r.Reason }

// Unchanged says that an event would change nothing, since one before it said
// the same.
type Unchanged struct{ Position uint64 }

func (u *Unchanged) Error() string { return fmt.Sprintf("position %d says the same", u.Position) }

func refuse(format string, args ...any) error { return &Refusal{fmt.Sprintf(format, args...)} }

// postpone is a refusal that does not last.
func postpone(format string, args ...any) error {
	return &Refusal{event.TryAgain + fmt.Sprintf(format, args...)}
}

// With returns the catalog after an event of '$projections' or '$types', whose
// position must be set. The error is a *Refusal or *Unchanged, the same wherever
// it is asked; any other means that this program can't read the event.
func (c *Catalog) With(e *event.Event) (*Catalog, error) {
	switch {
	case e.Stream == event.StreamProjections && e.Type == event.TypeProjectionDefined:
		return withBody(c, e, (*Catalog).define)
	case e.Stream == event.StreamProjections && e.Type == event.TypeProjectionLive:
		return withBody(c, e, (*Catalog).enforce)
	case e.Stream == event.StreamProjections && e.Type == event.TypeProjectionDeleted:
		return withBody(c, e, (*Catalog).remove)
	case e.Stream == event.StreamTypes && e.Type == event.TypeSchemaRegistered:
		return withBody(c, e, (*Catalog).register)
	case e.Stream == event.StreamTypes && e.Type == event.TypeSchemaLive:
		return withBody(c, e, (*Catalog).enforceSchema)
	}
	return nil, fmt.Errorf("a system event %s of type %q, which this program does not know: %w", e.Stream, e.Type, event.ErrMalformed)
}

func withBody[B any](c *Catalog, e *event.Event, take func(*Catalog, *B, uint64) (*Catalog, error)) (*Catalog, error) {
	var body B
	if err := json.Unmarshal(e.Data, &body); err != nil {
		return nil, fmt.Errorf("%s of %s: %w", e.Type, e.Stream, err)
	}
	return take(c, &body, e.Position)
}

func (c *Catalog) define(body *event.ProjectionDefined, position uint64) (*Catalog, error) {
	if err := checkEngine(body.Engine); err != nil {
		return nil, fmt.Errorf("projection %s: %w", body.Name, err)
	}
	g, err := NewGeneration(body)
	if err != nil {
		return nil, refuse("projection %s: %v", body.Name, err)
	}
	g.ID = position
	n, known := c.names[body.Name]
	newest := n.live
	if n.next != nil {
		newest = n.next
	}
	if newest != nil && string(newest.Definition().Canonical()) == string(g.Definition().Canonical()) && !c.outdated(newest) {
		return nil, &Unchanged{newest.ID}
	}
	if !known && len(c.names) >= maxProjections {
		return nil, refuse("there are %d projections already, the most there may be: delete one first", maxProjections)
	}
	if !maps.Equal(g.Schemas, c.Pins(g.Projection)) {
		return nil, postpone("a schema was registered meanwhile")
	}
	return c.with(body.Name, named{live: n.live, next: g}), nil
}

// NewGeneration compiles what a ProjectionDefined says. The ID is not set.
func NewGeneration(body *event.ProjectionDefined) (*Generation, error) {
	d, err := ParseDefinition(body.Name, body.Definition)
	if err != nil {
		return nil, err
	}
	p, err := Compile(d)
	if err != nil {
		return nil, err
	}
	return &Generation{Projection: p, Name: body.Name, Schemas: body.Schemas}, nil
}

// Pins returns the numbers of the schemas to which the events of a projection
// are brought if it is defined now: the newest of each type that it may match and
// of what that was renamed to, also one that is pending.
func (c *Catalog) Pins(p *Projection) map[string]uint32 {
	pins := make(map[string]uint32)
	for _, t := range c.coming.Types() {
		if !p.MayMatchType(t) {
			continue
		}
		for t != "" && pins[t] == 0 { // and on to what it was renamed to
			pins[t] = c.coming.Newest(t)
			t, _ = c.coming.Renamed(t)
		}
	}
	if len(pins) == 0 {
		return nil
	}
	return pins
}

// folds reports whether events of a type, or of one that was renamed to it, may
// be folded into a generation; false of nil.
func (g *Generation) folds(typ string) bool {
	if g == nil {
		return false
	}
	_, renamed := g.Schemas[typ]
	return renamed || g.MayMatchType(typ)
}

func (c *Catalog) enforce(body *event.ProjectionLive, position uint64) (*Catalog, error) {
	n := c.names[body.Name]
	switch {
	case n.live != nil && n.live.ID == body.Generation:
		return nil, &Unchanged{n.live.Live}
	case n.next == nil || n.next.ID != body.Generation:
		return nil, refuse("projection %s has no generation %d that is being built", body.Name, body.Generation)
	case c.waits(n.next):
		return nil, refuse("generation %d of projection %s goes live together with schema %d of type %s", body.Generation, body.Name, c.pending.Number, c.pending.Type)
	}
	g := *n.next
	g.Live = position
	return c.with(body.Name, named{live: &g}), nil
}

func (c *Catalog) remove(body *event.ProjectionDeleted, _ uint64) (*Catalog, error) {
	if _, ok := c.names[body.Name]; !ok {
		return nil, refuse("there is no projection %s", body.Name)
	}
	return c.with(body.Name, named{}), nil
}

func (c *Catalog) register(body *event.SchemaRegistered, position uint64) (*Catalog, error) {
	if err := checkEngine(body.Engine); err != nil {
		return nil, fmt.Errorf("schema %d of type %s: %w", body.Number, body.Type, err)
	}
	r, err := schema.Parse(body.Type, body.Number, body.Body)
	if err != nil {
		return nil, refuse("schema %d of type %s: %v", body.Number, body.Type, err)
	}
	coming, err := c.coming.With(r)
	switch {
	case errors.Is(err, schema.ErrUnchanged):
		return nil, &Unchanged{position - 1}
	case err != nil:
		return nil, refuse("schema %d of type %s: %v", body.Number, body.Type, err)
	case c.pending != nil:
		return nil, postpone("schema %d of type %s is being put in force", c.pending.Number, c.pending.Type)
	case c.schemas >= maxSchemas:
		return nil, refuse("there are %d schemas already, the most there may be", maxSchemas)
	}
	if name := c.losesRules(r); name != "" {
		return nil, refuse("projection %s has rules for type %s and none for %s, which its events would be folded as: give it rules for %s first",
			name, r.Type, r.Renamed, r.Renamed)
	}
	next := *c
	next.coming, next.schemas = coming, c.schemas+1
	if r.Upcast != "" && len(c.folding(body.Type)) > 0 {
		next.pending = &Pending{Type: body.Type, Number: body.Number, ID: position}
	} else {
		next.types = coming
	}
	return &next, nil
}

// losesRules returns the name of a projection that has rules for a type and none
// for what a registration renames it to, "" if there is none.
func (c *Catalog) losesRules(r *schema.Registration) string {
	if r.Renamed == "" {
		return ""
	}
	for _, g := range c.Generations() {
		d := g.Definition()
		if d.Rules(r.Type) && !d.Rules(r.Renamed) {
			return g.Name
		}
	}
	return ""
}

// checkEngine reports why this program may not decide what an event says.
func checkEngine(engine int) error {
	if engine != Engine {
		return fmt.Errorf("it is for expression engine %d, this program has %d: start a newer cairn-node", engine, Engine)
	}
	return nil
}

// CheckEvent reports why an event can't be one of '$projections' or '$types',
// whatever the catalog. It is for who lets events of other nodes in.
func CheckEvent(e *event.Event) error {
	var body struct {
		Engine *int `json:"engine"`
	}
	if err := json.Unmarshal(e.Data, &body); err != nil {
		return fmt.Errorf("%s of %s: %w", e.Type, e.Stream, err)
	}
	if body.Engine == nil {
		return nil
	}
	return checkEngine(*body.Engine)
}

// outdated reports whether a generation that is defined anew would fold events
// in another form: a schema with an upcast came since.
func (c *Catalog) outdated(g *Generation) bool {
	for typ, number := range c.Pins(g.Projection) {
		for n := g.Schemas[typ] + 1; n <= number; n++ {
			if r := c.coming.Registration(typ, n); r != nil && r.Upcast != "" {
				return true
			}
		}
	}
	return false
}

// folding returns the names of the projections of which a generation may match
// events of a type.
func (c *Catalog) folding(typ string) []string {
	var names []string
	for _, name := range c.Names() {
		n := c.names[name]
		if n.live.folds(typ) || n.next.folds(typ) {
			names = append(names, name)
		}
	}
	return names
}

// Pending returns the schema that is not yet in force, or nil; the projections
// that have no generation for it; and the generations that go live with it.
func (c *Catalog) Pending() (p *Pending, lacking []string, with []*Generation) {
	if c.pending == nil {
		return nil, nil, nil
	}
	for _, name := range c.folding(c.pending.Type) {
		n := c.names[name]
		if n.next != nil && c.waits(n.next) {
			with = append(with, n.next)
		} else {
			lacking = append(lacking, name)
		}
	}
	return c.pending, lacking, with
}

// waits reports whether a generation is made for the pending schema.
func (c *Catalog) waits(g *Generation) bool {
	return c.pending != nil && g.Schemas[c.pending.Type] == c.pending.Number
}

func (c *Catalog) enforceSchema(body *event.SchemaLive, position uint64) (*Catalog, error) {
	p, lacking, with := c.Pending()
	switch {
	case c.types.Newest(body.Type) >= body.Number:
		return nil, &Unchanged{position - 1}
	case p == nil || p.Type != body.Type || p.Number != body.Number:
		return nil, refuse("schema %d of type %s is not registered", body.Number, body.Type)
	case len(lacking) > 0:
		return nil, refuse("projection %s has no generation for schema %d of type %s", lacking[0], body.Number, body.Type)
	}
	next := *c
	next.types, next.pending = c.coming, nil
	result := &next
	for _, g := range with {
		live := *g
		live.Live = position
		result = result.with(g.Name, named{live: &live})
	}
	return result, nil
}

// with returns a copy in which a projection is as given.
func (c *Catalog) with(name string, n named) *Catalog {
	next := &Catalog{names: maps.Clone(c.names), types: c.types, coming: c.coming, pending: c.pending, schemas: c.schemas}
	if next.names[name] = n; n == (named{}) {
		delete(next.names, name)
	}
	for _, n := range next.names {
		if n.live != nil && n.live.Guarding() {
			next.guarding = append(next.guarding, n.live)
		}
	}
	slices.SortFunc(next.guarding, func(a, b *Generation) int { return strings.Compare(a.Name, b.Name) })
	return next
}

// Names returns the names of all projections, in order.
func (c *Catalog) Names() []string { return slices.Sorted(maps.Keys(c.names)) }

// Find returns the generation of a projection that is in force and the one that
// is being built; nil for what there is not.
func (c *Catalog) Find(name string) (live, next *Generation) {
	n := c.names[name]
	return n.live, n.next
}

// Generations returns all that there are, in order of their names, the one in
// force first.
func (c *Catalog) Generations() []*Generation {
	var all []*Generation
	for _, name := range c.Names() {
		for _, g := range []*Generation{c.names[name].live, c.names[name].next} {
			if g != nil {
				all = append(all, g)
			}
		}
	}
	return all
}

// Guarding returns the generations whose guards are in force, in order of their
// names.
func (c *Catalog) Guarding() []*Generation { return c.guarding }

// WentLive returns the generations with guards that an event put in force.
func (c *Catalog) WentLive(position uint64) []*Generation {
	var live []*Generation
	for _, g := range c.guarding {
		if g.Live == position {
			live = append(live, g)
		}
	}
	return live
}

// Coming returns the schemas that are registered: those in force, and the
// pending one.
func (c *Catalog) Coming() *schema.Registry { return c.coming }

// Types returns the schemas that are in force.
func (c *Catalog) Types() *schema.Registry { return c.types }

// Bring returns an event in the form that a generation folds: e itself, or a
// copy with its data brought to the schema that the generation is for.
func (c *Catalog) Bring(g *Generation, e *event.Event) (*event.Event, error) {
	if !c.coming.NeedsUpcast(e.Type, e.Schema) {
		return e, nil
	}
	brought := *e
	if err := c.coming.UpcastTo(&brought, g.Schemas); err != nil {
		return nil, err
	}
	return &brought, nil
}

// MayMatchType reports whether an event of a type can match.
func (p *Projection) MayMatchType(typ string) bool {
	types := p.Definition().Match.Types
	return len(types) == 0 || slices.Contains(types, typ)
}
