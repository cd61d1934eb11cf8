package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cairn/client"
)

// defaultNodes are where a server listens unless told otherwise, and where
// scripts/cluster.sh puts its nodes.
var defaultNodes = []string{"http://127.0.0.1:7070", "http://127.0.0.1:7010", "http://127.0.0.1:7020", "http://127.0.0.1:7030"}

// app is what all commands share.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer

	// The global flags.
	nodes   []string
	pin     bool
	timeout time.Duration
	output  string
}

// run executes one command line.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr}
	root := a.newRoot()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return root.ExecuteContext(ctx)
}

func (a *app) newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "cairn",
		Short: "Append, read and follow the events of a Cairn cluster",
		Long: `cairn talks to a Cairn cluster: a replicated log of events in streams.

On a terminal it prints tables; piped, it prints NDJSON, one JSON document a line.
It exits with 0, 1 for an error, 2 for wrong usage, and 3 when an append was
refused because of what is in the log.`,
		Example: `  cairn append account-42 --type FundsDeposited --data '{"amount":100}'
  cairn read account-42
  cairn tail --category account
  cairn cluster status`,
		Version:           version,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.SetVersionTemplate("cairn {{.Version}}\n")
	group(root)
	flags := root.PersistentFlags()
	flags.SortFlags = false
	flags.StringSliceVar(&a.nodes, "node", nil, "address of a node, of any of the cluster; repeatable (env CAIRN_NODE;\ndefault 127.0.0.1:7070, then 7010, 7020, 7030)")
	flags.BoolVar(&a.pin, "pin", false, "use only the nodes given, not the addresses that the cluster names")
	flags.DurationVar(&a.timeout, "timeout", 10*time.Second, "how long to go on trying")
	flags.StringVarP(&a.output, "output", "o", "auto", "auto, text or json; auto is text on a terminal")
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error { return a.checkFlags(cmd) }
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usagef(cmd, "%v", err) })
	root.AddCommand(a.newAppend(), a.newRead(), a.newTail(), a.newTrace(), a.newStreams(), a.newState(), a.newDiff(), a.newWhy(), a.newProjection(), a.newSchema(),
		a.newImport(), a.newExport(), a.newCluster(), a.newBench(),
		a.newBackup(), a.newRestore(), a.newCheck(), a.newRepair(), a.newRebuild(), a.newDump())
	for _, cmd := range root.Commands() {
		cmd.Flags().SortFlags = false
	}
	return root
}

// group makes cmd one that only has commands below it: alone it shows its help.
func group(cmd *cobra.Command) {
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		msg := fmt.Sprintf("there is no command %q", args[0])
		if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
			msg += fmt.Sprintf(" (did you mean %s?)", strings.Join(like, " or "))
		}
		return usagef(cmd, "%s", msg)
	}
	cmd.SuggestionsMinimumDistance = 2
	cmd.DisableFlagsInUseLine = true
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
}

func (a *app) checkFlags(cmd *cobra.Command) error {
	if !slices.Contains([]string{"auto", "text", "json"}, a.output) {
		return usagef(cmd, "--output is auto, text or json, not %q", a.output)
	}
	if a.timeout <= 0 {
		return usagef(cmd, "--timeout must be above 0, not %s", a.timeout)
	}
	return nil
}

// text reports whether to write for people.
func (a *app) text() bool {
	return a.output == "text" || a.output == "auto" && isTerminal(a.stdout)
}

// given returns the addresses to begin with, and whether the user has chosen
// them.
func (a *app) given() (nodes []string, chosen bool) {
	nodes = a.nodes
	if len(nodes) == 0 {
		nodes = strings.FieldsFunc(os.Getenv("CAIRN_NODE"), func(r rune) bool { return r == ',' || r == ' ' })
	}
	if len(nodes) == 0 {
		return defaultNodes, false
	}
	return nodes, true
}

// connect returns a client of the cluster and what the first node that answers
// says about it. If nobody answers it fails at once instead of retrying.
func (a *app) connect(ctx context.Context) (*client.Client, client.Cluster, error) {
	nodes, chosen := a.given()
	c, err := client.New(client.Config{Nodes: nodes, Fixed: a.pin, RetryFor: a.timeout, AttemptTimeout: min(a.timeout, 5*time.Second)})
	if err != nil {
		return nil, client.Cluster{}, &usageError{path: "cairn", msg: strings.TrimPrefix(err.Error(), "client: ")}
	}
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	s, err := c.Discover(ctx)
	if err != nil {
		c.Close()
		return nil, client.Cluster{}, &nobodyError{nodes: nodes, chosen: chosen, err: err}
	}
	return c, s, nil
}

// withClient runs f with a client, and at most for --timeout.
func (a *app) withClient(ctx context.Context, f func(context.Context, *client.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	c, _, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	err = f(ctx, c)
	if errors.Is(context.Cause(ctx), context.DeadlineExceeded) && errors.Is(err, context.DeadlineExceeded) {
		return &timeoutError{after: a.timeout, err: err}
	}
	return err
}
