package cluster

import (
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"
)

// replica is the state machine as Raft sees it: it passes on only entries whose
// check holds, and none after a fatal error.
type replica struct {
	StateMachine
	fatal *fatal
	// stores returns how many writes Raft's log has taken.
	stores func() uint64
	stats  *metrics

	installed install // of Raft's state machine goroutine
	again     int     // how often that one came again, with nothing between; likewise
}

// maxAgain is how often the same snapshot may come again. The leader sends one
// again, too, when the answer to it was lost.
const maxAgain = 3

var _ raft.BatchingFSM = (*replica)(nil)

// install is a snapshot that the leader sent and Raft installed.
type install struct {
	index, term uint64
	stores      uint64 // writes of Raft's log up to then
}

// Apply applies one entry.
func (r *replica) Apply(l *raft.Log) any { return r.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch applies entries, all of them or, after an error, none. The error
// ends the node: it may not skip what the others have applied.
func (r *replica) ApplyBatch(logs []*raft.Log) []any {
	if err := r.fatal.check(); err != nil {
		return allErrors(len(logs), err)
	}
	for _, l := range logs {
		if err := verifyLog(l); err != nil {
			return allErrors(len(logs), r.fatal.fail(fmt.Errorf("apply %w", err)))
		}
	}
	responses := r.StateMachine.ApplyBatch(logs)
	for i, response := range responses {
		if err, ok := response.(error); ok {
			_ = r.fatal.fail(fmt.Errorf("apply entry %d: %w", logs[i].Index, err)) // the response has it
			break
		}
	}
	return responses
}

func allErrors(n int, err error) []any {
	responses := make([]any, n)
	for i := range responses {
		responses[i] = err
	}
	return responses
}

// Restore installs a snapshot that the leader sent. The same one again and again
// with not one entry between means that this node's log does not go with it, and
// that the leader will send it for ever (hashicorp/raft#697); a start makes them
// fit.
func (r *replica) Restore(source io.ReadCloser) error {
	if err := r.fatal.check(); err != nil {
		return err
	}
	next, again := install{stores: r.stores()}, 0
	if meta, ok := snapshotMeta(source); ok {
		next.index, next.term = meta.Index, meta.Term
		if next == r.installed {
			again = r.again + 1
		}
		if again > maxAgain {
			return r.fatal.fail(fmt.Errorf("the snapshot of index %d, term %d came %d times in a row", meta.Index, meta.Term, again+1))
		}
	}
	if err := r.StateMachine.Restore(source); err != nil {
		return r.fatal.fail(fmt.Errorf("install a snapshot: %w", err))
	}
	r.stats.installs.Inc()
	r.installed, r.again = next, again
	return nil
}

// namedSnapshots is a snapshot store whose open snapshots say which they are,
// through the wrappers that Raft puts around them.
type namedSnapshots struct{ raft.SnapshotStore }

// Open opens a snapshot for reading.
func (s namedSnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, source, err := s.SnapshotStore.Open(id)
	if err != nil {
		return nil, nil, err
	}
	return meta, &namedSnapshot{ReadCloser: source, meta: meta}, nil
}

// namedSnapshot may be closed more than once: by whoever reads it and by Raft.
type namedSnapshot struct {
	io.ReadCloser
	meta *raft.SnapshotMeta
	once sync.Once
	err  error
}

// Close closes the snapshot.
func (s *namedSnapshot) Close() error {
	s.once.Do(func() { s.err = s.ReadCloser.Close() })
	return s.err
}

func snapshotMeta(source io.ReadCloser) (*raft.SnapshotMeta, bool) {
	for {
		switch s := source.(type) {
		case *namedSnapshot:
			return s.meta, true
		case raft.ReadCloserWrapper:
			source = s.WrappedReadCloser()
		default:
			return nil, false
		}
	}
}
