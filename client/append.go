package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"

	"cairn/event"
)

// Result says where the events of an append stand.
type Result struct {
	First, Last uint64            // positions of the first and the last event
	Version     uint64            // of the stream, if there is only one
	Versions    map[string]uint64 // of each stream, after the append
	Time        time.Time
	Duplicate   bool     // it was there already, from an earlier attempt or an earlier call with the same ids
	IDs         []string // of the events; nil if an idempotency key made them
}

// resultForm is a Result on the wire; Status stands there in NDJSON answers.
type resultForm struct {
	Status        int               `json:"status"`
	FirstPosition uint64            `json:"first_position"`
	LastPosition  uint64            `json:"last_position"`
	Version       uint64            `json:"version"`
	Versions      map[string]uint64 `json:"versions"`
	Time          string            `json:"time"`
	Duplicate     bool              `json:"duplicate"`
}

func (f *resultForm) result() (Result, error) {
	t, err := time.Parse(time.RFC3339Nano, f.Time)
	if err != nil {
		return Result{}, fmt.Errorf("time of an append: %w", err)
	}
	return Result{First: f.FirstPosition, Last: f.LastPosition, Version: f.Version, Versions: f.Versions,
		Time: t, Duplicate: f.Duplicate}, nil
}

// AppendOption is a precondition of Append, or the key it is known by.
type AppendOption func(*appendOptions)

type appendOptions struct {
	header map[string]string
	key    bool
	err    error
}

func (o *appendOptions) precondition(name, value string) {
	if o.header["If-Match"] != "" || o.header["If-None-Match"] != "" {
		o.err = errors.New("an append to a stream can have one precondition; use AppendMany for several")
	}
	o.header[name] = value
}

// ExpectVersion asks that the stream is exactly at version n; 0 = it does not
// exist.
func ExpectVersion(n uint64) AppendOption {
	if n == 0 {
		return Missing()
	}
	return func(o *appendOptions) { o.precondition("If-Match", `"`+strconv.FormatUint(n, 10)+`"`) }
}

// Exists asks that the stream exists.
func Exists() AppendOption { return func(o *appendOptions) { o.precondition("If-Match", "*") } }

// Missing asks that the stream does not exist.
func Missing() AppendOption { return func(o *appendOptions) { o.precondition("If-None-Match", "*") } }

// IdempotencyKey gives events without an id the ids key/0, key/1, …, so that
// the append can be repeated also by a program that was restarted.
func IdempotencyKey(key string) AppendOption {
	return func(o *appendOptions) { o.header["Idempotency-Key"], o.key = key, true }
}

// Append adds events to one stream, all or none. Events without an id get one;
// events is not changed.
func (c *Client) Append(ctx context.Context, stream string, events []event.Event, options ...AppendOption) (Result, error) {
	o := appendOptions{header: map[string]string{"Content-Type": typeJSON}}
	for _, option := range options {
		option(&o)
	}
	if o.err != nil {
		return Result{}, o.err
	}
	var ids []string
	if !o.key {
		events, ids = withIDs(events)
	}
	var w encoder
	w.events(events, false)
	return c.append(ctx, "/v1/streams/"+url.PathEscape(stream)+"/events", &w, o.header, ids)
}

// AppendMany adds the events of a, of one or several streams, all or none, if
// its conditions hold. Events without an id get one; a is not changed.
func (c *Client) AppendMany(ctx context.Context, a event.Append) (Result, error) {
	var ids []string
	a.Events, ids = withIDs(a.Events)
	var w encoder
	w.request(&a)
	return c.append(ctx, "/v1/append", &w, map[string]string{"Content-Type": typeJSON}, ids)
}

func (c *Client) append(ctx context.Context, target string, w *encoder, header map[string]string, ids []string) (Result, error) {
	if w.err != nil {
		return Result{}, fmt.Errorf("encode append: %w", w.err)
	}
	a, err := c.do(ctx, &call{method: http.MethodPost, target: target, header: header, body: w.b, leader: true, write: true})
	var fate *fateError
	if errors.As(err, &fate) {
		return Result{}, &UnknownError{IDs: ids, Err: fate.error}
	}
	if err != nil {
		return Result{}, err
	}
	var form resultForm
	if err := json.Unmarshal(a.body, &form); err != nil {
		return Result{}, &UnknownError{IDs: ids, Err: fmt.Errorf("answer of %s: %w", a.node, err)}
	}
	r, err := form.result()
	if err != nil {
		return Result{}, &UnknownError{IDs: ids, Err: fmt.Errorf("answer of %s: %w", a.node, err)}
	}
	r.IDs = ids
	return r, nil
}

// withIDs returns events with an id each, and those ids. The slice is a copy
// if anything had to be filled in.
func withIDs(events []event.Event) ([]event.Event, []string) {
	ids := make([]string, len(events))
	copied := false
	for i := range events {
		if events[i].ID == "" {
			if !copied {
				events, copied = slices.Clone(events), true
			}
			events[i].ID = event.NewID()
		}
		ids[i] = events[i].ID
	}
	return events, ids
}
