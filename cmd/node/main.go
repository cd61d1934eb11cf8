// Command cairn-node runs one node of a Cairn cluster. It reads the settings,
// wires the packages together, starts them in order and stops them in reverse.
// It holds no state of its own: everything that matters is in the data folder.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
)

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintf(os.Stderr, "cairn-node: %s\n", oneLine(err))
		os.Exit(exitCode(err))
	}
}

// run is the whole command. It returns when the node was stopped by a signal or
// by ctx, or with the reason why it could not start. A fatal error later ends
// the process from where it is found, see fatal.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	cmd, err := parseCommand(args, os.Getenv)
	switch {
	case err != nil:
		return &usageError{err}
	case cmd.help:
		_, err := io.WriteString(stdout, helpText())
		return err
	case cmd.version:
		_, err := io.WriteString(stdout, versionText())
		return err
	}
	tuneRuntime(os.Getenv, cmd.config.SavepointBytes)
	return serve(ctx, &cmd.config, stderr)
}

// memoryLimit is what the garbage collector keeps the process below, in bytes,
// as long as less is in use: savepoints and large answers come in bursts, and
// without it the heap grows to twice the highest of them.
const memoryLimit = 448 << 20

// tuneRuntime sets what the environment leaves open: the memory limit, and two
// threads to a core. With one, an append waits for the Go scheduler to take a
// core away from a savepoint or a compaction, up to 10 ms each time; with two,
// the kernel lets the thread that has waited go first.
func tuneRuntime(getenv func(string) string, savepointBytes int64) {
	if getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit + 3*savepointBytes) // two of them may be in memory
	}
	if getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(2 * runtime.GOMAXPROCS(0))
	}
}

// usageError is a fault of the command line, the environment or the file.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

// exitCode is 2 for a fault of usage and 1 for everything else, as usual.
func exitCode(err error) int {
	if usage := (*usageError)(nil); errors.As(err, &usage) {
		return 2
	}
	return 1
}

// oneLine is an error's text as one line, so that it can be found in a log.
func oneLine(err error) string {
	return strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ")
}
