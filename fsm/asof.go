package fsm

import (
	"context"
	"errors"
	"fmt"
	"math"

	"cairn/bug"
	"cairn/event"
	"cairn/index"
	eventlog "cairn/log"
	"cairn/projection"
)

// Moment says as of when a state is asked for: at most one of its fields is not
// zero. The zero value is now.
type Moment struct {
	Version  uint64 // of the stream
	Position uint64
	Time     int64 // nanoseconds: after all events up to that time
}

var (
	// ErrNoProjection says that there is no projection of that name.
	ErrNoProjection = errors.New("no such projection")
	// ErrNoSchema says that a type has no schema of that number.
	ErrNoSchema = errors.New("no such schema")
	// ErrNoRow says that no event had been folded into a row, or a stream, by then.
	ErrNoRow = errors.New("no such row at that moment")
	// ErrNotByStream says that versions mean nothing to a projection.
	ErrNotByStream = errors.New("the rows of this projection are not streams, so that a version does not say when: give a position or a time")
	// ErrTooManyEvents says that a state would take too long to fold.
	ErrTooManyEvents = fmt.Errorf("the stream has more than %d events until then: define a projection for it, which keeps its state", maxReplay)
	// ErrStateTooLarge says that the merged data of a stream's events is too much
	// for one answer.
	ErrStateTooLarge = errors.New("the merged data of the stream's events is larger than 1 MiB: define a projection that keeps what is needed of it")
)

const (
	// maxReplay bounds the events that are merged for the state of a stream without
	// a projection.
	maxReplay = 100_000
	// lookEvery is after how many events a reader looks whether anybody still waits
	// for it.
	lookEvery = 256
)

// asOf is a moment as a position: the last one that belongs to it.
type asOf struct {
	position uint64
	final    bool // no later event can belong to it
}

// resolve turns a moment into a position as of a view. stream is whose versions
// count, "" if none do.
func (v *View) resolve(at Moment, stream string) (asOf, error) {
	switch {
	case at.Version > 0:
		if stream == "" {
			return asOf{}, ErrNotByStream
		}
		e, err := v.EventAt(stream, at.Version)
		if errors.Is(err, eventlog.ErrNotFound) {
			err = ErrNoRow
		}
		return asOf{e.Position, true}, err
	case at.Position > 0:
		return asOf{at.Position, at.Position <= v.position}, nil
	case at.Time > 0 && v.position > 0:
		next, err := v.gen.log.SeekTime(at.Time + 1)
		if err != nil {
			return asOf{}, err
		}
		return asOf{min(next-1, v.position), next <= v.position}, nil
	}
	return asOf{math.MaxUint64, true}, nil
}

// rowReader reads the rows of one generation as of a moment. It belongs to one
// goroutine.
type rowReader struct {
	m       *Machine
	view    *View
	gen     *projection.Generation
	catalog *projection.Catalog
	keys    rowKeys
	moment  asOf
}

// close gives back the view and the rows.
func (r *rowReader) close() {
	r.view.Close()
	r.m.folds.release(r.gen.ID)
}

// before returns a row as of a position, given the row as it is now, and how
// many events were folded for it.
func (r *rowReader) before(ctx context.Context, key string, now projection.Row, at uint64) (row projection.Row, replayed uint64, err error) {
	if now.Last <= at {
		if now.Failed != nil && now.Failed.Position > at {
			now.Failed = nil
		}
		return now, 0, nil
	}
	row, from, err := r.nearest(key, at)
	if err != nil {
		return row, 0, err
	}
	if bug.Is(bug.PastRows) {
		at--
	}
	err = r.replay(ctx, key, &row, from, at, func(*event.Event) bool {
		replayed++
		return true
	})
	return row, replayed, err
}

// nearest returns the row as it was kept at or before a position, and where.
func (r *rowReader) nearest(key string, at uint64) (projection.Row, uint64, error) {
	pairs, _, _, err := r.view.gen.index.Rows(r.keys.ofRow(keptPrefix, key), r.keys.kept(key, at), 1, nil)
	if err != nil || len(pairs) == 0 {
		return projection.Row{}, 0, err
	}
	row, err := projection.DecodeRow(pairs[0].Value)
	return row, row.Last, err
}

// replay folds the events of a row after one position up to another one. each is
// told of those that changed it, and ends the replay by false.
func (r *rowReader) replay(ctx context.Context, key string, row *projection.Row, after, through uint64, each func(e *event.Event) bool) error {
	through = min(through, r.view.position)
	if through <= after {
		return nil
	}
	looked := 0
	fold := func(e *event.Event) (bool, error) {
		if looked++; looked%lookEvery == 0 && ctx.Err() != nil {
			return false, ctx.Err()
		}
		changed, err := r.fold(key, row, e)
		return row.Failed == nil && err == nil && (!changed || each(e)), err
	}
	if !r.gen.ByStream() {
		return r.eachOfRow(key, after, through, fold)
	}
	filter := r.gen.Filter()
	filter.Stream, filter.StreamPrefix, filter.Category = key, "", "" // what has a row matches them
	events, err := r.view.Select(Selection{Filter: filter, After: after, Before: through + 1})
	if err != nil {
		return err
	}
	defer events.Close()
	for events.Next() {
		if e := events.Event(); r.gen.Matches(e) {
			if more, err := fold(e); err != nil || !more {
				return err
			}
		}
	}
	return events.Err()
}

// fold folds one event and reports whether it changed the row.
func (r *rowReader) fold(key string, row *projection.Row, e *event.Event) (changed bool, err error) {
	brought, err := r.catalog.Bring(r.gen, e)
	if err != nil {
		return false, nil // such an event belongs to no row
	}
	before := row.Events
	_, _, err = foldRow(r.gen, key, row, projection.NewInput(brought), e, false)
	return row.Events > before, err
}

// positionsPage is how many positions of a row's events are taken at once.
const positionsPage = 512

// eachOfRow calls visit with the events of a row, until it returns false.
func (r *rowReader) eachOfRow(key string, after, through uint64, visit func(e *event.Event) (bool, error)) error {
	prefix := r.keys.ofRow(eventPrefix, key)
	for from := after + 1; from <= through; {
		pairs, _, _, err := r.view.gen.index.Rows(prefix, r.keys.event(key, from), positionsPage, nil)
		if err != nil {
			return err
		}
		for _, p := range pairs {
			position := positionOf(p.Key)
			if position > through {
				return nil
			}
			e, err := r.view.Event(position)
			if err != nil {
				return fmt.Errorf("the event at position %d of row %q: %w", position, key, err)
			}
			if more, err := visit(&e); err != nil || !more {
				return err
			}
			from = position + 1
		}
		if len(pairs) < positionsPage {
			return nil
		}
	}
	return nil
}

// rowOf is the row under a key that Rows returned.
func (r *rowReader) rowOf(p index.Pair) (key string, row projection.Row, err error) {
	row, err = projection.DecodeRow(p.Value)
	return string(p.Key[len(r.keys.prefix(rowPrefix)):]), row, err
}
