package httpapi

import (
	"bytes"
	"log/slog"
	"slices"
	"sync"
	"time"

	"cairn/event"
)

const (
	ringEvents = 1024    // most events the hub keeps
	ringBytes  = 4 << 20 // and their bytes
	// maxBehind is how far the hub reads after the log. Beyond that it wakes
	// everybody, and each reads for itself what the index finds for it.
	maxBehind = 16 << 10
)

// hub reads the end of the log once for all followers. It wakes a follower only
// when there is an event that its filter matches, and keeps the newest events,
// encoded once, so that those who are up to date need not read at all. It works
// only while there are followers.
type hub struct {
	reads   Reads
	waiter  Waiter
	delay   time.Duration
	logger  *slog.Logger
	metrics *metrics

	// mu is held for writing to change what is below and the subscriptions that
	// are not the holder's own, for reading to look at them.
	mu    sync.RWMutex
	ring  []*recent // without gaps, ends at seen, or is empty
	held  int       // bytes of the ring
	seen  uint64    // every follower was woken for what it wants up to here
	byKey map[wakeKey]map[*subscription]struct{}
	all   map[*subscription]struct{} // those that no key finds
	count int

	kick    chan struct{} // there is a follower now
	closing chan struct{}
	end     sync.Once
	done    sync.WaitGroup
}

// recent is an event at the end of the log.
type recent struct {
	event event.Event
	once  sync.Once
	json  []byte
}

func (r *recent) encoded() []byte {
	r.once.Do(func() { r.json = event.AppendJSON(nil, &r.event) })
	return r.json
}

// size is the most that r takes: the event and its JSON, in which a character of
// a name may take six bytes.
func (r *recent) size() int {
	e := &r.event
	names := len(e.ContentType) + len(e.Stream) + len(e.Type) + len(e.ID) + len(e.CorrelationID) + len(e.CausationID) + len(e.Compensates)
	for _, tag := range e.Tags {
		names += len(tag) + 16
	}
	return 2*(len(e.Data)+len(e.Meta)) + 7*names + 512
}

func startHub(reads Reads, waiter Waiter, delay time.Duration, logger *slog.Logger, m *metrics) *hub {
	h := &hub{
		reads: reads, waiter: waiter, delay: delay, logger: logger, metrics: m,
		byKey: map[wakeKey]map[*subscription]struct{}{}, all: map[*subscription]struct{}{},
		kick: make(chan struct{}, 1), closing: make(chan struct{}),
	}
	h.done.Go(h.run)
	return h
}

// close ends the hub. Followers are not woken any more.
func (h *hub) close() {
	h.end.Do(func() { close(h.closing) })
	h.done.Wait()
}

// subscribe registers a follower that has handled everything up to after.
func (h *hub) subscribe(f event.Filter, least, after uint64) *subscription {
	s := &subscription{filter: f, least: least, keys: keysOf(&f), after: after, wake: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.count == 0 {
		h.seen, h.ring, h.held = after, nil, 0
	}
	h.count++
	if h.seen > after {
		h.wakeLocked(s, after+1)
	}
	if len(s.keys) == 0 {
		h.all[s] = struct{}{}
	}
	for _, k := range s.keys {
		if h.byKey[k] == nil {
			h.byKey[k] = map[*subscription]struct{}{}
		}
		h.byKey[k][s] = struct{}{}
	}
	select {
	case h.kick <- struct{}{}:
	default:
	}
	return s
}

func (h *hub) unsubscribe(s *subscription) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.count--
	delete(h.all, s)
	for _, k := range s.keys {
		delete(h.byKey[k], s)
		if len(h.byKey[k]) == 0 {
			delete(h.byKey, k)
		}
	}
	if h.count == 0 {
		h.ring, h.held = nil, 0
	}
}

// run follows the log until the hub is closed.
func (h *hub) run() {
	for {
		changed := h.waiter.Changed() // before Applied, so that no change is missed
		applied := h.waiter.Applied()
		seen, idle := h.state()
		if idle {
			select {
			case <-h.kick:
				continue
			case <-h.closing:
				return
			}
		}
		if applied > seen {
			h.advance(seen, applied)
		} else {
			select {
			case <-changed:
				if h.waiter.Applied() > applied {
					continue // the first after a pause is passed on at once
				}
			case <-h.closing:
				return
			}
		}
		// What comes during this delay wakes followers together.
		select {
		case <-time.After(h.delay):
		case <-h.closing:
			return
		}
	}
}

