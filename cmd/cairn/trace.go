package main

import (
	"bufio"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cairn/client"
	"cairn/event"
)

func (a *app) newTrace() *cobra.Command {
	var full bool
	cmd := &cobra.Command{
		Use:   "trace CORRELATION-ID",
		Short: "Draw what caused what among correlated events",
		Long: `Draw the events that have a correlation id as a tree: below each event stand
those whose causation id is its id, with the time since the first of all.

An event whose cause has another correlation id, or none, begins a tree of its
own, with a note that names the cause. Where several events have the id of a
cause, it is the newest that stands before the effect.

Piped, it prints the events in the order of the tree, each with "depth", from 0,
and "cause_position" if its cause is among them.`,
		Example: `  cairn trace order-7
  cairn trace 0198c5b2-7f3a-7c11-9d0e-2f4b6a8c1e35 --full
  cairn trace order-7 --output json | jq 'select(.depth == 1)'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 || args[0] == "" {
				return usagef(cmd, "trace takes one correlation id, not %d", len(args))
			}
			return a.trace(cmd.Context(), args[0], full)
		},
	}
	fullFlag(cmd, &full)
	return cmd
}

func (a *app) trace(ctx context.Context, id string, full bool) error {
	c, _, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	var events []event.Event
	for e, err := range c.AllEvents(ctx, event.Filter{CorrelationID: id}, client.ReadOptions{}) {
		if err != nil {
			return err
		}
		events = append(events, e)
	}
	if len(events) == 0 {
		return fmt.Errorf("no event has the correlation id %q", id)
	}
	lines := traced(events)
	if a.text() {
		return a.drawTrace(lines, full)
	}
	w := bufio.NewWriter(a.stdout)
	for i := range lines {
		if err := lines[i].writeJSON(w); err != nil {
			return err
		}
	}
	return w.Flush()
}

// traceLine is an event and its place in the tree.
type traceLine struct {
	event   *event.Event
	parent  *traceLine   // its cause; nil = not among the events
	effects []*traceLine // in the order of the log
	depth   int
	last    bool // the last of its cause's effects
}

// traced returns events, which stand in the order of the log, in the order of
// the tree. A cause stands before its effects in the log, also where ids say
// otherwise, so that there are no cycles.
func traced(events []event.Event) []*traceLine {
	latest := make(map[string]*traceLine) // by id
	var roots []*traceLine
	for i := range events {
		line := &traceLine{event: &events[i]}
		if line.parent = latest[line.event.CausationID]; line.parent != nil {
			line.parent.effects = append(line.parent.effects, line)
			line.depth = line.parent.depth + 1
		} else {
			roots = append(roots, line)
		}
		latest[line.event.ID] = line
	}
	ordered := make([]*traceLine, 0, len(events))
	open := [][]*traceLine{roots} // what is to be placed yet, at each depth
	for len(open) > 0 {
		level := &open[len(open)-1]
		if len(*level) == 0 {
			open = open[:len(open)-1]
			continue
		}
		line := (*level)[0]
		*level = (*level)[1:]
		line.last = len(*level) == 0
		ordered = append(ordered, line)
		open = append(open, line.effects)
	}
	return ordered
}

func (a *app) drawTrace(lines []*traceLine, full bool) error {
	t := newTable(a.stdout, column{"EVENT", false}, column{"STREAM", false}, column{"VERSION", true},
		column{"POSITION", true}, column{"TIME", false}, column{"AFTER", true}, column{"DATA", false})
	if full {
		t.limit = 0
	}
	start := lines[0].event.Time // of the first root, the first of all
	for _, line := range lines {
		e := line.event
		err := t.row(cell{line.branch() + e.Type + line.note(), bold}, cell{e.Stream, cyan}, cell{strconv.FormatUint(e.Version, 10), plain},
			cell{strconv.FormatUint(e.Position, 10), dim}, cell{time.Unix(0, e.Time).UTC().Format("2006-01-02T15:04:05.000Z"), dim},
			cell{"+" + elapsed(time.Duration(e.Time-start)), plain}, cell{content(e), plain})
		if err != nil {
			return err
		}
	}
	return t.flush()
}

// elapsed writes a duration to about three digits.
func elapsed(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(time.Millisecond).String()
}

// branchLevels is to what depth branches are drawn; a chain that is deeper says
// how deep instead.
const branchLevels = 24

// branch is what stands before an event: a line from its cause.
func (l *traceLine) branch() string {
	if l.depth == 0 {
		return ""
	}
	if l.depth > branchLevels {
		return strings.Repeat("  ", branchLevels) + fmt.Sprintf("(%d) ", l.depth)
	}
	parts := make([]string, l.depth)
	parts[l.depth-1] = "├─ "
	if l.last {
		parts[l.depth-1] = "└─ "
	}
	for above := l.parent; above.depth > 0; above = above.parent {
		parts[above.depth-1] = "│  "
		if above.last {
			parts[above.depth-1] = "   "
		}
	}
	return strings.Join(parts, "")
}

// note says of an event without a cause here what its cause is.
func (l *traceLine) note() string {
	if l.parent != nil || l.event.CausationID == "" {
		return ""
	}
	return fmt.Sprintf(" (caused by %s, not found before it)", l.event.CausationID)
}

func (l *traceLine) writeJSON(w *bufio.Writer) error {
	b := strconv.AppendInt([]byte(`{"depth":`), int64(l.depth), 10)
	if l.parent != nil {
		b = strconv.AppendUint(append(b, `,"cause_position":`...), l.parent.event.Position, 10)
	}
	_, err := w.Write(append(b, ','))
	if err == nil {
		// The event's own members follow in the same object.
		_, err = w.Write(append(event.AppendJSON(nil, l.event)[1:], '\n'))
	}
	return err
}
