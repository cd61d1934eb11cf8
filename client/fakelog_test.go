package client

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cairn/event"
)

// fakeLog is a cluster of one node that keeps its events in memory and decides
// conditions and repetitions as the contract says.
type fakeLog struct {
	url string

	mu      sync.Mutex
	log     string
	page    int // events of a page at most
	events  []event.Event
	appends map[string]int            // place in events of each append, by its ids
	grown   chan struct{}             // closed when there are more events
	fault   func(request string) bool // called with each append's body, after it is done: true = the connection breaks
	refuse  string                    // the code of a refusal that the next append gets instead of being done
	reads   []string
	after   func(read string) // called after each read
}

func newFakeLog(t *testing.T) *fakeLog {
	t.Helper()
	f := &fakeLog{log: "L", page: 1000, appends: make(map[string]int), grown: make(chan struct{})}
	f.add(event.Event{Stream: "$log", Type: "log-created", ID: "0"})
	routes := http.NewServeMux()
	routes.HandleFunc("POST /v1/append", f.append)
	routes.HandleFunc("GET /v1/streams/{stream}/events", f.readStream)
	routes.HandleFunc("POST /v1/query", f.readQuery)
	routes.HandleFunc("GET /v1/events", f.follow)
	f.url = serve(t, routes.ServeHTTP)
	return f
}

// add appends events unconditionally.
func (f *fakeLog) add(events ...event.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.addLocked(events)
}

func (f *fakeLog) addLocked(events []event.Event) {
	for _, e := range events {
		e.Position, e.Version = uint64(len(f.events)+1), f.headLocked(e.Stream)+1
		e.Time = int64(e.Position)
		if e.ID == "" {
			e.ID = event.NewID()
		}
		if len(e.Data) == 0 {
			e.Data = []byte("null")
		}
		f.events = append(f.events, e)
	}
	close(f.grown)
	f.grown = make(chan struct{})
}

func (f *fakeLog) headLocked(stream string) (version uint64) {
	for i := range f.events {
		if f.events[i].Stream == stream {
			version = f.events[i].Version
		}
	}
	return version
}

// stream returns the events of a stream.
func (f *fakeLog) stream(name string) (events []event.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.events {
		if e.Stream == name {
			events = append(events, e)
		}
	}
	return events
}

// fakeCondition is a condition on the wire.
type fakeCondition struct {
	Stream  string
	Version *uint64
	Exists  *bool
	Query   *event.Query
	After   uint64
}

// failsLocked returns the members that say why c does not hold, "" if it does.
func (f *fakeLog) failsLocked(c *fakeCondition) string {
	head := f.headLocked(c.Stream)
	switch {
	case c.Query != nil:
		for i := c.After; i < uint64(len(f.events)); i++ {
			if c.Query.Matches(&f.events[i]) {
				return fmt.Sprintf(`,"conflicting_position":%d`, i+1)
			}
		}
	case c.Version != nil && head != *c.Version:
		return fmt.Sprintf(`,"expected":%d,"actual":%d`, *c.Version, head)
	case c.Exists != nil && (head > 0) != *c.Exists:
		return fmt.Sprintf(`,"expected":0,"actual":%d`, head)
	}
	return ""
}

