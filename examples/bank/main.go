// Command bank keeps accounts that can't be overdrawn, whoever withdraws and
// however many do at once: a guard in the log sees to it, not this program.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"time"

	"cairn/client"
)

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bank:", err)
		os.Exit(1)
	}
}

const usage = `Usage: bank [-node ADDRESS] COMMAND

  deposit ACCOUNT AMOUNT
  withdraw ACCOUNT AMOUNT
  transfer FROM TO AMOUNT
  balance ACCOUNT [TIME]    as of a time such as 2026-01-31T09:30:00Z
  list                      all accounts as of one position

An account is a stream such as account-42.`

func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("bank", flag.ContinueOnError)
	node := flags.String("node", "http://127.0.0.1:7070", "address of a node")
	flags.Usage = func() { fmt.Fprintln(flags.Output(), usage) }
	if err := flags.Parse(args); err != nil {
		return err
	}
	c, err := client.New(client.Config{Nodes: []string{*node}})
	if err != nil {
		return err
	}
	defer c.Close()
	b, err := open(ctx, c)
	if err != nil {
		return err
	}
	return b.command(ctx, flags.Args(), stdout)
}

func (b *bank) command(ctx context.Context, args []string, stdout io.Writer) error {
	name := ""
	if len(args) > 0 {
		name, args = args[0], args[1:]
	}
	switch {
	case name == "deposit" && len(args) == 2:
		return withAmount(args[1], func(amount int64) error { return b.deposit(ctx, args[0], amount) })
	case name == "withdraw" && len(args) == 2:
		return withAmount(args[1], func(amount int64) error { return b.withdraw(ctx, args[0], amount) })
	case name == "transfer" && len(args) == 3:
		return withAmount(args[2], func(amount int64) error { return b.transfer(ctx, args[0], args[1], amount) })
	case name == "balance" && (len(args) == 1 || len(args) == 2):
		var at time.Time
		if len(args) == 2 {
			var err error
			if at, err = time.Parse(time.RFC3339Nano, args[1]); err != nil {
				return err
			}
		}
		balance, err := b.balance(ctx, args[0], at)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(stdout, balance)
		return err
	case name == "list" && len(args) == 0:
		return b.list(ctx, stdout)
	}
	return errors.New("no such command; -help lists them")
}

func withAmount(text string, do func(amount int64) error) error {
	amount, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return err
	}
	return do(amount)
}

func (b *bank) list(ctx context.Context, stdout io.Writer) error {
	accounts, asOf, err := b.balances(ctx, 0)
	if err != nil {
		return err
	}
	total := int64(0)
	for _, account := range slices.Sorted(maps.Keys(accounts)) {
		fmt.Fprintf(stdout, "%-20s %10d\n", account, accounts[account])
		total += accounts[account]
	}
	_, err = fmt.Fprintf(stdout, "%-20s %10d as of position %d\n", "all", total, asOf)
	return err
}
