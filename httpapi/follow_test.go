package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cairn/event"
)

// tail is an open follower.
type tail struct {
	t      testing.TB
	lines  *bufio.Scanner
	header http.Header
	close  func()
}

func (ts *testServer) follow(client *http.Client, path string, headers ...string) *tail {
	ts.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, "GET", ts.url+path, nil)
	if err != nil {
		ts.t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := client.Do(req)
	if err != nil {
		ts.t.Fatal(err)
	}
	if resp.StatusCode != 200 {
		ts.t.Fatalf("status %d", resp.StatusCode)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 4<<20)
	var once sync.Once
	f := &tail{t: ts.t, lines: lines, header: resp.Header, close: func() { once.Do(func() { cancel(); resp.Body.Close() }) }}
	ts.t.Cleanup(f.close)
	return f
}

const asEventStream = "Accept: text/event-stream"

// message returns the next server-sent event as "name|id|data".
func (f *tail) message() string {
	f.t.Helper()
	var name, id, data string
	for f.lines.Scan() {
		field, value, _ := strings.Cut(f.lines.Text(), ": ")
		switch field {
		case "event":
			name = value
		case "id":
			id = value
		case "data":
			data = value
		case "":
			return name + "|" + id + "|" + data
		default:
			f.t.Fatalf("a line that is none: %q", f.lines.Text())
		}
	}
	f.t.Fatalf("the follower ended: %v", f.lines.Err())
	return ""
}

// positions returns the positions of events until caught_up, and that position.
func (f *tail) history() (positions []uint64, upTo uint64) {
	f.t.Helper()
	for {
		m := f.message()
		name, rest, _ := strings.Cut(m, "|")
		id, data, _ := strings.Cut(rest, "|")
		if data == "" {
			continue // a sign of life
		}
		var e struct {
			Position uint64 `json:"position"`
		}
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			f.t.Fatalf("%v: %s", err, m)
		}
		if want := fmt.Sprintf("%d@%s", e.Position, testLog); id != want {
			f.t.Fatalf("id is %q, not %q", id, want)
		}
		if name == "caught_up" {
			return positions, e.Position
		}
		positions = append(positions, e.Position)
	}
}

func upTo(from, to uint64) []uint64 {
	var list []uint64
	for p := from; p <= to; p++ {
		list = append(list, p)
	}
	return list
}

func TestFollow_HistoryThenLive(t *testing.T) {
	store := filled(20)
	ts := serve(t, store)
	for name, client := range map[string]*http.Client{"h1": ts.h1, "h2c": ts.h2} {
		f := ts.follow(client, "/v1/events?after=3", asEventStream)
		if got := f.header.Get("Content-Type"); got != "text/event-stream" {
			t.Errorf("%s: Content-Type is %q", name, got)
		}
		last := store.Applied()
		if got, at := f.history(); !slices.Equal(got, upTo(4, last)) || at != last {
			t.Errorf("%s: history is %v, then caught up at %d", name, got, at)
		}
		for range 3 {
			at := store.add(event.Event{Stream: "live", Type: "T", Data: []byte(`{"n":1}`)})
			m := f.message()
			if !strings.HasPrefix(m, fmt.Sprintf(`|%d@%s|{"position":%d,"stream":"live"`, at, testLog, at)) || !strings.HasSuffix(m, `"data":{"n":1}}`) {
				t.Errorf("%s: %s", name, m)
			}
		}
		f.close()
	}
}

