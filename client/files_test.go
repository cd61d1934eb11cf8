package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

const fileContents = "0123456789abcdef"

// serveFile answers for the files of a node, and keeps what was asked for.
func serveFile(t *testing.T) (files *Files, asked func() []string) {
	t.Helper()
	var mu sync.Mutex
	var seen []string
	node := serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen = append(seen, r.URL.EscapedPath()+" "+r.Header.Get("Range"))
		mu.Unlock()
		if strings.Contains(r.URL.Path, "missing") {
			problem(w, 404, "not-found", "")
			return
		}
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(fileContents))
	})
	return newFiles(t, node), func() []string {
		mu.Lock()
		defer mu.Unlock()
		list := seen
		seen = nil
		return list
	}
}

func newFiles(t *testing.T, node string) *Files {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	f, err := NewFiles(node, transport)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFiles_Ranges(t *testing.T) {
	f, asked := serveFile(t)
	for _, tt := range []struct {
		offset, end int64
		asked       string
	}{
		{0, 16, "bytes=0-15"}, {0, 1, "bytes=0-0"}, {5, 9, "bytes=5-8"}, {15, 16, "bytes=15-15"},
		{7, 7, ""}, {16, 16, ""}, // nothing to ask for
		{10, 99, "bytes=10-98"}, // shorter than it should be: the caller counts
	} {
		for path, open := range map[string]func() (io.ReadCloser, error){
			"/v1/segments/a%2Fb%20c":            func() (io.ReadCloser, error) { return f.Segment(testContext(t), "a/b c", tt.offset, tt.end) },
			"/v1/snapshots/1-2%2F3/state/x%3Fy": func() (io.ReadCloser, error) { return f.State(testContext(t), "1-2/3", "x?y", tt.offset, tt.end) },
		} {
			body, err := open()
			if err != nil {
				t.Fatalf("%s %d-%d: %v", path, tt.offset, tt.end, err)
			}
			got, err := io.ReadAll(body)
			if want := fileContents[tt.offset:min(tt.end, 16)]; err != nil || string(got) != want {
				t.Errorf("%s %d-%d: %q, %v; want %q", path, tt.offset, tt.end, got, err, want)
			}
			if err := body.Close(); err != nil {
				t.Error(err)
			}
			requests := strings.Join(asked(), "; ")
			if want := path + " " + tt.asked; tt.asked == "" && requests != "" || tt.asked != "" && requests != want {
				t.Errorf("asked for %q, want %q", requests, want)
			}
		}
	}
}

func TestFiles_Log(t *testing.T) {
	want := "/v1/segments"
	node := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RequestURI() != want || r.Header.Get("Range") != "" {
			t.Errorf("asked for %s, %q", r.URL.RequestURI(), r.Header.Get("Range"))
		}
		_, _ = io.WriteString(w, `{"log":"l","position":7,"segments":[{"name":"a.seg","base":1,"last":5,"size":900,"hash":"ff"},{"name":"b.seg","base":6,"last":7,"size":20}],"later":1}`)
	})
	files, err := newFiles(t, node).Log(testContext(t))
	if err != nil || files.Log != "l" || files.Position != 7 || len(files.Segments) != 2 || files.Segments[0] != (SegmentFile{"a.seg", 1, 5, 900, "ff"}) ||
		files.Segments[1] != (SegmentFile{"b.seg", 6, 7, 20, ""}) {
		t.Errorf("got %+v, %v", files, err)
	}
	want += "?consistency=local"
	if local, err := newFiles(t, node).LocalLog(testContext(t)); err != nil || !reflect.DeepEqual(local, files) {
		t.Errorf("got %+v, %v", local, err)
	}
}

