package httpapi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"cairn/event"
)

var (
	errFakeDefinition = errors.New("fake: undeclared reference to 'sum'")
	errFakeProjection = fmt.Errorf("%w, which is a projection", errFakeNotFound)
	errFakeRow        = fmt.Errorf("%w, which is a row", errFakeNotFound)
	errFakeBuilding   = errors.New("fake: 43 % are built")
	errFakeVersion    = errors.New("fake: the key is not the stream")
)

// fakeProjections are the projections of a fakeStore: each counts the events of
// every stream. What is asked of it is kept for the tests.
type fakeProjections struct {
	*fakeStore
	defined map[string]Defined // owned by the store's mu, as are the others
	bodies  map[string]string
	fault   error // of every call
	slow    bool  // nothing is folded in time
	rows    RowsQuery
	history HistoryQuery
	at      Moment
	least   uint64
}

func newFakeProjections(f *fakeStore) *fakeProjections {
	return &fakeProjections{fakeStore: f, defined: map[string]Defined{}, bodies: map[string]string{}}
}

func (p *fakeProjections) Define(_ context.Context, name string, body []byte) (Defined, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fault != nil {
		return Defined{}, p.fault
	}
	if strings.Contains(string(body), "sum") {
		return Defined{}, errFakeDefinition
	}
	if p.bodies[name] == string(body) {
		d := p.defined[name]
		d.Changed = false
		return d, nil
	}
	at := p.addLocked(event.Event{Stream: event.StreamProjections, Type: event.TypeProjectionDefined, Data: []byte(`{}`)})
	p.bodies[name], p.defined[name] = string(body), Defined{Generation: at, Changed: true, State: StateBuilding}
	return p.defined[name], nil
}

func (p *fakeProjections) Delete(_ context.Context, name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.missingLocked(name); err != nil {
		return err
	}
	delete(p.defined, name)
	delete(p.bodies, name)
	return nil
}

func (p *fakeProjections) missingLocked(name string) error {
	if p.fault != nil {
		return p.fault
	}
	if _, ok := p.defined[name]; !ok {
		return errFakeProjection
	}
	return nil
}

func (p *fakeProjections) Statuses(context.Context) ([]ProjectionStatus, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []ProjectionStatus
	for name, d := range p.defined {
		status := ProjectionStatus{
			Name: name, Generation: d.Generation, State: StateLive, Guarding: true, Since: d.Generation + 1, Position: 7, Head: 9,
			Progress: 0.78, Rows: &RowCounts{Failed: 1}, Failures: []RowFailure{{Key: "a", Position: 3, Reason: "no <such> overload"}},
			Definition: []byte(p.bodies[name]),
		}
		next := status
		next.State, next.Since = StateBuilding, 0
		status.Next = &next
		list = append(list, status)
	}
	slices.SortFunc(list, func(a, b ProjectionStatus) int { return cmp.Compare(a.Name, b.Name) })
	return list, p.fault
}

func (p *fakeProjections) Status(ctx context.Context, name string, failures bool) (ProjectionStatus, error) {
	list, err := p.Statuses(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		err = p.missingLocked(name)
	}
	i := slices.IndexFunc(list, func(s ProjectionStatus) bool { return s.Name == name })
	if err != nil {
		return ProjectionStatus{}, err
	}
	if !failures {
		list[i].Rows, list[i].Failures = nil, nil
		list[i].Next.Rows, list[i].Next.Failures = nil, nil
	}
	return list[i], nil
}

// ask begins a reading.
func (p *fakeProjections) ask(ctx context.Context, name string, at Moment, least uint64) error {
	p.mu.Lock()
	p.at, p.least = at, least
	slow := p.slow
	err := p.missingLocked(name)
	p.mu.Unlock()
	if slow {
		<-ctx.Done()
		return ctx.Err()
	}
	return err
}

// counted is the row of a stream after each of its events, as of a moment.
func (p *fakeProjections) counted(stream string, at Moment) []HistoryEntry {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []HistoryEntry
	for _, e := range p.events {
		switch {
		case e.Stream != stream, at.Version > 0 && e.Version > at.Version, at.Position > 0 && e.Position > at.Position, at.Time > 0 && e.Time > at.Time:
			continue
		}
		list = append(list, HistoryEntry{
			Position: e.Position, Version: e.Version, Type: e.Type, Stream: e.Stream, Time: e.Time, State: fmt.Appendf(nil, `{"n":%d}`, len(list)+1),
		})
	}
	return list
}

func rowOf(key string, history []HistoryEntry) Row {
	last := history[len(history)-1]
	row := Row{Key: key, State: last.State, Events: uint64(len(history)), Position: last.Position}
	if key == "failed" {
		row.Failed = &Failure{Position: last.Position, Reason: `no "sum"`}
	}
	return row
}

func (p *fakeProjections) Row(ctx context.Context, name, key string, at Moment, least uint64) (RowState, error) {
	if err := p.ask(ctx, name, at, least); err != nil {
		return RowState{}, err
	}
	if at.Version > 100 {
		return RowState{}, errFakeVersion
	}
	history := p.counted(key, at)
	if len(history) == 0 {
		return RowState{}, errFakeRow
	}
	return RowState{Row: rowOf(key, history), Replayed: 2, Final: at.Time == 0, AsOf: least, Generation: 5}, nil
}

func (p *fakeProjections) Rows(ctx context.Context, name string, q RowsQuery, least uint64) (RowsPage, error) {
	if err := p.ask(ctx, name, q.At, least); err != nil {
		return RowsPage{}, err
	}
	p.set(func() { p.rows = q })
	v := p.View(least)
	defer v.Close()
	streams, err := v.Streams(q.Prefix, q.After, q.Limit+1)
	page := RowsPage{More: len(streams) > q.Limit, AsOf: least, Generation: 5}
	for _, s := range streams[:min(q.Limit, len(streams))] {
		page.Rows = append(page.Rows, rowOf(s.Stream, p.counted(s.Stream, q.At)))
	}
	return page, err
}

func (p *fakeProjections) History(ctx context.Context, name, key string, q HistoryQuery, least uint64) (HistoryPage, error) {
	if err := p.ask(ctx, name, Moment{}, least); err != nil {
		return HistoryPage{}, err
	}
	p.set(func() { p.history = q })
	list := slices.DeleteFunc(p.counted(key, Moment{}), func(e HistoryEntry) bool { return e.Position <= q.After })
	return HistoryPage{Entries: list[:min(q.Limit, len(list))], More: len(list) > q.Limit, AsOf: least, Generation: 5}, nil
}

func (p *fakeProjections) StreamState(ctx context.Context, stream string, at Moment, least uint64) (StreamState, error) {
	p.set(func() { p.at, p.least = at, least })
	history := p.counted(stream, at)
	if len(history) == 0 {
		return StreamState{}, errFakeNotFound
	}
	last := history[len(history)-1]
	return StreamState{
		State: last.State, Version: last.Version, Events: uint64(len(history)), Position: last.Position, Replayed: 1,
		Final: at.Time < time.Now().UnixNano(), AsOf: least,
	}, ctx.Err()
}
