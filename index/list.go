package index

import (
	"fmt"
	"sort"

	"github.com/cockroachdb/pebble/v2"
)

// list has the postings of one term as of a view, in order of position:
//
//	│◄────────── store: ≤ generation.base ──────────►│◄ frozen ►│◄ active ►│
//	│ block │ block │ … │ last block │ tail (in head) │          │          │
//
// Layers share no position. It reads a block only when one is sought, keeps
// one at a time, and is used by one goroutine.
type list struct {
	v    *View
	term []byte
	err  *error // the first error of the whole reading; after it there are no more postings

	head   head // of the store; count 0 if there is none
	tail   []uint64
	frozen span
	active span
	blocks blockReader
}

// list opens the postings of a term. Positions ≤ low are of no interest, which
// saves reading layers that have no others.
func (v *View) list(k kind, text string, low uint64, err *error) *list {
	l := &list{v: v, term: appendTerm(nil, k, text), err: err}
	l.frozen, l.active = v.spans(l.term)
	if low >= v.gen.base {
		return l
	}
	var e error
	if l.head, e = v.gen.head(l.term, nil); e != nil {
		l.fail(e)
		return l
	}
	l.tail = l.head.tail[:sort.Search(len(l.head.tail), func(i int) bool { return l.head.tail[i] > v.at })]
	return l
}

// head reads a term's head record, a zero one if there is none. The tail is
// appended to tail[:0].
func (g *generation) head(term []byte, tail []uint64) (head, error) {
	var buf [256]byte
	var keyBuf [600]byte
	key := headKey(keyBuf[:0], term)
	value, ok, err := g.get(key, buf[:0])
	if err != nil || !ok {
		return head{}, err
	}
	return decodeHead(key, value, tail)
}

func (l *list) fail(err error) {
	if *l.err == nil {
		*l.err = err
	}
}

// total is how many postings there are, those after the view in the store's
// layer counted too: an estimate that costs nothing.
func (l *list) total() uint64 {
	return l.head.count + uint64(l.frozen.n) + uint64(l.active.n)
}

// seekGE returns the first posting ≥ p.
func (l *list) seekGE(p uint64) (uint64, bool) {
	if *l.err != nil || p > l.v.at {
		return 0, false
	}
	if l.head.block.count > 0 && p <= l.head.block.last {
		found, ok := l.blocks.seekGE(l, p)
		return found, ok && found <= l.v.at
	}
	if n := len(l.tail); n > 0 && p <= l.tail[n-1] {
		return l.tail[sort.Search(n, func(i int) bool { return l.tail[i] >= p })], true
	}
	for _, s := range [...]*span{&l.frozen, &l.active} {
		if s.n > 0 && p <= s.at(s.n-1) {
			return s.at(s.search(p)), true
		}
	}
	return 0, false
}

// seekLE returns the last posting ≤ p.
func (l *list) seekLE(p uint64) (uint64, bool) {
	if *l.err != nil {
		return 0, false
	}
	p = min(p, l.v.at)
	for _, s := range [...]*span{&l.active, &l.frozen} {
		if s.n > 0 && p >= s.at(0) {
			return s.at(s.searchAfter(p) - 1), true
		}
	}
	if n := len(l.tail); n > 0 && p >= l.tail[0] {
		return l.tail[sort.Search(n, func(i int) bool { return l.tail[i] > p })-1], true
	}
	if l.head.block.count > 0 && p >= l.head.first {
		return l.blocks.seekLE(l, p)
	}
	return 0, false
}

// at returns the posting with the ordinal, from 0.
func (l *list) at(ordinal uint64) (uint64, bool) {
	p, ok := l.anyAt(ordinal)
	return p, ok && p <= l.v.at && *l.err == nil
}

func (l *list) anyAt(ordinal uint64) (uint64, bool) {
	inBlocks := l.head.count - uint64(len(l.head.tail))
	if *l.err != nil {
		return 0, false
	}
	if ordinal < inBlocks {
		return l.blocks.at(l, ordinal)
	}
	if ordinal < l.head.count {
		return l.head.tail[ordinal-inBlocks], true
	}
	ordinal -= l.head.count
	if ordinal < uint64(l.frozen.n) {
		return l.frozen.at(int(ordinal)), true
	}
	ordinal -= uint64(l.frozen.n)
	if ordinal < uint64(l.active.n) {
		return l.active.at(int(ordinal)), true
	}
	return 0, false
}

// count returns how many postings the view sees.
func (l *list) count() uint64 {
	switch {
	case *l.err != nil:
		return 0
	case l.frozen.n > 0 || l.active.n > 0: // then it sees all of the store
		return l.total()
	case len(l.tail) > 0 || l.head.count == 0 || l.head.block.count > 0 && l.head.block.last <= l.v.at:
		return l.head.count - uint64(len(l.head.tail)-len(l.tail))
	case l.head.block.count > 0 && l.v.at >= l.head.first:
		return l.blocks.countLE(l, l.v.at)
	}
	return 0
}

func (l *list) close() {
	if it := l.blocks.it; it != nil {
		l.blocks.it = nil
		if err := it.Close(); err != nil {
			l.fail(fmt.Errorf("index: read: %w", err))
		}
	}
}

// blockReader reads the blocks of one list and keeps the one it read last.
type blockReader struct {
	it       *pebble.Iterator
	key      []byte // scratch
	cur      blockHead
	postings []uint64 // of cur; decoded when cur.count > 0
	reads    int      // blocks decoded
}

// seekGE returns the first posting ≥ p. The caller knows that there is one:
// p is not after the last block's end.
func (r *blockReader) seekGE(l *list, p uint64) (uint64, bool) {
	if !r.covers(p) && !r.loadNext(l, p) && !r.load(l, p, true) {
		return 0, false
	}
	i := sort.Search(len(r.postings), func(i int) bool { return r.postings[i] >= p })
	if i == len(r.postings) {
		r.corrupt(l, "a block's postings end before its span")
		return 0, false
	}
	return r.postings[i], true
}

