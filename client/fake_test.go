package client

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"cairn/event"
)

// serve starts a node that answers with handler, over HTTP/1.1 and h2c.
func serve(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewUnstartedServer(handler)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s.URL
}

// deadNode returns an address at which nobody listens.
func deadNode(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

// newClient returns an impatient client that keeps to nodes.
func newClient(t *testing.T, change func(*Config), nodes ...string) *Client {
	t.Helper()
	cfg := Config{Nodes: nodes, Fixed: true, MinBackoff: time.Millisecond, MaxBackoff: 5 * time.Millisecond, RetryFor: 5 * time.Second}
	if change != nil {
		change(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// problem answers with a problem document; members are written as given.
func problem(w http.ResponseWriter, status int, code, members string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"type":"urn:cairn:error:%s","title":"T","status":%d,"detail":"what happened"%s}`, code, status, members)
}

const accepted = `{"first_position":5,"last_position":6,"version":3,"versions":{"a":3},"time":"2026-01-02T03:04:05.000000006Z","duplicate":false}`

// abort closes the connection without an answer.
func abort() { panic(http.ErrAbortHandler) }

// readEvent is the read form of the event at a position.
func readEvent(position uint64) string {
	return string(event.AppendJSON(nil, &event.Event{Position: position, Version: position, Time: int64(position), Stream: "a",
		Type: "T", ID: fmt.Sprint("id-", position), Data: fmt.Appendf(nil, `{"n":%d}`, position)}))
}

func positions(from, to uint64) []uint64 {
	var list []uint64
	for p := from; p <= to; p++ {
		list = append(list, p)
	}
	return list
}

// lineLog is the log behind fake nodes that take NDJSON appends.
type lineLog struct {
	mu    sync.Mutex
	ids   []string // of the events, in order
	sent  int      // lines that came, repetitions too
	fault func(line int, id string) string
}

type lineRequest struct {
	Events []struct{ Stream, Type, ID string }
}

// take adds one line and returns its answer, "" to break the connection.
func (l *lineLog) take(raw []byte) string {
	var r lineRequest
	if err := json.Unmarshal(raw, &r); err != nil {
		return `{"type":"urn:cairn:error:invalid-request","status":400,"detail":"bad line"}`
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent++
	id := r.Events[0].ID
	if l.fault != nil {
		switch answer := l.fault(l.sent, id); answer {
		case "":
		case "break":
			return ""
		case "break-after":
			l.addLocked(id)
			return ""
		default:
			return answer
		}
	}
	at, duplicate := l.addLocked(id)
	status := 201
	if duplicate {
		status = 200
	}
	return fmt.Sprintf(`{"status":%d,"first_position":%d,"last_position":%d,"version":%d,"versions":{"a":%d},"time":"2026-01-02T03:04:05Z","duplicate":%v}`,
		status, at, at, at, at, duplicate)
}

func (l *lineLog) addLocked(id string) (int, bool) {
	if i := slices.Index(l.ids, id); i >= 0 {
		return i + 1, true
	}
	l.ids = append(l.ids, id)
	return len(l.ids), false
}

// seen returns the ids in the log and how many lines came.
func (l *lineLog) seen() ([]string, int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.ids), l.sent
}

// serveLines is the handler of a node that takes NDJSON appends.
func (l *lineLog) serveLines(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor != 2 {
		problem(w, 400, "invalid-request", "")
		return
	}
	control := http.NewResponseController(w)
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	_ = control.Flush()
	lines := bufio.NewScanner(r.Body)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		answer := l.take(lines.Bytes())
		if answer == "" {
			abort()
		}
		fmt.Fprintln(w, answer)
		_ = control.Flush()
	}
}
