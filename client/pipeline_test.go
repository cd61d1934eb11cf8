package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"
	"time"

	"cairn/event"
)

// numbered yields n appends with the ids 0, 1, … .
func numbered(n int) iter.Seq[event.Append] {
	return func(yield func(event.Append) bool) {
		for i := range n {
			if !yield(event.Append{Events: []event.Event{{Stream: "a", Type: "T", ID: fmt.Sprint(i)}}}) {
				return
			}
		}
	}
}

// checkAll sends n lines and checks that each is answered, and in the log,
// once and in order.
func checkAll(t *testing.T, c *Client, l *lineLog, n int, o PipelineOptions) {
	t.Helper()
	next := 0
	for out, err := range c.AppendStream(testContext(t), numbered(n), o) {
		if err != nil {
			t.Fatal(err)
		}
		if out.Err != nil || out.Line != next || out.Result.Last != uint64(next+1) || out.Result.IDs[0] != fmt.Sprint(next) {
			t.Fatalf("got %+v, want line %d", out, next)
		}
		next++
	}
	ids, _ := l.seen()
	if next != n || len(ids) != n {
		t.Fatalf("%d outcomes, %d in the log, want %d", next, len(ids), n)
	}
	for i, id := range ids {
		if id != fmt.Sprint(i) {
			t.Fatalf("event %d has the id %s", i, id)
		}
	}
}

func TestAppendStream(t *testing.T) {
	for _, o := range []PipelineOptions{{}, {Window: 1}, {Window: 7, OneByOne: true}, {WindowBytes: 1}} {
		t.Run(fmt.Sprintf("%+v", o), func(t *testing.T) {
			l := &lineLog{}
			var target string
			node := serve(t, func(w http.ResponseWriter, r *http.Request) {
				target = r.URL.RequestURI()
				l.serveLines(w, r)
			})
			checkAll(t, newClient(t, nil, node), l, 300, o)
			if want := map[bool]string{false: "/v1/append?on_error=continue", true: "/v1/append"}[o.OneByOne]; target != want {
				t.Errorf("got %s, want %s", target, want)
			}
			if _, sent := l.seen(); sent != 300 {
				t.Errorf("%d lines were sent", sent)
			}
		})
	}
}

func TestAppendStream_NoLines(t *testing.T) {
	for out, err := range newClient(t, nil, deadNode(t)).AppendStream(testContext(t), numbered(0), PipelineOptions{}) {
		t.Errorf("got %+v, %v", out, err)
	}
}

// Connections break, before a line is in the log or after; leaders change;
// nodes are overloaded. Each line is in the log once, and in order.
func TestAppendStream_Faults(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	faults := []string{"break", "break-after",
		`{"type":"urn:cairn:error:overloaded","status":503}`, `{"type":"urn:cairn:error:outcome-unknown","status":504}`,
		`{"type":"urn:cairn:error:not-attempted","status":409}`, "nonsense"}
	seen := map[string]int{}
	l := &lineLog{}
	failing := "" // a node that can't serve a line serves none behind it
	l.fault = func(_ int, id string) string {
		if slices.Contains(l.ids, id) { // its answer was lost
			return ""
		}
		if failing != "" && failing != id {
			return "break"
		}
		failing = ""
		if random.IntN(25) > 0 {
			return ""
		}
		fault := faults[random.IntN(len(faults))]
		if fault != "break-after" {
			failing = id
		}
		seen[fault]++
		return fault
	}
	interrupted := 0
	c := newClient(t, nil, deadNode(t), serve(t, l.serveLines), serve(t, l.serveLines))
	checkAll(t, c, l, 1000, PipelineOptions{Window: 16, Interrupted: func(error) { interrupted++ }})
	if _, sent := l.seen(); len(seen) != len(faults) || interrupted < 10 || sent <= 1000 {
		t.Errorf("faults %v, %d interruptions, %d lines sent: that proves nothing", seen, interrupted, sent)
	}
}

func TestAppendStream_RefusedLines(t *testing.T) {
	l := &lineLog{fault: func(_ int, id string) string {
		if id == "3" {
			return `{"type":"urn:cairn:error:id-reused","status":409,"detail":"taken"}`
		}
		return ""
	}}
	lines := func(yield func(event.Append) bool) {
		for i := range 8 {
			e := event.Event{Stream: "a", Type: "T", ID: fmt.Sprint(i)}
			if i == 0 || i == 5 || i == 7 {
				e.Type = "\xff" // can't be sent
			}
			if !yield(event.Append{Events: []event.Event{e}}) {
				return
			}
		}
	}
	var failed []int
	n := 0
	for out, err := range newClient(t, nil, serve(t, l.serveLines)).AppendStream(testContext(t), lines, PipelineOptions{}) {
		if err != nil || out.Line != n {
			t.Fatalf("got %+v, %v", out, err)
		}
		n++
		if out.Err != nil {
			failed = append(failed, out.Line)
		}
		if out.Line == 3 && !IsConflict(out.Err) {
			t.Errorf("got %v", out.Err)
		}
	}
	ids, _ := l.seen()
	if n != 8 || !slices.Equal(failed, []int{0, 3, 5, 7}) || !slices.Equal(ids, []string{"1", "2", "4", "6"}) {
		t.Errorf("%d outcomes, failed %v, log %v", n, failed, ids)
	}
}

