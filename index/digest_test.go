package index

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"cairn/event"
)

// digestOf is the digest of events and of the records put by digestIndex.
func digestOf(events []event.Event) *Digest {
	d := NewDigest()
	for i := range events {
		if i%50 == 0 {
			d.Put(fmt.Appendf(nil, "key %d", i), fmt.Appendf(nil, "value %d", i))
		}
		d.Add(&events[i])
	}
	return d
}

// digestIndex is an index whose terms have all forms.
func digestIndex(t *testing.T, seed uint64) (*Index, []event.Event) {
	rng := rand.New(rand.NewPCG(seed, 3))
	m := newModel()
	for range 500 {
		m.add(rng)
	}
	x, _, err := open(Options{FS: vfs.NewMem(), Dir: "state"}, smallLimits)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = x.Close() })
	x.AllowMerges()
	if err := x.WriteRows([]Pair{{[]byte("row"), []byte("of a projection")}}); err != nil { // no part of a digest
		t.Fatal(err)
	}
	for i := range m.events {
		if i%50 == 0 {
			x.Put(fmt.Appendf(nil, "key %d", i), fmt.Appendf(nil, "value %d", i))
		}
		x.Add(&m.events[i])
		if rng.IntN(40) == 0 || i == len(m.events)-1 {
			x.Freeze()
			if err := x.Commit(Savepoint{Index: uint64(i + 1), Position: uint64(i + 1)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	return x, m.events
}

// differences compares the store as it is now.
func differences(t *testing.T, x *Index, d *Digest) []string {
	t.Helper()
	gen, err := x.store.newGeneration(x.gen.base)
	if err != nil {
		t.Fatal(err)
	}
	x.mu.Lock() // its janitor looks at gen now and then
	old := x.gen
	x.gen = gen
	x.mu.Unlock()
	if err := old.release(); err != nil {
		t.Fatal(err)
	}
	found, err := x.Compare(context.Background(), d, func(uint64) {})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestDigest_FindsEveryChange(t *testing.T) {
	x, events := digestIndex(t, 7)
	if found := differences(t, x, digestOf(events)); len(found) > 0 {
		t.Fatalf("a whole index differs: %q", found)
	}
	type record struct{ key, value []byte }
	var all []record
	it, err := x.store.db.NewIter(nil)
	if err != nil {
		t.Fatal(err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		all = append(all, record{bytes.Clone(it.Key()), bytes.Clone(it.Value())})
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	set := func(key, value []byte) {
		if err := x.store.db.Set(key, value, pebble.NoSync); err != nil {
			t.Fatal(err)
		}
	}
	remove := func(key []byte) {
		if err := x.store.db.Delete(key, pebble.NoSync); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(what string, r record) {
		t.Helper()
		if found := differences(t, x, digestOf(events)); len(found) == 0 {
			t.Errorf("%s %q unnoticed", what, r.key)
		}
	}
	sorts := map[byte]int{}
	for i, r := range all {
		if r.key[0] == prefixSavepoint || r.key[0] == prefixRow {
			continue
		}
		sorts[r.key[0]]++
		remove(r.key)
		expect("removed", r)
		spoiled := bytes.Clone(r.value)
		spoiled[i%len(spoiled)] ^= 1 << (i % 7)
		set(r.key, spoiled)
		expect("changed", r)
		set(r.key, r.value)
		other := slices.Insert(bytes.Clone(r.key), len(r.key)-i%3, 'q')
		set(other, r.value)
		expect("added", record{key: other})
		remove(other)
	}
	if found := differences(t, x, digestOf(events)); len(found) > 0 {
		t.Fatalf("the restored index differs: %q", found)
	}
	for _, sort := range []byte{prefixBlock, prefixHead, prefixID, prefixUUID, prefixExtra} {
		if sorts[sort] == 0 {
			t.Errorf("no record %q was tried", sort)
		}
	}
}

// A log whose events are others, or have other versions, does not fit.
func TestDigest_OfOtherEvents(t *testing.T) {
	x, events := digestIndex(t, 8)
	for name, change := range map[string]func(e *event.Event){
		"stream":      func(e *event.Event) { e.Stream = "another" },
		"version":     func(e *event.Event) { e.Version++ },
		"type":        func(e *event.Event) { e.Type = "another" },
		"tags":        func(e *event.Event) { e.Tags = append(slices.Clone(e.Tags), "another") },
		"correlation": func(e *event.Event) { e.CorrelationID = "another" },
		"causation":   func(e *event.Event) { e.CausationID = "another" },
		"compensates": func(e *event.Event) { e.Compensates = "another" },
		"id":          func(e *event.Event) { e.IDChosen = !e.IDChosen },
	} {
		other := slices.Clone(events)
		i := slices.IndexFunc(other, func(e event.Event) bool { return e.Position > 200 && !event.IsSystem(e.Stream) })
		change(&other[i])
		if found := differences(t, x, digestOf(other)); len(found) == 0 {
			t.Errorf("another %s is unnoticed", name)
		}
	}
	if found := differences(t, x, digestOf(events[:len(events)-1])); len(found) == 0 {
		t.Error("an event less is unnoticed")
	}
}

// An index that is opened to be read only is compared, and nothing is written.
func TestOpen_ReadOnly(t *testing.T) {
	fs := vfs.NewMem()
	if _, _, err := Open(Options{FS: fs, Dir: "state", ReadOnly: true}); err == nil {
		t.Fatal("opened what is not there")
	}
	x, _, err := Open(Options{FS: fs, Dir: "state"})
	if err != nil {
		t.Fatal(err)
	}
	events := tagged(300, func(i int) string { return fmt.Sprint(i % 7) })
	x.AddAll(events)
	x.Freeze()
	if err := x.Commit(Savepoint{Index: 9, Position: 300, Extra: []byte("more")}); err != nil {
		t.Fatal(err)
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	before, _ := fs.List("state")
	x, sp, err := Open(Options{FS: fs, Dir: "state", ReadOnly: true})
	if err != nil || sp.Index != 9 || sp.Position != 300 || string(sp.Extra) != "more" {
		t.Fatalf("opened %+v, %v", sp, err)
	}
	d := NewDigest()
	for i := range events {
		d.Add(&events[i])
	}
	if found, err := x.Compare(context.Background(), d, func(uint64) {}); err != nil || len(found) > 0 {
		t.Errorf("compare: %q, %v", found, err)
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	after, _ := fs.List("state")
	slices.Sort(before)
	slices.Sort(after)
	if !slices.Equal(before, after) {
		t.Errorf("files %v, before %v", after, before)
	}
}
