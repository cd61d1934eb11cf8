package client

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"cairn/event"
)

// StateOptions say as of when to read a state, and how. The zero value reads
// what is now, linearizably. At most one of the first three is given.
type StateOptions struct {
	AtVersion  uint64    // of the stream; of a row only where the key is the stream
	AtPosition uint64    // as of this position
	AtTime     time.Time // as of this time, with all events up to it

	Local       bool   // by what the asked node has, without asking the others whether that is all
	MinPosition uint64 // wait until the node has at least this position
}

func (c *Client) stateParameters(o *StateOptions) url.Values {
	v := c.parameters(&ReadOptions{Local: o.Local, MinPosition: o.MinPosition, AtPosition: o.AtPosition})
	if o.AtVersion != 0 {
		v.Set("at_version", strconv.FormatUint(o.AtVersion, 10))
	}
	if !o.AtTime.IsZero() {
		v.Set("at_time", event.FormatTime(o.AtTime.UnixNano()))
	}
	return v
}

// Row is a row of a projection.
type Row struct {
	Key        string
	State      []byte      // JSON
	Events     uint64      // that are folded into it
	Position   uint64      // of the last of them
	Failed     *RowFailure // nil = it goes on
	AsOf       uint64      // the position that it is as of
	Generation uint64      // of the projection

	// Of a row that was read alone.
	Replayed uint64 // events that were folded for this answer
	Final    bool   // no later event can belong to the moment that was asked for
}

// RowFailure says why a row stopped.
type RowFailure struct {
	Position uint64 `json:"position"` // of the event that could not be folded
	Reason   string `json:"reason"`
}

// rowForm is a row as it is sent.
type rowForm struct {
	Key        string         `json:"key"`
	State      jsontext.Value `json:"state"`
	Events     uint64         `json:"events"`
	Position   uint64         `json:"position"`
	Failed     *RowFailure    `json:"failed"`
	Replayed   uint64         `json:"replayed"`
	Final      bool           `json:"final"`
	AsOf       uint64         `json:"as_of"`
	Generation uint64         `json:"generation"`
}

func (f *rowForm) row() Row {
	return Row{Key: f.Key, State: f.State, Events: f.Events, Position: f.Position, Failed: f.Failed,
		AsOf: f.AsOf, Generation: f.Generation, Replayed: f.Replayed, Final: f.Final}
}

// Row returns a row of a projection, as it is or as it was. For a row that does
// not exist then IsNotFound holds, for one of a projection that was never live
// IsBuilding.
func (c *Client) Row(ctx context.Context, projection, key string, o StateOptions) (Row, error) {
	var form rowForm
	err := c.get(ctx, withQuery(rowPath(projection, key), c.stateParameters(&o)), &form)
	return form.row(), err
}

func rowPath(projection, key string) string {
	return projectionPath(projection) + "/rows/" + url.PathEscape(key)
}

// RowsOptions say which rows to read, and as of when.
type RowsOptions struct {
	Prefix string // of their keys
	After  string // only keys behind it
	Limit  int    // at most that many; 0 = all
	StateOptions
}

// rowsPage is how many rows an iteration asks for at a time.
const rowsPage = 500

// Rows iterates over the rows of a projection in the order of the bytes of their
// keys, page by page, all as of the moment asked for, or the position of the first
// page. If the projection is defined anew meanwhile, it ends with an
// error.
func (c *Client) Rows(ctx context.Context, projection string, o RowsOptions) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		left, generation := o.Limit, uint64(0)
		v := c.stateParameters(&o.StateOptions)
		v.Set("limit", strconv.Itoa(pageOf(left, rowsPage)))
		if o.Prefix != "" {
			v.Set("prefix", o.Prefix)
		}
		if o.After != "" {
			v.Set("after", o.After)
		}
		for {
			var form struct {
				Rows       []rowForm `json:"rows"`
				Next       *string   `json:"next"`
				AsOf       uint64    `json:"as_of"`
				Generation uint64    `json:"generation"`
			}
			a, err := c.do(ctx, &call{method: http.MethodGet, target: withQuery(projectionPath(projection)+"/rows", v)})
			if err == nil {
				err = a.decode(&form)
			}
			if err == nil && generation != 0 && generation != form.Generation {
				err = definedAnew(projection)
			}
			if err != nil {
				yield(Row{}, err)
				return
			}
			generation = form.Generation
			for i := range form.Rows {
				row := form.Rows[i].row()
				row.AsOf, row.Generation = form.AsOf, form.Generation
				if !yield(row, nil) {
					return
				}
				if left--; left == 0 {
					return
				}
			}
			if form.Next == nil {
				return
			}
			if o.AtPosition == 0 && o.AtTime.IsZero() {
				v.Set("at_position", at(form.AsOf, a))
			}
			v.Set("after", *form.Next)
		}
	}
}

