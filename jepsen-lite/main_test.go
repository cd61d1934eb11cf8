package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"cairn/jepsen-lite/history"
	"cairn/jepsen-lite/nemesis"
	"cairn/jepsen-lite/workload"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		args string
		want string // of the error; "" = none
	}{
		{"", ""},
		{"-nodes 3 -workload append,transfer -nemesis none -time 5s -rate 20 -seed 7", ""},
		{"-nemesis all", ""},
		{"-nemesis all -upgrade-from HEAD~1", ""},
		{"-nemesis upgrade", "-upgrade-from"},
		{"-nemesis kil", `"kil" is not one of kill, pause`},
		{"-workload none", "at least one"},
		{"-workload append,", `"" is not one of append`},
		{"-nodes 10", "10 is not between 1 and 9"},
		{"-nodes 1", "more than one"},
		{"-time 1ms", "between 1 s and 24 h"},
		{"-rate 0", "between 1 and 5000"},
		{"surprise", `unexpected argument "surprise"`},
		{"-surprise", "not defined"},
	} {
		_, err := parse(strings.Fields(tt.args), &bytes.Buffer{})
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", tt.args, err, tt.want)
		}
	}
	s, err := parse(strings.Fields("-nemesis all"), &bytes.Buffer{})
	if err != nil || slices.Contains(s.nemeses, "upgrade") || len(s.nemeses) != len(nemesis.All())-1 {
		t.Errorf("all without a commit to upgrade from: %v, %v", s.nemeses, err)
	}
	var help bytes.Buffer
	if _, err := parse([]string{"-help"}, &help); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("-help: %v", err)
	}
	for _, name := range append(workload.All(), nemesis.All()...) {
		if !strings.Contains(help.String(), "  "+name+" ") {
			t.Errorf("the help does not mention %s", name)
		}
	}
}

// What is printed to run it again means the same.
func TestSettings_Command(t *testing.T) {
	const line = "-nodes 4 -workload append,follow -nemesis kill,clock -time 1m30s -rate 150 -seed 9 -bug lost-tail"
	s, err := parse(strings.Fields(line), &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	if got := s.command(); got != "go run ./jepsen-lite "+line {
		t.Errorf("again: %s", got)
	}
}

func TestExitCode(t *testing.T) {
	for err, want := range map[error]int{
		errInvalid: 1, errors.New("no disk"): 2, fmt.Errorf("%w: namespaces", errRefused): 3,
	} {
		if got := exitCode(err); got != want {
			t.Errorf("%v: %d, want %d", err, got, want)
		}
	}
}

// A history that was saved is judged again, and a lost event is found.
func TestRun_JudgesAgain(t *testing.T) {
	for _, lost := range []bool{false, true} {
		dir := t.TempDir()
		r, err := history.NewRecorder(dir)
		if err != nil {
			t.Fatal(err)
		}
		h := history.History{Length: time.Second, Command: "again", Nemeses: []string{}, Nodes: []history.Node{{
			Name: "n1", Worked: map[string]int64{"rolls": 1, "savepoints": 1, "snapshots": 1, "flushes": 1, "compactions": 1},
		}}}
		for i := range 100 {
			e := history.Event{Stream: fmt.Sprint("s", i), Type: "T", ID: fmt.Sprint(i), Sum: "x"}
			at := uint64(i + 1)
			r.Op(history.Op{
				Client: 1, Workload: "append", Node: "n1", Start: time.Duration(2*i + 1), End: time.Duration(2*i + 2), Outcome: history.OK,
				Append: &history.Append{Events: []history.Event{e}, First: at, Last: at, Versions: map[string]uint64{e.Stream: 1}},
			})
			e.Position, e.Version, e.Time = at, 1, int64(i)
			h.Nodes[0].Events = append(h.Nodes[0].Events, e)
		}
		if lost {
			h.Nodes[0].Events = h.Nodes[0].Events[:99]
		}
		if _, err := r.Finish(h); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		err = run(t.Context(), []string{"-check", dir}, &out, &out)
		if errors.Is(err, errInvalid) != lost || !lost && err != nil {
			t.Errorf("lost %t: %v\n%s", lost, err, out.String())
		}
		if lost != strings.Contains(out.String(), "INVALID  acknowledged") {
			t.Errorf("lost %t:\n%s", lost, out.String())
		}
	}
}
