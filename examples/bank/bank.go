package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"time"

	"cairn/client"
	"cairn/event"
	"cairn/examples/internal/define"
)

//go:embed account.yaml
var accountYAML []byte

// bank moves money. It reads nothing before it appends: the guards of the
// projection account decide, where all appends have one order. Its methods may
// be called by any number of goroutines.
type bank struct{ c *client.Client }

// open returns when the guards hold.
func open(ctx context.Context, c *client.Client) (*bank, error) {
	return &bank{c}, define.Apply(ctx, c, accountYAML)
}

// deposit adds to an account.
func (b *bank) deposit(ctx context.Context, account string, amount int64) error {
	_, err := b.c.Append(ctx, account, []event.Event{moved("FundsDeposited", account, amount)})
	return err
}

// withdraw takes from an account. If there is not that much, the error is one
// for which client.IsGuardFailed holds.
func (b *bank) withdraw(ctx context.Context, account string, amount int64) error {
	_, err := b.c.Append(ctx, account, []event.Event{moved("FundsWithdrawn", account, amount)})
	return err
}

// transfer moves money between two accounts. Both events are one append: either
// both are in the log or none.
func (b *bank) transfer(ctx context.Context, from, to string, amount int64) error {
	_, err := b.c.AppendMany(ctx, event.Append{Events: []event.Event{
		moved("FundsWithdrawn", from, amount),
		moved("FundsDeposited", to, amount),
	}})
	return err
}

func moved(typ, account string, amount int64) event.Event {
	return event.Event{Stream: account, Type: typ, Data: fmt.Appendf(nil, `{"amount":%d}`, amount)}
}

// balance returns what an account held at a time; the zero time means now.
func (b *bank) balance(ctx context.Context, account string, at time.Time) (int64, error) {
	row, err := b.c.Row(ctx, "account", account, client.StateOptions{AtTime: at})
	if err != nil {
		return 0, err
	}
	return balanceOf(row.State)
}

// balances returns what all accounts held as of one position, 0 = now, and
// which position that is.
func (b *bank) balances(ctx context.Context, position uint64) (accounts map[string]int64, asOf uint64, err error) {
	accounts = make(map[string]int64)
	for row, err := range b.c.Rows(ctx, "account", client.RowsOptions{StateOptions: client.StateOptions{AtPosition: position}}) {
		if err != nil {
			return nil, 0, err
		}
		if accounts[row.Key], err = balanceOf(row.State); err != nil {
			return nil, 0, err
		}
		asOf = row.AsOf
	}
	return accounts, asOf, nil
}

func balanceOf(state []byte) (int64, error) {
	var form struct {
		Balance int64 `json:"balance"`
	}
	err := json.Unmarshal(state, &form)
	return form.Balance, err
}
