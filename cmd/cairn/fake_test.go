package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"cairn/event"
)

// fakeNode is a cluster of one node that keeps its events in memory. It knows
// as much of the contract as the commands use.
type fakeNode struct {
	url string

	mu      sync.Mutex
	events  []event.Event
	known   map[string]int // places in events, by stream and id
	heads   map[string]uint64
	grown   chan struct{} // closed when there are more events
	refuse  func(*event.Event) string
	removed string
	query   url.Values // of the last read
	files   string     // folder of the log whose files it gives; "" = none

	projections fakeProjections

	leaderless bool // it lists its files only as it has them itself
}

func newFakeNode(t *testing.T) *fakeNode {
	t.Helper()
	f := &fakeNode{grown: make(chan struct{}), known: make(map[string]int), heads: make(map[string]uint64)}
	routes := http.NewServeMux()
	routes.HandleFunc("GET /v1/cluster", f.cluster)
	routes.HandleFunc("POST /v1/cluster/transfer", func(http.ResponseWriter, *http.Request) {})
	routes.HandleFunc("DELETE /v1/cluster/members/{id}", f.remove)
	routes.HandleFunc("POST /v1/streams/{stream}/events", f.append)
	routes.HandleFunc("GET /v1/streams/{stream}/events", f.read)
	routes.HandleFunc("GET /v1/events", f.read)
	routes.HandleFunc("GET /v1/events/{position}", f.read)
	routes.HandleFunc("GET /v1/streams", f.streams)
	routes.HandleFunc("POST /v1/append", f.appendLines)
	f.routeProjections(routes)
	f.routeTypes(routes)
	routes.HandleFunc("GET /v1/segments", f.segments)
	routes.HandleFunc("GET /v1/segments/{name}", f.segment)
	s := httptest.NewUnstartedServer(routes)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	f.url = s.URL
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return f
}

// run executes a command line against the node and returns its exit code and
// what it wrote.
func (f *fakeNode) run(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var out, errs bytes.Buffer
	err := run(ctx, append(args, "--node", f.url), strings.NewReader(stdin), &out, &errs)
	code = report(err, &errs)
	return code, out.String(), strings.ReplaceAll(errs.String(), f.url, "NODE")
}

// ok is run for what must succeed and say nothing on stderr.
func (f *fakeNode) ok(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	code, out, errs := f.run(t, stdin, args...)
	if code != 0 || errs != "" {
		t.Fatalf("%q: exit %d, %s", args, code, errs)
	}
	return out
}

// add appends events with known ids and times.
func (f *fakeNode) add(events ...event.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range events {
		f.addLocked(e)
	}
}

func (f *fakeNode) addLocked(e event.Event) *event.Event {
	e.Position = uint64(len(f.events) + 1)
	e.Version = f.heads[e.Stream] + 1
	f.heads[e.Stream]++
	f.known[e.Stream+"\n"+e.ID] = len(f.events)
	e.Time = time.Date(2026, 1, 2, 3, 4, int(e.Position), 0, time.UTC).UnixNano()
	if len(e.Data) == 0 {
		e.Data = []byte("null")
	}
	f.events = append(f.events, e)
	close(f.grown)
	f.grown = make(chan struct{})
	return &f.events[len(f.events)-1]
}

func fail(w http.ResponseWriter, status int, code, detail, members string) {
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"type":"urn:cairn:error:%s","status":%d,"detail":%q%s}`, code, status, detail, members)
}

func (f *fakeNode) cluster(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintf(w, `{"log":"log-1","leader":"node-1","term":3,"members":[`+
		`{"id":"node-1","http":%q,"role":"leader","alive":true,"applied":12,"lag":0,"version":"v1"},`+
		`{"id":"node-2","http":%q,"role":"voter","alive":false,"applied":9,"lag":3,"version":"v1"}]}`, f.url, f.url)
}

func (f *fakeNode) remove(w http.ResponseWriter, r *http.Request) {
	if f.removed = r.PathValue("id"); f.removed != "node-2" {
		fail(w, 404, "not-found", "no such member", "")
	}
}

func (f *fakeNode) append(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var raw []jsontext.Value
	if err := json.Unmarshal(body, &raw); err != nil {
		raw = []jsontext.Value{body}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	stream := r.PathValue("stream")
	version := f.heads[stream]
	match := r.Header.Get("If-Match")
	if match != "" && match != "*" && match != fmt.Sprintf(`"%d"`, version) || r.Header.Get("If-None-Match") == "*" && version > 0 {
		fail(w, 412, "condition-failed", fmt.Sprintf("stream %q is at version %d, not %s", stream, version, strings.Trim(match, `"`)),
			fmt.Sprintf(`,"actual":%d,"expected":0`, version))
		return
	}
	var events []event.Event
	for i, b := range raw {
		e, err := event.DecodeNew(b)
		if err != nil {
			fail(w, 400, "invalid-event", err.Error(), "")
			return
		}
		if key := r.Header.Get("Idempotency-Key"); e.ID == "" && key != "" {
			e.ID = fmt.Sprint(key, "/", i)
		}
		e.Stream = stream
		events = append(events, e)
	}
	status, answer := f.acceptLocked(events)
	w.WriteHeader(status)
	fmt.Fprint(w, answer)
}

