package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"cairn/event"
)

// dial opens a bare connection and sends text over it.
func (ts *testServer) dial(text string) net.Conn {
	ts.t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(ts.url, "http://"))
	if err != nil {
		ts.t.Fatal(err)
	}
	ts.t.Cleanup(func() { c.Close() })
	if _, err := io.WriteString(c, text); err != nil {
		ts.t.Fatal(err)
	}
	return c
}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it never came to this: %s", what)
		}
	}
}

// A body that comes too slowly is given up, whatever the protocol; nothing of
// it is written.
func TestSlow_Body(t *testing.T) {
	store := newFakeStore()
	ts := serve(t, store, func(o *Options) { o.BodyTimeout = 50 * time.Millisecond })
	c := ts.dial("POST /v1/streams/a/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n{\"type\":")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 503 || !resp.Close {
		t.Errorf("status %d, close %v", resp.StatusCode, resp.Close)
	}

	r, w := io.Pipe()
	defer w.Close()
	go func() { _, _ = io.WriteString(w, `{"type":`) }()
	req, _ := http.NewRequest("POST", ts.url+"/v1/streams/a/events", r)
	req.Header.Set("Content-Type", "application/json")
	h2, err := ts.h2.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	h2.Body.Close()
	if h2.StatusCode != 503 {
		t.Errorf("status %d", h2.StatusCode)
	}
	if n := store.count(); n != 1 {
		t.Errorf("%d events were written", n-1)
	}
}

// What is announced as too long is refused before it comes.
func TestSlow_TooLongIsRefusedAtOnce(t *testing.T) {
	ts := serve(t, newFakeStore())
	c := ts.dial(fmt.Sprintf("POST /v1/append HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", maxBody+1))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 413 {
		t.Errorf("status %d", resp.StatusCode)
	}
}

// One byte now and then is not progress of a line.
func TestSlow_Line(t *testing.T) {
	store := newFakeStore()
	ts := serve(t, store, func(o *Options) { o.BodyTimeout = 100 * time.Millisecond })
	d := ts.duplex("/v1/append?on_error=continue")
	time.Sleep(150 * time.Millisecond) // between lines a client has all the time
	d.send(one("a"))
	d.expect(`"status":201`)
	go func() {
		for _, b := range []byte(one("a") + one("a")) {
			if _, err := d.in.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	d.expect("urn:cairn:error:timeout")
	if d.answers.Scan() {
		t.Errorf("more came: %s", d.answers.Text())
	}
	if n := store.count(); n != 2 {
		t.Errorf("%d events were written", n-1)
	}
	eventually(t, "the stream is gone", func() bool { return ts.streams.Load() == 0 })
}

// A client that never reads is given up, and slows nobody meanwhile.
func TestSlow_NeverReads(t *testing.T) {
	store := newFakeStore()
	for range 40 {
		store.add(event.Event{Stream: "a", Type: "T", Data: []byte(`"` + strings.Repeat("x", 1<<20-2) + `"`)})
	}
	ts := serve(t, store, func(o *Options) { o.StallTimeout = 200 * time.Millisecond })
	for _, path := range []string{"/v1/events?follow=true", "/v1/events", "/v1/events?limit=1000"} {
		accept := ""
		if !strings.Contains(path, "limit") {
			accept = "Accept: application/x-ndjson\r\n"
		}
		c := ts.dial("GET " + path + " HTTP/1.1\r\nHost: localhost\r\n" + accept + "\r\n")
		_ = c.(*net.TCPConn).SetReadBuffer(1 << 12)
	}
	eventually(t, "all are served", func() bool { return ts.streams.Load()+ts.requests.Load() > 0 })
	ts.get("/v1/streams/a/events?limit=1").check(t, 200)
	eventually(t, "all are given up", func() bool { return ts.streams.Load()+ts.requests.Load() == 0 })
}

// Nor does one of many streams of an HTTP/2 connection, or an NDJSON append
// whose answers are not read.
func TestSlow_NeverReadsHTTP2(t *testing.T) {
	store := newFakeStore()
	for range 4 {
		store.add(event.Event{Stream: "a", Type: "T", Data: []byte(`"` + strings.Repeat("x", 1<<20-2) + `"`)})
	}
	ts := serve(t, store, func(o *Options) { o.StallTimeout = 300 * time.Millisecond })
	ts.h2.Transport.(*http.Transport).HTTP2 = &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10}
	resp, err := ts.h2.Get(ts.url + "/v1/events?follow=true")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	eventually(t, "it is given up", func() bool { return ts.streams.Load() == 0 })
	resp2, err := ts.h2.Get(ts.url + "/v1/events/2")
	if err != nil {
		t.Fatal(err)
	}
	defer resp2.Body.Close()
	if n, err := io.Copy(io.Discard, resp2.Body); err != nil || n < 1<<20 {
		t.Errorf("%d bytes, %v", n, err)
	}
	d := ts.duplex("/v1/append?on_error=continue")
	go func() {
		for {
			if _, err := io.WriteString(d.in, "x\n"); err != nil {
				return
			}
		}
	}()
	eventually(t, "it is given up", func() bool { return ts.streams.Load() == 0 })
	d.in.Close()
}

// What is meant to last is not ended by the deadline for ordinary answers.
func TestServer_StreamsOutliveTheWriteTimeout(t *testing.T) {
	store := filled(3)
	ts := serveChanged(t, store, func(s *Server) { s.http.WriteTimeout = 100 * time.Millisecond })
	f, g := ts.follow(ts.h1, "/v1/events", asEventStream), ts.follow(ts.h2, "/v1/events", asEventStream)
	f.history()
	g.history()
	d := ts.duplex("/v1/append")
	time.Sleep(300 * time.Millisecond)
	d.send(one("a"))
	d.expect(`"status":201`)
	for _, f := range []*tail{f, g} {
		if m := f.message(); !strings.Contains(m, `"stream":"a"`) {
			t.Errorf("got %s", m)
		}
	}
}

// A follower that stopped reading is given up also when each write is small.
func TestSlow_NeverReadsSmallWrites(t *testing.T) {
	store := newFakeStore()
	ts := serve(t, store, func(o *Options) { o.StallTimeout = 300 * time.Millisecond })
	ts.h2.Transport.(*http.Transport).HTTP2 = &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10}
	resp, err := ts.h2.Get(ts.url + "/v1/events?follow=true")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	eventually(t, "it is given up", func() bool {
		store.add(event.Event{Stream: "a", Type: "T", Data: []byte(`"` + strings.Repeat("x", 1000) + `"`)})
		return ts.streams.Load() == 0
	})
}

