package httpapi

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"cairn/event"
)

// serveProjections is serve with a log of 60 events and a projection "counts",
// which is defined by event 62.
func serveProjections(t *testing.T) (*testServer, *fakeProjections) {
	t.Helper()
	store := filled(60)
	p := newFakeProjections(store)
	ts := serve(t, store, func(o *Options) { o.Projections = p })
	ts.do("PUT", "/v1/projections/counts", `{}`, isJSON).check(t, http.StatusAccepted, `{"name":"counts","generation":62,"state":"building"}`)
	return ts, p
}

func TestProjection_Define(t *testing.T) {
	ts, p := serveProjections(t)
	const path = "/v1/projections/a.b-c_1"
	a := ts.do("PUT", path, `{"key":"a && b"}`, isJSON)
	a.check(t, http.StatusAccepted, `"generation":63`)
	a.checkHeader(t, "Location", path, "Cairn-Position", "63", "Cairn-Leader", "http://leader:7070", "Cairn-Log", testLog)
	ts.do("PUT", path, `{"key":"a && b"}`, isJSON).check(t, http.StatusOK, `"generation":63`)
	ts.do("PUT", path, `{"key":"c"}`, isJSON).check(t, http.StatusAccepted, `"generation":64`)
	ts.get("/v1/projections").check(t, http.StatusOK,
		`{"projections":[{"name":"a.b-c_1","generation":64,"state":"live","guarding":true,"since":65,"position":7,"head":9,"progress":0.78,"rows":{"failed":1},`+
			`"failures":[{"key":"a","position":3,"reason":"no <such> overload"}],"definition":{"key":"c"},"next":{"name":"a.b-c_1"`, `"as_of":64}`)
	ts.get(path).check(t, http.StatusOK, `{"name":"a.b-c_1","generation":64,`)
	ts.do("DELETE", path, "").check(t, http.StatusNoContent)
	ts.do("DELETE", path, "").check(t, http.StatusNotFound, `"detail":"projection \"a.b-c_1\": fake`, `a projection`)
	ts.get(path).check(t, http.StatusNotFound)
	ts.do("PUT", path, `{"when":{"T":"sum("}}`, isJSON).check(t, http.StatusUnprocessableEntity,
		`"type":"urn:cairn:error:bad-definition"`, `"detail":"when.T, line 2, column 7: fake: undeclared reference to 'sum'"`,
		`"message":"fake: undeclared reference to 'sum'","path":"when.T","line":2,"column":7`)

	// Nobody knows whether it happened, or the cluster promises that not.
	for _, method := range []string{"PUT", "DELETE"} {
		p.set(func() { p.fault = errors.New("connection lost") })
		ts.do(method, path, `{}`, isJSON).check(t, http.StatusGatewayTimeout, `outcome-unknown`, `do it again, that is safe`)
		p.set(func() { p.fault = errFakeNoLeader })
		ts.do(method, path, `{}`, isJSON).check(t, http.StatusServiceUnavailable, `no-leader`)
	}
}

