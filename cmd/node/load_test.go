package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// load is clients that append as fast as their pace allows, each to streams of
// its own, with ids they chose and the version they expect. A client repeats an
// append until it has a definite answer, on whichever node has one.
type load struct {
	t       *testing.T
	c       *group
	writers []*writer
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	acked   atomic.Uint64 // appends, of all writers
}

// writer is one client. Its fields are its goroutine's until the load is
// stopped.
type writer struct {
	number  int
	steps   uint64   // appends acknowledged
	acked   []record // events acknowledged, as the answers told
	pending []string // ids of the append whose fate was open at the end
	retried int
}

// startLoad starts n clients with a pause between two appends of each.
func startLoad(t *testing.T, c *group, n int, pause time.Duration) *load {
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{t: t, c: c, cancel: cancel}
	for i := range n {
		w := &writer{number: i}
		l.writers = append(l.writers, w)
		l.wg.Go(func() {
			for sleep(ctx, pause) && w.step(ctx, l) {
			}
		})
	}
	t.Cleanup(l.stop)
	return l
}

// stop ends the clients, at the latest after what they have under way.
func (l *load) stop() {
	l.cancel()
	l.wg.Wait()
}

// progress waits until n more appends were acknowledged.
func (l *load) progress(n uint64) {
	l.t.Helper()
	goal := l.acked.Load() + n
	eventually(l.t, 20*time.Second, func() bool { return l.acked.Load() >= goal },
		func() string { return fmt.Sprintf("%d appends are missing", goal-l.acked.Load()) })
}

// padding makes an event some 250 bytes, so that small segments fill soon.
var padding = strings.Repeat("x", 120)

// request is the k-th append of a writer: every fourth goes to two streams at
// once, the others to one.
func (w *writer) request() (path, body string, header []string, want []record) {
	k := w.steps + 1
	main := fmt.Sprintf("load-%d", w.number)
	event := func(stream, suffix string) string {
		id := fmt.Sprintf("w%d-%d%s", w.number, k, suffix)
		version := k
		if suffix != "" {
			version = k / 4
		}
		want = append(want, record{Stream: stream, ID: id, Version: version})
		return fmt.Sprintf(`"type":"Tick","id":%q,"tags":["writer:%d"],"data":{"k":%d,"pad":%q}`, id, w.number, k, padding)
	}
	if k%4 == 0 {
		side := fmt.Sprintf("side-%d", w.number)
		body = fmt.Sprintf(`{"events":[{"stream":%q,%s},{"stream":%q,%s}],"conditions":[{"stream":%q,"version":%d}]}`,
			main, event(main, ""), side, event(side, "-side"), main, k-1)
		return "/v1/append", body, nil, want
	}
	header = []string{"If-Match", fmt.Sprintf("%q", fmt.Sprint(k-1))}
	if k == 1 {
		header = []string{"If-None-Match", "*"}
	}
	return "/v1/streams/" + main + "/events", "{" + event(main, "") + "}", header, want
}

// step appends once, until it knows the outcome. It reports whether the writer
// may go on.
func (w *writer) step(ctx context.Context, l *load) bool {
	path, body, header, want := w.request()
	for try := w.number; ; try++ {
		node := l.c.nodes[try%len(l.c.nodes)]
		attempt, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		a, err := node.request(attempt, http.MethodPost, path, body, header...)
		cancel()
		if err == nil && (a.status == http.StatusCreated || a.status == http.StatusOK) {
			w.take(l.t, a, want)
			l.acked.Add(1)
			return true
		}
		// A refusal can't be right: nobody else writes to these streams, and a
		// repeated append is known by its ids.
		if err == nil && a.status < 500 {
			l.t.Errorf("writer %d, %s to %s: %s", w.number, want[0].ID, node.name, a)
			return false
		}
		w.retried++
		if !sleep(ctx, 10*time.Millisecond) {
			for _, r := range want {
				w.pending = append(w.pending, r.ID)
			}
			return false
		}
	}
}

// take notes what an answer acknowledges.
func (w *writer) take(t *testing.T, a answer, want []record) {
	var got struct {
		FirstPosition uint64            `json:"first_position"`
		LastPosition  uint64            `json:"last_position"`
		Versions      map[string]uint64 `json:"versions"`
		Time          string            `json:"time"`
	}
	if err := json.Unmarshal(a.body, &got); err != nil {
		t.Errorf("answer to an append: %v in %s", err, a)
	}
	for i := range want {
		want[i].Position = got.FirstPosition + uint64(i)
		want[i].Time = got.Time
		if v := got.Versions[want[i].Stream]; v != want[i].Version {
			t.Errorf("append of %s: version %d, want %d: %s", want[i].ID, v, want[i].Version, a)
		}
	}
	if last := want[len(want)-1].Position; last != got.LastPosition {
		t.Errorf("append of %s: last position %d, want %d: %s", want[0].ID, got.LastPosition, last, a)
	}
	w.acked = append(w.acked, want...)
	w.steps++
}

