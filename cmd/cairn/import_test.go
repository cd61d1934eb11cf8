package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"cairn/event"
)

var seconds = regexp.MustCompile(`"seconds":[0-9.e-]+|in [0-9.]+ s \([0-9,]+/s\)`)

// imported runs `cairn import` and takes the times out of what it prints.
func (f *fakeNode) imported(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	code, out, errs := f.run(t, stdin, append([]string{"import"}, args...)...)
	return code, seconds.ReplaceAllString(out, "TIME"), errs
}

func importLines(from, to int) string {
	var b strings.Builder
	for i := from; i <= to; i++ {
		fmt.Fprintf(&b, `{"stream":"s-%d","type":"T","id":"id-%d","data":%d}`+"\n", i%3, i, i)
	}
	return b.String()
}

func TestImport(t *testing.T) {
	f := newFakeNode(t)
	file := filepath.Join(t.TempDir(), "events.ndjson")
	if err := os.WriteFile(file, []byte(importLines(1, 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs := f.imported(t, "", file, "--window", "7")
	if code != 0 || out != `{"appended":100,"duplicate":0,"failed":0,"last_line":100,TIME}`+"\n" || errs != "" {
		t.Errorf("exit %d, %s%s", code, out, errs)
	}
	// The file has grown, and comes on stdin, with a blank line and no last newline.
	code, out, errs = f.imported(t, importLines(1, 100)+"\n"+strings.TrimSpace(importLines(101, 110)), "-o", "text")
	if code != 0 || out != "110 lines TIME: 10 appended, 100 there already, 0 failed\n" || errs != "" {
		t.Errorf("exit %d, %s%s", code, out, errs)
	}
	if len(f.events) != 110 {
		t.Errorf("%d events", len(f.events))
	}
	for i, e := range f.events {
		if want := fmt.Sprint("id-", i+1); e.ID != want || e.Stream != fmt.Sprint("s-", (i+1)%3) {
			t.Fatalf("event %d is %s of %s", i+1, e.ID, e.Stream)
		}
	}
}

// faulty is a file with lines that can't be sent, and one, 6, that is refused.
var faulty = importLines(1, 2) + "nonsense\n" + `{"type":"T"}` + "\n" + importLines(3, 3) + importLines(6, 6) + `{"stream":"$s","type":"T"}` + "\n" + importLines(7, 9)

func refuseSix(e *event.Event) string {
	if e.ID == "id-6" {
		return `{"type":"urn:cairn:error:id-reused","status":409,"detail":"id-6 is taken"}`
	}
	return ""
}

func TestImport_ContinueOnError(t *testing.T) {
	f := newFakeNode(t)
	f.refuse = refuseSix
	code, out, errs := f.imported(t, faulty, "--continue-on-error")
	if code != 1 || out != `{"appended":6,"duplicate":0,"failed":4,"last_line":10,TIME}`+"\n" {
		t.Errorf("exit %d, %s", code, out)
	}
	lines := strings.Split(strings.TrimSpace(errs), "\n")
	for _, want := range []string{
		"cairn: line 3: body: is not the JSON it should be", `cairn: line 4: it names no stream; add "stream" to it, or give --stream`,
		"cairn: line 6: conflict: id-6 is taken; choose another id", "cairn: line 7: stream: names that begin with '$'",
	} {
		found := false
		for _, line := range lines {
			found = found || strings.HasPrefix(line, want)
		}
		if !found {
			t.Errorf("no %q in\n%s", want, errs)
		}
	}
	if len(lines) != 4 || len(f.events) != 6 {
		t.Errorf("%d events, %s", len(f.events), errs)
	}
}

func TestImport_StopsAtError(t *testing.T) {
	tests := []struct {
		name, stdin string
		args        []string
		appended    int
		says        string
	}{
		{"nonsense", faulty, nil, 2, "cairn: line 3: body: is not the JSON it should be"},
		{"no stream", strings.ReplaceAll(faulty, "nonsense", ""), nil, 2, `cairn: line 4: it names no stream; add "stream" to it, or give --stream`},
		{"refused", strings.ReplaceAll(faulty, "nonsense", ""), []string{"--stream", "s-0", "--window", "1"}, 4, "cairn: line 6: conflict: id-6 is taken"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFakeNode(t)
			f.refuse = refuseSix
			code, out, errs := f.imported(t, test.stdin, test.args...)
			want := fmt.Sprintf(`{"appended":%d,"duplicate":0,"failed":1,`, test.appended)
			if code != 1 || !strings.HasPrefix(out, want) || !strings.HasPrefix(errs, test.says) || strings.Count(errs, "\n") != 1 {
				t.Errorf("exit %d, %s%s", code, out, errs)
			}
		})
	}
}

// A broken connection costs nothing but time.
func TestImport_Reconnects(t *testing.T) {
	f := newFakeNode(t)
	n := 0
	f.refuse = func(*event.Event) string {
		if n++; n%40 == 0 {
			return "break"
		}
		return ""
	}
	code, out, errs := f.imported(t, importLines(1, 200))
	var appended, duplicate int
	_, err := fmt.Sscanf(out, `{"appended":%d,"duplicate":%d,"failed":0,"last_line":200`, &appended, &duplicate)
	if code != 0 || err != nil || appended+duplicate != 200 || len(f.events) != 200 || !strings.Contains(errs, "interrupted (") {
		t.Errorf("exit %d, %s%s, %d events", code, out, errs, len(f.events))
	}
}

// An import whose input stands still can be interrupted, and says where it is.
func TestImport_Interrupted(t *testing.T) {
	f := newFakeNode(t)
	ctx, cancel := context.WithCancel(t.Context())
	in, feed := io.Pipe()
	var out, errs bytes.Buffer
	done := make(chan error)
	go func() { done <- run(ctx, []string{"import", "--node", f.url}, in, &out, &errs) }()
	if _, err := io.WriteString(feed, importLines(1, 5)); err != nil {
		t.Fatal(err)
	}
	for appended := 0; appended < 5; {
		f.mu.Lock()
		appended = len(f.events)
		grown := f.grown
		f.mu.Unlock()
		if appended < 5 {
			<-grown
		}
	}
	// Its answer may still be on the way: the line it ended after is not sure.
	cancel()
	code := report(<-done, &errs)
	_ = feed.Close()
	if code != 1 || !regexp.MustCompile(`^cairn: import ended after line \d \(interrupted\); repeat the import: `).MatchString(errs.String()) {
		t.Errorf("exit %d, %s", code, errs.String())
	}
}

// What export writes import takes, and gives the same streams.
func TestExport(t *testing.T) {
	from, to := account(t), newFakeNode(t)
	exported := from.ok(t, "", "export")
	want := `{"type":"FundsDeposited","stream":"account-42","id":"d","tags":["customer:9"],"data":{"amount":100}}` + "\n" +
		`{"type":"PhotoTaken","stream":"photo-7","id":"p","content_type":"image/png","data_base64":"AQID"}` + "\n" +
		`{"type":"FundsWithdrawn","stream":"account-42","id":"w","data":{"amount":30,"why":"` + "\u009b" + `31m"}}` + "\n"
	if exported != want {
		t.Errorf("got %s", exported)
	}
	if code, out, errs := to.imported(t, exported); code != 0 {
		t.Fatalf("exit %d, %s%s", code, out, errs)
	}
	if got := to.ok(t, "", "export"); got != exported {
		t.Errorf("got %s", got)
	}
	if got := from.ok(t, "", "export", "photo-7"); strings.Count(got, "\n") != 1 {
		t.Errorf("got %s", got)
	}
	if got := from.ok(t, "", "export", "--prefix", "account-"); strings.Count(got, "\n") != 2 {
		t.Errorf("got %s", got)
	}
}

func TestLineReader(t *testing.T) {
	long := strings.Repeat("x", 700_000)
	r := newLineReader(strings.NewReader("a\r\n\n  b\n" + long + "\nlast"))
	for _, want := range []line{{[]byte("a"), 1, 3}, {[]byte("b"), 3, 8}, {[]byte(long), 4, 700_009}, {[]byte("last"), 5, 700_013}} {
		got, err := r.next()
		if err != nil || !bytes.Equal(got.text, want.text) || got.number != want.number || got.end != want.end {
			t.Fatalf("got line %d ending at %d with %.10q, %v; want %d, %d", got.number, got.end, got.text, err, want.number, want.end)
		}
	}
	if _, err := r.next(); !errors.Is(err, io.EOF) {
		t.Errorf("got %v", err)
	}
	if _, err := newLineReader(io.LimitReader(endless{}, maxLine+1)).next(); err == nil {
		t.Error("an endless line: no error")
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
	}
	return len(b), nil
}

func TestProgressLine(t *testing.T) {
	for _, test := range []struct {
		lines        int
		offset, size int64
		want         string
	}{
		{12345, 0, 0, "12,345 lines, 6,172/s"},
		{100, 50, 200, "█████░░░░░░░░░░░░░░░  25 %  100 lines, 50/s, 6s left"},
		{100, 200, 200, "████████████████████ 100 %  100 lines, 50/s, 0s left"},
	} {
		if got := progressLine(test.lines, test.offset, test.size, 2*time.Second); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
}
