package index

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"cairn/event"
)

// model is what an index must answer, kept in the simplest way: all events in
// order, looked through from end to end.
type model struct {
	events []event.Event // position p is at p-1
	extra  map[string]string
}

func newModel() *model { return &model{extra: map[string]string{}} }

// cut takes the model back to what a savepoint covers.
func (m *model) cut(position uint64, extra map[string]string) {
	m.events = m.events[:position:position]
	m.extra = map[string]string{}
	maps.Copy(m.extra, extra)
}

func (m *model) last() uint64 { return uint64(len(m.events)) }

func (m *model) stream(name string, at uint64) (positions []uint64) {
	return m.where(at, func(e *event.Event) bool { return e.Stream == name })
}

func (m *model) where(at uint64, want func(*event.Event) bool) (positions []uint64) {
	for i := range m.events[:at] {
		if want(&m.events[i]) {
			positions = append(positions, uint64(i+1))
		}
	}
	return positions
}

func (m *model) head(stream string, at uint64) Head {
	of := m.stream(stream, at)
	if len(of) == 0 {
		return Head{}
	}
	return Head{Version: uint64(len(of)), Last: of[len(of)-1]}
}

func (m *model) lookup(id, stream string, at uint64) (uint64, bool) {
	of := m.where(at, func(e *event.Event) bool { return e.IDChosen && e.ID == id && e.Stream == stream })
	if len(of) == 0 {
		return 0, false
	}
	return of[0], true
}

func (m *model) streams(prefix, after string, limit int, at uint64) (found []event.StreamVersion) {
	versions := map[string]uint64{}
	for _, e := range m.events[:at] {
		versions[e.Stream]++
	}
	for _, name := range slices.Sorted(maps.Keys(versions)) {
		if len(found) < limit && strings.HasPrefix(name, prefix) && name > after {
			found = append(found, event.StreamVersion{Stream: name, Version: versions[name]})
		}
	}
	return found
}

// The words that events and queries are made of: few, so that they meet, and
// with the borders where keys could be mistaken for one another.
var (
	streamWords = []string{
		"a", "a-", "a-1", "a-10", "a-2", "ab-1", "b-1", "b-1\x00", "b-1\x00\xff", "ü-1", "$log", "$members", "$m-1",
		"0190b5c8-7f1e-7abc-8def-0123456789ab",
	}
	typeWords = []string{"T", "U", "V", "T\x00"}
	tagWords  = []string{"x:1", "x:2", "y:1", "y:2", "rare", "", "x"}
	idWords   = []string{
		"", "c", "cc", "0190b5c8-7f1e-7abc-8def-0123456789ab", "0190b5c8-7f1e-7abc-8def-0123456789AB", "\x01\x90\xb5\xc8\x7f\x1e\x7a\xbc\x8d\xef\x01\x23\x45\x67\x89\xab",
	}
)

func pick(rng *rand.Rand, words []string) string { return words[rng.IntN(len(words))] }

// add makes the next event and appends it to the model.
func (m *model) add(rng *rand.Rand) *event.Event {
	stream := pick(rng, streamWords)
	if rng.IntN(2) == 0 {
		stream = "a-1" // one that is long enough for many blocks
	}
	e := event.Event{
		Position:      m.last() + 1,
		Version:       m.head(stream, m.last()).Version + 1,
		Stream:        stream,
		Type:          pick(rng, typeWords),
		CorrelationID: pick(rng, idWords),
		CausationID:   pick(rng, idWords),
		Compensates:   pick(rng, idWords),
	}
	for rng.IntN(3) > 0 && len(e.Tags) < 6 {
		e.Tags = append(e.Tags, pick(rng, tagWords)) // twice the same is possible
	}
	if rng.IntN(2) == 0 {
		e.ID, e.IDChosen = fmt.Sprintf("id-%d", rng.IntN(50)), true
		if rng.IntN(2) == 0 {
			e.ID = fmt.Sprintf("0190b5c8-7f1e-7abc-8def-0123456789%02x", rng.IntN(50))
		}
		if _, known := m.lookup(e.ID, stream, m.last()); known {
			e.IDChosen = false
		}
	}
	m.events = append(m.events, e)
	return &m.events[len(m.events)-1]
}

