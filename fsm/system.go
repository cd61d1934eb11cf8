package fsm

import (
	"encoding/json"
	"fmt"

	"cairn/event"
)

// decideSystem accepts an append of the cluster itself to one of its '$'
// streams, and takes up what it says. One that says nothing new is a no-op,
// since two leaders may have proposed the same.
func (m *Machine) decideSystem(c *event.Command, now int64) (event.Outcome, error) {
	if len(c.Append.Events) != 1 {
		return event.Outcome{}, fmt.Errorf("a system command of %d events: %w", len(c.Append.Events), event.ErrMalformed)
	}
	e := &c.Append.Events[0]
	if e.Stream == event.StreamLog && e.Type == event.TypeLogCreated {
		return m.decideBirth(c, now)
	}
	if m.state.logID == "" {
		return refused(event.TryAgain + "the log is not born yet"), nil
	}
	switch {
	case e.Stream == event.StreamLog && e.Type == event.TypeClusterVersion:
		return m.decideVersion(c, now)
	case e.Stream == event.StreamMembers && e.Type == event.TypeMemberRemoved:
		return m.decideRemoval(c, now)
	case isCatalog(e.Stream):
		return m.decideCatalog(c, now)
	}
	return event.Outcome{}, fmt.Errorf("a system event %s of type %q, which this program does not know: %w", e.Stream, e.Type, event.ErrMalformed)
}

// decideBirth takes up the log's id and forms, at position 1 and only there.
func (m *Machine) decideBirth(c *event.Command, now int64) (event.Outcome, error) {
	if m.state.logID != "" {
		return event.Outcome{Code: event.Duplicate, First: 1, Last: 1}, nil
	}
	var birth event.LogCreated
	if err := json.Unmarshal(c.Append.Events[0].Data, &birth); err != nil {
		return event.Outcome{}, fmt.Errorf("birth of the log: %w", err)
	}
	id, err := toLogID(birth.LogID)
	if err != nil {
		return event.Outcome{}, fmt.Errorf("birth of the log: %w", err)
	}
	if err := supports(birth.ClusterVersion); err != nil {
		return event.Outcome{}, err
	}
	if err := m.gen.log.Create(id, birth.SegmentSize); err != nil {
		return event.Outcome{}, fmt.Errorf("birth of the log: %w", err)
	}
	if err := m.state.take(&c.Append.Events[0]); err != nil {
		return event.Outcome{}, err
	}
	m.published.setMembers(m.state.membership())
	if err := m.opts.OnBirth(birth.LogID); err != nil {
		return event.Outcome{}, fmt.Errorf("note the log's id: %w", err)
	}
	return m.accept(c, now, nil)
}

func (m *Machine) decideVersion(c *event.Command, now int64) (event.Outcome, error) {
	var raise event.ClusterVersion
	if err := json.Unmarshal(c.Append.Events[0].Data, &raise); err != nil {
		return event.Outcome{}, fmt.Errorf("cluster version: %w", err)
	}
	if raise.Version <= m.state.version {
		return event.Outcome{Code: event.Duplicate}, nil
	}
	if err := m.state.take(&c.Append.Events[0]); err != nil {
		return event.Outcome{}, err
	}
	m.published.setMembers(m.state.membership())
	return m.accept(c, now, nil)
}

func (m *Machine) decideRemoval(c *event.Command, now int64) (event.Outcome, error) {
	var removal event.MemberRemoved
	if err := json.Unmarshal(c.Append.Events[0].Data, &removal); err != nil {
		return event.Outcome{}, fmt.Errorf("removal of a member: %w", err)
	}
	if _, ok := m.state.removed[removal.NodeID]; ok {
		return event.Outcome{Code: event.Duplicate}, nil
	}
	if err := m.state.take(&c.Append.Events[0]); err != nil {
		return event.Outcome{}, err
	}
	m.published.setMembers(m.state.membership())
	return m.accept(c, now, nil)
}

// supports reports why this program can't go on under a cluster version: it
// would have to guess what the entries after it mean.
func supports(version uint32) error {
	if version == 0 || version > SupportedVersion {
		return fmt.Errorf("the log is of cluster version %d, this program knows up to %d: start a newer cairn-node", version, SupportedVersion)
	}
	return nil
}

// take takes up what an accepted event of a '$' stream says; others say
// nothing to the machine. Apply and Fold come to the same state because both go
// through here.
func (s *state) take(e *event.Event) error {
	if !event.IsSystem(e.Stream) {
		return nil
	}
	if isCatalog(e.Stream) {
		next, err := s.catalog.With(e)
		if err == nil {
			s.catalog = next
		}
		return err
	}
	var birth event.LogCreated
	var raise event.ClusterVersion
	var removal event.MemberRemoved
	var restored event.LogRestored
	var into any
	switch {
	case e.Stream == event.StreamLog && e.Type == event.TypeLogRestored:
		into = &restored
	case e.Stream == event.StreamLog && e.Type == event.TypeLogCreated:
		into = &birth
	case e.Stream == event.StreamLog && e.Type == event.TypeClusterVersion:
		into = &raise
	case e.Stream == event.StreamMembers && e.Type == event.TypeMemberRemoved:
		into = &removal
	default:
		return fmt.Errorf("a system event %s of type %q, which this program does not know: %w", e.Stream, e.Type, event.ErrMalformed)
	}
	if err := json.Unmarshal(e.Data, into); err != nil {
		return fmt.Errorf("%s of %s: %w", e.Type, e.Stream, err)
	}
	switch into {
	case &birth:
		s.logID, s.segmentSize, s.version = birth.LogID, birth.SegmentSize, birth.ClusterVersion
	case &restored:
		s.logID = restored.LogID
	case &raise:
		s.version = raise.Version
	case &removal:
		s.removed[removal.NodeID] = struct{}{}
		return nil
	}
	return supports(s.version)
}
