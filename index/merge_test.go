package index

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"cairn/event"
)

// A store that was written, and opened last, under Pebble's own merger, as older
// programs do, is opened and goes on with MERGE records; and as long as it has
// none, an older program can open it again.
func TestMerger_OpensOldStores(t *testing.T) {
	fs := vfs.NewMem()
	events := tagged(3000, func(i int) string { return fmt.Sprint(i % 100) })
	commit := func(x *Index, from, to uint64) {
		t.Helper()
		x.AddAll(events[from:to])
		x.Freeze()
		if err := x.Commit(Savepoint{Index: to, Position: to}); err != nil {
			t.Fatal(err)
		}
	}
	x, _, err := Open(Options{FS: fs, Dir: "state"})
	if err != nil {
		t.Fatal(err)
	}
	commit(x, 0, 1500)
	if err := errors.Join(x.store.db.Flush(), x.Close()); err != nil {
		t.Fatal(err)
	}
	old, err := pebble.Open("state", &pebble.Options{FS: fs, FormatMajorVersion: formatMajorVersion, Logger: pebbleLogger{&x.store}})
	if err != nil {
		t.Fatal(err)
	}
	value, closer, err := old.Get(headKey(nil, appendTerm(nil, kindTag, "7")))
	if err != nil || value[0] != formShortHead {
		t.Errorf("a head is %x, %v", value, err)
	}
	if err := errors.Join(closer.Close(), old.Compact(t.Context(), []byte{0}, []byte{255}, false), old.Close()); err != nil {
		t.Fatal(err)
	}
	x, sp, err := Open(Options{FS: fs, Dir: "state"})
	if err != nil || sp.Position != 1500 {
		t.Fatalf("opened %+v, %v", sp, err)
	}
	defer x.Close()
	x.AllowMerges()
	commit(x, 1500, 3000)
	if x.Stats().HeadsMerged == 0 {
		t.Error("no head was merged")
	}
	d := NewDigest()
	for i := range events {
		d.Add(&events[i])
	}
	if found := differences(t, x, d); len(found) > 0 {
		t.Errorf("%q", found)
	}
}

// mergeAll puts records, the oldest first, together in an order that rng
// chooses: parts of them first, by either method.
func mergeAll(t *testing.T, key []byte, records [][]byte, rng *rand.Rand) ([]byte, error) {
	t.Helper()
	if len(records) > 2 && rng.IntN(2) == 0 { // a compaction of some
		from := rng.IntN(len(records) - 1)
		to := from + 2 + rng.IntN(len(records)-from-1)
		part, err := mergeAll(t, key, records[from:to], rng)
		if err != nil {
			return nil, err
		}
		rest := append(append(append([][]byte(nil), records[:from]...), part), records[to:]...)
		return mergeAll(t, key, rest, rng)
	}
	first, step := 0, 1
	if rng.IntN(2) == 0 {
		first, step = len(records)-1, -1
	}
	own := bytes.Clone(records[first])
	m, err := headMerger.Merge(key, own)
	clear(own) // it is the caller's
	for i := first + step; err == nil && i >= 0 && i < len(records); i += step {
		own = bytes.Clone(records[i])
		if step > 0 {
			err = m.MergeNewer(own)
		} else {
			err = m.MergeOlder(own)
		}
		clear(own)
	}
	if err != nil {
		return nil, err
	}
	value, closer, err := m.Finish(rng.IntN(2) == 0)
	if closer != nil {
		t.Fatal("there is nothing to close")
	}
	return value, err
}

