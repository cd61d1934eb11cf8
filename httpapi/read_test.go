package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"cairn/event"
)

// page is a page as a client decodes it.
type page struct {
	Events []struct {
		Position uint64 `json:"position"`
		Stream   string `json:"stream"`
		Version  uint64 `json:"version"`
	} `json:"events"`
	Streams []struct {
		Stream  string `json:"stream"`
		Version uint64 `json:"version"`
	} `json:"streams"`
	Version *uint64 `json:"version"`
	Head    *uint64 `json:"head"`
	Next    string  `json:"next"`
}

func (a answer) page(t *testing.T) page {
	t.Helper()
	a.check(t, 200)
	var p page
	if err := json.Unmarshal([]byte(a.body), &p); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
	return p
}

func (p page) positions() []uint64 {
	list := []uint64{}
	for _, e := range p.Events {
		list = append(list, e.Position)
	}
	return list
}

// filled is a store with n events in streams a-0 … a-4 and b.
func filled(n int) *fakeStore {
	store := newFakeStore()
	for i := range n {
		e := event.Event{Stream: fmt.Sprintf("a-%d", i%5), Type: "T" + strconv.Itoa(i%3), ID: strconv.Itoa(i), Tags: []string{"mod:" + strconv.Itoa(i%7)}}
		if i%10 == 9 {
			e.Stream, e.CorrelationID, e.CausationID = "b", "c1", "c2"
		}
		store.add(e)
	}
	return store
}

// Every way to page gives what one reading as of the first page would, though
// events are added all the while, and head only at the end.
func TestPages_AreStable(t *testing.T) {
	for _, c := range []struct {
		path, body string
		matches    func(e *event.Event) bool
		desc       bool
		stream     bool
	}{
		{path: "/v1/events?limit=7", matches: func(*event.Event) bool { return true }},
		{path: "/v1/events?limit=7&order=desc", matches: func(*event.Event) bool { return true }, desc: true},
		{path: "/v1/events?limit=3&type=T1&type=T2&tag=mod:3", matches: func(e *event.Event) bool {
			return e.Type != "T0" && slices.Contains(e.Tags, "mod:3") && e.Stream != "$log"
		}},
		{path: "/v1/events?limit=1&category=b&order=desc&after=20", matches: func(e *event.Event) bool { return e.Stream == "b" && e.Position > 20 }, desc: true},
		{path: "/v1/events?limit=4&after=11", matches: func(e *event.Event) bool { return e.Position > 11 }},
		{path: "/v1/streams/a-1/events?limit=3", matches: func(e *event.Event) bool { return e.Stream == "a-1" }, stream: true},
		{path: "/v1/streams/a-1/events?limit=3&order=desc", matches: func(e *event.Event) bool { return e.Stream == "a-1" }, desc: true, stream: true},
		{path: "/v1/streams/a-1/events?limit=3&from=4", matches: func(e *event.Event) bool { return e.Stream == "a-1" && e.Version >= 4 }, stream: true},
		{path: "/v1/streams/a-1/events?limit=3&from=4&order=desc", matches: func(e *event.Event) bool { return e.Stream == "a-1" && e.Version <= 4 }, desc: true, stream: true},
		{path: "/v1/query", body: `{"query":{"items":[{"types":["T0"]},{"tags":["mod:1"]}]},"after":5,"limit":6}`,
			matches: func(e *event.Event) bool {
				return e.Position > 5 && (e.Type == "T0" || slices.Contains(e.Tags, "mod:1"))
			}},
		{path: "/v1/query", body: `{"query":{"items":[]},"limit":30}`, matches: func(e *event.Event) bool { return e.Stream != "$log" }},
	} {
		t.Run(c.path, func(t *testing.T) {
			store := filled(60)
			ts := serve(t, store)
			want := []uint64{}
			for _, e := range store.events {
				if c.matches(&e) {
					want = append(want, e.Position)
				}
			}
			if c.desc {
				slices.Reverse(want)
			}
			asOf := uint64(len(store.events))
			var got []uint64
			for url := c.path; url != ""; {
				a := ts.get(url)
				if c.body != "" {
					a = ts.post(url, c.body)
				}
				p := a.page(t)
				a.checkHeader(t, "Cairn-Position", strconv.FormatUint(asOf, 10), "Cairn-Log", testLog)
				got = append(got, p.positions()...)
				if hasHead := p.Head != nil; hasHead != (p.Next == "" && !c.stream) || hasHead && *p.Head != asOf {
					t.Errorf("head is %v with next %q: %s", p.Head, p.Next, a.body)
				}
				if hasVersion := p.Version != nil; hasVersion != c.stream {
					t.Errorf("version is %v: %s", p.Version, a.body)
				}
				if p.Next != "" && !strings.Contains(p.Next, "min_position="+strconv.FormatUint(asOf, 10)) {
					t.Errorf("next carries no min_position: %s", p.Next)
				}
				url = p.Next
				store.add(event.Event{Stream: "a-1", Type: "T0", Tags: []string{"mod:1", "mod:3"}}, event.Event{Stream: "b", Type: "T1"})
			}
			if !slices.Equal(got, want) {
				t.Errorf("got  %v\nwant %v", got, want)
			}
		})
	}
}

