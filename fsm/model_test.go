package fsm

import (
	"bytes"
	"fmt"
	"slices"

	"pgregory.net/rapid"

	"cairn/event"
)

// model is the state machine as simply as it can be written: a slice of events
// and loops over it. The machine must decide as it does.
type model struct {
	events []event.Event
	time   int64
}

func (m *model) version(stream string) (n uint64) {
	for i := range m.events {
		if m.events[i].Stream == stream {
			n++
		}
	}
	return n
}

func (m *model) find(stream, id string) (position uint64) {
	for i := range m.events {
		if e := &m.events[i]; e.IDChosen && e.Stream == stream && e.ID == id {
			return e.Position
		}
	}
	return 0
}

// apply decides the appends of one entry.
func (m *model) apply(time int64, appends []event.Append) []event.Outcome {
	outcomes := make([]event.Outcome, len(appends))
	for i := range appends {
		outcomes[i] = m.decide(max(time, m.time), &appends[i])
	}
	return outcomes
}

func (m *model) decide(now int64, a *event.Append) event.Outcome {
	if o, known := m.retry(a); known {
		return o
	}
	for i, c := range a.Conditions {
		if conflict := m.violation(c); conflict != nil {
			conflict.Condition = i
			return event.Outcome{Code: event.ConditionFailed, Conflict: conflict}
		}
	}
	o := event.Outcome{Code: event.Accepted, Time: now, First: uint64(len(m.events) + 1)}
	m.time = now
	for i, e := range a.Events {
		e.Position, e.Version, e.Time = uint64(len(m.events)+1), m.version(e.Stream)+1, now
		e.AppendSize, e.AppendPlace = uint32(len(a.Events)), uint32(i)
		m.events = append(m.events, e)
		o.Versions = m.touch(o.Versions, &e)
		o.Last = e.Position
	}
	return o
}

func (m *model) touch(versions []event.StreamVersion, e *event.Event) []event.StreamVersion {
	for i := range versions {
		if versions[i].Stream == e.Stream {
			versions[i].Version = e.Version
			return versions
		}
	}
	return append(versions, event.StreamVersion{Stream: e.Stream, Version: e.Version})
}

func (m *model) violation(c event.Condition) *event.Conflict {
	if c.Kind == event.NoMatch {
		for i := range m.events {
			if e := &m.events[i]; e.Position > c.After && c.Query.Matches(e) {
				return &event.Conflict{Kind: c.Kind, Position: e.Position}
			}
		}
		return nil
	}
	v := m.version(c.Stream)
	if c.Kind == event.StreamAtVersion && v == c.Version || c.Kind == event.StreamExists && v > 0 || c.Kind == event.StreamMissing && v == 0 {
		return nil
	}
	return &event.Conflict{Kind: c.Kind, Stream: c.Stream, Expected: c.Version, Actual: v}
}

func (m *model) retry(a *event.Append) (event.Outcome, bool) {
	var reused []event.IDAt
	known, whole := false, true
	for i, e := range a.Events {
		at := m.find(e.Stream, e.ID)
		if !e.IDChosen {
			at = 0
		} else {
			reused = append(reused, event.IDAt{ID: e.ID, Stream: e.Stream, Position: at})
		}
		known = known || at > 0
		if at == 0 {
			whole = false
			continue
		}
		s := m.events[at-1]
		whole = whole && s.AppendSize == uint32(len(a.Events)) && s.AppendPlace == uint32(i) && s.Type == e.Type &&
			slices.Equal(s.Tags, e.Tags) && bytes.Equal(s.Data, e.Data) && at-uint64(i) == m.find(a.Events[0].Stream, a.Events[0].ID)
	}
	switch {
	case !known:
		return event.Outcome{}, false
	case !whole:
		return event.Outcome{Code: event.IDReused, Reused: reused}, true
	}
	first := m.find(a.Events[0].Stream, a.Events[0].ID)
	o := event.Outcome{Code: event.Duplicate, First: first, Last: first + uint64(len(a.Events)) - 1, Time: m.events[first-1].Time}
	for i := range a.Events {
		o.Versions = m.touch(o.Versions, &m.events[first-1+uint64(i)])
	}
	return o, true
}

// anyAppend draws an append out of a small world, so that streams, ids and tags
// meet often.
func anyAppend(t *rapid.T) event.Append {
	var a event.Append
	for i := range rapid.IntRange(1, 3).Draw(t, "events") {
		e := event.Event{
			Stream: rapid.SampledFrom([]string{"a", "a-1", "b-1", "b-2"}).Draw(t, "stream"),
			Type:   rapid.SampledFrom([]string{"T", "U"}).Draw(t, "type"),
			Tags:   rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"x", "y", "z"}), 0, 2, rapid.ID).Draw(t, "tags"),
			Data:   fmt.Appendf(nil, `{"n":%d,"pad":"%0200d"}`, rapid.IntRange(0, 3).Draw(t, "n"), 0), // a few fill a segment
		}
		if len(e.Tags) == 0 {
			e.Tags = nil
		}
		if e.IDChosen = rapid.IntRange(0, 3).Draw(t, "chosen") > 0; e.IDChosen {
			e.ID = fmt.Sprintf("id-%d-%d", rapid.IntRange(0, 60).Draw(t, "id"), i)
		} else {
			e.ID = event.NewID()
		}
		a.Events = append(a.Events, e)
	}
	for range rapid.IntRange(0, 5).Draw(t, "conditions") / 3 {
		a.Conditions = append(a.Conditions, anyCondition(t))
	}
	return a
}

func anyCondition(t *rapid.T) event.Condition {
	c := event.Condition{Kind: event.ConditionKind(rapid.IntRange(1, 4).Draw(t, "kind"))}
	if c.Kind != event.NoMatch {
		c.Stream = rapid.SampledFrom([]string{"a", "b-1", "c"}).Draw(t, "on")
		c.Version = rapid.Uint64Range(0, 5).Draw(t, "version")
		return c
	}
	c.After = rapid.Uint64Range(0, 50).Draw(t, "after")
	for range rapid.IntRange(0, 2).Draw(t, "items") {
		var item event.QueryItem
		if rapid.Bool().Draw(t, "by type") {
			item.Types = []string{rapid.SampledFrom([]string{"T", "U", "V"}).Draw(t, "of type")}
		}
		item.Tags = rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"x", "y", "w"}), 0, 2, rapid.ID).Draw(t, "of tags")
		c.Query.Items = append(c.Query.Items, item)
	}
	return c
}
