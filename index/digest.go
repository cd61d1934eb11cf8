package index

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"

	"cairn/event"
)

// Digest is a fingerprint of what an index must hold, made from the events
// alone: for each sort of record how many there are and the sum of their
// hashes, under a seed of its own. A sum does not depend on the order, so that
// the log, which is read by position, can be held against the store, which is
// read by term, in little memory and in one pass over each. That two contents
// differ and this stays unnoticed has a probability of 2^-64 for each sort.
//
// The rows of projections are left out: they come from the projections' own
// folds, not from events alone.
//
// One goroutine uses it.
type Digest struct {
	seed    maphash.Seed
	overlay *overlay // what was added and is not in tallies yet
	tallies [tallies]fingerprint
	buf     []byte
}

// fingerprint is the fingerprint of one sort of record.
type fingerprint struct{ count, sum uint64 }

func (f *fingerprint) add(hash uint64) { f.count, f.sum = f.count+1, f.sum+hash }

// Terms are told apart by their kind, which is below tallyVersions.
const (
	tallyVersions = 16 + iota // positions of each stream, with versions
	tallyIDs
	tallyRecords
	tallies
)

// tallyNames are what a person calls the sorts.
var tallyNames = [tallies]string{
	kindStream: "streams", kindCategory: "categories", kindType: "types", kindTag: "tags", kindCorrelation: "correlation ids",
	kindCausation: "causation ids", kindCompensates: "compensated ids", kindSystem: "the store's own events",
	tallyVersions: "versions of streams", tallyIDs: "ids that clients chose", tallyRecords: "records of the state machine",
}

// digestEvents is how many events are summed up at a time.
const digestEvents = 4096

// NewDigest returns the digest of an index without events.
func NewDigest() *Digest { return &Digest{seed: maphash.MakeSeed(), overlay: newOverlay(1)} }

// Add takes in the next event, from position 1 on.
func (d *Digest) Add(e *event.Event) {
	d.overlay.add(e)
	d.buf = appendTerm(d.buf[:0], kindStream, e.Stream)
	d.posting(tallyVersions, d.buf, e.Position, e.Version)
	if d.overlay.events == digestEvents {
		d.settle()
	}
}

// Put takes in a record of the state machine's own. No key may be put twice.
func (d *Digest) Put(key, value []byte) { d.overlay.put(key, value) }

// settle sums up the overlay, which is built as Apply builds it.
func (d *Digest) settle() {
	o := d.overlay
	for term, ent := range o.terms {
		d.buf = append(d.buf[:0], term...)
		d.posting(tallyOf(d.buf), d.buf, o.base+uint64(ent.first), 0)
		for _, off := range ent.rest {
			d.posting(tallyOf(d.buf), d.buf, o.base+uint64(off), 0)
		}
	}
	for key, off := range o.ids {
		d.posting(tallyIDs, append(d.buf[:0], key...), o.base+uint64(off), 0)
	}
	for key, value := range o.extra {
		d.record(extraKey(d.buf[:0], []byte(key)), value)
	}
	d.overlay = newOverlay(o.through() + 1)
}

// tallyOf returns the place of a term's tally: the kind, whatever the form of
// its text.
func tallyOf(term []byte) int { return int(term[0] &^ packedUUID) }

func (d *Digest) posting(at int, key []byte, position, version uint64) {
	n := len(key)
	key = binary.LittleEndian.AppendUint64(key, position)
	key = binary.LittleEndian.AppendUint64(key, version)
	d.tallies[at].add(maphash.Bytes(d.seed, key))
	d.buf = key[:n]
}

func (d *Digest) record(key, value []byte) {
	key = binary.LittleEndian.AppendUint64(key, uint64(len(key)))
	key = append(key, value...)
	d.tallies[tallyRecords].add(maphash.Bytes(d.seed, key))
	d.buf = key[:0]
}

// maxDifferences is how many records are named that are wrong in themselves.
const maxDifferences = 20

