package httpapi

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestOrigin(t *testing.T) {
	loopback := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7070}
	mapped := &net.TCPAddr{IP: net.ParseIP("::ffff:127.0.0.1"), Port: 7070}
	public := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 5), Port: 7070}
	s := &Server{hosts: []string{"cairn.example.com"}}
	for _, c := range []struct {
		local        net.Addr
		method, host string
		origin       string
		ok           bool
	}{
		{loopback, "GET", "localhost:7070", "", true},
		{loopback, "GET", "LOCALHOST", "", true},
		{loopback, "GET", "127.0.0.1:7070", "", true},
		{loopback, "GET", "127.1.2.3", "", true},
		{loopback, "GET", "[::1]:7070", "", true},
		{loopback, "GET", "[::1]", "", true},
		{loopback, "GET", "cairn.example.com", "", true},
		{loopback, "GET", "", "", true}, // HTTP/1.0: no browser
		{loopback, "GET", "evil.example", "", false},
		{mapped, "GET", "evil.example:7070", "", false},
		{nil, "GET", "evil.example", "", false},
		{loopback, "GET", "localhost.evil.example", "", false},
		{loopback, "GET", "127.0.0.1.evil.example", "", false},
		{loopback, "GET", "10.0.0.5", "", false},
		{public, "GET", "evil.example", "", true},
		{loopback, "GET", "localhost", "http://evil.example", true}, // reads are guarded by the browser
		{loopback, "POST", "localhost:7070", "", true},
		{loopback, "POST", "localhost:7070", "http://localhost:7070", true},
		{loopback, "POST", "localhost", "http://localhost:80", true},
		{loopback, "POST", "127.0.0.1:7070", "http://cairn.example.com", true},
		{loopback, "POST", "localhost:7070", "http://localhost:7071", false},
		{loopback, "POST", "localhost:7070", "http://127.0.0.1:7070", false},
		{loopback, "POST", "localhost:7070", "null", false},
		{loopback, "DELETE", "localhost:7070", "http://evil.example", false},
		{loopback, "POST", "localhost:7070", "http://evil.example/localhost:7070", false},
	} {
		r := httptest.NewRequest(c.method, "/v1/events", nil)
		r.Host = c.host
		if c.origin != "" {
			r.Header.Set("Origin", c.origin)
		}
		if c.local != nil {
			r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, c.local))
		}
		if err := s.checkOrigin(r); (err == nil) != c.ok {
			t.Errorf("%v %s Host %q Origin %q: %v", c.local, c.method, c.host, c.origin, err)
		}
	}
}
