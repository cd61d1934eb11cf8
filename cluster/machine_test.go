package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"

	"cairn/event"
)

// memMachine is a state machine in memory: it accepts every append and keeps
// the ids of all events in order.
type memMachine struct {
	mu      sync.Mutex
	index   uint64 // of the last command
	ids     []string
	logID   string
	births  int
	removed map[string]bool
	changed chan struct{} // closed and replaced at each change
	applied int           // calls of ApplyBatch

	durable  uint64
	tail     uint64
	cut      bool
	restores int

	busy     bool
	hold     chan struct{} // if not nil, ApplyBatch waits for it to be closed
	onApply  func(logs []*raft.Log) error
	check    func(a *event.Append) (*event.Outcome, error)
	precheck func(a *event.Append) (uint64, *event.Outcome, error)
	verified []uint64 // VerifiedTo of each client append
}

var _ StateMachine = (*memMachine)(nil)

func newMachine() *memMachine {
	return &memMachine{changed: make(chan struct{}), removed: map[string]bool{}}
}

func (m *memMachine) Apply(l *raft.Log) any { return m.ApplyBatch([]*raft.Log{l})[0] }

func (m *memMachine) ApplyBatch(logs []*raft.Log) []any {
	m.mu.Lock()
	hold := m.hold
	m.mu.Unlock()
	if hold != nil {
		<-hold
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.applied++
	if m.onApply != nil {
		if err := m.onApply(logs); err != nil {
			return allErrors(len(logs), err)
		}
	}
	responses := make([]any, len(logs))
	for i, l := range logs {
		if l.Type == raft.LogCommand && l.Index > m.index {
			responses[i] = m.applyLocked(l)
		}
	}
	close(m.changed)
	m.changed = make(chan struct{})
	return responses
}

func (m *memMachine) applyLocked(l *raft.Log) any {
	entry, err := event.DecodeEntry(l.Data)
	if err != nil {
		return err
	}
	m.index = l.Index
	outcomes := make([]event.Outcome, len(entry.Commands))
	for i, b := range entry.Commands {
		c, err := event.DecodeCommand(b)
		if err != nil {
			return err
		}
		if e := c.Append.Events[0]; e.Stream == event.StreamLog && e.Type == event.TypeLogCreated {
			m.births++
			if m.logID != "" {
				outcomes[i] = event.Outcome{Code: event.Duplicate, First: 1, Last: 1}
				continue
			}
			var birth event.LogCreated
			if err := json.Unmarshal(e.Data, &birth); err != nil {
				return err
			}
			m.logID = birth.LogID
		} else if m.logID == "" {
			outcomes[i] = event.Outcome{Code: event.Refused, Reason: "not born"}
			continue
		}
		if c.Kind == event.KindAppend {
			m.verified = append(m.verified, c.VerifiedTo)
		}
		first := uint64(len(m.ids)) + 1
		for _, e := range c.Append.Events {
			m.ids = append(m.ids, e.ID)
		}
		outcomes[i] = event.Outcome{Code: event.Accepted, First: first, Last: uint64(len(m.ids)), Time: entry.Time}
	}
	return outcomes
}

// memState is what a snapshot of a memMachine holds.
type memState struct {
	Index uint64
	IDs   []string
	LogID string
}

func (m *memMachine) Snapshot() (raft.FSMSnapshot, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := json.Marshal(memState{m.index, m.ids, m.logID})
	m.durable = m.index
	return memSnapshot(b), err
}

type memSnapshot []byte

func (s memSnapshot) Persist(sink raft.SnapshotSink) error {
	_, err := sink.Write(s)
	return err
}

func (memSnapshot) Release() {}

func (m *memMachine) Restore(source io.ReadCloser) error {
	b, err := io.ReadAll(source)
	if err != nil {
		return err
	}
	var s memState
	if err := json.NewDecoder(bytes.NewReader(b)).Decode(&s); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.restores++
	m.index, m.durable, m.ids, m.logID = s.Index, s.Index, s.IDs, s.LogID
	close(m.changed)
	m.changed = make(chan struct{})
	return nil
}

func (m *memMachine) Durable() (uint64, uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.durable, 0
}

func (m *memMachine) TailIndex() uint64 { return m.tail }

func (m *memMachine) Cut() error {
	m.cut = true
	return nil
}

func (m *memMachine) Applied() (uint64, uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.index, uint64(len(m.ids))
}

func (m *memMachine) WaitIndex(ctx context.Context, index uint64) error {
	for {
		m.mu.Lock()
		reached, changed := m.index >= index, m.changed
		m.mu.Unlock()
		if reached {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (m *memMachine) Check(a *event.Append) (*event.Outcome, error) {
	if m.check != nil {
		return m.check(a)
	}
	return nil, nil
}

func (m *memMachine) Precheck(a *event.Append) (uint64, *event.Outcome, error) {
	if m.precheck != nil {
		return m.precheck(a)
	}
	return 0, nil, nil
}

func (m *memMachine) Overloaded() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.busy
}

func (m *memMachine) LogID() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.logID
}

func (m *memMachine) ClusterVersion() uint32 {
	if m.LogID() == "" {
		return 0
	}
	return event.ClusterVersionNewest
}

func (m *memMachine) Removed(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.removed[id]
}

// events returns the ids of all events, but for the log's birth.
func (m *memMachine) events() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.ids) == 0 {
		return nil
	}
	return append([]string(nil), m.ids[1:]...)
}

// one makes an append of one event.
func one(id string) *event.Append {
	return &event.Append{Events: []event.Event{{
		Stream: "test-1", Type: "Tested", ID: id, Data: []byte(fmt.Sprintf(`{"n":%q}`, id)),
	}}}
}
