package httpapi

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"cairn/event"
)

// typed is a server with types that tests can look into.
func typed(t *testing.T, store *fakeStore) (*testServer, *fakeTypes) {
	types := newFakeTypes(store)
	return serve(t, store, func(o *Options) { o.Types = types }), types
}

const registration = `{"schema":{"type":"object"}}`

func TestRegisterSchema(t *testing.T) {
	ts, types := typed(t, filled(3))
	path := "/v1/types/Order%2FPlaced/schemas/1"
	a := ts.do("PUT", path, registration, isJSON)
	a.check(t, 201, `{"type":"Order/Placed","number":1,"created":true}`)
	if a.header.Get("Location") != path || a.header.Get("Cairn-Position") == "" || a.header.Get("Cairn-Leader") == "" {
		t.Errorf("header %v", a.header)
	}
	ts.do("PUT", path, registration, isJSON).check(t, 200, `{"type":"Order/Placed","number":1,"created":false}`)
	ts.get(path).check(t, 200, registration)
	ts.do("PUT", "/v1/types/A/schemas/1", `{"renamed":1}`, isJSON).check(t, 201)
	ts.do("PUT", "/v1/types/Pending/schemas/1", `{"pending":1}`, isJSON).check(t, 202, `{"type":"Pending","number":1,"created":true,"pending":true}`)
	ts.get("/v1/types").check(t, 200,
		`{"types":[{"type":"A","newest":1,"schemas":[1],"renamed":"NewA"},{"type":"Order/Placed","newest":1,"schemas":[1]},{"type":"Pending"`)
	for _, c := range []struct {
		name, method, path, body string
		header                   string
		status                   int
		want                     []string
	}{
		{"another of that number", "PUT", path, `{"schema":{}}`, isJSON, 409, []string{"schema-conflict", `"newest":2`}},
		{"a bad one", "PUT", path, `sum`, isJSON, 422, []string{"bad-definition", `"path":"when.T"`, `"line":2`}},
		{"unknown number", "GET", "/v1/types/A/schemas/2", "", "", 404, []string{`there is no schema 2 of type \"A\"`}},
		{"number 0", "GET", "/v1/types/A/schemas/0", "", "", 400, []string{"number: must be a whole number, 1 or more"}},
		{"large number", "PUT", "/v1/types/A/schemas/4294967296", registration, isJSON, 400, []string{"number: must be at most"}},
		{"no such type", "GET", "/v1/types/%00/schemas/1", "", "", 400, []string{"type: must not contain control characters"}},
		{"long type", "GET", "/v1/types/" + strings.Repeat("x", 257) + "/schemas/1", "", "", 413, []string{"type: 257 is over the limit of 256"}},
		{"another content type", "PUT", path, registration, "Content-Type: text/plain", 415, nil},
		{"long body", "PUT", path, strings.Repeat(" ", maxRegistration+1), isJSON, 413, nil},
		{"parameter", "PUT", path + "?force=true", registration, isJSON, 400, []string{"is not a parameter"}},
		{"method", "DELETE", path, "", "", 405, []string{"PUT, GET"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var headers []string
			if c.header != "" {
				headers = append(headers, c.header)
			}
			ts.do(c.method, c.path, c.body, headers...).check(t, c.status, c.want...)
		})
	}
	ts.store.set(func() { types.fault = errors.New("who knows") })
	ts.do("PUT", path, registration, isJSON).check(t, 504, "outcome-unknown")
	ts.store.set(func() { types.fault = errFakeNoLeader })
	ts.do("PUT", path, registration, isJSON).check(t, 503, "no-leader")
}

func TestListTypes_None(t *testing.T) {
	ts, _ := typed(t, filled(3))
	ts.get("/v1/types").check(t, 200, `{"types":[]}`)
}

// old is a log with events in old forms at positions 2 to 6: one to rename, one
// that can't be upcast, one of another type, one that is new, and a picture.
func old(t *testing.T) (*testServer, *fakeTypes) {
	store := newFakeStore()
	store.add(event.Event{Stream: "s", Type: "OldName", ID: "1", Schema: 1, Data: []byte(`1`)},
		event.Event{Stream: "s", Type: "OldOne", ID: "2", Data: []byte(`"bad"`)},
		event.Event{Stream: "s", Type: "T", ID: "3", Schema: 1, Data: []byte(`3`)},
		event.Event{Stream: "s", Type: "OldOne", ID: "4", Schema: 2, Data: []byte(`4`)})
	ts, types := typed(t, store)
	types.upcasts = fakeUpcasts{}
	return ts, types
}

// line returns the next line.
func (f *tail) line() string {
	f.t.Helper()
	if !f.lines.Scan() {
		f.t.Fatalf("the follower ended: %v", f.lines.Err())
	}
	return f.lines.Text()
}

