package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"cairn/bug"
	"cairn/cluster"
	"cairn/event"
	"cairn/fsm"
	"cairn/httpapi"
	"cairn/projection"
	"cairn/projection/schema"
)

// projections is what the state machine folds, as httpapi.Projections. Changes
// of the definitions go through the log.
type projections struct {
	machine *fsm.Machine
	members *cluster.Node
}

// refusedError is why the state machine did not take up a definition: nothing
// was written.
type refusedError struct {
	reason    string
	transient bool // the same may be taken up a moment later
}

func (e *refusedError) Error() string { return e.reason }

// refusal returns why a command that was decided is not in the log; nil if it is.
func refusal(out *event.Outcome) error {
	if out.OK() {
		return nil
	}
	if reason, ok := strings.CutPrefix(out.Reason, event.TryAgain); ok {
		return &refusedError{reason: reason + "; try again", transient: true}
	}
	return &refusedError{reason: out.Reason}
}

// defineTries is how often a definition is made again because a schema was
// registered at the same time.
const defineTries = 3

func (p projections) Define(ctx context.Context, name string, body []byte) (httpapi.Defined, error) {
	var out event.Outcome
	for try := 1; ; try++ {
		// What it is compiled against are the schemas that everybody knows.
		if err := p.members.ReadIndex(ctx); err != nil {
			return httpapi.Defined{}, err
		}
		c, err := p.machine.DefineCommand(name, body)
		if err != nil {
			return httpapi.Defined{}, err
		}
		out, err = p.propose(ctx, c)
		if err == nil {
			break
		}
		var refused *refusedError
		if !errors.As(err, &refused) || !refused.transient || try == defineTries {
			return httpapi.Defined{}, err
		}
	}
	d := httpapi.Defined{Generation: out.First, Changed: out.Code == event.Accepted, State: httpapi.StateBuilding}
	if live, _ := p.machine.Catalog().Find(name); live != nil && live.ID == d.Generation {
		d.State = httpapi.StateLive
	}
	return d, nil
}

// propose returns when a command is in the log and this node has applied it. A
// *refusedError means that it is not.
func (p projections) propose(ctx context.Context, c event.Command) (event.Outcome, error) {
	out, err := p.members.ProposeSystem(ctx, c)
	if err == nil {
		err = refusal(&out)
	}
	if err != nil {
		return out, err
	}
	if err := p.machine.WaitPosition(ctx, out.Last); err != nil {
		// It is in the log, so the answer may not say that nothing was written.
		return out, &cluster.UnknownError{Cause: fmt.Errorf("wait for position %d: %w", out.Last, err)}
	}
	return out, nil
}

func (p projections) Delete(ctx context.Context, name string) error {
	c, err := event.SystemCommand(event.StreamProjections, event.TypeProjectionDeleted, event.ProjectionDeleted{Name: name})
	if err != nil {
		return err
	}
	_, err = p.propose(ctx, c)
	var refused *refusedError
	if !errors.As(err, &refused) || refused.transient || p.members.ReadIndex(ctx) != nil {
		return err
	}
	if live, next := p.machine.Catalog().Find(name); live == nil && next == nil {
		err = fsm.ErrNoProjection
	}
	return err
}

