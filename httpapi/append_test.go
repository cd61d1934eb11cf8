package httpapi

import (
	"context"
	"errors"
	"strings"
	"testing"

	"cairn/event"
)

// check compares an answer with its status and with what its body must hold.
func (a answer) check(t *testing.T, status int, parts ...string) {
	t.Helper()
	if a.status != status {
		t.Fatalf("status is %d, not %d: %s", a.status, status, a.body)
	}
	for _, part := range parts {
		if !strings.Contains(a.body, part) {
			t.Errorf("the answer lacks %s: %s", part, a.body)
		}
	}
}

func (a answer) checkHeader(t *testing.T, pairs ...string) {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if got := a.header.Get(pairs[i]); got != pairs[i+1] {
			t.Errorf("%s is %q, not %q", pairs[i], got, pairs[i+1])
		}
	}
}

func TestAppend_Answer(t *testing.T) {
	ts := serve(t, newFakeStore())
	a := ts.post("/v1/streams/a%2Fb/events", `[{"type":"T","data":{"n" : 1}},{"type":"T"}]`)
	a.check(t, 201)
	want := `{"first_position":2,"last_position":3,"version":2,"versions":{"a/b":2},"time":"2027-01-15T08:00:00.000000000Z","duplicate":false}`
	if a.body != want {
		t.Errorf("got  %s\nwant %s", a.body, want)
	}
	a.checkHeader(t, "ETag", `"2"`, "Location", "/v1/streams/a%2Fb/events/1", "Cairn-Position", "3", "Cairn-Log", testLog,
		"Cairn-Node", "node-1", "Cairn-Leader", "http://leader:7070", "Content-Type", "application/json")
	ts.get(a.header.Get("Location")).check(t, 200, `"stream":"a/b"`, `"version":1`, `"data":{"n":1}`)

	a = ts.post("/v1/append", `{"events":[{"stream":"a","type":"T"},{"stream":"b","type":"T"}]}`)
	a.check(t, 201, `"versions":{"a":1,"b":1}`)
	if strings.Contains(a.body, `"version":`) {
		t.Errorf("an append to two streams has no one version: %s", a.body)
	}
	a.checkHeader(t, "ETag", "", "Location", "/v1/events/4")
	ts.post("/v1/streams/c/events", `{"type":"T"}`, "If-None-Match: *").check(t, 201)
	ts.do("POST", "/v1/streams/c/events", "{\"type\":\"T\"}\n\n{\"type\":\"U\"}\r\n", "Content-Type: application/x-ndjson").check(t, 201, `"version":3`)
}

func TestAppend_RetryByKey(t *testing.T) {
	ts := serve(t, newFakeStore())
	body := `[{"type":"T","data":1},{"type":"T","id":"mine"},{"type":"T","data":3}]`
	first := ts.post("/v1/streams/a/events", body, "Idempotency-Key: k", "If-None-Match: *")
	first.check(t, 201, `"duplicate":false`)
	again := ts.post("/v1/streams/a/events", body, "Idempotency-Key: k", "If-None-Match: *")
	again.check(t, 200, strings.Replace(first.body, "false", "true", 1))
	again.checkHeader(t, "ETag", `"3"`, "Location", first.header.Get("Location"))
	got := ts.get("/v1/streams/a/events").body
	for _, id := range []string{`"id":"k/0"`, `"id":"mine"`, `"id":"k/2"`} {
		if !strings.Contains(got, id) {
			t.Errorf("%s is not among the ids: %s", id, got)
		}
	}
	reused := ts.post("/v1/streams/a/events", `{"type":"Other","data":1}`, "Idempotency-Key: k")
	reused.check(t, 409, `"type":"urn:cairn:error:id-reused"`, `"ids":[{"id":"k/0","stream":"a","position":2}]`)
	ts.post("/v1/append", `{"events":[{"stream":"b","type":"T"}]}`, "Idempotency-Key: k").check(t, 201)
	ts.post("/v1/append", `{"events":[{"stream":"b","type":"T"}]}`, "Idempotency-Key: k").check(t, 200)
}

