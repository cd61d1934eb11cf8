// Command taskboard is a board of tasks that any number of agents share. Each
// task has one owner at a time; when an agent dies, another takes over.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"cairn/client"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "taskboard:", err)
		os.Exit(1)
	}
}

const usage = `Usage: taskboard [FLAGS] COMMAND

  add ID TITLE       put a task on the board
  list               all tasks
  work NAME          be an agent until all tasks are done
  hand-over ID NAME  give a task from its owner to another agent

Flags:`

// errDied ends an agent in the middle of a task, as a power cut would.
var errDied = errors.New("died as asked, in the middle of a task")

// settings are the flags.
type settings struct {
	lease, pace time.Duration
	die         bool
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	var s settings
	flags := flag.NewFlagSet("taskboard", flag.ContinueOnError)
	node := flags.String("node", "http://127.0.0.1:7070", "address of a node")
	flags.DurationVar(&s.lease, "lease", 5*time.Second, "how long an agent that is not heard of keeps its task")
	flags.DurationVar(&s.pace, "pace", time.Second, "how long an agent works on a task")
	flags.BoolVar(&s.die, "die", false, "die in the middle of the first task")
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), usage)
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	c, err := client.New(client.Config{Nodes: []string{*node}})
	if err != nil {
		return err
	}
	defer c.Close()
	b, err := openBoard(ctx, c)
	if err != nil {
		return err
	}
	switch name, n := flags.Arg(0), flags.NArg(); {
	case name == "add" && n == 3:
		return b.add(ctx, flags.Arg(1), flags.Arg(2))
	case name == "list" && n == 1:
		return b.list(ctx, stdout)
	case name == "work" && n == 2:
		return b.agent(flags.Arg(1), &s, stdout).run(ctx)
	case name == "hand-over" && n == 3:
		t, err := b.task(ctx, flags.Arg(1))
		if err != nil {
			return err
		}
		return b.handOver(ctx, t, flags.Arg(2), s.lease)
	}
	return errors.New("no such command; -help lists them")
}

// agent returns one whose work is to wait.
func (b *board) agent(name string, s *settings, stdout io.Writer) *agent {
	say := func(what string) { fmt.Fprintf(stdout, "%s: %s\n", name, what) }
	return &agent{board: b, name: name, lease: s.lease, say: say, work: func(ctx context.Context, t task) (string, error) {
		say(fmt.Sprintf("%s: %s (claim %d)", t.ID, t.Title, t.Claim))
		if s.die {
			return "", errDied
		}
		select {
		case <-time.After(s.pace):
			return "by " + name, nil
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}}
}

func (b *board) list(ctx context.Context, stdout io.Writer) error {
	all, err := b.tasks(ctx)
	if err != nil {
		return err
	}
	for _, t := range all {
		until := ""
		if t.State == "open" && t.Owner != "" {
			until = "until " + t.Until.UTC().Format(time.RFC3339)
		}
		fmt.Fprintf(stdout, "%-12s %-5s %-10s %s %s %s\n", t.ID, t.State, t.Owner, t.Title, t.Result, until)
	}
	return nil
}
