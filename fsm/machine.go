package fsm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"

	"cairn/event"
	eventlog "cairn/log"
	"cairn/snapshot"
)

// SupportedVersion is the highest cluster version whose forms this program
// writes and reads.
const SupportedVersion = event.ClusterVersionNewest

// Options configures a Machine.
type Options struct {
	FS          vfs.FS
	Generations *snapshot.Generations
	// SavepointBytes is how much the overlay may hold, in bytes of memory,
	// before a savepoint is taken. 0 means 24 MiB: about 300,000 small events,
	// which a restart applies again in a second or two.
	SavepointBytes int64
	// SavepointEvents is how many events may follow a savepoint before the next
	// one is taken. 0 means 1,000,000.
	SavepointEvents uint64
	// CacheBytes bounds the memory of the index's block cache. 0 means 128 MiB.
	CacheBytes int64
	Logger     *slog.Logger
	// OnFatal is called once, with the first error after which the machine must
	// not go on. The process is expected to end: nothing is applied any more.
	OnFatal func(error)
	// OnBirth is called when the log's id is known, at start or when it is
	// born, before anything more is applied.
	OnBirth func(logID string) error
	// RaiseVersion is called, and must be durable when it returns, before the
	// first savepoint under a cluster version.
	RaiseVersion func(version uint32) error
}

func (o *Options) setDefaults() {
	if o.SavepointBytes == 0 {
		o.SavepointBytes = 24 << 20
	}
	if o.SavepointEvents == 0 {
		o.SavepointEvents = 1_000_000
	}
	if o.OnFatal == nil {
		o.OnFatal = func(error) {}
	}
	if o.OnBirth == nil {
		o.OnBirth = func(string) error { return nil }
	}
	if o.RaiseVersion == nil {
		o.RaiseVersion = func(uint32) error { return nil }
	}
}

// ErrClosed says that the machine was closed, or stopped by a fatal error.
var ErrClosed = errors.New("the state machine is closed")

// Machine is the state machine of one node. It implements raft.BatchingFSM.
type Machine struct {
	opts   Options
	logger *slog.Logger
	stats  stats

	// gen is the data generation in use. Only Restore replaces it, with genMu
	// held; the machine's goroutine reads it without.
	genMu sync.RWMutex
	gen   *generation

	state state  // owned by the goroutine that applies
	frame pieces // owned by the goroutine that applies
	seen  uint64 // last Raft index of a command that was handed in, applied or passed over; owned as well

	published published
	savepoint *savepointer
	folds     *folds
	tailIndex uint64 // found at Open
	durable   savedAt

	failed  atomic.Pointer[error]
	failing sync.Once
	closed  atomic.Bool
}

// savedAt is what the newest savepoint covers.
type savedAt struct {
	mu              sync.Mutex
	index, position uint64
}

func (s *savedAt) set(index, position uint64) {
	s.mu.Lock()
	s.index, s.position = index, position
	s.mu.Unlock()
}

func (s *savedAt) get() (index, position uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.index, s.position
}

// Open opens the current data generation, as of its newest savepoint. The log
// may hold frames beyond it (TailIndex); Cut removes them before Raft starts.
func Open(o Options) (*Machine, error) {
	o.setDefaults()
	m := &Machine{opts: o, logger: o.Logger}
	m.published.init()
	gen, st, saved, err := m.openGeneration()
	if err != nil {
		return nil, err
	}
	m.gen, m.state, m.tailIndex = gen, st, gen.log.TailIndex()
	m.durable.set(saved.Index, saved.Position)
	m.published.setMembers(st.membership())
	m.published.advance(&st)
	if st.logID != "" {
		if err := o.OnBirth(st.logID); err != nil {
			return nil, errors.Join(err, gen.close())
		}
	}
	m.savepoint = startSavepointer(m)
	m.folds = startFolds(m)
	return m, nil
}

// Durable returns what the newest savepoint covers: the index of the last
// command and the position of the last event.
func (m *Machine) Durable() (index, position uint64) { return m.durable.get() }

// TailIndex returns the Raft index of the last intact frame beyond the
// savepoint that the log held when it was opened, or 0.
func (m *Machine) TailIndex() uint64 { return m.tailIndex }

// Cut removes what the log holds beyond the savepoint. It must be called once,
// before the first Apply.
func (m *Machine) Cut() error {
	if err := m.gen.log.Cut(); err != nil {
		return fmt.Errorf("cut the log after its savepoint: %w", err)
	}
	return nil
}

// Replayed says that Raft will hand in no command up to an index again: that of
// the snapshot from which it starts. It is called before Raft starts.
func (m *Machine) Replayed(index uint64) { m.seen = max(m.seen, index) }

// Applied returns the Raft index of the last applied command and the position
// of the last event. All of it can be read.
func (m *Machine) Applied() (index, position uint64) { return m.published.get() }

// LogID returns the id of the log, or "" before it is born.
func (m *Machine) LogID() string { return m.published.log() }

// WaitIndex returns nil once the command at that Raft index is applied.
func (m *Machine) WaitIndex(ctx context.Context, index uint64) error {
	return m.published.wait(ctx, func(i, _ uint64) bool { return i >= index })
}

// WaitPosition returns nil once the event at that position can be read.
func (m *Machine) WaitPosition(ctx context.Context, position uint64) error {
	return m.published.wait(ctx, func(_, p uint64) bool { return p >= position })
}

// Changed returns a channel that is closed when more has been applied than at
// the time of the call, or when the machine is closed.
func (m *Machine) Changed() <-chan struct{} { return m.published.changed() }

// ClusterVersion returns the version of the forms in force, 0 before the birth
// of the log.
func (m *Machine) ClusterVersion() uint32 { return m.published.members().version }

// Removed reports whether a node was removed from the cluster for good.
func (m *Machine) Removed(nodeID string) bool {
	_, ok := m.published.members().removed[nodeID]
	return ok
}

// Overloaded reports whether Apply may soon have to wait for a savepoint. The
// leader refuses appends then, before it comes to that.
func (m *Machine) Overloaded() bool { return m.savepoint.pressed() }

// fail stops the machine for good. The first error is the one that counts.
func (m *Machine) fail(err error) error {
	m.failing.Do(func() {
		m.failed.Store(&err)
		m.published.close()
		m.opts.OnFatal(err)
	})
	return err
}

// stopped returns why the machine goes no further, or nil.
func (m *Machine) stopped() error {
	if err := m.failed.Load(); err != nil {
		return *err
	}
	if m.closed.Load() {
		return ErrClosed
	}
	return nil
}

// Close takes a last savepoint, unless the machine has failed, and releases
// all files. Raft must have been shut down: nothing may be applied any more.
func (m *Machine) Close() error {
	if m.closed.Swap(true) {
		return nil
	}
	m.folds.stop()
	var err error
	if m.failed.Load() == nil {
		err = m.savepoint.last()
	}
	m.savepoint.stop()
	m.published.close()
	m.genMu.Lock()
	gen := m.gen
	m.genMu.Unlock()
	gen.release()
	return errors.Join(err, gen.wait())
}

// toLogID turns a log's id, a UUID, into the bytes that segments carry.
func toLogID(id string) (eventlog.LogID, error) {
	u, err := parseUUID(id)
	if err != nil {
		return eventlog.LogID{}, fmt.Errorf("log id %q: %w", id, err)
	}
	return eventlog.LogID(u), nil
}

// logStats returns figures of the current generation's log.
func (m *Machine) logStats() eventlog.Stats {
	m.genMu.RLock()
	defer m.genMu.RUnlock()
	return m.gen.log.Stats()
}
