package fsm

import (
	"fmt"

	"cairn/bug"
	"cairn/event"
	"cairn/index"
	"cairn/projection"
)

// heads is what a condition is decided on: the whole index as Apply sees it, or
// a view of it.
type heads interface {
	// Head returns a stream's version and last position, zero if it has none.
	Head(stream string) (index.Head, error)
	// Conflict returns the first event after a position that q matches.
	Conflict(q event.Query, after uint64) (position uint64, ok bool, err error)
}

// conflict returns the first condition that does not hold now, or nil. Queries
// were verified by the leader up to a position.
func (m *Machine) conflict(conditions []event.Condition, verifiedTo uint64) (*event.Conflict, error) {
	for i := range conditions {
		c, err := violation(m.gen.index, &conditions[i], verifiedTo)
		if err != nil {
			return nil, fmt.Errorf("condition %d: %w", i, err)
		}
		if c != nil {
			c.Condition = i
			return c, nil
		}
	}
	return nil, nil
}

// violation says what stands in the way of one condition, or nil.
func violation(on heads, c *event.Condition, verifiedTo uint64) (*event.Conflict, error) {
	if c.Kind == event.NoMatch {
		position, ok, err := on.Conflict(c.Query, max(c.After, verifiedTo))
		if err != nil || !ok {
			return nil, err
		}
		return &event.Conflict{Kind: c.Kind, Position: position}, nil
	}
	head, err := on.Head(c.Stream)
	if err != nil {
		return nil, err
	}
	switch {
	case bug.Is(bug.NoConditions):
		return nil, nil
	case c.Kind == event.StreamAtVersion && head.Version == c.Version,
		c.Kind == event.StreamExists && head.Version > 0,
		c.Kind == event.StreamMissing && head.Version == 0:
		return nil, nil
	}
	return &event.Conflict{Kind: c.Kind, Stream: c.Stream, Expected: c.Version, Actual: head.Version}, nil
}

// Precheck evaluates the query conditions of an append as of what is applied,
// so that Apply needs to look only at what comes after. It returns the position
// up to which no query matches; or the refusal, which is final: what stands in
// the way is committed. An append of which any id is known is left to Apply,
// since it may be a retry that must not be refused for its own events.
//
// It also refuses an event that compensates none of its stream, as of what is
// applied here.
func (m *Machine) Precheck(a *event.Append) (verifiedTo uint64, refusal *event.Outcome, err error) {
	if len(a.Events) == 1 && isCatalog(a.Events[0].Stream) {
		return 0, nil, projection.CheckEvent(&a.Events[0])
	}
	if !hasQuery(a.Conditions) && !compensates(a) {
		return 0, nil, nil
	}
	v := m.View(0)
	defer v.Close()
	if known, err := v.knows(a); err != nil || known {
		return 0, nil, err
	}
	if refusal, err := v.checkCompensates(a); err != nil || refusal != nil {
		return 0, refusal, err
	}
	for i := range a.Conditions {
		if a.Conditions[i].Kind != event.NoMatch {
			continue
		}
		c, err := violation(v.index, &a.Conditions[i], 0)
		if err != nil {
			return 0, nil, err
		}
		if c != nil {
			c.Condition = i
			return 0, &event.Outcome{Code: event.ConditionFailed, Conflict: c}, nil
		}
	}
	return v.Position(), nil, nil
}

func hasQuery(conditions []event.Condition) bool {
	for i := range conditions {
		if conditions[i].Kind == event.NoMatch {
			return true
		}
	}
	return false
}
