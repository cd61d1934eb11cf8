package main

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"

	"cairn/event"
)

// fakeProjections are the projections of a fakeNode. Whatever their definition,
// their rows are the balances of the streams; "account-9" has failed.
type fakeProjections struct {
	defined map[string]string // by name; its generation is what it is long
	polls   int               // how often a status says that it is being built
	reads   []string
	// restless: each row that is read is of another generation
	restless bool
}

func (f *fakeNode) routeProjections(routes *http.ServeMux) {
	f.projections.defined = map[string]string{}
	routes.HandleFunc("PUT /v1/projections/{name}", f.define)
	routes.HandleFunc("GET /v1/projections", f.listProjections)
	routes.HandleFunc("GET /v1/projections/{name}", f.projection)
	routes.HandleFunc("DELETE /v1/projections/{name}", f.deleteProjection)
	routes.HandleFunc("GET /v1/projections/{name}/rows", f.rows)
	routes.HandleFunc("GET /v1/projections/{name}/rows/{key}", f.row)
	routes.HandleFunc("GET /v1/projections/{name}/rows/{key}/history", f.history)
	routes.HandleFunc("GET /v1/streams/{stream}/state", f.streamState)
}

func (f *fakeNode) define(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	p, name := &f.projections, r.PathValue("name")
	if strings.Contains(string(body), "sum(") {
		fail(w, 422, "bad-definition", "when.T, line 1, column 5: undeclared reference to 'sum'", `,"path":"when.T","line":1,"column":5`)
		return
	}
	state := "building"
	if p.defined[name] == string(body) {
		state = "live"
	} else {
		w.WriteHeader(http.StatusAccepted)
	}
	p.defined[name] = string(body)
	fmt.Fprintf(w, `{"name":%q,"generation":%d,"state":%q}`, name, len(body), state)
}

func (f *fakeNode) status(name string) string {
	p := &f.projections
	state, since := "live", `"since":70,`
	if p.polls > 0 {
		p.polls--
		state, since = "building", ""
	}
	failures := `"rows":{"failed":1},"failures":[{"key":"account-9","position":7,"reason":"no such overload"}]`
	return fmt.Sprintf(`{"name":%q,"generation":%d,"state":%q,"guarding":true,%s"position":9,"head":12,"progress":0.43,%s,"definition":%s}`,
		name, len(p.defined[name]), state, since, failures, p.defined[name])
}

// there reports whether the projection of a request exists, and answers if not.
func (f *fakeNode) there(w http.ResponseWriter, r *http.Request) bool {
	f.projections.reads = append(f.projections.reads, r.URL.RequestURI())
	name := r.PathValue("name")
	_, ok := f.projections.defined[name]
	if !ok {
		fail(w, 404, "not-found", fmt.Sprintf("there is no projection '%s'", name), "")
	} else if f.projections.polls > 0 && strings.Contains(r.URL.Path, "/rows") {
		fail(w, 503, "projection-building", "it is being built", `,"progress":0.43`)
		return false
	}
	return ok
}

func (f *fakeNode) listProjections(w http.ResponseWriter, _ *http.Request) {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(f.projections.defined)) {
		status := f.status(name)
		if name == "next" {
			status = status[:len(status)-1] + `,"next":{"name":"next","generation":99,"state":"building","progress":0.5}}`
		}
		list = append(list, status)
	}
	fmt.Fprintf(w, `{"projections":[%s],"as_of":12}`, strings.Join(list, ","))
}

func (f *fakeNode) projection(w http.ResponseWriter, r *http.Request) {
	if f.there(w, r) {
		fmt.Fprint(w, f.status(r.PathValue("name")))
	}
}

func (f *fakeNode) deleteProjection(w http.ResponseWriter, r *http.Request) {
	if f.there(w, r) {
		delete(f.projections.defined, r.PathValue("name"))
		w.WriteHeader(http.StatusNoContent)
	}
}

