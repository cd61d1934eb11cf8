package index

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"cairn/event"
)

// build opens an index with the events committed in as many savepoints.
func build(t *testing.T, lim limits, events []event.Event, savepoints int) *Index {
	t.Helper()
	x, _, err := open(Options{FS: vfs.NewMem(), Dir: "state"}, lim)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	})
	for part := range slices.Chunk(events, (len(events)+savepoints-1)/savepoints) {
		x.AddAll(part)
		x.Freeze()
		last := part[len(part)-1].Position
		if err := x.Commit(Savepoint{Index: last, Position: last}); err != nil {
			t.Fatal(err)
		}
	}
	return x
}

// tagged returns n events whose tag is chosen by position, from 0.
func tagged(n int, tag func(i int) string) []event.Event {
	events := make([]event.Event, n)
	for i := range events {
		events[i] = event.Event{
			Position: uint64(i + 1), Version: uint64(i/1000 + 1), Stream: fmt.Sprintf("s-%d", i%1000),
			Type: "T", Tags: []string{tag(i)},
		}
	}
	return events
}

func both2(a, b string) event.Query {
	return event.Query{Items: []event.QueryItem{{Tags: []string{a, b}}}}
}

// Two long lists that never meet: what is read of them depends on how often
// they interleave, and never exceeds each block once.
func TestConflict_TagsThatNeverMeet(t *testing.T) {
	const n = 200_000
	for _, c := range []struct {
		what     string
		tag      func(i int) string
		maxReads int
	}{
		{"one after the other", func(i int) string { return map[bool]string{true: "a", false: "b"}[i < n/2] }, 2},
		{"in turn", func(i int) string { return []string{"a", "b"}[i%2] }, 2 * (n/2/4096 + 1)},
		{"in runs of 50,000", func(i int) string { return []string{"a", "b"}[i/50_000%2] }, 8},
	} {
		x := build(t, defaultLimits, tagged(n, c.tag), 3)
		v := x.View(n)
		for _, backward := range []bool{false, true} {
			p := plan{v: v, backward: backward}
			matches, _ := p.query(both2("a", "b"))
			it := p.iter(matches.source, 0)
			if got, ok := it.Next(); ok || it.Err() != nil {
				t.Errorf("%s: %d, %v, want nothing", c.what, got, it.Err())
			}
			reads := 0
			for _, l := range p.lists {
				reads += l.blocks.reads
			}
			it.Close()
			t.Logf("%s, backward %t: %d blocks read", c.what, backward, reads)
			if reads > c.maxReads {
				t.Errorf("%s, backward %t: %d blocks read, want at most %d", c.what, backward, reads, c.maxReads)
			}
		}
		v.Close()
	}
}

// A stream's version is found by a few blocks, wherever it stands and however
// unevenly the stream grew.
func TestStream_VersionThroughBlockOrdinals(t *testing.T) {
	const n = 60_000
	rng := rand.New(rand.NewPCG(3, 3))
	var events []event.Event
	var want []uint64
	versions := map[string]uint64{}
	for i := range n {
		name := "long"
		if i > 1000 && i < 30_000 || rng.IntN(3) == 0 { // a long silence, then mixed
			name = "other"
		}
		versions[name]++
		if name == "long" {
			want = append(want, uint64(i+1))
		}
		events = append(events, event.Event{Position: uint64(i + 1), Version: versions[name], Stream: name, Type: "T"})
	}
	x := build(t, limits{spill: 8, block: 64, look: 8, memTable: 1 << 20}, events, 7)
	v := x.View(n)
	defer v.Close()
	worst := 0
	for version := 1; version <= len(want); version += 37 {
		var err error
		l := v.list(kindStream, "long", 0, &err)
		got, ok := l.at(uint64(version - 1))
		if !ok || got != want[version-1] || err != nil {
			t.Fatalf("version %d stands at %d, %t, %v, want %d", version, got, ok, err, want[version-1])
		}
		worst = max(worst, l.blocks.reads)
		l.close()
	}
	t.Logf("%d versions in blocks of 64: at most %d reads", len(want), worst)
	if worst > 12 {
		t.Errorf("%d blocks read to find a version", worst)
	}
	if p, ok := v.Stream("long", uint64(len(want))+1, false).Next(); ok {
		t.Errorf("a version that is not there stands at %d", p)
	}
}

