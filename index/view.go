package index

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"cairn/event"
)

// View is the index as of one position: nothing that was added after it is
// seen, and nothing that was added before it is ever missed, whatever is
// committed meanwhile. Its methods may be called concurrently; Close must come
// last. An open view holds on to the memory of up to two overlays and to the
// store's files as they were, so a view is for one answer, not for a follower's
// whole life.
type View struct {
	index  *Index
	at     uint64
	closed atomic.Bool

	// The layers, each with positions after those of the one before: the store
	// as of the last commit, the overlay that was frozen then (nil if none),
	// and the active one. Overlays are read under index.mu.
	gen    *generation
	frozen *overlay
	active *overlay

	err error // ErrClosed, else nil
}

// View opens a view as of position at, or as of the last position added if
// that is less.
func (x *Index) View(at uint64) *View {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.closed {
		return &View{index: x, err: ErrClosed}
	}
	x.gen.refs.Add(1) // the index's own count keeps it above zero here
	x.views.Add(1)
	return &View{
		index: x, at: min(at, x.active.through()),
		gen: x.gen, frozen: x.frozen, active: x.active,
	}
}

// Position returns the position the view is as of.
func (v *View) Position() uint64 { return v.at }

// Close lets go of what the view holds on to.
func (v *View) Close() {
	if v.err != nil || v.closed.Swap(true) {
		return
	}
	if err := v.gen.release(); err != nil {
		v.index.store.fail(fmt.Errorf("close view: %w", err))
	}
	v.index.views.Add(-1)
}

// spans copies what the overlays have of a term, as of the view.
func (v *View) spans(term []byte) (frozen, active span) {
	v.index.mu.RLock()
	defer v.index.mu.RUnlock()
	if v.frozen != nil {
		frozen = v.frozen.span(term, v.at)
	}
	return frozen, v.active.span(term, v.at)
}

// Head returns where a stream stands; the zero Head if it has no event.
func (v *View) Head(stream string) (Head, error) {
	if v.err != nil {
		return Head{}, v.err
	}
	var buf [600]byte
	term := appendTerm(buf[:0], kindStream, stream)
	frozen, active := v.spans(term)
	for _, s := range [...]*span{&active, &frozen} {
		if s.n > 0 {
			return Head{Version: s.version + uint64(s.n), Last: s.at(s.n - 1)}, nil
		}
	}
	var tail [64]uint64
	h, err := v.gen.head(term, tail[:0])
	if err != nil {
		return Head{}, err
	}
	return v.headOf(stream, h)
}

// headOf returns where a stream stands that the overlays have no event of.
func (v *View) headOf(stream string, h head) (Head, error) {
	switch {
	case h.count == 0 || h.first > v.at:
		return Head{}, nil
	case h.last <= v.at:
		return Head{Version: h.count, Last: h.last}, nil
	}
	var err error
	l := v.list(kindStream, stream, 0, &err)
	defer l.close()
	n := l.count()
	last, _ := l.at(n - 1)
	return Head{Version: n, Last: last}, err
}

// Lookup returns the position of the event with an id that its client chose.
func (v *View) Lookup(id, stream string) (position uint64, ok bool, err error) {
	if v.err != nil {
		return 0, false, v.err
	}
	var buf [900]byte
	key := idKey(buf[:0], id, stream)
	if p := v.lookupOverlays(key); p > 0 {
		return p, p <= v.at, nil
	}
	var valueBuf [16]byte
	value, ok, err := v.gen.get(key, valueBuf[:0])
	if err != nil || !ok {
		return 0, false, err
	}
	p, err := decodeID(key, value)
	if err != nil || p > v.at {
		return 0, false, err
	}
	return p, true, nil
}

func (v *View) lookupOverlays(key []byte) (position uint64) {
	v.index.mu.RLock()
	defer v.index.mu.RUnlock()
	for _, o := range [...]*overlay{v.active, v.frozen} {
		if o == nil {
			continue
		}
		if off, ok := o.ids[string(key)]; ok {
			return o.base + uint64(off)
		}
	}
	return 0
}

// Conflict returns the first position after after of an event that q matches.
// A query without items matches every event but those of '$' streams.
func (v *View) Conflict(q event.Query, after uint64) (position uint64, ok bool, err error) {
	if v.err != nil || after >= v.at {
		return 0, false, v.err
	}
	p := plan{v: v, low: after}
	matches, _ := p.query(q)
	it := p.iter(matches.source, after)
	position, ok = it.Next()
	it.Close()
	return position, ok, it.Err()
}

// Stream returns the positions of a stream's events in order of version, or
// going backward in the reverse one. The first is that of version fromVersion;
// 0 means the first version, or going backward the last, and so does, going
// backward, one that the stream has not reached.
func (v *View) Stream(name string, fromVersion uint64, backwards bool) Iter {
	if v.err != nil {
		return failedIter(v.err)
	}
	c := &cursor{backward: backwards, err: new(error)}
	l := v.list(kindStream, name, 0, c.err)
	c.lists = append(c.lists, l)
	if backwards {
		c.src = backward{l}
	} else {
		c.src = forward{l}
	}
	if fromVersion == 0 {
		return c
	}
	from, ok := l.at(fromVersion - 1)
	switch {
	case ok:
		c.next = c.position(from)
	case !backwards:
		c.done = true
	}
	return c
}

