package fsm

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/hashicorp/raft"

	"cairn/bug"
	"cairn/event"
	"cairn/index"
	eventlog "cairn/log"
)

// pieces is what one entry adds, while it is being applied. Its memory is used
// again for the next entry.
type pieces struct {
	builder eventlog.FrameBuilder
	events  []event.Event // accepted so far; the first has position state.position before the entry + 1
	streams []string      // of all events of the entry
	// stale are the streams of appends that are to be checked and proposed again.
	// What comes behind them in the entry may have to stay behind them.
	stale map[string]struct{}
}

// Apply applies one Raft entry; see ApplyBatch.
func (m *Machine) Apply(l *raft.Log) any { return m.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch applies entries in order. The answer to a command entry is a
// []event.Outcome, one for each of its commands, or nil when the entry had
// been applied before; or an error, when the machine can't go on.
func (m *Machine) ApplyBatch(logs []*raft.Log) []any {
	answers := make([]any, len(logs))
	for i, l := range logs {
		if l.Type != raft.LogCommand {
			continue
		}
		if err := m.stopped(); err != nil {
			answers[i] = err
			continue
		}
		m.seen = l.Index
		if l.Index <= m.state.index {
			continue
		}
		outcomes, err := m.apply(l)
		if err != nil {
			answers[i] = m.fail(fmt.Errorf("apply entry %d: %w", l.Index, err))
			continue
		}
		answers[i] = outcomes
	}
	if m.stopped() == nil {
		m.published.advance(&m.state)
	}
	return answers
}

// apply decides the commands of one entry and adds what they append as one
// frame.
func (m *Machine) apply(l *raft.Log) ([]event.Outcome, error) {
	entry, err := event.DecodeEntry(l.Data)
	if err != nil {
		return nil, err
	}
	m.frame.events = m.frame.events[:0]
	now := max(entry.Time, m.state.time)
	if bug.Is(bug.ApplyClock) {
		now = max(now, bug.Clock())
	}
	m.frame.builder.Reset(l.Index, l.Term, m.state.position+1, now)
	clear(m.frame.stale)
	commands, err := m.decode(entry.Commands)
	if err != nil {
		return nil, err
	}
	outcomes := make([]event.Outcome, len(commands))
	for i := range commands {
		if outcomes[i], err = m.decide(&commands[i], now); err != nil {
			return nil, fmt.Errorf("command %d: %w", i, err)
		}
	}
	if m.frame.builder.Count() > 0 {
		if err := m.gen.log.Append(&m.frame.builder); err != nil {
			return nil, err
		}
		m.state.position += uint64(m.frame.builder.Count())
		m.state.time = now
	}
	m.state.index = l.Index
	m.stats.events.Add(uint64(len(m.frame.events)))
	m.stats.commands.Add(uint64(len(entry.Commands)))
	return outcomes, m.savepoint.consider()
}

// decode decodes the commands of an entry, and has the index look up their
// streams.
func (m *Machine) decode(encoded [][]byte) ([]event.Command, error) {
	commands := make([]event.Command, len(encoded))
	m.frame.streams = m.frame.streams[:0]
	for i, b := range encoded {
		var err error
		if commands[i], err = event.DecodeCommand(b); err != nil {
			return nil, fmt.Errorf("command %d: %w", i, err)
		}
		for j := range commands[i].Append.Events {
			m.frame.streams = append(m.frame.streams, commands[i].Append.Events[j].Stream)
		}
	}
	return commands, m.gen.index.WarmHeads(m.frame.streams)
}

// decide accepts or refuses one command.
func (m *Machine) decide(c *event.Command, now int64) (event.Outcome, error) {
	if c.Kind == event.KindSystem {
		return m.decideSystem(c, now)
	}
	if m.state.logID == "" {
		return refused(event.TryAgain + "the log is not born yet"), nil
	}
	a := &c.Append
	if reason := broken(a); reason != "" {
		return refused(reason), nil
	}
	if o, known, err := m.retry(a); err != nil || known && !bug.Is(bug.DoubleRetry) {
		return o, err
	}
	if m.stale(a) {
		return event.Outcome{Code: event.SchemaChanged}, nil
	}
	if conflict, err := m.conflict(a.Conditions, c.VerifiedTo); err != nil || conflict != nil {
		return event.Outcome{Code: event.ConditionFailed, Conflict: conflict}, err
	}
	return m.accept(c, now, nil)
}

func refused(reason string) event.Outcome {
	return event.Outcome{Code: event.Refused, Reason: reason}
}

// broken names the rule that an append breaks whatever the state, of those that
// the log itself relies on. All others were checked before it was proposed.
func broken(a *event.Append) string {
	if len(a.Events) == 0 {
		return "an append needs at least one event"
	}
	for i := range a.Events {
		if event.IsSystem(a.Events[i].Stream) {
			return "streams whose names begin with '$' are the store's own"
		}
	}
	return ""
}

// accept gives the events of a command their places, has the guards look at
// them, and adds them to frame, index and tree, with the records of projections
// that change.
func (m *Machine) accept(c *event.Command, now int64, pairs []index.Pair) (event.Outcome, error) {
	events := c.Append.Events
	o := event.Outcome{Code: event.Accepted, Time: now, First: m.next()}
	touched, err := m.place(events, now)
	if err != nil {
		return event.Outcome{}, err
	}
	if len(m.state.catalog.Guarding()) > 0 && c.Kind != event.KindSystem {
		rows := newGuarded(m.state.catalog, m.gen.index)
		rows.first = o.First
		for i := range events {
			refusal, err := rows.fold(&events[i], i)
			if err != nil {
				return event.Outcome{}, err
			}
			if refusal != nil {
				return *refusal, nil
			}
		}
		pairs = rows.pairs
	}
	for i := range events {
		leaf := m.frame.builder.Add(&events[i], salt(&c.Seed, i))
		if err := m.state.tree.add(leaf, m.gen.index.Put); err != nil {
			return event.Outcome{}, err
		}
	}
	m.gen.index.AddAppend(events, pairs)
	m.frame.events = append(m.frame.events, events...)
	o.Last, o.Versions = o.First+uint64(len(events))-1, touched
	return o, nil
}

// place gives the events of an append the positions and versions that they have
// if it is accepted. It returns the versions to which it brings its streams.
func (m *Machine) place(events []event.Event, now int64) ([]event.StreamVersion, error) {
	var touched streams
	first := m.next()
	for i := range events {
		e := &events[i]
		e.Position, e.Time = first+uint64(i), now
		e.AppendSize, e.AppendPlace = uint32(len(events)), uint32(i)
		if at := touched.place(e.Stream); at >= 0 {
			e.Version = touched.versions[at].Version + 1
		} else {
			head, err := m.gen.index.Head(e.Stream)
			if err != nil {
				return nil, err
			}
			e.Version = head.Version + 1
		}
		touched.note(e)
	}
	return touched.versions, nil
}

// next is the position that the next accepted event gets.
func (m *Machine) next() uint64 { return m.state.position + uint64(len(m.frame.events)) + 1 }

// streams collects the streams that an append touches, in order of first
// appearance, with the versions to which it brings them.
type streams struct {
	versions []event.StreamVersion
	places   map[string]int // of the streams in versions, once there are many
}

// manyStreams is from where on a map beats looking through a list.
const manyStreams = 16

func (s *streams) note(e *event.Event) {
	if at := s.place(e.Stream); at >= 0 {
		s.versions[at].Version = e.Version
		return
	}
	s.versions = append(s.versions, event.StreamVersion{Stream: e.Stream, Version: e.Version})
	switch n := len(s.versions); {
	case n == manyStreams:
		s.places = make(map[string]int, 2*n)
		for i, v := range s.versions {
			s.places[v.Stream] = i
		}
	case n > manyStreams:
		s.places[e.Stream] = n - 1
	}
}

// place returns where a stream stands in versions, -1 if it does not.
func (s *streams) place(stream string) int {
	if s.places == nil {
		return slices.IndexFunc(s.versions, func(v event.StreamVersion) bool { return v.Stream == stream })
	}
	if at, ok := s.places[stream]; ok {
		return at
	}
	return -1
}

// salt derives the salt of the i-th event of a command: the first half of
// SHA-256 over the seed and i.
func salt(seed *[16]byte, i int) (s [16]byte) {
	var b [20]byte
	copy(b[:], seed[:])
	binary.LittleEndian.PutUint32(b[16:], uint32(i))
	sum := sha256.Sum256(b[:])
	copy(s[:], sum[:])
	return s
}