func TestPages_NextKnowsTheLog(t *testing.T) {
	store := filled(20)
	ts := serve(t, store)
	next := ts.get("/v1/events?limit=5").page(t).Next
	ts.get(next).check(t, 200)
	store.set(func() { store.logID = "another" })
	ts.get(next).check(t, 409, "urn:cairn:error:log-changed", `"log":"another"`)
}

// A node that is behind the one that gave the page waits.
func TestPages_NextWaitsForItsPosition(t *testing.T) {
	store := filled(20)
	ts := serve(t, store)
	next := ts.get("/v1/events?limit=5").page(t).Next
	store.setLimit(10)
	ts.get(next+"&timeout=20ms").check(t, 503, "urn:cairn:error:timeout")
	time.AfterFunc(20*time.Millisecond, func() { store.setLimit(0) })
	ts.get(next).check(t, 200, `"position":6`)
}

func TestPages_EndBySize(t *testing.T) {
	store := newFakeStore()
	for range 6 {
		store.add(event.Event{Stream: "a", Type: "T", Data: []byte(`"` + strings.Repeat("x", 1<<20-2) + `"`)})
	}
	ts := serve(t, store)
	seen := 0
	for url := "/v1/events?limit=100"; url != ""; {
		a := ts.get(url)
		p := a.page(t)
		if len(a.body) > pageBytes+1<<20 || len(p.Events) == 0 {
			t.Fatalf("a page has %d events and %d bytes", len(p.Events), len(a.body))
		}
		seen += len(p.Events)
		url = p.Next
	}
	if seen != 7 {
		t.Errorf("saw %d events", seen)
	}
	lines := ts.get("/v1/events", "Accept: application/x-ndjson")
	if n := strings.Count(lines.body, "\n"); n != 7 {
		t.Errorf("%d lines", n)
	}
}

func TestRead_Filters(t *testing.T) {
	store := filled(60)
	ts := serve(t, store)
	for query, matches := range map[string]func(e *event.Event) bool{
		"correlation_id=c1": func(e *event.Event) bool { return e.CorrelationID == "c1" },
		"causation_id=c2":   func(e *event.Event) bool { return e.CausationID == "c2" },
		"stream_prefix=a-1": func(e *event.Event) bool { return strings.HasPrefix(e.Stream, "a-1") },
		"category=a":        func(e *event.Event) bool { return strings.HasPrefix(e.Stream, "a-") },
		"category=$log":     func(e *event.Event) bool { return e.Stream == "$log" },
		"from_time=2023-11-14T22:13:30Z&to_time=2023-11-14T23:13:40%2B01:00": func(e *event.Event) bool { return e.Position >= 10 && e.Position < 20 },
		"tag=mod:1&type=T0&category=a": func(e *event.Event) bool {
			return slices.Contains(e.Tags, "mod:1") && e.Type == "T0" && strings.HasPrefix(e.Stream, "a-")
		},
	} {
		want := []uint64{}
		for _, e := range store.events {
			if matches(&e) {
				want = append(want, e.Position)
			}
		}
		if got := ts.get("/v1/events?" + query).page(t).positions(); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", query, got, want)
		}
	}
}

