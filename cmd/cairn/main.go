// Command cairn is the command line of Cairn: it appends, reads and follows
// events, moves them in and out as NDJSON, looks after a cluster and measures
// it. It talks to the nodes over HTTP alone.
//
// On a terminal it writes tables for people, otherwise NDJSON for programs. It
// exits with 0, 1 for an error, 2 for wrong usage, 3 for an append that was
// refused because of what is in the log.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// version is set by the build.
var version = "devel"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(report(err, os.Stderr))
}
