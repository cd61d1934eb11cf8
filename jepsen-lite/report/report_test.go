package report

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cairn/jepsen-lite/check"
	"cairn/jepsen-lite/history"
)

func write(t *testing.T, dir string, h *history.History, verdicts []check.Verdict) string {
	t.Helper()
	if err := Write(dir, h, verdicts); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "index.html"))
	if err != nil {
		t.Fatal(err)
	}
	d := xml.NewDecoder(strings.NewReader(string(b)))
	for {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			return string(b)
		}
		if err != nil {
			t.Fatalf("not well-formed: %v", err)
		}
	}
}

func small() *history.History {
	evil := `<script>alert("x")</script>&`
	h := &history.History{
		Seed: 42, Command: "go run ./jepsen-lite -seed 42 " + evil, Length: 90 * time.Second,
		Faults: []history.Fault{
			{Nemesis: "kill", What: "kill -9 of n2, the leader " + evil, Nodes: []string{"n2"}, Start: 10 * time.Second, End: 20 * time.Second, Bit: map[string]int64{"ended": 1}},
			{Nemesis: "partition", What: "halves", Nodes: []string{"n1", "n3"}, Start: 15 * time.Second, End: 40 * time.Second},
			{Nemesis: "kill", What: "kill -9 of all", Start: 50 * time.Second, End: 50 * time.Second, Bit: map[string]int64{"ended": 3}},
		},
		Nodes: []history.Node{
			{Name: "n1", Events: make([]history.Event, 7), Worked: map[string]int64{"rolls": 1234}},
			{Name: "n2", Worked: map[string]int64{"rolls": 1, "installs": 2}},
		},
	}
	for i := range 2000 {
		at := time.Duration(i) * 45 * time.Millisecond
		op := history.Op{ID: i + 1, Workload: "append", Start: at, End: at + time.Duration(1+i%40)*time.Millisecond, Outcome: history.OK}
		switch {
		case i > 300 && i < 400:
			op.Outcome, op.End = history.Unknown, at+3*time.Second
		case i%9 == 0:
			op.Outcome, op.Code = history.Refused, evil
		}
		h.Ops = append(h.Ops, op)
	}
	return h
}

func TestWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "report")
	verdicts := []check.Verdict{
		{Checker: "acknowledged", Proves: "a < b", Valid: true, Detail: "12,345 acknowledged appends, all there", Counts: map[string]int64{"acknowledged": 12345}},
		{Checker: "reads", Detail: "12 problems; <b>", Problems: []string{"op 7 <i>"}, Counts: map[string]int64{"problems": 12}},
	}
	got := write(t, dir, small(), verdicts)
	for _, want := range []string{
		"✗ Not valid: reads (1 of 2 checkers)", "12,345 acknowledged appends, all there", "op 7 &lt;i&gt;", "and 11 more",
		"go run ./jepsen-lite -seed 42 &lt;script&gt;", "the leader &lt;script&gt;", "ended 1", "<td>nothing</td>",
		`<td>rolls</td><td class="n">1234</td><td class="n">1</td><td class="n">1235</td>`, "in bins of 1s", "prefers-color-scheme: dark",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not on the page", want)
		}
	}
	for _, never := range []string{"<script", "<i>", "http", "ZgotmplZ", "NaN", "Inf", "timeline.html"} {
		if strings.Contains(got, never) {
			t.Errorf("%q is on the page", never)
		}
	}

	if err := os.WriteFile(filepath.Join(dir, timelineName), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if got := write(t, dir, small(), verdicts[:1]); !strings.Contains(got, `href="timeline.html"`) || !strings.Contains(got, "✓ Valid: all 1 checkers agree") {
		t.Error("a valid run with a timeline does not say so")
	}
}

func TestWrite_OddHistories(t *testing.T) {
	for name, h := range map[string]*history.History{
		"empty":    {},
		"long":     {Length: 30 * time.Hour, Ops: []history.Op{{End: 29 * time.Hour, Outcome: history.OK}}},
		"backward": {Ops: []history.Op{{Start: 5, End: -5, Outcome: history.OK}}, Faults: []history.Fault{{Start: 9, End: 1}}},
		"endless":  {Length: math.MaxInt64, Ops: []history.Op{{End: math.MaxInt64, Outcome: history.OK}}, Faults: []history.Fault{{End: math.MaxInt64}}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := write(t, t.TempDir(), h, nil); !strings.Contains(got, "Not valid: nothing was checked") {
				t.Error("a page without verdicts is not invalid")
			}
		})
	}
}

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0 µs", 100 * time.Microsecond: "100 µs", 1234567: "1.23 ms", 10 * time.Second: "10 s"} {
		if got := short(d); got != want {
			t.Errorf("%d: got %s, want %s", d, got, want)
		}
	}
}

func TestQuantile(t *testing.T) {
	took := []time.Duration{1, 2, 3, 4}
	for percent, want := range map[int]time.Duration{25: 1, 50: 2, 51: 3, 99: 4, 100: 4} {
		if got := quantile(took, percent); got != want {
			t.Errorf("%d%%: got %d, want %d", percent, got, want)
		}
	}
}
