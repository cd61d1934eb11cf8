package main

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"cairn/client"
	"cairn/event"
	"cairn/examples/internal/define"
	"cairn/examples/internal/testnode"
)

const wanted = `as stored:
  ItemAdded    schema 1  {"item":"tea","price":3.5}
  ItemAdded    schema 1  {"item":"tea","price":3.5}
  ItemAdded    schema 1  {"item":"pin","price":0.07}
  ItemAdded    schema 2  {"sku":"tea","quantity":3,"cents":350}
  ItemAdded    schema 3  {"sku":"mug","quantity":2,"price":{"cents":900,"currency":"GBP"}}
  ItemRemoved  schema 0  {"sku":"pin"}
as read:
  ItemAdded    schema 3  {"price":{"cents":350,"currency":"EUR"},"quantity":1,"sku":"tea"}
  ItemAdded    schema 3  {"price":{"cents":350,"currency":"EUR"},"quantity":1,"sku":"tea"}
  ItemAdded    schema 3  {"price":{"cents":7,"currency":"EUR"},"quantity":1,"sku":"pin"}
  ItemAdded    schema 3  {"price":{"cents":350,"currency":"EUR"},"quantity":3,"sku":"tea"}
  ItemAdded    schema 3  {"sku":"mug","quantity":2,"price":{"cents":900,"currency":"GBP"}}
  ItemRemoved  schema 0  {"sku":"pin"}
the cart:
  {"items":{"mug":{"cents":{"GBP":1800},"quantity":2},"tea":{"cents":{"EUR":1750},"quantity":5}}}
`

// Events of three shapes are read as one, and stay as they were written.
func TestCart(t *testing.T) {
	node := testnode.Start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	c, err := client.New(client.Config{Nodes: []string{node}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// Somebody's guard that sees every event: a schema is in force when that
	// guard has been made ready for it.
	guard := []byte(`{"name":"watch","guards":{"*":[{"rule":"event.stream != 'forbidden'"}]}}`)
	if err := define.Apply(ctx, c, guard); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time nothing is new
		var out bytes.Buffer
		if err := run(ctx, []string{"-node", node}, &out); err != nil || out.String() != wanted {
			t.Fatalf("%v\ngot\n%s\nwant\n%s", err, out.String(), wanted)
		}
	}
	// An old release that still runs names its schema, and its events fit in.
	old := event.Event{Type: "ItemAdded", Schema: 1, Data: []byte(`{"item":"tea","price":4}`)}
	if _, err := c.Append(ctx, "cart-2", []event.Event{old}); err != nil {
		t.Fatal(err)
	}
	row, err := c.Row(ctx, "cart", "cart-2", client.StateOptions{})
	if want := `{"items":{"tea":{"cents":{"EUR":400},"quantity":1}}}`; err != nil || string(row.State) != want {
		t.Errorf("got %s, %v; want %s", row.State, err, want)
	}
	// Without a number it has to be the newest shape.
	var p *client.Problem
	old.Schema = 0
	if _, err := c.Append(ctx, "cart-2", []event.Event{old}); !errors.As(err, &p) || p.Code != client.CodeSchemaViolation || p.Schema != 3 {
		t.Errorf("got %v", err)
	}
	// Half way back the cart was as it was then.
	row, err = c.Row(ctx, "cart", "cart-1", client.StateOptions{AtVersion: 2})
	if want := `{"items":{"tea":{"cents":{"EUR":700},"quantity":2}}}`; err != nil || string(row.State) != want {
		t.Errorf("got %s, %v; want %s", row.State, err, want)
	}
}
