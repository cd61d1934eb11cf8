package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func exampleReport() *report {
	begun := time.Date(2026, 11, 23, 6, 0, 0, 0, time.UTC)
	rate := func(text, verdict string, v float64) line {
		return line{Name: "append rate, 8 clients × 100", Goal: "within 15 %", Text: text, Verdict: verdict, Values: map[string]float64{"rate": v}}
	}
	return &report{
		Begun: begun, System: "Linux 6", Cores: 2, Nodes: 3, Size: 256,
		Rows: []row{
			{Events: 1_000_000, Position: 1_000_001, Lines: []line{rate("74,000", "", 74_000)}},
			{Events: 5_000_000, Position: 5_100_000, Lines: []line{rate("50,000", verdictMisses, 50_000), {Name: "scan", Text: "fast", Verdict: verdictOK}}},
		},
		Samples: []sample{{500_000, 70_000, 200 << 20}, {1_000_000, 74_000, 210 << 20}},
		Stalls: timeline{Begun: begun, Slice: 250 * time.Millisecond, P99: []time.Duration{0, time.Millisecond, 2 * time.Second},
			Windows: []window{{snapshot, begun, begun.Add(time.Second)}}},
	}
}

func TestReport_Markdown(t *testing.T) {
	got := exampleReport().markdown()
	for _, want := range []string{
		"Linux 6, 2 cores, 3 nodes; 256 bytes",
		"| figure | goal | 1,000,000 | 5,000,000 |\n|---|---|---|---|\n| position at the row | | 1,000,001 | 5,100,000 |\n",
		"| append rate, 8 clients × 100 | within 15 % | 74,000 | **misses**: 50,000 |\n",
		"| scan |  |  | ok: fast |\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

func TestReport_PlotIsXML(t *testing.T) {
	for _, r := range []*report{exampleReport(), {}} {
		d := xml.NewDecoder(strings.NewReader(string(r.plot())))
		for {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := string(exampleReport().plot()); strings.Count(got, "<circle") != 2 || strings.Contains(got, "NaN") {
		t.Errorf("dots or numbers are wrong in\n%s", got)
	}
}

func TestTicks(t *testing.T) {
	for _, most := range []float64{1, 7, 36.5, 99_999, 20_000_000} {
		if got := ticks(most); len(got) < 4 || len(got) > 8 {
			t.Errorf("ticks(%g) = %v", most, got)
		}
	}
}

func TestParse(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "cairn-node")
	if err := os.WriteFile(binary, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	s, err := parse([]string{"-bin", binary}, io.Discard)
	if err != nil || len(s.rows) != 4 || s.rows[3] != 20_000_000 || s.nodes != 1 || !filepath.IsAbs(s.data) {
		t.Errorf("defaults: %+v, %v", s, err)
	}
	for _, bad := range []string{"-rows=5", "-rows=100000,100000", "-rows=x", "-nodes=2", "-size=1", "-figures=speed", "more"} {
		if _, err := parse([]string{"-bin", binary, bad}, io.Discard); err == nil {
			t.Errorf("%s is not refused", bad)
		}
	}
}

func TestClaim_RefusesWhatIsNotEmpty(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	if err := claim(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "mine"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := claim(dir); err == nil {
		t.Error("a folder with something in it is taken")
	}
}

func TestUsageOf_CountsHardLinksOnce(t *testing.T) {
	dir := t.TempDir()
	put := func(path string, kib int) string {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.Repeat("x", kib<<10)), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	put("logs/main/gen-000001/log/1.seg", 64)
	table := put("logs/main/gen-000001/state/1.sst", 32)
	put("raft/wal/1.wal", 16)
	put("raft/snapshots/a/state/2.sst", 8)
	if err := os.Link(table, filepath.Join(dir, "raft/snapshots/a/state/1.sst")); err != nil {
		t.Fatal(err)
	}
	got, err := usageOf(dir)
	if want := (usage{64 << 10, 32 << 10, 16 << 10, 8 << 10}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

func TestBench_RoomLeavesTheLastMillion(t *testing.T) {
	b := &bench{s: &settings{rows: []int{1_000_000, 5_000_000}}}
	for _, c := range []struct{ row, sent, want, figures, room int }{
		{0, 1_000_000, 1_500_000, 2, 1_500_000},
		{0, 2_500_000, 1_000_000, 1, 1_000_000},
		{0, 3_600_000, 1_000_000, 1, 400_000},
		{0, 4_000_000, 1_000_000, 1, batchEvents},
		{1, 5_000_000, 1_500_000, 2, 1_500_000},
	} {
		b.row = c.row
		b.batches.Store(int64(c.sent / batchEvents))
		if got := b.room(c.want, c.figures); got != c.room {
			t.Errorf("at %d of row %d: %d of %d, want %d", c.sent, c.row, got, c.want, c.room)
		}
	}
}