// readOld reads the events of old in every way.
func readOld(ts *testServer, raw string) map[string]string {
	got := map[string]string{}
	for name, path := range map[string]string{"page": "/v1/events?after=1", "stream": "/v1/streams/s/events?from=1"} {
		got[name] = ts.get(path + "&raw=" + raw).body
		got[name+" lines"] = ts.get(path+"&raw="+raw, "Accept: application/x-ndjson").body
	}
	got["query"] = ts.post("/v1/query?raw="+raw, `{"query":{}}`).body
	for i := 2; i <= 5; i++ {
		got["positions"] += ts.get(fmt.Sprintf("/v1/events/%d?raw=%s", i, raw)).body
		got["versions"] += ts.get(fmt.Sprintf("/v1/streams/s/events/%d?raw=%s", i-1, raw)).body
	}
	return got
}

func TestUpcastOfReads(t *testing.T) {
	ts, types := old(t)
	newest := []string{`"type":"NewName","schema":2,"data":{"was":1,"more":""}`, `"type":"OldOne","data":"bad","upcast_error":"it is \"bad\""`,
		`"type":"T","schema":1,"data":3}`, `"type":"OldOne","schema":2,"data":4}`}
	asStored := []string{`"type":"OldName","schema":1,"data":1}`, `"type":"OldOne","data":"bad"}`, newest[2], newest[3]}
	expect := func(raw string, want []string) {
		t.Helper()
		for name, got := range readOld(ts, raw) {
			for _, w := range want {
				if !strings.Contains(got, w) {
					t.Errorf("raw=%s, %s: %s lacks %s", raw, name, got, w)
				}
			}
		}
	}
	expect("false", newest)
	expect("true", asStored)
	ts.store.set(func() { types.upcasts = nil })
	expect("false", asStored)
	ts.get("/v1/events?raw=yes").check(t, 400, "raw: must be false or true")
	ts.get("/v1/streams/s/events?limit=1&raw=true").check(t, 200, "raw=true") // in next
}

func TestUpcastOfFollowers(t *testing.T) {
	ts, _ := old(t)
	newest := ts.follow(ts.h1, "/v1/events?after=1&follow=true")
	stored := ts.follow(ts.h1, "/v1/events?after=1&follow=true&raw=true")
	events := ts.follow(ts.h1, "/v1/streams/s/events", asEventStream)
	followers := []struct {
		name          string
		next          func() string
		history, live []string
	}{
		{"lines", newest.line, []string{`"NewName"`, `"upcast_error"`, `"T"`, `"data":4`, "caught_up"}, []string{`"was":5`, `"data":6`}},
		{"raw", stored.line, []string{`"OldName"`, `"data":"bad"}`, `"T"`, `"data":4`, "caught_up"}, []string{`"data":5`, `"data":6`}},
		{"events", events.message, []string{`"NewName"`, `"upcast_error"`, `"T"`, `"data":4`, "caught_up"}, []string{`"was":5`, `"data":6`}},
	}
	expect := func(name string, next func() string, wanted []string) {
		t.Helper()
		for _, want := range wanted {
			if got := next(); !strings.Contains(got, want) {
				t.Errorf("%s: got %s, want %s", name, got, want)
			}
		}
	}
	for _, f := range followers {
		expect(f.name, f.next, f.history)
	}
	ts.store.add(event.Event{Stream: "s", Type: "OldName", ID: "5", Schema: 1, Data: []byte(`5`)},
		event.Event{Stream: "s", Type: "OldName", ID: "6", Schema: 2, Data: []byte(`6`)})
	for _, f := range followers {
		expect(f.name, f.next, f.live)
	}
}

// A follower that is live sees a schema that is registered meanwhile.
func TestUpcastOfFollowers_Registered(t *testing.T) {
	ts, types := old(t)
	ts.store.set(func() { types.upcasts = nil })
	f := ts.follow(ts.h1, "/v1/events?after=4&follow=true")
	for _, want := range []string{`"data":4`, "caught_up"} {
		if got := f.line(); !strings.Contains(got, want) {
			t.Fatalf("got %s, want %s", got, want)
		}
	}
	for _, want := range []string{`"data":5`, `"was":6`} {
		ts.store.add(event.Event{Stream: "s", Type: "OldName", ID: want, Schema: 1, Data: []byte(want[len(want)-1:])})
		if got := f.line(); !strings.Contains(got, want) {
			t.Errorf("got %s, want %s", got, want)
		}
		ts.store.set(func() { types.upcasts = fakeUpcasts{} })
	}
}

