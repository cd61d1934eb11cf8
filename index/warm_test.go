package index

import (
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"cairn/event"
)

// Heads that were looked up ahead are those that one would find one by one: of
// streams in the store, in an overlay, in both, and of none.
func TestWarmHeads_AreTheHeads(t *testing.T) {
	fs := vfs.NewMem()
	position := uint64(0)
	versions := map[string]uint64{}
	add := func(x *Index, from, to int) {
		for i := from; i < to; i++ {
			stream := fmt.Sprintf("s-%d", i)
			position++
			versions[stream]++
			x.Add(&event.Event{Position: position, Version: versions[stream], Stream: stream, Type: "T"})
		}
	}
	x, _, err := Open(Options{FS: fs, Dir: "state"})
	if err != nil {
		t.Fatal(err)
	}
	add(x, 0, 200)
	x.Freeze()
	if err := x.Commit(Savepoint{Index: 1, Position: position}); err != nil {
		t.Fatal(err)
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	if x, _, err = Open(Options{FS: fs, Dir: "state"}); err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	add(x, 150, 300)
	var streams []string
	for i := range 400 {
		streams = append(streams, fmt.Sprintf("s-%d", i), fmt.Sprintf("s-%d", i))
	}
	if err := x.WarmHeads(streams); err != nil {
		t.Fatal(err)
	}
	known := 0
	for _, s := range streams {
		if _, ok := x.heads.get(s); ok {
			known++
		}
		if h, err := x.Head(s); err != nil || h.Version != versions[s] {
			t.Errorf("%s stands at %+v, %v; want version %d", s, h, err, versions[s])
		}
	}
	if known != 600 {
		t.Errorf("%d of 600 heads are known ahead", known)
	}
}
