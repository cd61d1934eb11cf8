package httpapi

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// testServer is a server on a free port of loopback.
type testServer struct {
	*Server
	t     testing.TB
	store *fakeStore
	url   string
	h1    *http.Client
	h2    *http.Client
}

func serve(t testing.TB, store *fakeStore, change ...func(*Options)) *testServer {
	t.Helper()
	return serveChanged(t, store, func(*Server) {}, change...)
}

// serveChanged is serve with a server that is changed before it serves.
func serveChanged(t testing.TB, store *fakeStore, changed func(*Server), change ...func(*Options)) *testServer {
	t.Helper()
	o := Options{
		NodeID: "node-1", Appender: store, Reads: store, Waiter: store, Cluster: store, Files: store,
		Projections: newFakeProjections(store), Types: newFakeTypes(store), Classify: classifyFake, Logger: discard,
	}
	for _, c := range change {
		c(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	changed(s)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	plain := &http.Transport{MaxIdleConnsPerHost: 100}
	h2c := &http.Transport{Protocols: new(http.Protocols)}
	h2c.Protocols.SetUnencryptedHTTP2(true)
	ts := &testServer{
		Server: s, t: t, store: store, url: "http://" + l.Addr().String(),
		h1: &http.Client{Transport: plain}, h2: &http.Client{Transport: h2c},
	}
	t.Cleanup(func() {
		plain.CloseIdleConnections()
		h2c.CloseIdleConnections() // Shutdown gives HTTP/2 connections a second
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		store.mu.Lock()
		defer store.mu.Unlock()
		if store.views != 0 {
			t.Errorf("%d views were left open", store.views)
		}
	})
	return ts
}

// answer is an answer, read to its end.
type answer struct {
	status int
	header http.Header
	body   string
}

// do sends a request; headers are "Name: value".
func (ts *testServer) do(method, path, body string, headers ...string) answer {
	ts.t.Helper()
	req, err := http.NewRequest(method, ts.url+path, strings.NewReader(body))
	if err != nil {
		ts.t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			req.Host = value
			continue
		}
		req.Header.Add(name, value)
	}
	resp, err := ts.h1.Do(req)
	if err != nil {
		ts.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		ts.t.Fatalf("%s %s: %v", method, path, err)
	}
	return answer{resp.StatusCode, resp.Header, string(b)}
}

func (ts *testServer) get(path string, headers ...string) answer {
	ts.t.Helper()
	return ts.do("GET", path, "", headers...)
}

const isJSON = "Content-Type: application/json"

func (ts *testServer) post(path, body string, headers ...string) answer {
	ts.t.Helper()
	return ts.do("POST", path, body, append([]string{isJSON}, headers...)...)
}
