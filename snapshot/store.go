// Package snapshot keeps the data generations of a node's log and the Raft
// snapshots of them, and moves snapshots between nodes.
//
// A snapshot of this node's own costs what is new: a manifest, and a checkpoint
// of hard links that the state machine has made. Sent, it is one stream of exact
// length with all files in it. Received, it becomes a generation beside the
// current one and takes effect by one rename of CURRENT.
//
// What it guarantees: a snapshot that Close returned nil for is complete,
// verified against its manifest and durable; a crash at any moment leaves the
// generation before or the one after, with the snapshot that belongs to it,
// once OpenGenerations and then NewStore have run; a reader gets the bytes of
// its snapshot or an error, whatever is installed meanwhile. DESIGN.md has the
// formats and the crash table.
//
// What it does not: a segment that this node has sealed already, with the hash of
// the manifest, is taken over by Prepare without being read; finding damage in it
// is the scrubber's work. It never looks into a segment (VerifySegment does) or into
// the state, and does not check what it sends, only what it receives.
//
// Who calls: OpenGenerations first at start-up, NewStore next; Raft uses Store
// as its raft.SnapshotStore; the state machine writes EncodeLocal to the sink in
// Persist, and in Restore calls ReadManifest, Generations.Promote and, once the
// old files are closed, Generations.Remove. Store and Generations may be used
// from any goroutine, a sink or a reader by one at a time.
package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
)

// StoreOptions configure a Store.
type StoreOptions struct {
	FS          vfs.FS
	Dir         string       // data/raft/snapshots, on the same file system as the generations
	Generations *Generations // opened with the same Dir
	// VerifySegment checks a sealed segment completely and returns the hash in
	// its footer, hex. It may be called while the log is in use.
	VerifySegment func(path string) (hash string, err error)
	// VerifyActive checks the first size bytes of a segment that is not sealed:
	// a hash of bytes that were damaged before they were sent proves nothing. Nil
	// trusts the sender.
	VerifyActive func(path string, size int64) error
	// Accept may refuse the manifest of a snapshot that another node sends, by
	// its log id say, before anything is written. Nil accepts all.
	Accept func(m *Manifest) error
	// Sealed returns the sealed, durable segments of the current generation, which
	// need not be fetched. Nil means none.
	Sealed func() []Segment
	// Fold makes the state as of m in a folder that does not exist, from this
	// node's own state and the log in logDir, and reports whether it did: false
	// means that the state is better fetched. Nil never does.
	Fold func(ctx context.Context, m *Manifest, logDir, stateDir string) (bool, error)
	// OnError is called once, after a sync failed: what the disk holds is not
	// known any more, and the process must exit. Nil does nothing.
	OnError func(error)
	Logger  *slog.Logger // nil discards
}

// Store implements raft.SnapshotStore over a folder.
type Store struct {
	o    StoreOptions
	fs   vfs.FS
	gens *Generations
	log  *slog.Logger

	parallel int // files that Prepare fetches at a time

	mu       sync.Mutex
	newest   *kept // owned by mu, as are the next five and the fields of kept
	held     map[*kept]bool
	prepared *prepared // what an install may take from the incoming folder
	number   uint64    // of the last folder named
	failed   error
	told     bool // OnError was called
}

// kept is a snapshot that is on disk: the newest one, and those before it that
// are still being read.
type kept struct {
	*folder
	readers int
}

var _ raft.SnapshotStore = (*Store)(nil)

// NewStore opens the folder o.Dir and removes what a crash left unfinished
// there, and all snapshots but the newest.
func NewStore(o StoreOptions) (*Store, error) {
	if o.FS == nil || o.Generations == nil || o.VerifySegment == nil {
		return nil, errors.New("snapshot store: FS, Generations and VerifySegment are needed")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Store{o: o, fs: o.FS, gens: o.Generations, log: o.Logger, parallel: fetchParallel, held: make(map[*kept]bool)}
	if err := s.fs.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("snapshot store: %w", err)
	}
	complete, unfinished, err := scanFolders(s.fs, o.Dir)
	if err != nil {
		return nil, fmt.Errorf("snapshot store: %w", err)
	}
	for _, name := range unfinished {
		if err := s.fs.RemoveAll(s.fs.PathJoin(o.Dir, name)); err != nil {
			return nil, fmt.Errorf("snapshot store: remove %s: %w", name, err)
		}
	}
	for i, f := range complete {
		s.number = max(s.number, f.number)
		if i > 0 {
			if err := s.removeFolder(f); err != nil {
				return nil, fmt.Errorf("snapshot store: %w", err)
			}
		}
	}
	if len(complete) > 0 {
		s.newest = &kept{folder: complete[0]}
		if g := s.newest.manifest.Generation; g != s.gens.Current() {
			return nil, &CorruptError{s.newest.path, fmt.Sprintf("it is a snapshot of %s, but %s is current", g, s.gens.Current())}
		}
	}
	return s, nil
}

