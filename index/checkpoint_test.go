package index

import (
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A crash while the store is opened may leave it without a WAL. Pebble then
// opens it without writing to its MANIFEST, and takes that for an empty one when
// it makes a checkpoint.
func TestCheckpoint_BeforePebbleWritesItsManifest(t *testing.T) {
	fs := vfs.NewMem()
	o := Options{FS: fs, Dir: "state"}
	x, _, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	x.AddAll(tagged(3, func(int) string { return "t" }))
	x.Freeze()
	want := Savepoint{Index: 7, Position: 3}
	if err := x.Commit(want); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the first one moves the commit from the WAL to a table
		if err := x.Close(); err != nil {
			t.Fatal(err)
		}
		if x, _, err = Open(o); err != nil {
			t.Fatal(err)
		}
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := fs.List("state")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".log") {
			if err := fs.Remove("state/" + name); err != nil {
				t.Fatal(err)
			}
		}
	}
	if x, _, err = Open(o); err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	if err := x.Checkpoint("checkpoint"); err != nil {
		t.Fatal(err)
	}
	y, got, err := Open(Options{FS: fs, Dir: "checkpoint"})
	if err != nil {
		t.Fatal(err)
	}
	defer y.Close()
	if got.Index != want.Index || got.Position != want.Position {
		t.Errorf("the checkpoint is as of %+v, want %+v", got, want)
	}
}