func randomQuery(rng *rand.Rand) (q event.Query) {
	for range rng.IntN(4) {
		var it event.QueryItem
		for range rng.IntN(3) {
			it.Types = append(it.Types, pick(rng, append(typeWords, "unknown")))
		}
		for range rng.IntN(4) {
			it.Tags = append(it.Tags, pick(rng, append(tagWords, "unknown")))
		}
		q.Items = append(q.Items, it)
	}
	return q
}

var prefixWords = []string{"a", "a-", "a-1", "b-", "$", "$m-", "b-1\x00", "z", "ü"}

func randomFilter(rng *rand.Rand) (f event.Filter) {
	if rng.IntN(2) == 0 {
		f.Query = randomQuery(rng)
	}
	if rng.IntN(4) == 0 {
		f.Stream = pick(rng, streamWords)
	}
	if rng.IntN(4) == 0 {
		f.Category = event.Category(pick(rng, streamWords))
	}
	if rng.IntN(4) == 0 {
		f.StreamPrefix = pick(rng, prefixWords)
	}
	if rng.IntN(4) == 0 {
		f.CorrelationID = pick(rng, idWords)
	}
	if rng.IntN(4) == 0 {
		f.CausationID = pick(rng, idWords)
	}
	return f
}

// indexed reports whether f asks for anything there is an index for.
func indexed(f *event.Filter) bool {
	all := len(f.Query.Items) == 0 || slices.ContainsFunc(f.Query.Items, func(it event.QueryItem) bool {
		return len(it.Types) == 0 && len(it.Tags) == 0
	})
	return !all || f.Stream != "" || f.Category != "" || f.CorrelationID != "" || f.CausationID != "" ||
		strings.Contains(f.StreamPrefix, "-")
}

// seen counts what the checks came across, so that a test can fail if it was
// not there.
type seen struct {
	exact, inexact, unindexed, conflicts, free int
}

// reporter is *testing.T or *rapid.T.
type reporter interface {
	Helper()
	Fatalf(format string, args ...any)
}

// check asks a view one of everything and compares the answers.
func (m *model) check(t reporter, v *View, rng *rand.Rand, s *seen) {
	t.Helper()
	m.checkLookups(t, v, rng)
	m.checkConflict(t, v, rng, s)
	m.checkStreams(t, v, rng)
	m.checkStream(t, v, rng)
	m.checkSelect(t, v, rng, s)
}

func (m *model) checkLookups(t reporter, v *View, rng *rand.Rand) {
	t.Helper()
	at := v.Position()
	stream := pick(rng, append(streamWords, "missing"))
	got, err := v.Head(stream)
	if want := m.head(stream, at); err != nil || got != want {
		t.Fatalf("at %d: Head(%q) = %v, %v, want %v", at, stream, got, err, want)
	}
	id := fmt.Sprintf("id-%d", rng.IntN(50))
	if rng.IntN(2) == 0 && at > 0 {
		e := m.events[rng.Uint64N(at)]
		id, stream = e.ID, e.Stream
	}
	position, ok, err := v.Lookup(id, stream)
	if want, found := m.lookup(id, stream, at); err != nil || ok != found || ok && position != want {
		t.Fatalf("at %d: Lookup(%q, %q) = %d, %t, %v, want %d, %t", at, id, stream, position, ok, err, want, found)
	}
}

func (m *model) checkConflict(t reporter, v *View, rng *rand.Rand, s *seen) {
	t.Helper()
	at := v.Position()
	q, after := randomQuery(rng), rng.Uint64N(at+3)
	if rng.IntN(2) == 0 {
		after = at - min(at, rng.Uint64N(5))
	}
	got, ok, err := v.Conflict(q, after)
	want := m.where(at, func(e *event.Event) bool { return e.Position > after && q.Matches(e) })
	if err != nil || ok != (len(want) > 0) || ok && got != want[0] {
		t.Fatalf("at %d: Conflict(%+v, %d) = %d, %t, %v, want the first of %d", at, q, after, got, ok, err, want)
	}
	if ok {
		s.conflicts++
	} else {
		s.free++
	}
}

