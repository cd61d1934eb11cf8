package client

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"cairn/event"
)

// servePages answers reads of a log of n events, and of n streams.
func servePages(t *testing.T, n int) (node string, requests *[]string) {
	requests = new([]string)
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		*requests = append(*requests, r.URL.RequestURI()+string(body))
		if r.Method == http.MethodHead {
			if strings.Contains(r.URL.Path, "missing") {
				w.WriteHeader(http.StatusNotFound)
			}
			w.Header().Set("ETag", `"12"`)
			return
		}
		at, _ := strconv.Atoi(r.FormValue("page"))
		limit, _ := strconv.Atoi(r.FormValue("limit"))
		if limit == 0 {
			limit = 3
		}
		var items []string
		for ; at < n && len(items) < limit; at++ {
			if r.URL.Path == "/v1/streams" {
				items = append(items, fmt.Sprintf(`{"stream":"s-%d","version":%d}`, at, at+1))
			} else {
				items = append(items, readEvent(uint64(at+1)))
			}
		}
		next := ""
		if at < n {
			next = fmt.Sprintf(`,"next":"%s?page=%d&limit=%d"`, r.URL.Path, at, limit)
		}
		w.Header().Set(headerPosition, strconv.Itoa(n))
		w.Header().Set(headerLog, "log-1")
		list := "events"
		if r.URL.Path == "/v1/streams" {
			list = "streams"
		}
		fmt.Fprintf(w, `{"%s":[%s],"version":%d%s,"head":%d}`, list, strings.Join(items, ","), n, next, n)
	}), requests
}

func TestRead_Pages(t *testing.T) {
	node, requests := servePages(t, 5)
	c := newClient(t, nil, node)
	p, err := c.ReadStream(testContext(t), "a/b", ReadOptions{From: 1, Limit: 3, Descending: true, Local: true, MinPosition: 4})
	if err != nil || len(p.Events) != 3 || p.Version != 5 || p.Position != 5 || p.Log != "log-1" || string(p.Events[2].Data) != `{"n":3}` {
		t.Fatalf("got %+v, %v", p, err)
	}
	p, err = c.NextPage(testContext(t), p)
	if err != nil || len(p.Events) != 2 || p.Next != "" || p.Events[1].Position != 5 {
		t.Fatalf("got %+v, %v", p, err)
	}
	_, err = c.Events(testContext(t), event.Filter{Category: "c", StreamPrefix: "p", CorrelationID: "x", CausationID: "y", FromTime: 1e9, ToTime: 2e9,
		Query: event.Query{Items: []event.QueryItem{{Types: []string{"A", "B"}, Tags: []string{"t:1", "u&v"}}}}}, ReadOptions{After: 7})
	if err != nil {
		t.Fatal(err)
	}
	p, err = c.Query(testContext(t), event.Query{Items: []event.QueryItem{{Types: []string{"T"}}, {}}}, ReadOptions{After: 2, Limit: 4, Local: true})
	if err != nil {
		t.Fatal(err)
	}
	if p, err = c.NextPage(testContext(t), p); err != nil || p.Next != "" {
		t.Fatalf("got %+v, %v", p, err)
	}
	if _, err = c.NextPage(testContext(t), p); err == nil {
		t.Error("a page behind the last")
	}
	want := []string{
		"/v1/streams/a%2Fb/events?consistency=local&from=1&limit=3&min_position=4&order=desc&timeout=2.4s",
		"/v1/streams/a/b/events?page=3&limit=3",
		"/v1/events?after=7&category=c&causation_id=y&correlation_id=x&from_time=1970-01-01T00%3A00%3A01.000000000Z&stream_prefix=p" +
			"&tag=t%3A1&tag=u%26v&timeout=2.4s&to_time=1970-01-01T00%3A00%3A02.000000000Z&type=A&type=B",
		`/v1/query?consistency=local&timeout=2.4s{"query":{"items":[{"types":["T"]},{}]},"after":2,"limit":4}`,
		`/v1/query?page=3&limit=3{"query":{"items":[{"types":["T"]},{}]},"after":2,"limit":4}`,
	}
	if !slices.Equal(*requests, want) {
		t.Errorf("got  %q\nwant %q", *requests, want)
	}
}

func TestRead_Iterate(t *testing.T) {
	node, _ := servePages(t, 2500)
	c := newClient(t, nil, node)
	for _, limit := range []int{0, 1, 1500, 9999} {
		n := uint64(0)
		for e, err := range c.AllEvents(testContext(t), event.Filter{}, ReadOptions{Limit: limit}) {
			if n++; err != nil || e.Position != n {
				t.Fatalf("got event %d, %v; want %d", e.Position, err, n)
			}
		}
		if want := min(uint64(limit-1), 2499) + 1; n != want {
			t.Errorf("limit %d: got %d events, want %d", limit, n, want)
		}
		if limit == 0 {
			continue
		}
		streams := 0
		for s, err := range c.Streams(testContext(t), "s-", "", ReadOptions{Limit: limit}) {
			if streams++; err != nil || s.Version != uint64(streams) {
				t.Fatalf("got %+v, %v", s, err)
			}
		}
		if streams != int(n) {
			t.Errorf("limit %d: got %d streams", limit, streams)
		}
	}
	for range c.AllOfStream(testContext(t), "a", ReadOptions{}) {
		break // must not panic
	}
}

func TestRead_Errors(t *testing.T) {
	node := serve(t, func(w http.ResponseWriter, r *http.Request) { problem(w, 404, CodeNotFound, "") })
	c := newClient(t, nil, node)
	for e, err := range c.AllOfStream(testContext(t), "a", ReadOptions{}) {
		if !IsNotFound(err) {
			t.Errorf("got %+v, %v", e, err)
		}
	}
	if _, err := c.Event(testContext(t), 7); !IsNotFound(err) {
		t.Errorf("got %v", err)
	}
	two := event.Filter{Query: event.Query{Items: make([]event.QueryItem, 2)}}
	if _, err := c.Events(testContext(t), two, ReadOptions{}); err == nil {
		t.Error("a filter of two items: no error")
	}
}

func TestHead(t *testing.T) {
	node, _ := servePages(t, 1)
	c := newClient(t, nil, node)
	for stream, want := range map[string]uint64{"there": 12, "missing": 0} {
		if got, err := c.Head(testContext(t), stream); err != nil || got != want {
			t.Errorf("%s: got %d, %v; want %d", stream, got, err, want)
		}
	}
}
