package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"cairn/event"
)

const isLines = "Content-Type: application/x-ndjson"

// duplex is an NDJSON append that is under way over h2c.
type duplex struct {
	t       testing.TB
	in      *io.PipeWriter
	answers *bufio.Scanner
	close   func()
}

func (ts *testServer) duplex(path string) *duplex {
	ts.t.Helper()
	r, w := io.Pipe()
	req, err := http.NewRequest("POST", ts.url+path, r)
	if err != nil {
		ts.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	resp, err := ts.h2.Do(req)
	if err != nil {
		ts.t.Fatal(err)
	}
	if resp.StatusCode != 200 || resp.ProtoMajor != 2 || resp.Header.Get("Content-Type") != "application/x-ndjson" {
		ts.t.Fatalf("%s %d %v", resp.Proto, resp.StatusCode, resp.Header)
	}
	d := &duplex{t: ts.t, in: w, answers: bufio.NewScanner(resp.Body), close: func() { w.Close(); resp.Body.Close() }}
	d.answers.Buffer(nil, 4<<20)
	ts.t.Cleanup(d.close)
	return d
}

func (d *duplex) send(lines ...string) {
	d.t.Helper()
	for _, line := range lines {
		if _, err := io.WriteString(d.in, line+"\n"); err != nil {
			d.t.Fatal(err)
		}
	}
}

func (d *duplex) answer() string {
	d.t.Helper()
	if !d.answers.Scan() {
		d.t.Fatalf("no answer: %v", d.answers.Err())
	}
	return d.answers.Text()
}

func (d *duplex) expect(parts ...string) {
	d.t.Helper()
	got := d.answer()
	for _, part := range parts {
		if !strings.Contains(got, part) {
			d.t.Errorf("the answer lacks %s: %s", part, got)
		}
	}
}

func one(stream string) string { return `{"events":[{"stream":"` + stream + `","type":"T"}]}` }

// An answer comes while the request is still being sent.
func TestNDJSON_FullDuplex(t *testing.T) {
	ts := serve(t, newFakeStore())
	for _, path := range []string{"/v1/append", "/v1/append?on_error=continue"} {
		d := ts.duplex(path)
		for range 3 {
			d.send(one("a"))
			d.expect(`{"status":201,"first_position":`, `"versions":{"a":`, `"duplicate":false}`)
		}
		d.send(one("a"), "", "  ", one("b"))
		d.expect(`"versions":{"a":`)
		d.expect(`"versions":{"b":`)
		if _, err := io.WriteString(d.in, one("last without a line end")); err != nil {
			t.Fatal(err)
		}
		d.in.Close()
		d.expect(`"versions":{"last without a line end":`)
		if d.answers.Scan() || d.answers.Err() != nil {
			t.Errorf("more came: %q %v", d.answers.Text(), d.answers.Err())
		}
	}
}

func TestNDJSON_StopsAtAFailure(t *testing.T) {
	store := newFakeStore()
	ts := serve(t, store)
	lines := []string{
		one("a"),
		`{"events":[{"stream":"a","type":"T"}],"conditions":[{"stream":"a","version":5}]}`,
		one("a"),
		`nonsense`,
	}
	check := func(answers []string) {
		t.Helper()
		for i, want := range []string{`{"status":201,`, `"urn:cairn:error:condition-failed","title":"A condition of the append does not hold","status":409`,
			`"urn:cairn:error:not-attempted"`, `"urn:cairn:error:not-attempted"`} {
			if i >= len(answers) || !strings.Contains(answers[i], want) {
				t.Fatalf("answer %d lacks %s: %q", i, want, answers)
			}
		}
	}
	a := ts.do("POST", "/v1/append", strings.Join(lines, "\n"), isLines)
	a.check(t, 200)
	a.checkHeader(t, "Content-Type", "application/x-ndjson", "Cairn-Position", "2", "Cairn-Log", testLog)
	check(strings.Split(strings.TrimSpace(a.body), "\n"))
	d := ts.duplex("/v1/append")
	lines[1] = strings.Replace(lines[1], "5", "9", 1)
	d.send(lines...)
	check([]string{d.answer(), d.answer(), d.answer(), d.answer()})
	if got := store.count(); got != 3 {
		t.Errorf("%d events were written", got-1)
	}
}

func TestNDJSON_GoesOnAfterAFailure(t *testing.T) {
	store := newFakeStore()
	ts := serve(t, store)
	body := strings.Join([]string{
		one("a"), `{"events":[]}`, `{"events":[{"stream":"a","type":"T"}],"conditions":[{"stream":"a","exists":false}]}`,
		`{"events":[{"stream":"a","type":"` + strings.Repeat("x", maxBody) + `"}]}`, one("$log"), "x", one("a"),
	}, "\n")
	want := []string{`{"status":201,`, `"status":400`, `"status":409`, `"status":413`, `"status":400`, `"status":400`, `{"status":201,`}
	for _, send := range []func() []string{
		func() []string {
			return strings.Split(strings.TrimSpace(ts.do("POST", "/v1/append?on_error=continue", body, isLines).body), "\n")
		},
		func() []string {
			d := ts.duplex("/v1/append?on_error=continue")
			go func() { _, _ = io.WriteString(d.in, body); d.in.Close() }()
			var got []string
			for d.answers.Scan() {
				got = append(got, d.answers.Text())
			}
			return got
		},
	} {
		before := store.count()
		got := send()
		if len(got) != len(want) {
			t.Fatalf("%d answers: %q", len(got), got)
		}
		for i := range want {
			if !strings.Contains(got[i], want[i]) {
				t.Errorf("answer %d lacks %s: %s", i, want[i], got[i])
			}
		}
		if n := store.count() - before; n != 2 {
			t.Errorf("%d events were written", n)
		}
	}
}

// A line that was not decided may be sent again. What follows it in its stream
// must not overtake it; other streams go on.
func TestNDJSON_NothingOvertakesAnUndecidedLine(t *testing.T) {
	for _, undecided := range []error{errFakeNoLeader, errFakeBusy, errFakeUnknown} {
		store := newFakeStore()
		first := true
		store.set(func() {
			store.hook = func(_ context.Context, a *event.Append) error {
				if a.Events[0].Stream == "a" && first {
					first = false
					return undecided
				}
				return nil
			}
		})
		ts := serve(t, store)
		body := strings.Join([]string{one("a"), one("b"), one("a"), one("a"), one("b")}, "\n")
		got := strings.Split(strings.TrimSpace(ts.do("POST", "/v1/append?on_error=continue", body, isLines).body), "\n")
		// A line that was proposed together with the first shares its fate.
		want := []string{`"status":50`, `{"status":201,`, `"status":(50|42)`, `"status":(50|42)`, `{"status":201,`}
		if len(got) != len(want) {
			t.Fatalf("%d answers: %q", len(got), got)
		}
		for i := range want {
			if !regexp.MustCompile(want[i]).MatchString(got[i]) {
				t.Errorf("%v: answer %d lacks %s: %s", undecided, i, want[i], got[i])
			}
		}
	}
}

// What is forgotten of the lines before, so that a request may go on without
// end, must not be that one of them is still open.
func TestNDJSON_RemembersUndecidedLines(t *testing.T) {
	store := newFakeStore()
	store.set(func() {
		store.hook = func(_ context.Context, a *event.Append) error {
			if a.Events[0].Stream == "a" {
				return errFakeNoLeader
			}
			return nil
		}
	})
	ts := serve(t, store)
	lines := []string{one("a")}
	for i := range 4 * windowLines {
		lines = append(lines, one(fmt.Sprint("b-", i)))
	}
	lines = append(lines, one("a"))
	body := strings.Join(lines, "\n")
	got := strings.Split(strings.TrimSpace(ts.do("POST", "/v1/append?on_error=continue", body, isLines).body), "\n")
	if len(got) != len(lines) {
		t.Fatalf("%d answers for %d lines", len(got), len(lines))
	}
	if last := got[len(got)-1]; !strings.Contains(last, `"status":424`) {
		t.Errorf("after a line of its stream that was not decided: %s", last)
	}
}

// Pipelined lines are under way together, and yet the lines of one stream, and
// those with a query, happen in the order in which they were sent.
func TestNDJSON_PipelineKeepsOrder(t *testing.T) {
	store := newFakeStore()
	var mu sync.Mutex
	underWay, most := 0, 0
	store.hook = func(ctx context.Context, a *event.Append) error {
		mu.Lock()
		underWay++
		most = max(most, underWay)
		n := underWay
		mu.Unlock()
		time.Sleep(time.Duration(n%7) * 300 * time.Microsecond) // some overtake others
		mu.Lock()
		underWay--
		mu.Unlock()
		return nil
	}
	ts := serve(t, store)
	d := ts.duplex("/v1/append?on_error=continue")
	const lines = 600
	go func() {
		for i := range lines {
			line := fmt.Sprintf(`{"events":[{"stream":"s%d","type":"T","data":%d}]}`, i%20, i)
			if i%100 == 99 { // no event of this type yet: there would be if a later line overtook
				line = fmt.Sprintf(`{"events":[{"stream":"s%d","type":"Q%d","data":%d}],"conditions":[{"query":{"items":[{"types":["Q%d"]}]}}]}`, i%20, i, i, i)
			}
			if i%100 == 0 && i > 0 { // and this one exists by now
				line = fmt.Sprintf(`{"events":[{"stream":"s%d","type":"T","data":%d}],"conditions":[{"stream":"s19","version":%d}]}`, i%20, i, i/20)
			}
			if _, err := io.WriteString(d.in, line+"\n"); err != nil {
				return
			}
		}
		d.in.Close()
	}()
	last := map[string]uint64{}
	for i := range lines {
		var got struct {
			Status   int               `json:"status"`
			Versions map[string]uint64 `json:"versions"`
		}
		if err := json.Unmarshal([]byte(d.answer()), &got); err != nil || got.Status != 201 {
			t.Fatalf("line %d: %v, %s", i, err, d.answers.Text())
		}
		stream := fmt.Sprintf("s%d", i%20)
		if last[stream]++; got.Versions[stream] != last[stream] {
			t.Fatalf("line %d is version %d of %s, not %d", i, got.Versions[stream], stream, last[stream])
		}
	}
	if most < 5 {
		t.Errorf("at most %d lines were under way together", most)
	}
	if most > windowLines {
		t.Errorf("%d lines were under way together", most)
	}
}

// Lines that would only wait for each other are proposed together, in their
// order, so that a long import into one stream does not cost a round trip each.
func TestNDJSON_OneStreamTravelsTogether(t *testing.T) {
	store := newFakeStore()
	store.hook = func(context.Context, *event.Append) error {
		time.Sleep(100 * time.Microsecond) // others gather meanwhile
		return nil
	}
	ts := serve(t, store)
	const lines = 300
	var body strings.Builder
	for i := range lines {
		switch i % 100 {
		case 50: // is refused, and holds up nobody
			fmt.Fprintf(&body, `{"events":[{"stream":"a","type":"T"}],"conditions":[{"stream":"a","version":%d}]}`, 1_000_000)
		case 51: // is decided after all before it
			fmt.Fprintf(&body, `{"events":[{"stream":"a","type":"T","data":%d}],"conditions":[{"stream":"a","version":%d}]}`, i, i-2*(i/100)-1)
		case 52: // malformed
			body.WriteString(`{"events":[{"stream":"a"}]}`)
		default:
			fmt.Fprintf(&body, `{"events":[{"stream":"a","type":"T","data":%d}]}`, i)
		}
		body.WriteByte('\n')
	}
	got := strings.Split(strings.TrimSpace(ts.do("POST", "/v1/append?on_error=continue", body.String(), isLines).body), "\n")
	if len(got) != lines {
		t.Fatalf("%d answers for %d lines", len(got), lines)
	}
	version := 0
	for i, answer := range got {
		want := `"status":409,`
		switch i % 100 {
		case 50:
		case 52:
			want = `"status":400,`
		default:
			version++
			want = fmt.Sprintf(`"version":%d,`, version)
		}
		if !strings.Contains(answer, want) {
			t.Errorf("line %d lacks %s: %s", i, want, answer)
		}
	}
	if store.together < 2 {
		t.Error("no two lines were proposed together")
	}
}

func TestNDJSON_LinesOverHTTP1(t *testing.T) {
	store := newFakeStore()
	ts := serve(t, store)
	a := ts.do("POST", "/v1/append?on_error=continue", strings.Repeat(one("a")+"\n", maxLines+5), isLines)
	a.check(t, 200)
	answers := strings.Split(strings.TrimSpace(a.body), "\n")
	if len(answers) != maxLines+1 || !strings.Contains(answers[maxLines], "urn:cairn:error:too-large") {
		t.Errorf("%d answers, the last is %s", len(answers), answers[len(answers)-1])
	}
	if n := strings.Count(a.body, `{"status":201,`); n != maxLines || store.count() != maxLines+1 {
		t.Errorf("%d lines were appended", n)
	}
	ts.do("POST", "/v1/append", "", isLines).check(t, 200)
}

// A connection that is kept can be used again after lines over HTTP/1.1.
func TestNDJSON_KeepsTheConnection(t *testing.T) {
	ts := serve(t, newFakeStore())
	for range 3 {
		if a := ts.do("POST", "/v1/append", one("a")+"\n"+one("a"), isLines); strings.Count(a.body, `"status":201`) != 2 {
			t.Fatal(a)
		}
		ts.get("/v1/events").check(t, 200)
	}
}

// A body may take as long as it likes if each line comes in time, also when no
// read ends where a line does.
func TestNDJSON_LongBody(t *testing.T) {
	store := newFakeStore()
	ts := serve(t, store, func(o *Options) { o.BodyTimeout = 150 * time.Millisecond })
	r, w := io.Pipe()
	line := one("a") + "\n"
	const lines = 40
	go func() {
		_, _ = io.WriteString(w, line[:10])
		for range lines - 1 {
			time.Sleep(10 * time.Millisecond)
			_, _ = io.WriteString(w, line[10:]+line[:10])
		}
		_, _ = io.WriteString(w, line[10:])
		w.Close()
	}()
	req, err := http.NewRequest("POST", ts.url+"/v1/append", r)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	resp, err := ts.h1.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || strings.Count(string(b), `"status":201`) != lines {
		t.Errorf("%v, %s", err, b[max(0, len(b)-300):])
	}
}

// A client that breaks off in the middle of a line has not sent that line.
func TestNDJSON_CutShort(t *testing.T) {
	store := newFakeStore()
	ts := serve(t, store)
	d := ts.duplex("/v1/append")
	d.send(one("a"))
	d.expect(`"status":201`)
	if _, err := io.WriteString(d.in, one("a")); err != nil {
		t.Fatal(err)
	}
	d.in.CloseWithError(io.ErrUnexpectedEOF)
	for d.answers.Scan() {
		if strings.Contains(d.answers.Text(), `"status":201`) {
			t.Errorf("a line that was cut short was appended: %s", d.answers.Text())
		}
	}
	eventually(t, "the request has ended", func() bool { return ts.streams.Load() == 0 })
	if n := store.count(); n != 2 {
		t.Errorf("%d events were written", n-1)
	}
}

// The server's end lets the lines that were read be answered.
func TestNDJSON_EndsWithTheServer(t *testing.T) {
	store := newFakeStore()
	entered, leave := make(chan struct{}), make(chan struct{})
	store.hook = func(context.Context, *event.Append) error {
		close(entered)
		<-leave
		return nil
	}
	ts := serve(t, store)
	d := ts.duplex("/v1/append")
	d.send(one("a"))
	<-entered
	ended := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		ended <- ts.Shutdown(ctx)
	}()
	<-ts.stopping
	close(leave)
	d.expect(`"status":201`)
	if d.answers.Scan() {
		t.Errorf("more came: %s", d.answers.Text())
	}
	d.close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
