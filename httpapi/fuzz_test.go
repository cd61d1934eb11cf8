package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"cairn/event"
)

// strict reports whether b is one JSON value by the rules of the contract:
// the decoder of another author, which is told the same.
func strict(b []byte) bool {
	v := jsontext.Value(bytes.Clone(b))
	return v.IsValid() && event.CheckDepth(b) == nil
}

// ofForm reports whether err is one that a client gets a 4xx for.
func ofForm(err error) bool {
	var invalid *event.InvalidError
	var large *event.TooLargeError
	return errors.As(err, &invalid) || errors.As(err, &large)
}

// What is accepted is strict JSON, though the scanner only looks for ends; and
// nothing panics.
func FuzzDecodeEvents(f *testing.F) {
	for _, seed := range []string{`{"type":"T"}`, `[{"type":"T","data":[1,2,{"a":"]}\"\\"}]},{"type":"U"}]`, "{\"type\":\"T\"}\n{\"type\":\"U\"}", `[]`, `[{},]`, `[1`, `[{"type":"T"}]]`, `["\\"`, `[{"type":"\"}`} {
		f.Add([]byte(seed), false)
		f.Add([]byte(seed), true)
	}
	f.Fuzz(func(t *testing.T, body []byte, lines bool) {
		events, err := decodeEvents(body, lines)
		if err != nil {
			if !ofForm(err) {
				t.Fatalf("%v is not an error of form", err)
			}
			return
		}
		if !lines {
			if !strict(body) {
				t.Fatalf("accepted what is not strict JSON: %q", body)
			}
			return
		}
		n := 0
		for _, line := range bytes.Split(body, []byte("\n")) {
			if line = bytes.Trim(line, jsonSpace); len(line) > 0 {
				n++
				if !strict(line) {
					t.Fatalf("accepted a line that is not strict JSON: %q", line)
				}
			}
		}
		if n != len(events) {
			t.Fatalf("%d lines gave %d events", n, len(events))
		}
	})
}

