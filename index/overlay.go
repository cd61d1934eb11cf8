package index

import (
	"slices"
	"sort"
	"strings"
	"sync"

	"cairn/event"
)

// overlay holds what was added since a savepoint. It is guarded by Index.mu:
// the Apply goroutine changes the active one under the write lock, anyone reads
// it under the read lock. A frozen one never changes, and Commit reads it
// without a lock.
//
// Positions are offsets from base in 32 bits: an overlay would have to hold
// 2^32 events, far over any bound on its bytes, to overflow them.
type overlay struct {
	base   uint64 // position of the first event it holds, or would hold
	events uint64 // it holds positions base … base+events-1
	bytes  int64  // estimate of the heap it takes

	terms   map[string]*entry // by binary form of the term
	streams []*entry          // entries of stream terms, in order of their first event here
	ids     map[string]uint32 // by key in the store
	extra   map[string][]byte // by key of the state machine; values are never changed
	rows    map[string]*overlayRow
	rowList []*overlayRow // in order of their first change here

	names    keyOrder[*entry]      // of streams
	rowOrder keyOrder[*overlayRow] // of rowList
	slab     []entry               // where new entries are taken from
	key      []byte                // scratch, under the write lock
}

// entry has a term's postings in one overlay. Only rest ever changes, and only
// by appending: who copied a slice of it under the lock may read it without.
type entry struct {
	term  string
	base  uint64 // of a stream: its version before the first of these
	first uint32
	rest  []uint32
}

// overlayRow is what one overlay has of a row. Only value ever changes, under the
// write lock, and to another slice: the bytes of one stay.
type overlayRow struct {
	key   string
	value []byte // nil = deleted
}

func compareRows(a, b *overlayRow) int { return strings.Compare(a.key, b.key) }

// What a map of strings to small values, and an entry, take of the heap per
// element. TestOverlay_BytesAreHonest measures them.
const (
	mapSlotBytes  = 40
	entryBytes    = 56
	rowBytes      = 48
	slabEntries   = 128
	sliceOverhead = 8
)

func newOverlay(base uint64) *overlay {
	return &overlay{
		base:  base,
		terms: make(map[string]*entry),
		ids:   make(map[string]uint32),
		extra: make(map[string][]byte),
		rows:  make(map[string]*overlayRow),
	}
}

// through returns the last position that the overlay and all layers below it
// hold.
func (o *overlay) through() uint64 { return o.base + o.events - 1 }

func (o *overlay) add(e *event.Event) {
	off := uint32(e.Position - o.base)
	o.events++
	if stream, isNew := o.post(kindStream, e.Stream, off); isNew {
		stream.base = e.Version - 1
		o.streams = append(o.streams, stream)
		o.bytes += sliceOverhead
	}
	o.post(kindCategory, event.Category(e.Stream), off)
	if event.IsSystem(e.Stream) {
		o.post(kindSystem, "", off)
	} else {
		o.post(kindType, e.Type, off)
		for _, tag := range e.Tags {
			o.post(kindTag, tag, off)
		}
	}
	if e.CorrelationID != "" {
		o.post(kindCorrelation, e.CorrelationID, off)
	}
	if e.CausationID != "" {
		o.post(kindCausation, e.CausationID, off)
	}
	if e.Compensates != "" {
		o.post(kindCompensates, e.Compensates, off)
	}
	if e.IDChosen { // and so new to its stream: the state machine refuses one that is known
		o.key = idKey(o.key[:0], e.ID, e.Stream)
		o.ids[string(o.key)] = off
		o.bytes += mapSlotBytes + heapBytes(len(o.key))
	}
}

// post adds an offset to a term. An event that carries a term twice (a tag)
// gives it one posting.
func (o *overlay) post(k kind, text string, off uint32) (ent *entry, isNew bool) {
	o.key = appendTerm(o.key[:0], k, text)
	ent, ok := o.terms[string(o.key)]
	switch {
	case !ok:
		if len(o.slab) == 0 {
			o.slab = make([]entry, slabEntries)
		}
		ent, o.slab = &o.slab[0], o.slab[1:]
		ent.term, ent.first = string(o.key), off
		o.terms[ent.term] = ent
		o.bytes += mapSlotBytes + entryBytes + heapBytes(len(ent.term))
	case ent.last() != off:
		before := cap(ent.rest)
		ent.rest = append(ent.rest, off)
		o.bytes += 4 * int64(cap(ent.rest)-before)
	}
	return ent, !ok
}