func TestProjection_Row(t *testing.T) {
	ts, p := serveProjections(t)
	const path = "/v1/projections/counts/rows/a-1"
	a := ts.get(path)
	a.check(t, http.StatusOK, `{"key":"a-1","state":{"n":12},"events":12,"position":58,"replayed":2,"final":true,"as_of":62,"generation":5}`)
	a.checkHeader(t, "Cairn-Position", "62", "Cairn-Log", testLog)
	for _, c := range []struct {
		query string
		at    Moment
		least uint64
		want  string
	}{
		{"?at_version=3", Moment{Version: 3}, 62, `"state":{"n":3},"events":3,"position":13`},
		{"?at_position=20", Moment{Position: 20}, 20, `"state":{"n":4},"events":4,"position":18`},
		{"?at_position=20@" + testLog + "&consistency=local", Moment{Position: 20}, 20, `"events":4`},
		{"?at_time=2023-11-14T22:13:40Z", Moment{Time: 1_700_000_020e9}, 62, `"events":4,"position":18,"replayed":2,"final":false`},
		{"?min_position=62&timeout=2s", Moment{}, 62, `"events":12`},
	} {
		ts.get(path+c.query).check(t, http.StatusOK, c.want)
		if p.at != c.at || p.least != c.least {
			t.Errorf("%s: asked for %+v, at least %d; want %+v, %d", c.query, p.at, p.least, c.at, c.least)
		}
	}
	ts.store.add(event.Event{Stream: "failed", Type: "T"}, event.Event{Stream: "a/ü", Type: "T"})
	ts.get("/v1/projections/counts/rows/failed").check(t, http.StatusOK, `"position":63,"failed":{"position":63,"reason":"no \"sum\""},"replayed"`)
	ts.get("/v1/projections/counts/rows/a%2F%C3%BC").check(t, http.StatusOK, `{"key":"a/ü",`)
	missing := ts.get("/v1/projections/counts/rows/none")
	missing.check(t, http.StatusNotFound, `"detail":"projection \"counts\", row \"none\": fake`, `a row`)
	missing.checkHeader(t, "Cairn-Position", "64")
	ts.get(path+"?at_version=101").check(t, http.StatusBadRequest, `the key is not the stream`)
}

// A row is read by the definition there is now, also as of an earlier position:
// the node asks whether it knows the newest one.
func TestProjection_OldPositionNewDefinition(t *testing.T) {
	ts, p := serveProjections(t)
	ts.store.set(func() { ts.store.indexed = errFakeNoLeader })
	const path = "/v1/projections/counts/rows/a-1?at_position=20"
	ts.get(path).check(t, http.StatusServiceUnavailable, "no-leader")
	ts.get(path+"&consistency=local").check(t, http.StatusOK)
	ts.get("/v1/streams/b/state?at_position=40").check(t, http.StatusServiceUnavailable)

	// What is not folded, or not there, within the time is no fault of the server.
	ts.store.set(func() { p.slow, ts.store.indexed = true, nil })
	ts.get(path+"&timeout=20ms").check(t, http.StatusServiceUnavailable, `"type":"urn:cairn:error:timeout"`)
	ts.get("/v1/projections/counts/rows/a-1?at_position=99&timeout=20ms").check(t, http.StatusServiceUnavailable, `within 20ms`)
}

func TestProjection_Building(t *testing.T) {
	ts, p := serveProjections(t)
	p.set(func() { p.fault = errFakeBuilding })
	for _, path := range []string{"/rows", "/rows/a-1", "/rows/a-1/history"} {
		a := ts.get("/v1/projections/counts" + path)
		a.check(t, http.StatusServiceUnavailable, `"type":"urn:cairn:error:projection-building"`, `"detail":"fake: 43 % are built"`, `"progress":0.4300`)
		a.checkHeader(t, "Retry-After", "1")
	}
}

func TestProjection_Rows(t *testing.T) {
	ts, p := serveProjections(t)
	const path = "/v1/projections/counts/rows"
	ts.get(path+"?prefix=a-&after=a-1&limit=2").check(t, http.StatusOK,
		`{"rows":[{"key":"a-2","state":{"n":12},"events":12,"position":59},{"key":"a-3","state":{"n":12},"events":12,"position":60}],"next":"a-3","as_of":62,"generation":5}`)
	a := ts.get(path + "?prefix=a-&after=a-3&limit=2&at_position=30")
	a.check(t, http.StatusOK, `{"rows":[{"key":"a-4","state":{"n":3},"events":3,"position":26}],"as_of":30,"generation":5}`)
	if want := (RowsQuery{Prefix: "a-", After: "a-3", Limit: 2, Bytes: pageBytes, At: Moment{Position: 30}}); p.rows != want {
		t.Errorf("asked for %+v, want %+v", p.rows, want)
	}
	ts.get(path+"?prefix=z").check(t, http.StatusOK, `{"rows":[],"as_of":62,"generation":5}`)
}