// A refusal is a Problem, also one from something in between; what is not an
// answer to the question is no file.
func TestFiles_Refused(t *testing.T) {
	f, _ := serveFile(t)
	_, err := f.Segment(testContext(t), "missing", 0, 3)
	var p *Problem
	if !errors.As(err, &p) || p.Code != CodeNotFound || p.Status != 404 {
		t.Errorf("a segment that is not there: %v", err)
	}
	if _, err := f.State(testContext(t), "missing", "x", 0, 3); !IsNotFound(err) {
		t.Errorf("a snapshot that is not there: %v", err)
	}
	if _, err := f.Segment(testContext(t), "x", 16, 20); !errors.As(err, &p) || p.Status != 416 {
		t.Errorf("beyond the end: %v", err)
	}
	whole := newFiles(t, serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, fileContents) }))
	if _, err := whole.Segment(testContext(t), "x", 3, 5); err == nil || !strings.Contains(err.Error(), "200") {
		t.Errorf("a node that sends all of it: %v", err)
	}
	if _, err := newFiles(t, deadNode(t)).Segment(testContext(t), "x", 3, 5); err == nil {
		t.Error("nobody answered")
	}
	bad := newFiles(t, serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }))
	if _, err := bad.Log(testContext(t)); err == nil {
		t.Error("a list that is none was taken")
	}
	if _, err := NewFiles("not a url\x00", nil); err == nil {
		t.Error("an address that is none was taken")
	}
}

// A connection that breaks, and a file that ends early, are errors.
func TestFiles_BrokenOff(t *testing.T) {
	f := newFiles(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		w.WriteHeader(http.StatusPartialContent)
		_, _ = io.WriteString(w, "01234")
		_ = http.NewResponseController(w).Flush()
		abort()
	}))
	body, err := f.Segment(testContext(t), "x", 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if got, err := io.ReadAll(body); err == nil || string(got) != "01234" {
		t.Errorf("read %q, %v", got, err)
	}
}

// silentNode sends some bytes of a file and then nothing for ever.
func silentNode(t *testing.T, before string) *Files {
	t.Helper()
	return newFiles(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
		if before != "" {
			w.WriteHeader(http.StatusPartialContent)
			_, _ = io.WriteString(w, before)
			_ = http.NewResponseController(w).Flush()
		}
		<-r.Context().Done()
	}))
}

// A node that falls silent, before its answer or in it, is given up; the error
// says why.
func TestFiles_Silent(t *testing.T) {
	f := silentNode(t, "")
	f.idle = 100 * time.Millisecond
	if _, err := f.Segment(testContext(t), "x", 0, 10); err == nil || !strings.Contains(err.Error(), "sent nothing for 100ms") {
		t.Errorf("no answer: %v", err)
	}
	if _, err := f.Log(testContext(t)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no list: %v", err)
	}
	f = silentNode(t, "01234")
	f.idle = 100 * time.Millisecond
	body, err := f.Segment(testContext(t), "x", 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	// What the reader does with the bytes may take longer.
	got := make([]byte, 5)
	if _, err := io.ReadFull(body, got); err != nil || string(got) != "01234" {
		t.Fatalf("read %q, %v", got, err)
	}
	time.Sleep(2 * f.idle)
	if n, err := body.Read(got); n != 0 || err == nil || !strings.Contains(err.Error(), "sent nothing for 100ms") {
		t.Errorf("read %d bytes, %v", n, err)
	}
}

// A slow node is not a silent one.
func TestFiles_Slow(t *testing.T) {
	f := newFiles(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusPartialContent)
		for range 30 {
			_, _ = w.Write([]byte("x"))
			_ = http.NewResponseController(w).Flush()
			time.Sleep(10 * time.Millisecond)
		}
	}))
	f.idle = 250 * time.Millisecond // less than it takes in all
	body, err := f.Segment(testContext(t), "x", 0, 30)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if got, err := io.ReadAll(body); err != nil || len(got) != 30 {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestFiles_Cancelled(t *testing.T) {
	f := silentNode(t, "01234")
	ctx, cancel := context.WithCancel(testContext(t))
	body, err := f.Segment(ctx, "x", 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(body, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := body.Read(make([]byte, 5)); !errors.Is(err, context.Canceled) {
		t.Errorf("read: %v", err)
	}
	_ = body.Close()
	if _, err := f.Segment(ctx, "x", 0, 10); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that is done: %v", err)
	}
	// Closed before its end, a reader gives the connection up and returns at once.
	body, err = f.Segment(testContext(t), "x", 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	if err := body.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if _, err := body.Read(make([]byte, 1)); err == nil {
		t.Error("read after Close")
	}
}
