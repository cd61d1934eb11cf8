// Package index finds events: by stream and version, by category, type, tag,
// correlation and causation, and by the id that a client chose. It is an
// inverted index from terms to positions in three layers: a Pebble database
// holds what the last savepoint covers, a frozen overlay what is being
// committed, an active overlay what came since.
//
// It also keeps the rows of projections (rows.go).
//
// What is guaranteed: after Commit returned nil, the frozen overlay with its
// extra keys and rows and the savepoint are on disk, all of them; after a crash
// Open finds exactly one savepoint, the last committed or the one whose Commit
// was under way. A View answers as of one position, consistently, whatever is
// added or committed meanwhile. What is not: anything added since the last
// savepoint is in memory only, and is added again from the log after a restart.
//
// One goroutine (Apply) calls Add, AddAll, AddAppend, Put, Freeze and Head; one
// (savepoints) calls Commit and Checkpoint, one at a time. All else may be called
// by anyone.
package index

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"

	"cairn/event"
)

// Options say where the index lies and what it may use.
type Options struct {
	FS  vfs.FS
	Dir string // created if missing, with its parents
	// CacheBytes bounds Pebble's block cache and its memtables, which take up to
	// half of it; 0 = 128 MiB. Overlays, open tables and the heads of up to two
	// million streams (64 MiB) come on top.
	CacheBytes int64
	// MemTableBytes is what is gathered before a table is written; 0 = 16 MiB.
	MemTableBytes int64
	// ReadOnly opens an index that is there and writes nothing. Nothing that adds
	// or writes must be called.
	ReadOnly bool
	Logger   *slog.Logger // nil = discard
	// OnError is called once, at the first failure of the store, from any
	// goroutine and possibly with locks of the store's held: it must not call
	// the index. Nothing is durable after that, and the process must end: parts
	// of Pebble are stopped, and only the end of the process frees the rest.
	OnError func(error)
}

// limits say when something is written somewhere else. Tests make them small.
type limits struct {
	spill    uint64 // a tail of so many postings that is read becomes a block
	block    uint64 // so many postings make a block full
	look     uint64 // how seldom the head of a term that gets a posting is read (committer.unread)
	memTable uint64 // bytes that make a memtable of Pebble's full
}

// A batch over half of limits.memTable is not copied into a memtable but queued
// as it is, so that the batch of a 64 MiB overlay needs no room made for it.
var defaultLimits = limits{spill: 512, block: 4096, look: 64, memTable: 16 << 20}

// Savepoint is the moment a commit is as of.
type Savepoint struct {
	Index    uint64 // Raft index (A)
	Position uint64 // last event (P)
	Extra    []byte // the state machine's own
}

// Head is where a stream stands.
type Head struct {
	Version uint64 // 0 = the stream has no event
	Last    uint64 // position of its last event
}

// Index is the index of one data generation.
type Index struct {
	store  store
	limits limits
	views  atomic.Int64 // open ones
	merges atomic.Bool  // commits may write MERGE records

	// mu guards the fields below and the contents of the active overlay.
	// Apply takes it for writing, for one append or maxAddsLocked events at a time;
	// readers take it to look up a term, never while they do I/O.
	mu     sync.RWMutex
	active *overlay
	frozen *overlay // nil if all of it is committed
	gen    *generation
	closed bool

	// open is held for reading by who calls Pebble without a view; Close takes
	// it for writing. Before mu.
	open    sync.RWMutex
	heads   *headCache    // of the Apply goroutine; nil until it asks for a head
	stop    chan struct{} // closed by Close
	janitor sync.WaitGroup
	counts  counters
}

// maxAddsLocked is how many events are added before readers are let in.
const maxAddsLocked = 64

// Open opens the index in o.Dir, or creates one, and returns the savepoint it
// is as of: the zero Savepoint if nothing was ever committed.
func Open(o Options) (*Index, Savepoint, error) { return open(o, defaultLimits) }

func open(o Options, lim limits) (*Index, Savepoint, error) {
	x := &Index{limits: lim, stop: make(chan struct{})}
	x.store.logger = o.Logger
	if x.store.logger == nil {
		x.store.logger = slog.New(slog.DiscardHandler)
	}
	x.store.flushed = make(chan struct{}, 1)
	x.store.dead = make(chan struct{})
	if o.MemTableBytes > 0 {
		x.limits.memTable = uint64(o.MemTableBytes)
	}
	if err := x.store.open(&o, x.limits.memTable); err != nil {
		return nil, Savepoint{}, fmt.Errorf("open index %s: %w", o.Dir, err)
	}
	sp, err := x.start(o.OnError)
	if err != nil {
		err = errors.Join(err, x.store.close())
		return nil, Savepoint{}, fmt.Errorf("open index %s: %w", o.Dir, err)
	}
	x.janitor.Go(x.dropIdleIterators)
	return x, sp, nil
}

