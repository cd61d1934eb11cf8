package fsm

import (
	"context"
	"fmt"
	"math"
	"slices"

	"cairn/bug"
	"cairn/event"
	"cairn/projection"
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

// reader opens a reader of the generation in force, once all that is up to
// position least is folded into it. The view must be closed.
func (m *Machine) reader(ctx context.Context, name string, least uint64) (*rowReader, error) {
	catalog := m.Catalog()
	g, next := catalog.Find(name)
	if g == nil && next == nil {
		return nil, ErrNoProjection
	}
	if g == nil {
		return nil, &BuildingError{m.Folded(next.ID).Progress()}
	}
	if err := m.waitFolded(ctx, g, least); err != nil {
		return nil, err
	}
	return &rowReader{view: m.View(0), gen: g, catalog: catalog, keys: keysOf(g)}, nil
}

// waitFolded returns nil once a generation is folded up to a position on this
// node.
func (m *Machine) waitFolded(ctx context.Context, g *projection.Generation, position uint64) error {
	if g.Guarding() {
		return m.WaitPosition(ctx, position)
	}
	for {
		reached, changed := m.folds.reached(g.ID)
		if reached >= position || bug.Is(bug.StaleRows) {
			return nil
		}
		if err := m.stopped(); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
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

// travel takes a row back to a moment.
func (r *rowReader) travel(s *RowState, at asOf) error {
	var err error
	s.Final, s.AsOf = at.final, min(s.AsOf, at.position)
	s.Row, s.Replayed, err = r.before(s.Key, s.Row, at.position)
	return err
}

// exists reports whether a row had been made.
func exists(row *projection.Row) bool { return row.Events > 0 || row.Failed != nil }

// Row returns a row of a projection as of a moment, and what is up to position
// least at the least. Errors: ErrNoProjection, *BuildingError, ErrNoRow,
// ErrNotByStream, and the error of ctx.
func (m *Machine) Row(ctx context.Context, name, key string, at Moment, least uint64) (RowState, error) {
	r, err := m.reader(ctx, name, least)
	if err != nil {
		return RowState{}, err
	}
	defer r.view.Close()
	stream := ""
	if r.gen.ByStream() {
		stream = key
	}
	moment, err := r.view.resolve(at, stream)
	if err != nil {
		return RowState{}, err
	}
	rows, position, err := r.read(key, key, 1)
	if err != nil {
		return RowState{}, err
	}
	if len(rows) == 0 || rows[0].Key != key {
		return RowState{AsOf: position, Generation: r.gen.ID}, ErrNoRow
	}
	s := rows[0]
	if err := r.travel(&s, moment); err != nil {
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
	r, err := m.reader(ctx, name, least)
	if err != nil {
		return RowsPage{}, err
	}
	defer r.view.Close()
	moment, err := r.view.resolve(q.At, "")
	if err != nil {
		return RowsPage{}, err
	}
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
		page.AsOf = min(position, moment.position)
		for _, s := range rows {
			if err := r.travel(&s, moment); err != nil {
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
	r, err := m.reader(ctx, name, least)
	if err != nil {
		return HistoryPage{}, err
	}
	defer r.view.Close()
	rows, position, err := r.read(key, key, 1)
	if err != nil {
		return HistoryPage{}, err
	}
	if len(rows) == 0 || rows[0].Key != key {
		return HistoryPage{}, ErrNoRow
	}
	page := HistoryPage{AsOf: position, Generation: r.gen.ID}
	row, _, err := r.before(key, rows[0].Row, after)
	if err != nil {
		return HistoryPage{}, err
	}
	size := 0
	err = r.replay(key, &row, max(after, row.Last), rows[0].Row.Last, func(e *event.Event) bool {
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
// schemas. Events that are not JSON objects are passed by. Errors: ErrNoRow,
// ErrTooManyEvents, ErrUpcast.
func (m *Machine) StreamState(ctx context.Context, stream string, at Moment, least uint64) (StreamState, error) {
	if err := m.WaitPosition(ctx, least); err != nil {
		return StreamState{}, err
	}
	v, types := m.View(0), m.Catalog().Types()
	defer v.Close()
	moment, err := v.resolve(at, stream)
	if err != nil {
		return StreamState{}, err
	}
	s := StreamState{State: []byte("{}"), Final: moment.final, AsOf: min(v.position, moment.position)}
	before := uint64(math.MaxUint64)
	if moment.position < math.MaxUint64 {
		before = moment.position + 1
	}
	events, err := v.Select(Selection{Filter: event.Filter{Stream: stream}, Before: before})
	if err != nil {
		return StreamState{}, err
	}
	defer events.Close()
	for events.Next() {
		e := *events.Event()
		if s.Version = e.Version; s.Version > maxReplay {
			return StreamState{}, ErrTooManyEvents
		}
		if types.NeedsUpcast(e.Type, e.Schema) {
			if err := types.Upcast(&e, 0); err != nil {
				return StreamState{}, fmt.Errorf("position %d: %w: %w", e.Position, ErrUpcast, err)
			}
		}
		if e.ContentType != "" || len(e.Data) == 0 || e.Data[0] != '{' {
			continue
		}
		if s.State, err = projection.MergeState(s.State, e.Data); err != nil {
			return StreamState{}, fmt.Errorf("merge position %d: %w", e.Position, err)
		}
		s.Events++
		s.Position = e.Position
	}
	if err := events.Err(); err != nil {
		return StreamState{}, err
	}
	if s.Version == 0 {
		return StreamState{AsOf: v.position}, ErrNoRow
	}
	return s, nil
}
