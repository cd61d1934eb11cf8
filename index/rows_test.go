package index

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"cairn/event"
)

// rowModel is what the rows of an index must be: three layers, in which nil
// means deleted.
type rowModel struct {
	active, frozen, stored map[string][]byte
	position               uint64
}

func newRowModel() *rowModel {
	return &rowModel{active: map[string][]byte{}, frozen: map[string][]byte{}, stored: map[string][]byte{}}
}

// now returns all rows that a reader sees.
func (m *rowModel) now() map[string][]byte {
	all := maps.Clone(m.stored)
	maps.Copy(all, m.frozen)
	maps.Copy(all, m.active)
	maps.DeleteFunc(all, func(_ string, value []byte) bool { return value == nil })
	return all
}

func (m *rowModel) write(pairs []Pair) {
	for _, p := range pairs {
		if p.Value == nil {
			delete(m.stored, string(p.Key))
		} else {
			m.stored[string(p.Key)] = p.Value
		}
	}
}

func (m *rowModel) commit() {
	for key, value := range m.frozen {
		m.write([]Pair{{[]byte(key), value}})
	}
	m.frozen = map[string][]byte{}
}

var rowWords = []string{"", "a", "a/", "a/1", "a/10", "a/2", "a\xff", "a\xff\xff", "b", "\xff", "\xff\xff", "p", "p\x00"}

func randomPairs(rng *rand.Rand) (pairs []Pair) {
	for range rng.IntN(8) {
		p := Pair{[]byte(pick(rng, rowWords)), fmt.Appendf(nil, "%d", rng.Uint32())}
		switch rng.IntN(4) {
		case 0:
			p.Value = nil
		case 1:
			p.Value = []byte{}
		}
		pairs = append(pairs, p)
	}
	return pairs
}

func (m *rowModel) check(t reporter, x *Index, rng *rand.Rand) {
	t.Helper()
	all := m.now()
	key := pick(rng, rowWords)
	value, position, err := x.Row([]byte(key))
	if want := all[key]; err != nil || position != m.position || (value == nil) != (want == nil) || string(value) != string(want) {
		t.Fatalf("Row(%q) = %q, %d, %v, want %q, %d", key, value, position, err, want, m.position)
	}
	prefix, from, limit := pick(rng, rowWords), pick(rng, rowWords), rng.IntN(8)
	also := []byte(pick(rng, rowWords))
	if rng.IntN(4) == 0 {
		also = nil
	}
	var want []Pair
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if len(want) < limit && key >= from && strings.HasPrefix(key, prefix) {
			want = append(want, Pair{[]byte(key), all[key]})
		}
	}
	got, alsoValue, position, err := x.Rows([]byte(prefix), []byte(from), limit, also)
	if err != nil || position != m.position || fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Fatalf("Rows(%q, %q, %d) = %q, %d, %v, want %q, %d", prefix, from, limit, got, position, err, want, m.position)
	}
	if also != nil && string(alsoValue) != string(all[string(also)]) || also == nil && alsoValue != nil {
		t.Fatalf("Rows: the value of %q is %q, want %q", also, alsoValue, all[string(also)])
	}
}

// runRows drives an index and its model through steps, each 0 to 11.
func runRows(t reporter, steps []int, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 5))
	o := Options{FS: vfs.NewMem(), Dir: "state", CacheBytes: 1 << 20}
	m := newRowModel()
	ok := func(err error) {
		if err != nil {
			t.Fatalf("%v", err)
		}
	}
	x, _, err := open(o, smallLimits)
	ok(err)
	var saved uint64
	for _, step := range steps {
		switch {
		case step <= 4:
			m.position++
			pairs := randomPairs(rng)
			for _, p := range pairs {
				m.active[string(p.Key)] = p.Value
			}
			x.AddAppend([]event.Event{{Position: m.position, Version: m.position, Stream: "s", Type: "T"}}, pairs)
		case step <= 6:
			pairs := randomPairs(rng)
			m.write(pairs)
			ok(x.WriteRows(pairs))
		case step == 7:
			prefix := pick(rng, rowWords)
			maps.DeleteFunc(m.stored, func(key string, _ []byte) bool { return strings.HasPrefix(key, prefix) })
			ok(x.DropRows([]byte(prefix)))
		case step <= 9 && !x.Frozen():
			x.Freeze()
			m.frozen, m.active = m.active, map[string][]byte{}
			saved = m.position
		case step <= 10 && x.Frozen():
			ok(x.Commit(Savepoint{Index: saved, Position: saved}))
			m.commit()
		case step == 11:
			ok(x.Close())
			var sp Savepoint
			x, sp, err = open(o, smallLimits)
			ok(err)
			m.position, m.active, m.frozen = sp.Position, map[string][]byte{}, map[string][]byte{}
		}
		for range 4 {
			m.check(t, x, rng)
		}
	}
	ok(x.Close())
}

func TestRows_AnswerLikeTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		runRows(t, rapid.SliceOfN(rapid.IntRange(0, 11), 1, 40).Draw(t, "steps"), seed)
	})
}