func TestFollow_Resume(t *testing.T) {
	store := filled(20)
	ts := serve(t, store)
	for _, id := range []string{"Last-Event-ID: 15", "Last-Event-ID: 15@" + testLog} {
		if got, _ := ts.follow(ts.h1, "/v1/events?after=3", asEventStream, id).history(); !slices.Equal(got, upTo(16, 21)) {
			t.Errorf("%s: got %v", id, got)
		}
		// On a stream too the id is a position.
		if got, _ := ts.follow(ts.h1, "/v1/streams/a-2/events?from=2", asEventStream, id).history(); !slices.Equal(got, []uint64{19}) {
			t.Errorf("%s: got %v", id, got)
		}
	}
	// A version that is yet to come is not forgotten over a resume.
	f := ts.follow(ts.h1, "/v1/streams/a-2/events?from=6", asEventStream, "Last-Event-ID: 15")
	if got, _ := f.history(); len(got) != 0 {
		t.Errorf("got %v", got)
	}
	store.add(event.Event{Stream: "a-2", Type: "T"}) // version 5
	at := store.add(event.Event{Stream: "a-2", Type: "T"})
	if m := f.message(); !strings.Contains(m, fmt.Sprintf(`"position":%d,`, at)) {
		t.Errorf("got %s", m)
	}
}

func TestFollow_Stream(t *testing.T) {
	store := filled(20)
	ts := serve(t, store)
	f := ts.follow(ts.h1, "/v1/streams/a-2/events?from=3", asEventStream)
	if got, at := f.history(); !slices.Equal(got, []uint64{14, 19}) || at != 21 {
		t.Errorf("got %v up to %d", got, at)
	}
	// One that does not exist yet is followed from its beginning.
	f = ts.follow(ts.h1, "/v1/streams/new/events", asEventStream)
	if got, _ := f.history(); len(got) != 0 {
		t.Errorf("got %v", got)
	}
	store.add(event.Event{Stream: "other", Type: "T"})
	ts.post("/v1/streams/new/events", `{"type":"Born"}`).check(t, 201)
	if m := f.message(); !strings.Contains(m, `"stream":"new","version":1`) {
		t.Errorf("got %s", m)
	}
}

func TestFollow_Lines(t *testing.T) {
	store := filled(3)
	ts := serve(t, store, func(o *Options) { o.Heartbeat = 20 * time.Millisecond })
	f := ts.follow(ts.h1, "/v1/events?follow=true&after=2&type=T2&type=Live")
	if got := f.header.Get("Content-Type"); got != "application/x-ndjson" {
		t.Errorf("Content-Type is %q", got)
	}
	next := func() string {
		t.Helper()
		if !f.lines.Scan() {
			t.Fatal(f.lines.Err())
		}
		return f.lines.Text()
	}
	if got := next(); !strings.HasPrefix(got, `{"position":4,`) {
		t.Errorf("got %s", got)
	}
	if got := next(); got != `{"caught_up":{"position":4}}` {
		t.Errorf("got %s", got)
	}
	if got := next(); got != `{"heartbeat":{"position":4}}` {
		t.Errorf("got %s", got)
	}
	store.add(event.Event{Stream: "a", Type: "Live"})
	for {
		if got := next(); strings.Contains(got, `"type":"Live"`) {
			break
		} else if got != `{"heartbeat":{"position":4}}` {
			t.Errorf("got %s", got)
		}
	}
}

// A sparse filter moves on by signs of life, so that it need not start over.
func TestFollow_SignsOfLifeMoveOn(t *testing.T) {
	store := filled(3)
	ts := serve(t, store, func(o *Options) { o.Heartbeat = 10 * time.Millisecond })
	f := ts.follow(ts.h1, "/v1/events?type=Rare", asEventStream)
	f.history()
	last := store.add(event.Event{Stream: "a", Type: "Often"}, event.Event{Stream: "a", Type: "Often"})
	want := fmt.Sprintf("|%d@%s|", last, testLog)
	for range 100 {
		if f.message() == want {
			return
		}
	}
	t.Errorf("no sign of life at %s", want)
}

