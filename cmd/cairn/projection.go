package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"cairn/client"
)

func (a *app) newProjection() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "projection",
		Short: "Define projections and read their rows",
		Long: `Define projections and read their rows.

A projection folds events into rows, each a JSON object, and may guard them:
an append that would break a rule is refused. See docs/projections.md.`,
		Example: `  cairn projection apply -f account.yaml
  cairn projection status account
  cairn projection rows account --prefix account-4`,
	}
	group(cmd)
	cmd.AddCommand(a.newProjectionApply(), a.newProjectionList(), a.newProjectionStatus(), a.newProjectionDelete(), a.newProjectionRows())
	return cmd
}

func (a *app) newProjectionList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List projections and how far each is",
		Long:  "List the projections there are, with the state of each on the node asked.",
		Example: `  cairn projection list
  cairn projection list --output json | jq -r .name`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.withClient(cmd.Context(), a.projectionList) },
	}
}

func (a *app) projectionList(ctx context.Context, c *client.Client) error {
	list, err := c.Projections(ctx)
	if err != nil {
		return err
	}
	if !a.text() {
		for i := range list {
			if err := a.printJSON(&list[i]); err != nil {
				return err
			}
		}
		return nil
	}
	t := newTable(a.stdout, column{"PROJECTION", false}, column{"STATE", false}, column{"GUARDS", false}, column{"SINCE", true},
		column{"POSITION", true}, column{"HEAD", true}, column{"FAILED", true}, column{"GENERATION", true}, column{"NEXT", false})
	for i := range list {
		p := &list[i]
		next := ""
		if p.Next != nil {
			next = stateText(p.Next)
		}
		err := t.row(cell{p.Name, cyan}, cell{stateText(p), lookOf(p)}, cell{yesNo(p.Guarding), plain}, cell{orDash(p.Since), plain},
			cell{strconv.FormatUint(p.Position, 10), plain}, cell{strconv.FormatUint(p.Head, 10), dim}, failedCell(p.Rows.Failed),
			cell{strconv.FormatUint(p.Generation, 10), dim}, cell{next, yellow})
		if err != nil {
			return err
		}
	}
	return t.flush()
}

// stateText is the state of a generation, with how much is built.
func stateText(p *client.Projection) string {
	if p.State == client.StateLive {
		return p.State
	}
	return fmt.Sprintf("%s %.0f %%", p.State, 100*p.Progress)
}

func lookOf(p *client.Projection) string {
	if p.State == client.StateLive {
		return green
	}
	return yellow
}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}

func orDash(n uint64) string {
	if n == 0 {
		return "-"
	}
	return strconv.FormatUint(n, 10)
}

func failedCell(n uint64) cell {
	if n > 0 {
		return cell{strconv.FormatUint(n, 10), red}
	}
	return cell{"0", plain}
}

func (a *app) newProjectionStatus() *cobra.Command {
	return &cobra.Command{
		Use:   "status NAME",
		Short: "Show a projection: how far it is, what failed, its definition",
		Long: `Show a projection as the node asked has it: what it is live or guards from, how
far it is folded, which rows stopped and why, its definition, and the
generation that is built to replace it, if there is one.`,
		Example: `  cairn projection status account
  cairn projection status account --output json | jq .definition`,
		Args: oneProjection,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				p, err := c.Projection(ctx, args[0])
				if err != nil {
					return explainProjection(args[0], err)
				}
				if !a.text() {
					return a.printJSON(&p)
				}
				return a.showProjection(&p)
			})
		},
	}
}

func oneProjection(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usagef(cmd, "%s takes the name of one projection; 'cairn projection list' lists them", cmd.Name())
	}
	return nil
}

// explainProjection says what an error of a projection means.
func explainProjection(name string, err error) error {
	var p *client.Problem
	if client.IsNotFound(err) {
		return fmt.Errorf("there is no projection %q; 'cairn projection list' lists them", name)
	}
	if client.IsBuilding(err) && errors.As(err, &p) {
		return fmt.Errorf("projection %q is being built, %.0f %% so far; see 'cairn projection status %s'", name, 100*p.Progress, name)
	}
	return err
}

func (a *app) showProjection(p *client.Projection) error {
	fmt.Fprintf(a.stdout, "%s, %s\n", printable(p.Name), generationText(p))
	if p.Next != nil {
		fmt.Fprintf(a.stdout, "to be replaced by %s\n", generationText(p.Next))
	}
	definition := p.Definition.Clone()
	if err := definition.Indent(jsontext.WithIndent("  ")); err != nil {
		return fmt.Errorf("definition: %w", err)
	}
	if _, err := fmt.Fprintf(a.stdout, "\n%s\n", printableLines(string(definition))); err != nil || p.Rows.Failed == 0 {
		return err
	}
	fmt.Fprintf(a.stdout, "\n%s stopped, each at an event that could not be folded:\n", counted(p.Rows.Failed, "row"))
	t := newTable(a.stdout, column{"ROW", false}, column{"POSITION", true}, column{"REASON", false})
	t.limit = 0
	for _, f := range p.Failures {
		if err := t.row(cell{f.Key, cyan}, cell{strconv.FormatUint(f.Position, 10), plain}, cell{f.Reason, red}); err != nil {
			return err
		}
	}
	return t.flush()
}

