package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"

	"go.yaml.in/yaml/v3"

	"cairn/client"
	"cairn/examples/internal/define"
)

var (
	//go:embed item-1.yaml
	item1 []byte
	//go:embed item-2.yaml
	item2 []byte
	//go:embed item-3.yaml
	item3 []byte
	//go:embed cart.yaml
	cartYAML []byte
)

// release is one version of the shop's program.
type release struct {
	schemas    [][]byte // of ItemAdded, all that it knows
	projection []byte   // nil = it has none
	added      []string // what customers put into a cart with it
}

// releases are those there were. The projection came with the third: it sees
// the events of all three in the shape it was written for.
var releases = []release{
	{schemas: [][]byte{item1}, added: []string{`{"item":"tea","price":3.5}`, `{"item":"tea","price":3.5}`, `{"item":"pin","price":0.07}`}},
	{schemas: [][]byte{item1, item2}, added: []string{`{"sku":"tea","quantity":3,"cents":350}`}},
	{schemas: [][]byte{item1, item2, item3}, projection: cartYAML, added: []string{`{"sku":"mug","quantity":2,"price":{"cents":900,"currency":"GBP"}}`}},
}

// deploy registers what the release needs to be there. What is there stays as
// it is, so every start of the program can do it.
func (r *release) deploy(ctx context.Context, c *client.Client) error {
	for i, document := range r.schemas {
		var registration map[string]any
		if err := yaml.Unmarshal(document, &registration); err != nil {
			return err
		}
		b, err := json.Marshal(registration)
		if err != nil {
			return err
		}
		if _, err := c.RegisterSchema(ctx, "ItemAdded", uint32(i+1), b); err != nil {
			return fmt.Errorf("schema %d of ItemAdded: %w", i+1, err)
		}
	}
	if r.projection == nil {
		return nil
	}
	return define.Apply(ctx, c, r.projection)
}
