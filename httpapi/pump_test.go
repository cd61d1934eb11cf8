package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"cairn/event"
)

// longStore has events of all sizes, enough for many parts.
func longStore() *fakeStore {
	store := newFakeStore()
	for i := range 300 {
		e := event.Event{
			Stream: fmt.Sprintf("s-%d", i%7), Type: "T", ID: fmt.Sprint(i), Tags: []string{"quote\"d", "plain", fmt.Sprint(i % 3)},
			Data: fmt.Appendf(nil, `{"n":%d,"text":%q}`, i, strings.Repeat("x", i*i*7%20_000)),
		}
		switch {
		case i%100 == 99:
			e.Data = fmt.Appendf(nil, "%q", strings.Repeat("large ", 120_000))
		case i%5 == 0:
			e.ContentType, e.Data = "image/png", bytes.Repeat([]byte{0, 0xff, '\n', '"'}, i)
		case i%5 == 1:
			e.Meta, e.CorrelationID, e.Type = []byte(`{"actor":"me"}`), "c\n1", "Ü"
		}
		store.add(e)
	}
	return store
}

// wantLines is what a reading of events as NDJSON must give.
func wantLines(events []event.Event) string {
	var b []byte
	for i := range events {
		b = append(event.AppendJSON(b, &events[i]), '\n')
	}
	return string(b)
}

