package fsm

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"cairn/bug"
	"cairn/event"
	"cairn/projection"
	"cairn/projection/schema"
)

// RowState is a row as of a moment.
type RowState struct {
	Key        string
	Row        projection.Row
	Replayed   uint64 // events that were folded for this answer
	Final      bool   // no later event can belong to that moment
	AsOf       uint64 // position that the answer is as of
	Generation uint64
}

// BuildingError says that the first generation of a projection is not in force
// yet, and how far it is on this node, from 0 to 1.
type BuildingError struct{ Progress float64 }

func (e *BuildingError) Error() string {
	return fmt.Sprintf("the projection is being built, %.0f %% is done: try again", 100*e.Progress)
}

// errSuperseded says that a generation is no longer in force.
var errSuperseded = errors.New("another generation is in force")

// reader opens a reader of the generation in force as of a moment, once all that
// is up to position least is folded into it, and all up to the moment if nothing
// more can belong to that. key is that of a row if it is for one. The reader must
// be closed.
func (m *Machine) reader(ctx context.Context, name, key string, at Moment, least uint64) (*rowReader, error) {
	if err := m.WaitPosition(ctx, least); err != nil {
		return nil, err
	}
	for {
		r, err := m.tryReader(ctx, name, key, at, least)
		switch {
		case errors.Is(err, errSuperseded):
			continue
		case err != nil:
			return nil, err
		case !r.moment.final || r.moment.position == math.MaxUint64 || m.folded(r.gen, r.moment.position):
			return r, nil
		}
		least = r.moment.position
		r.close() // a view is not held while others fold
	}
}