func (f *fakeLog) append(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var a struct {
		Events     []json.RawMessage
		Conditions []fakeCondition
	}
	if err := json.Unmarshal(body, &a); err != nil {
		panic(err)
	}
	var events []event.Event
	key := ""
	for _, raw := range a.Events {
		e, err := event.DecodeNew(raw)
		if err != nil {
			panic(err)
		}
		events, key = append(events, e), key+fmt.Sprintf("%q%q", e.Stream, e.ID)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuse != "" {
		problem(w, map[string]int{CodeNoLeader: 503, CodeGuardFailed: 409}[f.refuse], f.refuse, "")
		f.refuse = ""
		return
	}
	at, duplicate := f.appends[key]
	if !duplicate {
		for i := range a.Conditions {
			if why := f.failsLocked(&a.Conditions[i]); why != "" {
				problem(w, 409, CodeConditionFailed, why)
				return
			}
		}
		at = len(f.events)
		f.appends[key] = at
		f.addLocked(events)
	}
	if f.fault != nil && f.fault(string(body)) {
		abort()
	}
	last := at + len(events)
	fmt.Fprintf(w, `{"first_position":%d,"last_position":%d,"version":%d,"time":"2026-01-02T03:04:05Z","duplicate":%v}`,
		at+1, last, f.events[last-1].Version, duplicate)
}

func (f *fakeLog) readStream(w http.ResponseWriter, r *http.Request) {
	from, _ := strconv.ParseUint(r.FormValue("from"), 10, 64)
	name := r.PathValue("stream")
	f.answer(w, r, fmt.Sprintf("%s from %d", name, from), func(e *event.Event) (of, chosen bool) {
		return e.Stream == name, e.Version >= from
	})
}

func (f *fakeLog) readQuery(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Query event.Query
		After uint64
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		panic(err)
	}
	if r.URL.Query().Has("after") {
		body.After, _ = strconv.ParseUint(r.FormValue("after"), 10, 64)
	}
	f.answer(w, r, fmt.Sprintf("query after %d", body.After), func(e *event.Event) (of, chosen bool) {
		return body.Query.Matches(e), e.Position > body.After
	})
}

// answer writes a page of the events that match says are chosen of those that
// the read is of.
func (f *fakeLog) answer(w http.ResponseWriter, r *http.Request, name string, match func(*event.Event) (of, chosen bool)) {
	f.mu.Lock()
	defer func() {
		f.mu.Unlock()
		if f.after != nil {
			f.after(name)
		}
	}()
	f.reads = append(f.reads, name)
	at, err := strconv.Atoi(r.FormValue("at_position"))
	if err != nil {
		at = len(f.events)
	}
	w.Header().Set(headerPosition, strconv.Itoa(at))
	w.Header().Set(headerLog, f.log)
	var version, left uint64
	var page []string
	next := ""
	for i := range f.events[:at] {
		e := &f.events[i]
		of, chosen := match(e)
		if of {
			version = e.Version
		}
		if !of || !chosen {
			continue
		}
		if len(page) < f.page {
			page = append(page, string(event.AppendJSON(nil, e)))
			next = fmt.Sprintf(`,"next":"%s?at_position=%d&after=%d&from=%d"`, r.URL.EscapedPath(), at, e.Position, e.Version+1)
		} else {
			left++
		}
	}
	if r.PathValue("stream") != "" && version == 0 {
		problem(w, 404, CodeNotFound, "")
		return
	}
	if left == 0 {
		next = fmt.Sprintf(`,"head":%d`, at)
	}
	fmt.Fprintf(w, `{"events":[%s],"version":%d%s}`, strings.Join(page, ","), version, next)
}

// follow serves server-sent events from Last-Event-ID on. A node of another log
// than the follower's refuses it.
func (f *fakeLog) follow(w http.ResponseWriter, r *http.Request) {
	number, log, _ := strings.Cut(r.Header.Get("Last-Event-ID"), "@")
	after, _ := strconv.Atoi(number)
	f.mu.Lock()
	is := f.log
	f.mu.Unlock()
	if log != "" && log != is {
		problem(w, 409, CodeLogChanged, fmt.Sprintf(`,"log":%q`, is))
		return
	}
	w.Header().Set(headerLog, is)
	types := r.URL.Query()["type"]
	for caughtUp := false; ; caughtUp = true {
		f.mu.Lock()
		events, grown := slices.Clone(f.events[min(after, len(f.events)):]), f.grown
		f.mu.Unlock()
		for i := range events {
			if len(types) == 0 || slices.Contains(types, events[i].Type) {
				fmt.Fprintf(w, "id: %d@%s\ndata: %s\n\n", events[i].Position, is, event.AppendJSON(nil, &events[i]))
			}
		}
		after += len(events)
		if !caughtUp {
			fmt.Fprintf(w, "event: caught_up\ndata: {\"position\":%d}\n\n", after)
		}
		_ = http.NewResponseController(w).Flush()
		select {
		case <-grown:
		case <-r.Context().Done():
			return
		case <-time.After(5 * time.Second):
			abort()
		}
	}
}