func TestProjection_History(t *testing.T) {
	ts, p := serveProjections(t)
	const path = "/v1/projections/counts/rows/a-1/history"
	ts.get(path+"?limit=2&after=3").check(t, http.StatusOK,
		`{"history":[{"position":8,"version":2,"type":"T0","stream":"a-1","time":"2023-11-14T22:13:28.000000000Z","state":{"n":2}},{"position":13,`,
		`"state":{"n":3}}],"next":13,"as_of":62,"generation":5}`)
	ts.get(path+"?after=58@"+testLog).check(t, http.StatusOK, `{"history":[],"as_of":62,"generation":5}`)
	if want := (HistoryQuery{After: 58, Limit: defaultLimit, Bytes: pageBytes}); p.history != want {
		t.Errorf("asked for %+v, want %+v", p.history, want)
	}
	ts.get(path+"?after=58@other").check(t, http.StatusConflict, "log-changed")
}

func TestStreamState(t *testing.T) {
	ts, p := serveProjections(t)
	const path = "/v1/streams/b/state"
	ts.get(path).check(t, http.StatusOK, `{"stream":"b","state":{"n":6},"version":6,"events":6,"position":61,"replayed":1,"final":true,"as_of":62}`)
	ts.get(path+"?at_version=2").check(t, http.StatusOK, `"version":2,"events":2`)
	if p.at.Version != 2 || p.least != 62 {
		t.Errorf("asked for %+v, %d", p.at, p.least)
	}
	ts.get(path+"?at_position=40").check(t, http.StatusOK, `"version":3`, `"as_of":40`)
	ts.get("/v1/streams/$log/state").check(t, http.StatusOK, `"stream":"$log"`)
	ts.get("/v1/streams/none/state").check(t, http.StatusNotFound, `stream \"none\" does not exist`)
}

func TestProjection_Malformed(t *testing.T) {
	ts, _ := serveProjections(t)
	before := ts.store.count()
	long := strings.Repeat("k", maxRowKey+1)
	for _, c := range []struct {
		method, target, body string
		headers              []string
		status               int
		detail               string
	}{
		{"PUT", "/v1/projections/Account", `{}`, []string{isJSON}, 400, `name: must be 1 to 64 of the characters`},
		{"PUT", "/v1/projections/-a", `{}`, []string{isJSON}, 400, `name: must be`},
		{"PUT", "/v1/projections/" + strings.Repeat("a", 65), `{}`, []string{isJSON}, 400, `name: must be`},
		{"PUT", "/v1/projections/a%2Fb", `{}`, []string{isJSON}, 400, `name: must be`},
		{"PUT", "/v1/projections/a", `{}`, nil, 415, `Content-Type`},
		{"PUT", "/v1/projections/a", `{}`, []string{"Content-Type: text/plain"}, 415, `Content-Type`},
		{"PUT", "/v1/projections/a?x=1", `{}`, []string{isJSON}, 400, `x: is not a parameter`},
		{"PUT", "/v1/projections/a", strings.Repeat(" ", maxDefinition+1), []string{isJSON}, 413, `over the limit of 65536 bytes`},
		{"POST", "/v1/projections/a", `{}`, []string{isJSON}, 405, `takes PUT, GET, DELETE`},
		{"DELETE", "/v1/projections/a?x=1", ``, nil, 400, `x: is not`},
		{"GET", "/v1/projections?limit=1", ``, nil, 400, `limit: is not`},
		{"GET", "/v1/projections/counts/rows?at_version=1", ``, nil, 400, `at_version: is not a parameter`},
		{"GET", "/v1/projections/counts/rows?limit=1001", ``, nil, 400, `limit: must be a whole number from 1 to 1000`},
		{"GET", "/v1/projections/counts/rows?prefix=" + long, ``, nil, 413, `prefix: 513 is over the limit of 512 bytes`},
		{"GET", "/v1/projections/counts/rows?after=%ff", ``, nil, 400, `after: must be UTF-8`},
		{"GET", "/v1/projections/counts/rows?at_position=0", ``, nil, 400, `at_position: must be a position`},
		{"GET", "/v1/projections/counts/rows/" + long, ``, nil, 413, `key: 513 is over`},
		{"GET", "/v1/projections/counts/rows/%ff", ``, nil, 400, `key: must be UTF-8`},
		{"GET", "/v1/projections/counts/rows/a?at_version=0", ``, nil, 400, `at_version: must be`},
		{"GET", "/v1/projections/counts/rows/a?at_time=yesterday", ``, nil, 400, `at_time: \"yesterday\" is not a time`},
		{"GET", "/v1/projections/counts/rows/a?at_version=1&at_position=2", ``, nil, 400, `at_position: there is another moment; give one`},
		{"GET", "/v1/projections/counts/rows/a?at_position=2&at_time=2026-01-01T00:00:00Z", ``, nil, 400, `at_time: there is another moment`},
		{"GET", "/v1/projections/counts/rows/a?at_position=2@other", ``, nil, 409, `log-changed`},
		{"GET", "/v1/projections/counts/rows/a/history?at_position=2", ``, nil, 400, `at_position: is not a parameter`},
		{"GET", "/v1/projections/counts/rows/a/history?after=x", ``, nil, 400, `after: must be a position`},
		{"GET", "/v1/streams/../state", ``, nil, 400, `stream`},
		{"GET", "/v1/streams/b/state?at_version=1&at_version=2", ``, nil, 400, `at_version: must be there only once`},
		{"GET", "/v1/projections/none/rows", ``, nil, 404, `projection \"none\": fake`},
	} {
		a := ts.do(c.method, c.target, c.body, c.headers...)
		if a.status != c.status || !strings.Contains(a.body, c.detail) {
			t.Errorf("%s %s: status %d, %s; want %d, %s", c.method, c.target, a.status, a.body, c.status, c.detail)
		}
	}
	if ts.store.count() != before {
		t.Errorf("%d events were written", ts.store.count()-before)
	}
}

