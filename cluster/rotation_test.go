package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hashicorp/raft"
	raftwal "github.com/hashicorp/raft-wal"
	walfs "github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/types"
)

// memMeta is a meta store that can stop keeping what it is given, as one whose
// process dies before the write.
type memMeta struct {
	state types.PersistentState
	dead  bool
}

func (m *memMeta) Load(string) (types.PersistentState, error) {
	m.dead = false
	s := m.state
	s.Segments = slices.Clone(s.Segments)
	return s, nil
}

func (m *memMeta) CommitState(s types.PersistentState) error {
	if m.dead {
		return nil
	}
	m.state = s
	m.state.Segments = slices.Clone(s.Segments)
	return nil
}

func (m *memMeta) GetStable([]byte) ([]byte, error) { return nil, errors.ErrUnsupported }
func (m *memMeta) SetStable(_, _ []byte) error      { return errors.ErrUnsupported }
func (m *memMeta) Close() error                     { return nil }

// rotating writes to a log until its segment is sealed, and dies before that is
// noted. It returns the index of the last entry.
func rotating(t *testing.T, dir string, meta *memMeta) uint64 {
	t.Helper()
	wal := openRotating(t, dir, meta)
	meta.dead = true
	index := uint64(0)
	for sealed := false; !sealed; {
		index++
		if err := wal.StoreLog(&raft.Log{Index: index, Term: 1, Data: fmt.Appendf(nil, "%0*d", 100+index, index)}); err != nil {
			t.Fatal(err)
		}
		tail, err := readTail(dir, walfs.New(), meta.state.Segments[0])
		if err != nil {
			t.Fatal(err)
		}
		sealed = tail.indexStart > 0
	}
	if err := wal.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range walFiles(t, dir)[1:] {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	return index
}

func openRotating(t *testing.T, dir string, meta *memMeta) *raftwal.WAL {
	t.Helper()
	wal, err := OpenWAL(dir, walfs.New(), meta, 4096, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return wal
}

func walFiles(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.wal"))
	if err != nil || len(names) == 0 {
		t.Fatalf("files of the log: %q, %v", names, err)
	}
	slices.Sort(names)
	return names
}

// expectLog checks that the log ends at last, can be read and written, and is
// the same after one more start.
func expectLog(t *testing.T, dir string, meta *memMeta, last uint64) {
	t.Helper()
	wal := openRotating(t, dir, meta)
	for more := range uint64(2) {
		if got, err := wal.LastIndex(); err != nil || got != last+more*50 {
			t.Fatalf("the log ends at %d (%v), want %d", got, err, last+more*50)
		}
		var l raft.Log
		for i := uint64(1); i <= last; i++ {
			if err := wal.GetLog(i, &l); err != nil || string(l.Data) != fmt.Sprintf("%0*d", 100+i, i) {
				t.Fatalf("entry %d: %q, %v", i, l.Data, err)
			}
		}
		for i := last + 1; more == 0 && i <= last+50; i++ {
			if err := wal.StoreLog(&raft.Log{Index: i, Term: 2, Data: make([]byte, 100)}); err != nil {
				t.Fatalf("write entry %d after the crash: %v", i, err)
			}
		}
		if err := wal.Close(); err != nil {
			t.Fatal(err)
		}
		wal = openRotating(t, dir, meta)
	}
	if err := wal.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestRotation_SealNotNoted(t *testing.T) {
	dir, meta := t.TempDir(), &memMeta{}
	expectLog(t, dir, meta, rotating(t, dir, meta))
}

// A write that seals the segment is torn somewhere: its entries are gone, and
// all before it are there.
func TestRotation_SealTorn(t *testing.T) {
	dir, meta := t.TempDir(), &memMeta{}
	last := rotating(t, dir, meta)
	name := walFiles(t, dir)[0]
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	end := len(whole)
	for whole[end-1] == 0 {
		end--
	}
	saved := meta.state
	for at := end - 200; at < end; at += 7 { // that write is longer
		torn := slices.Clone(whole)
		torn[at] ^= 0x55
		t.Run(fmt.Sprint(at-end), func(t *testing.T) {
			dir, meta := t.TempDir(), &memMeta{state: saved}
			if err := os.WriteFile(filepath.Join(dir, filepath.Base(name)), torn, 0o600); err != nil {
				t.Fatal(err)
			}
			expectLog(t, dir, meta, last-1)
		})
	}
}

// The write that seals the segment of a log that was cut has no entries, only
// the index. Torn, it must not take the index for good, for then nothing would
// lead to what was acknowledged long ago.
func TestRotation_SealOfACutTorn(t *testing.T) {
	dir, meta := t.TempDir(), &memMeta{}
	wal := openRotating(t, dir, meta)
	const entries = 15
	for i := uint64(1); i <= entries; i++ {
		if err := wal.StoreLog(&raft.Log{Index: i, Term: 1, Data: fmt.Appendf(nil, "%0*d", 100+i, i)}); err != nil {
			t.Fatal(err)
		}
	}
	saved := meta.state
	name := walFiles(t, dir)[0]
	before, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := wal.DeleteRange(entries-3, entries); err != nil {
		t.Fatal(err)
	}
	if err := wal.Close(); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	begin := 0
	for begin < len(before) && before[begin] == after[begin] {
		begin++
	}
	for _, kept := range []int{1, 8, 20, 40, 4 * entries} { // bytes of that write that reached the disk
		torn := slices.Clone(after)
		clear(torn[begin+kept:])
		dir, meta := t.TempDir(), &memMeta{state: saved}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(name)), torn, 0o600); err != nil {
			t.Fatal(err)
		}
		expectLog(t, dir, meta, entries)
	}
}
