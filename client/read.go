package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"cairn/event"
)

// ReadOptions say how to read. The zero value reads from the beginning on,
// linearizably.
type ReadOptions struct {
	From        uint64 // first version, when one stream is read; 0 = the first there is in that order
	After       uint64 // the position after which to begin, when all streams are read
	Limit       int    // events of a page; of an iteration: at most that many in all. 0 = server's page, or all
	Descending  bool
	Local       bool   // what the asked node has, without asking the others whether that is all
	MinPosition uint64 // wait until the node has at least this position
	AtPosition  uint64 // read as of this position, one that a read named; 0 = as of now
	Raw         bool   // events as they are stored, not brought to the newest schema of their type
}

// parameters returns o as the parameters of a request. They ask the node to
// give up before the attempt does, so that it can say why.
func (c *Client) parameters(o *ReadOptions) url.Values {
	to := url.Values{"timeout": {min(c.cfg.AttemptTimeout*4/5, maxReadTimeout).String()}}
	number := func(name string, n uint64) {
		if n != 0 {
			to.Set(name, strconv.FormatUint(n, 10))
		}
	}
	number("from", o.From)
	number("after", o.After)
	number("limit", uint64(max(o.Limit, 0)))
	number("min_position", o.MinPosition)
	number("at_position", o.AtPosition)
	if o.Descending {
		to.Set("order", "desc")
	}
	if o.Local {
		to.Set("consistency", "local")
	}
	if o.Raw {
		to.Set("raw", "true")
	}
	return to
}

// maxReadTimeout is the longest that a server waits.
const maxReadTimeout = time.Minute

// pageSize is how many events an iteration asks for at a time.
const pageSize = 1000

// Page is a part of the events that were asked for.
type Page struct {
	Events   []event.Event
	Version  uint64 // of the stream, if one was read
	Next     string // where the next page is, which NextPage reads; "" = this is the last
	Head     uint64 // on the last page: the position to use as After in a query condition
	Position uint64 // what the page is as of
	Log      string // id of the log

	request *call  // that was answered with this page
	node    string // address of the node that answered
}

// ReadStream returns a page of a stream's events. A stream that does not exist
// is an error for which IsNotFound holds.
func (c *Client) ReadStream(ctx context.Context, stream string, o ReadOptions) (Page, error) {
	return c.page(ctx, &call{method: http.MethodGet, target: c.streamTarget(stream, &o)})
}

// Events returns a page of the events of all streams that filter chooses.
func (c *Client) Events(ctx context.Context, filter event.Filter, o ReadOptions) (Page, error) {
	target, err := c.eventsTarget(&filter, &o)
	if err != nil {
		return Page{}, err
	}
	return c.page(ctx, &call{method: http.MethodGet, target: target})
}

// Query returns a page of the events that a query of any number of items
// matches.
func (c *Client) Query(ctx context.Context, q event.Query, o ReadOptions) (Page, error) {
	r, err := c.queryCall(q, &o)
	if err != nil {
		return Page{}, err
	}
	return c.page(ctx, r)
}

// NextPage returns the page behind p.
func (c *Client) NextPage(ctx context.Context, p Page) (Page, error) {
	if p.Next == "" || p.request == nil {
		return Page{}, errors.New("there is no next page")
	}
	return c.page(ctx, p.request.at(p.Next))
}

// at returns the same request for another page.
func (r *call) at(next string) *call {
	another := *r
	another.target = next
	return &another
}

// AllOfStream iterates over a stream's events, page by page, as of its
// beginning.
func (c *Client) AllOfStream(ctx context.Context, stream string, o ReadOptions) iter.Seq2[event.Event, error] {
	return c.iterate(ctx, o, func(o *ReadOptions) (*call, error) {
		return &call{method: http.MethodGet, target: c.streamTarget(stream, o)}, nil
	})
}

// AllEvents iterates over the events that filter chooses, page by page, as of
// its beginning.
func (c *Client) AllEvents(ctx context.Context, filter event.Filter, o ReadOptions) iter.Seq2[event.Event, error] {
	return c.iterate(ctx, o, func(o *ReadOptions) (*call, error) {
		target, err := c.eventsTarget(&filter, o)
		return &call{method: http.MethodGet, target: target}, err
	})
}

// AllOfQuery iterates over the events that a query matches, page by page, as of
// its beginning.
func (c *Client) AllOfQuery(ctx context.Context, q event.Query, o ReadOptions) iter.Seq2[event.Event, error] {
	return c.iterate(ctx, o, func(o *ReadOptions) (*call, error) { return c.queryCall(q, o) })
}

func (c *Client) streamTarget(stream string, o *ReadOptions) string {
	return withQuery("/v1/streams/"+url.PathEscape(stream)+"/events", c.parameters(o))
}

func (c *Client) eventsTarget(filter *event.Filter, o *ReadOptions) (string, error) {
	v := c.parameters(o)
	if err := filterParameters(filter, v); err != nil {
		return "", err
	}
	if filter.Stream != "" {
		return "", errors.New("a filter of all streams can't name a stream; read the stream")
	}
	return withQuery("/v1/events", v), nil
}

func withQuery(path string, v url.Values) string {
	if len(v) == 0 {
		return path
	}
	return path + "?" + v.Encode()
}