func (o *overlay) put(key, value []byte) {
	old, known := o.extra[string(key)]
	if !known {
		o.bytes += mapSlotBytes + 2*sliceOverhead + heapBytes(len(key))
	}
	o.bytes += heapBytes(len(value)) - heapBytes(len(old))
	o.extra[string(key)] = slices.Clone(value)
}

// setRow notes the newest value of a row. It keeps the value.
func (o *overlay) setRow(p Pair) {
	r, known := o.rows[string(p.Key)]
	if !known {
		r = &overlayRow{key: string(p.Key)}
		o.rows[r.key] = r
		o.rowList = append(o.rowList, r)
		o.bytes += mapSlotBytes + rowBytes + sliceOverhead + heapBytes(len(r.key))
	}
	o.bytes += heapBytes(len(p.Value)) - heapBytes(len(r.value))
	r.value = p.Value
}

// heapBytes is what n bytes take of the heap, about: small sizes are rounded
// up to 8 or 16.
func heapBytes(n int) int64 { return (int64(n) + 15) &^ 15 }

func (ent *entry) last() uint32 {
	if n := len(ent.rest); n > 0 {
		return ent.rest[n-1]
	}
	return ent.first
}

// span returns the postings of a term that stand at or before position at.
func (o *overlay) span(term []byte, at uint64) span {
	ent, ok := o.terms[string(term)]
	if !ok || at < o.base+uint64(ent.first) {
		return span{}
	}
	s := span{base: o.base, version: ent.base, first: ent.first, rest: ent.rest, n: 1 + len(ent.rest)}
	s.n = s.searchAfter(at)
	return s
}

// span is what one overlay has of a term, as of a view. It needs no lock.
type span struct {
	base    uint64
	version uint64 // of a stream: its version before the first of these
	first   uint32
	rest    []uint32
	n       int // how many the view sees: all, if it sees any of the next layer
}

func (s *span) at(i int) uint64 {
	if i == 0 {
		return s.base + uint64(s.first)
	}
	return s.base + uint64(s.rest[i-1])
}

// search returns the place of the first posting ≥ p, or n.
func (s *span) search(p uint64) int {
	return sort.Search(s.n, func(i int) bool { return s.at(i) >= p })
}

// searchAfter returns the place of the first posting > p, or n.
func (s *span) searchAfter(p uint64) int {
	return sort.Search(s.n, func(i int) bool { return s.at(i) > p })
}

// streamName is the text of a stream term.
func (ent *entry) streamName() string { return ent.term[1:] }

// keyOrder keeps the entries of an overlay's list in order of their keys for those
// who list them. It is brought up to date by the listing, never by Apply.
type keyOrder[E any] struct {
	mu     sync.Mutex
	sorted []E // of the list's first len(sorted); replaced, never changed
}

// maxUnsorted is how many entries a listing looks through one by one before it
// sorts them in.
const maxUnsorted = 4096

// split returns the entries of all, a copy of the list, in two parts: in order
// of keys, and the others. The first may have entries that came after all was
// taken.
func (o *keyOrder[E]) split(all []E, compare func(a, b E) int) (sorted, others []E) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(all)-len(o.sorted) > maxUnsorted {
		merged := slices.Concat(o.sorted, all[len(o.sorted):])
		slices.SortFunc(merged, compare)
		o.sorted = merged
	}
	return o.sorted, all[min(len(all), len(o.sorted)):]
}

func compareNames(a, b *entry) int { return strings.Compare(a.term, b.term) }

// listStreams returns up to limit names with the prefix, in order, that are
// ≥ from and have an event at or before position at. all is a copy of
// o.streams made under the lock.
func (o *overlay) listStreams(all []*entry, prefix, from string, at uint64, limit int) []string {
	wanted := func(ent *entry) bool {
		return at >= o.base+uint64(ent.first) && ent.streamName() >= from && strings.HasPrefix(ent.streamName(), prefix)
	}
	sorted, others := o.names.split(all, compareNames)
	var names []string
	start := sort.Search(len(sorted), func(i int) bool { return sorted[i].streamName() >= from })
	for _, ent := range sorted[start:] {
		if len(names) == limit || !strings.HasPrefix(ent.streamName(), prefix) {
			break // from is ≥ prefix: past the first without it there are none
		}
		if wanted(ent) {
			names = append(names, ent.streamName())
		}
	}
	for _, ent := range others {
		if wanted(ent) {
			names = append(names, ent.streamName())
		}
	}
	slices.Sort(names)
	return names[:min(len(names), limit)]
}
