package main

import (
	"context"
	"fmt"
	"iter"

	"github.com/spf13/cobra"

	"cairn/client"
	"cairn/event"
)

// readFlags are the flags of `cairn read`.
type readFlags struct {
	filters     filterFlags
	all         bool
	from        uint64
	position    uint64
	limit       int
	desc, local bool
	raw         bool
	full        bool
}

func (a *app) newRead() *cobra.Command {
	var f readFlags
	cmd := &cobra.Command{
		Use:   "read [STREAM]",
		Short: "Read the events of a stream, or of all",
		Long: `Read the events of a stream, or with --all or any filter those of all streams.

It reads what every node agrees on at this moment; --local asks one node for
what it has. Events are brought to the newest schema of their type, unless --raw
is given.`,
		Example: `  cairn read account-42
  cairn read account-42 --desc --limit 1
  cairn read --all --from 1000 --limit 50
  cairn read --type FundsDeposited --tag customer:9 --since 2026-01-01T00:00:00Z
  cairn read --position 812 --output json`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.read(cmd, args, &f) },
	}
	flags := cmd.Flags()
	flags.BoolVarP(&f.all, "all", "a", false, "read all streams, also the store's own, whose names begin with '$'")
	flags.Uint64Var(&f.from, "from", 0, "begin with this version of the stream, or this position of all")
	flags.IntVarP(&f.limit, "limit", "n", 0, "at most that many events; 0 = all")
	flags.BoolVar(&f.desc, "desc", false, "newest first")
	flags.Uint64Var(&f.position, "position", 0, "read the one event at this position")
	flags.BoolVar(&f.local, "local", false, "what one node has, without asking the others")
	rawFlag(cmd, &f.raw)
	fullFlag(cmd, &f.full)
	f.filters.register(cmd, true)
	return cmd
}

func rawFlag(cmd *cobra.Command, raw *bool) {
	cmd.Flags().BoolVar(raw, "raw", false, "events as they are stored, not brought to the newest schema")
}

func (a *app) read(cmd *cobra.Command, args []string, f *readFlags) error {
	filter, err := f.filters.filter(cmd)
	if err != nil {
		return err
	}
	stream, err := streamOrAll(cmd, args, f.all, &filter)
	switch {
	case err != nil:
		return err
	case f.limit < 0:
		return usagef(cmd, "--limit must be 0 or more")
	case f.position > 0 && (stream != "" || f.all || !filter.IsZero()):
		return usagef(cmd, "--position names one event; give nothing else")
	case stream == "" && f.position == 0 && !f.all && filter.IsZero():
		return usagef(cmd, "name a stream, or give --all")
	case stream == "" && f.desc && f.from > 0:
		return usagef(cmd, "all streams are read with --from or with --desc, not with both")
	}
	c, _, err := a.connect(cmd.Context())
	if err != nil {
		return err
	}
	defer c.Close()
	return printEvents(f.events(cmd.Context(), c, stream, filter), a.newEventWriter(stream != "", f.full))
}

func (f *readFlags) events(ctx context.Context, c *client.Client, stream string, filter event.Filter) iter.Seq2[event.Event, error] {
	o := client.ReadOptions{Limit: f.limit, Descending: f.desc, Local: f.local, Raw: f.raw}
	switch {
	case f.position > 0 && f.raw:
		return storedAt(c.AllEvents(ctx, event.Filter{}, client.ReadOptions{After: f.position - 1, Limit: 1, Raw: true}), f.position)
	case f.position > 0:
		return func(yield func(event.Event, error) bool) { yield(c.Event(ctx, f.position)) }
	case stream != "":
		o.From = f.from
		return c.AllOfStream(ctx, stream, o)
	}
	if f.from > 0 {
		o.After = f.from - 1
	}
	return c.AllEvents(ctx, filter, o)
}

// storedAt gives the first of events, which must stand at a position.
func storedAt(events iter.Seq2[event.Event, error], position uint64) iter.Seq2[event.Event, error] {
	return func(yield func(event.Event, error) bool) {
		for e, err := range events {
			if err != nil || e.Position == position {
				yield(e, err)
				return
			}
		}
		yield(event.Event{}, fmt.Errorf("there is no event at position %d", position))
	}
}

// printEvents writes events until they end. What came before an error is
// written too.
func printEvents(events iter.Seq2[event.Event, error], w *eventWriter) error {
	for e, err := range events {
		if err == nil {
			err = w.write(&e)
		}
		if err != nil {
			_ = w.flush()
			return err
		}
	}
	return w.flush()
}