// Create begins a snapshot; nothing is on disk before the first Write. The sink
// finds out by the first bytes whether it is one of this node's own or a
// received one.
func (s *Store) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	if version != 1 {
		return nil, fmt.Errorf("create snapshot: version %d is unknown", version)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return nil, s.failed
	}
	s.number++
	f := &folder{id: folderName(term, index, s.number), number: s.number}
	f.path = s.fs.PathJoin(s.o.Dir, f.id)
	f.meta = raft.SnapshotMeta{
		Version: version, ID: f.id, Index: index, Term: term,
		Configuration: configuration.Clone(), ConfigurationIndex: configurationIndex,
	}
	return &sink{store: s, folder: f}, nil
}

// List returns the newest snapshot; those before it are gone, or go when their
// last reader closes.
func (s *Store) List() ([]*raft.SnapshotMeta, error) {
	meta, _, err := s.Newest()
	if err != nil || meta == nil {
		return nil, err
	}
	return []*raft.SnapshotMeta{meta}, nil
}

// Newest returns the newest snapshot and its manifest, nil and nil when there
// is none. Both are the caller's; the manifest's lists must not be changed.
func (s *Store) Newest() (*raft.SnapshotMeta, *Manifest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.newest == nil {
		return nil, nil, nil
	}
	manifest := *s.newest.manifest
	return s.newest.metaCopy(), &manifest, nil
}

func (f *folder) metaCopy() *raft.SnapshotMeta {
	meta := f.meta
	meta.Configuration = f.meta.Configuration.Clone()
	return &meta
}

// Open yields the full stream of a snapshot, meta.Size bytes exactly, and pins
// its files until Close: a newer snapshot does not remove them. When an install
// removes its generation, reading fails.
func (s *Store) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	s.mu.Lock()
	k := s.newest
	if k == nil || k.id != id {
		s.mu.Unlock()
		return nil, nil, fmt.Errorf("open snapshot %s: it is not the newest", id)
	}
	k.readers++
	s.mu.Unlock()
	r, err := s.newReader(k)
	if err != nil {
		return nil, nil, fmt.Errorf("open snapshot %s: %w", id, errors.Join(err, s.release(k)))
	}
	return k.metaCopy(), r, nil
}

// PinnedBytes returns the size of the checkpoints that are kept only because
// they are being sent.
func (s *Store) PinnedBytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var n int64
	for k := range s.held {
		n += k.stateSize()
	}
	return n
}

// release ends one reading of k, and removes k if nothing needs it any more.
func (s *Store) release(k *kept) error {
	s.mu.Lock()
	k.readers--
	last := k.readers == 0 && s.held[k]
	if last {
		delete(s.held, k)
	}
	s.mu.Unlock()
	if !last {
		return nil
	}
	return s.note(s.removeFolder(k.folder))
}

// commit makes a complete folder, written under tmp, the newest snapshot. From
// the rename on an error leaves everything as it is, for start-up to judge.
func (s *Store) commit(f *folder, tmp string) error {
	old, err := s.putInPlace(f, tmp)
	if err != nil {
		return s.note(err)
	}
	s.log.Info("snapshot complete", "id", f.id, "generation", f.manifest.Generation,
		"index", f.manifest.Index, "position", f.manifest.Position, "bytes", f.meta.Size)
	if old != nil {
		if err := s.note(s.removeFolder(old.folder)); err != nil {
			// The new snapshot stands; start-up removes the old one.
			s.log.Warn("superseded snapshot not removed", "id", old.id, "error", err)
		}
	}
	return nil
}

// putInPlace returns the snapshot before, if it is to be removed now.
func (s *Store) putInPlace(f *folder, tmp string) (old *kept, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return nil, s.failed
	}
	// The install of a generation comes into place before it is promoted, so
	// one of the two comparisons finds every install that overtook f.
	if generationNumber(f.manifest.Generation) < generationNumber(s.gens.Current()) ||
		s.newest != nil && s.newest.compare(f) > 0 {
		return nil, ErrSuperseded
	}
	if err := renameDurably(s.fs, tmp, f.path); err != nil {
		return nil, err
	}
	old, s.newest = s.newest, &kept{folder: f}
	if old != nil && old.readers > 0 {
		s.held[old] = true
		old = nil
	}
	return old, nil
}

// removeFolder removes a snapshot that a newer one, durable already, has
// superseded. The rename makes sure that a folder without .tmp is never found
// half removed.
func (s *Store) removeFolder(f *folder) error {
	tmp := f.path + tmpSuffix
	if err := s.fs.Rename(f.path, tmp); err != nil {
		return fmt.Errorf("rename %s: %w", f.path, err)
	}
	if err := SyncDir(s.fs, s.o.Dir); err != nil {
		return err
	}
	if err := s.fs.RemoveAll(tmp); err != nil {
		return fmt.Errorf("remove %s: %w", tmp, err)
	}
	return nil
}

// note stops the store after a failed sync, and returns err as it is.
func (s *Store) note(err error) error {
	if !isSyncError(err) {
		return err
	}
	s.mu.Lock()
	if s.failed == nil {
		s.failed = fmt.Errorf("%w: %w", ErrFailed, err)
	}
	tell := !s.told && s.o.OnError != nil
	s.told = true
	s.mu.Unlock()
	if tell {
		s.o.OnError(err)
	}
	return err
}
