package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cairn/client"
	"cairn/event"
	"cairn/examples/internal/testnode"
)

// However often it crashes, each order that was not cancelled is answered once.
func TestReaction(t *testing.T) {
	node := testnode.Start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c, err := client.New(client.Config{Nodes: []string{node}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const orders = 12
	for i := range orders {
		stream := fmt.Sprint("order-", i)
		events := []event.Event{{Type: "OrderPlaced", ID: "placed", CorrelationID: stream, Data: []byte(`{"customer":"Ada"}`)}}
		if i == 5 {
			events = append(events, event.Event{Type: "OrderCancelled", CorrelationID: stream})
		}
		if _, err := c.Append(ctx, stream, events); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{"-node", node, "-checkpoint", filepath.Join(t.TempDir(), "checkpoint")}
	var said bytes.Buffer
	for _, after := range []string{"3", "1", "5"} {
		if err := run(ctx, append(args, "-crash-after", after), &said); !errors.Is(err, errCrash) {
			t.Fatalf("got %v, want a crash", err)
		}
	}
	// The last run goes on until it has seen an order that was placed behind
	// all others, and is then told to end.
	last, stop := context.WithCancel(ctx)
	defer stop()
	if _, err := c.Append(ctx, "order-last", []event.Event{{Type: "OrderPlaced", Data: []byte(`{"customer":"Bob"}`)}}); err != nil {
		t.Fatal(err)
	}
	done := &stopper{Buffer: &said, word: "order-last:", stop: stop}
	if err := run(last, args, done); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	answers := make(map[string]int)
	confirmed := event.Filter{Query: event.Query{Items: []event.QueryItem{{Types: []string{"ConfirmationRequested"}}}}}
	for e, err := range c.AllEvents(ctx, confirmed, client.ReadOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		answers[e.Stream]++
		if e.Stream == "mail-order-3" && (e.CorrelationID != "order-3" || e.CausationID != "placed" || string(e.Data) != `{"customer":"Ada","order":"order-3"}`) {
			t.Errorf("got %+v", e)
		}
	}
	for i := range orders {
		want := 1
		if i == 5 {
			want = 0
		}
		if got := answers[fmt.Sprint("mail-order-", i)]; got != want {
			t.Errorf("order %d has %d answers, not %d", i, got, want)
		}
	}
	if len(answers) != orders || !strings.Contains(said.String(), "order-0: answered before\n") ||
		!strings.Contains(said.String(), "order-5: cancelled") {
		t.Errorf("%d answers; it said\n%s", len(answers), said.String())
	}
}

// stopper calls stop when a word was written.
type stopper struct {
	*bytes.Buffer
	word string
	stop func()
}

func (s *stopper) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte(s.word)) {
		s.stop()
	}
	return s.Buffer.Write(b)
}