// generationText says what a generation is and how far.
func generationText(p *client.Projection) string {
	s := fmt.Sprintf("generation %d: %s", p.Generation, stateText(p))
	if p.Since > 0 {
		s += fmt.Sprintf(" since position %d", p.Since)
	}
	if p.Guarding && p.State == client.StateLive {
		s += ", guarding from there on"
	} else if p.Guarding {
		s += ", not guarding yet"
	}
	return s + fmt.Sprintf("; folded to %d of %d", p.Position, p.Head)
}

func (a *app) newProjectionDelete() *cobra.Command {
	return &cobra.Command{
		Use:   "delete NAME",
		Short: "Delete a projection, with its rows and guards",
		Long: `Delete a projection, with its rows. Its guards hold no longer. The events stay,
so that it can be defined again at any time.`,
		Example: `  cairn projection delete account`,
		Args:    oneProjection,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				if err := c.DeleteProjection(ctx, args[0]); err != nil {
					return explainProjection(args[0], err)
				}
				if !a.text() {
					return a.printJSON(map[string]string{"deleted": args[0]})
				}
				_, err := fmt.Fprintf(a.stdout, "%s is deleted, its rows are gone and its guards hold no longer\n", printable(args[0]))
				return err
			})
		},
	}
}

// rowsFlags are the flags of `cairn projection rows`.
type rowsFlags struct {
	prefix, after string
	limit         int
	moment        momentFlags
	full          bool
}

func (a *app) newProjectionRows() *cobra.Command {
	var f rowsFlags
	cmd := &cobra.Command{
		Use:   "rows NAME",
		Short: "Read the rows of a projection, as they are or were",
		Long: `Read the rows of a projection, in the order of their keys, all as of one
position: now, or the moment given.`,
		Example: `  cairn projection rows account
  cairn projection rows account --prefix account-4 --limit 10
  cairn projection rows account --at 2026-01-01T00:00:00Z --output json`,
		Args: oneProjection,
		RunE: func(cmd *cobra.Command, args []string) error { return a.projectionRows(cmd, args[0], &f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.prefix, "prefix", "", "only rows whose keys begin so")
	flags.StringVar(&f.after, "after", "", "begin after this key")
	flags.IntVarP(&f.limit, "limit", "n", 0, "at most that many; 0 = all")
	f.moment.register(cmd, false)
	fullFlag(cmd, &f.full)
	return cmd
}

func (a *app) projectionRows(cmd *cobra.Command, name string, f *rowsFlags) error {
	if f.limit < 0 {
		return usagef(cmd, "--limit must be 0 or more")
	}
	o := client.RowsOptions{Prefix: f.prefix, After: f.after, Limit: f.limit}
	var err error
	if o.StateOptions, err = f.moment.options(cmd); err != nil {
		return err
	}
	c, _, err := a.connect(cmd.Context())
	if err != nil {
		return err
	}
	defer c.Close()
	t := newTable(a.stdout, column{"ROW", false}, column{"EVENTS", true}, column{"POSITION", true}, column{"STATE", false})
	if f.full {
		t.limit = 0
	}
	text := a.text()
	for row, err := range c.Rows(cmd.Context(), name, o) {
		switch {
		case err != nil:
			err = explainProjection(name, err)
		case text:
			state := cell{string(row.State), plain}
			if row.Failed != nil {
				state = cell{fmt.Sprintf("stopped at %d (%s): %s", row.Failed.Position, row.Failed.Reason, row.State), red}
			}
			err = t.row(cell{row.Key, cyan}, cell{strconv.FormatUint(row.Events, 10), plain}, cell{strconv.FormatUint(row.Position, 10), dim}, state)
		default:
			_, err = t.w.Write(append(rowJSON(&row), '\n'))
		}
		if err != nil {
			_ = t.flush()
			return err
		}
	}
	return t.flush()
}

// rowJSON is a row of a list, as JSON.
func rowJSON(r *client.Row) []byte {
	b := quote([]byte(`{"key":`), r.Key)
	b = append(append(b, `,"state":`...), r.State...)
	b = strconv.AppendUint(append(b, `,"events":`...), r.Events, 10)
	b = strconv.AppendUint(append(b, `,"position":`...), r.Position, 10)
	if r.Failed != nil {
		b = strconv.AppendUint(append(b, `,"failed":{"position":`...), r.Failed.Position, 10)
		b = append(quote(append(b, `,"reason":`...), r.Failed.Reason), '}')
	}
	b = strconv.AppendUint(append(b, `,"as_of":`...), r.AsOf, 10)
	return append(strconv.AppendUint(append(b, `,"generation":`...), r.Generation, 10), '}')
}

// quote appends s as a JSON string.
func quote(dst []byte, s string) []byte {
	dst, _ = jsontext.AppendQuote(dst, s) // the error says only that what is not UTF-8 was replaced
	return dst
}
