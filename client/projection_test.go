package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"cairn/event"
)

// fakeProjection is a node with a projection "p" of n rows and a history as
// long, whose requests it keeps.
type fakeProjection struct {
	n          int
	generation uint64
	status     []string // answers to GET /v1/projections/p, the last one again and again
	requests   []string
}

func serveProjection(t *testing.T, f *fakeProjection) *Client {
	t.Helper()
	if f.generation == 0 {
		f.generation = 5
	}
	return newClient(t, nil, serve(t, f.serve))
}

func (f *fakeProjection) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	f.requests = append(f.requests, r.Method+" "+r.URL.RequestURI()+string(body))
	w.Header().Set(headerPosition, "90")
	w.Header().Set(headerLog, "log-1")
	switch path := r.URL.EscapedPath(); {
	case path == "/v1/projections/p/rows":
		f.list(w, r, "rows", func(i int) (string, string) {
			key := fmt.Sprintf("k-%04d", i)
			return fmt.Sprintf(`{"key":%q,"state":{"n":%d},"events":%d,"position":%d}`, key, i, i, i), strconv.Quote(key)
		})
	case path == "/v1/projections/p/rows/a%2Fb/history":
		f.list(w, r, "history", func(i int) (string, string) {
			return fmt.Sprintf(`{"position":%d,"version":%d,"type":"T","stream":"s","time":"1970-01-01T00:00:01Z","state":{"n":%d}}`, i, i, i), strconv.Itoa(i)
		})
	case path == "/v1/projections/p/rows/a%2Fb":
		fmt.Fprint(w, `{"key":"a/b","state":{"n":1},"events":3,"position":7,"failed":{"position":8,"reason":"no"},"replayed":2,"final":true,"as_of":9,"generation":5}`)
	case path == "/v1/streams/s%2F1/state":
		fmt.Fprint(w, `{"stream":"s/1","state":{"n":1},"version":2,"events":2,"position":7,"replayed":2,"final":true,"as_of":9}`)
	case path == "/v1/projections":
		fmt.Fprintf(w, `{"projections":[%s],"as_of":9}`, f.status[0])
	case path != "/v1/projections/p":
		problem(w, 404, CodeNotFound, "")
	case r.Method == http.MethodGet:
		fmt.Fprint(w, f.status[0])
		f.status = f.status[min(1, len(f.status)-1):]
	case r.Method == http.MethodPut && strings.Contains(string(body), "bad"):
		problem(w, 422, CodeBadDefinition, `,"message":"no","path":"when.T","line":2,"column":7`)
	case r.Method == http.MethodPut:
		if len(f.requests) == 1 {
			w.WriteHeader(http.StatusAccepted)
		}
		fmt.Fprint(w, `{"name":"p","generation":5,"state":"building"}`)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// list answers with a page of n items.
func (f *fakeProjection) list(w http.ResponseWriter, r *http.Request, name string, item func(int) (item, next string)) {
	after, _, _ := strings.Cut(r.FormValue("after"), "@")
	at, _ := strconv.Atoi(strings.TrimPrefix(after, "k-"))
	limit, _ := strconv.Atoi(r.FormValue("limit"))
	var items []string
	next := ""
	for ; at < f.n && len(items) < limit; at++ {
		text, behind := item(at + 1)
		items, next = append(items, text), `,"next":`+behind
	}
	if at == f.n {
		next = ""
	}
	fmt.Fprintf(w, `{"%s":[%s]%s,"as_of":90,"generation":%d}`, name, strings.Join(items, ","), next, f.generation)
	f.generation += uint64(f.n) / 10_000 // of a long one it changes with each page
}

func TestProjection_Define(t *testing.T) {
	f := &fakeProjection{}
	c := serveProjection(t, f)
	for _, want := range []Defined{{5, StateBuilding, true}, {5, StateBuilding, false}} {
		if got, err := c.DefineProjection(testContext(t), "p", []byte(`{"key":"k"}`)); err != nil || got != want {
			t.Errorf("got %+v, %v", got, err)
		}
	}
	_, err := c.DefineProjection(testContext(t), "p", []byte(`{"key":"bad"}`))
	p, _ := err.(*Problem)
	if !IsBadDefinition(err) || p.Path != "when.T" || p.Line != 2 || p.Column != 7 || p.Message != "no" {
		t.Errorf("got %+v", err)
	}
	if err := c.DeleteProjection(testContext(t), "p"); err != nil {
		t.Error(err)
	}
	if err := c.DeleteProjection(testContext(t), "none"); !IsNotFound(err) {
		t.Errorf("got %v", err)
	}
	if f.requests[0] != `PUT /v1/projections/p{"key":"k"}` {
		t.Errorf("got %s", f.requests[0])
	}
}

// A definition that got no answer is sent again: that is safe. If it never gets
// one, nobody knows.
func TestProjection_DefineBroken(t *testing.T) {
	tries := 0
	c := newClient(t, nil, serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if tries++; tries < 3 {
			abort()
		}
		fmt.Fprint(w, `{"name":"p","generation":5,"state":"live"}`)
	}))
	if got, err := c.DefineProjection(testContext(t), "p", []byte(`{}`)); err != nil || got.State != StateLive || tries != 3 {
		t.Errorf("got %+v, %v after %d tries", got, err, tries)
	}
	c = newClient(t, func(cfg *Config) { cfg.RetryFor = 10 * time.Millisecond }, serve(t, func(http.ResponseWriter, *http.Request) { abort() }))
	if _, err := c.DefineProjection(testContext(t), "p", []byte(`{}`)); err == nil || !strings.Contains(err.Error(), "not known") {
		t.Errorf("got %v", err)
	}
}

