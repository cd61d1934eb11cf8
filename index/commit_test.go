package index

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"cairn/event"
)

func TestCommit_Positions(t *testing.T) {
	x, _, err := Open(Options{FS: vfs.NewMem(), Dir: "state"})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	x.AddAll(tagged(3, func(int) string { return "t" }))
	if err := x.Commit(Savepoint{Index: 1, Position: 3}); err == nil {
		t.Error("a savepoint covers events that are not frozen")
	}
	if err := x.Commit(Savepoint{Index: 1, Position: 0}); err != nil {
		t.Errorf("a savepoint of nothing new: %v", err)
	}
	x.Freeze()
	for _, position := range []uint64{0, 2, 4} {
		if err := x.Commit(Savepoint{Index: 1, Position: position}); err == nil {
			t.Errorf("a savepoint at %d covers 3 events", position)
		}
	}
	mustPanic(t, "a second Freeze", x.Freeze)
	if err := x.Commit(Savepoint{Index: 5, Position: 3}); err != nil || x.Frozen() {
		t.Errorf("commit: %v, frozen %t", err, x.Frozen())
	}
	mustPanic(t, "a gap", func() { x.Add(&event.Event{Position: 5, Version: 1, Stream: "g"}) })
	mustPanic(t, "a position again", func() { x.Add(&event.Event{Position: 3, Version: 1, Stream: "g"}) })
	x.Freeze() // of nothing
	if err := x.Commit(Savepoint{Index: 9, Position: 3}); err != nil {
		t.Errorf("a savepoint of commands that added no event: %v", err)
	}
}

func mustPanic(t *testing.T, what string, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("%s did not panic", what)
		}
	}()
	f()
}

// Pebble sorts a large batch that is not in order.
func TestCommit_BatchIsInOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 6))
	m := newModel()
	for range 300 {
		m.add(rng)
	}
	x := build(t, smallLimits, m.events[:200], 1)
	x.AllowMerges()
	x.AddAppend(m.events[200:], []Pair{{[]byte("row"), []byte("v")}, {[]byte("a row"), nil}})
	x.Put([]byte("key"), []byte("value"))
	x.Put([]byte("a key"), []byte("value"))
	c := committer{index: x, gen: x.gen, batch: x.store.db.NewBatch(), merges: true}
	if err := c.fill(x.active, &Savepoint{Index: 1, Position: 300}); err != nil {
		t.Fatal(err)
	}
	defer c.batch.Close()
	var before []byte
	sorts := map[byte]int{}
	for r := c.batch.Reader(); ; {
		_, key, _, ok, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		if bytes.Compare(before, key) >= 0 {
			t.Errorf("%q comes after %q", key, before)
		}
		before = key
		sorts[key[0]]++
	}
	for _, sort := range []byte("bhipsux") {
		if sorts[sort] == 0 {
			t.Errorf("there is no record %q", sort)
		}
	}
}

// A stream whose versions don't go on where the store ends would corrupt it for
// good: it is refused, and nothing is written.
func TestCommit_RefusesGapInVersions(t *testing.T) {
	x := build(t, defaultLimits, tagged(3, func(int) string { return "t" }), 1)
	x.Add(&event.Event{Position: 4, Version: 3, Stream: "s-0", Type: "T"})
	x.Freeze()
	var corrupt *CorruptError
	if err := x.Commit(Savepoint{Index: 4, Position: 4}); !errors.As(err, &corrupt) {
		t.Errorf("commit: %v, want a CorruptError", err)
	}
	x.AllowMerges() // then it is not noticed before the stream is read, but then it is
	if err := x.Commit(Savepoint{Index: 4, Position: 4}); err != nil {
		t.Errorf("commit: %v", err)
	}
	if h, err := x.Head("s-0"); !errors.As(err, &corrupt) {
		t.Errorf("Head = %+v, %v, want a CorruptError", h, err)
	}
}

// Pebble calls Fatalf and expects to be ended by it.
func TestStore_FatalEndsTheCall(t *testing.T) {
	var told atomic.Int32
	x, _, err := Open(Options{FS: vfs.NewMem(), Dir: "state", OnError: func(error) { told.Add(1) }})
	if err != nil {
		t.Fatal(err)
	}
	var returned atomic.Bool
	err = x.store.guard(func() error {
		defer returned.Store(true)
		pebbleLogger{&x.store}.Fatalf("boom %d", 1)
		return nil
	})
	if err == nil || err.Error() != "boom 1" || returned.Load() {
		t.Errorf("guard: %v, returned %t", err, returned.Load())
	}
	err = x.store.guard(func() error { panic("again") })
	if err == nil || err.Error() != "boom 1" { // the first failure stays
		t.Errorf("guard: %v", err)
	}
	if err := x.Commit(Savepoint{}); err == nil {
		t.Error("a commit succeeded after a failure")
	}
	if err := x.Checkpoint("copy"); err == nil {
		t.Error("a checkpoint succeeded after a failure")
	}
	_ = x.Stats()
	if err := x.Close(); err == nil {
		t.Error("Close says nothing of the failure")
	}
	if n := told.Load(); n != 1 {
		t.Errorf("OnError was called %d times", n)
	}
}

