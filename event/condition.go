package event

import (
	"slices"
	"strings"
)

// ConditionKind says what a Condition asks for. Its numbers are part of the
// entry format.
type ConditionKind uint8

const (
	// StreamAtVersion holds when Stream has exactly Version events.
	StreamAtVersion ConditionKind = 1
	// StreamExists holds when Stream has at least one event.
	StreamExists ConditionKind = 2
	// StreamMissing holds when Stream has no event.
	StreamMissing ConditionKind = 3
	// NoMatch holds when no event that Query matches stands after position
	// After: a dynamic consistency boundary (https://dcb.events).
	NoMatch ConditionKind = 4
)

// Condition is what must hold for an append to be accepted. It is decided by
// the state machine, in log order.
type Condition struct {
	Kind    ConditionKind
	Stream  string // of the first three kinds
	Version uint64 // of StreamAtVersion
	Query   Query  // of NoMatch, as is After
	After   uint64
}

// Query is an OR of items. A query without items matches every event but those
// of the store's own streams.
type Query struct {
	Items []QueryItem
}

// QueryItem matches an event whose type is one of Types, if there are any, and
// whose tags include all of Tags.
type QueryItem struct {
	Types []string
	Tags  []string
}

// Matches reports whether q matches e. Events of '$' streams never match.
func (q Query) Matches(e *Event) bool {
	if IsSystem(e.Stream) {
		return false
	}
	if len(q.Items) == 0 {
		return true
	}
	return slices.ContainsFunc(q.Items, func(it QueryItem) bool { return it.matches(e) })
}

func (it QueryItem) matches(e *Event) bool {
	if len(it.Types) > 0 && !slices.Contains(it.Types, e.Type) {
		return false
	}
	for _, tag := range it.Tags {
		if !slices.Contains(e.Tags, tag) {
			return false
		}
	}
	return true
}

// Filter chooses events for a read or a follower. All its members that are set
// must match; the zero Filter matches every event, those of '$' streams too.
type Filter struct {
	Query         Query // as in a condition; without items it asks for nothing
	Stream        string
	Category      string
	StreamPrefix  string
	CorrelationID string
	CausationID   string
	FromTime      int64 // nanoseconds; the first time that matches, 0 = any
	ToTime        int64 // nanoseconds; the first time that no longer matches, 0 = any
}

// IsZero reports whether f matches every event.
func (f *Filter) IsZero() bool {
	return len(f.Query.Items) == 0 && f.Stream == "" && f.Category == "" && f.StreamPrefix == "" &&
		f.CorrelationID == "" && f.CausationID == "" && f.FromTime == 0 && f.ToTime == 0
}

// Matches reports whether f chooses e.
func (f *Filter) Matches(e *Event) bool {
	switch {
	case len(f.Query.Items) > 0 && !f.Query.Matches(e),
		f.Stream != "" && f.Stream != e.Stream,
		f.Category != "" && f.Category != Category(e.Stream),
		!strings.HasPrefix(e.Stream, f.StreamPrefix),
		f.CorrelationID != "" && f.CorrelationID != e.CorrelationID,
		f.CausationID != "" && f.CausationID != e.CausationID,
		e.Time < f.FromTime,
		f.ToTime != 0 && e.Time >= f.ToTime:
		return false
	}
	return true
}