// acceptLocked adds events that are not known and returns the answer.
func (f *fakeNode) acceptLocked(events []event.Event) (int, string) {
	at, known := f.known[events[0].Stream+"\n"+events[0].ID]
	last := &events[0]
	first, status := uint64(at+1), 200
	if known = known && events[0].ID != ""; known {
		last = &f.events[at+len(events)-1]
	} else {
		first, status = uint64(len(f.events)+1), 201
		for _, e := range events {
			last = f.addLocked(e)
		}
	}
	stream, _ := json.Marshal(last.Stream)
	return status, fmt.Sprintf(`{"status":%d,"first_position":%d,"last_position":%d,"version":%d,"versions":{%s:%d},"time":%q,"duplicate":%v}`,
		status, first, last.Position, last.Version, stream, last.Version, event.FormatTime(last.Time), status == 200)
}

func (f *fakeNode) appendLines(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	_ = control.Flush()
	lines := bufio.NewScanner(r.Body)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var form struct {
			Events []jsontext.Value `json:"events"`
		}
		if err := json.Unmarshal(lines.Bytes(), &form); err != nil {
			panic(err)
		}
		e, err := event.DecodeNew(form.Events[0])
		if err != nil {
			panic(err)
		}
		f.mu.Lock()
		answer := ""
		if f.refuse != nil {
			answer = f.refuse(&e)
		}
		if answer == "" {
			_, answer = f.acceptLocked([]event.Event{e})
		}
		f.mu.Unlock()
		if answer == "break" {
			panic(http.ErrAbortHandler)
		}
		fmt.Fprintln(w, answer)
		_ = control.Flush()
	}
}

// chosen returns the events that a read asks for, after a position.
func (f *fakeNode) chosen(r *http.Request, after uint64) []event.Event {
	q := r.URL.Query()
	var list []event.Event
	for _, e := range f.events {
		stream, position := r.PathValue("stream"), r.PathValue("position")
		from, _ := strconv.ParseUint(q.Get("from"), 10, 64)
		switch {
		case e.Position <= after,
			stream != "" && (e.Stream != stream || e.Version < from),
			position != "" && position != strconv.FormatUint(e.Position, 10),
			q.Has("correlation_id") && e.CorrelationID != q.Get("correlation_id"),
			q.Has("type") && !slices.Contains(q["type"], e.Type),
			q.Has("stream_prefix") && !strings.HasPrefix(e.Stream, q.Get("stream_prefix")):
			continue
		}
		list = append(list, e)
	}
	if q.Get("order") == "desc" {
		slices.Reverse(list)
	}
	return list
}

func (f *fakeNode) read(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Accept") == "text/event-stream" {
		f.follow(w, r)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.query = r.URL.Query()
	after, _ := strconv.ParseUint(f.query.Get("after"), 10, 64)
	list := f.chosen(r, after)
	if len(list) == 0 && (r.PathValue("stream") != "" || r.PathValue("position") != "") {
		fail(w, 404, "not-found", fmt.Sprintf("stream %q does not exist", r.PathValue("stream")), "")
		return
	}
	w.Header().Set("Cairn-Position", strconv.Itoa(len(f.events)))
	w.Header().Set("Cairn-Log", "log-1")
	if r.PathValue("position") != "" {
		_, _ = w.Write(event.AppendJSON(nil, &list[0]))
		return
	}
	body := []byte(`{"events":[`)
	limit, _ := strconv.Atoi(f.query.Get("limit"))
	for i := range list[:min(limit, len(list))] {
		if i > 0 {
			body = append(body, ',')
		}
		body = event.AppendJSON(body, &list[i])
	}
	_, _ = w.Write(append(body, "]}"...))
}

func (f *fakeNode) follow(w http.ResponseWriter, r *http.Request) {
	after, _ := strconv.ParseUint(strings.TrimSuffix(r.Header.Get("Last-Event-ID"), "@log-1"), 10, 64)
	for said := false; ; {
		f.mu.Lock()
		list, grown, end := f.chosen(r, after), f.grown, uint64(len(f.events))
		f.mu.Unlock()
		for i := range list {
			fmt.Fprintf(w, "id: %d@log-1\ndata: %s\n\n", list[i].Position, event.AppendJSON(nil, &list[i]))
		}
		after = end
		if !said {
			fmt.Fprintf(w, "event: caught_up\ndata: {\"position\":%d}\n\n", end)
			said = true
		}
		_ = http.NewResponseController(w).Flush()
		select {
		case <-grown:
		case <-r.Context().Done():
			return
		}
	}
}

func (f *fakeNode) streams(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var names []string
	for _, e := range f.events {
		if !slices.Contains(names, e.Stream) && strings.HasPrefix(e.Stream, r.FormValue("prefix")) && e.Stream > r.FormValue("after") {
			names = append(names, e.Stream)
		}
	}
	slices.Sort(names)
	var items []string
	for _, name := range names {
		quoted, _ := json.Marshal(name)
		items = append(items, fmt.Sprintf(`{"stream":%s,"version":%d}`, quoted, f.heads[name]))
	}
	fmt.Fprintf(w, `{"streams":[%s]}`, strings.Join(items, ","))
}