func TestOpen_IsExclusive(t *testing.T) {
	fs := vfs.NewMem()
	o := Options{FS: fs, Dir: "state", OnError: func(err error) { t.Errorf("OnError: %v", err) }}
	x, _, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	if _, _, err := Open(o); err == nil {
		t.Error("opened twice")
	}
	if err := x.Commit(Savepoint{Index: 1}); err != nil {
		t.Errorf("the second Open did harm: %v", err)
	}
}

// Most look-ups are for streams and ids that are new: the filters of the last
// level, where most keys are, must answer them too.
func TestHead_MissingIsAnsweredByFilters(t *testing.T) {
	x := build(t, defaultLimits, tagged(5000, func(int) string { return "t" }), 2)
	if err := x.store.db.Compact(t.Context(), []byte{0}, []byte{255}, false); err != nil {
		t.Fatal(err)
	}
	if m := x.store.db.Metrics(); m.Levels[6].TablesCount == 0 {
		t.Fatal("nothing is in the last level")
	}
	before := x.store.db.Metrics().Filter.Hits
	for i := range 100 {
		if h, err := x.Head(fmt.Sprintf("s-%d-new", i)); err != nil || h.Version != 0 {
			t.Fatalf("Head = %v, %v", h, err)
		}
	}
	if hits := x.store.db.Metrics().Filter.Hits - before; hits < 90 {
		t.Errorf("filters answered %d of 100 look-ups", hits)
	}
}

func TestCheckpoint_IsTheLastCommit(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := newScript(3)
	x, err := s.run(Options{FS: noReuse{fs}, Dir: "gen/state"}, func(int, int) {})
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Checkpoint("gen/checkpoint-1"); err != nil {
		t.Fatal(err)
	}
	if err := x.Checkpoint("gen/checkpoint-1"); err == nil {
		t.Error("a checkpoint over another one")
	}
	after := crashClone(fs, 0, 0) // it must be on disk by now
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	if err := after.RemoveAll("gen/state"); err != nil {
		t.Fatal(err)
	}
	if err := after.Rename("gen/checkpoint-1", "gen/state"); err != nil {
		t.Fatal(err)
	}
	s.verify(t, after, scriptRounds, scriptRounds, "checkpoint")
}