// refusing decides every append with one outcome.
type refusing struct {
	*fakeStore
	outcome event.Outcome
}

func (r *refusing) Propose(context.Context, *event.Append) (event.Outcome, error) {
	return r.outcome, nil
}

func (r *refusing) ProposeAll(_ context.Context, appends []*event.Append) ([]event.Outcome, error) {
	outcomes := make([]event.Outcome, len(appends))
	for i := range outcomes {
		outcomes[i] = r.outcome
	}
	return outcomes, nil
}

// What a projection or a schema refuses is told with all a client needs to
// decide again.
func TestAppend_Guarded(t *testing.T) {
	d := openDocument(t)
	for _, c := range []struct {
		outcome event.Outcome
		status  int
		want    string
	}{
		{event.Outcome{Code: event.GuardFailed, Guard: &event.GuardFailure{
			Event: 1, Projection: "account", Key: "account-42", Rule: "state.balance >= event.data.amount", Message: "insufficient funds", StatePosition: 9,
		}}, 409, `"detail":"a guard of projection \"account\" does not let events[1] happen to \"account-42\": insufficient funds",` +
			`"projection":"account","event":1,"key":"account-42","guard":"state.balance >= event.data.amount","message":"insufficient funds","state_position":9}`},
		{event.Outcome{Code: event.GuardFailed, Guard: &event.GuardFailure{Projection: "account", Key: "account-42", Rule: "false"}}, 409,
			`"guard":"false","message":"false","state_position":0}`},
		{event.Outcome{Code: event.FoldFailed, Guard: &event.GuardFailure{Projection: "account", Key: "account-42", Message: "no such overload"}}, 422,
			`"detail":"projection \"account\" can't fold the event into row \"account-42\": no such overload",` +
				`"projection":"account","event":0,"key":"account-42","message":"no such overload"}`},
		{event.Outcome{Code: event.SchemaViolation, Violation: &event.Violation{Event: 2, Type: "T", Schema: 3, Errors: []event.ViolationError{
			{Path: "/amount", Message: "must be a number"}, {Message: "lacks \"b\""},
		}}}, 422, `"detail":"events[2] is not what schema 3 of \"T\" asks for: /amount: must be a number","event":2,"event_type":"T","schema":3,` +
			`"errors":[{"path":"/amount","message":"must be a number"},{"path":"","message":"lacks \"b\""}]}`},
		{event.Outcome{Code: event.SchemaChanged}, 503, `"type":"urn:cairn:error:overloaded"`},
		{event.Outcome{Code: event.Refused, Reason: event.TryAgain + "it is early"}, 503, `"type":"urn:cairn:error:overloaded","title":"The server has too much to do","status":503,"detail":"it is early; try again"`},
	} {
		store := newFakeStore()
		ts := serve(t, store, func(o *Options) { o.Appender = &refusing{store, c.outcome} })
		for _, headers := range [][]string{{isJSON}, {isLines}} {
			a := ts.do("POST", "/v1/append", one("a"), headers...)
			status := c.status
			if headers[0] == isLines {
				status = http.StatusOK
			}
			a.check(t, status, c.want)
			if err := d.fits("POST", "/v1/append", a); err != nil {
				t.Error(err)
			}
		}
	}
}

