package index

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"cairn/event"
)

// Rows are records of the projections: what they mean, and what their keys are,
// is not known here. They reach the store in two ways. Those that are part of
// the state machine's own state come with an append, wait in the overlay and are
// committed with it: AddAppend. Those that a goroutine folds beside it are written
// at once: WriteRows. Both are found under one key space, in which a row of an
// overlay hides a stored one.

// Pair is one record of a projection. A nil Value deletes.
type Pair struct{ Key, Value []byte }

// AddAppend adds the events of one append and the pairs that they change, at
// once: no reader sees a part. The Apply goroutine calls it. Keys and values are
// kept: the caller does not change them.
func (x *Index) AddAppend(events []event.Event, pairs []Pair) {
	if len(pairs) == 0 { // a view sees an append whole by its position
		x.AddAll(events)
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for i := range events {
		x.addLocked(&events[i])
	}
	for _, p := range pairs {
		x.active.setRow(p)
	}
}

// Row returns the newest value of a key, nil if there is none, and the last
// position that had been added when it was read. The value must not be changed.
func (x *Index) Row(key []byte) (value []byte, position uint64, err error) {
	x.open.RLock()
	defer x.open.RUnlock()
	x.mu.RLock()
	if x.closed {
		x.mu.RUnlock()
		return nil, 0, ErrClosed
	}
	position = x.active.through()
	value, ok := x.addedRowLocked(key)
	if ok {
		x.mu.RUnlock()
		return value, position, nil
	}
	it, err := x.storedRowsLocked()
	x.mu.RUnlock()
	if err == nil {
		value, err = storedRow(it, key)
		err = errors.Join(err, it.Close())
	}
	if err != nil {
		return nil, 0, fmt.Errorf("index: read row: %w", err)
	}
	return value, position, nil
}

// Rows returns up to limit pairs with the prefix, in order of keys from key from
// on, and the last position that had been added: all as of one moment. also is
// the value of one more key as of the same moment, nil if none is asked for.
// What is returned must not be changed.
func (x *Index) Rows(prefix, from []byte, limit int, also []byte) (pairs []Pair, alsoValue []byte, position uint64, err error) {
	if bytes.Compare(from, prefix) < 0 {
		from = prefix
	}
	x.open.RLock()
	defer x.open.RUnlock()
	m, err := x.rowsMoment(prefix, from, limit, also)
	if err != nil {
		return nil, nil, 0, err
	}
	alsoValue = m.also
	if also != nil && !m.alsoAdded {
		alsoValue, err = storedRow(m.stored, also)
	}
	if err == nil {
		pairs, err = m.merge(prefix, from, limit)
	}
	if err = errors.Join(err, m.stored.Close()); err != nil {
		return nil, nil, 0, fmt.Errorf("index: read rows: %w", err)
	}
	return pairs, alsoValue, m.position, nil
}

// rowsMoment is what Rows reads, as it was at one moment.
type rowsMoment struct {
	position  uint64
	added     []Pair // of the overlays, in order; a nil Value hides a stored row
	also      []byte
	alsoAdded bool             // the overlays have it
	stored    *pebble.Iterator // of all rows in the store
}

// rowsMoment looks at the overlays and opens an iterator of the store under one
// lock. Most of the overlays' rows are put in order before that.
func (x *Index) rowsMoment(prefix, from []byte, limit int, also []byte) (m rowsMoment, err error) {
	x.mu.RLock()
	layers := x.rowLayersLocked()
	x.mu.RUnlock()
	for {
		for i := range layers {
			layers[i].sort()
		}
		x.mu.RLock()
		now := x.rowLayersLocked()
		if slices.EqualFunc(layers, now, sameOverlay) {
			break // with the lock held
		}
		x.mu.RUnlock()
		layers = now
	}
	defer x.mu.RUnlock()
	if x.closed {
		return m, ErrClosed
	}
	m.position = x.active.through()
	var lists [][]*overlayRow
	for _, l := range layers {
		lists = append(lists, l.rowsLocked(string(prefix), string(from))...)
	}
	m.added = mergeRows(lists, string(prefix), limit)
	if also != nil {
		m.also, m.alsoAdded = x.addedRowLocked(also)
	}
	m.stored, err = x.storedRowsLocked()
	return m, err
}

// merge returns the first rows of the overlays and the store together.
func (m *rowsMoment) merge(prefix, from []byte, limit int) (pairs []Pair, err error) {
	lower, upper := rowKey(nil, from), rowsEnd(prefix)
	if limit <= 0 || bytes.Compare(lower, upper) >= 0 {
		return nil, nil
	}
	m.stored.SetBounds(lower, upper)
	valid := m.stored.First()
	for len(pairs) < limit && (valid || len(m.added) > 0) {
		order := -1
		switch {
		case len(m.added) == 0:
			order = 1
		case valid:
			order = bytes.Compare(m.added[0].Key, m.stored.Key()[1:])
		}
		if order > 0 {
			value, err := m.stored.ValueAndErr()
			if err != nil {
				return nil, err
			}
			pairs = append(pairs, Pair{bytes.Clone(m.stored.Key()[1:]), ownValue(value)})
			valid = m.stored.Next()
			continue
		}
		if m.added[0].Value != nil {
			pairs = append(pairs, m.added[0])
		}
		m.added = m.added[1:]
		if order == 0 {
			valid = m.stored.Next()
		}
	}
	return pairs, m.stored.Error()
}

// WriteRows writes pairs past the overlay, atomically: a Row that begins after it
// returned finds them, unless an overlay hides them. Any goroutine may call it.
// It does not fsync: a crash may lose the last calls of WriteRows and DropRows,
// each as a whole and the newest first, but none that returned before a Commit
// that succeeded. After an error of the store none succeeds any more.
func (x *Index) WriteRows(pairs []Pair) error {
	return x.writeRows(func(b *pebble.Batch) error {
		var key []byte
		for _, p := range pairs {
			key = rowKey(key[:0], p.Key)
			if err := setOrDelete(b, key, p.Value); err != nil {
				return err
			}
		}
		return nil
	})
}

// DropRows deletes every stored row whose key has the prefix, like WriteRows.
// Pairs in overlays stay, and are committed.
func (x *Index) DropRows(prefix []byte) error {
	return x.writeRows(func(b *pebble.Batch) error {
		return b.DeleteRange(rowKey(nil, prefix), rowsEnd(prefix), nil)
	})
}

func (x *Index) writeRows(fill func(*pebble.Batch) error) error {
	x.open.RLock()
	defer x.open.RUnlock()
	x.mu.RLock()
	closed := x.closed
	x.mu.RUnlock()
	if closed {
		return ErrClosed
	}
	err := x.store.failed()
	if err == nil {
		b := x.store.db.NewBatch()
		if err = fill(b); err == nil {
			err = x.store.guard(func() error { return b.Commit(pebble.NoSync) })
		}
		if err == nil { // else it may be anywhere in Pebble
			err = b.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("index: write rows: %w", err)
	}
	return nil
}

func setOrDelete(b *pebble.Batch, key, value []byte) error {
	if value == nil {
		return b.Delete(key, nil)
	}
	return b.Set(key, value, nil)
}

// addedRowLocked returns what the overlays have of a key; a nil value is one
// that was deleted.
func (x *Index) addedRowLocked(key []byte) (value []byte, ok bool) {
	for _, o := range [...]*overlay{x.active, x.frozen} {
		if o == nil {
			continue
		}
		if r, ok := o.rows[string(key)]; ok {
			return r.value, true
		}
	}
	return nil, false
}

// rowLayer is an overlay and its rows in order, but for the newest few.
type rowLayer struct {
	*overlay
	list   []*overlayRow // those to be put in order
	sorted []*overlayRow
}

// rowLayersLocked returns the overlays, the newer one first.
func (x *Index) rowLayersLocked() []rowLayer {
	layers := []rowLayer{{overlay: x.active, list: x.active.rowList}}
	if x.frozen != nil {
		layers = append(layers, rowLayer{overlay: x.frozen, list: x.frozen.rowList})
	}
	return layers
}

func sameOverlay(a, b rowLayer) bool { return a.overlay == b.overlay }

func (l *rowLayer) sort() { l.sorted, _ = l.rowOrder.split(l.list, compareRows) }

// rowsLocked returns two lists in order: of the rows whose keys are ≥ from, and
// of such rows with the prefix that have come since the others were put in order.
func (l *rowLayer) rowsLocked(prefix, from string) [][]*overlayRow {
	start := sort.Search(len(l.sorted), func(i int) bool { return l.sorted[i].key >= from })
	var others []*overlayRow
	for _, r := range l.rowList[len(l.sorted):] {
		if r.key >= from && strings.HasPrefix(r.key, prefix) {
			others = append(others, r)
		}
	}
	slices.SortFunc(others, compareRows)
	return [][]*overlayRow{l.sorted[start:], others}
}

// mergeRows returns the rows with the prefix, in order, up to the limit-th that
// is not deleted. Of rows with one key that of the first list counts.
func mergeRows(lists [][]*overlayRow, prefix string, limit int) (merged []Pair) {
	for found := 0; found < limit; {
		var next *overlayRow
		for _, list := range lists {
			if len(list) > 0 && strings.HasPrefix(list[0].key, prefix) && (next == nil || list[0].key < next.key) {
				next = list[0]
			}
		}
		if next == nil {
			break
		}
		for i, list := range lists {
			if len(list) > 0 && list[0].key == next.key {
				lists[i] = list[1:]
			}
		}
		merged = append(merged, Pair{[]byte(next.key), next.value})
		if next.value != nil {
			found++
		}
	}
	return merged
}

// storedRowsLocked opens an iterator of the rows in the store as they are now.
// That reads nothing yet.
func (x *Index) storedRowsLocked() (*pebble.Iterator, error) {
	return x.store.db.NewIter(&pebble.IterOptions{
		LowerBound: []byte{prefixRow}, UpperBound: []byte{prefixRow + 1}, UseL6Filters: true,
	})
}

// storedRow returns the value of a key, nil if there is none.
func storedRow(it *pebble.Iterator, key []byte) ([]byte, error) {
	var buf [600]byte
	if !it.SeekPrefixGE(rowKey(buf[:0], key)) {
		return nil, it.Error()
	}
	value, err := it.ValueAndErr()
	if err != nil {
		return nil, err
	}
	return ownValue(value), nil
}

// ownValue copies a value that is there: the copy is not nil.
func ownValue(value []byte) []byte { return append(make([]byte, 0, len(value)), value...) }