func definedAnew(projection string) error {
	return fmt.Errorf("projection %q was defined anew while it was read; read it from the beginning", projection)
}

// at is a position of the log that an answer is from.
func at(position uint64, a *answer) string {
	s := strconv.FormatUint(position, 10)
	if log := a.header.Get(headerLog); log != "" {
		s += "@" + log
	}
	return s
}

// pageOf is how much to ask for when that much is left, 0 = all there is.
func pageOf(left, most int) int {
	if left <= 0 || left > most {
		return most
	}
	return left
}

// RowChange is an event and the row after it.
type RowChange struct {
	Position uint64
	Version  uint64
	Type     string
	Stream   string
	Time     int64  // nanoseconds
	State    []byte // JSON
}

// HistoryOptions say which part of a row's history to read.
type HistoryOptions struct {
	After       uint64 // only events behind this position
	Limit       int    // at most that many; 0 = all
	Local       bool   // as in StateOptions
	MinPosition uint64
}

// RowHistory iterates over the events of a row, oldest first, each with the row
// after it. If the projection is defined anew meanwhile, it ends with an error.
func (c *Client) RowHistory(ctx context.Context, projection, key string, o HistoryOptions) iter.Seq2[RowChange, error] {
	return func(yield func(RowChange, error) bool) {
		left, generation := o.Limit, uint64(0)
		v := c.parameters(&ReadOptions{After: o.After, Limit: pageOf(left, rowsPage), Local: o.Local, MinPosition: o.MinPosition})
		for {
			var form struct {
				History    []changeForm `json:"history"`
				Next       uint64       `json:"next"`
				Generation uint64       `json:"generation"`
			}
			a, err := c.do(ctx, &call{method: http.MethodGet, target: withQuery(rowPath(projection, key)+"/history", v)})
			if err == nil {
				err = a.decode(&form)
			}
			if err == nil && generation != 0 && generation != form.Generation {
				err = definedAnew(projection)
			}
			if err != nil {
				yield(RowChange{}, err)
				return
			}
			generation = form.Generation
			for i := range form.History {
				change, err := form.History[i].change()
				if !yield(change, err) || err != nil {
					return
				}
				if left--; left == 0 {
					return
				}
			}
			if form.Next == 0 {
				return
			}
			v.Set("after", at(form.Next, a))
		}
	}
}

// changeForm is a RowChange as it is sent.
type changeForm struct {
	Position uint64         `json:"position"`
	Version  uint64         `json:"version"`
	Type     string         `json:"type"`
	Stream   string         `json:"stream"`
	Time     string         `json:"time"`
	State    jsontext.Value `json:"state"`
}

func (f *changeForm) change() (RowChange, error) {
	t, err := event.ParseTime(f.Time)
	if err != nil {
		return RowChange{}, fmt.Errorf("history, position %d: %w", f.Position, err)
	}
	return RowChange{Position: f.Position, Version: f.Version, Type: f.Type, Stream: f.Stream, Time: t, State: f.State}, nil
}

// StreamState is the data of a stream's events, merged one after the other as
// JSON Merge Patches (RFC 7396).
type StreamState struct {
	Stream   string         `json:"stream"`
	State    jsontext.Value `json:"state"`
	Version  uint64         `json:"version"`  // of the stream then
	Events   uint64         `json:"events"`   // that were merged
	Position uint64         `json:"position"` // of the last of them
	Replayed uint64         `json:"replayed"` // events that were merged for this answer
	Final    bool           `json:"final"`    // no later event can belong to the moment that was asked for
	AsOf     uint64         `json:"as_of"`    // the position that it is as of
}

// StreamState returns the merged data of a stream's events, as it is or as it
// was. It needs no projection. A stream that does not exist then is an error for
// which IsNotFound holds.
func (c *Client) StreamState(ctx context.Context, stream string, o StateOptions) (StreamState, error) {
	var s StreamState
	err := c.get(ctx, withQuery("/v1/streams/"+url.PathEscape(stream)+"/state", c.stateParameters(&o)), &s)
	return s, err
}