func (m *model) checkStreams(t reporter, v *View, rng *rand.Rand) {
	t.Helper()
	var prefix, after string
	if rng.IntN(2) == 0 {
		prefix = pick(rng, prefixWords)
	}
	if rng.IntN(2) == 0 {
		after = pick(rng, append(streamWords, prefixWords...))
	}
	limit := 1 + rng.IntN(8)
	got, err := v.Streams(prefix, after, limit)
	if want := m.streams(prefix, after, limit, v.Position()); err != nil || !slices.Equal(got, want) {
		t.Fatalf("at %d: Streams(%q, %q, %d) = %v, %v, want %v", v.Position(), prefix, after, limit, got, err, want)
	}
}

func (m *model) checkStream(t reporter, v *View, rng *rand.Rand) {
	t.Helper()
	at := v.Position()
	name := pick(rng, streamWords)
	if rng.IntN(2) == 0 {
		name = "a-1"
	}
	of := m.stream(name, at)
	n := uint64(len(of))
	from := rng.Uint64N(n + 3)
	backward := rng.IntN(2) == 0
	var want []uint64
	switch {
	case backward && (from == 0 || from > n):
		want = slices.Clone(of)
	case backward:
		want = slices.Clone(of[:from])
	case from <= n:
		want = of[max(from, 1)-1:]
	}
	if backward {
		slices.Reverse(want)
	}
	compare(t, v.Stream(name, from, backward), want, backward, rng,
		fmt.Sprintf("at %d: Stream(%q, %d, %t)", at, name, from, backward))
}

func (m *model) checkSelect(t reporter, v *View, rng *rand.Rand, s *seen) {
	t.Helper()
	at := v.Position()
	f, bound, backward := randomFilter(rng), rng.Uint64N(at+3), rng.IntN(2) == 0
	what := fmt.Sprintf("at %d: Select(%+v, %d, %t)", at, f, bound, backward)
	want := m.where(at, func(e *event.Event) bool {
		if backward && bound > 0 && e.Position >= bound || !backward && e.Position <= bound {
			return false
		}
		return f.Matches(e)
	})
	if backward {
		slices.Reverse(want)
	}
	it, exact, ok := v.Select(&f, bound, backward)
	if !ok {
		s.unindexed++
		// No part of a filter that contradicts itself needs an index.
		if indexed(&f) && !contradicts(&f) {
			t.Fatalf("%s: no index, but there is one", what)
		}
		return
	}
	if exact {
		s.exact++
		compare(t, it, want, backward, rng, what)
		return
	}
	s.inexact++
	var got []uint64
	before := uint64(0)
	for p, ok := it.Next(); ok; p, ok = it.Next() {
		if before != 0 && (p <= before) != backward || p == before || p > at {
			t.Fatalf("%s: %d comes after %d", what, p, before)
		}
		before = p
		if f.Matches(&m.events[p-1]) {
			got = append(got, p)
		}
	}
	it.Close()
	if it.Err() != nil || !slices.Equal(got, want) {
		t.Fatalf("%s = %d, %v, want %d", what, got, it.Err(), want)
	}
}

// compare reads an iterator to its end, with seeks on the way.
func compare(t reporter, it Iter, want []uint64, backward bool, rng *rand.Rand, what string) {
	t.Helper()
	defer it.Close()
	seeks := rng.IntN(3) == 0
	for i := 0; ; i++ {
		if seeks && rng.IntN(4) == 0 {
			p := rng.Uint64N(400)
			it.Seek(p)
			for i < len(want) && want[i] != p && want[i] < p != backward {
				i++
			}
		}
		got, ok := it.Next()
		if ok != (i < len(want)) || ok && got != want[i] {
			t.Fatalf("%s: item %d is %d, %t, %v; want %d", what, i, got, ok, it.Err(), want)
		}
		if !ok {
			break
		}
	}
	if err := it.Err(); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}
