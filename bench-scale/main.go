package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintf(os.Stderr, "bench-scale: %v\n", err)
		os.Exit(1)
	}
}

// settings are those of a run.
type settings struct {
	rows    []int // events, ascending
	nodes   int
	size    int // bytes of data in an event
	data    string
	out     string
	binary  string
	figures []string // empty = all
	keep    bool
}

// run is the whole command.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	s, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := claim(s.data); err != nil {
		return err
	}
	if !s.keep {
		defer os.RemoveAll(s.data)
	}
	report, err := measure(ctx, s, stderr)
	if len(report.Rows) > 0 {
		// What was measured before a failure took long to get: it is kept.
		fmt.Fprintf(stdout, "%s\n", report.markdown())
		err = errors.Join(err, report.write(s.out))
	}
	return err
}

func parse(args []string, stderr io.Writer) (*settings, error) {
	s := &settings{}
	flags := flag.NewFlagSet("bench-scale", flag.ContinueOnError)
	flags.SetOutput(stderr)
	rows := flags.String("rows", "1000000,5000000,10000000,20000000", "events in the log at each row of the table")
	figures := flags.String("figures", "", "figures to take besides append and memory, of: "+strings.Join(figureNames(), ",")+" (default all)")
	flags.IntVar(&s.nodes, "nodes", 1, "nodes of the cluster, 1 or 3")
	flags.IntVar(&s.size, "size", 256, "bytes of data in each event")
	flags.StringVar(&s.data, "data", ".cairn-bench-scale", "folder for the nodes' data, not on a disk in memory; removed at the end")
	flags.StringVar(&s.out, "out", ".cairn-bench-scale-report", "folder for the report")
	flags.StringVar(&s.binary, "bin", "bin/cairn-node", "the server to measure")
	flags.BoolVar(&s.keep, "keep", false, "keep the data")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	var err error
	if s.rows, err = parseRows(*rows); err != nil {
		return nil, err
	}
	if *figures != "" {
		s.figures = strings.Split(*figures, ",")
	}
	for _, name := range s.figures {
		if !slices.Contains(figureNames(), name) {
			return nil, fmt.Errorf("-figures: there is no figure %q", name)
		}
	}
	switch {
	case s.nodes != 1 && s.nodes != 3:
		return nil, errors.New("-nodes must be 1 or 3")
	case s.size < 2 || s.size > 16<<10:
		return nil, errors.New("-size must be from 2 to 16384")
	}
	for _, path := range []*string{&s.data, &s.out, &s.binary} {
		if *path, err = filepath.Abs(*path); err != nil {
			return nil, err
		}
	}
	if _, err := os.Stat(s.binary); err != nil {
		return nil, fmt.Errorf("the server (make build): %w", err)
	}
	return s, nil
}

// With these, at most 80 of the 100 events of an append belong to the streams
// of 100 events.
const (
	minRow  = 20_000
	maxRows = 8
)

func parseRows(text string) ([]int, error) {
	var rows []int
	for field := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(field)
		if err != nil || n < minRow || n%1000 != 0 {
			return nil, fmt.Errorf("-rows: %q is not a number of thousands from %d on", field, minRow)
		}
		if len(rows) > 0 && n <= rows[len(rows)-1] {
			return nil, errors.New("-rows must ascend")
		}
		rows = append(rows, n)
	}
	if len(rows) > maxRows {
		return nil, fmt.Errorf("-rows: there are at most %d", maxRows)
	}
	return rows, nil
}

// claim makes the folder of the data. One that has something in it may be
// somebody's, and is refused.
func claim(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) > 0 {
		err = fmt.Errorf("%s is not empty; remove it or name another folder with -data", dir)
	}
	return err
}
