package history

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestRecorder_RoundTrip(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	r, err := NewRecorder(dir)
	if err != nil {
		t.Fatal(err)
	}
	e := Event{Position: 2, Version: 1, Time: 1_700_000_000_123_456_789, Stream: "a-1", Type: "T", ID: "<x>", Tags: []string{"k:1"}, Sum: Sum([]byte("{}")), Amount: -3, Schema: 2, Data: []byte(`{"a":"<b>"}`)}
	row := Row{Key: "k", State: `{"a": "<b>"}`, Events: 3, Position: 2, Failed: 4}
	var wg sync.WaitGroup
	for i := 9; i >= 0; i-- {
		wg.Go(func() {
			at := time.Duration(i) * time.Second
			r.Op(Op{Client: i, Workload: "append", Node: "n1", Start: at, End: at + 1, Outcome: OK, Append: &Append{
				Events: []Event{e}, Conditions: []Condition{{Stream: "a-1", Version: 1 << 60}}, First: 2, Last: 2, Versions: map[string]uint64{"a-1": 1},
			}, Refusal: &Refusal{Event: 1, Projection: "p", Key: "k", Guard: "g", State: 7, Schema: 1}})
			r.Delivery(Delivery{Follower: 1, Connection: i, Node: "n1", At: at, Event: e})
			r.Fault(Fault{Nemesis: "kill", What: "n1", Nodes: []string{"n1"}, Start: at, End: at + 1, Bit: map[string]int64{"ended": 1}})
		})
	}
	wg.Wait()
	r.Op(Op{Client: 10, Start: 10 * time.Second, State: &StateRead{Projection: "p", Key: "k", AtPosition: 2, AsOf: 3, Generation: 1, Rows: []Row{row}}})
	r.Op(Op{Client: 11, Start: 11 * time.Second, Define: &Define{Type: "T", Number: 1, Body: []byte(`{"schema":{}}`), Generation: 3}})
	b, err := os.ReadFile(filepath.Join(dir, linesName))
	if err != nil || strings.Count(string(b), "\n") != 32 {
		t.Fatalf("%d lines before the end, %v", strings.Count(string(b), "\n"), err)
	}
	want, err := r.Finish(History{
		Seed: 1 << 63, Command: "go run ./jepsen-lite", Length: time.Minute, Healed: time.Second,
		Followers: []Follower{{ID: 1, Form: "sse", Prefix: "a", Types: []string{"T"}, After: 1, Done: true, Through: 2}},
		Nodes: []Node{
			{Name: "n1", LogID: "L", Events: []Event{{Position: 1, ID: "b"}, e}, Segments: []Segment{{"1.seg", 9, "ab"}}, Worked: map[string]int64{"rolls": 1},
				Tables: []Table{{Projection: "p", Generation: 1, AtPosition: 2, Past: true, Rows: []Row{row}}}},
			{Name: "n2", LogID: "L", Events: []Event{e}, Segments: []Segment{{"1.seg", 9, "ab"}}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, op := range want.Ops {
		if op.ID != i+1 || op.Start != time.Duration(i)*time.Second {
			t.Fatalf("op %d in place %d starts at %v", op.ID, i, op.Start)
		}
	}
	got, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("loaded\n%+v\nsaved\n%+v", got, want)
	}
}

func TestRecorder_VirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, err := NewRecorder("")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if got := r.Now(); got != time.Hour {
			t.Errorf("now is %v", got)
		}
		r.Op(Op{Start: r.Now()})
		h, err := r.Finish(History{Seed: 7})
		if err != nil || len(h.Ops) != 1 || h.Seed != 7 {
			t.Errorf("%+v, %v", h, err)
		}
	})
}

func TestFinish_NodeThatNoFileCanBeNamedAfter(t *testing.T) {
	for _, name := range []string{"", "history", "../x"} {
		r, err := NewRecorder(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Finish(History{Nodes: []Node{{Name: name}}}); err == nil {
			t.Errorf("node %q was saved", name)
		}
	}
}

func TestLoad_Damaged(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(dir); err == nil {
		t.Error("no history was loaded")
	}
	r, err := NewRecorder(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Finish(History{}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, linesName), []byte("{}\n{\"op\":{\"id\":1}}\n{\"op\":"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "line 3") {
		t.Errorf("a torn line gives %v", err)
	}
}

func TestSum(t *testing.T) {
	if got, want := Sum(nil), "e3b0c44298fc1c149afbf4c8996fb924"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