func FuzzDecodeAppend(f *testing.F) {
	for _, seed := range []string{
		one("a"), `{"events":[{"stream":"a","type":"T","data":{"x":1}}],"conditions":[{"stream":"a","version":7},{"stream":"b","exists":false},{"query":{"items":[{"types":["T"],"tags":["x:1"]}]},"after":123}]}`,
		`{}`, `{"events":[]}`, `{"events":[],"events":[]}`, `{"a`, `{"events" : [ ] , "conditions":[]} `, `{"\u0065vents":[]}`, `{"events":{}}`, `{"events":[{"stream":"a","type":"T"}],}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		a, err := decodeAppend(body)
		if err != nil {
			if !ofForm(err) {
				t.Fatalf("%v is not an error of form", err)
			}
			return
		}
		if !strict(body) {
			t.Fatalf("accepted what is not strict JSON: %q", body)
		}
		var form struct {
			Events     []json.RawMessage `json:"events"`
			Conditions []json.RawMessage `json:"conditions"`
		}
		if err := json.Unmarshal(body, &form); err != nil || len(form.Events) != len(a.Events) || len(form.Conditions) != len(a.Conditions) {
			t.Fatalf("%d events and %d conditions of %q (%v)", len(a.Events), len(a.Conditions), body, err)
		}
		completeIDs(&a, "")
		if err := a.Check(); err != nil && !ofForm(err) {
			t.Fatal(err)
		}
	})
}

// A question, whatever it holds, gives a query or a problem.
func FuzzDecodeQuestion(f *testing.F) {
	f.Add([]byte(`{"query":{"items":[{"types":["T"],"tags":["x:1"]}]},"after":0,"limit":100}`))
	f.Add([]byte(`{"query":{"items":[]}}`))
	f.Add([]byte(`{"query":{"items":[{"types":[`))
	f.Fuzz(func(t *testing.T, body []byte) {
		q, err := decodeQuestion(body)
		var p *problem
		switch {
		case err != nil && !errors.As(err, &p):
			t.Fatalf("%v is no problem", err)
		case err == nil && !strict(body):
			t.Fatalf("accepted what is not strict JSON: %q", body)
		case err == nil && (q.query.Check() != nil || len(q.query.Items) == 0):
			t.Fatalf("accepted %+v", q)
		}
	})
}

// Any query string and headers of any route give an answer that is not 500, and
// a GET writes nothing.
func FuzzRequest(f *testing.F) {
	store := filled(20)
	s, err := New(Options{NodeID: "n", Appender: store, Reads: store, Waiter: store, Cluster: store, Files: store,
		Projections: newFakeProjections(store), Types: newFakeTypes(store), Classify: classifyFake, Logger: discard})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(s.hub.close)
	for _, seed := range []string{"limit=1", "after=1@x&order=desc&before=9", "type=a&type=b&tag=c", "from_time=2024-01-01T00:00:00Z", "%", "at_position=3", "consistency=local&timeout=1ms&min_position=99", "from=3&order=desc"} {
		f.Add(uint8(0), "a-1", seed, "application/x-ndjson", `"7"`, "k")
		f.Add(uint8(2), "a%2F1", seed, "text/event-stream;q=0", "*", "")
		f.Add(uint8(8), "a-1", seed+"&at_version=1", "", "", "")
		f.Add(uint8(11), "a", seed+"&prefix=%ff", "", "", "")
	}
	f.Fuzz(func(t *testing.T, which uint8, name, query, accept, match, key string) {
		rt := routes[int(which)%len(routes)]
		path := strings.NewReplacer("{stream}", url.PathEscape(name), "{position}", url.PathEscape(name), "{version}", "1", "{id}", url.PathEscape(name), "{name}", url.PathEscape(name),
			"{key}", url.PathEscape(name), "{type}", url.PathEscape(name), "{number}", "1").Replace(rt.path)
		if strings.Contains(query, "timeout") && !strings.Contains(query, "timeout=1ms") || strings.Contains(query, "position") && !strings.Contains(query, "timeout=") {
			query += "&timeout=1ms" // twice is fine too: it is refused
		}
		for _, m := range rt.methods {
			r := httptest.NewRequest(m.name, "http://localhost/", strings.NewReader(`{"type":"T"}`))
			r.URL = &url.URL{Path: path, RawPath: path, RawQuery: query}
			if decoded, err := url.PathUnescape(path); err == nil {
				r.URL.Path = decoded
			}
			r.Header = http.Header{"Accept": {accept}, "If-Match": {match}, "Idempotency-Key": {key}, "Last-Event-Id": {query}, "Content-Type": {"application/json"}}
			if x := (&exchange{s: s, r: r}); x.accepted(asPage, asLines, asSSE, asBatch) == asSSE || strings.Contains(query, "follow") {
				return // would stay
			}
			before := store.count()
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			if w.Code == http.StatusInternalServerError {
				t.Fatalf("%s %s?%s: %s", m.name, path, query, w.Body)
			}
			if w.Code >= 400 {
				var doc struct{ Type string }
				if err := json.Unmarshal(w.Body.Bytes(), &doc); m.name != "HEAD" && (err != nil || !strings.HasPrefix(doc.Type, "urn:cairn:error:")) {
					t.Fatalf("%d without a problem: %q (%v)", w.Code, w.Body, err)
				}
			}
			if (m.name != "POST" && m.name != "PUT" || w.Code >= 400) && store.count() != before {
				t.Fatalf("%s %s wrote", m.name, path)
			}
		}
	})
}

// valueEnd finds the end of every valid value, wherever it stands.
func FuzzValueEnd(f *testing.F) {
	for _, seed := range []string{`{"a":["\"",{"b":1}]}`, `"\\"`, `-1.5e3`, `true`, `[[],{}]`, `"é"`, `""`} {
		f.Add([]byte(seed), []byte(`,1`))
		f.Add([]byte(seed), []byte(` ]`))
	}
	f.Fuzz(func(t *testing.T, value, behind []byte) {
		if !jsontext.Value(bytes.Clone(value)).IsValid() || len(behind) == 0 || !strings.ContainsRune(",]} \n", rune(behind[0])) {
			return
		}
		value = bytes.Trim(value, jsonSpace)
		if got := valueEnd(append(bytes.Clone(value), behind...), 0); got != len(value) {
			t.Fatalf("%q ends at %d, not %d", value, got, len(value))
		}
	})
}
