package sim

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/hashicorp/raft"
	raftwal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/types"

	"cairn/cluster"
	"cairn/snapshot"
)

// walSegment is the size of a file of Raft's log, small so that it rolls often.
const walSegment = 32 << 10

// disk is the file system of one run of a node. Everything the node keeps is in
// it, so that one crash clone is the state of the whole node at one moment.
//
// Its syncs take the time that delay gives. That time is slept only where no
// other goroutine can wait for a mutex meanwhile, or the clock of the bubble
// would stop: in writes of Raft's log and of its term and vote, and in syncs of
// the segments of the event log.
type disk struct {
	vfs.FS
	delay func() time.Duration
	fuse  atomic.Int64 // operations that change something until burn is called; 0 = never
	burn  func()
}

func newDisk(fs vfs.FS, delay func() time.Duration, burn func()) *disk {
	d := &disk{delay: delay, burn: burn}
	d.FS = errorfs.Wrap(fs, errorfs.InjectorFunc(d.before))
	return d
}

// Unwrap returns the file system below.
func (d *disk) Unwrap() vfs.FS { return d.FS }

// before is called before each operation. All of them succeed.
func (d *disk) before(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
		return nil
	}
	if d.fuse.Load() > 0 && d.fuse.Add(-1) == 0 {
		d.burn()
	}
	if sync := op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData; sync && strings.HasSuffix(op.Path, ".seg") {
		time.Sleep(d.delay())
	}
	return nil
}

// raftStores are the stores of Raft on a disk: a node.Stores.
type raftStores struct{ *disk }

// Build makes the empty stores in a data folder that is being built.
func (s raftStores) Build(dir string) error {
	_, release, err := s.Open(dir)
	if err != nil {
		return err
	}
	return release()
}

// Open opens Raft's log, which is raft-wal itself over this file system, and the
// small files that stand for the two bbolt databases.
func (s raftStores) Open(dir string) (*cluster.Stores, func() error, error) {
	d := s.disk
	stable := &stableFile{file: file{d.FS, d.PathJoin(dir, "raft", "stable.db")}, values: map[string][]byte{}}
	if err := stable.load(&stable.values); err != nil {
		return nil, nil, err
	}
	if err := stable.save(stable.values); err != nil {
		return nil, nil, err
	}
	folder := d.PathJoin(dir, "raft", "wal")
	meta := &metaFile{file{d.FS, d.PathJoin(folder, "wal-meta.db")}}
	wal, err := cluster.OpenWAL(folder, walFS{d.FS}, meta, walSegment, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, nil, fmt.Errorf("open Raft's log: %w", err)
	}
	stores := &cluster.Stores{
		Log: &slowLog{wal, d}, Stable: &slowStable{stable, d},
		Pledge: pledgeFile{file{d.FS, d.PathJoin(dir, "raft", "pledge.json")}},
	}
	return stores, wal.Close, nil
}

// slowLog is Raft's log on a disk whose syncs take time.
type slowLog struct {
	*raftwal.WAL
	disk *disk
}

func (l *slowLog) StoreLog(e *raft.Log) error { return l.StoreLogs([]*raft.Log{e}) }

func (l *slowLog) StoreLogs(entries []*raft.Log) error {
	time.Sleep(l.disk.delay())
	return l.WAL.StoreLogs(entries)
}

// slowStable is Raft's stable store on such a disk.
type slowStable struct {
	*stableFile
	disk *disk
}

func (s *slowStable) Set(key, value []byte) error {
	time.Sleep(s.disk.delay())
	return s.stableFile.Set(key, value)
}

func (s *slowStable) SetUint64(key []byte, value uint64) error {
	time.Sleep(s.disk.delay())
	return s.stableFile.SetUint64(key, value)
}

// file is a value in a file that is replaced as a whole, durably.
type file struct {
	fs   vfs.FS
	path string
}

// load reads the value, and leaves it alone if there is no file.
func (f file) load(value any) error {
	r, err := f.fs.Open(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer r.Close()
	return json.NewDecoder(r).Decode(value)
}

// save returns when the value is durable.
func (f file) save(value any) error {
	b, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return snapshot.ReplaceFile(f.fs, f.path, b)
}

// stableFile is a raft.StableStore in one file.
type stableFile struct {
	file
	mu     sync.Mutex
	values map[string][]byte // under mu
}

func (s *stableFile) Set(key, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values[string(key)] = value
	return s.save(s.values)
}

func (s *stableFile) Get(key []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	value, ok := s.values[string(key)]
	if !ok {
		return nil, errors.New("not found") // the text that Raft compares with
	}
	return value, nil
}

func (s *stableFile) SetUint64(key []byte, value uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

func (s *stableFile) GetUint64(key []byte) (uint64, error) {
	value, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(value), nil
}

// metaFile is raft-wal's list of segments in one file.
type metaFile struct{ file }

func (m *metaFile) Load(string) (types.PersistentState, error) {
	var state types.PersistentState
	return state, m.load(&state)
}

func (m *metaFile) CommitState(state types.PersistentState) error { return m.save(state) }

func (m *metaFile) Close() error { return nil }

// GetStable is not used: the stable store is a file of its own.
func (m *metaFile) GetStable([]byte) ([]byte, error) { return nil, errors.ErrUnsupported }

// SetStable is not used either.
func (m *metaFile) SetStable(_, _ []byte) error { return errors.ErrUnsupported }

// pledgeFile is a node's pledge in a file.
type pledgeFile struct{ file }

func (p pledgeFile) Load() ([]byte, error) {
	var b json.RawMessage
	err := p.load(&b)
	return b, err
}

func (p pledgeFile) Save(b []byte) error {
	if b != nil {
		return p.save(json.RawMessage(b))
	}
	if err := p.fs.Remove(p.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return snapshot.SyncDir(p.fs, p.fs.PathDir(p.path))
}

// walFS gives raft-wal the file system with the promises of its own one: a file
// is made with its full length, and the first sync of it syncs the folder too.
type walFS struct{ fs vfs.FS }

func (w walFS) ListDir(dir string) ([]string, error) { return w.fs.List(dir) }

func (w walFS) Create(dir, name string, size uint64) (types.WritableFile, error) {
	path := w.fs.PathJoin(dir, name)
	if _, err := w.fs.Stat(path); err == nil {
		return nil, fmt.Errorf("create %s: %w", path, fs.ErrExist)
	}
	f, err := w.fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	if _, err := f.WriteAt(make([]byte, size), 0); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &newWALFile{File: f, fs: w.fs, dir: dir}, nil
}

func (w walFS) Delete(dir, name string) error {
	if err := w.fs.Remove(w.fs.PathJoin(dir, name)); err != nil {
		return err
	}
	return snapshot.SyncDir(w.fs, dir)
}

func (w walFS) OpenReader(dir, name string) (types.ReadableFile, error) {
	return w.fs.Open(w.fs.PathJoin(dir, name))
}

func (w walFS) OpenWriter(dir, name string) (types.WritableFile, error) {
	path := w.fs.PathJoin(dir, name)
	if _, err := w.fs.Stat(path); err != nil {
		return nil, err
	}
	return w.fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
}

type newWALFile struct {
	vfs.File
	fs   vfs.FS
	dir  string
	once sync.Once
}

func (f *newWALFile) Sync() error {
	err := f.File.Sync()
	f.once.Do(func() { err = errors.Join(err, snapshot.SyncDir(f.fs, f.dir)) })
	return err
}
