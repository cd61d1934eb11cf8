package client

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"cairn/event"
)

// model reads the events a decision depends on. Its caller's goroutine owns it.
type model struct {
	c        *Client
	streams  []event.StreamVersion // with the versions read so far
	query    event.Query
	position uint64 // everything chosen up to here has been read
	log      string // "" = nothing read yet
}

// read calls fold with each chosen event that was not read before, in the order
// of their positions. All is read as of one moment, that of the first answer,
// so that what is folded next time stands behind what was folded this time.
// What comes from several places is held in memory until it can be put in order.
func (m *model) read(ctx context.Context, fold func(*event.Event) error) error {
	r := &modelRead{model: m, fold: fold, hold: len(m.streams) > 1 || len(m.streams) == 1 && len(m.query.Items) > 0}
	for i := range m.streams {
		if err := r.stream(ctx, &m.streams[i]); err != nil {
			return err
		}
	}
	if len(m.query.Items) > 0 {
		page, err := m.c.Query(ctx, m.query, ReadOptions{After: m.position, AtPosition: r.at, Limit: pageSize})
		if err := r.pages(ctx, page, err); err != nil {
			return err
		}
	}
	m.position = r.at
	slices.SortFunc(r.held, func(a, b event.Event) int { return cmp.Compare(a.Position, b.Position) })
	held := slices.CompactFunc(r.held, func(a, b event.Event) bool { return a.Position == b.Position })
	return each(held, fold)
}

// conditions say that nothing of what was read has changed since.
func (m *model) conditions() []event.Condition {
	var list []event.Condition
	for _, s := range m.streams {
		c := event.Condition{Kind: event.StreamAtVersion, Stream: s.Stream, Version: s.Version}
		if s.Version == 0 {
			c = event.Condition{Kind: event.StreamMissing, Stream: s.Stream}
		}
		list = append(list, c)
	}
	if len(m.query.Items) > 0 {
		list = append(list, event.Condition{Kind: event.NoMatch, Query: m.query, After: m.position})
	}
	return list
}

// modelRead is one reading of a model.
type modelRead struct {
	model *model
	fold  func(*event.Event) error
	at    uint64 // what all is read as of; 0 until the first answer says
	hold  bool   // events come from several places
	held  []event.Event
}

// stream reads what is new in a stream and notes its version.
func (r *modelRead) stream(ctx context.Context, s *event.StreamVersion) error {
	page, err := r.model.c.ReadStream(ctx, s.Stream, ReadOptions{From: s.Version + 1, AtPosition: r.at, Limit: pageSize})
	var p *Problem
	if errors.As(err, &p) && p.Code == CodeNotFound && p.Position > 0 && s.Version == 0 {
		r.at = p.Position
		return nil // as of then it does not exist
	}
	if err := r.pages(ctx, page, err); err != nil {
		return err
	}
	s.Version = page.Version
	return nil
}

// pages takes a first page, or the error there was instead, and those behind it.
func (r *modelRead) pages(ctx context.Context, p Page, err error) error {
	for {
		if err != nil {
			return err
		}
		if r.model.log == "" {
			r.model.log = p.Log
		} else if p.Log != r.model.log {
			return logChanged(p.node, p.Log, r.model.log)
		}
		r.at = p.Position
		if r.hold {
			r.held = append(r.held, p.Events...)
		} else if err := each(p.Events, r.fold); err != nil {
			return err
		}
		if p.Next == "" {
			return nil
		}
		p, err = r.model.c.NextPage(ctx, p)
	}
}

func each(events []event.Event, fold func(*event.Event) error) error {
	for i := range events {
		if err := fold(&events[i]); err != nil {
			return err
		}
	}
	return nil
}
