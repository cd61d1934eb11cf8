package fsm

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"cairn/event"
	"cairn/index"
	eventlog "cairn/log"
	"cairn/projection"
)

// maxTakeOver is how many events Apply may have to fold when a generation goes
// live, unless this node is behind the others.
const maxTakeOver = 10_000

// isCatalog reports whether the events of a stream make the catalog.
func isCatalog(stream string) bool {
	return stream == event.StreamProjections || stream == event.StreamTypes
}

// loadCatalog folds the catalog from the log up to a position.
func loadCatalog(x *index.Index, log *eventlog.Log, through uint64) (*projection.Catalog, error) {
	v := x.View(through)
	defer v.Close()
	var positions []uint64
	for _, stream := range []string{event.StreamProjections, event.StreamTypes} {
		it := v.Stream(stream, 1, false)
		for p, ok := it.Next(); ok; p, ok = it.Next() {
			positions = append(positions, p)
		}
		err := it.Err()
		it.Close()
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(positions)
	c := projection.NewCatalog()
	for _, p := range positions {
		e, err := log.Read(p)
		if err == nil {
			c, err = c.With(&e)
		}
		if err != nil {
			return nil, fmt.Errorf("take up position %d: %w", p, err)
		}
	}
	return c, nil
}

// Catalog returns the projections and schemas as of what is applied.
func (m *Machine) Catalog() *projection.Catalog { return m.published.projections() }

// decideCatalog accepts an event of '$projections' or '$types' if the catalog
// can take it up.
func (m *Machine) decideCatalog(c *event.Command, now int64) (event.Outcome, error) {
	e := &c.Append.Events[0]
	if m.state.version < event.ClusterVersionProjections {
		return refused(event.TryAgain + fmt.Sprintf("projections and schemas need cluster version %d, this cluster is at %d: it gets there when every node runs a newer cairn-node",
			event.ClusterVersionProjections, m.state.version)), nil
	}
	e.Position = m.next()
	next, err := m.state.catalog.With(e)
	var refusal *projection.Refusal
	var unchanged *projection.Unchanged
	switch {
	case errors.As(err, &refusal):
		return refused(refusal.Reason), nil
	case errors.As(err, &unchanged):
		return event.Outcome{Code: event.Duplicate, First: unchanged.Position, Last: unchanged.Position, Time: now}, nil
	case err != nil:
		return event.Outcome{}, err
	}
	went := next.WentLive(e.Position)
	if built, ok := builtTo(e); ok && e.Position-min(built, e.Position) > maxTakeOver {
		return refused(fmt.Sprintf("it is built to position %d, and may be at most %d behind %d", built, maxTakeOver, e.Position)), nil
	}
	var pairs []index.Pair
	for _, g := range went {
		more, err := m.takeOver(next, g)
		if err != nil {
			return event.Outcome{}, fmt.Errorf("take over projection %s: %w", g.Name, err)
		}
		pairs = append(pairs, more...)
	}
	m.state.catalog = next
	return m.accept(c, now, pairs)
}

// builtTo returns up to where the generations that an event puts in force are
// built, as its proposer says.
func builtTo(e *event.Event) (position uint64, ok bool) {
	var body struct {
		Built *uint64 `json:"built"`
	}
	if err := json.Unmarshal(e.Data, &body); err != nil || body.Built == nil {
		return 0, false
	}
	return *body.Built, true
}

// takeOver brings the rows of a generation with guards up to the event before
// the one that puts it in force, so that Apply goes on with it. Of the entry
// that is being applied it returns what changes, for the overlay; what comes
// before is written past it, as when the generation was built.
func (m *Machine) takeOver(c *projection.Catalog, g *projection.Generation) ([]index.Pair, error) {
	m.folds.takeOver(g.ID)
	if err := foldUpTo(c, g, m.gen.log, m.state.position, m.gen.index, m.takingOver(g)); err != nil {
		return nil, err
	}
	rows := newGuarded(c, m.gen.index)
	for i := range m.frame.events {
		if e := &m.frame.events[i]; g.Matches(e) {
			if err := rows.foldAccepted(g, e); err != nil {
				return nil, err
			}
		}
	}
	return rows.pairs, nil
}

// takeOverLog is after how many positions a node that is far behind says how far
// it has taken a generation over.
const takeOverLog = 1_000_000

// takingOver returns what foldUpTo calls while Apply waits for it: a node that
// is behind may have all of its log to fold, and tells so.
func (m *Machine) takingOver(g *projection.Generation) func(position uint64) error {
	through, next := m.state.position, uint64(0)
	return func(position uint64) error {
		if through-position > maxTakeOver && position >= next {
			next = position + takeOverLog
			m.logger.Info("folding a projection that goes live, before anything more is applied",
				"projection", g.Name, "generation", g.ID, "position", position, "through", through)
		}
		m.folds.report(m.gen, g, position)
		return m.stopped()
	}
}

// foldUpTo folds a generation that is not yet in force from where it is up to a
// position. Before each slice each is called with the position reached; an error
// of it ends the folding.
func foldUpTo(c *projection.Catalog, g *projection.Generation, log *eventlog.Log, through uint64, store rowStore, each func(position uint64) error) error {
	from, err := storedCursor(store, g)
	if err != nil || from >= through {
		return err
	}
	events := log.Scan(from + 1)
	defer events.Close()
	for from < through {
		if err := each(from); err != nil {
			return err
		}
		if from, err = foldSlice(c, g, events, min(through, from+sliceWindow), store); err != nil {
			return err
		}
	}
	return nil
}