// An answer that goes out in parts is the one that would go out in one piece.
func TestPump_SameBytes(t *testing.T) {
	store := longStore()
	ts := serve(t, store)
	all := store.events
	down := slices.Clone(all)
	slices.Reverse(down)
	var typed, tagged, stream []event.Event
	for _, e := range all {
		if e.Type == "Ü" {
			typed = append(typed, e)
		}
		if slices.Contains(e.Tags, "2") {
			tagged = append(tagged, e)
		}
		if e.Stream == "s-3" {
			stream = append(stream, e)
		}
	}
	for _, test := range []struct {
		path string
		want []event.Event
	}{
		{"/v1/events", all},
		{"/v1/events?order=desc", down},
		{"/v1/events?after=20&limit=200", all[20:220]},
		{"/v1/events?limit=3", all[:3]},
		{"/v1/events?type=%C3%9C", typed},
		{"/v1/events?tag=2&limit=90", tagged[:90]},
		{"/v1/streams/s-3/events", stream},
		{"/v1/streams/s-3/events?from=20", stream[19:]},
	} {
		for name, client := range map[string]*http.Client{"HTTP/1.1": ts.h1, "HTTP/2": ts.h2} {
			req, err := http.NewRequest("GET", ts.url+test.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Accept", "application/x-ndjson")
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if want := wantLines(test.want); err != nil || resp.StatusCode != 200 || string(got) != want {
				t.Errorf("%s over %s: status %d, %d bytes, %v; want %d bytes", test.path, name, resp.StatusCode, len(got), err, len(want))
			}
		}
	}
}

// Damage that is met when part of the answer is out breaks the connection, so
// that nobody takes the part for the whole.
func TestPump_BrokenOff(t *testing.T) {
	store := newFakeStore()
	for range 24 {
		store.add(event.Event{Stream: "a", Type: "T", ID: "x", Data: fmt.Appendf(nil, "%q", strings.Repeat("x", 1_000_000))})
	}
	ts := serve(t, store)
	req, err := http.NewRequest("GET", ts.url+"/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/x-ndjson")
	resp, err := ts.h1.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body := bufio.NewReader(resp.Body)
	if _, err := body.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	store.mu.Lock()
	store.readErr = damagedError{}
	store.mu.Unlock()
	if n, err := io.Copy(io.Discard, body); err != io.ErrUnexpectedEOF {
		t.Errorf("the answer ended after %d more bytes with %v", n, err)
	}
}

// An answer that has begun goes on, in smaller parts, when memory runs out.
func TestPump_NoMemory(t *testing.T) {
	const most, free = 16 << 20, 150 << 10 // enough for the first part
	store := newFakeStore()
	for range 600 {
		store.add(event.Event{Stream: "a", Type: "T", ID: "x", Data: fmt.Appendf(nil, "%q", strings.Repeat("x", 1000))})
	}
	ts := serve(t, store, func(o *Options) { o.MaxHeldBytes = most })
	if !ts.budget.sem.TryAcquire(most - free) {
		t.Fatal("something holds memory")
	}
	defer ts.budget.sem.Release(most - free)
	got := ts.get("/v1/events", "Accept: application/x-ndjson")
	if want := wantLines(store.events); got.status != 200 || got.body != want {
		t.Errorf("status %d, %d bytes; want %d", got.status, len(got.body), len(want))
	}
}

// A client that leaves in the middle ends the reading.
func TestPump_ClientLeaves(t *testing.T) {
	store := longStore()
	ts := serve(t, store)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", ts.url+"/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/x-ndjson")
	resp, err := ts.h1.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(resp.Body, make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	cancel()
	resp.Body.Close()
	for ts.requests.Load() > 0 {
		if t.Context().Err() != nil {
			t.Fatal("the server still answers")
		}
	}
}

// brokenWriter takes the first piece of an answer and no more.
type brokenWriter struct {
	http.ResponseWriter
	pieces int
}

func (w *brokenWriter) Write(b []byte) (int, error) {
	if w.pieces++; w.pieces > 1 {
		return 0, io.ErrClosedPipe
	}
	return len(b), nil
}

// What did not go out is told by one of the next pushes, and by close.
func TestPump_SendFails(t *testing.T) {
	ts := serve(t, newFakeStore())
	w := &brokenWriter{ResponseWriter: httptest.NewRecorder()}
	p := startPump(&exchange{s: ts.Server, w: w, rc: http.NewResponseController(w)})
	var err error
	pushed := 0
	for part := ts.budget.hold(); err == nil && pushed < 10; pushed++ {
		part.b = append(part.b, "line\n"...)
		part, err = p.push(part)
	}
	if !errors.Is(err, io.ErrClosedPipe) || pushed > 1+pumpParts {
		t.Errorf("push %d returned %v", pushed, err)
	}
	if err := p.close(); err != nil && !errors.Is(err, io.ErrClosedPipe) || w.pieces != 2 {
		t.Errorf("close returned %v, after %d pieces", err, w.pieces)
	}
	p = startPump(&exchange{s: ts.Server, w: w, rc: http.NewResponseController(w)})
	part := ts.budget.hold()
	part.b = append(part.b, "line\n"...)
	if part, err = p.push(part); err != nil {
		t.Error(err)
	}
	part.release()
	if err := p.close(); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("close returned %v", err)
	}
}

// Two parts are on their way while a third is gathered; a large one goes out
// before that, and its memory is not kept.
func TestPump_Memory(t *testing.T) {
	ts := serve(t, newFakeStore())
	w := httptest.NewRecorder()
	p := startPump(&exchange{s: ts.Server, w: w, rc: http.NewResponseController(w)})
	part := ts.budget.hold()
	for i, size := range []int{100, partBytes, 3 << 20, 100, pumpBytes + 1} {
		if err := part.grow(size); err != nil {
			t.Fatal(err)
		}
		part.b = append(part.b, make([]byte, size)...)
		var err error
		if part, err = p.push(part); err != nil {
			t.Fatal(err)
		}
		if p.count >= pumpParts || p.bytes > pumpBytes || len(part.b) > 0 || cap(part.b) > pumpBytes {
			t.Errorf("after part %d: %d of %d bytes are on their way, and %d are ready", i, p.count, p.bytes, cap(part.b))
		}
	}
	part.release()
	if err := p.close(); err != nil || w.Body.Len() != 200+partBytes+3<<20+pumpBytes+1 {
		t.Errorf("%d bytes went out, %v", w.Body.Len(), err)
	}
	if !ts.budget.sem.TryAcquire(ts.opts.MaxHeldBytes) {
		t.Error("memory was not given back")
	}
}
