package fsm

import (
	"bytes"
	"slices"

	"cairn/event"
)

// retry decides what becomes of an append of which an id is known already. It
// is a retry when all of its ids stand together in one earlier append of the
// same size, in the same order, and its events are the same: then the first
// outcome is the answer, whatever the conditions. Anything else with a known
// id is refused.
func (m *Machine) retry(a *event.Append) (o event.Outcome, known bool, err error) {
	var first uint64 // where the first event of the earlier append stands
	for i := range a.Events {
		e := &a.Events[i]
		if !e.IDChosen {
			continue
		}
		position, ok, err := m.gen.index.Lookup(e.ID, e.Stream)
		if err != nil {
			return event.Outcome{}, false, err
		}
		if ok {
			known = true
			if position > uint64(i) {
				first = position - uint64(i)
			}
			break
		}
	}
	if !known {
		return event.Outcome{}, false, nil
	}
	earlier, err := m.earlier(first, len(a.Events))
	if err != nil {
		return event.Outcome{}, false, err
	}
	if earlier == nil || !slices.EqualFunc(earlier, a.Events, sameEvent) {
		o, err := m.reused(a)
		return o, true, err
	}
	o = event.Outcome{Code: event.Duplicate, First: first, Last: first + uint64(len(earlier)) - 1, Time: earlier[0].Time}
	var touched streams
	for i := range earlier {
		touched.note(&earlier[i])
	}
	o.Versions = touched.versions
	return o, true, nil
}

// earlier returns the events of the append of that size that begins at
// position first, or nil if there is none.
func (m *Machine) earlier(first uint64, size int) ([]event.Event, error) {
	if first == 0 || first+uint64(size) > m.next() {
		return nil, nil
	}
	events := make([]event.Event, size)
	for i := range events {
		e, err := m.stored(first + uint64(i))
		if err != nil {
			return nil, err
		}
		if e.AppendSize != uint32(size) || e.AppendPlace != uint32(i) {
			return nil, nil
		}
		events[i] = e
	}
	return events, nil
}

// stored returns an accepted event, also one of the entry that is being
// applied.
func (m *Machine) stored(position uint64) (event.Event, error) {
	if position > m.state.position {
		return m.frame.events[position-m.state.position-1], nil
	}
	return m.gen.log.Read(position)
}

// sameEvent reports whether sent is what was stored. An id that the client did
// not choose is new with every try, and finds nothing. The number of the schema
// does not count: a retry is stamped with what is the newest by then.
func sameEvent(stored, sent event.Event) bool {
	return sent.IDChosen && stored.IDChosen && stored.ID == sent.ID && stored.Stream == sent.Stream &&
		stored.Type == sent.Type && slices.Equal(stored.Tags, sent.Tags) &&
		stored.CorrelationID == sent.CorrelationID && stored.CausationID == sent.CausationID &&
		stored.Compensates == sent.Compensates && stored.ContentType == sent.ContentType &&
		bytes.Equal(stored.Data, sent.Data) && bytes.Equal(stored.Meta, sent.Meta)
}

// reused is the refusal that names all ids of an append and where they stand.
func (m *Machine) reused(a *event.Append) (event.Outcome, error) {
	o := event.Outcome{Code: event.IDReused}
	for i := range a.Events {
		e := &a.Events[i]
		if !e.IDChosen {
			continue
		}
		position, _, err := m.gen.index.Lookup(e.ID, e.Stream)
		if err != nil {
			return event.Outcome{}, err
		}
		o.Reused = append(o.Reused, event.IDAt{ID: e.ID, Stream: e.Stream, Position: position})
	}
	return o, nil
}
