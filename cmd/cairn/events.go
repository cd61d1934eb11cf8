package main

import (
	"bufio"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cairn/event"
)

// eventWriter writes events, as a table for people or as NDJSON.
type eventWriter struct {
	table     *table // nil = NDJSON
	oneStream bool   // all events are of one stream, which need not be named
	w         *bufio.Writer
	buf       []byte
}

// newEventWriter returns a writer to stdout. Full shows events whole that are
// wider than the terminal.
func (a *app) newEventWriter(oneStream, full bool) *eventWriter {
	w := &eventWriter{oneStream: oneStream, w: bufio.NewWriterSize(a.stdout, 64<<10)}
	if a.text() {
		columns := []column{{"POSITION", true}, {"STREAM", false}, {"VERSION", true}}
		if oneStream {
			columns = []column{{"VERSION", true}, {"POSITION", true}}
		}
		w.table = newTable(a.stdout, append(columns, column{"TIME", false}, column{"TYPE", false}, column{"DATA", false})...)
		if full {
			w.table.limit = 0
		}
	}
	return w
}

func (w *eventWriter) write(e *event.Event) error {
	if w.table == nil {
		w.buf = append(event.AppendJSON(w.buf[:0], e), '\n')
		_, err := w.w.Write(w.buf)
		return err
	}
	position := cell{strconv.FormatUint(e.Position, 10), dim}
	version := cell{strconv.FormatUint(e.Version, 10), plain}
	cells := []cell{version, position}
	if !w.oneStream {
		cells = []cell{position, {e.Stream, cyan}, version}
	}
	return w.table.row(append(cells, cell{time.Unix(0, e.Time).UTC().Format("2006-01-02T15:04:05.000Z"), dim},
		cell{e.Type, bold}, cell{content(e), plain})...)
}

func (w *eventWriter) flush() error {
	if w.table != nil {
		return w.table.flush()
	}
	return w.w.Flush()
}

// content shows what an event carries.
func content(e *event.Event) string {
	var b strings.Builder
	if e.ContentType == "" {
		b.Write(e.Data)
	} else {
		fmt.Fprintf(&b, "<%s, %s>", e.ContentType, counted(len(e.Data), "byte"))
	}
	for _, tag := range e.Tags {
		b.WriteString(" #" + tag)
	}
	return b.String()
}

// fullFlag registers the flag for newEventWriter.
func fullFlag(cmd *cobra.Command, full *bool) {
	cmd.Flags().BoolVar(full, "full", false, "do not cut off what is wider than the terminal")
}

// filterFlags are the flags that choose events of all streams.
type filterFlags struct {
	types, tags            []string
	category, prefix       string
	correlation, causation string
	since, until           string
}

func (f *filterFlags) register(cmd *cobra.Command, withTimes bool) {
	flags := cmd.Flags()
	flags.StringArrayVar(&f.types, "type", nil, "only events of this type; repeatable: any of them")
	flags.StringArrayVar(&f.tags, "tag", nil, "only events with this tag; repeatable: all of them")
	flags.StringVar(&f.category, "category", "", "only streams of this category, what stands before the first '-'")
	flags.StringVar(&f.prefix, "prefix", "", "only streams whose names begin so")
	flags.StringVar(&f.correlation, "correlation-id", "", "only events with this correlation id")
	flags.StringVar(&f.causation, "causation-id", "", "only events with this causation id")
	if withTimes {
		flags.StringVar(&f.since, "since", "", "only events from this time on, such as 2026-01-31T09:30:00Z")
		flags.StringVar(&f.until, "until", "", "only events before this time")
	}
}

// filter returns what the flags ask for.
func (f *filterFlags) filter(cmd *cobra.Command) (event.Filter, error) {
	filter := event.Filter{Category: f.category, StreamPrefix: f.prefix, CorrelationID: f.correlation, CausationID: f.causation}
	if len(f.types)+len(f.tags) > 0 {
		filter.Query.Items = []event.QueryItem{{Types: f.types, Tags: f.tags}}
	}
	for _, t := range []struct {
		name, value string
		to          *int64
	}{{"since", f.since, &filter.FromTime}, {"until", f.until, &filter.ToTime}} {
		if t.value == "" {
			continue
		}
		ns, err := event.ParseTime(t.value)
		if err != nil {
			return filter, usagef(cmd, "--%s: %v", t.name, err)
		}
		*t.to = ns
	}
	return filter, nil
}

// streamOrAll returns the stream that a command is about, "" for all streams,
// which filters only make sense for.
func streamOrAll(cmd *cobra.Command, args []string, all bool, filter *event.Filter) (string, error) {
	switch {
	case len(args) > 1:
		return "", usagef(cmd, "%s takes one stream, not %d", cmd.Name(), len(args))
	case len(args) == 1 && all:
		return "", usagef(cmd, "name a stream or give --all, not both")
	case len(args) == 1 && !filter.IsZero():
		return "", usagef(cmd, "filters are for reading all streams; a stream is read whole")
	case len(args) == 0:
		return "", nil
	}
	if err := event.CheckStreamName(args[0]); err != nil {
		return "", usagef(cmd, "%v", err)
	}
	return args[0], nil
}