// A line that can't be sent comes while the next answer is awaited: that answer
// is not taken for its own.
func TestAppendStream_UnsendableMeanwhile(t *testing.T) {
	l := &lineLog{}
	answered := make(chan struct{})
	lines := func(yield func(event.Append) bool) {
		for i, typ := range []string{"T", "\xff", "T"} {
			if i == 1 {
				<-answered
				time.Sleep(20 * time.Millisecond) // until the receiver waits again
			}
			if !yield(event.Append{Events: []event.Event{{Stream: "a", Type: typ, ID: fmt.Sprint(i)}}}) {
				return
			}
		}
	}
	n := 0
	for out, err := range newClient(t, nil, serve(t, l.serveLines)).AppendStream(testContext(t), lines, PipelineOptions{}) {
		if err != nil || out.Result.IDs[0] != fmt.Sprint(n) || (out.Err != nil) != (n == 1) {
			t.Fatalf("outcome %d: %+v, %v", n, out, err)
		}
		if n++; n == 1 {
			close(answered)
		}
	}
	if n != 3 {
		t.Errorf("%d outcomes", n)
	}
}

func TestAppendStream_Stalled(t *testing.T) {
	l := &lineLog{}
	stalled := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	c := newClient(t, func(c *Config) { c.AttemptTimeout = 50 * time.Millisecond }, stalled, serve(t, l.serveLines))
	checkAll(t, c, l, 100, PipelineOptions{})
}

// Lines that come slowly are no stall.
func TestAppendStream_SlowInput(t *testing.T) {
	l := &lineLog{}
	c := newClient(t, func(c *Config) { c.AttemptTimeout = 300 * time.Millisecond }, serve(t, l.serveLines))
	slow := func(yield func(event.Append) bool) {
		for a := range numbered(3) {
			time.Sleep(400 * time.Millisecond) // that time passes is what is tested
			if !yield(a) {
				return
			}
		}
	}
	for out, err := range c.AppendStream(testContext(t), slow, PipelineOptions{Interrupted: func(err error) { t.Errorf("interrupted: %v", err) }}) {
		if err != nil || out.Err != nil {
			t.Fatal(out, err)
		}
	}
	if ids, _ := l.seen(); len(ids) != 3 {
		t.Errorf("log %v", ids)
	}
}

func TestAppendStream_GivesUp(t *testing.T) {
	tests := []struct {
		name    string
		handler http.HandlerFunc
		check   func(error) bool
	}{
		{"refused", nil, IsUnavailable},
		{"unanswered", func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.ReadFull(r.Body, make([]byte, 1))
			abort()
		}, func(err error) bool {
			var unknown *UnknownError
			return errors.As(err, &unknown) && slices.Contains(unknown.IDs, "0")
		}},
		{"http/1.1 only", func(w http.ResponseWriter, r *http.Request) { problem(w, 415, CodeMediaType, "") },
			func(err error) bool { return codeOf(err) == CodeMediaType }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			node := deadNode(t)
			if test.handler != nil {
				node = serve(t, test.handler)
			}
			c := newClient(t, func(c *Config) { c.RetryFor = 20 * time.Millisecond }, node)
			var last error
			for out, err := range c.AppendStream(testContext(t), numbered(50), PipelineOptions{}) {
				if last = err; err == nil {
					t.Errorf("got %+v", out)
				}
			}
			if last == nil || !test.check(last) {
				t.Errorf("got %v", last)
			}
		})
	}
}

func TestAppendStream_Leave(t *testing.T) {
	l := &lineLog{}
	c := newClient(t, nil, serve(t, l.serveLines))
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	n := 0
	var last error
	for _, err := range c.AppendStream(ctx, numbered(1<<30), PipelineOptions{Window: 4}) {
		if n++; n == 10 {
			cancel()
		}
		last = err
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("got %v", last)
	}
	for range c.AppendStream(testContext(t), numbered(1<<30), PipelineOptions{}) {
		break
	}
	if _, sent := l.seen(); sent > 5000 {
		t.Errorf("%d lines were sent", sent)
	}
}
