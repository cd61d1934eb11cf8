// Command reaction answers orders: for each OrderPlaced it appends one
// ConfirmationRequested, unless the order was cancelled meanwhile.
//
// It may crash and be started again at any moment. What it answered shortly
// before comes again then, and the answer has the id it had: the store takes it
// for a repetition. So each order is answered exactly once in effect.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"cairn/client"
	"cairn/event"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "reaction:", err)
		os.Exit(1)
	}
}

// errCrash ends the program between an answer and the checkpoint, as a power
// cut would.
var errCrash = errors.New("crashed as asked, before the checkpoint was saved")

func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("reaction", flag.ContinueOnError)
	node := flags.String("node", "http://127.0.0.1:7070", "address of a node")
	file := flags.String("checkpoint", "reaction.checkpoint", "file that remembers where to go on")
	crash := flags.Int("crash-after", 0, "crash after that many answers; 0 = never")
	if err := flags.Parse(args); err != nil {
		return err
	}
	c, err := client.New(client.Config{Nodes: []string{*node}})
	if err != nil {
		return err
	}
	defer c.Close()
	answered := 0
	handle := func(ctx context.Context, events []event.Event) error {
		for i := range events {
			said, err := confirm(ctx, c, &events[i])
			if err != nil {
				return fmt.Errorf("answer %s of %s: %w", events[i].ID, events[i].Stream, err)
			}
			fmt.Fprintf(stdout, "%s: %s\n", events[i].Stream, said)
			if answered++; answered == *crash {
				return errCrash
			}
		}
		return nil
	}
	placed := event.Filter{Query: event.Query{Items: []event.QueryItem{{Types: []string{"OrderPlaced"}}}}, Category: "order"}
	return c.Subscribe(ctx, client.AtLeastOnce(client.CheckpointFile(*file), handle), client.SubscribeOptions{Filter: placed})
}

// order is what the decision depends on.
type order struct {
	Customer  string `json:"customer"`
	cancelled bool
}

func (o *order) add(e *event.Event) error {
	switch e.Type {
	case "OrderPlaced":
		return json.Unmarshal(e.Data, o)
	case "OrderCancelled":
		o.cancelled = true
	}
	return nil
}

// confirm answers an OrderPlaced and says what it did. The answer is decided
// from the whole order and only appended if the order is as it was read.
func confirm(ctx context.Context, c *client.Client, placed *event.Event) (string, error) {
	correlation := placed.CorrelationID
	if correlation == "" {
		correlation = placed.Stream
	}
	decision, err := client.Decide(ctx, c, client.Decider[order]{
		Streams: []string{placed.Stream},
		Fold:    (*order).add,
		Decide: func(o *order) ([]event.Event, error) {
			if o.cancelled {
				return nil, nil
			}
			data, err := json.Marshal(map[string]string{"order": placed.Stream, "customer": o.Customer})
			return []event.Event{{
				Stream: "mail-" + placed.Stream, Type: "ConfirmationRequested", Data: data,
				ID:            client.ReactionID(placed, "confirm", 0),
				CorrelationID: correlation, CausationID: placed.ID,
			}}, err
		},
	})
	switch {
	case client.IsIDReused(err):
		return "answered before, in other words", nil
	case err != nil:
		return "", err
	case len(decision.Events) == 0:
		return "cancelled, nothing to confirm", nil
	case decision.Result.Duplicate:
		return "answered before", nil
	}
	return fmt.Sprintf("confirmation requested at position %d", decision.Result.Last), nil
}