// What a filter asks for is left to the reader's own check where the index
// would cost more.
func TestSelect_LeavesOutLongParts(t *testing.T) {
	events := tagged(20_000, func(i int) string { return map[bool]string{true: "rare", false: "common"}[i == 7 || i == 19_990] })
	x := build(t, limits{spill: 8, block: 64, look: 8, memTable: 1 << 20}, events, 2)
	v := x.View(20_000)
	defer v.Close()
	f := &event.Filter{Query: event.Query{Items: []event.QueryItem{{Tags: []string{"rare"}}}}, Category: "s"}
	it, exact, ok := v.Select(f, 0, true)
	defer it.Close()
	if !ok || exact {
		t.Errorf("exact %t, ok %t: the category of all events was read", exact, ok)
	}
	for _, want := range []uint64{19_991, 8} {
		if got, ok := it.Next(); !ok || got != want {
			t.Errorf("%d, %t, want %d", got, ok, want)
		}
	}
	f = &event.Filter{Query: event.Query{Items: []event.QueryItem{{Tags: []string{"common"}}}}, Stream: "s-7"}
	it, _, _ = v.Select(f, 0, false)
	defer it.Close()
	for i := range 19 { // s-7 has 20, the first of them rare
		if got, ok := it.Next(); !ok || got%1000 != 8 {
			t.Fatalf("item %d of s-7: %d, %t", i, got, ok)
		}
	}
	if _, _, ok := v.Select(&event.Filter{FromTime: 5, StreamPrefix: "s"}, 0, false); ok {
		t.Error("a filter without a term has candidates")
	}
}

// The streams of an overlay are sorted a part at a time; every page must be
// complete all the same.
func TestStreams_ManyInTheOverlay(t *testing.T) {
	x := build(t, defaultLimits, tagged(1000, func(int) string { return "t" }), 1)
	rng := rand.New(rand.NewPCG(5, 5))
	names := map[string]bool{}
	for i := range 1000 {
		names[fmt.Sprintf("s-%d", i)] = true
	}
	position := uint64(1000)
	list := func() {
		t.Helper()
		v := x.View(position)
		defer v.Close()
		var got []string
		for after := ""; ; {
			page, err := v.Streams("", after, 700)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range page {
				got = append(got, s.Stream)
			}
			if len(page) < 700 {
				break
			}
			after = page[len(page)-1].Stream
		}
		if len(got) != len(names) || !slices.IsSorted(got) {
			t.Errorf("%d names, sorted %t, want %d", len(got), slices.IsSorted(got), len(names))
		}
	}
	for len(names) < 11_000 {
		name := fmt.Sprintf("n-%x", rng.Uint32())
		position++
		x.Add(&event.Event{Position: position, Version: 1, Stream: name, Type: "T"})
		names[name] = true
		if len(names)%2500 == 0 {
			list()
			if len(names) == 5000 {
				x.Freeze()
			}
		}
	}
	list()
	if len(x.active.names.sorted) == 0 {
		t.Error("the overlay's names were never sorted")
	}
	old := x.View(1000) // sees none of them
	defer old.Close()
	if page, err := old.Streams("n-", "", 10); err != nil || len(page) > 0 {
		t.Errorf("a view from before lists %v, %v", page, err)
	}
	if page, err := old.Streams("s-99", strings.Repeat("s-990", 1), 10); err != nil || len(page) != 9 {
		t.Errorf("s-99 after s-990: %v, %v", page, err)
	}
}
