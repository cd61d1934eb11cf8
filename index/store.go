package index

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
)

// formatMajorVersion pins the form of Pebble's own files: it is raised by a
// cluster version and by nothing else, for an older binary cannot open a newer
// one. V6 is the first with a checksum in a table's footer; it has WAL sync
// chunks, which tell a damaged log from a torn tail.
const formatMajorVersion = pebble.FormatTableFormatV6

const (
	defaultCacheBytes = 128 << 20
	// stopWrites × limits.memTable may wait to be flushed before Commit waits.
	stopWrites = 4
	// l0Threshold is twice Pebble's own: with keys as spread as terms are, each
	// compaction of the newest tables writes the whole level below anew. It makes
	// look-ups look at up to two tables more, whose filters say no to most.
	l0Threshold = 8
	blockBytes  = 8 << 10
	openFiles   = 500
	syncBytes   = 512 << 10 // written back in such pieces, so that the last fsync is short
	filterBits  = 10
	// retryPause slows Pebble down, which tries a flush that failed again at once,
	// for as long as the process lives on.
	retryPause = 20 * time.Millisecond
)

// store is the Pebble database and what is known of its health.
type store struct {
	db     *pebble.DB
	logger *slog.Logger
	stalls atomic.Uint64

	manifest atomic.Bool // Pebble has written to a MANIFEST since it was opened

	// flushed gets a token when Pebble has new tables, so that iterators kept
	// for reuse don't hold on to the old ones (generation.dropIdle). epoch
	// counts these.
	flushed chan struct{}
	epoch   atomic.Uint64

	failure atomic.Pointer[error]
	dead    chan struct{} // closed when failure is set

	mu      sync.Mutex  // guards onError
	onError func(error) // called by fail; nil until Open has succeeded
}

// fail records the first failure: nothing may be reported as durable from then
// on. It may be called with locks of Pebble's held.
func (s *store) fail(err error) {
	if !s.failure.CompareAndSwap(nil, &err) {
		return
	}
	close(s.dead)
	s.mu.Lock()
	onError := s.onError
	s.mu.Unlock()
	if onError != nil {
		onError(err)
	}
}

// failed returns the failure that ended the store, nil if it is well.
func (s *store) failed() error {
	if p := s.failure.Load(); p != nil {
		return *p
	}
	return nil
}

