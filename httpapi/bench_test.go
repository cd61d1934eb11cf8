package httpapi

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func BenchmarkAppend(b *testing.B) {
	store := newFakeStore()
	s := benchServer(b, store)
	body := `{"type":"FundsDeposited","data":{"amount":12.5,"text":"` + strings.Repeat("x", 160) + `"},"tags":["customer:9"],"meta":{"actor":"me"}}`
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequest("POST", "http://localhost/v1/streams/account-7/events", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != 201 {
			b.Fatal(w.Body)
		}
	}
}

func BenchmarkAppend100(b *testing.B) {
	store := newFakeStore()
	s := benchServer(b, store)
	one := `{"type":"FundsDeposited","data":{"amount":12.5,"text":"` + strings.Repeat("x", 160) + `"},"tags":["customer:9"],"meta":{"actor":"me"}}`
	body := "[" + strings.Repeat(one+",", 99) + one + "]"
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequest("POST", "http://localhost/v1/streams/account-7/events", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != 201 {
			b.Fatal(w.Body)
		}
	}
}

func BenchmarkPage(b *testing.B) {
	s := benchServer(b, filled(200))
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequest("GET", "http://localhost/v1/events?after=20&limit=100", nil)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != 200 {
			b.Fatal(w.Body)
		}
	}
}

// Lines over one connection, pipelined, of one stream.
func BenchmarkLines(b *testing.B) {
	ts := serve(b, newFakeStore())
	line := one("a") + "\n"
	r, w := io.Pipe()
	go func() {
		block := strings.Repeat(line, 100)
		for range b.N/100 + 1 {
			if _, err := io.WriteString(w, block); err != nil {
				return
			}
		}
		w.Close()
	}()
	req, err := http.NewRequest("POST", ts.url+"/v1/append?on_error=continue", r)
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	resp, err := ts.h2.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		b.Fatal(err)
	}
}

func benchServer(b *testing.B, store *fakeStore) *Server { return serve(b, store).Server }
