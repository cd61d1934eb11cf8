package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cairn/client"
	"cairn/event"
	"cairn/examples/internal/testnode"
)

var errCrash = errors.New("crash")

// crashing is a model that crashes now and then: before its transaction is
// committed, or after.
type crashing struct {
	*model
	random *rand.Rand
	last   uint64 // the position at which to stop
	stop   func()
}

func (c *crashing) Take(ctx context.Context, b client.Batch) error {
	switch c.random.IntN(6) {
	case 0: // half done: what was written is rolled back
		tx, err := c.db.BeginTx(ctx, nil)
		if err == nil {
			err = c.write(ctx, tx, &b)
		}
		return errors.Join(err, tx.Rollback(), errCrash)
	case 1: // done, but nobody was told
		return errors.Join(c.model.Take(ctx, b), errCrash)
	}
	err := c.model.Take(ctx, b)
	if b.Checkpoint.Position >= c.last {
		c.stop()
	}
	return err
}

// However often it crashes, the table is what a fold over the log gives.
func TestReadModel(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	c, err := client.New(client.Config{Nodes: []string{testnode.Start(t)}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	balances, counts := make(map[string]int), make(map[string]int)
	var last uint64
	for range 60 {
		stream := fmt.Sprint("account-", random.IntN(5))
		var events []event.Event
		for range 1 + random.IntN(30) {
			amount := random.IntN(100)
			e := event.Event{Type: "FundsDeposited", Data: fmt.Appendf(nil, `{"amount":%d}`, amount)}
			if random.IntN(3) == 0 {
				e.Type, amount = "FundsWithdrawn", -amount
			}
			balances[stream] += amount
			counts[stream]++
			events = append(events, e)
		}
		result, err := c.Append(ctx, stream, events)
		if err != nil {
			t.Fatal(err)
		}
		last = result.Last
	}
	file := filepath.Join(t.TempDir(), "accounts.db")
	crashes := 0
	for finished := false; !finished; {
		finished = follows(ctx, t, c, file, random, last)
		if !finished {
			crashes++
		}
	}
	want := ""
	for i := range 5 {
		stream := fmt.Sprint("account-", i)
		if counts[stream] > 0 {
			want += fmt.Sprintf("%-20s %10d of %d events\n", stream, balances[stream], counts[stream])
		}
	}
	want += fmt.Sprintf("as of position %d\n", last)
	var got bytes.Buffer
	if err := run(ctx, []string{"-db", file, "-print"}, &got); err != nil || got.String() != want {
		t.Errorf("after %d crashes: %v\n%s\nwant\n%s", crashes, err, got.String(), want)
	}
}

// follows runs the program once and reports whether it came to the end rather
// than crashed.
func follows(ctx context.Context, t *testing.T, c *client.Client, file string, random *rand.Rand, last uint64) bool {
	t.Helper()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	m, err := openModel(ctx, file)
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	if at, err := m.Load(ctx); err != nil || at.Position >= last {
		return err == nil
	}
	err = follow(ctx, c, &crashing{model: m, random: random, last: last, stop: stop})
	if !errors.Is(err, errCrash) && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	return errors.Is(err, context.Canceled)
}

// Two programs with one database do not count anything twice.
func TestModel_OtherWriter(t *testing.T) {
	file := filepath.Join(t.TempDir(), "accounts.db")
	var models [2]*model
	for i := range models {
		m, err := openModel(t.Context(), file)
		if err != nil {
			t.Fatal(err)
		}
		defer m.close()
		if _, err := m.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		models[i] = m
	}
	b := client.Batch{Events: []event.Event{{Stream: "account-1", Type: "FundsDeposited", Data: []byte(`{"amount":5}`)}},
		Checkpoint: client.Checkpoint{Log: "L", Position: 2}}
	if err := models[0].Take(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if err := models[1].Take(t.Context(), b); err == nil || !strings.Contains(err.Error(), "another program") {
		t.Errorf("got %v", err)
	}
	var got bytes.Buffer
	if err := models[1].print(t.Context(), &got); err != nil || !strings.Contains(got.String(), " 5 of 1 events\nas of position 2\n") {
		t.Errorf("got %q, %v", got.String(), err)
	}
}