// Wherever the windows of the steps and the ends of chunks fall, a span gives
// each event that matches once.
func TestSpan_StepsGiveEachEventOnce(t *testing.T) {
	store := filled(40)
	for _, filter := range []event.Filter{{}, {Category: "b"}, {Query: event.Query{Items: []event.QueryItem{{Types: []string{"T1"}}}}}} {
		var want []uint64
		for i := range store.events {
			if e := &store.events[i]; e.Position > 3 && e.Position <= 38 && filter.Matches(e) {
				want = append(want, e.Position)
			}
		}
		for window := uint64(1); window < 45; window++ {
			for _, backward := range []bool{false, true} {
				sp := span{filter: filter, after: 3, at: 38, window: window, backward: backward}
				var got []uint64
				for calls, done := 0, false; !done; {
					var err error
					done, err = sp.step(store, func(e *event.Event) verdict {
						if calls++; calls%5 == 0 {
							return declined
						}
						got = append(got, e.Position)
						if calls%3 == 0 {
							return takenEnd
						}
						return taken
					})
					if err != nil || len(got) > len(want) {
						t.Fatalf("got %v (%v)", got, err)
					}
				}
				if backward {
					slices.Reverse(got)
				}
				if !slices.Equal(got, want) {
					t.Fatalf("window %d, backward %v: got %v, want %v", window, backward, got, want)
				}
			}
		}
	}
	if store.views != 0 {
		t.Errorf("%d views are open", store.views)
	}
}

// Who leaves out events by hand is given no head: it would not be one.
func TestPages_NoHeadBehindAGap(t *testing.T) {
	ts := serve(t, filled(10))
	if p := ts.get("/v1/events?order=desc&before=5").page(t); p.Head != nil || len(p.Events) != 4 || p.Next != "" {
		t.Errorf("got %+v", p)
	}
	if p := ts.get("/v1/events?order=desc").page(t); p.Head == nil || *p.Head != 11 {
		t.Errorf("got %+v", p)
	}
}

func TestRead_Lines(t *testing.T) {
	ts := serve(t, filled(60))
	for path, want := range map[string]int{"/v1/events": 61, "/v1/events?limit=20": 20, "/v1/events?limit=20000": 61, "/v1/streams/b/events": 6, "/v1/streams/b/events?limit=2&order=desc": 2} {
		a := ts.get(path, "Accept: application/x-ndjson")
		a.check(t, 200)
		a.checkHeader(t, "Content-Type", "application/x-ndjson", "Cairn-Position", "61")
		lines := strings.Split(strings.TrimSuffix(a.body, "\n"), "\n")
		if len(lines) != want {
			t.Errorf("%s: %d lines, want %d", path, len(lines), want)
		}
		for _, line := range lines {
			if _, err := event.DecodeEvent([]byte(line)); err != nil {
				t.Fatalf("%s: %v", path, err)
			}
		}
	}
	a := ts.post("/v1/query", `{"query":{"items":[{"types":["T1"]}]}}`, "Accept: application/x-ndjson")
	if n := strings.Count(a.body, "\n"); a.status != 200 || n != 20 {
		t.Errorf("status %d, %d lines", a.status, n)
	}
	ts.get("/v1/streams/none/events", "Accept: application/x-ndjson").check(t, 404)
}

func TestRead_One(t *testing.T) {
	ts := serve(t, filled(60))
	ts.get("/v1/events/11").check(t, 200, `{"position":11,"stream":"b","version":1`)
	ts.get("/v1/streams/b/events/2").check(t, 200, `{"position":21,"stream":"b","version":2`)
	ts.get("/v1/streams/$log/events/1").check(t, 200, `{"position":1,"stream":"$log"`)
	a := ts.do("HEAD", "/v1/streams/b", "")
	a.check(t, 200)
	a.checkHeader(t, "ETag", `"6"`, "Cairn-Position", "61", "Cairn-Log", testLog, "Cairn-Node", "node-1", "Cairn-Leader", "")
}

