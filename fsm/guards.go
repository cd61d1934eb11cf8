package fsm

import (
	"fmt"

	"cairn/bug"
	"cairn/event"
	"cairn/index"
	"cairn/projection"
)

// guarded folds the events of one append into the generations whose guards are
// in force, before anything of it is accepted. What they change is collected,
// so that an append that is refused leaves no trace. It belongs to the goroutine
// that applies.
type guarded struct {
	catalog *projection.Catalog
	rows    rowSource
	first   uint64         // position of the append's first event
	changed map[string]int // by key of a record: its place in pairs
	pairs   []index.Pair
	bytes   int                // of rows that were read and pairs that were made
	budget  *projection.Budget // of the evaluations
}

// maxGuardBytes bounds the rows that one append may have read and written: Apply
// stands meanwhile, and what is written waits in memory for the next savepoint.
const maxGuardBytes = 8 << 20

// rowSource gives the newest value of a record of a projection, nil if it has
// none.
type rowSource interface {
	Row(key []byte) (value []byte, position uint64, err error)
}

func newGuarded(c *projection.Catalog, rows rowSource) *guarded {
	return &guarded{catalog: c, rows: rows, budget: projection.NewBudget()}
}

// fold folds the next event. The outcome is nil, or why the append is refused;
// place is that of the event in its append.
func (f *guarded) fold(e *event.Event, place int) (*event.Outcome, error) {
	var in *projection.Input
	for _, g := range f.catalog.Guarding() {
		if !g.Matches(e) {
			continue
		}
		brought, err := f.catalog.Bring(g, e)
		if err != nil {
			return foldFailed(g, "", place, 0, err), nil
		}
		if in == nil || brought != e {
			in = projection.NewInputWithin(brought, f.budget)
		}
		refusal, err := f.foldOne(g, in, e, place)
		if refusal != nil || err != nil {
			return refusal, err
		}
		if brought != e {
			in = nil
		}
	}
	return nil, nil
}

func (f *guarded) foldOne(g *projection.Generation, in *projection.Input, e *event.Event, place int) (*event.Outcome, error) {
	key, ok, err := g.Key(in)
	if err != nil {
		return foldFailed(g, "", place, 0, err), nil
	}
	if !ok {
		return nil, nil
	}
	row, err := f.row(g, key)
	if err != nil {
		return nil, err
	}
	if row.Failed != nil {
		return foldFailed(g, key, place, row.Last, fmt.Errorf("this row stopped at position %d: %s", row.Failed.Position, row.Failed.Reason)), nil
	}
	if f.bytes += len(row.State); f.bytes > maxGuardBytes {
		return foldFailed(g, key, place, 0, fmt.Errorf("the rows that this append changes come to over %d MiB: send its events in several appends", maxGuardBytes>>20)), nil
	}
	last, err := f.lastBefore(g, key, row.Last)
	if err != nil {
		return nil, err
	}
	pairs, violation, err := foldRow(g, key, &row, in, e, !bug.Is(bug.SkipGuards))
	if err != nil {
		return foldFailed(g, key, place, last, err), nil
	}
	if violation != nil {
		return &event.Outcome{Code: event.GuardFailed, Guard: &event.GuardFailure{
			Event: place, Projection: g.Name, Key: key, Guard: violation.Guard, Rule: violation.Rule, Message: violation.Message, StatePosition: last,
		}}, nil
	}
	f.note(pairs)
	return nil, nil
}

// lastBefore returns the position of the last event in a row before this append.
func (f *guarded) lastBefore(g *projection.Generation, key string, last uint64) (uint64, error) {
	if last < f.first {
		return last, nil
	}
	value, _, err := f.rows.Row(keysOf(g).row(key))
	if err != nil || value == nil {
		return 0, err
	}
	row, err := projection.DecodeRow(value)
	return row.Last, err
}

// foldAccepted folds an event that stands in the log into one generation: what
// can't be folded stops its row.
func (f *guarded) foldAccepted(g *projection.Generation, e *event.Event) error {
	brought, err := f.catalog.Bring(g, e)
	if err != nil {
		f.note([]index.Pair{keysOf(g).failed("", e.Position, err.Error())})
		return nil
	}
	in := projection.NewInput(brought)
	key, ok, err := g.Key(in)
	if err != nil {
		f.note([]index.Pair{keysOf(g).failed("", e.Position, err.Error())})
		return nil
	}
	if !ok {
		return nil
	}
	row, err := f.row(g, key)
	if err != nil {
		return err
	}
	pairs, _, err := foldRow(g, key, &row, in, e, false)
	f.note(pairs)
	return err
}

// row returns a row as of the events folded so far, those of this append too.
func (f *guarded) row(g *projection.Generation, key string) (projection.Row, error) {
	k := keysOf(g).row(key)
	if at, ok := f.changed[string(k)]; ok {
		return projection.DecodeRow(f.pairs[at].Value)
	}
	value, _, err := f.rows.Row(k)
	if err != nil || value == nil {
		return projection.Row{}, err
	}
	return projection.DecodeRow(value)
}

func (f *guarded) note(pairs []index.Pair) {
	for _, p := range pairs {
		f.bytes += len(p.Value)
		if at, ok := f.changed[string(p.Key)]; ok {
			f.pairs[at] = p
			continue
		}
		if f.changed == nil {
			f.changed = make(map[string]int)
		}
		f.changed[string(p.Key)] = len(f.pairs)
		f.pairs = append(f.pairs, p)
	}
}

func foldFailed(g *projection.Generation, key string, place int, last uint64, cause error) *event.Outcome {
	return &event.Outcome{Code: event.FoldFailed, Guard: &event.GuardFailure{
		Event: place, Projection: g.Name, Key: key, Message: cause.Error(), StatePosition: last,
	}}
}