// check compares a log that was read with what was acknowledged: no gaps, every
// acknowledged event exactly once where the answer said, and nothing that
// nobody appended.
func (l *load) check(log []record) error {
	byID := map[string]record{}
	versions := map[string]uint64{}
	var before time.Time
	for i, r := range log {
		if r.Position != uint64(i)+1 {
			return fmt.Errorf("event %d of the log has position %d", i+1, r.Position)
		}
		if versions[r.Stream]++; versions[r.Stream] != r.Version {
			return fmt.Errorf("position %d: version %d of %s, want %d", r.Position, r.Version, r.Stream, versions[r.Stream])
		}
		now, err := time.Parse(time.RFC3339Nano, r.Time)
		if err != nil || now.Before(before) {
			return fmt.Errorf("position %d: time %s after %s, %v", r.Position, r.Time, before, err)
		}
		before = now
		if strings.HasPrefix(r.Stream, "$") {
			continue
		}
		if old, twice := byID[r.ID]; twice {
			return fmt.Errorf("%s is in the log twice: positions %d and %d", r.ID, old.Position, r.Position)
		}
		byID[r.ID] = r
	}
	for _, w := range l.writers {
		for _, want := range w.acked {
			got, ok := byID[want.ID]
			if !ok {
				return fmt.Errorf("acknowledged %s (position %d) is lost", want.ID, want.Position)
			}
			if got.Position != want.Position || got.Version != want.Version || got.Stream != want.Stream || got.Time != want.Time {
				return fmt.Errorf("acknowledged %+v is %+v in the log", want, got)
			}
			delete(byID, want.ID)
		}
		for _, id := range w.pending {
			delete(byID, id)
		}
	}
	if len(byID) > 0 {
		return fmt.Errorf("%d events in the log that nobody appended: %v", len(byID), byID)
	}
	return nil
}

// checkNodes reads the log of every node up to the same position and checks
// it; all must have given the same bytes.
func (l *load) checkNodes() {
	l.t.Helper()
	head := l.c.leader().head()
	var first []byte
	for i, p := range l.c.nodes {
		log, raw := p.readAll(head)
		if i == 0 {
			if err := l.check(log); err != nil {
				l.t.Fatal(err)
			}
			first = raw
			l.t.Logf("%d appends acknowledged, %d tries repeated, %d events in the log", l.acked.Load(), l.retried(), len(log))
			continue
		}
		if string(raw) != string(first) {
			l.t.Fatalf("%s reads the log differently from %s: %d and %d bytes", p.name, l.c.nodes[0].name, len(raw), len(first))
		}
	}
}

func (l *load) retried() (n int) {
	for _, w := range l.writers {
		n += w.retried
	}
	return n
}

// A check that cannot fail proves nothing: each kind of fault must be seen.
func TestCheck_SeesFaults(t *testing.T) {
	at := func(position, version uint64, id string) record {
		return record{Position: position, Version: version, Stream: "load-0", ID: id, Time: "2026-01-01T00:00:00Z"}
	}
	good := []record{at(1, 1, "a"), at(2, 2, "b")}
	early := at(2, 2, "b")
	early.Time = "2025-01-01T00:00:00.5Z"
	for name, tt := range map[string]struct {
		log    []record
		passes bool
	}{
		"as acknowledged": {good, true},
		"lost":            {good[:1], false},
		"gap":             {[]record{at(1, 1, "a"), at(3, 2, "b")}, false},
		"version gap":     {[]record{at(1, 1, "a"), at(2, 3, "b")}, false},
		"twice":           {append(good[:2:2], at(3, 3, "a")), false},
		"moved":           {[]record{at(1, 1, "b"), at(2, 2, "a")}, false},
		"time backwards":  {[]record{at(1, 1, "a"), early}, false},
		"from nowhere":    {append(good[:2:2], at(3, 3, "c")), false},
	} {
		l := &load{writers: []*writer{{acked: good}}}
		if err := l.check(tt.log); (err == nil) != tt.passes {
			t.Errorf("%s: %v", name, err)
		}
	}
}