// Select returns candidates for a filter, in the order of positions: those
// after bound, or going backward those before bound, or all if bound is 0. If
// exact, they are the events that the filter chooses, but for its times, which
// the caller turns into positions; else there may be others among them. ok is
// false if no index narrows the filter down: the log is to be read through.
func (v *View) Select(f *event.Filter, bound uint64, backward bool) (it Iter, exact, ok bool) {
	if v.err != nil {
		return failedIter(v.err), true, true
	}
	p := &plan{v: v, backward: backward}
	if !backward {
		p.low = bound
	}
	candidates, exact, ok := p.filter(f)
	if !ok && p.err == nil {
		p.close()
		return nil, false, false
	}
	return p.iter(candidates.source, bound), exact, true
}

// Compensating returns the positions of the events that compensate one with
// the id. They are of the id's stream, but so may be others: an id is unique in
// its stream only.
func (v *View) Compensating(id string) Iter {
	if v.err != nil {
		return failedIter(v.err)
	}
	p := &plan{v: v}
	return p.iter(p.term(kindCompensates, id).source, 0)
}

// Streams returns up to limit streams whose names have the prefix and are
// greater than after, in byte order of names.
func (v *View) Streams(prefix, after string, limit int) ([]event.StreamVersion, error) {
	if v.err != nil || limit <= 0 {
		return nil, v.err
	}
	from := prefix
	if after >= from && after != "" {
		from = after + "\x00" // the least name that is greater
	}
	added := v.addedStreams(prefix, from, limit)
	var found []event.StreamVersion
	add := func(name string, h Head) {
		if h.Version > 0 {
			found = append(found, event.StreamVersion{Stream: name, Version: h.Version})
		}
	}
	err := v.storedStreams(prefix, from, func(name string, stored head) (more bool, err error) {
		for len(added) > 0 && added[0] < name && len(found) < limit {
			h, err := v.Head(added[0])
			if err != nil {
				return false, err
			}
			add(added[0], h)
			added = added[1:]
		}
		if len(found) == limit {
			return false, nil
		}
		var h Head
		if len(added) > 0 && added[0] == name {
			added = added[1:]
			h, err = v.Head(name)
		} else {
			h, err = v.headOf(name, stored)
		}
		add(name, h)
		return len(found) < limit, err
	})
	for err == nil && len(added) > 0 && len(found) < limit {
		var h Head
		h, err = v.Head(added[0])
		add(added[0], h)
		added = added[1:]
	}
	if err != nil {
		return nil, fmt.Errorf("list streams: %w", err)
	}
	return found, nil
}

// addedStreams returns the names that the overlays have, limit at least if
// there are as many.
func (v *View) addedStreams(prefix, from string, limit int) []string {
	v.index.mu.RLock()
	layers := []*overlay{v.active}
	all := [][]*entry{v.active.streams}
	if v.frozen != nil {
		layers = append(layers, v.frozen)
		all = append(all, v.frozen.streams)
	}
	v.index.mu.RUnlock()
	var names []string
	for i, o := range layers {
		names = append(names, o.listStreams(all[i], prefix, from, v.at, limit)...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// storedStreams calls found for each stream in the store, in order of names.
func (v *View) storedStreams(prefix, from string, found func(name string, h head) (more bool, err error)) (err error) {
	lower := headKey(nil, appendTerm(nil, kindStream, from))
	upper := headKey(nil, []byte{byte(kindStream) + 1})
	it, err := v.gen.snap.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	var tail []uint64
	for valid := it.First(); valid; valid = it.Next() {
		name := string(it.Key()[2:]) // after prefixHead and the kind
		if !strings.HasPrefix(name, prefix) {
			return nil
		}
		value, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		h, err := decodeHead(it.Key(), value, tail)
		if err != nil {
			return err
		}
		tail = h.tail
		if more, err := found(name, h); err != nil || !more {
			return err
		}
	}
	return it.Error()
}

// Get returns the value last put under a key, nil if there is none. Values are
// not kept by position: it may be one put after the view's position.
func (v *View) Get(key []byte) ([]byte, error) {
	if v.err != nil {
		return nil, v.err
	}
	if value, ok := v.getOverlays(key); ok {
		return slices.Clone(value), nil
	}
	value, ok, err := v.gen.get(extraKey(nil, key), nil)
	if err != nil || !ok {
		return nil, err
	}
	return value, nil
}

func (v *View) getOverlays(key []byte) (value []byte, ok bool) {
	v.index.mu.RLock()
	defer v.index.mu.RUnlock()
	for _, o := range [...]*overlay{v.active, v.frozen} {
		if o == nil {
			continue
		}
		if value, ok = o.extra[string(key)]; ok {
			return value, true
		}
	}
	return nil, false
}