// seekLE returns the last posting ≤ p. The caller knows that there is one.
func (r *blockReader) seekLE(l *list, p uint64) (uint64, bool) {
	if !r.covers(p) && !r.load(l, p, false) {
		return 0, false
	}
	i := sort.Search(len(r.postings), func(i int) bool { return r.postings[i] > p })
	if i == 0 {
		r.corrupt(l, "no block at or before a position that has one")
		return 0, false
	}
	return r.postings[i-1], true
}

// countLE returns how many postings stand at or before p, one at least.
func (r *blockReader) countLE(l *list, p uint64) uint64 {
	if _, ok := r.seekLE(l, p); !ok {
		return 0
	}
	return r.cur.ordinal + uint64(sort.Search(len(r.postings), func(i int) bool { return r.postings[i] > p }))
}

// covers reports whether the current block answers for p without another look:
// it has a posting at or before p and one at or after it.
func (r *blockReader) covers(p uint64) bool {
	return r.cur.count > 0 && r.cur.first <= p && p <= r.cur.last
}

// at returns the posting with the ordinal, which is in a block. Blocks are
// keyed by position, so it guesses one by interpolation between the known ends
// of the range that is left, and bisects it at least every second time.
func (r *blockReader) at(l *list, ordinal uint64) (uint64, bool) {
	last := l.head.block
	if ordinal >= last.ordinal {
		if !r.load(l, last.first, false) {
			return 0, false
		}
		return r.pick(l, ordinal)
	}
	// The block lies at a position in [low, high), low being the first of a
	// block with an ordinal ≤ the one sought, high of one with a greater.
	low, lowOrd := l.head.first, uint64(0)
	high, highOrd := last.first, last.ordinal
	for bisect := false; low < high; bisect = !bisect {
		guess := low + (high-low)/2
		if !bisect {
			f := float64(ordinal-lowOrd) / float64(highOrd-lowOrd)
			guess = min(low+uint64(f*float64(high-low)), high-1)
		}
		if !r.load(l, guess, false) {
			return 0, false
		}
		switch {
		case r.cur.ordinal > ordinal:
			if r.cur.first >= high {
				r.corrupt(l, "blocks out of order")
				return 0, false
			}
			high, highOrd = r.cur.first, r.cur.ordinal
		case ordinal-r.cur.ordinal < r.cur.count:
			return r.pick(l, ordinal)
		default:
			low, lowOrd = max(guess, r.cur.last)+1, r.cur.ordinal+r.cur.count
		}
	}
	r.corrupt(l, "no block has an ordinal that is counted")
	return 0, false
}

func (r *blockReader) pick(l *list, ordinal uint64) (uint64, bool) {
	if i := ordinal - r.cur.ordinal; ordinal >= r.cur.ordinal && i < uint64(len(r.postings)) {
		return r.postings[i], true
	}
	r.corrupt(l, "the last block has other ordinals than its head says")
	return 0, false
}

// loadNext moves to the block after the current one if that is the one for p:
// the usual case when a list is read from end to end.
func (r *blockReader) loadNext(l *list, p uint64) bool {
	if r.it == nil || r.cur.count == 0 || p <= r.cur.last || !r.it.Valid() || !r.it.Next() {
		r.cur.count = 0
		return false
	}
	if r.endsBefore(p) {
		r.cur.count = 0
		return false
	}
	return r.decode(l)
}

// load makes the current block the one with the greatest first position ≤ p;
// if onward, then the one after it in case it ends before p.
func (r *blockReader) load(l *list, p uint64, onward bool) bool {
	if !r.open(l) {
		return false
	}
	r.key = blockKey(r.key[:0], l.term, p+1) // p ≤ View.at, which is a position
	found := r.it.SeekLT(r.key)
	if onward && (!found || r.endsBefore(p)) {
		found = r.it.Next()
	}
	if !found {
		r.corrupt(l, "a block is missing")
		return false
	}
	return r.decode(l)
}

// endsBefore reports whether the block the iterator stands at has no posting at
// or after p. Damage is left to decode.
func (r *blockReader) endsBefore(p uint64) bool {
	h, _, err := decodeBlockHead(r.it.Key(), r.it.Value())
	return err == nil && h.last < p
}

func (r *blockReader) open(l *list) bool {
	r.cur.count = 0
	if r.it != nil {
		return true
	}
	low := blockKey(nil, l.term, 0)
	high := blockKey(nil, l.term, l.head.block.first+1)
	it, err := l.v.gen.snap.NewIter(&pebble.IterOptions{LowerBound: low, UpperBound: high})
	if err != nil {
		l.fail(fmt.Errorf("index: read: %w", err))
		return false
	}
	r.it = it
	return true
}

// decode reads the block the iterator stands at.
func (r *blockReader) decode(l *list) bool {
	value, err := r.it.ValueAndErr()
	if err != nil {
		l.fail(fmt.Errorf("index: read: %w", err))
		return false
	}
	r.cur, r.postings, err = decodeBlock(r.it.Key(), value, r.postings)
	if err != nil {
		r.cur.count = 0
		l.fail(err)
		return false
	}
	r.reads++
	return true
}

// corrupt records that the blocks contradict the head, or that Pebble could
// not read them.
func (r *blockReader) corrupt(l *list, reason string) {
	r.cur.count = 0
	if r.it != nil && r.it.Error() != nil {
		l.fail(fmt.Errorf("index: read: %w", r.it.Error()))
		return
	}
	l.fail(&CorruptError{Key: headKey(nil, l.term), Reason: reason})
}
