package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cairn/client"
	"cairn/event"
	"cairn/examples/internal/testnode"
)

const (
	accounts = 8
	opening  = 100
	clients  = 64
	moves    = 12 // of each client
)

// However many withdraw and transfer at once, no account is ever below zero and
// no money is made or lost.
func TestBank(t *testing.T) {
	node := testnode.Start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	b, err := open(ctx, newClient(t, node))
	if err != nil {
		t.Fatal(err)
	}
	for i := range accounts {
		if err := b.deposit(ctx, account(i), opening); err != nil {
			t.Fatal(err)
		}
	}
	first, opened, err := b.balances(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	paid, refused := rush(ctx, t, node)
	last, _, err := b.balances(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := sum(last), int64(accounts*opening)-paid; got != want {
		t.Errorf("the accounts hold %d, not %d", got, want)
	}
	if refused == 0 {
		t.Error("nothing was refused: the guards were not tried")
	}
	// The past is as it was, and was never below zero.
	if then, _, err := b.balances(ctx, opened); err != nil || fmt.Sprint(then) != fmt.Sprint(first) {
		t.Errorf("as of position %d: got %v, %v; want %v", opened, then, err, first)
	}
	for i := range accounts {
		checkHistory(ctx, t, b, account(i), last[account(i)])
	}
	t.Run("one append", func(t *testing.T) { testOneAppend(ctx, t, b) })
	t.Run("commands", func(t *testing.T) { testCommands(ctx, t, node) })
}

// rush lets all clients loose and returns how much was withdrawn and how often
// a guard refused.
func rush(ctx context.Context, t *testing.T, node string) (paid, refused int64) {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	var wg sync.WaitGroup
	var withdrawn, guarded atomic.Int64
	for i := range clients {
		b, random := &bank{newClient(t, node)}, rand.New(rand.NewPCG(seed, uint64(i)))
		wg.Go(func() {
			for range moves {
				from, to, amount := random.IntN(accounts), random.IntN(accounts), 1+random.Int64N(40)
				var err error
				if random.IntN(4) == 0 {
					if err = b.withdraw(ctx, account(from), amount); err == nil {
						withdrawn.Add(amount)
					}
				} else {
					err = b.transfer(ctx, account(from), account(to), amount)
				}
				if client.IsGuardFailed(err) {
					guarded.Add(1)
				} else if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return withdrawn.Load(), guarded.Load()
}

// checkHistory follows a balance through all events of its account, and reads
// it again as of the time of each tenth.
func checkHistory(ctx context.Context, t *testing.T, b *bank, account string, last int64) {
	t.Helper()
	balance, n := int64(0), 0
	for change, err := range b.c.RowHistory(ctx, "account", account, client.HistoryOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		if balance, err = balanceOf(change.State); err != nil || balance < 0 {
			t.Errorf("%s at position %d: %d, %v", account, change.Position, balance, err)
		}
		if n++; n%10 != 0 {
			continue
		}
		row, err := b.c.Row(ctx, "account", account, client.StateOptions{AtVersion: change.Version})
		if err != nil || !bytes.Equal(row.State, change.State) {
			t.Errorf("%s at version %d: got %s, %v; want %s", account, change.Version, row.State, err, change.State)
		}
	}
	if balance != last {
		t.Errorf("%s: its history ends with %d, the row has %d", account, balance, last)
	}
}

// All events of an append must pass: two withdrawals that are fine each but too
// much together change nothing.
func testOneAppend(ctx context.Context, t *testing.T, b *bank) {
	const stream = "account-whole"
	if err := b.deposit(ctx, stream, 100); err != nil {
		t.Fatal(err)
	}
	_, err := b.c.AppendMany(ctx, event.Append{Events: []event.Event{moved("FundsWithdrawn", stream, 60), moved("FundsWithdrawn", stream, 60)}})
	if !client.IsGuardFailed(err) {
		t.Errorf("got %v", err)
	}
	if err := b.transfer(ctx, stream, "account-other", 101); !client.IsGuardFailed(err) {
		t.Errorf("got %v", err)
	}
	if _, err := b.balance(ctx, "account-other", time.Time{}); !client.IsNotFound(err) {
		t.Errorf("half of a transfer was made: %v", err)
	}
	if got, err := b.balance(ctx, stream, time.Time{}); err != nil || got != 100 {
		t.Errorf("got %d, %v; want 100", got, err)
	}
}

func testCommands(ctx context.Context, t *testing.T, node string) {
	var out bytes.Buffer
	do := func(args ...string) error {
		out.Reset()
		return run(ctx, append([]string{"-node", node}, args...), &out)
	}
	if err := do("deposit", "account-ada", "50"); err != nil {
		t.Fatal(err)
	}
	if err := do("transfer", "account-ada", "account-bob", "20"); err != nil {
		t.Fatal(err)
	}
	if err := do("withdraw", "account-ada", "31"); !client.IsGuardFailed(err) || !strings.Contains(err.Error(), "insufficient funds") {
		t.Errorf("got %v", err)
	}
	b := &bank{newClient(t, node)}
	first, err := b.c.EventAt(ctx, "account-ada", 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := do("balance", "account-ada", time.Unix(0, first.Time).UTC().Format(time.RFC3339Nano)); err != nil || out.String() != "50\n" {
		t.Errorf("got %q, %v", &out, err)
	}
	if err := do("list"); err != nil || !strings.Contains(out.String(), "account-ada                  30\n") {
		t.Errorf("got %q, %v", &out, err)
	}
	if err := do("rob"); err == nil || !strings.Contains(err.Error(), "no such command") {
		t.Errorf("got %v", err)
	}
}

func account(i int) string { return fmt.Sprint("account-", i) }

func sum(balances map[string]int64) (total int64) {
	for _, balance := range balances {
		total += balance
	}
	return total
}

func newClient(t *testing.T, node string) *client.Client {
	t.Helper()
	c, err := client.New(client.Config{Nodes: []string{node}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}