// folded returns the events of a stream up to the moment of a request, and the
// balance after each.
func (f *fakeNode) folded(stream string, r *http.Request) (events []event.Event, balances []string) {
	number := func(name string) uint64 {
		n, _ := strconv.ParseUint(strings.TrimSuffix(r.FormValue(name), "@log-1"), 10, 64)
		return n
	}
	until, _ := event.ParseTime(r.FormValue("at_time"))
	version, position, balance := number("at_version"), number("at_position"), 0
	for _, e := range f.events {
		if e.Stream != stream || version > 0 && e.Version > version || position > 0 && e.Position > position || until > 0 && e.Time > until {
			continue
		}
		var data struct {
			Amount int `json:"amount"`
		}
		_ = json.Unmarshal(e.Data, &data)
		if e.Type == "FundsWithdrawn" {
			data.Amount = -data.Amount
		}
		balance += data.Amount
		events, balances = append(events, e), append(balances, fmt.Sprintf(`{"balance":%d,"open":true}`, balance))
	}
	return events, balances
}

func rowText(key string, events []event.Event, states []string) string {
	failed := ""
	if key == "account-9" {
		failed = `,"failed":{"position":7,"reason":"no such overload"}`
	}
	return fmt.Sprintf(`{"key":%q,"state":%s,"events":%d,"position":%d%s`, key, states[len(states)-1], len(events), events[len(events)-1].Position, failed)
}

func (f *fakeNode) rows(w http.ResponseWriter, r *http.Request) {
	if !f.there(w, r) {
		return
	}
	var list []string
	for _, stream := range []string{"account-42", "account-9"} {
		events, states := f.folded(stream, r)
		if len(events) > 0 && strings.HasPrefix(stream, r.FormValue("prefix")) && stream > r.FormValue("after") {
			list = append(list, rowText(stream, events, states)+"}")
		}
	}
	fmt.Fprintf(w, `{"rows":[%s],"as_of":12,"generation":5}`, strings.Join(list, ","))
}

func (f *fakeNode) row(w http.ResponseWriter, r *http.Request) {
	if !f.there(w, r) {
		return
	}
	key := r.PathValue("key")
	events, states := f.folded(key, r)
	if len(events) == 0 {
		fail(w, 404, "not-found", fmt.Sprintf("there is no row '%s'", key), "")
		return
	}
	generation := 5
	if f.projections.restless {
		generation += len(f.projections.reads)
		f.projections.reads = append(f.projections.reads, r.URL.RequestURI())
	}
	fmt.Fprintf(w, `%s,"replayed":2,"final":%v,"as_of":12,"generation":%d}`, rowText(key, events, states), !r.URL.Query().Has("at_time"), generation)
}

func (f *fakeNode) history(w http.ResponseWriter, r *http.Request) {
	if !f.there(w, r) {
		return
	}
	events, states := f.folded(r.PathValue("key"), r)
	var list []string
	for i, e := range events {
		list = append(list, fmt.Sprintf(`{"position":%d,"version":%d,"type":%q,"stream":%q,"time":%q,"state":%s}`,
			e.Position, e.Version, e.Type, e.Stream, event.FormatTime(e.Time), states[i]))
	}
	fmt.Fprintf(w, `{"history":[%s],"as_of":12,"generation":5}`, strings.Join(list, ","))
}

func (f *fakeNode) streamState(w http.ResponseWriter, r *http.Request) {
	stream := r.PathValue("stream")
	f.projections.reads = append(f.projections.reads, r.URL.RequestURI())
	events, _ := f.folded(stream, r)
	if len(events) == 0 {
		fail(w, 404, "not-found", fmt.Sprintf("stream '%s' does not exist", stream), "")
		return
	}
	state := map[string]any{}
	for i := range events {
		_ = mergeData(state, &events[i])
	}
	merged, _ := json.Marshal(state, json.Deterministic(true))
	last := events[len(events)-1]
	fmt.Fprintf(w, `{"stream":%q,"state":%s,"version":%d,"events":%d,"position":%d,"replayed":%d,"final":true,"as_of":12}`,
		stream, merged, last.Version, len(events), last.Position, len(events))
}