// The first of several events is named as the others are.
func TestAppend_GuardedFirstOfSeveral(t *testing.T) {
	outcome := event.Outcome{Code: event.GuardFailed, Guard: &event.GuardFailure{Projection: "account", Key: "a", Rule: "false"}}
	store := newFakeStore()
	ts := serve(t, store, func(o *Options) { o.Appender = &refusing{store, outcome} })
	ts.post("/v1/append", `{"events":[{"stream":"a","type":"T"},{"stream":"a","type":"T"}]}`).check(t, 409, `does not let events[0] happen to`)
	ts.post("/v1/append", `{"events":[{"stream":"a","type":"T"}]}`).check(t, 409, `does not let the event happen to`)
}

// Failures take time to find: who does not ask for them gets none.
func TestProjection_StatusWithoutFailures(t *testing.T) {
	ts, _ := serveProjections(t)
	const path = "/v1/projections/counts"
	ts.get(path).check(t, http.StatusOK, `"rows":{"failed":1},"failures":[`)
	if got := ts.get(path + "?failures=false&consistency=local"); got.status != http.StatusOK || strings.Contains(got.body, "fail") {
		t.Errorf("%d %s", got.status, got.body)
	}
	ts.get(path+"?failures=0").check(t, http.StatusBadRequest, "failures: must be")
}

// A projection can't be waited for longer than the request may take.
func TestProjection_SlowerThanTimeout(t *testing.T) {
	ts, p := serveProjections(t)
	p.set(func() { p.slow = true })
	begin := time.Now()
	ts.get("/v1/projections/counts/rows?timeout=30ms").check(t, http.StatusServiceUnavailable, "timeout")
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("it took %s", took)
	}
}

// checkProjections tries every route about projections and states.
func checkProjections(check func(method, path, target, body string, headers ...string)) {
	const name, rows, stream = "/v1/projections/{name}", "/v1/projections/{name}/rows", "/v1/streams/{stream}/state"
	check("PUT", name, "/v1/projections/counts", `{}`, isJSON)
	check("PUT", name, "/v1/projections/counts", `{}`, isJSON)
	check("PUT", name, "/v1/projections/counts", `{"key":"sum"}`, isJSON)
	check("GET", "/v1/projections", "/v1/projections", "")
	check("GET", name, "/v1/projections/counts", "")
	check("GET", name, "/v1/projections/counts?failures=false", "")
	check("GET", name, "/v1/projections/none", "")
	check("GET", rows, "/v1/projections/counts/rows", "")
	check("GET", rows, "/v1/projections/counts/rows?limit=1", "")
	check("GET", rows+"/{key}", "/v1/projections/counts/rows/b", "")
	check("GET", rows+"/{key}", "/v1/projections/counts/rows/b?at_version=2", "")
	check("GET", rows+"/{key}", "/v1/projections/counts/rows/b?at_version=101", "")
	check("GET", rows+"/{key}/history", "/v1/projections/counts/rows/b/history", "")
	check("GET", rows+"/{key}/history", "/v1/projections/counts/rows/b/history?limit=1", "")
	check("GET", stream, "/v1/streams/b/state", "")
	check("GET", stream, "/v1/streams/b/state?at_time=2023-11-14T22:13:40Z", "")
	check("GET", stream, "/v1/streams/none/state", "")
	check("DELETE", name, "/v1/projections/counts", "")
}
