package httpapi

import (
	"errors"

	"cairn/event"
)

// query is POST /v1/query.
func (s *Server) query(x *exchange) error {
	p := x.params(with("after", "before", "limit", "order", "at_position", "raw")...)
	q := p.reading()
	if p.err != nil {
		return p.err
	}
	if _, err := x.mediaType(mediaJSON[0]); err != nil {
		return err
	}
	body, err := x.readBody(maxBody)
	if err != nil {
		return err
	}
	defer body.release()
	asked, err := decodeQuestion(body.b)
	if err != nil {
		return err
	}
	// The URL wins: that of a next page goes on where the body began.
	after := position{n: asked.after}
	if p.has("after") {
		after = p.position("after", 0)
	}
	as := x.accepted(asPage, asLines, asBatch)
	l := &listing{x: x, params: p}
	l.span = span{filter: event.Filter{Query: asked.query}, after: after.n, window: defaultWindow}
	l.bounds(p, as)
	if asked.limit > 0 && !p.has("limit") {
		if as != asLines && asked.limit > maxLimit {
			return problemf(InvalidRequest, "limit: must be a whole number from 1 to %d", maxLimit)
		}
		l.limit = int(min(asked.limit, 1<<62))
	}
	if p.err != nil {
		return p.err
	}
	at, err := s.settle(x.r.Context(), q, after)
	if err != nil {
		return err
	}
	l.form = s.form(q.raw)
	return s.list(l, at, as)
}

// question is the body of POST /v1/query.
type question struct {
	query        event.Query
	after, limit uint64
}

func decodeQuestion(body []byte) (question, error) {
	var q question
	given := false
	err := event.DecodeObject(body, func(name string, d *event.Decoder) (err error) {
		switch name {
		case "query":
			given = true
			q.query, err = decodeQuery(d)
			return err
		case "after":
			return d.Uint64(&q.after)
		case "limit":
			if err := d.Uint64(&q.limit); err != nil {
				return err
			}
			if q.limit == 0 {
				return errors.New("must be a whole number, 1 or more")
			}
			return nil
		}
		return event.ErrUnknownMember
	})
	if err == nil && !given {
		err = &event.InvalidError{Field: "query", Reason: "is missing"}
	}
	if err == nil {
		err = q.query.Check()
	}
	if err != nil {
		return q, requestError(err)
	}
	if len(q.query.Items) == 0 { // matches all but the store's own, as in a condition
		q.query.Items = []event.QueryItem{{}}
	}
	return q, nil
}

// filter takes the parameters that choose events.
func (p *params) filter() event.Filter {
	f := event.Filter{
		Category: p.name("category"), StreamPrefix: p.name("stream_prefix"),
		CorrelationID: p.id("correlation_id"), CausationID: p.id("causation_id"),
		FromTime: p.moment("from_time"), ToTime: p.moment("to_time"),
	}
	if item := (event.QueryItem{Types: p.values["type"], Tags: p.values["tag"]}); len(item.Types)+len(item.Tags) > 0 {
		f.Query.Items = []event.QueryItem{item}
		for _, of := range [...]struct {
			name string
			item event.QueryItem
		}{{"type", event.QueryItem{Types: item.Types}}, {"tag", event.QueryItem{Tags: item.Tags}}} {
			if err := (event.Query{Items: []event.QueryItem{of.item}}).Check(); err != nil {
				p.err = firstOf(p.err, renamed(of.name, err))
			}
		}
	}
	return f
}

// id returns an id to look for.
func (p *params) id(name string) string {
	v := p.text(name)
	if len(v) > event.MaxID {
		p.err = firstOf(p.err, problemf(TooLarge, "%s: %d is over the limit of %d bytes", name, len(v), event.MaxID))
	}
	return v
}

// filterParams are the parameters of the whole log's events.
var filterParams = []string{"type", "tag", "category", "stream_prefix", "from_time", "to_time", "correlation_id", "causation_id"}
