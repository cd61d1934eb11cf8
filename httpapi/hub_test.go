package httpapi

import (
	"slices"
	"strings"
	"testing"
	"time"

	"cairn/event"
)

// testHub is a hub of a store; its pump waits for a follower.
func testHub(t *testing.T, store *fakeStore) *hub {
	h := startHub(store, store, time.Millisecond, discard, newMetrics(nil))
	t.Cleanup(h.close)
	return h
}

// drain takes what a subscription is owed, and checks that the ring and the log
// agree about it.
func (h *hub) drain(t *testing.T, s *subscription, store *fakeStore) (got []uint64) {
	t.Helper()
	take := func(e *event.Event) {
		got = append(got, e.Position)
		if want := store.events[e.Position-1]; string(want.Data) != string(e.Data) {
			t.Errorf("event %d has %d bytes of data, not %d", e.Position, len(e.Data), len(want.Data))
		}
	}
	for {
		g := h.gather(s, nil)
		for _, r := range g.events {
			take(&r.event)
		}
		switch g.state {
		case upToDate:
			return got
		case behind:
			sp := span{filter: s.filter, after: g.from - 1, at: g.through, window: 3}
			for done := false; !done; {
				var err error
				if done, err = sp.step(store, func(e *event.Event) verdict { take(e); return taken }); err != nil {
					t.Fatal(err)
				}
			}
			h.moved(s, g.through)
		}
	}
}

// showsAll waits until the hub has shown everything.
func (h *hub) showsAll(t *testing.T, store *fakeStore) {
	t.Helper()
	eventually(t, "the hub has shown everything", func() bool { seen, _ := h.state(); return seen == store.Applied() })
}

func TestHub_LateSubscriber(t *testing.T) {
	store := filled(5)
	h := testHub(t, store)
	first := h.subscribe(event.Filter{}, 0, 6)
	store.add(event.Event{Stream: "a", Type: "T"}, event.Event{Stream: "b", Type: "T"})
	h.showsAll(t, store)
	// Its history ended before the hub got on: what lies between is owed.
	late := h.subscribe(event.Filter{}, 0, 3)
	if len(late.wake) != 1 {
		t.Error("the late subscriber was not woken")
	}
	if got := h.drain(t, late, store); !slices.Equal(got, upTo(4, 8)) {
		t.Errorf("the late one got %v", got)
	}
	if got := h.drain(t, first, store); !slices.Equal(got, upTo(7, 8)) {
		t.Errorf("the first one got %v", got)
	}
}

// The ring never has a gap, whatever sizes come together.
func TestHub_RingHasNoGap(t *testing.T) {
	store := filled(1)
	h := testHub(t, store)
	s := h.subscribe(event.Filter{}, 0, 2)
	text := func(n int) []byte { return []byte(`"` + strings.Repeat("x", n) + `"`) }
	want := uint64(3)
	for _, sizes := range [][]int{{1}, {ringBytes / 2, ringBytes/2 - 2000}, {1}, {ringBytes, 1, 1}, {1, ringBytes / 4, ringBytes / 4, ringBytes / 4, 1}} {
		var events []event.Event
		for _, n := range sizes {
			events = append(events, event.Event{Stream: "a", Type: "T", Data: text(n)})
		}
		last := store.add(events...)
		h.showsAll(t, store)
		h.mu.RLock()
		for i := 1; i < len(h.ring); i++ {
			if h.ring[i].event.Position != h.ring[i-1].event.Position+1 {
				t.Errorf("%d stands behind %d", h.ring[i].event.Position, h.ring[i-1].event.Position)
			}
		}
		if n := len(h.ring); n == 0 || h.ring[n-1].event.Position != last {
			t.Errorf("the ring does not end at %d", last)
		}
		if h.held > ringBytes && len(h.ring) > 1 {
			t.Errorf("the ring holds %d bytes", h.held)
		}
		h.mu.RUnlock()
		if got := h.drain(t, s, store); !slices.Equal(got, upTo(want, last)) {
			t.Errorf("got %v, want %v", got, upTo(want, last))
		}
		want = last + 1
	}
}