func TestRead_Streams(t *testing.T) {
	store := filled(60)
	store.add(event.Event{Stream: "a-1/x \"é\"", Type: "T"})
	ts := serve(t, store)
	var got []string
	for url := "/v1/streams?prefix=a&limit=2"; url != ""; {
		p := ts.get(url).page(t)
		for _, s := range p.Streams {
			got = append(got, s.Stream)
		}
		url = p.Next
		store.add(event.Event{Stream: "a-00", Type: "T"})
	}
	if want := []string{"a-0", "a-1", "a-1/x \"é\"", "a-2", "a-3", "a-4"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	ts.get("/v1/streams?limit=1").check(t, 200, `{"streams":[{"stream":"$log","version":1}],"next":"/v1/streams?`)
	ts.get("/v1/streams?prefix=none").check(t, 200, `{"streams":[]}`)
}

func TestRead_Consistency(t *testing.T) {
	store := filled(10)
	ts := serve(t, store)
	store.set(func() { store.indexed, store.notYet = errFakeNoLeader, errors.New("starting") })
	ts.get("/v1/events").check(t, 503, "urn:cairn:error:no-leader")
	// A local read is not answered from before the start either.
	ts.get("/v1/events?consistency=local&timeout=20ms").check(t, 503, "urn:cairn:error:timeout")
	ts.get("/readyz").check(t, 503, "starting")
	store.set(func() { store.notYet = nil })
	ts.get("/v1/events?consistency=local").check(t, 200)
	store.set(func() { store.notYet = errors.New("no leader any more") })
	ts.get("/v1/events?consistency=local").check(t, 200)
	// What was as of a position stays so.
	ts.get("/v1/events?at_position=3").check(t, 200, `"head":3`)
	ts.get("/v1/events?at_position=3@"+testLog).check(t, 200, `"head":3`)

	store.set(func() { store.indexed = nil })
	store.setLimit(5)
	time.AfterFunc(20*time.Millisecond, func() { store.setLimit(0) })
	ts.get("/v1/events/8?min_position=8").check(t, 200)
	a := ts.get("/v1/events?min_position=999&timeout=10ms")
	a.check(t, 503, "urn:cairn:error:timeout")
	a.checkHeader(t, "Retry-After", "1")
}

func TestRead_DamageIsNotServed(t *testing.T) {
	store := filled(10)
	ts := serve(t, store)
	store.set(func() { store.readErr = damagedError{} })
	for _, path := range []string{"/v1/events", "/v1/events/2", "/v1/streams/b/events", "/v1/streams", "/v1/streams/b/events/1"} {
		ts.get(path).check(t, 500, "urn:cairn:error:corrupt", `"offset":4711`)
	}
	store.set(func() { store.readErr = errors.New("secret path") })
	if a := ts.get("/v1/events"); a.status != 500 || strings.Contains(a.body, "secret") {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestCluster_Routes(t *testing.T) {
	store := newFakeStore()
	ts := serve(t, store, func(o *Options) {
		o.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("measured 1\n")) })
	})
	ts.get("/v1/cluster").check(t, 200, `"leader":"node-9"`, `"members":[{"id":"node-9","http":"http://leader:7070","role":"leader","alive":true,"applied":1,"lag":0,"version":"test"}]`)
	ts.post("/v1/cluster/transfer", ``).check(t, 204)
	ts.post("/v1/cluster/transfer", `{"to":"node-2"}`).check(t, 204)
	a := ts.do("DELETE", "/v1/cluster/members/node-2", "")
	a.check(t, 204)
	a.checkHeader(t, "Cairn-Leader", "http://leader:7070")
	if !slices.Equal(store.moved, []string{"", "node-2"}) || !slices.Equal(store.removed, []string{"node-2"}) {
		t.Errorf("moved %q, removed %q", store.moved, store.removed)
	}
	ts.get("/healthz").check(t, 200, `"ok"`)
	ts.get("/readyz").check(t, 200, `"ready"`)
	ts.do("HEAD", "/readyz", "").check(t, 200)
	ts.get("/metrics").check(t, 200, "measured 1")
	close(ts.stopping)
	ts.stop.Do(func() {})
	ts.get("/readyz").check(t, 503)
}
