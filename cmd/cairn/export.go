package main

import (
	"bufio"

	"github.com/spf13/cobra"

	"cairn/client"
	"cairn/event"
)

func (a *app) newExport() *cobra.Command {
	var prefix string
	cmd := &cobra.Command{
		Use:   "export [STREAM]",
		Short: "Write events as NDJSON, in the form that import takes",
		Long: `Write the events of a stream, or of all, to stdout: NDJSON, one event a line, in
the order of the log, in the form that 'cairn import' takes. The events keep
their ids; positions, versions and times are given anew where they are imported.

Events are written as they are stored, with the numbers of their schemas: register
the schemas where they are imported first. The store's own streams, whose names
begin with '$', are left out.`,
		Example: `  cairn export > all.ndjson
  cairn export account-42 > account-42.ndjson
  cairn export --prefix account- | gzip > accounts.ndjson.gz`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.export(cmd, args, prefix) },
	}
	cmd.Flags().StringVar(&prefix, "prefix", "", "only streams whose names begin so")
	return cmd
}

func (a *app) export(cmd *cobra.Command, args []string, prefix string) error {
	filter := event.Filter{StreamPrefix: prefix}
	stream, err := streamOrAll(cmd, args, false, &filter)
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	c, _, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	stored := client.ReadOptions{Raw: true} // what is imported is what was appended
	events := c.AllEvents(ctx, filter, stored)
	if stream != "" {
		events = c.AllOfStream(ctx, stream, stored)
	}
	w := bufio.NewWriterSize(a.stdout, 64<<10)
	bar := newProgress(a.stderr, 0)
	bar.shown = bar.shown && !isTerminal(a.stdout)
	defer bar.clear()
	var buf []byte
	n := 0
	for e, err := range events {
		if err == nil && event.IsSystem(e.Stream) {
			continue
		}
		if err == nil {
			if buf, err = client.EncodeEvent(buf[:0], &e); err == nil {
				_, err = w.Write(append(buf, '\n'))
			}
		}
		if err != nil {
			_ = w.Flush()
			return err
		}
		n++
		bar.update(n, 0)
	}
	if bar.shown {
		bar.say("%s exported", counted(n, "event"))
	}
	return w.Flush()
}
