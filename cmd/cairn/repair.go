package main

import (
	"fmt"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/spf13/cobra"

	"cairn/client"
	"cairn/offline"
)

func (a *app) newRepair() *cobra.Command {
	var dir string
	var from []string
	cmd := &cobra.Command{
		Use:   "repair",
		Short: "Fetch a stopped node's damaged segments from another node",
		Long: `Read all segments of a stopped node and fetch those that are damaged or missing
from a running node of its cluster. What comes is verified before it takes the
damaged one's place.

A running node repairs its sealed segments by itself; this is for one that
refuses to start.`,
		Example: `  cairn repair --from 10.0.0.2:7070
  cairn repair --data /var/lib/cairn/node-1 --from 10.0.0.2:7070,10.0.0.3:7070`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.repair(cmd, dir, from) },
	}
	dataFlag(cmd, &dir)
	cmd.Flags().StringSliceVar(&from, "from", nil, "address of a node to fetch from; repeatable")
	return cmd
}

func (a *app) repair(cmd *cobra.Command, dir string, from []string) error {
	if len(from) == 0 {
		return usagef(cmd, "--from is needed: the address of a running node of the cluster")
	}
	o := offline.RepairOptions{FS: vfs.Default, Dir: dir}
	for _, url := range from {
		files, err := client.NewFiles(url, nil)
		if err != nil {
			return usagef(cmd, "--from: %s", strings.TrimPrefix(err.Error(), "client: "))
		}
		o.From = append(o.From, files)
	}
	bar := newProgress(a.stderr, 0)
	o.Progress = showStage(bar)
	r, err := offline.Repair(cmd.Context(), o)
	bar.clear()
	if err != nil {
		return err
	}
	if !a.text() {
		return a.printJSON(r)
	}
	for _, name := range r.Segments {
		if _, err := fmt.Fprintf(a.stdout, "fetched %s\n", printable(name)); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(a.stdout, "the log is whole up to position %s: %s repaired; 'cairn check' looks at the rest\n", thousands(r.Position), counted(len(r.Segments), "segment"))
	return err
}