// start reads the savepoint of a store that is open, and begins after it.
func (x *Index) start(onError func(error)) (sp Savepoint, err error) {
	if x.gen, err = x.store.newGeneration(0); err != nil {
		return sp, err
	}
	key := []byte{prefixSavepoint}
	value, ok, err := x.gen.get(key, nil)
	if err == nil && ok {
		sp, err = decodeSavepoint(key, value)
	}
	if err == nil {
		err = x.store.opened(onError)
	}
	if err != nil {
		return sp, errors.Join(err, x.gen.release())
	}
	x.gen.base = sp.Position
	x.active = newOverlay(sp.Position + 1)
	return sp, nil
}

// dropIdleIterators runs until Close. An iterator kept for reuse holds on to
// memtables that have been flushed and tables that have been compacted.
func (x *Index) dropIdleIterators() {
	for {
		select {
		case <-x.stop:
			return
		case <-x.store.flushed:
		}
		x.mu.RLock()
		gen := x.gen
		x.mu.RUnlock()
		if err := x.store.guard(gen.dropIdle); err != nil {
			x.store.fail(fmt.Errorf("close iterator: %w", err))
		}
	}
}

// Add adds an accepted event. Its position must be the next one; views as of
// that position or a later one see it at once.
func (x *Index) Add(e *event.Event) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.addLocked(e)
}

// AddAll adds events in turn, with less locking.
func (x *Index) AddAll(events []event.Event) {
	for len(events) > 0 {
		n := min(len(events), maxAddsLocked)
		x.addSome(events[:n])
		events = events[n:]
	}
}

func (x *Index) addSome(events []event.Event) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i := range events {
		x.addLocked(&events[i])
	}
}

func (x *Index) addLocked(e *event.Event) {
	if want := x.active.through() + 1; e.Position != want {
		panic(fmt.Sprintf("index: added position %d, not %d", e.Position, want))
	}
	x.active.add(e)
	if x.heads != nil {
		x.heads.put(e.Stream, Head{Version: e.Version, Last: e.Position})
	}
}

// Put adds a record of the state machine's own: the value last put under a key
// is the one found. It is committed with the events added about it.
func (x *Index) Put(key, value []byte) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.active.put(key, value)
}

// OverlayBytes returns about how much memory the active overlay takes.
func (x *Index) OverlayBytes() int64 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.active.bytes
}

// OverlayEvents returns how many events the active overlay holds.
func (x *Index) OverlayEvents() uint64 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.active.events
}

// Frozen reports whether there is a frozen overlay that is not yet committed.
func (x *Index) Frozen() bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.frozen != nil
}

// Freeze hands what was added since the last Freeze to the next Commit. It
// takes no time. It panics if the one before is not committed yet.
func (x *Index) Freeze() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.frozen != nil {
		panic("index: Freeze before the frozen overlay is committed")
	}
	x.frozen, x.active = x.active, newOverlay(x.active.through()+1)
}

// latest is a view of all that was added.
func (x *Index) latest() *View { return x.View(math.MaxUint64) }

func (x *Index) initHeads() {
	if x.heads == nil {
		x.heads = newHeadCache(minHeadSets, maxHeadSets)
	}
}

// Head returns where a stream stands now.
func (x *Index) Head(stream string) (Head, error) {
	x.initHeads()
	if h, ok := x.heads.get(stream); ok {
		return h, nil
	}
	v := x.latest()
	defer v.Close()
	h, err := v.Head(stream)
	if err == nil && h.Version > 0 {
		x.heads.put(stream, h)
	}
	return h, err
}

// Lookup returns the position of the event with an id that its client chose,
// as of now.
func (x *Index) Lookup(id, stream string) (position uint64, ok bool, err error) {
	v := x.latest()
	defer v.Close()
	return v.Lookup(id, stream)
}

// Conflict returns the first position after after of an event that q matches,
// as of now. A query without items matches every event but those of '$' streams.
// If after is not before the last savepoint, the store is not read.
func (x *Index) Conflict(q event.Query, after uint64) (position uint64, ok bool, err error) {
	v := x.latest()
	defer v.Close()
	return v.Conflict(q, after)
}

// Get returns the value last put under a key, nil if there is none.
func (x *Index) Get(key []byte) ([]byte, error) {
	v := x.latest()
	defer v.Close()
	return v.Get(key)
}

// Close closes the store. What was not committed is gone. All views must be
// closed: if one is not, Close says so and leaves the store open. No Commit or
// Checkpoint may be under way.
func (x *Index) Close() error {
	x.open.Lock()
	defer x.open.Unlock()
	x.heads = nil
	x.mu.Lock()
	if x.closed {
		x.mu.Unlock()
		return nil
	}
	if n := x.views.Load(); n > 0 {
		x.mu.Unlock()
		return fmt.Errorf("close index: %d views are open", n)
	}
	x.closed = true
	x.mu.Unlock()
	close(x.stop)
	x.janitor.Wait()
	if err := errors.Join(x.gen.release(), x.store.close()); err != nil {
		return fmt.Errorf("close index: %w", err)
	}
	return nil
}