func TestMerger_OrderOfMergingDoesNotMatter(t *testing.T) {
	const seed = 4
	rng := rand.New(rand.NewPCG(seed, 1))
	for round := range 2000 {
		k := []kind{kindStream, kindTag}[rng.IntN(2)]
		key := headKey(nil, appendTerm(nil, k, "x"))
		want := head{tail: []uint64{}}
		var position uint64
		postings := func() (some []uint64) {
			for range 1 + rng.IntN(5) {
				position += 1 + rng.Uint64N(200)
				some = append(some, position)
			}
			return some
		}
		var records [][]byte
		if rng.IntN(2) == 0 {
			first := 1 + rng.Uint64N(100)
			position = first + 1000
			want = head{count: 9, first: first, last: position, block: blockHead{ordinal: 3, count: 6, first: first + 500, last: position}}
		} else {
			want.tail = postings()
			want.count, want.first, want.last = uint64(len(want.tail)), want.tail[0], position
		}
		records = append(records, want.encode(nil))
		for range rng.IntN(8) {
			added := head{tail: postings()}
			added.count = uint64(len(added.tail))
			if k == kindStream {
				added.before = want.count
			}
			records = append(records, added.encode(nil))
			want.tail = append(want.tail, added.tail...)
			want.count += added.count
		}
		got, err := mergeAll(t, key, records, rng)
		if err != nil || !bytes.Equal(got, want.encode(nil)) {
			t.Fatalf("seed %d, round %d: %x, %v, want %x from %x", seed, round, got, err, want.encode(nil), records)
		}
		if _, err := decodeHead(key, got, nil); err != nil {
			t.Fatalf("seed %d, round %d: %v", seed, round, err)
		}
	}
}

// Records that do not belong together, or are damaged, make no head at all.
func TestMerger_RefusesDamage(t *testing.T) {
	short := (&head{count: 2, tail: []uint64{5, 9}}).encode(nil)
	later := (&head{count: 1, tail: []uint64{20}}).encode(nil)
	long := (&head{count: 4, first: 20, block: blockHead{count: 4, first: 20, last: 30}}).encode(nil)
	added := (&head{before: 2, count: 1, tail: []uint64{20}}).encode(nil)
	gap := (&head{before: 3, count: 1, tail: []uint64{20}}).encode(nil)
	early := (&head{before: 2, count: 1, tail: []uint64{9}}).encode(nil)
	stream := headKey(nil, appendTerm(nil, kindStream, "s"))
	tag := headKey(nil, appendTerm(nil, kindTag, "s"))
	for _, c := range []struct {
		what    string
		key     []byte
		records [][]byte
	}{
		{"a version missing", stream, [][]byte{short, gap}},
		{"a version double", stream, [][]byte{short, added, added}},
		{"a stream that begins again", stream, [][]byte{short, later}},
		{"a position that does not ascend", stream, [][]byte{short, early}},
		{"a position that does not ascend, of a tag", tag, [][]byte{later, short}},
		{"blocks in a newer record", tag, [][]byte{short, long}},
		{"versions of a tag", tag, [][]byte{short, added}},
		{"a cut record", tag, [][]byte{short, later[:1]}},
		{"bytes left over", tag, [][]byte{append(bytes.Clone(short), 1), later}},
		{"an unknown form", tag, [][]byte{short, {9, 1, 1}}},
		{"an empty record", tag, [][]byte{{}, later}},
		// What older programs, which would concatenate them, make of two records.
		{"two records in one", stream, [][]byte{append(bytes.Clone(short), added...), gap}},
	} {
		for seed := range uint64(4) {
			wantCorrupt(t, c.what, func() error {
				_, err := mergeAll(t, c.key, c.records, rand.New(rand.NewPCG(seed, 1)))
				return err
			})
		}
	}
	wantCorrupt(t, "a beginning that is missing", func() error { _, err := decodeHead(stream, added, nil); return err })
	for _, second := range [][]byte{added, later} {
		wantCorrupt(t, "two records in one", func() error { _, err := decodeHead(stream, append(bytes.Clone(short), second...), nil); return err })
	}
}

// A store with such records gives an error to every reader, and the flush or
// compaction that meets them ends it.
func TestMerger_DamageInTheStore(t *testing.T) {
	told := make(chan error, 1)
	x, _, err := open(Options{FS: vfs.NewMem(), Dir: "state", OnError: func(err error) { told <- err }}, defaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the same versions twice
		h := head{before: 3, count: 1, tail: []uint64{20}}
		if err := x.store.db.Merge(headKey(nil, appendTerm(nil, kindStream, "s")), h.encode(nil), pebble.NoSync); err != nil {
			t.Fatal(err)
		}
	}
	if x.gen, err = x.store.newGeneration(30); err != nil {
		t.Fatal(err)
	}
	x.active.base = 31
	var corrupt *CorruptError
	if h, err := x.Head("s"); !errors.As(err, &corrupt) {
		t.Errorf("Head = %+v, %v, want a CorruptError", h, err)
	}
	v := x.View(30)
	if s, err := v.Streams("", "", 10); !errors.As(err, &corrupt) {
		t.Errorf("Streams = %v, %v, want a CorruptError", s, err)
	}
	it := v.Stream("s", 1, false)
	if p, ok := it.Next(); ok || !errors.As(it.Err(), &corrupt) {
		t.Errorf("Stream = %d, %v, want a CorruptError", p, it.Err())
	}
	it.Close()
	v.Close()
	if err := x.store.guard(x.store.db.Flush); !errors.As(err, &corrupt) {
		t.Errorf("flush: %v, want a CorruptError", err)
	}
	if err := <-told; !errors.As(err, &corrupt) {
		t.Errorf("told of %v, want a CorruptError", err)
	}
	if err := x.Commit(Savepoint{}); err == nil {
		t.Error("a commit succeeded after a failure")
	}
}