// opened says whom to tell of failures from now on. Those before are an error
// of Open.
func (s *store) opened(onError func(error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.failed(); err != nil {
		return err
	}
	s.onError = onError
	return nil
}

// open opens or creates the database.
func (s *store) open(opts *Options, memTable uint64) error {
	cacheBytes := opts.CacheBytes
	if cacheBytes == 0 {
		cacheBytes = defaultCacheBytes
	}
	cache := pebble.NewCache(cacheBytes)
	defer cache.Unref()
	o := &pebble.Options{
		FS:                          newGuardedFS(opts.FS, opts.Dir, s),
		Cache:                       cache,
		FormatMajorVersion:          formatMajorVersion,
		Merger:                      headMerger,
		ReadOnly:                    opts.ReadOnly,
		MemTableSize:                memTable,
		MemTableStopWritesThreshold: stopWrites,
		L0CompactionThreshold:       l0Threshold,
		MaxOpenFiles:                openFiles,
		BytesPerSync:                syncBytes,
		WALBytesPerSync:             syncBytes,
		Logger:                      pebbleLogger{s},
		EventListener: &pebble.EventListener{
			BackgroundError: func(err error) {
				if !errors.Is(err, pebble.ErrCancelledCompaction) {
					s.fail(fmt.Errorf("pebble: background: %w", err))
					time.Sleep(retryPause)
				}
			},
			DataCorruption:  func(info pebble.DataCorruptionInfo) { s.fail(fmt.Errorf("pebble: %s", info)) },
			ManifestCreated: func(pebble.ManifestCreateInfo) { s.manifest.Store(true) },
			FlushEnd:        func(pebble.FlushInfo) { s.noteFlushed() },
			CompactionEnd:   func(pebble.CompactionInfo) { s.noteFlushed() },
			WriteStallBegin: func(pebble.WriteStallBeginInfo) { s.stalls.Add(1) },
		},
	}
	for i := range o.Levels {
		o.Levels[i].BlockSize = blockBytes
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(filterBits)
		o.Levels[i].FilterType = pebble.TableFilter
	}
	return s.guard(func() (err error) {
		s.db, err = pebble.Open(opts.Dir, o)
		return err
	})
}

// checkpoint has Pebble make a checkpoint. Pebble copies its MANIFEST as far as
// it has written to it since it was opened. If it has not begun to, the copy
// would be empty; a flush makes it begin.
func (s *store) checkpoint(dir string) error {
	return s.guard(func() error {
		if !s.manifest.Load() {
			if err := s.db.Flush(); err != nil {
				return err
			}
		}
		return s.db.Checkpoint(dir, pebble.WithFlushedWAL())
	})
}

func (s *store) noteFlushed() {
	s.epoch.Add(1)
	select {
	case s.flushed <- struct{}{}:
	default:
	}
}

// guard runs a call into Pebble that writes. It returns when the call does, or
// when the store has failed: the call may then be parked for good (guardedFS),
// the one case in which its goroutine is left behind.
func (s *store) guard(call func() error) error {
	done := make(chan error, 1)
	go func() {
		var err error
		defer func() {
			if r := recover(); r != nil {
				s.fail(fmt.Errorf("pebble: panic: %v", r))
				return
			}
			done <- err
		}()
		err = call()
	}()
	var err error
	select {
	case err = <-done:
	case <-s.dead:
	}
	if failed := s.failed(); failed != nil {
		return failed
	}
	return err
}

// pebbleLogger is Pebble's way to say what goes on, and to end the process.
type pebbleLogger struct{ s *store }

func (l pebbleLogger) Infof(string, ...any) {}

func (l pebbleLogger) Errorf(format string, args ...any) {
	l.s.logger.Warn("pebble", "message", fmt.Sprintf(format, args...))
}

// Fatalf must not return: were Pebble to go on, it could delete what its
// MANIFEST doesn't cover.
func (l pebbleLogger) Fatalf(format string, args ...any) {
	l.s.fail(fmt.Errorf(format, args...))
	park()
}

// generation is the store as of one commit, and who reads it. Views count
// themselves in; the index holds one count while it is the current one.
type generation struct {
	store *store
	snap  *pebble.Snapshot
	base  uint64 // the savepoint's position: it holds the events up to it
	refs  atomic.Int64

	mu   sync.Mutex
	idle []idleIter // kept for the next look-up
}

// idleIter is an iterator that no one uses.
type idleIter struct {
	it    *pebble.Iterator
	epoch uint64 // of the store, when it was made
}

const maxIdle = 8

func (s *store) newGeneration(base uint64) (*generation, error) {
	g := &generation{store: s, base: base}
	g.refs.Store(1)
	err := s.guard(func() error { g.snap = s.db.NewSnapshot(); return nil })
	return g, err
}

func (g *generation) release() error {
	if g.refs.Add(-1) > 0 {
		return nil
	}
	return g.store.guard(func() error { return errors.Join(g.dropIdle(), g.snap.Close()) })
}

// get returns the value of a key, appended to dst[:0]. It reads the filters of
// the last level too, which pebble's own Get does not: most look-ups are for
// streams and ids that are new.
func (g *generation) get(key, dst []byte) (value []byte, ok bool, err error) {
	it, epoch, err := g.borrow()
	if err != nil {
		return dst[:0], false, fmt.Errorf("index: read: %w", err)
	}
	value = dst[:0]
	if it.SeekPrefixGE(key) {
		var v []byte
		v, err = it.ValueAndErr()
		value, ok = append(value, v...), true
	}
	if err = errors.Join(err, it.Error()); err != nil {
		return dst[:0], false, fmt.Errorf("index: read: %w", errors.Join(err, it.Close()))
	}
	return value, ok, g.putBack(it, epoch)
}

func (g *generation) borrow() (*pebble.Iterator, uint64, error) {
	epoch := g.store.epoch.Load()
	g.mu.Lock()
	if n := len(g.idle); n > 0 && g.idle[n-1].epoch == epoch {
		it := g.idle[n-1].it
		g.idle = g.idle[:n-1]
		g.mu.Unlock()
		return it, epoch, nil
	}
	g.mu.Unlock()
	it, err := g.snap.NewIter(&pebble.IterOptions{UseL6Filters: true})
	return it, epoch, err
}

func (g *generation) putBack(it *pebble.Iterator, epoch uint64) error {
	g.mu.Lock()
	if len(g.idle) < maxIdle && epoch == g.store.epoch.Load() {
		g.idle = append(g.idle, idleIter{it, epoch})
		it = nil
	}
	g.mu.Unlock()
	if it == nil {
		return nil
	}
	return it.Close()
}

// dropIdle closes the iterators that no one uses.
func (g *generation) dropIdle() error {
	g.mu.Lock()
	idle := g.idle
	g.idle = nil
	g.mu.Unlock()
	var err error
	for _, i := range idle {
		err = errors.Join(err, i.it.Close())
	}
	return err
}

// close closes the database. After a failure it leaves it alone, as parts of it
// may be stopped with locks held: only the end of the process frees it.
func (s *store) close() error {
	if s.failed() != nil {
		return nil
	}
	return s.guard(s.db.Close)
}