// A hub that is far behind does not read what nobody may want.
func TestHub_Jumps(t *testing.T) {
	store := filled(1)
	h := testHub(t, store)
	rare := h.subscribe(event.Filter{Category: "rare"}, 0, 2)
	var events []event.Event
	for range maxBehind + 1 {
		events = append(events, event.Event{Stream: "often", Type: "T"})
	}
	events = append(events, event.Event{Stream: "rare-1", Type: "T"})
	last := store.add(events...)
	h.showsAll(t, store)
	if got := h.drain(t, rare, store); !slices.Equal(got, []uint64{last}) {
		t.Errorf("got %v", got)
	}
}

func TestHub_KeysFindWhatFiltersMatch(t *testing.T) {
	items := func(items ...event.QueryItem) event.Filter { return event.Filter{Query: event.Query{Items: items}} }
	for _, c := range []struct {
		filter event.Filter
		want   []wakeKey
	}{
		{event.Filter{}, nil},
		{event.Filter{StreamPrefix: "a"}, nil},
		{event.Filter{Stream: "a", Category: "b"}, []wakeKey{{byStream, "a"}}},
		{event.Filter{Category: "b"}, []wakeKey{{byCategory, "b"}}},
		{items(event.QueryItem{Types: []string{"T", "U"}}), []wakeKey{{byType, "T"}, {byType, "U"}}},
		{items(event.QueryItem{Types: []string{"T"}, Tags: []string{"x", "y"}}, event.QueryItem{Tags: []string{"z"}}), []wakeKey{{byTag, "x"}, {byTag, "z"}}},
		{items(event.QueryItem{Tags: []string{"z"}}, event.QueryItem{}), nil},
	} {
		if got := keysOf(&c.filter); !slices.Equal(got, c.want) {
			t.Errorf("%+v: got %v, want %v", c.filter, got, c.want)
		}
	}
}

// A key alone wakes nobody.
func TestHub_WakesOnlyForAMatch(t *testing.T) {
	store := filled(1)
	h := testHub(t, store)
	s := h.subscribe(event.Filter{Query: event.Query{Items: []event.QueryItem{{Types: []string{"T"}, Tags: []string{"x"}}}}}, 0, 2)
	store.add(event.Event{Stream: "a", Type: "U", Tags: []string{"x"}}, event.Event{Stream: "a", Type: "T"})
	h.showsAll(t, store)
	if len(s.wake) != 0 || h.position(s) != 4 {
		t.Errorf("woken %d times, at %d", len(s.wake), h.position(s))
	}
	store.add(event.Event{Stream: "a", Type: "T", Tags: []string{"y", "x"}})
	h.showsAll(t, store)
	if len(s.wake) != 1 || h.position(s) != 4 {
		t.Errorf("woken %d times, at %d", len(s.wake), h.position(s))
	}
}

// Nobody follows: nothing is read.
func TestHub_RestsWithoutFollowers(t *testing.T) {
	store := filled(1)
	h := testHub(t, store)
	h.unsubscribe(h.subscribe(event.Filter{Stream: "x"}, 0, 2))
	eventually(t, "the hub rests", func() bool { _, idle := h.state(); return idle })
	store.set(func() { store.selects = 0 })
	for range 50 {
		store.add(event.Event{Stream: "a", Type: "T"})
	}
	s := h.subscribe(event.Filter{}, 0, 52)
	store.add(event.Event{Stream: "a", Type: "T"})
	h.showsAll(t, store)
	if got := h.drain(t, s, store); !slices.Equal(got, []uint64{53}) || store.selects != 1 {
		t.Errorf("got %v by %d reads", got, store.selects)
	}
	if len(h.byKey) != 0 {
		t.Errorf("%d keys are left behind", len(h.byKey))
	}
}