// idleFollowers opens n followers that have caught up, over bare connections.
func (ts *testServer) idleFollowers(n int) {
	ts.t.Helper()
	const request = "GET /v1/events?type=Rare HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
	conns := make([]net.Conn, n)
	for i := range conns {
		conns[i] = ts.dial(request)
	}
	buf := make([]byte, 4096)
	for i, c := range conns {
		for got := ""; !strings.Contains(got, "caught_up"); {
			k, err := c.Read(buf)
			if err != nil {
				ts.t.Fatalf("follower %d: %v", i, err)
			}
			got += string(buf[:k])
		}
	}
}

// Thousands of idle followers cost little, and are not woken by what they did
// not ask for.
func TestLimits_IdleFollowers(t *testing.T) {
	const n, most = 2500, 48 << 10
	store := filled(5)
	ts := serve(t, store)
	memory := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapInuse + m.StackInuse)
	}
	before := memory()
	ts.idleFollowers(n)
	after := memory()
	each := (after - before) / n
	t.Logf("%d bytes for each of %d followers", each, n)
	if each > most && !raceEnabled {
		t.Errorf("a follower costs %d bytes, more than %d", each, most)
	}
	store.set(func() { store.selects = 0 })
	for range 200 {
		ts.post("/v1/streams/a/events", `{"type":"Often"}`).check(t, 201)
	}
	eventually(t, "the hub has seen it all", func() bool { seen, _ := ts.hub.state(); return seen == store.Applied() })
	if store.selects > 250 {
		t.Errorf("200 appends that nobody follows made for %d reads", store.selects)
	}
	ts.post("/v1/streams/a/events", `{"type":"Rare"}`).check(t, 201)
}

func TestLimits_Requests(t *testing.T) {
	store := newFakeStore()
	entered, leave := make(chan struct{}, 10), make(chan struct{})
	store.hook = func(context.Context, *event.Append) error {
		entered <- struct{}{}
		<-leave
		return nil
	}
	ts := serve(t, store, func(o *Options) { o.MaxRequests, o.MaxStreams = 2, 1 })
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { ts.post("/v1/streams/a/events", `{"type":"T"}`).check(t, 201) })
	}
	<-entered
	<-entered
	a := ts.post("/v1/streams/a/events", `{"type":"T"}`)
	a.check(t, 503, "urn:cairn:error:overloaded")
	a.checkHeader(t, "Retry-After", "1")
	close(leave)
	wg.Wait()
	// Followers and append streams have a place of their own.
	f := ts.follow(ts.h1, "/v1/events", asEventStream)
	f.history()
	ts.get("/v1/events?follow=true").check(t, 503, "urn:cairn:error:overloaded")
	ts.do("POST", "/v1/append", one("a"), isLines).check(t, 503, "urn:cairn:error:overloaded")
	ts.get("/v1/events").check(t, 200)
	f.close()
	eventually(t, "the place is free", func() bool { return ts.streams.Load() == 0 && ts.requests.Load() == 0 })
	ts.do("POST", "/v1/append", one("a"), isLines).check(t, 200)
	if n := store.count(); n != 4 {
		t.Errorf("%d events were written", n-1)
	}
}

