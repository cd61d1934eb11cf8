package offline

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftwal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
	"go.etcd.io/bbolt"

	"cairn/event"
)

// raftLog checks what Raft keeps: that both of its databases are sound, that
// every entry from the first to the last can be read and is the one that was
// stored, and that the log goes on where savepoint and snapshot end. An entry
// at the very end of the log that is damaged looks like one whose writing was
// cut short, which is no damage.
func (k *check) raftLog() error {
	if k.o.VerifyEntry == nil || vfs.Root(k.o.FS) != vfs.Default {
		return nil // bolt and raft-wal know the operating system's files only
	}
	damaged := false
	for _, path := range []string{k.dir.StableDB(), filepath.Join(k.dir.WAL(), metadb.FileName)} {
		if err := checkBolt(path); err != nil {
			k.add(path, 0, err.Error(), doRejoin)
			damaged = true
		}
	}
	if damaged {
		k.skip("Raft's log: what belongs to it is not known")
		return nil
	}
	path := k.dir.WAL()
	log, err := raftwal.Open(path, raftwal.WithMetaStore(&savedMeta{}), raftwal.WithLogger(hclog.NewNullLogger()),
		raftwal.WithSegmentFiler(segment.NewFiler(path, readOnly{})))
	if err != nil {
		k.add(path, 0, err.Error(), doRejoin)
		return k.ctx.Err()
	}
	first, err := log.FirstIndex()
	last, err2 := log.LastIndex()
	if err = errors.Join(err, err2); err == nil && last > 0 {
		err = k.raftEntries(log, first, last)
	}
	if err == nil {
		k.raftBounds(first, last)
	}
	return errors.Join(err, log.Close())
}

// raftEntries reads and checks all entries. Its error is that of the context.
func (k *check) raftEntries(log *raftwal.WAL, first, last uint64) error {
	var l raft.Log
	var term uint64
	for i := first; i <= last; i++ {
		if i%256 == 0 {
			k.o.Progress(Progress{Stage: "reading Raft's log", Done: i - first, Total: last - first + 1, Unit: "entries"})
			if err := k.ctx.Err(); err != nil {
				return err
			}
		}
		err := log.GetLog(i, &l)
		if err == nil && l.Index != i {
			err = fmt.Errorf("entry %d stands in its place", l.Index)
		}
		if err == nil {
			err = k.o.VerifyEntry(&l)
		}
		if err == nil && l.Term < term {
			err = fmt.Errorf("its term %d is before that of the entry before, %d", l.Term, term)
		}
		if err == nil && l.Type == raft.LogCommand {
			_, err = event.DecodeEntry(l.Data)
		}
		if err != nil {
			k.add(k.dir.WAL(), 0, fmt.Sprintf("entry %d: %v", i, err), doRejoin)
			return nil // those after it may be as bad: one is enough to know what to do
		}
		term = l.Term
	}
	return nil
}

// raftBounds checks that nothing lies between what savepoint and snapshot cover
// and what Raft's log holds. A node would not start with such a gap.
func (k *check) raftBounds(first, last uint64) {
	covered := k.found.Meta.Index
	switch {
	case k.Index > max(last, covered):
		k.add(k.dir.WAL(), 0, fmt.Sprintf("it ends with entry %d, but the savepoint is at entry %d", last, k.Index), doRejoin)
	case first > covered+1:
		k.add(k.dir.WAL(), 0, fmt.Sprintf("it begins with entry %d, but the newest snapshot ends with entry %d", first, covered), doRejoin)
	}
}

// checkBolt checks that the pages of a database are linked as they should be.
// They have no checksums. Damage can make bolt panic, or read beyond the file.
func checkBolt(path string) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("it is damaged: %v", r)
		}
	}()
	db, err := bbolt.Open(path, 0, &bbolt.Options{ReadOnly: true, Timeout: 1})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error { return b.ForEach(func(_, _ []byte) error { return nil }) })
	})
}

// savedMeta is what raft-wal notes about its segments, read only: what is
// changed when the log is opened stays in memory.
type savedMeta struct{}

var _ types.MetaStore = (*savedMeta)(nil)

// Load reads the note.
func (*savedMeta) Load(dir string) (state types.PersistentState, err error) {
	db, err := bbolt.Open(filepath.Join(dir, metadb.FileName), 0, &bbolt.Options{ReadOnly: true, Timeout: 1})
	if err != nil {
		return state, err
	}
	err = db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(metadb.MetaBucket))
		if b == nil {
			return errors.New("it has no list of segments")
		}
		if note := b.Get([]byte(metadb.MetaKey)); note != nil {
			return json.Unmarshal(note, &state)
		}
		return nil // a log that was never written to
	})
	return state, errors.Join(err, db.Close())
}

// CommitState forgets.
func (*savedMeta) CommitState(types.PersistentState) error { return nil }

// GetStable is not used by a log that is only read.
func (*savedMeta) GetStable([]byte) ([]byte, error) { return nil, errReadOnly }

// SetStable is refused.
func (*savedMeta) SetStable(_, _ []byte) error { return errReadOnly }

// Close does nothing.
func (*savedMeta) Close() error { return nil }

var errReadOnly = errors.New("opened to be read only")

// readOnly is the operating system's files to raft-wal, which finds nothing
// amiss when it opens a log and changes nothing.
type readOnly struct{}

var _ types.VFS = readOnly{}

// ListDir lists a folder.
func (readOnly) ListDir(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// Create returns an empty file that is nowhere: raft-wal makes the next segment
// when it opens a log that lacks it.
func (readOnly) Create(string, string, uint64) (types.WritableFile, error) { return emptyFile{}, nil }

// Delete leaves the file alone.
func (readOnly) Delete(string, string) error { return nil }

// OpenReader opens a file.
func (readOnly) OpenReader(dir, name string) (types.ReadableFile, error) {
	return os.Open(filepath.Join(dir, name))
}

// OpenWriter opens a file to be read.
func (readOnly) OpenWriter(dir, name string) (types.WritableFile, error) {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	return readFileOnly{f}, nil
}

// readFileOnly is a file whose writing is refused by how it was opened.
type readFileOnly struct{ *os.File }

// Sync does nothing.
func (readFileOnly) Sync() error { return nil }

// emptyFile is a file that is nowhere.
type emptyFile struct{}

func (emptyFile) ReadAt([]byte, int64) (int, error)  { return 0, io.EOF }
func (emptyFile) WriteAt([]byte, int64) (int, error) { return 0, errReadOnly }
func (emptyFile) Close() error                       { return nil }
func (emptyFile) Sync() error                        { return nil }
