package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"cairn/event"
)

// script serves one connection of a follower after the other, each from its
// own text; the last one goes on until the client leaves.
type script struct {
	mu       sync.Mutex
	texts    []string
	log      string
	requests []string // URI and Last-Event-ID of each
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	i := len(s.requests)
	s.requests = append(s.requests, r.URL.RequestURI()+" "+r.Header.Get("Last-Event-ID"))
	s.mu.Unlock()
	text := s.texts[min(i, len(s.texts)-1)]
	if code, ok := strings.CutPrefix(text, "problem "); ok {
		problem(w, map[string]int{CodeNoLeader: 503, CodeLogChanged: 409}[code], code, "")
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set(headerLog, s.log)
	_, _ = io.WriteString(w, text)
	_ = http.NewResponseController(w).Flush()
	if i >= len(s.texts)-1 {
		<-r.Context().Done()
		return
	}
	abort()
}

func messages(from, to uint64) string {
	var b strings.Builder
	for p := from; p <= to; p++ {
		fmt.Fprintf(&b, "id: %d@L\ndata: %s\n\n", p, readEvent(p))
	}
	return b.String()
}

// collect follows until event number last.
func collect(t *testing.T, c *Client, o FollowOptions, last uint64) ([]uint64, error) {
	t.Helper()
	var got []uint64
	for e, err := range c.Follow(testContext(t), o) {
		if err != nil {
			return got, err
		}
		got = append(got, e.Position)
		if e.Position == last {
			break
		}
	}
	return got, nil
}

// Whatever breaks, each event is delivered once and in order.
func TestFollow_Resumes(t *testing.T) {
	s := &script{log: "L", texts: []string{
		messages(1, 3),
		messages(4, 5) + "id: 6@L\ndata: {\"posit", // cut in the middle of a message
		"problem no-leader",
		messages(4, 7) + "event: caught_up\ndata: {\"position\":8}\n\n", // a node that repeats
		": comment\n\nid: 20@L\n\n",                                     // nothing up to 20 matches
		"event: of-a-newer-server\ndata: x\n\n" + messages(21, 23),
	}}
	node := serve(t, s.ServeHTTP)
	var caughtUp, progress []uint64
	interrupted := 0
	got, err := collect(t, newClient(t, nil, node), FollowOptions{
		Filter:   event.Filter{Category: "c"},
		CaughtUp: func(p uint64) { caughtUp = append(caughtUp, p) },
		Progress: func(p uint64, log string) {
			if log != "L" {
				t.Errorf("log %q", log)
			}
			progress = append(progress, p)
		},
		Interrupted: func(err error) {
			if err == nil {
				t.Error("interrupted without an error")
			}
			interrupted++
		},
	}, 23)
	if want := append(positions(1, 7), 21, 22, 23); err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	want := []string{"/v1/events?category=c ", "/v1/events?category=c 3@L", "/v1/events?category=c 5@L",
		"/v1/events?category=c 5@L", "/v1/events?category=c 8@L", "/v1/events?category=c 20@L"}
	if !slices.Equal(s.requests, want) {
		t.Errorf("got  %q\nwant %q", s.requests, want)
	}
	if !slices.Equal(caughtUp, []uint64{8}) || interrupted != 5 || !slices.Equal(progress, append(positions(1, 8), 20, 21, 22)) {
		t.Errorf("caught up %v, interrupted %d times, progress %v", caughtUp, interrupted, progress)
	}
}

func TestFollow_Start(t *testing.T) {
	tests := []struct {
		name string
		o    FollowOptions
		want string
	}{
		{"all", FollowOptions{}, "/v1/events "},
		{"stream", FollowOptions{Filter: event.Filter{Stream: "a/b"}}, "/v1/streams/a%2Fb/events "},
		{"after", FollowOptions{After: 2, Local: true}, "/v1/events?consistency=local 2"},
		{"after of a log", FollowOptions{After: 2, Log: "L"}, "/v1/events 2@L"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := &script{log: "L", texts: []string{messages(test.o.After+1, 3)}}
			got, err := collect(t, newClient(t, nil, serve(t, s.ServeHTTP)), test.o, 3)
			if err != nil || !slices.Equal(got, positions(test.o.After+1, 3)) || s.requests[0] != test.want {
				t.Errorf("got %v, %v, %q", got, err, s.requests)
			}
		})
	}
	_, err := collect(t, newClient(t, nil, "h:1"), FollowOptions{Filter: event.Filter{Stream: "a", Category: "c"}}, 1)
	if err == nil {
		t.Error("stream and category: no error")
	}
}

