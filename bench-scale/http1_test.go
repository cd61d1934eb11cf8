package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
)

// chunked encodes a body in pieces of a size.
func chunked(body string, size int) string {
	var out strings.Builder
	for len(body) > 0 {
		n := min(size, len(body))
		fmt.Fprintf(&out, "%x\r\n%s\r\n", n, body[:n])
		body = body[n:]
	}
	return out.String() + "0\r\n\r\n"
}

func TestCountLines(t *testing.T) {
	// CRLF within the body must not pass for the end of a chunk.
	body := strings.Repeat("one\r\n{\"two\":2}\n\r\n", 50)
	want := strings.Count(body, "\n")
	for _, size := range []int{1, 2, 7, 100, len(body)} {
		for _, buffer := range []int{12, 33, 4096} {
			text := chunked(body, size)
			lines, bytes, err := countLines(iotest.OneByteReader(strings.NewReader(text)), make([]byte, buffer))
			if err != nil || lines != want || bytes != int64(len(body)) {
				t.Errorf("chunks of %d, one byte at a time: %d lines, %d bytes, %v", size, lines, bytes, err)
			}
			lines, bytes, err = countLines(strings.NewReader(text), make([]byte, buffer))
			if err != nil || lines != want || bytes != int64(len(body)) {
				t.Errorf("chunks of %d, buffer of %d: %d lines, %d bytes, %v", size, buffer, lines, bytes, err)
			}
			if _, _, err := countLines(strings.NewReader(text[:len(text)-len("0\r\n\r\n")]), make([]byte, buffer)); err == nil {
				t.Errorf("chunks of %d: no error without the end", size)
			}
		}
	}
	if _, _, err := countLines(strings.NewReader("xyz\r\n"), make([]byte, 64)); err == nil {
		t.Error("no error for a chunk without a size")
	}
}

func TestConn_Do(t *testing.T) {
	long := strings.Repeat("0123456789", 10_000)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body bytes.Buffer
		_, _ = body.ReadFrom(r.Body)
		switch r.URL.Path {
		case "/v1/append":
			w.WriteHeader(http.StatusCreated)
			fmt.Fprintf(w, `{"last_position":%d}`, body.Len())
		case "/long":
			_, _ = w.Write([]byte(long)) // too long for a Content-Length of its own
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	host := server.Listener.Addr().String()
	c, err := dial(t.Context(), host)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	for range 2 {
		a, err := c.do(postRequest(nil, host, "/v1/append", []byte("12345")))
		if err != nil || a.appended() != nil || string(a.body) != `{"last_position":5}` {
			t.Errorf("append: %v, %v, %s", err, a.appended(), a.body)
		}
		if a, err = c.do(getRequest(host, "/long", ndjson)); err != nil || a.status != 200 || string(a.body) != long {
			t.Errorf("long: %v, status %d, %d bytes", err, a.status, len(a.body))
		}
		if a, err = c.do(getRequest(host, "/missing", ndjson)); err != nil || a.status != 404 || a.appended() == nil {
			t.Errorf("missing: %v, status %d", err, a.status)
		}
	}
}

func TestParseMetrics(t *testing.T) {
	got := parseMetrics("# HELP a b\n# TYPE a gauge\na 12\nb{x=\"y\"} 3\nc 1.5e+06\n\n")
	if len(got) != 2 || got["a"] != 12 || got["c"] != 1.5e6 {
		t.Errorf("got %v", got)
	}
}