// caught_up is about what was committed, not about what this node knows.
func TestFollow_CaughtUpWaitsForTheCluster(t *testing.T) {
	store := filled(9)
	store.set(func() { store.indexed = errFakeNoLeader })
	store.setLimit(5)
	ts := serve(t, store, func(o *Options) { o.Heartbeat = 10 * time.Millisecond })
	f := ts.follow(ts.h1, "/v1/events", asEventStream)
	for _, want := range upTo(1, 5) {
		if m := f.message(); !strings.Contains(m, fmt.Sprintf(`"position":%d,`, want)) {
			t.Fatalf("got %s, want %d", m, want)
		}
	}
	for range 3 {
		if m := f.message(); m != "|5@"+testLog+"|" {
			t.Fatalf("got %s", m)
		}
	}
	store.setLimit(0)
	store.set(func() { store.indexed = nil })
	if got, at := f.history(); !slices.Equal(got, upTo(6, 10)) || at != 10 {
		t.Errorf("got %v up to %d", got, at)
	}
	// And consistency=local is content with less.
	store.set(func() { store.indexed = errFakeNoLeader })
	if _, at := ts.follow(ts.h1, "/v1/events?consistency=local", asEventStream).history(); at != 10 {
		t.Errorf("caught up at %d", at)
	}
}

// A client that has seen more than this node waits for it.
func TestFollow_PositionNotHereYet(t *testing.T) {
	store := filled(9)
	store.setLimit(5)
	ts := serve(t, store, func(o *Options) { o.Heartbeat = 10 * time.Millisecond })
	f := ts.follow(ts.h1, "/v1/events", asEventStream, "Last-Event-ID: 8@"+testLog)
	for range 2 {
		if m := f.message(); m != "|8@"+testLog+"|" {
			t.Fatalf("got %s", m)
		}
	}
	store.setLimit(0)
	if got, at := f.history(); !slices.Equal(got, upTo(9, 10)) || at != 10 {
		t.Errorf("got %v up to %d", got, at)
	}
}

func TestFollow_LogNotBornYet(t *testing.T) {
	store := newFakeStore()
	store.clear()
	ts := serve(t, store)
	ts.get("/v1/events?follow=true&timeout=20ms").check(t, 503, "urn:cairn:error:timeout")
	time.AfterFunc(20*time.Millisecond, func() { store.add(event.Event{Stream: "$log", Type: "log-created"}) })
	f := ts.follow(ts.h1, "/v1/events?follow=true")
	if got := f.header.Get("Cairn-Log"); got != testLog {
		t.Errorf("Cairn-Log is %q", got)
	}
}