// However events are split over commits, and whatever was flushed and compacted
// in between, the index answers as if there had been one commit.
func TestMerge_AnySplitGivesTheSame(t *testing.T) {
	unread := uint64(0)
	for seed := range uint64(12) {
		rng := rand.New(rand.NewPCG(seed, 7))
		m := newModel()
		for range 400 {
			m.add(rng)
		}
		lim := smallLimits
		lim.spill, lim.look = 4+rng.Uint64N(30), 2+rng.Uint64N(20)
		x, _, err := open(Options{FS: vfs.NewMem(), Dir: "state"}, lim)
		if err != nil {
			t.Fatal(err)
		}
		x.AllowMerges()
		for at := uint64(0); at < m.last(); {
			to := min(at+1+rng.Uint64N(40), m.last())
			x.AddAll(m.events[at:to])
			at = to
			x.Freeze()
			if err := x.Commit(Savepoint{Index: at, Position: at}); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			switch rng.IntN(6) {
			case 0:
				err = x.store.db.Flush()
			case 1:
				err = x.store.db.Compact(t.Context(), []byte{0}, []byte{255}, false)
			}
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		unread += x.Stats().HeadsMerged
		v := x.View(m.last())
		m.checkEverything(t, v)
		v.Close()
		d := NewDigest()
		for i := range m.events {
			d.Add(&m.events[i])
		}
		if found := differences(t, x, d); len(found) > 0 {
			t.Errorf("seed %d: %q", seed, found)
		}
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	}
	if unread < 100 {
		t.Errorf("%d heads were merged: too few to mean anything", unread)
	}
}

// Terms that get one posting at a time are never looked at for their length, and
// their tails stay short all the same.
func TestMerge_TailsStayShort(t *testing.T) {
	const n = 3000
	lim := limits{spill: 32, block: 128, look: 8, memTable: 1 << 20}
	x, _, err := open(Options{FS: vfs.NewMem(), Dir: "state"}, lim)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	x.AllowMerges()
	longest := map[kind]int{}
	for i := uint64(1); i <= n; i++ {
		x.Add(&event.Event{Position: i, Version: i, Stream: "s", Type: "T", Tags: []string{fmt.Sprint("t", i%3)}})
		x.Freeze()
		if err := x.Commit(Savepoint{Index: i, Position: i}); err != nil {
			t.Fatal(err)
		}
		for term, k := range map[string]kind{"s": kindStream, "T": kindType, "t1": kindTag} {
			h, err := x.gen.head(appendTerm(nil, k, term), nil)
			if err != nil {
				t.Fatal(err)
			}
			longest[k] = max(longest[k], len(h.tail))
		}
	}
	stats := x.Stats()
	t.Logf("longest tails %v; of %d heads %d were merged", longest, stats.TermsWritten, stats.HeadsMerged)
	if longest[kindStream] >= int(2*lim.spill) {
		t.Errorf("a stream has a tail of %d", longest[kindStream])
	}
	for _, k := range []kind{kindType, kindTag} {
		if longest[k] > int(lim.spill+20*lim.look) || longest[k] < int(lim.spill) {
			t.Errorf("a term has a tail of %d", longest[k])
		}
	}
	if stats.HeadsMerged < stats.TermsWritten*3/4 || stats.BlocksWritten == 0 {
		t.Errorf("of %d heads %d were merged, %d blocks written", stats.TermsWritten, stats.HeadsMerged, stats.BlocksWritten)
	}
}
