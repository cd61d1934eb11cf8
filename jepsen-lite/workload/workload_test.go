package workload

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cairn/client"
	"cairn/jepsen-lite/history"
)

func TestOutcome(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want history.Outcome
		code string
	}{
		{nil, history.OK, ""},
		{&client.Problem{Code: client.CodeConditionFailed}, history.Refused, "condition-failed"},
		{&client.UnavailableError{Err: &client.Problem{Code: client.CodeNoLeader}}, history.Refused, "no-leader"},
		{&client.UnavailableError{Err: errors.New("refused")}, history.Refused, "unavailable"},
		{&client.UnknownError{Err: errors.New("timeout")}, history.Unknown, "outcome-unknown"},
		{errors.New("what is this"), history.Unknown, "broken"},
		{context.DeadlineExceeded, history.Unknown, "broken"},
	} {
		if o, code, _ := outcome(tt.err); o != tt.want || code != tt.code {
			t.Errorf("%v is %s %q, want %s %q", tt.err, o, code, tt.want, tt.code)
		}
	}
}

func TestAmount(t *testing.T) {
	a := testActor(t)
	for _, n := range []int64{0, 7, -300, 1 << 40} {
		if e := a.event("s", "T", n, 10); amount(e.Data) != n || !json.Valid(e.Data) {
			t.Errorf("%d comes back as %d of %s", n, amount(e.Data), e.Data)
		}
	}
	if amount([]byte(`null`)) != 0 || amount(nil) != 0 {
		t.Error("found an amount where none is")
	}
}

func testActor(t *testing.T, urls ...string) *actor {
	t.Helper()
	recorder, err := history.NewRecorder("")
	if err != nil {
		t.Fatal(err)
	}
	r := &Run{opts: Options{Seed: 1, Recorder: recorder}}
	for i, url := range urls {
		r.opts.Nodes = append(r.opts.Nodes, Node{fmt.Sprint("n", i+1), url})
	}
	return r.newActor(1, "test", &group{})
}

// fakeLog is a node that gives five events, one at a time, and breaks each
// connection after two.
type fakeLog struct {
	connections atomic.Int64
	mu          sync.Mutex
	asked       []string // under mu; after which position, by Last-Event-ID or query
}

func (f *fakeLog) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.connections.Add(1)
	sse := r.Header.Get("Accept") == "text/event-stream"
	after := r.URL.Query().Get("after")
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		after, _, _ = strings.Cut(id, "@")
	}
	f.mu.Lock()
	f.asked = append(f.asked, after)
	f.mu.Unlock()
	var from int
	_, _ = fmt.Sscan(after, &from)
	for p := from + 1; p <= min(5, from+2); p++ {
		e := fmt.Sprintf(`{"position":%d,"stream":"s","version":%d,"time":"2026-01-02T03:04:05Z","type":"T","id":"%d","data":{"n":1,"amount":%d,"ballast":""}}`, p, p, p, p)
		if sse {
			fmt.Fprintf(w, "id: %d@log\ndata: %s\n\n", p, e)
		} else {
			fmt.Fprintf(w, "%s\n", e)
		}
	}
	switch {
	case from+2 < 5:
	case sse:
		io.WriteString(w, "event: caught_up\nid: 5@log\ndata: {\"position\":5}\n\n")
	default:
		io.WriteString(w, "{\"caught_up\":{\"position\":5}}\n")
	}
}

// A follower goes on where it got to, whatever the form, and knows when it has
// everything.
func TestFollower_Reconnects(t *testing.T) {
	for _, form := range []string{"sse", "ndjson"} {
		log := &fakeLog{}
		server := httptest.NewServer(log)
		a := testActor(t, server.URL)
		r := a.of
		r.follow(t.Context())
		var f *follower
		for _, other := range r.followers {
			if other.who.Form == form && f == nil {
				f = other
			} else {
				other.stop()
				<-other.ended
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		who := f.finish(ctx, 5)
		cancel()
		server.Close()
		if !who.Done || who.Through < 5 {
			t.Errorf("%s: through %d, done %t", form, who.Through, who.Done)
		}
		h, err := r.opts.Recorder.Finish(history.History{})
		if err != nil {
			t.Fatal(err)
		}
		next := uint64(1)
		for _, d := range h.Deliveries {
			if d.Follower != who.ID {
				continue
			}
			if d.Event.Position != next || d.Event.Amount != int64(next) {
				t.Errorf("%s: delivery %+v, want position %d", form, d.Event, next)
			}
			next++
		}
		if next != 6 {
			t.Errorf("%s: was given %d events", form, next-1)
		}
	}
}

// Messages of several fields, and none of which it has to make anything.
func TestFollower_Messages(t *testing.T) {
	a := testActor(t, "http://unused")
	f := &follower{of: a.of}
	beat := "id: 9@log\n\n"
	if err := f.messages("n1", bufio.NewScanner(strings.NewReader(beat))); err != nil || f.through != 9 || f.lastID != "9@log" {
		t.Errorf("after a heartbeat: through %d, %v", f.through, err)
	}
	if err := f.messages("n1", bufio.NewScanner(strings.NewReader("id: x\ndata: {}\n\n"))); err == nil {
		t.Error("took a message without position")
	}
	if err := f.line("n1", []byte(`{"other":1}`)); err == nil {
		t.Error("took a line that is nothing")
	}
}
