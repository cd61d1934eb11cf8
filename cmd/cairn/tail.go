package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"cairn/client"
)

// tailFlags are the flags of `cairn tail`.
type tailFlags struct {
	filters   filterFlags
	all       bool
	after     uint64
	fromStart bool
	now       bool
	limit     int
	raw       bool
	full      bool
}

func (a *app) newTail() *cobra.Command {
	var f tailFlags
	cmd := &cobra.Command{
		Use:   "tail [STREAM]",
		Short: "Follow a stream, or all, and print events as they come",
		Long: `Follow a stream, or all of them, and print each event once, in order, as it is
appended. Ctrl-C ends it. When a node goes away it goes on at another.

It begins with the next event (--now), after a position (--after), or at the
first event there is (--from-start).`,
		Example: `  cairn tail
  cairn tail account-42 --from-start
  cairn tail --type FundsDeposited --tag customer:9
  cairn tail --after 812 --output json | my-program`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.tail(cmd, args, &f) },
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.now, "now", false, "begin with the next event (the default)")
	flags.Uint64Var(&f.after, "after", 0, "begin after this position")
	flags.BoolVar(&f.fromStart, "from-start", false, "begin with the first event")
	flags.IntVarP(&f.limit, "limit", "n", 0, "end after that many events; 0 = never")
	flags.BoolVarP(&f.all, "all", "a", false, "follow all streams (the default without STREAM)")
	rawFlag(cmd, &f.raw)
	fullFlag(cmd, &f.full)
	f.filters.register(cmd, false)
	return cmd
}

func (a *app) tail(cmd *cobra.Command, args []string, f *tailFlags) error {
	filter, err := f.filters.filter(cmd)
	if err != nil {
		return err
	}
	stream, err := streamOrAll(cmd, args, f.all, &filter)
	if err != nil {
		return err
	}
	starts := 0
	for _, name := range []string{"now", "after", "from-start"} {
		if cmd.Flags().Changed(name) {
			starts++
		}
	}
	if starts > 1 {
		return usagef(cmd, "give one of --now, --after and --from-start")
	}
	ctx := cmd.Context()
	c, _, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	filter.Stream = stream
	o := client.FollowOptions{Filter: filter, After: f.after, Raw: f.raw}
	if starts == 0 || f.now {
		if o.After, o.Log, err = c.Position(ctx); err != nil {
			return err
		}
	}
	err = a.follow(ctx, c, o, a.newEventWriter(stream != "", f.full), f.limit)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil // Ctrl-C is how it is meant to end
	}
	return err
}

// follow prints events as they come. While there is history to catch up with
// it writes in large pieces, and each event at once from then on.
func (a *app) follow(ctx context.Context, c *client.Client, o client.FollowOptions, w *eventWriter, limit int) error {
	live, lost := false, false
	said := func(format string, args ...any) {
		if a.text() && isTerminal(a.stderr) {
			fmt.Fprintf(a.stderr, format+"\n", args...)
		}
	}
	var flushErr error
	o.CaughtUp = func(position uint64) {
		flushErr = w.flush()
		if !live {
			said("cairn: up to date at position %d, waiting for more; Ctrl-C ends", position)
		} else if lost {
			said("cairn: connected again")
		}
		live, lost = true, false
	}
	o.Interrupted = func(err error) {
		flushErr = errors.Join(flushErr, w.flush())
		if !lost && ctx.Err() == nil {
			said("cairn: lost the connection (%s), trying again", oneLine(lastLine(err)))
		}
		lost = true
	}
	defer func() { _ = w.flush() }()
	n := 0
	for e, err := range c.Follow(ctx, o) {
		if err == nil {
			err = w.write(&e)
		}
		if err == nil && live {
			err = w.flush()
		}
		if err = errors.Join(flushErr, err); err != nil {
			return err
		}
		if n++; n == limit {
			break
		}
	}
	return w.flush()
}