// A listing sorts an overlay's rows a part at a time; every page must be complete
// all the same, and those of other prefixes must not be in it.
func TestRows_ManyInTheOverlay(t *testing.T) {
	x, _, err := open(Options{FS: vfs.NewMem(), Dir: "state"}, defaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	const n = 11_000
	for i := range n {
		x.AddAppend(nil, []Pair{
			{fmt.Appendf(nil, "a/%05d", i*7919%n), []byte("v")},
			{fmt.Appendf(nil, "b/%05d", i), []byte("w")},
		})
		if i == n/2 {
			x.Freeze()
		}
		if i%3000 != 0 && i != n-1 {
			continue
		}
		seen := 0
		for from := []byte(nil); ; {
			page, _, _, err := x.Rows([]byte("a/"), from, 700, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range page {
				if string(p.Value) != "v" || string(p.Key) < string(from) {
					t.Fatalf("%q = %q after %q", p.Key, p.Value, from)
				}
			}
			if seen += len(page); len(page) < 700 {
				break
			}
			from = append(page[len(page)-1].Key, 0)
		}
		if seen != i+1 {
			t.Errorf("%d rows, want %d", seen, i+1)
		}
	}
	if len(x.active.rowOrder.sorted) == 0 {
		t.Error("the overlay's rows were never sorted")
	}
}

// Each append and each WriteRows sets two rows to the same number: no reader may
// see them differ, nor a row with a number that its position does not allow,
// while overlays are frozen and committed.
func TestRows_AsOfOneMoment(t *testing.T) {
	const seed, least, most = 3, 2000, 1_000_000
	x, _, err := open(Options{FS: vfs.NewMem(), Dir: "state", CacheBytes: 1 << 20}, smallLimits)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var done atomic.Bool
	var reads, written atomic.Uint64
	freezes := make(chan uint64, 1)
	wg.Go(func() { // Apply
		defer close(freezes)
		defer done.Store(true)
		for n := uint64(1); (n <= least || reads.Load() < 200 || written.Load() < 50 || x.counts.commits.Load() < 5) && n < most && !t.Failed(); n++ {
			value := fmt.Append(nil, n)
			x.AddAppend([]event.Event{{Position: n, Version: n, Stream: "s", Type: "T"}},
				[]Pair{{[]byte("in/a"), value}, {[]byte("in/b"), value}})
			if got, at, err := x.Row([]byte("in/b")); err != nil || at != n || string(got) != string(value) {
				t.Errorf("Row = %q at %d, %v, want %d", got, at, err, n)
			}
			if n%20 == 0 && !x.Frozen() {
				x.Freeze()
				freezes <- n
			}
		}
	})
	wg.Go(func() { // savepoints
		for position := range freezes {
			if err := x.Commit(Savepoint{Index: position, Position: position}); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Go(func() { // a fold
		for n := uint64(1); !done.Load() && !t.Failed(); n++ {
			value := fmt.Append(nil, n)
			if err := x.WriteRows([]Pair{{[]byte("out/a"), value}, {[]byte("out/b"), value}}); err != nil {
				t.Error(err)
			}
			written.Store(n)
			if err := x.DropRows([]byte("nothing")); err != nil {
				t.Error(err)
			}
		}
	})
	for i := range 2 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(i)))
			for !done.Load() && !t.Failed() {
				prefix := []string{"in/", "out/"}[rng.IntN(2)]
				before := written.Load()
				pairs, also, at, err := x.Rows([]byte(prefix), nil, 5, []byte(prefix+"b"))
				if err != nil || len(pairs) != 0 && (len(pairs) != 2 || string(pairs[0].Value) != string(pairs[1].Value) ||
					string(also) != string(pairs[0].Value) || prefix == "in/" && string(also) != fmt.Sprint(at)) {
					t.Errorf("seed %d: Rows = %q, %q at %d, %v", seed, pairs, also, at, err)
				}
				value, at, err := x.Row([]byte(prefix + "a"))
				var n uint64
				_, _ = fmt.Sscan(string(value), &n)
				if err != nil || prefix == "in/" && n != at || prefix == "out/" && n < before {
					t.Errorf("seed %d: Row = %q at %d, %v; %d was written", seed, value, at, err, before)
				}
				reads.Add(1)
			}
		})
	}
	wg.Wait()
	t.Logf("%d reads, %d writes, %d commits", reads.Load(), written.Load(), x.Stats().Commits)
	if reads.Load() < 200 || written.Load() < 50 || x.Stats().Commits < 5 {
		t.Error("too few to mean anything")
	}
	if err := x.Close(); err != nil {
		t.Error(err)
	}
}

func TestRows_AfterClose(t *testing.T) {
	x, _, err := Open(Options{FS: vfs.NewMem(), Dir: "state"})
	if err != nil {
		t.Fatal(err)
	}
	x.AddAppend(nil, []Pair{{[]byte("added"), []byte("v")}})
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	_, _, rowErr := x.Row([]byte("added"))
	_, _, _, rowsErr := x.Rows(nil, nil, 10, nil)
	for what, err := range map[string]error{"Row": rowErr, "Rows": rowsErr,
		"WriteRows": x.WriteRows([]Pair{{[]byte("k"), []byte("v")}}), "DropRows": x.DropRows(nil)} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s after Close: %v", what, err)
		}
	}
}

func BenchmarkRow(b *testing.B) {
	x, _, err := Open(Options{FS: vfs.NewMem(), Dir: "state"})
	if err != nil {
		b.Fatal(err)
	}
	defer x.Close()
	const n = 300_000
	key := func(i int) []byte { return fmt.Appendf(nil, "12345678/account-%d", i) }
	for start := 0; start < n; start += 10_000 {
		var pairs []Pair
		for i := range 10_000 {
			pairs = append(pairs, Pair{key(start + i), make([]byte, 150)})
		}
		if err := x.WriteRows(pairs); err != nil {
			b.Fatal(err)
		}
	}
	x.AddAppend(nil, []Pair{{key(n), make([]byte, 150)}})
	rng := rand.New(rand.NewPCG(1, 1))
	for what, pick := range map[string]func() []byte{
		"overlay": func() []byte { return key(n) },
		"stored":  func() []byte { return key(rng.IntN(n)) },
		"missing": func() []byte { return key(n + 1 + rng.IntN(n)) },
	} {
		b.Run(what, func(b *testing.B) {
			for b.Loop() {
				if _, _, err := x.Row(pick()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