func TestAppend_Conditions(t *testing.T) {
	store := newFakeStore()
	store.add(event.Event{Stream: "a", Type: "T", Tags: []string{"x:1"}}, event.Event{Stream: "a", Type: "T"})
	ts := serve(t, store)
	before := store.count()
	for _, c := range []struct {
		header, body string
		status       int
		parts        []string
	}{
		{header: `If-Match: "1"`, status: 412, parts: []string{`"condition":0`, `"stream":"a"`, `"expected":1`, `"actual":2`, `"status":412`}},
		{header: `If-Match: "0"`, status: 412, parts: []string{`"expected":0`, `"actual":2`}},
		{header: `If-None-Match: *`, status: 412, parts: []string{`"expected":0`, `"actual":2`}},
		{body: `{"stream":"a","version":7}`, status: 409, parts: []string{`"type":"urn:cairn:error:condition-failed"`, `"expected":7`, `"actual":2`, `"status":409`}},
		{body: `{"stream":"a","exists":false}`, status: 409, parts: []string{`"expected":0`, `"actual":2`}},
		{body: `{"stream":"b","exists":true}`, status: 409, parts: []string{`"stream":"b"`, `"actual":0`}},
		{body: `{"query":{"items":[{"types":["T"],"tags":["x:1"]}]},"after":1}`, status: 409, parts: []string{`"conflicting_position":2,"conflicting_type":"T"`}},
		{body: `{"query":{"items":[]}}`, status: 409, parts: []string{`"conflicting_position":2`}},
		{body: `{"stream":"a","version":2},{"stream":"b","exists":true}`, status: 409, parts: []string{`"condition":1`}},
	} {
		var a answer
		if c.header != "" {
			a = ts.post("/v1/streams/a/events", `{"type":"T"}`, c.header)
		} else {
			a = ts.post("/v1/append", `{"events":[{"stream":"a","type":"T"}],"conditions":[`+c.body+`]}`)
		}
		t.Run(c.header+c.body, func(t *testing.T) {
			a.check(t, c.status, c.parts...)
			a.checkHeader(t, "Content-Type", "application/problem+json", "Cairn-Position", "3", "Cairn-Leader", "http://leader:7070")
		})
	}
	if store.count() != before {
		t.Errorf("%d events were written", store.count()-before)
	}
	ts.post("/v1/streams/a/events", `{"type":"T"}`, `If-Match: "2"`).check(t, 201)
	ts.post("/v1/streams/a/events", `{"type":"T"}`, `If-Match: *`).check(t, 201)
	ts.post("/v1/append", `{"events":[{"stream":"a","type":"T"}],"conditions":[{"stream":"a","version":4},{"stream":"z","version":0},`+
		`{"query":{"items":[{"tags":["x:1"]}]},"after":2}]}`).check(t, 201)
}

// What goes wrong behind the form of a request must be said in such a way that
// a client knows whether it may repeat it.
func TestAppend_Faults(t *testing.T) {
	store := newFakeStore()
	ts := serve(t, store)
	for _, c := range []struct {
		err    error
		status int
		parts  []string
		retry  string
	}{
		{errFakeNoLeader, 503, []string{"urn:cairn:error:no-leader"}, "1"},
		{errFakeBusy, 503, []string{"urn:cairn:error:overloaded"}, "1"},
		{errFakeUnknown, 504, []string{"urn:cairn:error:outcome-unknown", `"ids":[{"id":"mine","stream":"a"}]`}, ""},
		{context.DeadlineExceeded, 504, []string{"urn:cairn:error:outcome-unknown"}, ""},
		{errors.New("never heard of"), 504, []string{"urn:cairn:error:outcome-unknown"}, ""},
		{damagedError{}, 500, []string{"urn:cairn:error:corrupt", `"file":"log/00000000000000000001.seg"`, `"offset":4711`}, ""},
	} {
		store.set(func() { store.hook = func(context.Context, *event.Append) error { return c.err } })
		a := ts.post("/v1/streams/a/events", `[{"type":"T","id":"mine"},{"type":"T"}]`)
		t.Run(c.err.Error(), func(t *testing.T) {
			a.check(t, c.status, c.parts...)
			a.checkHeader(t, "Retry-After", c.retry, "Content-Type", "application/problem+json")
		})
	}
	store.set(func() { store.hook = func(context.Context, *event.Append) error { return errFakeUnknown } })
	ts.post("/v1/streams/a/events", `{"type":"T"}`).check(t, 504, "read before you retry", `"ids":[]`)
}

func TestAppend_OnCorruptOnce(t *testing.T) {
	store := newFakeStore()
	told := make(chan error, 10)
	ts := serve(t, store, func(o *Options) { o.OnCorrupt = func(err error) { told <- err } })
	store.set(func() { store.readErr = damagedError{} })
	for range 3 {
		ts.get("/v1/events").check(t, 500, `"file":`)
	}
	if len(told) != 1 {
		t.Errorf("told %d times of the damage", len(told))
	}
}
