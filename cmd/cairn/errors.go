package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cairn/client"
)

// The exit codes.
const (
	exitError    = 1
	exitUsage    = 2
	exitConflict = 3
)

// usageError says that a command line makes no sense.
type usageError struct {
	path string // the command's
	msg  string
}

func (e *usageError) Error() string { return fmt.Sprintf("%s; see '%s --help'", e.msg, e.path) }

func usagef(cmd *cobra.Command, format string, args ...any) error {
	return &usageError{path: cmd.CommandPath(), msg: fmt.Sprintf(format, args...)}
}

// nobodyError says that no node answers.
type nobodyError struct {
	nodes  []string
	chosen bool // by the user
	err    error
}

func (e *nobodyError) Error() string {
	if errors.Is(e.err, context.Canceled) {
		return "interrupted"
	}
	if e.chosen {
		return fmt.Sprintf("no node answers at %s (%s); is it running, and is the address right?", strings.Join(e.nodes, ", "), lastLine(e.err))
	}
	return "no node answers on 127.0.0.1, ports 7070, 7010, 7020, 7030; start a cluster with 'make run', or name a node with --node or CAIRN_NODE"
}

func (e *nobodyError) Unwrap() error { return e.err }

// timeoutError says that --timeout is over.
type timeoutError struct {
	after time.Duration
	err   error
}

func (e *timeoutError) Error() string {
	return fmt.Sprintf("no answer within %s; allow more with --timeout, or see 'cairn cluster status'", e.after)
}

func (e *timeoutError) Unwrap() error { return e.err }

// silentError has an exit code, but was reported already.
type silentError struct{ err error }

func (e *silentError) Error() string { return e.err.Error() }
func (e *silentError) Unwrap() error { return e.err }

// report writes what err means, and what to do, in one line, and returns the
// exit code.
func report(err error, stderr io.Writer) int {
	if err == nil {
		return 0
	}
	var silent *silentError
	if !errors.As(err, &silent) {
		fmt.Fprintf(stderr, "cairn: %s\n", oneLine(explain(err)))
	}
	var usage *usageError
	var cannot *cannotError
	switch {
	case errors.As(err, &usage), errors.As(err, &cannot):
		return exitUsage
	case client.IsConflict(err):
		return exitConflict
	}
	return exitError
}

// explain says what an error means to a person.
func explain(err error) string {
	var half *importError
	var unknown *client.UnknownError
	var timeout *timeoutError
	var nobody *nobodyError
	var unavailable *client.UnavailableError
	var p *client.Problem
	hasProblem := errors.As(err, &p)
	switch {
	case errors.As(err, &half):
		return half.Error()
	case errors.As(err, &unknown):
		return explainUnknown(unknown)
	case errors.As(err, &nobody), errors.As(err, &timeout) && !hasProblem:
		return err.Error()
	case errors.Is(err, context.Canceled):
		return "interrupted"
	case errors.As(err, &unavailable):
		return explainUnavailable(unavailable)
	case hasProblem:
		return explainProblem(err, p)
	}
	return err.Error()
}

func explainUnknown(e *client.UnknownError) string {
	why := lastLine(e.Err)
	var p *client.Problem
	switch {
	case errors.Is(e.Err, context.Canceled):
		why = "interrupted"
	case errors.Is(e.Err, context.DeadlineExceeded):
		why = "no answer in time"
	case errors.As(e.Err, &p):
		why = detail(p)
	}
	next := "repeat it with the same ids: what is there already is not added twice"
	if len(e.IDs) == 1 {
		next = fmt.Sprintf("repeat it with --id %s: it is not added twice", e.IDs[0])
	}
	return fmt.Sprintf("it is not known whether this was written (%s); %s", why, next)
}

func explainUnavailable(e *client.UnavailableError) string {
	var p *client.Problem
	if errors.As(e.Err, &p) {
		switch p.Code {
		case client.CodeNoLeader:
			return "the cluster has no leader, nothing was written; more than half of its nodes must run: see 'cairn cluster status'"
		case client.CodeOverloaded:
			return "the cluster is overloaded, nothing was written; try again in a moment"
		}
		return fmt.Sprintf("node %s can't serve this: %s; see 'cairn cluster status'", p.Node, detail(p))
	}
	return fmt.Sprintf("no node could serve this (%s); see 'cairn cluster status'", lastLine(e.Err))
}

func explainProblem(err error, p *client.Problem) string {
	// Context that was wrapped around the problem, such as a line number.
	before := strings.TrimSuffix(err.Error(), p.Error())
	what := detail(p)
	switch p.Code {
	case client.CodeConditionFailed:
		what = "conflict: " + what + "; read it again and decide anew"
	case client.CodeIDReused:
		what = "conflict: " + what + "; choose another id for a new event"
	case client.CodeGuardFailed:
		what = fmt.Sprintf("refused by projection %s for %s: %s (not true: %s)", p.Projection, p.Key, p.Message, p.Guard)
	case client.CodeLogChanged:
		what += "; begin anew with --from-start"
	case "":
		what = fmt.Sprintf("%s answered with status %d: %s; is that a Cairn node?", p.Node, p.Status, what)
	}
	return before + what
}

func detail(p *client.Problem) string {
	if p.Detail != "" {
		return p.Detail
	}
	return p.Error()
}

// lastLine returns the last of the lines of an error, which is the last thing
// that was tried.
func lastLine(err error) string {
	if err == nil {
		return ""
	}
	var unavailable *client.UnavailableError
	if errors.As(err, &unavailable) {
		err = unavailable.Err
	}
	lines := strings.Split(strings.TrimSpace(err.Error()), "\n")
	return lines[len(lines)-1]
}

func oneLine(s string) string { return printable(strings.Join(strings.Fields(s), " ")) }