// Bodies that are on their way count against one budget. Who sends few bytes
// takes nothing from it.
func TestLimits_HeldBytes(t *testing.T) {
	store := newFakeStore()
	ts := serve(t, store, func(o *Options) { o.MaxHeldBytes = 4 * maxBody })
	const size = maxBody - 1000
	head := fmt.Sprintf("POST /v1/streams/a/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", size)
	var conns []net.Conn
	for range 3 {
		conns = append(conns, ts.dial(head+strings.Repeat(" ", size-1)))
	}
	taken := func() bool {
		if ts.budget.sem.TryAcquire(512 << 10) {
			ts.budget.sem.Release(512 << 10)
			return false
		}
		return true
	}
	eventually(t, "the budget is used up", taken)
	ts.post("/v1/streams/a/events", `{"type":"T"}`).check(t, 201)
	ts.post("/v1/streams/a/events", `{"type":"T","data":"`+strings.Repeat("x", 1000<<10)+`"}`).check(t, 503, "urn:cairn:error:overloaded")
	for _, c := range conns {
		c.Close()
	}
	eventually(t, "the budget is whole again", func() bool {
		ok := ts.budget.sem.TryAcquire(4 * maxBody)
		if ok {
			ts.budget.sem.Release(4 * maxBody)
		}
		return ok
	})
	ts.post("/v1/streams/a/events", `{"type":"T","data":"`+strings.Repeat("x", 1000<<10)+`"}`).check(t, 201)
	// One byte each holds nothing, however many announce a lot.
	for range 50 {
		ts.dial(head + " ")
	}
	eventually(t, "they are all there", func() bool { return ts.requests.Load() == 50 })
	if taken() {
		t.Error("what a client only announces is held already")
	}
}

func TestLimits_Connections(t *testing.T) {
	ts := serve(t, newFakeStore(), func(o *Options) { o.MaxConnections = 2 })
	first := ts.dial("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
	ts.dial("")
	third := ts.dial("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
	_ = third.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := third.Read(make([]byte, 1)); !os.IsTimeout(err) {
		t.Fatalf("the third connection was served: %v", err)
	}
	first.Close()
	_ = third.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := third.Read(make([]byte, 1)); err != nil {
		t.Errorf("the third connection is not served though there is room: %v", err)
	}
}

func TestServer_PanicCostsOneRequest(t *testing.T) {
	store := newFakeStore()
	store.hook = func(context.Context, *event.Append) error { panic("boom") }
	ts := serve(t, store)
	ts.post("/v1/streams/a/events", `{"type":"T"}`).check(t, 500, "urn:cairn:error:internal")
	ts.get("/healthz").check(t, 200)
}

func TestServer_Options(t *testing.T) {
	_, err := New(Options{NodeID: "x", MaxHeldBytes: 1, URL: "::"})
	for _, want := range []string{"appender", "reads", "waiter", "cluster", "classify", "logger", "max held bytes", "url"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %s is not named", err, want)
		}
	}
}

func TestServer_Metrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	store := newFakeStore()
	ts := serve(t, store, func(o *Options) { o.Registerer = reg })
	ts.post("/v1/streams/a/events", `[{"type":"T"},{"type":"T"}]`).check(t, 201)
	ts.post("/v1/streams/a/events", `{"type":"T"}`, `If-Match: "7"`).check(t, 412)
	ts.do("MADEUP", "/v1/events", "").check(t, 405)
	ts.get("/nowhere").check(t, 404)
	eventually(t, "all are counted", func() bool { return ts.requests.Load() == 0 })
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	for _, f := range families {
		for _, m := range f.GetMetric() {
			fmt.Fprintf(&text, "%s%v %v %v\n", f.GetName(), m.GetLabel(), m.GetCounter().GetValue(), m.GetGauge().GetValue())
		}
	}
	for _, want := range []string{
		`cairn_http_appends_total[name:"outcome" value:"accepted"] 1`,
		`cairn_http_appends_total[name:"outcome" value:"condition-failed"] 1`,
		`cairn_http_appended_events_total[] 2`,
		`cairn_http_requests_total[name:"method" value:"other" name:"route" value:"/v1/events" name:"status" value:"405"] 1`,
		`cairn_http_requests_total[name:"method" value:"POST" name:"route" value:"/v1/streams/{stream}/events" name:"status" value:"201"] 1`,
		`cairn_http_requests_total[name:"method" value:"GET" name:"route" value:"other" name:"status" value:"404"] 1`,
	} {
		if !strings.Contains(strings.ReplaceAll(text.String(), "  ", " "), want) {
			t.Errorf("there is no %s in\n%s", want, text.String())
		}
	}
}
