package httpapi

import "cairn/event"

// subscription is a follower that is up to date, as the hub knows it. The hub
// changes it under its lock; the follower changes its own while it holds the
// lock for reading, which keeps the hub out.
type subscription struct {
	filter event.Filter
	least  uint64 // version from which on events of its stream count; 0 = all
	keys   []wakeKey
	after  uint64        // what is up to here was handled
	dirty  bool          // there is something to read for it, at from or above
	from   uint64        // of one that is dirty
	wake   chan struct{} // has a token when it became dirty
}

func (s *subscription) matches(e *event.Event) bool {
	return e.Position > s.after && e.Version >= s.least && s.filter.Matches(e)
}

// wakeKey is a property that an event must have to be of interest.
type wakeKey struct {
	kind keyKind
	text string
}

type keyKind uint8

const (
	byStream keyKind = iota
	byCategory
	byType
	byTag
	byCorrelation
	byCausation
)

// keysOf returns keys of which each event that f matches has one, or nil if
// there are none.
func keysOf(f *event.Filter) []wakeKey {
	switch {
	case f.Stream != "":
		return []wakeKey{{byStream, f.Stream}}
	case f.CorrelationID != "":
		return []wakeKey{{byCorrelation, f.CorrelationID}}
	case f.CausationID != "":
		return []wakeKey{{byCausation, f.CausationID}}
	}
	var keys []wakeKey
	for _, item := range f.Query.Items {
		switch {
		case len(item.Tags) > 0:
			keys = append(keys, wakeKey{byTag, item.Tags[0]})
		case len(item.Types) > 0:
			for _, t := range item.Types {
				keys = append(keys, wakeKey{byType, t})
			}
		default:
			return nil
		}
	}
	if len(keys) == 0 && f.Category != "" {
		keys = append(keys, wakeKey{byCategory, f.Category})
	}
	return keys
}

// position returns up to where s needs nothing any more.
func (h *hub) position(s *subscription) uint64 {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if s.dirty {
		return max(s.after, s.from-1)
	}
	s.after = max(s.after, h.seen)
	return s.after
}

// gathered is what a gather found.
type gathered struct {
	events        []*recent
	state         gatherState
	from, through uint64 // of behind
}

type gatherState uint8

const (
	upToDate gatherState = iota // there is nothing more
	more                        // there may be more
	behind                      // the ring begins later: read [from, through] and call moved
)

// gather appends events that s was woken for to into, about as many as make a
// chunk. They count as handled, except for what is given back. The caller works
// on them without the lock: an upcast may take long.
func (h *hub) gather(s *subscription, into []*recent) gathered {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if !s.dirty || s.from > h.seen {
		s.dirty = false
		s.after = max(s.after, h.seen)
		return gathered{state: upToDate}
	}
	if len(h.ring) == 0 || h.ring[0].event.Position > s.from {
		return gathered{state: behind, from: s.from, through: h.seen}
	}
	size := 0
	for _, r := range h.ring[s.from-h.ring[0].event.Position:] {
		if s.matches(&r.event) {
			if size += roomFor(&r.event); size > followChunk && len(into) > 0 {
				return gathered{events: into, state: more}
			}
			into = append(into, r)
		}
		s.after, s.from = r.event.Position, r.event.Position+1
	}
	s.dirty = false
	return gathered{events: into, state: upToDate}
}

// giveBack says that s has not handled what it gathered at from and above.
func (h *hub) giveBack(s *subscription, from uint64) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	s.after, s.from, s.dirty = from-1, from, true
}

// moved says that s has handled everything up to after by itself.
func (h *hub) moved(s *subscription, after uint64) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	s.after, s.from = after, after+1
}
