package index

import (
	"bytes"
	"encoding/binary"
	"math"
)

// The key space. Keys sort as bytes; a "term" is a kind byte and a text
// (term.go); numbers called uvarint are LEB128 as in encoding/binary, in the
// shortest form; "BE" is big-endian.
//
//	block      'b' │ uvarint len(term) │ term │ first position, 8 bytes BE
//	head       'h' │ term
//	id         'i' │ uvarint len(id) │ id │ stream
//	id (UUID)  'u' │ 16 bytes of the id │ stream
//	savepoint  's'
//	extra      'x' │ key of the state machine
//	row        'p' │ key of a projection's record
//
// A head's text stands last, so it needs no length, and the heads of all
// streams lie in the order of their names: that is how streams are listed.
// Blocks are apart from them, so that the listing does not step over them.
//
// The values. Each begins with the number of its form; a number this code does
// not know is an error, never a guess. The values of extra keys and of rows are
// those of the state machine and the projections, and are kept as they are. A list of positions that ascend is the
// "gaps" between them: uvarint of (position - the one before - 1).
//
//	short head ┌──────┬─────────────┬─────────────┬────────────────┐
//	           │ 0x01 │ uvarint     │ uvarint     │ gaps: the other│
//	           │      │ count ≥ 1   │ first pos.  │ count-1        │
//	           └──────┴─────────────┴─────────────┴────────────────┘
//	           all postings of the term
//
//	long head  ┌──────┬───────┬───────┬─────────────────────────────────┬───────────────┐
//	           │ 0x02 │ count │ first │ last block: uvarints            │ gaps: the tail│
//	           │      │       │ kept  │ ordinal │ first │ count │ span  │ after it      │
//	           └──────┴───────┴───────┴─────────┴───────┴───────┴───────┴───────────────┘
//	           count is of all postings of the term; the last block holds those
//	           from ordinal on (the first posting of a term is 0), the first of
//	           them at `first`, the last at `first`+span. The tail has
//	           count - ordinal - block count postings, and seldom more than
//	           some times limits.spill (committer.unread).
//	           first kept is where the term's first posting stands.
//
//	added      ┌──────┬─────────────┬─────────────┬─────────────┬────────────────┐
//	postings   │ 0x03 │ uvarint     │ uvarint     │ uvarint     │ gaps: the other│
//	           │      │ before ≥ 1  │ count ≥ 1   │ first pos.  │ count-1        │
//	           └──────┴─────────────┴─────────────┴─────────────┴────────────────┘
//	           of a stream: the postings of versions before+1 … before+count.
//	           They are of use with those before only (merge.go)
//
// Heads may be MERGE records of Pebble's: a short head, or of a stream added
// postings, whose postings come after those of the older records of the key.
//
//	block      ┌──────┬─────────┬───────────┬──────┬──────────────────┐
//	           │ 0x01 │ uvarint │ uvarint   │ span │ gaps: the other  │
//	           │      │ ordinal │ count ≥ 1 │      │ count-1          │
//	           └──────┴─────────┴───────────┴──────┴──────────────────┘
//	           the first position is in the key; ordinal is that of the first
//	           posting; the last stands at first+span, so that a block can be
//	           passed over without decoding it
//
//	id         ┌──────┬──────────────────┐
//	           │ 0x01 │ uvarint position │
//	           └──────┴──────────────────┘
//
//	savepoint  ┌──────┬───────────────┬──────────────────┬───────────────┐
//	           │ 0x01 │ uvarint index │ uvarint position │ extra: to the │
//	           │      │ (A)           │ (P)              │ end           │
//	           └──────┴───────────────┴──────────────────┴───────────────┘
//
// There are no checksums here: each block of Pebble's files, and each chunk of
// its WAL, has one.
const (
	prefixBlock     = 'b'
	prefixHead      = 'h'
	prefixID        = 'i'
	prefixUUID      = 'u'
	prefixSavepoint = 's'
	prefixExtra     = 'x'
	prefixRow       = 'p'

	formShortHead = 1
	formLongHead  = 2
	formAdded     = 3
	formBlock     = 1
	formID        = 1
	formSavepoint = 1
)

func headKey(dst, term []byte) []byte {
	return append(append(dst, prefixHead), term...)
}

// blockKey returns the key of a term's block that begins at position first.
func blockKey(dst, term []byte, first uint64) []byte {
	return binary.BigEndian.AppendUint64(blockPrefix(dst, term), first)
}

