package check

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"cairn/jepsen-lite/history"
)

// oneAfterTheOther returns a history of n appends to one stream, each followed
// by a read, with never two at once.
func oneAfterTheOther(n int) *history.History {
	h := &history.History{Nodes: []history.Node{{Name: "n1"}}}
	add := func(op history.Op) {
		op.ID = len(h.Ops) + 1
		op.Start = time.Duration(op.ID) * ms
		op.End = op.Start + ms/2
		op.Outcome = history.OK
		h.Ops = append(h.Ops, op)
	}
	for i := uint64(1); i <= uint64(n); i++ {
		e := history.Event{Position: i, Version: i, Stream: "s", ID: fmt.Sprint(i)}
		h.Nodes[0].Events = append(h.Nodes[0].Events, e)
		add(history.Op{Append: &history.Append{Events: []history.Event{e}, First: i, Last: i, Versions: map[string]uint64{"s": i}}})
		add(history.Op{Read: &history.Read{Stream: "s", Position: i, Version: i, After: i}})
	}
	return h
}

func TestLinearizable_AcrossPartitions(t *testing.T) {
	const n = 3 * partitionSize
	if v := Linearizable(oneAfterTheOther(n), Options{}); !v.Valid || v.Counts["partitions"] != 6 || v.Counts["largest"] != partitionSize {
		t.Fatalf("%+v", v)
	}
	for _, tt := range []struct {
		name  string
		spoil func(ops []history.Op)
		want  string
	}{
		{"a read of what an earlier partition ended with", func(ops []history.Op) { ops[partitionSize+1].Read.Version = partitionSize / 2 }, "after 1 of 500 operations, at version 251"},
		{"a read of what a later partition begins with", func(ops []history.Op) { ops[partitionSize-1].Read.Version++ }, "after 499 of 500 operations, at version 250"},
		{"an append in the wrong partition", func(ops []history.Op) {
			ops[10].Start, ops[10].End = 2000*ms, 2001*ms
		}, "after 10 of 500 operations, at version 5"},
	} {
		h := oneAfterTheOther(n)
		tt.spoil(h.Ops)
		if v := Linearizable(h, Options{}); v.Valid || !strings.Contains(v.Problems[0], tt.want) {
			t.Errorf("%s: %q", tt.name, v.Problems)
		}
	}
}

// A stream on which some operation is always under way cannot be cut. One that
// begins in the moment when another ends may have come before it.
func TestLinearizable_NeverIdle(t *testing.T) {
	h := oneAfterTheOther(2 * partitionSize)
	for i := range h.Ops {
		h.Ops[i].End += ms / 2
	}
	v := Linearizable(h, Options{})
	if !v.Valid || v.Counts["partitions"] != 1 {
		t.Errorf("%+v", v)
	}
}

func TestLinearizable_ManyProblems(t *testing.T) {
	h := &history.History{Nodes: []history.Node{{Name: "n1"}}}
	for i := range maxProblems + 2 {
		h.Ops = append(h.Ops, history.Op{ID: i + 1, Outcome: history.OK, Read: &history.Read{Stream: fmt.Sprint(i), Version: 1}})
	}
	v := Linearizable(h, Options{})
	if v.Valid || len(v.Problems) != maxProblems || v.Counts["problems"] != maxProblems+2 || !strings.HasPrefix(v.Detail, "12 problems; ") {
		t.Errorf("%+v", v)
	}
}

func TestStep_Apply(t *testing.T) {
	op := &history.Op{}
	for _, tt := range []struct {
		s        step
		from, to uint64
		ok       bool
	}{
		{step{kind: adds, first: 3, last: 5}, 2, 5, true},
		{step{kind: adds, first: 3, last: 5}, 1, 0, false},
		{step{kind: adds, first: 3, last: 5}, 3, 0, false},
		{step{kind: adds, first: 3, last: 5}, 5, 0, false},
		{step{kind: adds, first: 3, last: 5, lost: true}, 2, 0, false},
		{step{kind: joins, first: 3, last: 5}, 1, 0, false},
		{step{kind: joins, first: 3, last: 5}, 2, 5, true},
		{step{kind: joins, first: 3, last: 5}, 3, 0, false},
		{step{kind: joins, first: 3, last: 5}, 4, 0, false},
		{step{kind: joins, first: 3, last: 5}, 5, 5, true},
		{step{kind: joins, first: 3, last: 5}, 9, 9, true},
		{step{kind: joins, lost: true}, 0, 0, false},
		{step{kind: stands, at: 4}, 4, 4, true},
		{step{kind: stands, at: 4}, 5, 0, false},
		{step{kind: refused, at: 4}, 4, 0, false},
		{step{kind: refused, at: 4}, 5, 5, true},
		{step{kind: refused, at: 1, first: 3, last: 3}, 2, 2, true},
		{step{kind: refused, at: 1, first: 3, last: 3}, 3, 0, false},
	} {
		tt.s.op = op
		ok, to := tt.s.apply(tt.from)
		if ok != tt.ok || ok && to != tt.to {
			t.Errorf("%s from %d: %v, %d", &tt.s, tt.from, ok, to)
		}
	}
}
