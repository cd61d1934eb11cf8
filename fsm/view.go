package fsm

import (
	"cmp"
	"fmt"

	"cairn/event"
	"cairn/index"
	eventlog "cairn/log"
)

// View reads log and index as of one position, whatever is applied meanwhile.
// It holds files and memory: close it soon. One goroutine may use it at a time.
type View struct {
	gen      *generation
	index    *index.View
	position uint64
	logID    string
}

// View returns a view as of a position, or as of all that is applied when at
// is 0 or beyond it.
func (m *Machine) View(at uint64) *View {
	m.genMu.RLock()
	defer m.genMu.RUnlock()
	_, position := m.published.get()
	if at != 0 {
		position = min(position, at)
	}
	m.gen.acquire()
	return &View{gen: m.gen, index: m.gen.index.View(position), position: position, logID: m.LogID()}
}

// Close gives back what the view holds.
func (v *View) Close() {
	v.index.Close()
	v.gen.release()
}

// Position is what the view is as of.
func (v *View) Position() uint64 { return v.position }

// LogID is the id of the log, "" before it is born.
func (v *View) LogID() string { return v.logID }

// Head returns a stream's version and last position, zero if it does not
// exist.
func (v *View) Head(stream string) (index.Head, error) { return v.index.Head(stream) }

// Event returns the event at a position; eventlog.ErrNotFound if there is none.
func (v *View) Event(position uint64) (event.Event, error) {
	if position == 0 || position > v.position {
		return event.Event{}, eventlog.ErrNotFound
	}
	return v.gen.log.Read(position)
}

// EventAt returns the event of a stream with a version.
func (v *View) EventAt(stream string, version uint64) (event.Event, error) {
	if version == 0 {
		return event.Event{}, eventlog.ErrNotFound
	}
	it := v.index.Stream(stream, version, false)
	defer it.Close()
	position, ok := it.Next()
	if !ok {
		return event.Event{}, cmp.Or(it.Err(), eventlog.ErrNotFound)
	}
	e, err := v.gen.log.Read(position)
	if err == nil && (e.Stream != stream || e.Version != version) {
		err = &index.CorruptError{Key: []byte(stream), Reason: fmt.Sprintf("version %d leads to %s at version %d, position %d", version, e.Stream, e.Version, position)}
	}
	return e, err
}

// Streams lists names that begin with prefix and come after a name, in byte
// order, with their versions.
func (v *View) Streams(prefix, after string, limit int) ([]event.StreamVersion, error) {
	return v.index.Streams(prefix, after, limit)
}

// Selection says which events a cursor gives, and in which order.
type Selection struct {
	Filter   event.Filter
	After    uint64 // only positions beyond it
	Before   uint64 // only positions before it; 0 = no bound
	Backward bool   // the newest first
}

// Select returns a cursor over the events of a selection.
func (v *View) Select(s Selection) (*Cursor, error) {
	first, last := s.After+1, v.position
	if s.Before > 0 {
		last = min(last, s.Before-1)
	}
	if s.Filter.FromTime > 0 {
		p, err := v.gen.log.SeekTime(s.Filter.FromTime)
		if err != nil {
			return nil, err
		}
		first = max(first, p)
	}
	if s.Filter.ToTime > 0 {
		p, err := v.gen.log.SeekTime(s.Filter.ToTime)
		if err != nil {
			return nil, err
		}
		last = min(last, p-1)
	}
	c := &Cursor{points: eventlog.Points{Log: v.gen.log}, first: first, last: last, backward: s.Backward, filter: s.Filter}
	bound := first - 1
	if s.Backward {
		bound = last + 1
	}
	if it, exact, ok := v.index.Select(&s.Filter, bound, s.Backward); ok {
		c.candidates, c.exact = it, exact
	} else {
		c.exact = s.Filter.IsZero()
	}
	return c, nil
}

// Stream returns a cursor over a stream from a version on, upwards or
// downwards.
func (v *View) Stream(name string, from uint64, backward bool) (*Cursor, error) {
	return &Cursor{
		points: eventlog.Points{Log: v.gen.log}, first: 1, last: v.position, backward: backward, exact: true,
		candidates: v.index.Stream(name, from, backward),
	}, nil
}