func (h *hub) state() (seen uint64, idle bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.seen, h.count == 0
}

// advance shows everybody what came after seen.
func (h *hub) advance(seen, applied uint64) {
	var fresh []*recent
	var keep int
	var err error
	jump := applied-seen > maxBehind
	if !jump {
		if fresh, keep, err = h.read(seen, applied); err != nil {
			// Each follower meets the error by itself, at the event it is about.
			h.logger.Warn("followers read for themselves", "after", seen, "error", err)
			jump = true
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.seen != seen {
		return // the last follower left meanwhile, and another came
	}
	h.seen = applied
	if jump {
		h.ring, h.held = nil, 0
		for s := range h.all {
			h.wakeLocked(s, seen+1)
		}
		for _, set := range h.byKey {
			for s := range set {
				h.wakeLocked(s, seen+1)
			}
		}
		return
	}
	h.keepLocked(fresh, keep)
	for _, r := range fresh {
		h.showLocked(&r.event)
	}
	for s := range h.all {
		for _, r := range fresh {
			if s.dirty {
				break
			}
			if s.matches(&r.event) {
				h.wakeLocked(s, r.event.Position)
			}
		}
	}
}

// read returns the events in (seen, applied]. Those before keep have no content:
// they are shown, but the ring could not hold them.
func (h *hub) read(seen, applied uint64) (fresh []*recent, keep int, err error) {
	v := h.reads.View(applied)
	defer v.Close()
	cur, err := v.Select(Selection{After: seen})
	if err != nil {
		return nil, 0, err
	}
	defer cur.Close()
	size := 0
	for cur.Next() {
		e := *cur.Event()
		e.Data, e.Meta, e.Tags = bytes.Clone(e.Data), bytes.Clone(e.Meta), slices.Clone(e.Tags)
		fresh = append(fresh, &recent{event: e})
		for size += fresh[len(fresh)-1].size(); size > ringBytes && keep < len(fresh)-1; keep++ {
			size -= fresh[keep].size()
			fresh[keep].event.Data, fresh[keep].event.Meta = nil, nil
		}
	}
	return fresh, keep, cur.Err()
}

// keepLocked adds fresh[keep:] to the ring and drops what is too much from its
// front.
func (h *hub) keepLocked(fresh []*recent, keep int) {
	if keep > 0 { // a ring has no gaps
		h.ring, h.held = nil, 0
	}
	h.ring = append(h.ring, fresh[keep:]...)
	for _, r := range fresh[keep:] {
		h.held += r.size()
	}
	drop := 0
	for drop < len(h.ring)-1 && (len(h.ring)-drop > ringEvents || h.held > ringBytes) {
		h.held -= h.ring[drop].size()
		drop++
	}
	h.ring = slices.Delete(h.ring, 0, drop)
}

// showLocked wakes those that one of the event's keys finds.
func (h *hub) showLocked(e *event.Event) {
	if len(h.byKey) == 0 {
		return
	}
	h.tryLocked(wakeKey{byStream, e.Stream}, e)
	h.tryLocked(wakeKey{byCategory, event.Category(e.Stream)}, e)
	h.tryLocked(wakeKey{byType, e.Type}, e)
	for _, tag := range e.Tags {
		h.tryLocked(wakeKey{byTag, tag}, e)
	}
	if e.CorrelationID != "" {
		h.tryLocked(wakeKey{byCorrelation, e.CorrelationID}, e)
	}
	if e.CausationID != "" {
		h.tryLocked(wakeKey{byCausation, e.CausationID}, e)
	}
}

func (h *hub) tryLocked(k wakeKey, e *event.Event) {
	for s := range h.byKey[k] {
		if !s.dirty && s.matches(e) {
			h.wakeLocked(s, e.Position)
		}
	}
}

func (h *hub) wakeLocked(s *subscription, from uint64) {
	if s.dirty {
		return
	}
	s.dirty, s.from = true, max(from, s.after+1)
	h.metrics.wakeUps.Inc()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