// tryReader is reader if the generation in force stays the same and as of
// whatever is folded up to least.
func (m *Machine) tryReader(ctx context.Context, name, key string, at Moment, least uint64) (*rowReader, error) {
	g, next := m.Catalog().Find(name)
	if g == nil && next == nil {
		return nil, ErrNoProjection
	}
	if g == nil {
		return nil, &BuildingError{m.Folded(next.ID).Progress()}
	}
	m.folds.hold(g.ID)
	if err := m.waitFolded(ctx, g, least); err != nil {
		m.folds.release(g.ID)
		return nil, err
	}
	// As of the view's position the rows are sound if the generation is in force
	// after it was opened.
	r := &rowReader{m: m, view: m.View(0), gen: g, keys: keysOf(g)}
	var err error
	if r.catalog = m.Catalog(); !inForce(r.catalog, g) {
		err = errSuperseded
	}
	if err == nil {
		stream := ""
		if g.ByStream() {
			stream = key
		}
		r.moment, err = r.view.resolve(at, stream)
	}
	if err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func inForce(c *projection.Catalog, g *projection.Generation) bool {
	live, _ := c.Find(g.Name)
	return live != nil && live.ID == g.ID
}

// waitFolded returns nil once a generation is folded up to a position on this
// node, or errSuperseded.
func (m *Machine) waitFolded(ctx context.Context, g *projection.Generation, position uint64) error {
	for {
		applied := m.Changed()
		_, folded := m.folds.reached(g.ID)
		reached := m.folded(g, position)
		// Looked at last: it was in force when it was folded that far.
		if !inForce(m.Catalog(), g) {
			return errSuperseded
		}
		if reached {
			return nil
		}
		if err := m.stopped(); err != nil {
			return err
		}
		select {
		case <-applied:
		case <-folded:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// folded reports whether a generation in force is folded up to a position.
func (m *Machine) folded(g *projection.Generation, position uint64) bool {
	reached, _ := m.folds.reached(g.ID)
	if g.Guarding() { // Apply folds it
		_, reached = m.Applied()
	}
	return reached >= position || bug.Is(bug.StaleRows)
}

// read returns up to limit rows from a key on, as they are now, and the position
// that they are as of.
func (r *rowReader) read(prefix, from string, limit int) ([]RowState, uint64, error) {
	pairs, cursor, position, err := r.view.gen.index.Rows(r.keys.row(prefix), r.keys.row(from), limit, r.keys.cursor())
	if err == nil && !r.gen.Guarding() {
		position, err = decodeCursor(cursor)
	}
	if err != nil {
		return nil, 0, err
	}
	rows := make([]RowState, len(pairs))
	for i, p := range pairs {
		s := RowState{Final: true, AsOf: position, Generation: r.gen.ID}
		if s.Key, s.Row, err = r.rowOf(p); err != nil {
			return nil, 0, err
		}
		rows[i] = s
	}
	return rows, position, nil
}

// travel takes a row back to the reader's moment.
func (r *rowReader) travel(ctx context.Context, s *RowState) error {
	var err error
	s.Final, s.AsOf = r.moment.final, min(s.AsOf, r.moment.position)
	s.Row, s.Replayed, err = r.before(ctx, s.Key, s.Row, r.moment.position)
	return err
}

// exists reports whether a row had been made.
func exists(row *projection.Row) bool { return row.Events > 0 || row.Failed != nil }

// Row returns a row of a projection as of a moment, and what is up to position
// least at the least. Errors: ErrNoProjection, *BuildingError, ErrNoRow,
// ErrNotByStream, and the error of ctx.
func (m *Machine) Row(ctx context.Context, name, key string, at Moment, least uint64) (RowState, error) {
	r, err := m.reader(ctx, name, key, at, least)
	if err != nil {
		return RowState{}, err
	}
	defer r.close()
	rows, position, err := r.read(key, key, 1)
	if err != nil {
		return RowState{}, err
	}
	if len(rows) == 0 || rows[0].Key != key {
		return RowState{AsOf: position, Generation: r.gen.ID}, ErrNoRow
	}
	s := rows[0]
	if err := r.travel(ctx, &s); err != nil {
		return RowState{}, err
	}
	if !exists(&s.Row) {
		return RowState{AsOf: position, Generation: r.gen.ID}, ErrNoRow
	}
	return s, nil
}

// RowsQuery chooses rows.
type RowsQuery struct {
	Prefix string // of their keys
	After  string // only keys behind it
	Limit  int    // at most that many
	Bytes  int    // of states; a page with that many ends, but has one row at least
	At     Moment // without Version
}

// RowsPage is a part of the rows that were asked for.
type RowsPage struct {
	Rows       []RowState
	More       bool
	AsOf       uint64
	Generation uint64
}

// Rows returns rows of a projection in the order of their keys; errors as of
// Row.
func (m *Machine) Rows(ctx context.Context, name string, q RowsQuery, least uint64) (RowsPage, error) {
	r, err := m.reader(ctx, name, "", q.At, least)
	if err != nil {
		return RowsPage{}, err
	}
	defer r.close()
	page := RowsPage{Generation: r.gen.ID}
	from, size := q.After, 0
	if from != "" {
		from += "\x00"
	}
	for {
		rows, position, err := r.read(q.Prefix, from, q.Limit+1)
		if err != nil {
			return RowsPage{}, err
		}
		page.AsOf = min(position, r.moment.position)
		for _, s := range rows {
			if err := r.travel(ctx, &s); err != nil {
				return RowsPage{}, err
			}
			if !exists(&s.Row) {
				continue // it was made after that moment
			}
			if len(page.Rows) == q.Limit || len(page.Rows) > 0 && size+len(s.Row.State) > q.Bytes {
				page.More = true
				return page, nil
			}
			size += len(s.Row.State)
			page.Rows = append(page.Rows, s)
		}
		if len(rows) <= q.Limit {
			return page, nil
		}
		if err := ctx.Err(); err != nil {
			return RowsPage{}, err
		}
		from = rows[len(rows)-1].Key + "\x00"
	}
}

// HistoryEntry is an event and the row after it.
type HistoryEntry struct {
	Position uint64
	Version  uint64
	Type     string
	Stream   string
	Time     int64
	State    []byte
}

// HistoryPage is a part of a row's history.
type HistoryPage struct {
	Entries    []HistoryEntry
	More       bool
	AsOf       uint64
	Generation uint64
}

// History returns the row after each of its events beyond a position, at most
// limit of them, with about so many bytes of states. Errors as of Row.
func (m *Machine) History(ctx context.Context, name, key string, after uint64, limit, bytes int, least uint64) (HistoryPage, error) {
	r, err := m.reader(ctx, name, key, Moment{}, least)
	if err != nil {
		return HistoryPage{}, err
	}
	defer r.close()
	rows, position, err := r.read(key, key, 1)
	if err != nil {
		return HistoryPage{}, err
	}
	if len(rows) == 0 || rows[0].Key != key {
		return HistoryPage{}, ErrNoRow
	}
	page := HistoryPage{AsOf: position, Generation: r.gen.ID}
	row, _, err := r.before(ctx, key, rows[0].Row, after)
	if err != nil {
		return HistoryPage{}, err
	}
	size := 0
	err = r.replay(ctx, key, &row, max(after, row.Last), rows[0].Row.Last, func(e *event.Event) bool {
		if len(page.Entries) == limit || len(page.Entries) > 0 && size+len(row.State) > bytes {
			page.More = true
			return false
		}
		size += len(row.State)
		page.Entries = append(page.Entries, HistoryEntry{
			Position: e.Position, Version: e.Version, Type: e.Type, Stream: e.Stream, Time: e.Time, State: slices.Clone(row.State),
		})
		return true
	})
	return page, err
}

// StreamState is the merged data of a stream's events as of a moment.
type StreamState struct {
	State    []byte // JSON
	Version  uint64 // of the stream then
	Events   uint64 // that were merged
	Position uint64 // of the last of them
	Final    bool
	AsOf     uint64
}

// StreamState merges the data of a stream's events (RFC 7396), in their newest
// schemas. Events that are not JSON objects are passed by; one that can't be
// brought to the newest schema is merged as it is stored. Errors: ErrNoRow,
// ErrTooManyEvents, ErrStateTooLarge, and the error of ctx.
func (m *Machine) StreamState(ctx context.Context, stream string, at Moment, least uint64) (StreamState, error) {
	if err := m.WaitPosition(ctx, least); err != nil {
		return StreamState{}, err
	}
	v, types := m.View(0), m.Catalog().Types()
	defer v.Close()
	head, err := v.Head(stream)
	switch {
	case err != nil:
		return StreamState{}, err
	case head.Version == 0:
		return StreamState{AsOf: v.position}, ErrNoRow
	case at == Moment{} && head.Version > maxReplay || maxReplay < at.Version && at.Version <= head.Version:
		return StreamState{}, ErrTooManyEvents
	}
	moment, err := v.resolve(at, stream)
	if err != nil {
		return StreamState{}, err
	}
	s := StreamState{Final: moment.final, AsOf: min(v.position, moment.position)}
	if err := s.merge(ctx, v, types, stream); err != nil {
		return StreamState{}, err
	}
	if s.Version == 0 {
		return StreamState{AsOf: v.position}, ErrNoRow
	}
	return s, nil
}

// merge merges a stream's events up to AsOf.
func (s *StreamState) merge(ctx context.Context, v *View, types *schema.Registry, stream string) error {
	events, err := v.Select(Selection{Filter: event.Filter{Stream: stream}, Before: s.AsOf + 1})
	if err != nil {
		return err
	}
	defer events.Close()
	var state projection.MergedState
	for events.Next() {
		e := *events.Event()
		if s.Version = e.Version; s.Version > maxReplay {
			return ErrTooManyEvents
		}
		if s.Version%lookEvery == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if types.NeedsUpcast(e.Type, e.Schema) {
			_ = types.Upcast(&e, 0) // on an error e is as it was
		}
		if e.ContentType != "" || len(e.Data) == 0 {
			continue
		}
		merged, err := state.Add(e.Data)
		switch {
		case errors.Is(err, projection.ErrStateTooLarge):
			return fmt.Errorf("position %d: %w", e.Position, ErrStateTooLarge)
		case err != nil:
			return fmt.Errorf("merge position %d: %w", e.Position, err)
		case merged:
			s.Events++
			s.Position = e.Position
		}
	}
	if err := events.Err(); err != nil {
		return err
	}
	if s.State, err = state.JSON(); err != nil {
		return ErrStateTooLarge
	}
	return nil
}
