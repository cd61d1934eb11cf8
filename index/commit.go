package index

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strconv"

	"github.com/cockroachdb/pebble/v2"
)

// Commit makes the frozen overlay, if there is one, and the savepoint durable,
// in one batch: both or neither survive a crash. sp.Position must be the last
// position the frozen overlay holds, or without one that of the last savepoint.
// When it returns nil the batch is fsynced and the frozen overlay is let go;
// views that are open keep it. After an error of the store no Commit succeeds
// any more, and Options.OnError has been called.
func (x *Index) Commit(sp Savepoint) error {
	x.mu.RLock()
	gen, frozen, closed := x.gen, x.frozen, x.closed
	x.mu.RUnlock()
	if closed {
		return ErrClosed
	}
	if err := x.store.failed(); err != nil {
		return fmt.Errorf("commit savepoint %d: %w", sp.Position, err)
	}
	through := gen.base
	if frozen != nil {
		through = frozen.through()
	}
	if sp.Position != through {
		return fmt.Errorf("commit savepoint %d: the events to commit end at %d", sp.Position, through)
	}
	if err := x.write(gen, frozen, &sp); err != nil {
		return fmt.Errorf("commit savepoint %d: %w", sp.Position, err)
	}
	next, err := x.store.newGeneration(sp.Position)
	if err != nil {
		return fmt.Errorf("commit savepoint %d: %w", sp.Position, err)
	}
	x.mu.Lock()
	x.gen, x.frozen = next, nil
	x.mu.Unlock()
	x.counts.commits.Add(1)
	if err := gen.release(); err != nil {
		x.store.fail(err)
		return fmt.Errorf("commit savepoint %d: %w", sp.Position, err)
	}
	return nil
}

// write builds the batch and makes it durable.
func (x *Index) write(gen *generation, frozen *overlay, sp *Savepoint) error {
	size := int64(1 << 10)
	if frozen != nil {
		size += frozen.bytes / 5 * 2 // what it comes to, about, where terms are mostly new
	}
	c := committer{index: x, gen: gen, batch: x.store.db.NewBatchWithSize(int(size)), merges: x.merges.Load()}
	if err := c.fill(frozen, sp); err != nil {
		return errors.Join(err, c.batch.Close())
	}
	x.counts.commitBytes.Add(uint64(c.batch.Len()))
	// After a failure the batch may be anywhere in Pebble: it is closed only if
	// all went well.
	if err := x.store.guard(func() error { return c.batch.Commit(pebble.Sync) }); err != nil {
		return err
	}
	return c.batch.Close()
}

// committer turns an overlay into a batch.
type committer struct {
	index  *Index
	gen    *generation
	batch  *pebble.Batch // of all but the blocks, until the end
	blocks []Pair        // of the store
	heads  *pebble.Iterator
	merges bool // MERGE records are allowed

	postings, block []uint64 // scratch, as are the next two
	key, value      []byte
}

// yieldEvery is after how many terms a commit lets others have its core: what it
// does is in no hurry, and an append that waits is.
const yieldEvery = 64

// fill writes the batch in the order of keys: Pebble sorts a large one, and one
// that is sorted already costs it little.
func (c *committer) fill(o *overlay, sp *Savepoint) error {
	if o == nil {
		return c.savepoint(sp)
	}
	ids := sortedKeys(o.ids)
	uuids, _ := slices.BinarySearch(ids, string(rune(prefixUUID)))
	for _, write := range []func() error{
		func() error { return c.terms(o) }, // 'b' are put before these in the end
		func() error { return c.ids(o, ids[:uuids]) },
		func() error { return c.rows(o) },
		func() error { return c.savepoint(sp) },
		func() error { return c.ids(o, ids[uuids:]) },
		func() error { return c.extra(o) },
		c.prependBlocks,
	} {
		if err := write(); err != nil {
			return err
		}
	}
	c.index.counts.terms.Add(uint64(len(o.terms)))
	return nil
}

// terms writes terms in the order of their keys, so that the heads are read
// in that order too.
func (c *committer) terms(o *overlay) (err error) {
	c.heads, err = c.gen.snap.NewIter(&pebble.IterOptions{UseL6Filters: true})
	if err != nil {
		return fmt.Errorf("read heads: %w", err)
	}
	defer func() { err = errors.Join(err, c.heads.Close()) }()
	for i, ent := range slices.SortedFunc(maps.Values(o.terms), compareNames) {
		if i%yieldEvery == 0 {
			runtime.Gosched()
		}
		if err := c.term(o.base, ent); err != nil {
			return fmt.Errorf("term %q: %w", ent.term, err)
		}
	}
	return nil
}

func (c *committer) ids(o *overlay, keys []string) error {
	for _, key := range keys {
		c.key = append(c.key[:0], key...)
		c.value = appendID(c.value[:0], o.base+uint64(o.ids[key]))
		if err := c.set(c.key, c.value); err != nil {
			return err
		}
	}
	return nil
}

func (c *committer) rows(o *overlay) error {
	for _, key := range sortedKeys(o.rows) {
		c.key = append(append(c.key[:0], prefixRow), key...)
		if err := setOrDelete(c.batch, c.key, o.rows[key].value); err != nil {
			return fmt.Errorf("batch: %w", err)
		}
	}
	return nil
}

func (c *committer) savepoint(sp *Savepoint) error {
	c.value = sp.encode(c.value[:0])
	return c.set([]byte{prefixSavepoint}, c.value)
}