func blockPrefix(dst, term []byte) []byte {
	dst = append(dst, prefixBlock)
	dst = binary.AppendUvarint(dst, uint64(len(term)))
	return append(dst, term...)
}

func idKey(dst []byte, id, stream string) []byte {
	if u, ok := parseUUID(id); ok {
		return append(append(append(dst, prefixUUID), u[:]...), stream...)
	}
	dst = append(dst, prefixID)
	dst = binary.AppendUvarint(dst, uint64(len(id)))
	return append(append(dst, id...), stream...)
}

func extraKey(dst, key []byte) []byte {
	return append(append(dst, prefixExtra), key...)
}

func rowKey(dst, key []byte) []byte {
	return append(append(dst, prefixRow), key...)
}

// rowsEnd returns the least key after all rows whose keys have the prefix.
func rowsEnd(prefix []byte) []byte {
	end := rowKey(nil, prefix)
	for end[len(end)-1] == 0xff { // ends at prefixRow at the latest
		end = end[:len(end)-1]
	}
	end[len(end)-1]++
	return end
}

// head is a term's head record, or added postings.
type head struct {
	before uint64 // of added postings: how many the stream has before them; else 0
	count  uint64 // of all postings; 0 = the term has none in the store
	first  uint64 // position of the first one kept
	last   uint64 // position of the last one

	// block describes the last block; its count is 0 if there is none.
	block blockHead
	tail  []uint64 // the postings after the last block
}

// blockHead is a block without its postings.
type blockHead struct {
	ordinal uint64 // of its first posting
	count   uint64
	first   uint64 // positions
	last    uint64
}

func (h *head) encode(dst []byte) []byte {
	if h.block.count == 0 {
		if h.before > 0 {
			dst = binary.AppendUvarint(append(dst, formAdded), h.before)
		} else {
			dst = append(dst, formShortHead)
		}
		dst = binary.AppendUvarint(dst, h.count)
		dst = binary.AppendUvarint(dst, h.tail[0])
		return appendGaps(dst, h.tail[0], h.tail[1:])
	}
	dst = append(dst, formLongHead)
	for _, n := range [...]uint64{
		h.count, h.first,
		h.block.ordinal, h.block.first, h.block.count, h.block.last - h.block.first,
	} {
		dst = binary.AppendUvarint(dst, n)
	}
	return appendGaps(dst, h.block.last, h.tail)
}

// decodeHead decodes a head record, all of whose parts are merged. The tail is
// appended to tail[:0].
func decodeHead(key, value []byte, tail []uint64) (head, error) {
	h, err := decodeRecord(key, value, tail)
	if err == nil && h.before > 0 {
		err = &CorruptError{Key: bytes.Clone(key), Reason: "the versions before those that were added are missing"}
	}
	return h, err
}

// decodeRecord decodes a head record or added postings. The tail is appended to
// tail[:0].
func decodeRecord(key, value []byte, tail []uint64) (head, error) {
	d := decoder{key: key, b: value}
	var h head
	switch form := d.byte(); form {
	case formShortHead, formAdded:
		if form == formAdded {
			h.before = d.atLeast(1)
		}
		h.count = d.atLeast(1)
		h.first = d.atLeast(1)
		h.tail = d.gaps(append(tail[:0], h.first), h.first, h.count-1)
		h.last = d.last(h.tail, 0)
	case formLongHead:
		h.count = d.atLeast(1)
		h.first = d.atLeast(1)
		h.block.ordinal = d.uvarint()
		h.block.first = d.atLeast(h.first)
		h.block.count = d.atLeast(1)
		h.block.last = d.add(h.block.first, d.uvarint())
		rest := d.sub(d.sub(h.count, h.block.ordinal), h.block.count)
		h.tail = d.gaps(tail[:0], h.block.last, rest)
		h.last = d.last(h.tail, h.block.last)
	default:
		d.fail("unknown form of a head")
	}
	return h, d.finish()
}

// appendBlock encodes a block of the postings, whose first has the ordinal.
func appendBlock(dst []byte, ordinal uint64, postings []uint64) []byte {
	first, last := postings[0], postings[len(postings)-1]
	dst = append(dst, formBlock)
	dst = binary.AppendUvarint(dst, ordinal)
	dst = binary.AppendUvarint(dst, uint64(len(postings)))
	dst = binary.AppendUvarint(dst, last-first)
	return appendGaps(dst, first, postings[1:])
}