func (c *Client) queryCall(q event.Query, o *ReadOptions) (*call, error) {
	var w encoder
	w.raw(`{"query":`)
	w.query(q)
	w.raw(`,"after":`)
	w.number(o.After)
	if o.Limit > 0 {
		w.raw(`,"limit":`)
		w.number(uint64(o.Limit))
	}
	w.raw("}")
	if w.err != nil {
		return nil, fmt.Errorf("encode query: %w", w.err)
	}
	v := c.parameters(&ReadOptions{Descending: o.Descending, Local: o.Local, MinPosition: o.MinPosition, AtPosition: o.AtPosition, Raw: o.Raw})
	return &call{method: http.MethodPost, target: withQuery("/v1/query", v), body: w.b,
		header: map[string]string{"Content-Type": typeJSON}}, nil
}

func (c *Client) page(ctx context.Context, r *call) (Page, error) {
	a, err := c.do(ctx, r)
	if err != nil {
		return Page{}, err
	}
	var form struct {
		Events  []jsontext.Value `json:"events"`
		Version uint64           `json:"version"`
		Next    string           `json:"next"`
		Head    uint64           `json:"head"`
	}
	if err := json.Unmarshal(a.body, &form); err != nil {
		return Page{}, fmt.Errorf("answer of %s: %w", a.node, err)
	}
	p := Page{Events: make([]event.Event, len(form.Events)), Version: form.Version, Next: form.Next, Head: form.Head,
		Position: a.position(), Log: a.header.Get(headerLog), request: r, node: a.node}
	for i, raw := range form.Events {
		if p.Events[i], err = event.DecodeEvent(raw); err != nil {
			return Page{}, fmt.Errorf("answer of %s, event %d: %w", a.node, i, err)
		}
	}
	return p, nil
}

// iterate yields the events of the first page and those that follow it.
func (c *Client) iterate(ctx context.Context, o ReadOptions, first func(*ReadOptions) (*call, error)) iter.Seq2[event.Event, error] {
	return func(yield func(event.Event, error) bool) {
		left := o.Limit
		if o.Limit <= 0 || o.Limit > pageSize {
			o.Limit = pageSize
		}
		r, err := first(&o)
		for err == nil {
			var p Page
			if p, err = c.page(ctx, r); err != nil {
				break
			}
			for i := range p.Events {
				if !yield(p.Events[i], nil) {
					return
				}
				if left--; left == 0 {
					return
				}
			}
			if p.Next == "" {
				return
			}
			r = r.at(p.Next)
		}
		yield(event.Event{}, err)
	}
}

// Event returns the event at a position.
func (c *Client) Event(ctx context.Context, position uint64) (event.Event, error) {
	return c.oneEvent(ctx, "/v1/events/"+strconv.FormatUint(position, 10))
}

// EventAt returns a stream's event of a version.
func (c *Client) EventAt(ctx context.Context, stream string, version uint64) (event.Event, error) {
	return c.oneEvent(ctx, "/v1/streams/"+url.PathEscape(stream)+"/events/"+strconv.FormatUint(version, 10))
}

func (c *Client) oneEvent(ctx context.Context, target string) (event.Event, error) {
	a, err := c.do(ctx, &call{method: http.MethodGet, target: withQuery(target, c.parameters(&ReadOptions{}))})
	if err != nil {
		return event.Event{}, err
	}
	e, err := event.DecodeEvent(a.body)
	if err != nil {
		return event.Event{}, fmt.Errorf("answer of %s: %w", a.node, err)
	}
	return e, nil
}

// Head returns a stream's version; 0 = it does not exist.
func (c *Client) Head(ctx context.Context, stream string) (uint64, error) {
	a, err := c.do(ctx, &call{method: http.MethodHead, target: withQuery("/v1/streams/"+url.PathEscape(stream), c.parameters(&ReadOptions{}))})
	var p *Problem
	if errors.As(err, &p) && p.Status == http.StatusNotFound {
		return 0, nil // a HEAD has no body, so that there is no code to look at
	}
	if err != nil {
		return 0, err
	}
	version, err := strconv.ParseUint(strings.Trim(a.header.Get("ETag"), `"`), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("answer of %s: the ETag %q is not a version", a.node, a.header.Get("ETag"))
	}
	return version, nil
}

// Position returns the position of the newest event there is, and the id of
// the log it is in.
func (c *Client) Position(ctx context.Context) (position uint64, log string, err error) {
	p, err := c.Events(ctx, event.Filter{}, ReadOptions{Limit: 1, Descending: true})
	return p.Position, p.Log, err
}

// Streams iterates over the streams whose names begin with prefix, in order of
// their names, those after the name after.
func (c *Client) Streams(ctx context.Context, prefix, after string, o ReadOptions) iter.Seq2[event.StreamVersion, error] {
	return func(yield func(event.StreamVersion, error) bool) {
		left := o.Limit
		if o.Limit <= 0 || o.Limit > pageSize {
			o.Limit = pageSize
		}
		o.Raw = false // names have one form
		v := c.parameters(&o)
		if prefix != "" {
			v.Set("prefix", prefix)
		}
		if after != "" {
			v.Set("after", after)
		}
		for target := withQuery("/v1/streams", v); target != ""; {
			a, err := c.do(ctx, &call{method: http.MethodGet, target: target})
			var form struct {
				Streams []struct {
					Stream  string `json:"stream"`
					Version uint64 `json:"version"`
				} `json:"streams"`
				Next string `json:"next"`
			}
			if err == nil {
				if err = json.Unmarshal(a.body, &form); err != nil {
					err = fmt.Errorf("answer of %s: %w", a.node, err)
				}
			}
			if err != nil {
				yield(event.StreamVersion{}, err)
				return
			}
			for _, s := range form.Streams {
				if !yield(event.StreamVersion{Stream: s.Stream, Version: s.Version}, nil) {
					return
				}
				if left--; left == 0 {
					return
				}
			}
			target = form.Next
		}
	}
}