func (c *committer) extra(o *overlay) error {
	for _, key := range sortedKeys(o.extra) {
		c.key = extraKey(c.key[:0], []byte(key))
		if err := c.set(c.key, o.extra[key]); err != nil {
			return err
		}
	}
	return nil
}

// prependBlocks puts the blocks before all else.
func (c *committer) prependBlocks() error {
	if len(c.blocks) == 0 {
		return nil
	}
	slices.SortFunc(c.blocks, func(a, b Pair) int { return bytes.Compare(a.Key, b.Key) })
	rest := c.batch
	c.batch = c.index.store.db.NewBatchWithSize(rest.Len() * 5 / 4)
	for _, b := range c.blocks {
		if err := c.set(b.Key, b.Value); err != nil {
			return errors.Join(err, rest.Close())
		}
	}
	if err := c.batch.Apply(rest, nil); err != nil {
		return fmt.Errorf("batch: %w", errors.Join(err, rest.Close()))
	}
	return rest.Close()
}

func sortedKeys[V any](m map[string]V) []string {
	keys := slices.AppendSeq(make([]string, 0, len(m)), maps.Keys(m))
	slices.Sort(keys)
	return keys
}

// term adds a term's new postings to its head: unread if that will do, else it
// appends them to the tail, and spills the tail to blocks if that has grown too
// long.
func (c *committer) term(base uint64, ent *entry) error {
	if c.merges && c.unread(base, ent) {
		c.postings = appendPostings(c.postings[:0], base, ent)
		return c.merge(ent)
	}
	isStream := kind(ent.term[0]) == kindStream
	var h head
	if !isStream || ent.base > 0 { // a stream that began in this overlay can't be in the store
		var err error
		if h, err = c.readHead(ent.term); err != nil {
			return err
		}
	}
	if isStream && h.count != ent.base {
		return &CorruptError{Key: headKey(nil, []byte(ent.term)), Reason: "the stream has " +
			strconv.FormatUint(h.count, 10) + " events, and the next one is version " + strconv.FormatUint(ent.base+1, 10)}
	}
	c.postings = appendPostings(append(c.postings[:0], h.tail...), base, ent)
	if h.count == 0 {
		h.first = c.postings[0]
	}
	h.count += 1 + uint64(len(ent.rest))
	h.tail = c.postings
	for uint64(len(h.tail)) >= c.index.limits.spill { // again only if the block is full now
		if err := c.spill(&h, ent.term); err != nil {
			return err
		}
	}
	c.key = append(append(c.key[:0], prefixHead), ent.term...)
	c.value = h.encode(c.value[:0])
	return c.set(c.key, c.value)
}

func appendPostings(dst []uint64, base uint64, ent *entry) []uint64 {
	dst = append(dst, base+uint64(ent.first))
	for _, off := range ent.rest {
		dst = append(dst, base+uint64(off))
	}
	return dst
}

func (c *committer) readHead(term string) (head, error) {
	c.key = append(append(c.key[:0], prefixHead), term...)
	if !c.heads.SeekPrefixGE(c.key) {
		return head{}, c.heads.Error()
	}
	value, err := c.heads.ValueAndErr()
	if err != nil {
		return head{}, err
	}
	c.index.counts.reads.Add(1)
	return decodeHead(c.key, value, c.block)
}

// spill moves postings from the front of the tail to the last block until that
// is full, or to a new one if it is.
func (c *committer) spill(h *head, term string) error {
	full := c.index.limits.block
	merged := h.block.count > 0 && h.block.count < full
	block := c.block[:0]
	if merged {
		c.key = blockKey(c.key[:0], []byte(term), h.block.first)
		value, ok, err := c.gen.get(c.key, nil)
		if err != nil {
			return err
		}
		if !ok {
			return &CorruptError{Key: slices.Clone(c.key), Reason: "the last block is missing"}
		}
		var read blockHead
		if read, block, err = decodeBlock(c.key, value, block); err != nil {
			return err
		}
		if read != h.block {
			return &CorruptError{Key: slices.Clone(c.key), Reason: "the last block is not what its head says"}
		}
		c.index.counts.merged.Add(1)
	} else {
		h.block = blockHead{ordinal: h.block.ordinal + h.block.count, first: h.tail[0]}
		c.key = blockKey(c.key[:0], []byte(term), h.block.first)
	}
	n := min(uint64(len(h.tail)), full-uint64(len(block)))
	block = append(block, h.tail[:n]...)
	h.tail = h.tail[n:]
	h.block.count, h.block.last = uint64(len(block)), block[len(block)-1]
	c.block = block
	c.index.counts.blocks.Add(1)
	c.blocks = append(c.blocks, Pair{bytes.Clone(c.key), appendBlock(nil, h.block.ordinal, block)})
	return nil
}

func (c *committer) set(key, value []byte) error {
	if err := c.batch.Set(key, value, nil); err != nil {
		return fmt.Errorf("batch: %w", err)
	}
	return nil
}

// Checkpoint writes a copy of the store as of the last Commit to dir, which
// must not exist: tables are hard links. WriteRows and DropRows that returned
// before the call are in it too, later ones may be. It is fsynced when Checkpoint returns
// nil. No Commit may run meanwhile.
func (x *Index) Checkpoint(dir string) error {
	x.mu.RLock()
	closed := x.closed
	x.mu.RUnlock()
	if closed {
		return ErrClosed
	}
	err := x.store.failed()
	if err == nil {
		err = x.store.checkpoint(dir)
	}
	if err != nil {
		return fmt.Errorf("checkpoint index to %s: %w", dir, err)
	}
	return nil
}
