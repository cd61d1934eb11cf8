package eventlog

import (
	"errors"
	"fmt"
	"hash"
	"log/slog"
	"sort"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Options says where a log lies and what of it must be there.
type Options struct {
	FS  vfs.FS
	Dir string // the folder of the segments; created if it is missing
	// Through is the position of the savepoint: what stands up to it must be
	// intact, what stands after it is not yet promised. It ends a frame.
	Through uint64
	// Flush is after how many bytes the background writes the active segment
	// to disk, so that Sync has little left to do. 0 = 4 MiB, < 0 = never.
	Flush  int64
	Logger *slog.Logger // nil = none
	// OnError is called once, on a goroutine of the log, when that writing in
	// the background goes wrong. It must not call Close. nil = nothing.
	OnError func(error)
}

const defaultFlush = 4 << 20

// Log is an event log. See the package comment for who may call what when.
type Log struct {
	options Options
	logger  *slog.Logger
	dir     directory
	handles *handles
	flusher *flusher

	// last is the last position that can be read. It is raised after mu was
	// left with the events up to it in place, so whoever has read it finds them.
	last     atomic.Uint64
	identity atomic.Pointer[segmentHeader] // base is 0; nil = not created
	failed   atomic.Pointer[error]         // the first error of writing
	closed   atomic.Bool

	// mu guards the list, and in its segments what says so.
	mu       sync.RWMutex
	segments []*segment // ascending, without gaps; only the last can be unsealed

	// Written by Open, Cut, Create and Append only, hence by one goroutine.
	tailIndex uint64
	todo      *cut      // what Cut has to do; nil when it is done
	active    *segment  // the last of segments unless that is sealed, or one without a frame yet
	file      vfs.File  // of active, for writing
	hash      hash.Hash // of active: what its footer will say
	times     int64     // time of the last frame
	footer    []byte    // buffer

	// syncMu is held while files are synced.
	syncMu    sync.Mutex
	dirSynced uint64        // how many of created are durable in the directory; guarded by syncMu
	created   atomic.Uint64 // files created

	unsynced atomic.Int64
	bytes    atomic.Int64
	rolls    atomic.Uint64
	syncs    atomic.Uint64
}

// Open opens the log in o.Dir and checks it: the file with o.Through and all
// after it wholly, of those before it header and footer. It changes nothing but
// for creating the folder. Damage at or before o.Through, or a log that ends
// before it, is a *CorruptError. Up to o.Through the log can be read at once;
// what stands after it is out of sight, and Cut removes it.
func Open(o Options) (*Log, error) {
	l := &Log{options: o, logger: o.Logger}
	if l.logger == nil {
		l.logger = slog.New(slog.DiscardHandler)
	}
	if o.FS == nil || o.Dir == "" {
		return nil, errors.New("open event log: no file system or folder given")
	}
	var err error
	if l.dir, err = openDirectory(o.FS, o.Dir); err != nil {
		return nil, fmt.Errorf("open event log: %w", err)
	}
	l.handles = newHandles(l.dir, idleHandles)
	if err := l.recover(); err != nil {
		return nil, fmt.Errorf("open event log: %w", err)
	}
	l.last.Store(o.Through)
	return l, nil
}

// TailIndex returns the highest Raft index of an intact frame that Open found
// after Options.Through; 0 if there was none. It stays the same after Cut.
func (l *Log) TailIndex() uint64 { return l.tailIndex }

// Identity returns log id and segment size; ok is false for a log that is empty
// and was not created.
func (l *Log) Identity() (id LogID, segmentSize int64, ok bool) {
	h := l.identity.Load()
	if h == nil {
		return LogID{}, 0, false
	}
	return h.logID, h.segmentSize, true
}

// Last returns the position of the last event that can be read, 0 if there is
// none.
func (l *Log) Last() uint64 { return l.last.Load() }

// Unsynced returns how many bytes Append has written that are not known to be
// durable.
func (l *Log) Unsynced() int64 { return l.unsynced.Load() }

// Stats are figures for metrics.
type Stats struct {
	Segments int
	Bytes    int64  // of all segments
	Rolls    uint64 // segments sealed since Open
	Syncs    uint64 // files synced since Open, in Sync and in the background
}

// Stats returns the figures as they are now.
func (l *Log) Stats() Stats {
	l.mu.RLock()
	n := len(l.segments)
	l.mu.RUnlock()
	return Stats{Segments: n, Bytes: l.bytes.Load(), Rolls: l.rolls.Load(), Syncs: l.syncs.Load()}
}

// findLocked returns the segment with the event at position. l.mu is held.
func (l *Log) findLocked(position uint64) *segment {
	i := sort.Search(len(l.segments), func(i int) bool { return l.segments[i].base > position })
	if i == 0 || !l.segments[i-1].has(position) {
		return nil
	}
	return l.segments[i-1]
}

// writable says why nothing can be written, if so.
func (l *Log) writable() error {
	if l.closed.Load() {
		return ErrClosed
	}
	if cause := l.failed.Load(); cause != nil {
		return fmt.Errorf("%w: %w", ErrPoisoned, *cause)
	}
	return nil
}

// poison ends all writing because of err, and returns it.
func (l *Log) poison(err error) error {
	l.failed.CompareAndSwap(nil, &err)
	return err
}

// Close ends the background and closes all files. It does not sync: call Sync
// before. No call of Append may be running; readers get ErrClosed.
func (l *Log) Close() error {
	if l.closed.Swap(true) {
		return nil
	}
	if l.flusher != nil {
		l.flusher.stop()
	}
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	var err error
	if l.file != nil {
		err = l.file.Close()
		l.file = nil
	}
	l.handles.close()
	if l.active != nil { // not in segments if its first write went wrong
		l.unpin(l.active)
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, s := range l.segments {
		l.unpin(s)
	}
	return err
}

// unpin lets the file of a segment be closed. l.syncMu is held.
func (l *Log) unpin(s *segment) {
	if s.pin != nil {
		l.handles.release(s.pin)
		s.pin = nil
	}
}
