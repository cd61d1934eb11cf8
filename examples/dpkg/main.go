// Command dpkg turns the log of a Debian machine's package manager into events
// that `cairn import` takes: NDJSON on stdout, one stream a package. `dpkg compare`
// compares the state that the projection in packages.yaml makes of them with
// what dpkg itself says.
//
// What a line becomes depends on nothing but the line and how often it was
// there before, so the log can be imported again when it has grown: lines that
// were imported before have the ids they had.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "dpkg:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	if len(args) > 0 && args[0] == "compare" {
		return runCompare(ctx, args[1:], stdout, stderr)
	}
	flags := flag.NewFlagSet("dpkg", flag.ContinueOnError)
	flags.SetOutput(stderr)
	host := flags.String("host", "", "name of the machine, to tell the logs of several apart")
	flags.Usage = func() {
		fmt.Fprintln(stderr, "Usage: dpkg [-host NAME] [FILE] | cairn import\n       dpkg compare [FLAGS]\n\nFILE is /var/log/dpkg.log unless given; - is stdin.")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if flags.NArg() > 1 {
		return fmt.Errorf("one file, not %d; to convert several, pipe them in in their order", flags.NArg())
	}
	name := "/var/log/dpkg.log"
	if flags.NArg() == 1 {
		name = flags.Arg(0)
	}
	in := stdin
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return err
		}
		defer file.Close()
		in = file
	}
	return convert(in, stdout, stderr, *host)
}

// convert writes an event for each line and says on stderr how many there were.
func convert(in io.Reader, stdout, stderr io.Writer, host string) error {
	lines := bufio.NewReader(in)
	out := bufio.NewWriter(stdout)
	c := newConverter(host)
	for {
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) {
			if line != "" { // it is being written at this moment
				fmt.Fprintf(stderr, "dpkg: line %d has no end yet, left for the next time\n", c.lines+1)
			}
			break
		}
		if err != nil {
			return err
		}
		event, err := c.convert(line[:len(line)-1])
		if err != nil {
			fmt.Fprintf(stderr, "dpkg: line %d: %v\n", c.lines, err)
			continue
		}
		if _, err := out.Write(append(event, '\n')); err != nil {
			return err
		}
	}
	fmt.Fprintf(stderr, "dpkg: %d lines: %d events of %d packages, %d of runs, %d lines not understood\n",
		c.lines, c.events, len(c.packages), c.runs, c.lines-c.events-c.runs)
	return out.Flush()
}
