package index

import (
	"io"

	"github.com/cockroachdb/pebble/v2"
)

// A term that gets a few new postings has its head changed without a look at it:
// they go out as a MERGE record of Pebble's, whose value is a short head or added
// postings (format.go), and who reads the head gets all of its records put
// together, as does the compaction that meets them. So a commit reads the heads of
// few terms, and writes each posting and not the whole tail once more.
//
// A program that doesn't know these records would take them for something else:
// see AllowMerges.

// headMerger puts the records of one head together. Its name is that of Pebble's
// own merger, which stores from before this one name in their options and tables:
// under another they could not be opened. They have no MERGE record.
var headMerger = &pebble.Merger{Name: pebble.DefaultMerger.Name, Merge: newHeadMerge}

// headMerge collects the records of one head. One goroutine uses it. Compactions
// make one for each MERGE record they meet, most of them with nothing to merge.
type headMerge struct {
	buf  []byte // the key, then the records in the order they came in
	ends []int  // of the key and of each record
	few  [6]int // where ends begins
	// newestLast says in which order they came in.
	newestLast bool
}

func newHeadMerge(key, value []byte) (pebble.ValueMerger, error) {
	m := &headMerge{buf: make([]byte, 0, len(key)+2*len(value)+16)}
	m.ends = m.few[:0]
	m.take(key)
	m.take(value)
	return m, nil
}

func (m *headMerge) take(b []byte) {
	m.buf = append(m.buf, b...)
	m.ends = append(m.ends, len(m.buf))
}

// MergeNewer takes a record that is newer than all before.
func (m *headMerge) MergeNewer(value []byte) error {
	m.newestLast = true
	m.take(value)
	return nil
}

// MergeOlder takes a record that is older than all before.
func (m *headMerge) MergeOlder(value []byte) error {
	m.take(value)
	return nil
}

// Finish returns the records as one. Where they don't go on from each other that
// is a CorruptError: it ends the reading, or the compaction and with it the store.
func (m *headMerge) Finish(bool) ([]byte, io.Closer, error) {
	n := len(m.ends) - 1
	if n == 1 {
		return m.record(0), nil, nil // checked by who decodes it
	}
	key := m.buf[:m.ends[0]]
	var all, h head
	var err error
	var space, scratch [64]uint64 // enough for most
	if all, err = decodeRecord(key, m.record(0), space[:0]); err != nil {
		return nil, nil, err
	}
	h.tail = scratch[:0]
	for age := 1; age < n; age++ {
		if h, err = decodeRecord(key, m.record(age), h.tail); err != nil {
			return nil, nil, err
		}
		if reason := all.extend(&h, isStreamHead(key)); reason != "" {
			return nil, nil, &CorruptError{Key: key, Reason: reason}
		}
	}
	return all.encode(make([]byte, 0, len(m.buf)-len(key)+8)), nil, nil
}

// record returns a record by its age: 0 is the oldest.
func (m *headMerge) record(age int) []byte {
	i := age + 1
	if !m.newestLast {
		i = len(m.ends) - 1 - age
	}
	return m.buf[m.ends[i-1]:m.ends[i]]
}

// isStreamHead reports whether a key is that of a stream's head.
func isStreamHead(key []byte) bool {
	return len(key) > 1 && key[0] == prefixHead && kind(key[1]) == kindStream
}

// extend adds the postings of a newer record. It returns why that can't be.
func (h *head) extend(newer *head, stream bool) (reason string) {
	switch {
	case newer.block.count > 0:
		return "a head with blocks is merged into another"
	case stream && newer.before != h.before+h.count:
		return "versions of a stream are missing or double"
	case !stream && (h.before > 0 || newer.before > 0):
		return "versions of what is no stream"
	case newer.first <= h.last:
		return "positions that are merged don't ascend"
	}
	h.tail = append(h.tail, newer.tail...)
	h.count += newer.count
	h.last = newer.last
	return ""
}

// AllowMerges lets commits from now on write MERGE records, until Close. Programs
// that know cluster version 1 only misread them: it is called once none of those
// may open the store any more, when min_version is raised on the disk.
func (x *Index) AllowMerges() { x.merges.Store(true) }

// seldom is true for one in n positions, on average, whatever the others are that
// it is asked about.
func seldom(position, n uint64) bool {
	h := position
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>29) * 0xc4ceb9fe1a85ec53
	return (h^h>>32)%n == 0
}

// unread reports whether a term's new postings are to be merged into its head
// without a look at it. What is merged makes the tail longer; only who reads it
// can spill it to blocks. So a stream's head is read when its version comes to a
// multiple of limits.spill, and then has a tail below twice that. How many
// postings another term has is not known without a look: one is taken when it
// has limits.look new ones or more, and with a chance of one in as many for each
// posting else. So tails of more than spill + a few times look are rare.
func (c *committer) unread(base uint64, ent *entry) bool {
	n := 1 + uint64(len(ent.rest))
	lim := &c.index.limits
	if kind(ent.term[0]) == kindStream {
		// One that began in this overlay can't be in the store: no look is needed.
		return ent.base > 0 && ent.base/lim.spill == (ent.base+n)/lim.spill
	}
	if n >= lim.look || seldom(base+uint64(ent.first), lim.look) {
		return false
	}
	for _, off := range ent.rest {
		if seldom(base+uint64(off), lim.look) {
			return false
		}
	}
	return true
}

// merge writes a term's new postings as a MERGE record.
func (c *committer) merge(ent *entry) error {
	h := head{before: ent.base, count: uint64(len(c.postings)), tail: c.postings}
	c.key = append(append(c.key[:0], prefixHead), ent.term...)
	c.value = h.encode(c.value[:0])
	c.index.counts.merges.Add(1)
	return c.batch.Merge(c.key, c.value, nil)
}