func (p projections) Statuses(context.Context) ([]httpapi.ProjectionStatus, error) {
	// One catalog for all: what is deleted meanwhile is told of still.
	catalog := p.machine.Catalog()
	var all []httpapi.ProjectionStatus
	for _, name := range catalog.Names() {
		s, err := p.statusOf(catalog, name, true)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

func (p projections) Status(_ context.Context, name string, failures bool) (httpapi.ProjectionStatus, error) {
	return p.statusOf(p.machine.Catalog(), name, failures)
}

func (p projections) statusOf(c *projection.Catalog, name string, failures bool) (httpapi.ProjectionStatus, error) {
	live, next := c.Find(name)
	if live == nil {
		live, next = next, nil
	}
	if live == nil {
		return httpapi.ProjectionStatus{}, fsm.ErrNoProjection
	}
	s, err := p.status(live, failures)
	if err == nil && next != nil {
		var beside httpapi.ProjectionStatus
		beside, err = p.status(next, failures)
		s.Next = &beside
	}
	return s, err
}

// shownFailures is how many failures a status names.
const shownFailures = 10

func (p projections) status(g *projection.Generation, failed bool) (httpapi.ProjectionStatus, error) {
	folded := p.machine.Folded(g.ID)
	s := httpapi.ProjectionStatus{
		Name: g.Name, Generation: g.ID, State: httpapi.StateBuilding, Guarding: g.Guarding(), Since: g.Live,
		Position: folded.Position, Head: folded.Head, Progress: math.Floor(folded.Progress()*10_000) / 10_000,
		Definition: jsontext.Value(g.Definition().Canonical()),
	}
	if g.Live > 0 {
		s.State = httpapi.StateLive
	}
	if g.Live > 0 && g.Guarding() { // Apply folds it
		s.Position, s.Progress = s.Head, 1
	}
	if !failed {
		return s, nil
	}
	failures, total, err := p.machine.Failures(g, shownFailures)
	if err != nil {
		return s, err
	}
	s.Rows = &httpapi.RowCounts{Failed: uint64(total)}
	for _, f := range failures {
		s.Failures = append(s.Failures, httpapi.RowFailure{Key: f.Key, Position: f.Position, Reason: f.Reason})
	}
	return s, nil
}

func rowOf(s *fsm.RowState) httpapi.Row {
	r := httpapi.Row{Key: s.Key, State: s.Row.State, Events: s.Row.Events, Position: s.Row.Last}
	if f := s.Row.Failed; f != nil {
		r.Failed = &httpapi.Failure{Position: f.Position, Reason: f.Reason}
	}
	return r
}

func (p projections) Row(ctx context.Context, name, key string, at httpapi.Moment, least uint64) (httpapi.RowState, error) {
	s, err := p.machine.Row(ctx, name, key, fsm.Moment(at), least)
	return httpapi.RowState{Row: rowOf(&s), Replayed: s.Replayed, Final: s.Final, AsOf: s.AsOf, Generation: s.Generation}, err
}

func (p projections) Rows(ctx context.Context, name string, q httpapi.RowsQuery, least uint64) (httpapi.RowsPage, error) {
	found, err := p.machine.Rows(ctx, name, fsm.RowsQuery{
		Prefix: q.Prefix, After: q.After, Limit: q.Limit, Bytes: q.Bytes, At: fsm.Moment(q.At),
	}, least)
	page := httpapi.RowsPage{More: found.More, AsOf: found.AsOf, Generation: found.Generation}
	for i := range found.Rows {
		page.Rows = append(page.Rows, rowOf(&found.Rows[i]))
	}
	return page, err
}

func (p projections) History(ctx context.Context, name, key string, q httpapi.HistoryQuery, least uint64) (httpapi.HistoryPage, error) {
	found, err := p.machine.History(ctx, name, key, q.After, q.Limit, q.Bytes, least)
	page := httpapi.HistoryPage{More: found.More, AsOf: found.AsOf, Generation: found.Generation}
	for _, e := range found.Entries {
		page.Entries = append(page.Entries, httpapi.HistoryEntry(e))
	}
	return page, err
}

func (p projections) StreamState(ctx context.Context, stream string, at httpapi.Moment, least uint64) (httpapi.StreamState, error) {
	s, err := p.machine.StreamState(ctx, stream, fsm.Moment(at), least)
	return httpapi.StreamState{
		State: s.State, Version: s.Version, Events: s.Events, Position: s.Position, Replayed: s.Events, Final: s.Final, AsOf: s.AsOf,
	}, err
}

// types are the schemas in the log, as httpapi.Types.
type types struct{ projections }

// enforceWait is how long a registration waits for its schema to be in force,
// and for one before it. Clients give an answer three seconds.
const enforceWait = time.Second

func (t types) Register(ctx context.Context, typ string, number uint32, body []byte) (httpapi.Registered, error) {
	r, err := schema.Parse(typ, number, body)
	if err != nil {
		return httpapi.Registered{}, err
	}
	if err := t.members.ReadIndex(ctx); err != nil {
		return httpapi.Registered{}, err
	}
	waited, cancel := context.WithTimeout(ctx, enforceWait)
	defer cancel()
	// What is wrong with it is told in detail here; the state machine says it in
	// one sentence.
	_, err = t.machine.Catalog().Coming().With(r)
	if errors.Is(err, schema.ErrUnchanged) {
		return httpapi.Registered{Pending: !t.settled(waited)}, nil
	}
	if err != nil {
		return httpapi.Registered{}, err
	}
	t.settled(waited) // if it is not, the state machine says so
	c, err := event.SystemCommand(event.StreamTypes, event.TypeSchemaRegistered, event.SchemaRegistered{
		Type: typ, Number: number, Engine: projection.Engine, Body: json.RawMessage(r.Canonical()),
	})
	if err != nil {
		return httpapi.Registered{}, err
	}
	out, err := t.propose(ctx, c)
	if err != nil {
		return httpapi.Registered{}, err
	}
	return httpapi.Registered{Created: out.Code == event.Accepted, Pending: !t.settled(waited)}, nil
}

// settled waits until no schema is pending, and reports whether it came to that.
func (t types) settled(ctx context.Context) bool {
	for {
		changed := t.machine.Changed()
		if pending, _, _ := t.machine.Catalog().Pending(); pending == nil {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

func (t types) Schema(typ string, number uint32) ([]byte, error) {
	if r := t.machine.Catalog().Coming().Registration(typ, number); r != nil {
		return r.Canonical(), nil
	}
	return nil, fsm.ErrNoSchema
}

func (t types) List() []httpapi.TypeSchemas { return typesOf(t.machine.Catalog()) }

func typesOf(catalog *projection.Catalog) []httpapi.TypeSchemas {
	registry := catalog.Types()
	pending, _, _ := catalog.Pending()
	var all []httpapi.TypeSchemas
	for _, typ := range catalog.Coming().Types() { // one may have nothing but a pending schema
		s := httpapi.TypeSchemas{Type: typ, Newest: registry.Newest(typ), Schemas: []uint32{}}
		for n := uint32(1); n <= s.Newest; n++ {
			s.Schemas = append(s.Schemas, n)
		}
		s.Renamed, _ = registry.Renamed(typ)
		if pending != nil && pending.Type == typ {
			s.Pending = pending.Number
		}
		all = append(all, s)
	}
	return all
}

func (t types) Upcasts() httpapi.Upcasts {
	if bug.Is(bug.OldForms) {
		return nil
	}
	if registry := t.machine.Catalog().Types(); registry.Upcasting() {
		return registry
	}
	return nil
}