// Positions of another log are never taken for those of this one.
func TestFollow_LogChanged(t *testing.T) {
	tests := []struct {
		name string
		log  string // in the header
		text string
	}{
		{"refused", "L", "problem log-changed"},
		{"header", "M", messages(4, 9)},
		{"message", "", strings.ReplaceAll(messages(4, 9), "@L", "@M")},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := &script{log: test.log, texts: []string{test.text}}
			got, err := collect(t, newClient(t, nil, serve(t, s.ServeHTTP)), FollowOptions{After: 3, Log: "L"}, 9)
			if !IsLogChanged(err) || len(got) > 0 {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

func TestFollow_Nonsense(t *testing.T) {
	for _, text := range []string{"data: {\n\n", "id: x\n\n", "event: caught_up\ndata: x\n\n"} {
		s := &script{log: "L", texts: []string{text}}
		_, err := collect(t, newClient(t, nil, serve(t, s.ServeHTTP)), FollowOptions{}, 1)
		var invalid *invalidStreamError
		if !errors.As(err, &invalid) {
			t.Errorf("%q: got %v", text, err)
		}
	}
}

// A node that is frozen says nothing, but keeps the connection open.
func TestFollow_Silence(t *testing.T) {
	frozen := serve(t, (&script{log: "L", texts: []string{messages(1, 2)}}).ServeHTTP)
	other := serve(t, (&script{log: "L", texts: []string{messages(1, 5)}}).ServeHTTP)
	c := newClient(t, nil, frozen, other)
	c.silence = 50 * time.Millisecond
	var why error
	got, err := collect(t, c, FollowOptions{Interrupted: func(err error) { why = err }}, 5)
	if err != nil || !slices.Equal(got, positions(1, 5)) || why == nil || !strings.Contains(why.Error(), "silent") {
		t.Errorf("got %v, %v, interrupted by %v", got, err, why)
	}
}

func TestFollow_ContextDone(t *testing.T) {
	node := serve(t, (&script{log: "L", texts: []string{messages(1, 1)}}).ServeHTTP)
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	var last error
	for _, err := range newClient(t, nil, node).Follow(ctx, FollowOptions{}) {
		cancel() // after the only event
		last = err
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("got %v", last)
	}
}

func TestMessageReader(t *testing.T) {
	long := strings.Repeat("x", 30_000)
	text := "\n: comment\nid: 5@L\ndata: a\ndata:b\r\n\r\n\nid:6\n\nevent: e\ndata: " + long + "\n\nfield\nretry: 3\n\ndata: cut"
	for name, r := range map[string]io.Reader{"whole": strings.NewReader(text), "bytes": iotest.OneByteReader(strings.NewReader(text))} {
		t.Run(name, func(t *testing.T) {
			m := messageReader{r: bufio.NewReaderSize(r, 16)}
			for _, want := range []message{{id: "5@L", data: []byte("a\nb")}, {id: "6"}, {event: "e", data: []byte(long)}} {
				got, err := m.next()
				if err != nil || got.id != want.id || got.event != want.event || string(got.data) != string(want.data) {
					t.Fatalf("got %.80v, %v; want %.80v", got, err, want)
				}
			}
			if _, err := m.next(); err != io.EOF {
				t.Errorf("got %v at the end", err)
			}
		})
	}
}
