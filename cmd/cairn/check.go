package main

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/spf13/cobra"

	"cairn/cluster"
	"cairn/offline"
)

// cannotError says that a check could not be made, which is neither good nor
// bad news about the data.
type cannotError struct{ err error }

func (e *cannotError) Error() string { return e.err.Error() }
func (e *cannotError) Unwrap() error { return e.err }

// dataFlag registers the folder that an offline command works on.
func dataFlag(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "data", "./data", "the node's data folder")
}

func (a *app) newCheck() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check every byte of a stopped node's data",
		Long: `Read all of a stopped node's data and check it: every checksum, every event's
digest, that nothing is missing up to the last savepoint, that the state is
exactly what the log gives, and that the newest snapshot and Raft's own log are
whole. The rows of projections are not looked at: 'cairn rebuild' makes them anew.
Nothing is changed. Each finding says what to do about it.

It exits with 0 if all is well, 1 if something is damaged, 2 if it could not look.`,
		Example: `  cairn check
  cairn check --data /var/lib/cairn/node-1
  cairn check --data /var/lib/cairn/node-1 -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.check(cmd, dir) },
	}
	dataFlag(cmd, &dir)
	return cmd
}

func (a *app) check(cmd *cobra.Command, dir string) error {
	bar := newProgress(a.stderr, 0)
	c, err := offline.Check(cmd.Context(), offline.CheckOptions{
		FS: vfs.Default, Dir: dir, Progress: showStage(bar), VerifyEntry: cluster.VerifyEntry,
	})
	bar.clear()
	if err != nil {
		return &cannotError{err}
	}
	if !a.text() {
		err = a.printJSON(&c)
	} else {
		err = a.printChecked(&c)
	}
	if err == nil && len(c.Findings) > 0 {
		err = &silentError{errors.New("damage was found")}
	}
	return err
}

func (a *app) printChecked(c *offline.Checked) error {
	if len(c.Findings) == 0 {
		_, err := fmt.Fprintf(a.stdout, "node %s is whole: log %s up to position %s, %s of segments, state, snapshot and Raft's log\n",
			printable(c.NodeID), printable(c.LogID), thousands(c.Position), counted(c.Bytes, "byte"))
		return err
	}
	t := newTable(a.stdout, column{"FILE", false}, column{"OFFSET", true}, column{"WHAT", false})
	t.limit = 0
	for _, f := range c.Findings {
		if err := t.row(cell{f.File, cyan}, cell{strconv.FormatInt(f.Offset, 10), plain}, cell{f.What, red}); err != nil {
			return err
		}
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, what := range c.Skipped {
		fmt.Fprintf(a.stdout, "not checked: %s\n", printable(what))
	}
	fmt.Fprintf(a.stdout, "\n%s, up to position %s. What to do, in this order:\n", counted(len(c.Findings), "finding"), thousands(c.Position))
	for _, do := range c.Remedies() {
		fmt.Fprintf(a.stdout, "  %s\n", do)
	}
	return nil
}

// showStage draws how far an offline command is.
func showStage(bar *progress) func(offline.Progress) {
	var stage string
	var next time.Time
	return func(p offline.Progress) {
		now := time.Now()
		if p.Stage == stage && now.Before(next) {
			return
		}
		stage, next = p.Stage, now.Add(100*time.Millisecond)
		switch {
		case p.Unit == "":
			bar.show(p.Stage)
		case p.Total == 0:
			bar.show(fmt.Sprintf("%s: %s %s", p.Stage, thousands(p.Done), p.Unit))
		default:
			bar.show(fmt.Sprintf("%s: %s of %s %s, %.0f %%", p.Stage, thousands(p.Done), thousands(p.Total), p.Unit,
				100*float64(p.Done)/float64(p.Total)))
		}
	}
}
