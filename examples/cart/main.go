// Command cart is a shop whose events changed shape twice. It writes them in
// all three shapes, as its three releases would, and reads only the newest.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"cairn/client"
	"cairn/event"
)

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "cart:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("cart", flag.ContinueOnError)
	node := flags.String("node", "http://127.0.0.1:7070", "address of a node")
	name := flags.String("cart", "cart-1", "the stream of the cart")
	if err := flags.Parse(args); err != nil {
		return err
	}
	c, err := client.New(client.Config{Nodes: []string{*node}})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := history(ctx, c, *name); err != nil {
		return err
	}
	fmt.Fprintln(stdout, "as stored:")
	if err := list(ctx, c, stdout, *name, true); err != nil {
		return err
	}
	fmt.Fprintln(stdout, "as read:")
	if err := list(ctx, c, stdout, *name, false); err != nil {
		return err
	}
	row, err := c.Row(ctx, "cart", *name, client.StateOptions{})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "the cart:\n  %s\n", bytes.TrimSpace(row.State))
	return err
}

// history is what the three releases do to a cart, one after the other. Run
// again, it adds nothing: the events have ids.
func history(ctx context.Context, c *client.Client, cart string) error {
	for i, release := range releases {
		if err := release.deploy(ctx, c); err != nil {
			return fmt.Errorf("release %d: %w", i+1, err)
		}
		for j, data := range release.added {
			added := event.Event{Type: "ItemAdded", ID: fmt.Sprintf("added-%d-%d", i+1, j), Schema: uint32(i + 1), Data: []byte(data)}
			if _, err := c.Append(ctx, cart, []event.Event{added}); err != nil {
				return fmt.Errorf("release %d: %w", i+1, err)
			}
		}
	}
	_, err := c.Append(ctx, cart, []event.Event{{Type: "ItemRemoved", ID: "removed", Data: []byte(`{"sku":"pin"}`)}})
	return err
}

func list(ctx context.Context, c *client.Client, stdout io.Writer, cart string, raw bool) error {
	for e, err := range c.AllOfStream(ctx, cart, client.ReadOptions{Raw: raw}) {
		if err != nil {
			return err
		}
		fmt.Fprintf(stdout, "  %-12s schema %d  %s\n", e.Type, e.Schema, e.Data)
	}
	return nil
}
