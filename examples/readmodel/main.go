// Command readmodel keeps a table of account balances in SQLite in step with
// the log. What it makes of events and the position it has come to are stored
// in one transaction, so that after any crash the table has each event exactly
// once in effect.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"cairn/client"
	"cairn/event"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "readmodel:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("readmodel", flag.ContinueOnError)
	node := flags.String("node", "http://127.0.0.1:7070", "address of a node")
	file := flags.String("db", "accounts.db", "the SQLite database")
	show := flags.Bool("print", false, "print the table as it is and end")
	if err := flags.Parse(args); err != nil {
		return err
	}
	m, err := openModel(ctx, *file)
	if err != nil {
		return err
	}
	defer m.close()
	if *show {
		return m.print(ctx, stdout)
	}
	c, err := client.New(client.Config{Nodes: []string{*node}})
	if err != nil {
		return err
	}
	defer c.Close()
	return follow(ctx, c, m)
}

// follow keeps s in step. A transaction holds up to 500 events; one that is
// alone waits for others for at most 20 ms.
func follow(ctx context.Context, c *client.Client, s client.Subscriber) error {
	moved := event.QueryItem{Types: []string{"FundsDeposited", "FundsWithdrawn"}}
	err := c.Subscribe(ctx, s, client.SubscribeOptions{
		Filter:    event.Filter{Category: "account", Query: event.Query{Items: []event.QueryItem{moved}}},
		MaxEvents: 500,
		MaxWait:   20 * time.Millisecond,
	})
	if client.IsLogChanged(err) {
		return fmt.Errorf("%w; delete the database to build it anew", err)
	}
	return err
}
