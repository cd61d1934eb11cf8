package check

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"

	"cairn/event"
	"cairn/jepsen-lite/history"
	"cairn/projection"
)

// definitions are what the '$projections' and '$types' streams of the final log
// say, and what all projections make of that log: a plain fold in memory, from
// the first event to the last, by the same expressions as the nodes' and nothing
// else of theirs.
type definitions struct {
	catalogs    []catalogAt
	generations []*generation // that were ever in force, in order of that
	faults      []string      // events that can't be taken up
}

// catalogAt is what holds from a position on.
type catalogAt struct {
	position uint64
	*projection.Catalog
}

// generation is a version of a projection with all states of its rows.
type generation struct {
	*projection.Generation
	until  uint64 // the position that put another one in its place; math.MaxUint64 = none
	rows   map[string][]rowState
	keys   []string // of rows, in order
	broken []string // events that it let in, though it guards
}

// rowState is a row from a position on.
type rowState struct {
	position uint64
	state    []byte // nil = it failed before there was any
	events   uint64
	last     uint64
	failed   uint64
}

// defined returns what the log defines. It is worked out once.
func (v *view) defined() *definitions {
	if v.made != nil {
		return v.made
	}
	d := &definitions{catalogs: []catalogAt{{0, projection.NewCatalog()}}}
	v.made = d
	events := make([]event.Event, len(v.log))
	for i := range v.log {
		events[i] = stored(&v.log[i])
		events[i].Position = uint64(i) + 1
		if e := &events[i]; event.IsDefinition(e) && len(e.Data) > 0 {
			d.take(e)
		}
	}
	for _, g := range d.generations {
		g.fold(d.last(), events)
	}
	return d
}

// stored is an event as the packages that fold it take it.
func stored(e *history.Event) event.Event {
	return event.Event{
		Position: e.Position, Version: e.Version, Time: e.Time, Stream: e.Stream, Type: e.Type, ID: e.ID,
		Schema: e.Schema, Tags: e.Tags, Data: e.Data,
	}
}

// take takes up an event of '$projections' or '$types'.
func (d *definitions) take(e *event.Event) {
	next, err := d.last().With(e)
	if err != nil {
		d.faults = append(d.faults, fmt.Sprintf("%s at position %d can't have been accepted: %v", e.Type, e.Position, err))
		return
	}
	d.catalogs = append(d.catalogs, catalogAt{e.Position, next})
	for _, g := range d.generations {
		if live, _ := next.Find(g.Name); g.until == math.MaxUint64 && (live == nil || live.ID != g.ID) {
			g.until = e.Position
		}
	}
	for _, name := range next.Names() {
		if live, _ := next.Find(name); live != nil && live.Live == e.Position {
			d.generations = append(d.generations, &generation{Generation: live, until: math.MaxUint64, rows: map[string][]rowState{}})
		}
	}
}

// last returns what holds in the end.
func (d *definitions) last() *projection.Catalog { return d.catalogs[len(d.catalogs)-1].Catalog }

// at returns what holds as of a position.
func (d *definitions) at(position uint64) *projection.Catalog {
	n := sort.Search(len(d.catalogs), func(i int) bool { return d.catalogs[i].position > position })
	return d.catalogs[n-1].Catalog
}

// inForce returns the generations of a projection that were in force as of any
// of the positions from one to another.
func (d *definitions) inForce(name string, from, to uint64) []*generation {
	var found []*generation
	for _, g := range d.generations {
		if g.Name == name && g.Live <= to && g.until > from {
			found = append(found, g)
		}
	}
	return found
}

// fold folds the whole log.
func (g *generation) fold(c *projection.Catalog, events []event.Event) {
	for i := range events {
		if e := &events[i]; g.Matches(e) {
			g.take(c, e)
		}
	}
	for key := range g.rows {
		g.keys = append(g.keys, key)
	}
	slices.Sort(g.keys)
}

// guards reports whether the generation guarded what stands at a position.
func (g *generation) guards(position uint64) bool {
	return g.Guarding() && g.Live < position && position < g.until
}

func (g *generation) take(c *projection.Catalog, e *event.Event) {
	brought, err := c.Bring(g.Generation, e)
	var key string
	ok := false
	var in *projection.Input
	if err == nil {
		in = projection.NewInput(brought)
		key, ok, err = g.Key(in)
	}
	if err != nil {
		g.letIn(e, "can't be folded: "+err.Error())
		return
	}
	if !ok {
		return
	}
	now := g.now(key)
	if now.failed > 0 {
		g.letIn(e, fmt.Sprintf("is for row %q, which stopped at position %d", key, now.failed))
		return
	}
	if _, _, violation, err := g.Step(now.state, in, g.guards(e.Position)); err == nil && violation != nil {
		g.letIn(e, fmt.Sprintf("breaks its guard %s of row %q, which was %s", violation.Rule, key, now.state))
	}
	next, changed, _, err := g.Step(now.state, in, false)
	switch {
	case err != nil:
		g.letIn(e, "can't be folded: "+err.Error())
		now.failed = e.Position
	case changed:
		now.state, now.events, now.last = next, now.events+1, e.Position
	default:
		return
	}
	now.position = e.Position
	g.rows[key] = append(g.rows[key], now)
}

// letIn notes an event that a guard ought to have refused.
func (g *generation) letIn(e *event.Event, why string) {
	if g.guards(e.Position) {
		g.broken = append(g.broken, fmt.Sprintf("position %d (event %q of stream %q) was let in by projection %s, which guards since %d: it %s",
			e.Position, e.ID, e.Stream, g.Name, g.Live, why))
	}
}

// now returns a row as it is so far; zero if there is none.
func (g *generation) now(key string) rowState {
	if states := g.rows[key]; len(states) > 0 {
		return states[len(states)-1]
	}
	return rowState{}
}

// row returns a row as of a position; ok is false if it did not exist.
func (g *generation) row(key string, position uint64) (row history.Row, ok bool) {
	states := g.rows[key]
	n := sort.Search(len(states), func(i int) bool { return states[i].position > position })
	if n == 0 {
		return history.Row{}, false
	}
	s := states[n-1]
	return history.Row{Key: key, State: string(s.state), Events: s.events, Position: s.last, Failed: s.failed}, true
}

// list returns the rows whose keys begin with prefix as of a position, in order,
// at most limit of them; 0 = all.
func (g *generation) list(prefix string, limit int, position uint64) []history.Row {
	var found []history.Row
	for _, key := range g.keys {
		if !strings.HasPrefix(key, prefix) {
			continue
		}
		if row, ok := g.row(key, position); ok {
			found = append(found, row)
		}
		if limit > 0 && len(found) == limit {
			break
		}
	}
	return found
}
