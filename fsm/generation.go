package fsm

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"

	"cairn/index"
	eventlog "cairn/log"
	"cairn/snapshot"
)

// generation is one data generation while it is open: a folder with the log
// and the state derived from it. Views hold it; it is closed when the machine
// and the last of them have released it.
type generation struct {
	dir    string
	logDir string
	log    *eventlog.Log
	index  *index.Index

	commits sync.Mutex // held while index commits or makes a checkpoint

	refs        atomic.Int64
	superseded  atomic.Bool // an install replaced it: its folder goes once nobody reads it
	fs          vfs.FS
	generations *snapshot.Generations
	logger      *slog.Logger
	closed      chan struct{} // closed once all files are, with err set before
	err         error
}

// minMemTable keeps a node with tiny savepoints, one that is tested, from writing
// tiny tables: bytes.
const minMemTable = 64 << 10

// openGeneration opens the current generation as of its savepoint.
func (m *Machine) openGeneration() (*generation, state, index.Savepoint, error) {
	fail := func(err error) (*generation, state, index.Savepoint, error) {
		return nil, state{}, index.Savepoint{}, err
	}
	fs, dir := m.opts.FS, m.opts.Generations.Dir()
	noted, err := readSavepoint(fs, dir)
	if err != nil {
		return fail(err)
	}
	x, saved, err := index.Open(index.Options{
		FS: fs, Dir: m.opts.Generations.StateDir(), CacheBytes: m.opts.CacheBytes, Logger: m.logger,
		MemTableBytes: max(m.opts.SavepointBytes*2/3, minMemTable),
		OnError:       func(err error) { _ = m.fail(fmt.Errorf("index: %w", err)) },
	})
	if err != nil {
		return fail(fmt.Errorf("open the state in %s: %w (if it is damaged, 'cairn rebuild' makes it again from the log)", dir, err))
	}
	if saved.Index < noted.Index || saved.Position < noted.Position {
		return fail(errors.Join(fmt.Errorf("%s: the state ends at position %d, but its savepoint was at %d: part of it was lost; "+
			"make it again from the log with 'cairn rebuild'", dir, saved.Position, noted.Position), x.Close()))
	}
	st, err := decodeState(saved.Index, saved.Position, saved.Extra)
	if err != nil {
		return fail(errors.Join(err, x.Close()))
	}
	log, err := eventlog.Open(eventlog.Options{
		FS: fs, Dir: m.opts.Generations.LogDir(), Through: saved.Position, Logger: m.logger,
		OnError: func(err error) { _ = m.fail(fmt.Errorf("log: %w", err)) },
	})
	if err != nil {
		return fail(errors.Join(err, x.Close()))
	}
	if st.logID != "" {
		if err := supports(st.version); err != nil {
			return fail(errors.Join(err, x.Close(), log.Close()))
		}
	}
	g := &generation{dir: dir, logDir: m.opts.Generations.LogDir(), log: log, index: x, fs: fs, generations: m.opts.Generations, logger: m.logger, closed: make(chan struct{})}
	g.refs.Store(1)
	err = checkIdentity(dir, log, &st)
	if err == nil {
		st.catalog, err = loadCatalog(x, log, st.position)
	}
	if err != nil {
		return fail(errors.Join(err, g.close()))
	}
	return g, st, saved, nil
}

// readSavepoint reads what the last savepoint noted beside the state: nothing
// in a generation that never had one.
func readSavepoint(fs vfs.FS, dir string) (index.Savepoint, error) {
	at, position, err := snapshot.ReadSavepoint(fs, dir)
	if errors.Is(err, os.ErrNotExist) {
		return index.Savepoint{}, nil
	}
	return index.Savepoint{Index: at, Position: position}, err
}

// checkIdentity holds the log's segments against the birth that the state
// remembers.
func checkIdentity(dir string, log *eventlog.Log, st *state) error {
	if st.position == 0 {
		return nil // what the log holds, if anything, is cut before it is used
	}
	id, size, ok := log.Identity()
	want, err := toLogID(st.logID)
	if err != nil {
		return err
	}
	if !ok || id != want || size != st.segmentSize {
		return fmt.Errorf("%s: the log's segments are not those of log %s", dir, st.logID)
	}
	return nil
}

// commit makes what the index has frozen durable.
func (g *generation) commit(sp index.Savepoint) error {
	g.commits.Lock()
	defer g.commits.Unlock()
	return g.index.Commit(sp)
}

// checkpoint makes a folder that shares the tables of the newest savepoint.
func (g *generation) checkpoint(dir string) error {
	g.commits.Lock()
	defer g.commits.Unlock()
	return g.index.Checkpoint(dir)
}

// acquire takes hold of a generation that is still held by someone.
func (g *generation) acquire() { g.refs.Add(1) }

// tryAcquire is acquire for one who does not know whether it is still held.
func (g *generation) tryAcquire() bool {
	for {
		refs := g.refs.Load()
		if refs == 0 {
			return false
		}
		if g.refs.CompareAndSwap(refs, refs+1) {
			return true
		}
	}
}

// release gives one hold back; the last one closes the files.
func (g *generation) release() {
	if g.refs.Add(-1) == 0 {
		g.err = g.close()
		if g.superseded.Load() {
			// Nobody waits for this one. What can't be removed goes at the next start.
			if g.err = errors.Join(g.err, g.generations.Remove(g.fs.PathBase(g.dir))); g.err != nil {
				g.logger.Warn("removing an old data generation", "dir", g.dir, "error", g.err)
			}
		}
		close(g.closed)
	}
}

// wait returns once the last hold is given back, with what closing said.
func (g *generation) wait() error {
	<-g.closed
	return g.err
}

func (g *generation) close() error {
	return errors.Join(g.log.Close(), g.index.Close())
}
