package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"cairn/event"
)

func TestBench(t *testing.T) {
	f := newFakeNode(t)
	out := f.ok(t, "", "bench", "--clients", "1,4", "--batch", "1,3", "--seconds", "0.3", "--warmup", "1ms", "--streams", "5", "--ids")
	var loads []load
	for line := range strings.Lines(out) {
		var r benchRow
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		loads = append(loads, load{r.Clients, r.Batch})
		if r.Requests == 0 || r.EventsPerSecond < float64(r.Requests) || r.P50 <= 0 || r.P99 < r.P50 || r.Max < r.P99 || r.Errors != 0 {
			t.Errorf("got %s", line)
		}
	}
	if want := []load{{1, 1}, {4, 1}, {1, 3}, {4, 3}}; !slices.Equal(loads, want) {
		t.Errorf("got %v, want %v", loads, want)
	}
	ids := make(map[string]bool)
	for _, e := range f.events {
		ids[e.Stream+e.ID] = true
		if len(e.Data) != 256 || len(e.ID) != len("bench-")+idDigits || e.Stream < "bench-000000" || e.Stream > "bench-000004" {
			t.Fatalf("got %+v", e)
		}
	}
	if len(ids) != len(f.events) {
		t.Errorf("%d events with %d ids", len(f.events), len(ids))
	}
	text := f.ok(t, "", "bench", "--clients", "2", "--batch", "1", "--seconds", "0.3", "--warmup", "0s", "-o", "text")
	lines := strings.Split(text, "\n")
	if len(lines) != 5 || lines[0] != "leader node-1 of 2 members; 256-byte data, 1000 streams, 0.3 s each" ||
		len([]rune(lines[2])) != len([]rune(lines[3])) || !strings.HasPrefix(lines[3], "      2      1 ") {
		t.Errorf("got\n%s", text)
	}
}

func TestBench_NothingSucceeds(t *testing.T) {
	var url string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			fmt.Fprintf(w, `{"leader":"n","members":[{"id":"n","http":%q}]}`, url)
			return
		}
		fail(w, http.StatusServiceUnavailable, "overloaded", "too much to do", "")
	}))
	defer s.Close()
	url = s.URL
	code, _, errs := (&fakeNode{url: url}).run(t, "", "bench", "--clients", "2", "--seconds", "0.05", "--warmup", "0s")
	if code != 1 || errs != "cairn: no append succeeded: status 503 too much to do\n" {
		t.Errorf("exit %d, %s", code, errs)
	}
}

func TestBenchFlags_Loads(t *testing.T) {
	cmd := (&app{}).newBench()
	f := benchFlags{clients: []int{1, 64, 256}, batch: []int{1, 100}}
	if got, want := f.loads(cmd), []load{{1, 1}, {64, 1}, {256, 1}, {1, 100}, {64, 100}, {256, 100}, {8, 100}}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// The bytes are a request that net/http understands, and each id a new one.
func TestBenchConn(t *testing.T) {
	var mu sync.Mutex
	var bodies []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		bodies = append(bodies, r.URL.Path+" "+string(b))
		switch len(bodies) {
		case 2:
			w.WriteHeader(http.StatusCreated)
			_, _ = io.WriteString(w, strings.Repeat("long ", 300))
		case 3:
			w.Header().Set("Connection", "close")
		case 4:
			_, _ = io.WriteString(w, strings.Repeat("chunked ", 2000))
		}
	}))
	defer s.Close()
	host := strings.TrimPrefix(s.URL, "http://")
	r := newBenchRequest(host, 2, 5, 7)
	var got []string
	conn, err := dialBench(t.Context(), host, time.Now().Add(5*time.Second))
	for i := range 4 {
		if err != nil {
			t.Fatal(err)
		}
		r.prepare(i)
		doErr := conn.do(r.bytes)
		got = append(got, fmt.Sprint(doErr))
		if doErr != nil {
			_ = conn.Close()
			conn, err = dialBench(t.Context(), host, time.Now().Add(5*time.Second))
		}
	}
	_ = conn.Close()
	if want := []string{"<nil>", "<nil>", "the server closed the connection", "answer without a Content-Length"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	want := `/v1/streams/bench-000001/events [{"type":"Measured","id":"bench-0000000000000009","data":"012"},{"type":"Measured","id":"bench-0000000000000010","data":"012"}]`
	if bodies[1] != want {
		t.Errorf("got  %s\nwant %s", bodies[1], want)
	}
	plain := newBenchRequest(host, 1, 256, 0)
	_, body, _ := strings.Cut(string(plain.bytes), "\r\n\r\n")
	if e, err := event.DecodeNew([]byte(body)); err != nil || len(e.Data) != 256 || e.ID != "" {
		t.Errorf("got %+v, %v", e, err)
	}
}

// Quantiles are within a bucket's width of those of the sorted durations.
func TestHistogram(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	var halves [2]histogram
	var all []time.Duration
	for i := range 20_000 {
		d := time.Duration(1) << random.IntN(34)
		d += time.Duration(random.Int64N(int64(d)))
		all = append(all, d)
		halves[i%2].add(d)
	}
	slices.Sort(all)
	halves[0].merge(&halves[1])
	for _, q := range []float64{0, 0.001, 0.5, 0.9, 0.99, 0.999, 1} {
		want := all[min(int(q*float64(len(all))), len(all)-1)]
		got := halves[0].quantile(q)
		if off := float64(got-want) / float64(want); off < -0.016 || off > 0.016 {
			t.Errorf("quantile %g: got %s, want %s", q, got, want)
		}
	}
	for i := range bucketOctaves * bucketsPerOctave {
		if got := bucketOf(uint64(bucketMiddle(i))); got != i {
			t.Fatalf("the middle of bucket %d is in bucket %d", i, got)
		}
	}
	if halves[0].max != all[len(all)-1] || halves[0].total != 20_000 {
		t.Errorf("max %s, total %d", halves[0].max, halves[0].total)
	}
	var empty histogram
	if empty.quantile(0.5) != 0 {
		t.Error("a quantile of nothing")
	}
}