func TestUpcastOfCloudEvents(t *testing.T) {
	store := newFakeStore()
	ts, types := typed(t, store)
	types.upcasts = fakeUpcasts{}
	ts.do("POST", "/v1/streams/s/events", strings.ReplaceAll(ce("1", `,"dataschema":"urn:v1","subject":"x"`), `"type":"OrderPlaced"`, `"type":"OldName"`), isCloudEvent).check(t, 201)
	store.add(event.Event{Stream: "s", Type: "OldOne", ID: "2", Data: []byte(`"bad"`)})
	one := ts.get("/v1/events/2", asksOne)
	one.check(t, 200, `"type":"NewName"`, `"subject":"x"`, `"data":{"was":null,"more":""}`)
	if strings.Contains(one.body, "dataschema") {
		t.Errorf("the schema of the stored data is told of other data: %s", one.body)
	}
	ts.get("/v1/events/2?raw=true", asksOne).check(t, 200, `"type":"OldName"`, `"dataschema":"urn:v1"`)
	ts.get("/v1/events?after=1", asksBatch).check(t, 200, `"type":"NewName"`, `"cairnupcasterror":"it is \"bad\""`, `"data":"bad"`)
	// What was read so may come in elsewhere.
	ts.do("POST", "/v1/streams/s/events", ce("3", `,"cairnupcasterror":"gone"`), isCloudEvent).check(t, 201)
	if got := ts.get("/v1/events/4", asksOne).body; strings.Contains(got, "gone") {
		t.Errorf("an error of another log is kept: %s", got)
	}
}

// An upcast may make an event much larger: there must be room for it.
func TestUpcast_Grows(t *testing.T) {
	store := newFakeStore()
	for i := range 40 {
		store.add(event.Event{Stream: "s", Type: "OldOne", ID: fmt.Sprint(i), Data: []byte(`1`)})
	}
	ts, types := typed(t, store)
	types.upcasts = fakeUpcasts{grow: 150 << 10}
	for _, path := range []string{"/v1/events?after=1", "/v1/streams/s/events"} {
		page := ts.get(path)
		if page.check(t, 200, `"next":`); len(page.body) < pageBytes/2 || len(page.body) > pageBytes+1<<20 {
			t.Errorf("a page has %d bytes", len(page.body))
		}
		lines := ts.get(path, "Accept: application/x-ndjson")
		if n := strings.Count(lines.body, `"was":1`); lines.status != 200 || n != 40 {
			t.Errorf("%d events in lines", n)
		}
	}
	f := ts.follow(ts.h1, "/v1/events?after=1&follow=true")
	for i := range 40 {
		if got := f.line(); !strings.Contains(got, `"was":1`) {
			t.Fatalf("line %d: %.100s", i, got)
		}
	}
	if got := f.line(); !strings.Contains(got, "caught_up") {
		t.Fatalf("got %.100s", got)
	}
	var live []event.Event
	for i := range 40 {
		live = append(live, event.Event{Stream: "s", Type: "OldOne", ID: fmt.Sprint("live", i), Data: fmt.Append(nil, i)})
	}
	store.add(live...)
	for i := range 40 {
		if got, want := f.line(), fmt.Sprintf(`"was":%d,`, i); !strings.Contains(got, want) {
			t.Fatalf("live line %d: %.100s", i, got)
		}
	}
}

// stuckUpcasts do not end with events of type OldStuck until they are let go.
type stuckUpcasts struct {
	fakeUpcasts
	begun chan struct{}
	letGo chan struct{}
}

func (u stuckUpcasts) Upcast(e *event.Event, to uint32) error {
	if e.Type == "OldStuck" {
		u.begun <- struct{}{}
		<-u.letGo
	}
	return u.fakeUpcasts.Upcast(e, to)
}

// A follower whose events take long to upcast stops no other.
func TestUpcastOfFollowers_SlowOneStopsNoOther(t *testing.T) {
	ts, types := typed(t, filled(1))
	upcasts := stuckUpcasts{begun: make(chan struct{}), letGo: make(chan struct{})}
	types.upcasts = upcasts
	stuck := ts.follow(ts.h1, "/v1/streams/stuck/events?follow=true")
	other := ts.follow(ts.h1, "/v1/streams/other/events?follow=true")
	for _, f := range []*tail{stuck, other} {
		if got := f.line(); !strings.Contains(got, "caught_up") {
			t.Fatal(got)
		}
	}
	ts.store.add(event.Event{Stream: "stuck", Type: "OldStuck", ID: "1", Data: []byte(`1`)})
	<-upcasts.begun
	for i := range 3 {
		ts.store.add(event.Event{Stream: "other", Type: "T", ID: fmt.Sprint(i), Data: fmt.Append(nil, i)})
		if got, want := other.line(), fmt.Sprintf(`"data":%d`, i); !strings.Contains(got, want) {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	close(upcasts.letGo)
	if got := stuck.line(); !strings.Contains(got, `"was":1`) {
		t.Error(got)
	}
}

// checkTypes tries the routes of types.
func checkTypes(check func(method, path, target, body string, headers ...string)) {
	path, target := "/v1/types/{type}/schemas/{number}", "/v1/types/T/schemas/1"
	check("PUT", path, target, registration, isJSON)
	check("PUT", path, target, registration, isJSON)
	check("PUT", path, target, `{"schema":{},"upcast":"data","renamed":"U","examples":[{"old":1,"new":null}]}`, isJSON)
	check("PUT", path, target, "sum", isJSON)
	check("GET", path, target, "")
	check("GET", path, "/v1/types/T/schemas/9", "")
	check("GET", "/v1/types", "/v1/types", "")
}
