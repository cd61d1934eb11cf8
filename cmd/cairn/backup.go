package main

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/spf13/cobra"

	"cairn/backup"
	"cairn/client"
	"cairn/event"
	"cairn/snapshot"
)

func (a *app) newBackup() *cobra.Command {
	return &cobra.Command{
		Use:   "backup FOLDER",
		Short: "Copy the log of a running cluster into a folder",
		Long: `Copy every event that is committed when the command begins into a folder, while
the cluster goes on. Repeated into the same folder it copies only what is new:
sealed segments are copied once. Every segment is verified as it comes.

A backup that was broken off leaves the one before as it was, and the next one
goes on from there. 'cairn restore' makes a node of a backup.`,
		Example: `  cairn backup /backup/orders
  cairn backup /backup/orders --node 10.0.0.2:7070`,
		Args: exactly(1, "a folder"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.backup(cmd.Context(), args[0]) },
	}
}

// exactly wants n arguments.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usagef(cmd, "%s takes %s", cmd.Name(), what)
		}
		return nil
	}
}

// backedUp is what a backup says when it is done.
type backedUp struct {
	Folder      string  `json:"folder"`
	Log         string  `json:"log"`
	Position    uint64  `json:"position"`
	New         uint64  `json:"new_events"`
	Segments    int     `json:"segments"`
	Copied      int     `json:"segments_copied"`
	CopiedBytes int64   `json:"bytes_copied"`
	Seconds     float64 `json:"seconds"`
}

func (a *app) backup(ctx context.Context, folder string) error {
	nodes, err := a.fileNodes(ctx)
	if err != nil {
		return err
	}
	begun := time.Now()
	var copied snapshot.Progress
	bar := newProgress(a.stderr, 0)
	stop := bar.every(func() string {
		return fmt.Sprintf("copying: %s of %s", bytesText(copied.Fetched.Load()), bytesText(copied.Total.Load()))
	})
	s, err := backup.Run(ctx, backup.Options{FS: vfs.Default, Dir: folder, Nodes: nodes, Now: time.Now, Patience: 30 * time.Second, Progress: &copied})
	stop()
	if err != nil {
		return err
	}
	done := backedUp{
		Folder: folder, Log: s.Log, Position: s.Position, New: s.Position - s.EventsBefore, Segments: len(s.Segments),
		Copied: s.Copied, CopiedBytes: s.CopiedBytes, Seconds: math.Round(time.Since(begun).Seconds()*1000) / 1000,
	}
	if !a.text() {
		return a.printJSON(done)
	}
	_, err = fmt.Fprintf(a.stdout, "%s holds log %s up to position %s: %s new, %s copied in %.1f s\nrestore it with 'cairn restore %s --data FOLDER'\n",
		printable(folder), printable(s.Log), thousands(s.Position), counted(done.New, "event"), bytesText(s.CopiedBytes), done.Seconds, printable(folder))
	return err
}

// fileNodes returns readers of the files of the cluster's nodes: those that
// follow first, because the leader has the most to do.
func (a *app) fileNodes(ctx context.Context) ([]backup.Node, error) {
	c, cluster, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	members := slices.DeleteFunc(slices.Clone(cluster.Members), func(m client.Member) bool { return !m.Alive || m.HTTP == "" })
	slices.SortStableFunc(members, func(x, y client.Member) int {
		lead := func(m client.Member) int {
			if m.ID == cluster.Leader {
				return 1
			}
			return 0
		}
		return lead(x) - lead(y)
	})
	urls, _ := a.given()
	if !a.pin {
		urls = nil
		for _, m := range members {
			urls = append(urls, m.HTTP)
		}
	}
	var nodes []backup.Node
	for _, url := range urls {
		files, err := client.NewFiles(url, nil)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, files)
	}
	return nodes, nil
}

func (a *app) newRestore() *cobra.Command {
	var o backup.RestoreOptions
	var at string
	cmd := &cobra.Command{
		Use:   "restore BACKUP",
		Short: "Make a new node of a backup",
		Long: `Make the data folder of a new node of a backup, whole or up to a position or a
moment. An append that does not fit in whole is left out whole.

The node is a cluster of its own, with a new log id: whoever followed the old log
is told so instead of going on in another history. Start it, then start others
with empty folders and -join: they fetch everything from it.`,
		Example: `  cairn restore /backup/orders --data /var/lib/cairn/node-1
  cairn restore /backup/orders --data ./data --at 2026-05-04T12:00:00Z
  cairn restore /backup/orders --data ./data --at-position 41000`,
		Args: exactly(1, "a folder with a backup"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.From = args[0]
			if cmd.Flags().Changed("at-position") && o.Position == 0 {
				return usagef(cmd, "--at-position must be 1 or more")
			}
			if at != "" {
				ns, err := event.ParseTime(at)
				if err != nil {
					return usagef(cmd, "--at %v", err)
				}
				o.Time = time.Unix(0, ns)
			}
			return a.restore(cmd.Context(), o)
		},
	}
	dataFlag(cmd, &o.Data)
	cmd.Flags().Uint64Var(&o.Position, "at-position", 0, "restore nothing after this position")
	cmd.Flags().StringVar(&at, "at", "", "restore nothing younger than this moment (RFC 3339)")
	cmd.Flags().StringVar(&o.NodeID, "id", "", "name of the new node (default: a new one)")
	cmd.Flags().StringVar(&o.Raft, "raft", "127.0.0.1:7071", "where it will serve other nodes; may change later")
	return cmd
}

func (a *app) restore(ctx context.Context, o backup.RestoreOptions) error {
	bar := newProgress(a.stderr, 0)
	o.FS, o.Now = vfs.Default, time.Now
	var next time.Time
	o.Progress = func(step string, position, last uint64) {
		if now := time.Now(); now.After(next) {
			next = now.Add(100 * time.Millisecond)
			bar.show(fmt.Sprintf("%s: %s of %s events", step, thousands(position), thousands(last)))
		}
	}
	var err error
	if o.Data, err = filepath.Abs(o.Data); err != nil {
		return err
	}
	r, err := backup.Restore(ctx, o)
	bar.clear()
	if err != nil {
		return err
	}
	if !a.text() {
		return a.printJSON(r)
	}
	_, err = fmt.Fprintf(a.stdout, "%s is node %s of the new log %s, with all events up to position %s (%s)\n",
		printable(o.Data), printable(r.NodeID), printable(r.Log), thousands(r.Position), r.LastTime)
	if err == nil && r.Left > 0 {
		_, err = fmt.Fprintf(a.stdout, "%s of the backup are later and were left out\n", counted(r.Left, "event"))
	}
	if err == nil {
		_, err = fmt.Fprintf(a.stdout, "start it with 'cairn-node -data %s', then others, with empty folders, with -join\n", printable(o.Data))
	}
	return err
}
