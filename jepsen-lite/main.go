// Command jepsen-lite breaks a Cairn cluster on purpose and judges from the
// record of what clients saw whether it kept its promises. README.md says what
// it does and how to read what it finds.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"cairn/jepsen-lite/check"
	"cairn/jepsen-lite/history"
	"cairn/jepsen-lite/nemesis"
	"cairn/jepsen-lite/report"
	"cairn/jepsen-lite/workload"
)

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintf(os.Stderr, "jepsen-lite: %v\n", err)
		os.Exit(exitCode(err))
	}
}

// settings are those of a run.
type settings struct {
	nodes     int
	workloads []string
	nemeses   []string
	length    time.Duration
	rate      float64
	seed      uint64
	out       string
	binary    string
	from      string // commit whose binary upgrades begin with
	bug       string
	judge     string // a report to judge again
	timeout   time.Duration
}

// errInvalid ends the program with status 1, errRefused with 3; anything else
// that goes wrong with 2. But for the first the run says nothing about Cairn.
var (
	errInvalid = errors.New("the run is invalid")
	errRefused = errors.New("this machine does not allow it")
)

func exitCode(err error) int {
	switch {
	case errors.Is(err, errInvalid):
		return 1
	case errors.Is(err, errRefused):
		return 3
	}
	return 2
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	s, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	if s.judge != "" {
		h, err := history.Load(s.judge)
		if err != nil {
			return err
		}
		return judge(s, h, s.judge, stdout)
	}
	return experiment(ctx, s, stdout)
}

func parse(args []string, stderr io.Writer) (*settings, error) {
	s := &settings{}
	var workloads, nemeses string
	f := flag.NewFlagSet("jepsen-lite", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.IntVar(&s.nodes, "nodes", 5, "nodes that found the cluster, 1 to 9")
	f.StringVar(&workloads, "workload", "all", "workloads, separated by commas")
	f.StringVar(&nemeses, "nemesis", "kill,pause,partition", "kinds of faults, separated by commas; all, or none")
	f.DurationVar(&s.length, "time", time.Minute, "how long faults go on")
	f.Float64Var(&s.rate, "rate", 200, "operations a second")
	f.Uint64Var(&s.seed, "seed", 0, "seed of everything random; 0 = one by chance, which is printed")
	f.StringVar(&s.out, "out", "jepsen-report", "folder of the report; what it holds is replaced")
	f.StringVar(&s.binary, "binary", "", "cairn-node to test; \"\" = build this repository, with -tags faults")
	f.StringVar(&s.from, "upgrade-from", "", "commit whose binary the nemesis upgrade mixes in")
	f.StringVar(&s.bug, "bug", "", "build this bug in on purpose, to see that it is found; list = show them")
	f.StringVar(&s.judge, "check", "", "judge the history of this report again, and run nothing")
	f.DurationVar(&s.timeout, "check-timeout", time.Minute, "how long the search for a linearization may take")
	f.Usage = func() {
		fmt.Fprintf(stderr, `Break a Cairn cluster on purpose, and judge from the record whether it held.

Usage:
  go run ./jepsen-lite [flags]

Examples:
  go run ./jepsen-lite -nodes 3 -nemesis kill,partition -time 2m
  go run ./jepsen-lite -nemesis all -upgrade-from HEAD~1 -time 10m -seed 42
  go run ./jepsen-lite -check jepsen-report

Exit status: 0 = every checker says valid and the run meant something; 1 = not; 2 = it could
not run; 3 = this machine does not allow namespaces or FUSE.

Workloads:
%s
Nemeses:
%s
Flags:
`, workload.Describe(), nemesis.Describe())
		f.PrintDefaults()
	}
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q; -help lists the flags", f.Arg(0))
	}
	var err error
	if s.workloads, err = choose("-workload", workloads, workload.All()); err != nil {
		return nil, err
	}
	all := nemesis.All()
	if s.from == "" { // there is nothing to upgrade from
		all = slices.DeleteFunc(all, func(n string) bool { return n == "upgrade" && nemeses == "all" })
	}
	if s.nemeses, err = choose("-nemesis", nemeses, all); err != nil {
		return nil, err
	}
	return s, s.validate()
}

// choose splits a list and checks that all in it are known.
func choose(name, text string, known []string) ([]string, error) {
	switch text {
	case "all":
		return known, nil
	case "none", "":
		return nil, nil
	}
	chosen := strings.Split(text, ",")
	for _, c := range chosen {
		if !slices.Contains(known, c) {
			return nil, fmt.Errorf("%s: %q is not one of %s", name, c, strings.Join(known, ", "))
		}
	}
	return chosen, nil
}

func (s *settings) validate() error {
	switch {
	case s.nodes < 1 || s.nodes > 9:
		return fmt.Errorf("-nodes: %d is not between 1 and 9", s.nodes)
	case s.length < time.Second || s.length > 24*time.Hour:
		return fmt.Errorf("-time: %s is not between 1 s and 24 h", s.length)
	case s.rate < 1 || s.rate > 5000:
		return fmt.Errorf("-rate: %g is not between 1 and 5000", s.rate)
	case len(s.workloads) == 0 && s.judge == "":
		return errors.New("-workload: at least one is needed")
	case slices.Contains(s.nemeses, "upgrade") && s.from == "":
		return errors.New("-nemesis upgrade needs -upgrade-from, a commit")
	case s.bug != "" && s.binary != "":
		return errors.New("-bug: a binary of yours may not have it; leave -binary out")
	case s.out == "":
		return errors.New("-out: must name a folder")
	case s.nodes == 1 && (slices.Contains(s.workloads, "readback") || len(s.nemeses) > 0):
		return errors.New("-nodes: faults and the workload readback need more than one")
	}
	return nil
}

// command is what to type to do the same again.
func (s *settings) command() string {
	text := fmt.Sprintf("go run ./jepsen-lite -nodes %d -workload %s -nemesis %s -time %s -rate %g -seed %d",
		s.nodes, strings.Join(s.workloads, ","), cmp.Or(strings.Join(s.nemeses, ","), "none"), s.length, s.rate, s.seed)
	if s.from != "" {
		text += " -upgrade-from " + s.from
	}
	if s.bug != "" {
		text += " -bug " + s.bug
	}
	return text
}

// judge runs the checkers, says what they found and writes the report.
func judge(s *settings, h *history.History, dir string, stdout io.Writer) error {
	options := check.Options{Timeout: s.timeout}
	verdicts := check.All(h, options)
	fmt.Fprintln(stdout)
	for _, v := range verdicts {
		word := "valid  "
		if !v.Valid {
			word = "INVALID"
		}
		fmt.Fprintf(stdout, "%s  %-12s %s\n", word, v.Checker, v.Detail)
		for _, p := range v.Problems {
			fmt.Fprintf(stdout, "           %s\n", p)
		}
	}
	// The page links to the timeline.
	err := errors.Join(timeline(h, dir, options), report.Write(dir, h, verdicts))
	fmt.Fprintf(stdout, "\nreport: %s/index.html\nagain:  %s\n", dir, h.Command)
	if !check.Valid(verdicts) {
		err = errors.Join(errInvalid, err)
	}
	return err
}

// timeline writes Porcupine's picture of one stream.
func timeline(h *history.History, dir string, o check.Options) error {
	f, err := os.Create(dir + "/timeline.html")
	if err != nil {
		return err
	}
	return errors.Join(check.Timeline(h, o, f), f.Close())
}