// Compare reads the whole store, as of its last savepoint, and returns how it
// differs from d: records that are wrong in themselves, then sorts of records
// of which it holds others than it should. Nothing means that they agree, but
// for the savepoint's own record. The error is one of reading, which damage of
// Pebble's files is too, or of ctx. progress is called with how many records
// were read, now and then.
func (x *Index) Compare(ctx context.Context, d *Digest, progress func(records uint64)) (differences []string, err error) {
	d.settle()
	c := comparer{d: &Digest{seed: d.seed}, gen: x.gen}
	it, err := x.gen.snap.NewIter(nil)
	if err != nil {
		return nil, fmt.Errorf("index: read: %w", err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	var n uint64
	for ok := it.First(); ok; ok = it.Next() {
		if n++; n%digestEvents == 0 {
			progress(n)
			if err := ctx.Err(); err != nil {
				return nil, err
			}
		}
		value, err := it.ValueAndErr()
		if err != nil {
			return nil, fmt.Errorf("index: read: %w", err)
		}
		if err := c.take(it.Key(), value); err != nil {
			return nil, err
		}
	}
	if err := it.Error(); err != nil {
		return nil, fmt.Errorf("index: read: %w", err)
	}
	c.endBlocks()
	if c.chains != c.longHeads {
		c.wrong(&CorruptError{Reason: fmt.Sprintf("%d terms have blocks, %d heads name one", c.chains, c.longHeads)})
	}
	for i, want := range &d.tallies {
		switch got := c.d.tallies[i]; {
		case got.count != want.count:
			c.differences = append(c.differences, fmt.Sprintf("%s: %d entries, the log gives %d", tallyNames[i], got.count, want.count))
		case got.sum != want.sum:
			c.differences = append(c.differences, tallyNames[i]+": some of the entries are not those that the log gives")
		}
	}
	return c.differences, nil
}

// comparer sums up the records of a store, which come in the order of keys.
type comparer struct {
	d           *Digest
	gen         *generation
	differences []string

	// The blocks of one term follow each other.
	term      []byte    // of the last block
	block     blockHead // that one
	chains    int       // terms with blocks
	longHeads int       // heads that name a last block

	postings []uint64 // scratch
}

func (c *comparer) wrong(err error) {
	if len(c.differences) < maxDifferences {
		c.differences = append(c.differences, err.Error())
	}
}

// take takes in one record. Its error is one of reading.
func (c *comparer) take(key, value []byte) error {
	var err error
	switch key[0] {
	case prefixBlock:
		err = c.takeBlock(key, value)
	case prefixHead:
		return c.takeHead(key, value)
	case prefixID, prefixUUID:
		var position uint64
		if position, err = decodeID(key, value); err == nil {
			c.d.posting(tallyIDs, append(c.d.buf[:0], key...), position, 0)
		}
	case prefixExtra:
		c.d.record(append(c.d.buf[:0], key...), value)
	case prefixSavepoint, prefixRow:
	default:
		err = &CorruptError{Key: append([]byte(nil), key...), Reason: "unknown sort of record"}
	}
	if err != nil {
		c.wrong(err)
	}
	return nil
}

func (c *comparer) takeBlock(key, value []byte) error {
	h, postings, err := decodeBlock(key, value, c.postings)
	c.postings = postings
	if err != nil {
		return err
	}
	size, n := binary.Uvarint(key[1:])
	if n <= 0 || uint64(len(key)-1-n) != size+8 || size == 0 || !known(key[1+n]) {
		return &CorruptError{Key: append([]byte(nil), key...), Reason: "malformed key of a block"}
	}
	term := key[1+n : 1+n+int(size)]
	before := blockHead{}
	if string(term) == string(c.term) {
		before = c.block
	} else {
		c.endBlocks()
		c.term = append(c.term[:0], term...)
	}
	c.block = h
	if h.ordinal != before.ordinal+before.count || h.first <= before.last {
		return &CorruptError{Key: append([]byte(nil), key...), Reason: "the block does not go on where the one before ends"}
	}
	c.sum(term, postings, h.ordinal)
	return nil
}

// endBlocks counts a term whose blocks have all been read.
func (c *comparer) endBlocks() {
	if len(c.term) > 0 {
		c.chains++
		c.term = c.term[:0]
	}
}

func (c *comparer) takeHead(key, value []byte) error {
	h, err := decodeHead(key, value, c.postings)
	c.postings = h.tail
	if err == nil && (len(key) < 2 || !known(key[1])) {
		err = &CorruptError{Key: append([]byte(nil), key...), Reason: "malformed key of a head"}
	}
	if err != nil {
		c.wrong(err)
		return nil
	}
	term := key[1:]
	c.sum(term, h.tail, h.block.ordinal+h.block.count)
	if h.block.count == 0 {
		return nil
	}
	c.longHeads++
	for _, want := range []struct{ first, ordinal uint64 }{{h.first, 0}, {h.block.first, h.block.ordinal}} {
		value, ok, err := c.gen.get(blockKey(nil, term, want.first), nil)
		if err != nil {
			return err
		}
		var got blockHead
		if ok {
			got, _, err = decodeBlockHead(blockKey(nil, term, want.first), value)
		}
		if !ok || err != nil || got.ordinal != want.ordinal || want.first == h.block.first && got != h.block {
			c.wrong(&CorruptError{Key: append([]byte(nil), key...), Reason: "a block that the head names is not there, or is another one"})
		}
	}
	return nil
}

// sum takes in postings of a term, the first of which has the ordinal.
func (c *comparer) sum(term []byte, postings []uint64, ordinal uint64) {
	c.d.buf = append(c.d.buf[:0], term...)
	for i, p := range postings {
		c.d.posting(tallyOf(term), c.d.buf, p, 0)
		if kind(term[0]) == kindStream {
			c.d.posting(tallyVersions, c.d.buf, p, ordinal+uint64(i)+1)
		}
	}
}

// known reports whether a byte is the kind of a term.
func known(b byte) bool {
	switch k := kind(b &^ packedUUID); k {
	case kindStream, kindCategory, kindType, kindTag, kindSystem:
		return b == byte(k)
	case kindCorrelation, kindCausation, kindCompensates:
		return true
	}
	return false
}
