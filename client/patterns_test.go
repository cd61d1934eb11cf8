package client_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"cairn/client"
	"cairn/event"
)

// The code of docs/patterns.md. TestPatterns checks that what stands there
// stands here, where it is compiled.

type account struct{ Balance int }

func (a *account) add(e *event.Event) error {
	var moved struct{ Amount int }
	if err := json.Unmarshal(e.Data, &moved); err != nil {
		return err
	}
	switch e.Type {
	case "FundsDeposited":
		a.Balance += moved.Amount
	case "FundsWithdrawn":
		a.Balance -= moved.Amount
	}
	return nil
}

var errNoFunds = errors.New("there is not that much in the account")

func withdraw(ctx context.Context, c *client.Client, stream string, amount int) error {
	_, err := client.Decide(ctx, c, client.Decider[account]{
		Streams: []string{stream},
		Fold:    (*account).add,
		Decide: func(a *account) ([]event.Event, error) {
			if a.Balance < amount {
				return nil, errNoFunds
			}
			return []event.Event{{Type: "FundsWithdrawn", Data: fmt.Appendf(nil, `{"amount":%d}`, amount)}}, nil
		},
	})
	return err
}

// A user name is given away once, whatever stream its user has: the decision
// depends on a query.
func claim(ctx context.Context, c *client.Client, user, name string) error {
	tag := "username:" + name
	_, err := client.Decide(ctx, c, client.Decider[bool]{
		Query: event.Query{Items: []event.QueryItem{{Tags: []string{tag}}}},
		Fold: func(taken *bool, e *event.Event) error {
			*taken = e.Type == "UsernameClaimed"
			return nil
		},
		Decide: func(taken *bool) ([]event.Event, error) {
			if *taken {
				return nil, fmt.Errorf("the name %s is taken", name)
			}
			return []event.Event{{Stream: user, Type: "UsernameClaimed", Tags: []string{tag}}}, nil
		},
	})
	return err
}

func react(ctx context.Context, c *client.Client) error {
	answer := func(ctx context.Context, events []event.Event) error {
		for i := range events {
			placed := &events[i]
			_, err := c.Append(ctx, "mail-"+placed.Stream, []event.Event{{
				Type:          "ConfirmationRequested",
				ID:            client.ReactionID(placed, "confirm", 0),
				CorrelationID: placed.CorrelationID,
				CausationID:   placed.ID,
			}})
			if err != nil && !client.IsIDReused(err) {
				return err
			}
		}
		return nil
	}
	placed := event.Filter{Query: event.Query{Items: []event.QueryItem{{Types: []string{"OrderPlaced"}}}}}
	return c.Subscribe(ctx, client.AtLeastOnce(client.CheckpointFile("confirm.checkpoint"), answer), client.SubscribeOptions{Filter: placed})
}

type balances struct{ db *sql.DB }

func (b *balances) Load(ctx context.Context) (at client.Checkpoint, err error) {
	err = b.db.QueryRowContext(ctx, "SELECT log, position FROM followed").Scan(&at.Log, &at.Position)
	return at, err
}

func (b *balances) Take(ctx context.Context, batch client.Batch) error {
	tx, err := b.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	for i := range batch.Events {
		if err := b.add(ctx, tx, &batch.Events[i]); err != nil {
			return err
		}
	}
	at := batch.Checkpoint
	if _, err := tx.ExecContext(ctx, "UPDATE followed SET log = ?, position = ?", at.Log, at.Position); err != nil {
		return err
	}
	return tx.Commit()
}

func (b *balances) add(ctx context.Context, tx *sql.Tx, e *event.Event) error {
	_, err := tx.ExecContext(ctx, "UPDATE accounts SET events = events + 1 WHERE account = ?", e.Stream)
	return err
}

func undo(ctx context.Context, c *client.Client, withdrawn *event.Event) error {
	_, err := c.Append(ctx, withdrawn.Stream, []event.Event{{
		Type:          "WithdrawalReversed",
		ID:            client.ReactionID(withdrawn, "reverse", 0),
		Data:          withdrawn.Data,
		Compensates:   withdrawn.ID,
		CausationID:   withdrawn.ID,
		CorrelationID: withdrawn.CorrelationID,
	}})
	return err
}

func ExampleDecide() {
	ctx := context.Background()
	c, err := client.New(client.Config{Nodes: []string{"http://127.0.0.1:7010"}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer c.Close()

	type account struct{ balance int }
	made, err := client.Decide(ctx, c, client.Decider[account]{
		Streams: []string{"account-42"},
		Fold: func(a *account, e *event.Event) error {
			var data struct{ Amount int }
			if err := json.Unmarshal(e.Data, &data); err != nil {
				return err
			}
			if e.Type == "FundsWithdrawn" {
				data.Amount = -data.Amount
			}
			a.balance += data.Amount
			return nil
		},
		Decide: func(a *account) ([]event.Event, error) {
			if a.balance < 30 {
				return nil, errors.New("no funds")
			}
			return []event.Event{{Type: "FundsWithdrawn", Data: []byte(`{"amount":30}`)}}, nil
		},
	})
	fmt.Println(made.Result.Version, err)
}

// Print each deposit, also over restarts of the program.
func ExampleClient_Subscribe() {
	ctx := context.Background()
	c, err := client.New(client.Config{Nodes: []string{"http://127.0.0.1:7010"}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer c.Close()

	print := func(_ context.Context, events []event.Event) error {
		for i := range events {
			fmt.Println(events[i].Stream, string(events[i].Data))
		}
		return nil
	}
	deposits := event.Filter{Query: event.Query{Items: []event.QueryItem{{Types: []string{"FundsDeposited"}}}}}
	err = c.Subscribe(ctx, client.AtLeastOnce(client.CheckpointFile("deposits.checkpoint"), print), client.SubscribeOptions{Filter: deposits})
	fmt.Fprintln(os.Stderr, err)
}

func TestPatterns(t *testing.T) {
	_, _, _, _ = withdraw, claim, react, undo
	var _ client.Subscriber = (*balances)(nil)
	here, err := os.ReadFile("patterns_test.go")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../docs/patterns.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := 0
	for i, part := range strings.Split(string(text), "```go\n") {
		if i == 0 {
			continue
		}
		code, _, _ := strings.Cut(part, "```")
		if blocks++; !strings.Contains(string(here), code) {
			t.Errorf("this code of docs/patterns.md is not compiled:\n%s", code)
		}
	}
	if blocks < 5 {
		t.Errorf("%d pieces of code were found in docs/patterns.md", blocks)
	}
}
