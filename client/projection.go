package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Defined is what became of a definition.
type Defined struct {
	Generation uint64 `json:"generation"` // position of the event that has this definition
	State      string `json:"state"`      // of that generation, as Projection has it
	Changed    bool   `json:"-"`          // false = it was defined so before
}

// Projection is the status of a projection on the node that answered: of its
// live generation, or of its first one while that is built.
type Projection struct {
	Name       string         `json:"name"`
	Generation uint64         `json:"generation"`
	State      string         `json:"state"` // StateBuilding or StateLive
	Guarding   bool           `json:"guarding"`
	Since      uint64         `json:"since"`    // the position from which it is live, and guards; 0 = not yet
	Position   uint64         `json:"position"` // folded up to here
	Head       uint64         `json:"head"`     // of what there is to fold
	Progress   float64        `json:"progress"` // 0 to 1
	Rows       RowCounts      `json:"rows"`
	Failures   []FailedRow    `json:"failures"`      // some of the failed rows
	Definition jsontext.Value `json:"definition"`    // in canonical form, with all defaults
	Next       *Projection    `json:"next,omitzero"` // the generation that is built to replace this one
}

// The states of a generation.
const (
	StateBuilding = "building"
	StateLive     = "live"
)

// RowCounts count the rows of a projection.
type RowCounts struct {
	Failed uint64 `json:"failed"`
}

// FailedRow is a row that stopped at an event which could not be folded.
type FailedRow struct {
	Key      string `json:"key"`
	Position uint64 `json:"position"`
	Reason   string `json:"reason"`
}

// DefineProjection defines a projection, or gives it another definition: a JSON
// document such as docs/projections.md describes. It returns when the
// definition is in the log; WaitLive waits until rows can be read and guards
// hold. A definition that can't be one is a *Problem with the place of the
// fault, for which IsBadDefinition holds. To define the same again changes
// nothing and is always safe.
func (c *Client) DefineProjection(ctx context.Context, name string, definition []byte) (Defined, error) {
	a, err := c.do(ctx, &call{method: http.MethodPut, target: projectionPath(name), body: definition, leader: true, write: true,
		header: map[string]string{"Content-Type": typeJSON}})
	if err != nil {
		return Defined{}, unsettled(err)
	}
	d := Defined{Changed: a.status == http.StatusAccepted}
	return d, a.decode(&d)
}

// DeleteProjection deletes a projection with its rows and guards. One that does
// not exist is an error for which IsNotFound holds, also when an attempt before
// has deleted it.
func (c *Client) DeleteProjection(ctx context.Context, name string) error {
	_, err := c.do(ctx, &call{method: http.MethodDelete, target: projectionPath(name), leader: true, write: true})
	return unsettled(err)
}

// unsettled says of a change whose fate is open that it is.
func unsettled(err error) error {
	var fate *fateError
	if errors.As(err, &fate) {
		return fmt.Errorf("it is not known whether the projections changed; do it again, that is safe: %w", fate.error)
	}
	return err
}

// Projections returns the projections there are, in the order of their names.
func (c *Client) Projections(ctx context.Context) ([]Projection, error) {
	var form struct {
		Projections []Projection `json:"projections"`
	}
	err := c.get(ctx, withQuery("/v1/projections", c.parameters(&ReadOptions{})), &form)
	return form.Projections, err
}

// Projection returns the status of one projection.
func (c *Client) Projection(ctx context.Context, name string) (Projection, error) {
	var p Projection
	err := c.get(ctx, withQuery(projectionPath(name), c.parameters(&ReadOptions{})), &p)
	return p, err
}

const (
	waitLiveMin = 50 * time.Millisecond
	waitLiveMax = time.Second
)

// WaitLive returns when a generation of a projection is live. It calls each,
// unless that is nil, with the status of the generation whenever it has asked
// for it. That the projection was deleted or defined anew meanwhile is an error.
func (c *Client) WaitLive(ctx context.Context, name string, generation uint64, each func(*Projection)) error {
	for wait := waitLiveMin; ; wait = min(2*wait, waitLiveMax) {
		p, err := c.Projection(ctx, name)
		if err != nil {
			return err
		}
		found := &p
		if p.Generation != generation && p.Next != nil {
			found = p.Next
		}
		if found.Generation != generation {
			return fmt.Errorf("projection %q was defined anew: its generation is %d now, not %d", name, found.Generation, generation)
		}
		if each != nil {
			each(found)
		}
		if found.State == StateLive {
			return nil
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return fmt.Errorf("projection %q is built to %.0f %%: %w", name, 100*found.Progress, ctx.Err())
		}
	}
}

func projectionPath(name string) string { return "/v1/projections/" + url.PathEscape(name) }

// get decodes the answer to a GET into v.
func (c *Client) get(ctx context.Context, target string, v any) error {
	a, err := c.do(ctx, &call{method: http.MethodGet, target: target})
	if err != nil {
		return err
	}
	return a.decode(v)
}

// decode decodes the body into v.
func (a *answer) decode(v any) error {
	if err := json.Unmarshal(a.body, v); err != nil {
		return fmt.Errorf("answer of %s: %w", a.node, err)
	}
	return nil
}