// decodeBlockHead decodes all of a block but its postings, which are in rest.
// first is from the key.
func decodeBlockHead(key, value []byte) (h blockHead, rest []byte, err error) {
	d := decoder{key: key, b: value}
	if len(key) < 8 {
		d.fail("short key of a block")
		return h, nil, d.err
	}
	h.first = binary.BigEndian.Uint64(key[len(key)-8:])
	if form := d.byte(); form != formBlock {
		d.fail("unknown form of a block")
	}
	h.ordinal = d.uvarint()
	h.count = d.atLeast(1)
	h.last = d.add(h.first, d.uvarint())
	return h, d.b, d.err
}

// decodeBlock decodes a block. Its postings are appended to postings[:0].
func decodeBlock(key, value []byte, postings []uint64) (blockHead, []uint64, error) {
	h, rest, err := decodeBlockHead(key, value)
	if err != nil {
		return h, postings[:0], err
	}
	d := decoder{key: key, b: rest}
	postings = d.gaps(append(postings[:0], h.first), h.first, h.count-1)
	if last := d.last(postings, 0); d.err == nil && last != h.last {
		d.fail("the span of a block is not that of its postings")
	}
	return h, postings, d.finish()
}

func appendID(dst []byte, position uint64) []byte {
	return binary.AppendUvarint(append(dst, formID), position)
}

func decodeID(key, value []byte) (position uint64, err error) {
	d := decoder{key: key, b: value}
	if form := d.byte(); form != formID {
		d.fail("unknown form of an id")
	}
	position = d.atLeast(1)
	return position, d.finish()
}

func (sp *Savepoint) encode(dst []byte) []byte {
	dst = append(dst, formSavepoint)
	dst = binary.AppendUvarint(dst, sp.Index)
	dst = binary.AppendUvarint(dst, sp.Position)
	return append(dst, sp.Extra...)
}

func decodeSavepoint(key, value []byte) (Savepoint, error) {
	d := decoder{key: key, b: value}
	if form := d.byte(); form != formSavepoint {
		d.fail("unknown form of a savepoint")
	}
	sp := Savepoint{Index: d.uvarint(), Position: d.uvarint()}
	if d.err == nil && len(d.b) > 0 {
		sp.Extra = bytes.Clone(d.b)
	}
	return sp, d.err
}

// appendGaps encodes positions that ascend from above before.
func appendGaps(dst []byte, before uint64, positions []uint64) []byte {
	for _, p := range positions {
		dst = binary.AppendUvarint(dst, p-before-1)
		before = p
	}
	return dst
}

// decoder reads a value from front to back. After the first error it reads
// zeroes, so that only the end need be checked.
type decoder struct {
	key []byte // for errors
	b   []byte // what is left
	err error
}

func (d *decoder) fail(reason string) {
	if d.err == nil {
		d.err = &CorruptError{Key: bytes.Clone(d.key), Reason: reason}
	}
	d.b = nil
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail("empty value")
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

func (d *decoder) uvarint() uint64 {
	if d.err != nil {
		return 0
	}
	v, n := binary.Uvarint(d.b)
	if n <= 0 || n > 1 && d.b[n-1] == 0 { // cut short, over 64 bits, or not the shortest form
		d.fail("malformed number")
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) atLeast(low uint64) uint64 {
	v := d.uvarint()
	if d.err == nil && v < low {
		d.fail("a number is too small")
	}
	return v
}

func (d *decoder) add(a, b uint64) uint64 {
	if a > math.MaxUint64-b {
		d.fail("a position overflows")
		return 0
	}
	return a + b
}

func (d *decoder) sub(a, b uint64) uint64 {
	if a < b {
		d.fail("more postings in blocks than in all")
		return 0
	}
	return a - b
}

// gaps appends n positions that ascend from above before.
func (d *decoder) gaps(dst []uint64, before, n uint64) []uint64 {
	if d.err != nil {
		return dst
	}
	if n > uint64(len(d.b)) { // each takes a byte at least: never allocate for a number that can't be true
		d.fail("fewer postings than counted")
		return dst
	}
	for ; n > 0 && d.err == nil; n-- {
		gap := d.uvarint()
		if before == math.MaxUint64 {
			d.fail("a position overflows")
			break
		}
		before = d.add(before+1, gap)
		dst = append(dst, before)
	}
	return dst
}

// last returns the last of the positions, or before if there are none.
func (d *decoder) last(positions []uint64, before uint64) uint64 {
	if n := len(positions); n > 0 {
		return positions[n-1]
	}
	return before
}

// finish reports the first error; bytes that are left over are one.
func (d *decoder) finish() error {
	if d.err == nil && len(d.b) > 0 {
		d.fail("bytes left over")
	}
	return d.err
}