func status(generation uint64, state string, members string) string {
	return fmt.Sprintf(`{"name":"p","generation":%d,"state":%q,"guarding":true,"position":3,"head":9,"progress":0.43,"rows":{"failed":1},`+
		`"failures":[{"key":"k","position":2,"reason":"no"}],"definition":{"key":"a && b"}%s}`, generation, state, members)
}

func TestProjection_Status(t *testing.T) {
	f := &fakeProjection{status: []string{status(5, StateLive, `,"since":7,"next":`+status(9, StateBuilding, ""))}}
	c := serveProjection(t, f)
	p, err := c.Projection(testContext(t), "p")
	if err != nil || p.Generation != 5 || p.Since != 7 || p.Progress != 0.43 || p.Rows.Failed != 1 || p.Failures[0].Reason != "no" ||
		string(p.Definition) != `{"key":"a && b"}` || p.Next.Generation != 9 || p.Next.Next != nil {
		t.Errorf("got %+v, %v", p, err)
	}
	if list, err := c.Projections(testContext(t)); err != nil || len(list) != 1 || list[0].Next.Generation != 9 {
		t.Errorf("got %+v, %v", list, err)
	}
	if _, err := c.Projection(testContext(t), "none"); !IsNotFound(err) {
		t.Errorf("got %v", err)
	}
}

