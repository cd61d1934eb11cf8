package fsm

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"cairn/event"
)

// slowFS is a file system on a slow disk. It counts the reads of segments, and
// those that somebody asked for beforehand.
type slowFS struct {
	vfs.FS
	slow              atomic.Bool
	reads, prefetched atomic.Int64
}

func (fs *slowFS) Open(name string, o ...vfs.OpenOption) (vfs.File, error) {
	return fs.wrap(name)(fs.FS.Open(name, o...))
}

func (fs *slowFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return fs.wrap(name)(fs.FS.OpenReadWrite(name, c, o...))
}

func (fs *slowFS) wrap(name string) func(vfs.File, error) (vfs.File, error) {
	return func(f vfs.File, err error) (vfs.File, error) {
		if err == nil && strings.Contains(name, ".seg") {
			f = &slowReads{f, fs}
		}
		return f, err
	}
}

type slowReads struct {
	vfs.File
	fs *slowFS
}

func (f *slowReads) ReadAt(p []byte, off int64) (int, error) {
	if f.fs.slow.Load() {
		f.fs.reads.Add(1)
		for begun := time.Now(); time.Since(begun) < 100*time.Microsecond; { // a sleep takes a millisecond
		}
	}
	return f.File.ReadAt(p, off)
}

func (f *slowReads) Prefetch(int64, int64) error {
	f.fs.prefetched.Add(1)
	return nil
}

// When reads have to wait for the disk, those that will follow are asked for
// together; what comes is the same.
func TestCursor_PrefetchesOnASlowDisk(t *testing.T) {
	fs := &slowFS{FS: vfs.NewMem()}
	m := openMachine(t, fs, nil)
	var entries []entry
	for i := range 200 {
		a := event.Append{}
		for j := range 20 {
			a.Events = append(a.Events, event.Event{Stream: fmt.Sprintf("s-%d", j), Type: "T", ID: event.NewID(), Data: fmt.Appendf(nil, "%d", i)})
		}
		entries = append(entries, entry{time: int64(i + 1), appends: []event.Append{a}})
	}
	outcomes(t, m, rafted(entries))
	read := func(backward bool, limit int) []uint64 {
		v := m.View(0)
		defer v.Close()
		from := uint64(1)
		if backward {
			from = 200
		}
		c, err := v.Stream("s-7", from, backward)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var positions []uint64
		for len(positions) < limit && c.Next() {
			positions = append(positions, c.Event().Position)
		}
		if c.Err() != nil {
			t.Fatal(c.Err())
		}
		return positions
	}
	for _, backward := range []bool{false, true} {
		fs.slow.Store(false)
		want := read(backward, 500)
		if len(want) != 200 {
			t.Fatalf("%d events, want 200", len(want))
		}
		fs.slow.Store(true)
		fs.prefetched.Store(0)
		if got := read(backward, 500); !slices.Equal(got, want) {
			t.Errorf("on a slow disk\n%v, want\n%v", got, want)
		}
		if n := fs.prefetched.Load(); n < 190 || n > 400 {
			t.Errorf("%d ranges were asked for beforehand, want one or two for each of 199 events; %d reads", n, fs.reads.Load())
		}
		if got := read(backward, 3); !slices.Equal(got, want[:3]) {
			t.Errorf("the first three: %v, want %v", got, want[:3])
		}
	}
	fs.slow.Store(false)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
}