// A record that this package did not write is an error, not an answer.
func TestOpen_RefusesUnknownForms(t *testing.T) {
	fs := vfs.NewMem()
	x, _, err := Open(Options{FS: fs, Dir: "state"})
	if err != nil {
		t.Fatal(err)
	}
	bad := map[string][]byte{
		string(headKey(nil, appendTerm(nil, kindStream, "bad"))):  {99},
		string(idKey(nil, "bad", "s")):                            {99},
		string(headKey(nil, appendTerm(nil, kindStream, "hole"))): (&head{count: 3, first: 1, block: blockHead{count: 2, first: 1, last: 2}, tail: []uint64{3}}).encode(nil),
		string(headKey(nil, appendTerm(nil, kindTag, "bad"))):     {1, 3, 1},
	}
	for key, value := range bad {
		if err := x.store.db.Set([]byte(key), value, pebble.Sync); err != nil {
			t.Fatal(err)
		}
	}
	if err := x.gen.release(); err != nil {
		t.Fatal(err)
	}
	if x.gen, err = x.store.newGeneration(10); err != nil {
		t.Fatal(err)
	}
	x.active.base = 11
	v := x.View(10)
	isCorrupt := func(what string, err error) {
		t.Helper()
		var corrupt *CorruptError
		if !errors.As(err, &corrupt) {
			t.Errorf("%s: %v, want a CorruptError", what, err)
		}
	}
	_, err = v.Head("bad")
	isCorrupt("Head", err)
	_, _, err = v.Lookup("bad", "s")
	isCorrupt("Lookup", err)
	_, _, err = v.Conflict(event.Query{Items: []event.QueryItem{{Tags: []string{"t"}}, {Tags: []string{"bad"}}}}, 0)
	isCorrupt("Conflict", err)
	_, err = v.Streams("", "", 10)
	isCorrupt("Streams", err)
	for _, backward := range []bool{false, true} {
		it := v.Stream("hole", 1, backward)
		for _, ok := it.Next(); ok; _, ok = it.Next() {
		}
		isCorrupt("Stream", it.Err())
		it.Close()
	}
	v.Close()
	if err := x.store.db.Set([]byte{prefixSavepoint}, []byte{99}, pebble.Sync); err != nil {
		t.Fatal(err)
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	_, _, err = Open(Options{FS: fs, Dir: "state"})
	isCorrupt("Open", err)
}

// OverlayBytes decides when a savepoint is due: it must be what the heap says.
func TestOverlay_BytesAreHonest(t *testing.T) {
	for _, c := range []struct {
		what string
		make func(rng *rand.Rand, i int) event.Event
		row  func(i int) []Pair
	}{
		{"new streams", func(rng *rand.Rand, i int) event.Event {
			return event.Event{Version: 1, Stream: fmt.Sprintf("account-%d", rng.Uint32()), Type: "Opened"}
		}, nil},
		{"rows", func(rng *rand.Rand, i int) event.Event {
			return event.Event{Version: uint64(i/100 + 1), Stream: fmt.Sprintf("account-%d", i%100), Type: "Moved"}
		}, func(i int) []Pair {
			return []Pair{{fmt.Appendf(nil, "12345678/account-%d", i%20_000), fmt.Appendf(make([]byte, 0, 112), `{"balance":%d,"owner":%080d}`, i, i)}}
		}},
		{"long streams", func(rng *rand.Rand, i int) event.Event {
			return event.Event{Version: uint64(i/100 + 1), Stream: fmt.Sprintf("account-%d", i%100), Type: "Moved", Tags: []string{"x:1", "y:2"}}
		}, nil},
		{"chosen ids and tags", func(rng *rand.Rand, i int) event.Event {
			return event.Event{Version: uint64(i/1000 + 1), Stream: fmt.Sprintf("account-%d", i%1000), Type: "Moved",
				ID: fmt.Sprintf("%08x-0000-7000-8000-%012x", i, rng.Uint32()), IDChosen: true,
				Tags: []string{fmt.Sprintf("customer:%d", rng.IntN(30_000)), fmt.Sprintf("order:%d", i)}}
		}, nil},
	} {
		const n = 50_000
		x := &Index{active: newOverlay(1)}
		rng := rand.New(rand.NewPCG(1, 1))
		before := heapInUse()
		for i := range n {
			e := c.make(rng, i)
			e.Position = uint64(i + 1)
			var pairs []Pair
			if c.row != nil {
				pairs = c.row(i)
			}
			x.AddAppend([]event.Event{e}, pairs)
		}
		heap := float64(heapInUse() - before)
		ratio := float64(x.OverlayBytes()) / heap
		t.Logf("%s: %.0f bytes an event, estimate %.2f of it", c.what, heap/n, ratio)
		if ratio < 0.8 || ratio > 1.25 {
			t.Errorf("%s: the estimate is %d, the heap %.0f", c.what, x.OverlayBytes(), heap)
		}
		runtime.KeepAlive(x)
	}
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// The overlay must not hold on to what an event's strings are cut from: an
// entry of the Raft log.
func TestOverlay_CopiesStrings(t *testing.T) {
	text := strings.Clone("account-1 Opened customer:1 id-1")
	x, _, err := Open(Options{FS: vfs.NewMem(), Dir: "state"})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	words := strings.Fields(text)
	x.Add(&event.Event{Position: 1, Version: 1, Stream: words[0], Type: words[1], Tags: words[2:3], ID: words[3], IDChosen: true})
	kept := slices.Collect(maps.Keys(x.active.terms))
	kept = append(kept, slices.Collect(maps.Keys(x.active.ids))...)
	for _, s := range kept {
		from, at := uintptr(unsafe.Pointer(unsafe.StringData(text))), uintptr(unsafe.Pointer(unsafe.StringData(s)))
		if at >= from && at < from+uintptr(len(text)) {
			t.Errorf("%q is a part of the entry", s)
		}
	}
	runtime.KeepAlive(text)
	value := []byte("value")
	x.Put([]byte("key"), value)
	value[0] = 'V'
	if got, err := x.Get([]byte("key")); err != nil || string(got) != "value" {
		t.Errorf("Get = %q, %v", got, err)
	}
}
