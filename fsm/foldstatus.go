package fsm

import (
	"bytes"
	"encoding/json"
	"slices"

	"cairn/event"
	"cairn/index"
	"cairn/projection"
)

// FoldStatus says how far a generation is folded on this node.
type FoldStatus struct {
	Position uint64 // folded up to here
	Head     uint64 // applied up to here
}

// Progress is the part that is folded, from 0 to 1.
func (s FoldStatus) Progress() float64 {
	if s.Position >= s.Head {
		return 1
	}
	return float64(s.Position) / float64(s.Head)
}

// Folded returns how far a generation is folded.
func (m *Machine) Folded(generation uint64) FoldStatus {
	_, head := m.published.get()
	position, _ := m.folds.reached(generation)
	return FoldStatus{Position: position, Head: head}
}

// FailedRow is an event that a generation could not fold, and the row that it
// stopped; Key is "" if the event has none.
type FailedRow struct {
	Key      string
	Position uint64
	Reason   string
}

const (
	// maxFailures bounds how many failures are counted.
	maxFailures = 1_000
	// maxUnkeyed bounds the failures without a row that are kept of a generation.
	// A row fails once; these may be as many as there are events.
	maxUnkeyed = 10_000
)

// boundUnkeyed takes the failures without a row that are too many for their
// generation out of what a slice writes, and notes how many there are.
func boundUnkeyed(g *projection.Generation, pairs []index.Pair, store rowSource) ([]index.Pair, error) {
	keys := keysOf(g)
	prefix := keys.prefix(failurePrefix)
	unkeyed := func(p index.Pair) bool { return bytes.HasPrefix(p.Key, prefix) && p.Value[0] == 0 }
	if !slices.ContainsFunc(pairs, unkeyed) {
		return pairs, nil
	}
	value, _, err := store.Row(keys.unkeyed())
	if err != nil {
		return nil, err
	}
	n, err := decodeCursor(value)
	if err != nil {
		return nil, err
	}
	pairs = slices.DeleteFunc(pairs, func(p index.Pair) bool {
		if !unkeyed(p) {
			return false
		}
		n++
		return n > maxUnkeyed
	})
	return append(pairs, index.Pair{Key: keys.unkeyed(), Value: encodeCursor(min(n, maxUnkeyed))}), nil
}

// Failures returns the first failures of a generation, at most limit, and how
// many there are; counting ends at 1,000.
func (m *Machine) Failures(g *projection.Generation, limit int) (first []FailedRow, total int, err error) {
	gen, err := m.hold()
	if err != nil {
		return nil, 0, err
	}
	defer gen.release()
	prefix := keysOf(g).prefix(failurePrefix)
	pairs, _, _, err := gen.index.Rows(prefix, nil, maxFailures, nil)
	if err != nil {
		return nil, 0, err
	}
	for _, p := range pairs[:min(limit, len(pairs))] {
		f := FailedRow{Position: positionOf(p.Key)}
		if f.Key, f.Reason, err = decodeFailed(p.Value); err != nil {
			return nil, 0, err
		}
		first = append(first, f)
	}
	return first, len(pairs), nil
}

// DefineCommand makes the command that defines a projection, as of the schemas
// known here. The error of a definition that can't be one is a
// *projection.Error.
func (m *Machine) DefineCommand(name string, body []byte) (event.Command, error) {
	d, err := projection.ParseDefinition(name, body)
	if err != nil {
		return event.Command{}, err
	}
	p, err := projection.Compile(d)
	if err != nil {
		return event.Command{}, err
	}
	return event.SystemCommand(event.StreamProjections, event.TypeProjectionDefined, event.ProjectionDefined{
		Name: d.Name, Definition: json.RawMessage(d.Canonical()), Engine: projection.Engine, Schemas: m.Catalog().Pins(p),
	})
}

// LiveCommand makes the command that puts a generation in force.
func LiveCommand(g *projection.Generation, built uint64) (event.Command, error) {
	return event.SystemCommand(event.StreamProjections, event.TypeProjectionLive, event.ProjectionLive{Name: g.Name, Generation: g.ID, Built: built})
}

// SchemaLiveCommand makes the command that puts a pending schema in force, with
// the generations that are made for it.
func SchemaLiveCommand(p *projection.Pending, built uint64) (event.Command, error) {
	return event.SystemCommand(event.StreamTypes, event.TypeSchemaLive, event.SchemaLive{Type: p.Type, Number: p.Number, Built: built})
}