// A generation is waited for beside the live one, and as the first one.
func TestProjection_WaitLive(t *testing.T) {
	beside := status(5, StateLive, `,"next":`+status(9, StateBuilding, ""))
	for _, first := range []string{beside, status(9, StateBuilding, "")} {
		c := serveProjection(t, &fakeProjection{status: []string{first, first, status(9, StateLive, "")}})
		var seen []string
		err := c.WaitLive(testContext(t), "p", 9, func(p *Projection) { seen = append(seen, fmt.Sprint(p.Generation, p.State)) })
		if want := []string{"9building", "9building", "9live"}; err != nil || !slices.Equal(seen, want) {
			t.Errorf("got %v, %v", seen, err)
		}
		if err := c.WaitLive(testContext(t), "p", 8, nil); err == nil || err.Error() != `projection "p" was defined anew: its generation is 9 now, not 8` {
			t.Errorf("got %v", err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	c := serveProjection(t, &fakeProjection{status: []string{beside}})
	if err := c.WaitLive(ctx, "p", 9, nil); err == nil || !strings.Contains(err.Error(), "built to 43 %") {
		t.Errorf("got %v", err)
	}
}

func TestRow(t *testing.T) {
	f := &fakeProjection{}
	c := serveProjection(t, f)
	for _, o := range []StateOptions{{}, {AtVersion: 3}, {AtPosition: 7, Local: true}, {AtTime: time.Unix(0, 5), MinPosition: 4}} {
		row, err := c.Row(testContext(t), "p", "a/b", o)
		if err != nil || row.Key != "a/b" || string(row.State) != `{"n":1}` || row.Events != 3 || row.Position != 7 || *row.Failed != (RowFailure{8, "no"}) ||
			row.Replayed != 2 || !row.Final || row.AsOf != 9 || row.Generation != 5 {
			t.Errorf("got %+v, %v", row, err)
		}
	}
	s, err := c.StreamState(testContext(t), "s/1", StateOptions{AtVersion: 2})
	if err != nil || s.Stream != "s/1" || string(s.State) != `{"n":1}` || s.Version != 2 || s.Events != 2 || s.Position != 7 || s.Replayed != 2 || !s.Final || s.AsOf != 9 {
		t.Errorf("got %+v, %v", s, err)
	}
	const row = "GET /v1/projections/p/rows/a%2Fb?"
	want := []string{
		row + "timeout=2.4s", row + "at_version=3&timeout=2.4s", row + "at_position=7&consistency=local&timeout=2.4s",
		row + "at_time=1970-01-01T00%3A00%3A00.000000005Z&min_position=4&timeout=2.4s",
		"GET /v1/streams/s%2F1/state?at_version=2&timeout=2.4s",
	}
	if !slices.Equal(f.requests, want) {
		t.Errorf("got  %q\nwant %q", f.requests, want)
	}
}

// The pages behind the first one are read as of the same position.
func TestRows(t *testing.T) {
	f := &fakeProjection{n: 1200}
	c := serveProjection(t, f)
	for _, limit := range []int{0, 1, 700, 5000} {
		n := 0
		for row, err := range c.Rows(testContext(t), "p", RowsOptions{Limit: limit}) {
			if n++; err != nil || row.Key != fmt.Sprintf("k-%04d", n) || row.AsOf != 90 || row.Generation != 5 {
				t.Fatalf("got %+v, %v", row, err)
			}
		}
		if want := min(uint64(limit-1), 1199) + 1; uint64(n) != want {
			t.Errorf("limit %d: got %d rows, want %d", limit, n, want)
		}
	}
	f.requests = nil
	for _, o := range []StateOptions{{}, {AtPosition: 7}, {AtTime: time.Unix(9, 0)}} {
		for range c.Rows(testContext(t), "p", RowsOptions{Prefix: "k", After: "k-0600", StateOptions: o}) {
		}
	}
	const rows, end = "GET /v1/projections/p/rows?after=", "limit=500&prefix=k&timeout=2.4s"
	const atTime = "at_time=1970-01-01T00%3A00%3A09.000000000Z&"
	want := []string{
		rows + "k-0600&" + end, rows + "k-1100&at_position=90%40log-1&" + end,
		rows + "k-0600&at_position=7&" + end, rows + "k-1100&at_position=7&" + end,
		rows + "k-0600&" + atTime + end, rows + "k-1100&" + atTime + end,
	}
	if !slices.Equal(f.requests, want) {
		t.Errorf("got  %q\nwant %q", f.requests, want)
	}
	for _, err := range c.Rows(testContext(t), "none", RowsOptions{}) {
		if !IsNotFound(err) {
			t.Errorf("got %v", err)
		}
	}
}

func TestRowHistory(t *testing.T) {
	f := &fakeProjection{n: 1200}
	c := serveProjection(t, f)
	n := uint64(100)
	for change, err := range c.RowHistory(testContext(t), "p", "a/b", HistoryOptions{After: 100, Limit: 600}) {
		if n++; err != nil || change.Position != n || change.Version != n || change.Type != "T" || change.Stream != "s" || change.Time != 1e9 ||
			string(change.State) != fmt.Sprintf(`{"n":%d}`, n) {
			t.Fatalf("got %+v, %v", change, err)
		}
	}
	want := []string{
		"GET /v1/projections/p/rows/a%2Fb/history?after=100&limit=500&timeout=2.4s",
		"GET /v1/projections/p/rows/a%2Fb/history?after=600%40log-1&limit=500&timeout=2.4s",
	}
	if n != 700 || !slices.Equal(f.requests, want) {
		t.Errorf("got %d, %q", n, f.requests)
	}
}

// What two generations say is not put together.
func TestRows_DefinedAnew(t *testing.T) {
	f := &fakeProjection{n: 10_000}
	c := serveProjection(t, f)
	var rows, changes error
	for _, rows = range c.Rows(testContext(t), "p", RowsOptions{}) {
	}
	for _, changes = range c.RowHistory(testContext(t), "p", "a/b", HistoryOptions{}) {
	}
	for _, err := range []error{rows, changes} {
		if err == nil || err.Error() != `projection "p" was defined anew while it was read; read it from the beginning` {
			t.Errorf("got %v", err)
		}
	}
}

// A projection that is built is not waited for, as a leader would be.
func TestRow_Building(t *testing.T) {
	tries := 0
	c := newClient(t, nil, serve(t, func(w http.ResponseWriter, _ *http.Request) {
		tries++
		problem(w, 503, CodeBuilding, `,"progress":0.43`)
	}))
	_, err := c.Row(testContext(t), "p", "k", StateOptions{})
	p, _ := err.(*Problem)
	if !IsBuilding(err) || p.Progress != 0.43 || tries != 1 {
		t.Errorf("got %v after %d tries", err, tries)
	}
}

// An append that a guard refuses was not written, unless an attempt before may
// yet be: the guard may let that one through.
func TestAppend_Guarded(t *testing.T) {
	tries := 0
	c := newClient(t, nil, serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if tries++; tries == 2 {
			abort()
		}
		problem(w, 409, CodeGuardFailed, `,"projection":"account","event":1,"key":"account-42","guard":"state.balance >= 0","message":"insufficient funds","state_position":9`)
	}))
	_, err := c.Append(testContext(t), "account-42", []event.Event{{Type: "T"}})
	p, _ := err.(*Problem)
	if !IsGuardFailed(err) || !IsConflict(err) || IsUnknown(err) || p.Projection != "account" || p.Event != 1 || p.Key != "account-42" ||
		p.Guard != "state.balance >= 0" || p.Message != "insufficient funds" || p.StatePosition != 9 {
		t.Errorf("got %+v", err)
	}
	_, err = c.Append(testContext(t), "account-42", []event.Event{{Type: "T"}})
	if !IsUnknown(err) || IsGuardFailed(err) || IsConflict(err) {
		t.Errorf("got %v", err)
	}
	v := decodeProblem(422, "n", []byte(`{"type":"urn:cairn:error:schema-violation","status":422,"event":2,"event_type":"T","schema":3,"errors":[{"path":"/a","message":"no"}]}`))
	if v.Code != CodeSchemaViolation || v.Event != 2 || v.EventType != "T" || v.Schema != 3 || !slices.Equal(v.Errors, []ProblemPlace{{"/a", "no"}}) {
		t.Errorf("got %+v", v)
	}
}