// Many followers with all kinds of filters, appends in bursts, some larger than
// the ring: each gets each matching event once, in order.
func TestFollow_EachEventOnce(t *testing.T) {
	store := filled(30)
	ts := serve(t, store)
	filters := map[string]func(e *event.Event) bool{
		"/v1/events":                   func(*event.Event) bool { return true },
		"/v1/events?type=T1":           func(e *event.Event) bool { return e.Type == "T1" },
		"/v1/events?tag=mod:3&type=T2": func(e *event.Event) bool { return e.Type == "T2" && slices.Contains(e.Tags, "mod:3") },
		"/v1/events?category=b":        func(e *event.Event) bool { return e.Stream == "b" },
		"/v1/events?correlation_id=c1": func(e *event.Event) bool { return e.CorrelationID == "c1" },
		"/v1/events?causation_id=c2":   func(e *event.Event) bool { return e.CausationID == "c2" },
		"/v1/events?stream_prefix=a-3": func(e *event.Event) bool { return strings.HasPrefix(e.Stream, "a-3") },
		"/v1/streams/a-4/events":       func(e *event.Event) bool { return e.Stream == "a-4" },
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	got := map[string][][]uint64{} // by path
	for path := range filters {
		for _, client := range []*http.Client{ts.h1, ts.h2} {
			f := ts.follow(client, path, asEventStream)
			wg.Go(func() {
				positions := f.until(`"id":"end"`)
				mu.Lock()
				got[path] = append(got[path], positions)
				mu.Unlock()
			})
		}
	}
	for i, burst := 0, 1; i < 4000; burst = burst*2%2047 + 1 {
		var events []event.Event
		for range burst {
			e := event.Event{Stream: fmt.Sprintf("a-%d", i%5), Type: fmt.Sprintf("T%d", i%3), Tags: []string{fmt.Sprintf("mod:%d", i%7)}}
			if i%10 == 9 {
				e.Stream, e.CorrelationID, e.CausationID = "b", "c1", "c2"
			}
			events = append(events, e)
			i++
		}
		store.add(events...)
		if i > 2000 {
			time.Sleep(time.Millisecond) // a chance for the hub to show some of them alone
		}
	}
	// Each filter matches one of these, and ends there.
	store.add(event.Event{ID: "end", Stream: "a-3", Type: "T1"},
		event.Event{ID: "end", Stream: "b", Type: "T2", Tags: []string{"mod:3"}, CorrelationID: "c1", CausationID: "c2"},
		event.Event{ID: "end", Stream: "a-4", Type: "T0"})
	wg.Wait()
	for path, matches := range filters {
		var want []uint64
		for i := range store.events {
			if e := &store.events[i]; matches(e) {
				want = append(want, e.Position)
				if e.ID == "end" {
					break
				}
			}
		}
		for _, positions := range got[path] {
			if !slices.Equal(positions, want) {
				t.Errorf("%s: got %d events, not the %d that match", path, len(positions), len(want))
			}
		}
	}
}

// until returns the positions of events up to the first that has mark in it.
func (f *tail) until(mark string) (positions []uint64) {
	for f.lines.Scan() {
		data, ok := strings.CutPrefix(f.lines.Text(), "data: ")
		if !ok || strings.Count(data, ":") == 1 { // caught_up
			continue
		}
		e, err := event.DecodeEvent([]byte(data))
		if err != nil {
			f.t.Errorf("%v: %s", err, data)
			return positions
		}
		if positions = append(positions, e.Position); strings.Contains(data, mark) {
			return positions
		}
	}
	f.t.Errorf("the follower ended: %v", f.lines.Err())
	return positions
}

// A burst of more than the ring holds comes whole.
func TestFollow_LargeBurst(t *testing.T) {
	store := filled(3)
	ts := serve(t, store)
	f := ts.follow(ts.h1, "/v1/events", asEventStream)
	f.history()
	for burst := range 3 {
		var events []event.Event
		for i := range 9 {
			events = append(events, event.Event{Stream: "big", Type: "T", Data: []byte(`"` + strings.Repeat(string(rune('a'+i)), 700_000) + `"`)})
		}
		store.add(events...)
		for i := range events {
			if m := f.message(); !strings.HasSuffix(m, string(events[i].Data)+"}") {
				t.Fatalf("event %d of burst %d came with %d bytes: %.200s", i, burst, len(m), m)
			}
		}
	}
}

func TestFollow_EndsWithTheServer(t *testing.T) {
	store := filled(3)
	ts := serve(t, store)
	f := ts.follow(ts.h1, "/v1/events", asEventStream)
	g := ts.follow(ts.h2, "/v1/events", asEventStream)
	f.history()
	g.history()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := ts.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	for _, f := range []*tail{f, g} {
		if f.lines.Scan() || f.lines.Err() != nil {
			t.Errorf("the follower did not end cleanly: %q %v", f.lines.Text(), f.lines.Err())
		}
	}
}

func TestFollow_DamageBreaksOff(t *testing.T) {
	store := filled(3)
	ts := serve(t, store)
	f := ts.follow(ts.h1, "/v1/events", asEventStream)
	f.history()
	store.set(func() { store.readErr = damagedError{} })
	store.add(event.Event{Stream: "a", Type: "T"})
	for f.lines.Scan() {
		t.Errorf("got %s", f.lines.Text())
	}
	if err := f.lines.Err(); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("the follower ended with %v", err)
	}
}
