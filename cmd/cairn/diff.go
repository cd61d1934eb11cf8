package main

import (
	"bufio"
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"cairn/client"
	"cairn/event"
)

func (a *app) newDiff() *cobra.Command {
	var s subject
	var from, to string
	var full bool
	cmd := &cobra.Command{
		Use:   "diff STREAM|ROW",
		Short: "Show what changed in a state between two moments",
		Long: `Show which members of a state differ between two moments, with the old and the
new value: of a row with --projection, else of a stream, whose state is the data
of its events merged.

A moment is a time, a version of the stream such as v3, or a position of the log
such as p812. Without --from it is the time before the first event, without --to
it is now. Members are named as JSON pointers (RFC 6901).`,
		Example: `  cairn diff account-42 --from 2026-01-01T00:00:00Z
  cairn diff account-42 --from v3 --to v7
  cairn diff account-42 --projection account --from p812 --output json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := s.take(cmd, args); err != nil {
				return err
			}
			var moments [2]client.StateOptions
			for i, text := range []string{from, to} {
				var err error
				if moments[i], err = parseMoment(text); err != nil {
					return usagef(cmd, "--%s: %v", []string{"from", "to"}[i], err)
				}
			}
			return a.withClient(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				d, err := compare(ctx, c, &s, moments[0], moments[1], from == "")
				if err != nil {
					return s.explain(err)
				}
				return a.printDiff(&s, d, full)
			})
		},
	}
	subjectFlag(cmd, &s)
	cmd.Flags().StringVar(&from, "from", "", "the earlier moment")
	cmd.Flags().StringVar(&to, "to", "", "the later moment")
	fullFlag(cmd, &full)
	return cmd
}

// parseMoment reads a moment: a time, v and a version, p and a position, or
// nothing, which is now.
func parseMoment(s string) (client.StateOptions, error) {
	var o client.StateOptions
	if s == "" {
		return o, nil
	}
	if n, err := strconv.ParseUint(s[1:], 10, 64); err == nil && n > 0 {
		switch s[0] {
		case 'v':
			o.AtVersion = n
			return o, nil
		case 'p':
			o.AtPosition = n
			return o, nil
		}
	}
	ns, err := event.ParseTime(s)
	if err != nil {
		return o, fmt.Errorf("%w, a version such as v3 or a position such as p812", err)
	}
	o.AtTime = time.Unix(0, ns)
	return o, nil
}

// difference is what differs between a state at two moments.
type difference struct {
	from, to stateAt
	changes  []change
}

// compare reads a state at two moments. Before its first event there is none.
func compare(ctx context.Context, c *client.Client, s *subject, from, to client.StateOptions, fromNothing bool) (difference, error) {
	var d difference
	var err error
	if d.to, err = s.read(ctx, c, to); err != nil {
		return d, err
	}
	if !fromNothing {
		if d.from, err = s.read(ctx, c, from); err != nil && !client.IsNotFound(err) {
			return d, err
		}
		if before, after := d.from.generation, d.to.generation; err == nil && before != after {
			return d, fmt.Errorf("projection %s is defined anew since the first of the two states was read: run it again", s.projection)
		}
	}
	d.changes, err = changes(d.from.state, d.to.state)
	if d.from.state == nil && err == nil {
		// Its members are new, each by itself.
		d.changes, err = changes([]byte(`{}`), d.to.state)
	}
	return d, err
}

func (a *app) printDiff(s *subject, d difference, full bool) error {
	if !a.text() {
		return a.printDiffJSON(s, d)
	}
	if len(d.changes) == 0 {
		_, err := fmt.Fprintf(a.stdout, "nothing changed in %s: %s, then %s\n", printable(s.key), counted(d.from.events, "event"), counted(d.to.events, "event"))
		return err
	}
	t := newTable(a.stdout, column{"MEMBER", false}, column{"OLD", false}, column{"NEW", false})
	if full {
		t.limit = 0
	}
	for _, c := range d.changes {
		path, old := c.path, string(c.old)
		if path == "" {
			path = "(all)"
		}
		if !full {
			old = cut(old, 48) // the last column is cut by the table
		}
		if err := t.row(cell{path, cyan}, cell{old, red}, cell{string(c.new), green}); err != nil {
			return err
		}
	}
	return t.flush()
}

func (a *app) printDiffJSON(s *subject, d difference) error {
	w := bufio.NewWriter(a.stdout)
	_, _ = w.Write(quote([]byte(`{"key":`), s.key)) // an error stays with w
	for i, st := range []*stateAt{&d.from, &d.to} {
		fmt.Fprintf(w, `,%q:{"events":%d,"position":%d}`, []string{"from", "to"}[i], st.events, st.position)
	}
	_, _ = w.WriteString(`,"changes":`)
	if err := writeChanges(w, d.changes); err != nil {
		return err
	}
	_, _ = w.WriteString("}\n")
	return w.Flush()
}
