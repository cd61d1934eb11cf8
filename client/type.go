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
	"github.com/go-json-experiment/json/jsontext"
)

// TypeSchemas is a type of events and the numbers of its schemas.
type TypeSchemas struct {
	Type    string   `json:"type"`
	Newest  uint32   `json:"newest"`
	Schemas []uint32 `json:"schemas"`
	Renamed string   `json:"renamed,omitzero"` // what events of the type are read as; "" = it has its name still
	Pending uint32   `json:"pending,omitzero"` // a schema that is in force when the projections that fold the type are built for it; 0 = none
}

// RegisterSchema registers the next schema of a type: a JSON document such as
// docs/schemas.md describes. It returns when the schema is in force; created is
// false if it was registered before, the same, which is always safe to do. A
// schema that can't be used is a *Problem with the place of the fault, for which
// IsBadDefinition holds. One with another number than the next is a *Problem for
// which IsSchemaConflict holds; its Newest says what there is.
func (c *Client) RegisterSchema(ctx context.Context, typ string, number uint32, registration []byte) (created bool, err error) {
	a, err := c.do(ctx, &call{method: http.MethodPut, target: schemaPath(typ, number), body: registration, leader: true, write: true,
		header: map[string]string{"Content-Type": typeJSON}})
	var fate *fateError
	if errors.As(err, &fate) {
		return false, fmt.Errorf("it is not known whether the schema was registered; do it again, that is safe: %w", fate.error)
	}
	if err != nil {
		return false, err
	}
	var registered struct {
		Created bool `json:"created"`
	}
	if err := json.Unmarshal(a.body, &registered); err != nil {
		return false, fmt.Errorf("answer of %s: %w", a.node, err)
	}
	if a.status == http.StatusAccepted {
		err = c.waitSchema(ctx, typ, number)
	}
	return registered.Created, err
}

// waitSchema returns when a schema is in force: projections may have to be built
// for it first.
func (c *Client) waitSchema(ctx context.Context, typ string, number uint32) error {
	for wait := waitLiveMin; ; wait = min(2*wait, waitLiveMax) {
		types, err := c.Types(ctx)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(types, func(t TypeSchemas) bool { return t.Type == typ && t.Newest >= number }) {
			return nil
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return fmt.Errorf("schema %d of type %q is registered, and waits for the projections that fold the type: %w", number, typ, ctx.Err())
		}
	}
}

// Schema returns a schema of a type, in the form in which RegisterSchema takes
// it. One that does not exist is an error for which IsNotFound holds.
func (c *Client) Schema(ctx context.Context, typ string, number uint32) (jsontext.Value, error) {
	var registration jsontext.Value
	err := c.get(ctx, withQuery(schemaPath(typ, number), c.parameters(&ReadOptions{})), &registration)
	return registration, err
}

// Types returns the types that have schemas, in the order of their names.
func (c *Client) Types(ctx context.Context) ([]TypeSchemas, error) {
	var form struct {
		Types []TypeSchemas `json:"types"`
	}
	err := c.get(ctx, withQuery("/v1/types", c.parameters(&ReadOptions{})), &form)
	return form.Types, err
}

// IsSchemaConflict reports whether a schema was refused for its number.
func IsSchemaConflict(err error) bool { return codeOf(err) == CodeSchemaConflict }

func schemaPath(typ string, number uint32) string {
	return "/v1/types/" + url.PathEscape(typ) + "/schemas/" + strconv.FormatUint(uint64(number), 10)
}
