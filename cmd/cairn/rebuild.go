package main

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/spf13/cobra"

	eventlog "cairn/log"
	"cairn/offline"
)

func (a *app) newRebuild() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "rebuild",
		Short: "Make a stopped node's state again from its log",
		Long: `Throw away the state of a stopped node, everything that is derived from its log,
and make it again: the index, the ids it knows, the tree. The log must be whole,
which 'cairn check' tells.

The new state is built beside the old one and takes its place when it is
complete; until then, and after a crash, the old one stays. It needs room for
both.`,
		Example: `  cairn rebuild
  cairn rebuild --data /var/lib/cairn/node-1`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.rebuild(cmd, dir) },
	}
	dataFlag(cmd, &dir)
	return cmd
}

func (a *app) rebuild(cmd *cobra.Command, dir string) error {
	bar := newProgress(a.stderr, 0)
	r, err := offline.Rebuild(cmd.Context(), offline.RebuildOptions{FS: vfs.Default, Dir: dir, Progress: showStage(bar)})
	bar.clear()
	var damage *eventlog.CorruptError
	if errors.As(err, &damage) {
		return fmt.Errorf("%w; fetch the segment from another node with 'cairn repair --from URL', then rebuild", err)
	}
	if err != nil {
		return err
	}
	if !a.text() {
		return a.printJSON(r)
	}
	if r.Position == 0 {
		_, err = fmt.Fprintln(a.stdout, "this node has no savepoint yet: its state is empty")
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "the state is rebuilt up to position %s of log %s; start the node\n", thousands(r.Position), printable(r.LogID))
	return err
}
