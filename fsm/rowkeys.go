package fsm

import (
	"encoding/binary"

	"cairn/event"
	"cairn/index"
	"cairn/projection"
)

// The records of projections in the index. gen is the position of the
// generation's definition, 8 bytes big-endian, as are positions; a key of a row
// is preceded by its length as uvarint where something follows it.
//
//	row      gen │ 'r' │ key                        projection.Row
//	kept     gen │ 'k' │ len, key │ ^position       projection.Row as of that position, so that the nearest before a moment comes first
//	event    gen │ 'e' │ len, key │ position        nothing: the event was folded into the row. Not kept of rows that are streams: their postings say it
//	failure  gen │ 'f' │ position                   len, key, reason: the event there stopped the row, or has no key itself
//	unkeyed  gen │ 'n'                              how many of the failures have no row: no more are kept than maxUnkeyed
//	cursor   gen │ 'c'                              position up to which the generation is folded; that of one that Apply folds stays where it took over
const (
	rowPrefix     = 'r'
	keptPrefix    = 'k'
	eventPrefix   = 'e'
	failurePrefix = 'f'
	unkeyedPrefix = 'n'
	cursorPrefix  = 'c'
)

// rowKeys makes the keys of one generation's records.
type rowKeys struct{ gen uint64 }

func keysOf(g *projection.Generation) rowKeys { return rowKeys{g.ID} }

func (k rowKeys) prefix(kind byte) []byte {
	return append(binary.BigEndian.AppendUint64(make([]byte, 0, 64), k.gen), kind)
}

// all is the prefix of every record of the generation.
func (k rowKeys) all() []byte { return binary.BigEndian.AppendUint64(nil, k.gen) }

func (k rowKeys) row(key string) []byte { return append(k.prefix(rowPrefix), key...) }

func (k rowKeys) unkeyed() []byte { return k.prefix(unkeyedPrefix) }

func (k rowKeys) cursor() []byte { return k.prefix(cursorPrefix) }

func (k rowKeys) failure(position uint64) []byte {
	return binary.BigEndian.AppendUint64(k.prefix(failurePrefix), position)
}

// ofRow is the prefix of the kept states or the events of a row.
func (k rowKeys) ofRow(kind byte, key string) []byte {
	b := binary.AppendUvarint(k.prefix(kind), uint64(len(key)))
	return append(b, key...)
}

func (k rowKeys) kept(key string, position uint64) []byte {
	return binary.BigEndian.AppendUint64(k.ofRow(keptPrefix, key), ^position)
}

func (k rowKeys) event(key string, position uint64) []byte {
	return binary.BigEndian.AppendUint64(k.ofRow(eventPrefix, key), position)
}

// failed is the record of an event that could not be folded.
func (k rowKeys) failed(key string, position uint64, reason string) index.Pair {
	value := append(binary.AppendUvarint(nil, uint64(len(key))), key...)
	return index.Pair{Key: k.failure(position), Value: append(value, reason...)}
}

func decodeFailed(b []byte) (key, reason string, err error) {
	n, w := binary.Uvarint(b)
	if w <= 0 || n > uint64(len(b)-w) {
		return "", "", &index.CorruptError{Reason: "malformed failure of a projection"}
	}
	return string(b[w : w+int(n)]), string(b[w+int(n):]), nil
}

// positionOf reads the position at the end of an event's or a failure's key.
func positionOf(key []byte) uint64 { return binary.BigEndian.Uint64(key[len(key)-8:]) }

// generationOf reads the generation at the beginning of a key.
func generationOf(key []byte) uint64 { return binary.BigEndian.Uint64(key) }

func encodeCursor(position uint64) []byte { return binary.AppendUvarint(nil, position) }

func decodeCursor(b []byte) (uint64, error) {
	if b == nil {
		return 0, nil
	}
	position, n := binary.Uvarint(b)
	if n != len(b) {
		return 0, &index.CorruptError{Reason: "malformed cursor of a projection"}
	}
	return position, nil
}

// A row's state is kept for reading it as of earlier moments after keepEvents of
// its own events, once they have keepFactor times its size.
const (
	keepEvents = 256
	keepFactor = 4
	// eventOverhead stands for what reading an event costs besides its data, in
	// bytes: many small events are as much as a few large ones.
	eventOverhead = 64
)

// foldRow folds an event into a row and returns the records that change. row is
// as of the event before, and is brought up to this one. With guards a violation
// or a failure changes nothing; without, a failure stops the row.
func foldRow(g *projection.Generation, key string, row *projection.Row, in *projection.Input, e *event.Event, guards bool) ([]index.Pair, *projection.Violation, error) {
	if row.Failed != nil {
		return nil, nil, nil
	}
	next, changed, violation, err := g.Step(row.State, in, guards)
	switch {
	case violation != nil || err != nil && guards:
		return nil, violation, err
	case err != nil:
		row.Failed = &projection.Failure{Position: e.Position, Reason: err.Error()}
		keys := keysOf(g)
		return []index.Pair{
			{Key: keys.row(key), Value: row.Encode(nil)},
			keys.failed(key, e.Position, row.Failed.Reason),
		}, nil, nil
	case !changed:
		return nil, nil, nil
	}
	keys := keysOf(g)
	row.State = next
	row.Events++
	row.Last = e.Position
	row.Since += uint64(len(e.Data)) + eventOverhead
	var pairs []index.Pair
	if row.Events-row.Kept >= keepEvents && row.Since >= keepFactor*uint64(len(next)) {
		row.Kept, row.Since = row.Events, 0
		pairs = append(pairs, index.Pair{Key: keys.kept(key, e.Position), Value: row.Encode(nil)})
	}
	if !g.ByStream() {
		pairs = append(pairs, index.Pair{Key: keys.event(key, e.Position), Value: []byte{}})
	}
	return append(pairs, index.Pair{Key: keys.row(key), Value: row.Encode(nil)}), nil, nil
}
