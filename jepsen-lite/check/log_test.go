package check

import (
	"slices"
	"strings"
	"testing"
	"time"

	"cairn/jepsen-lite/history"
)

const ms = time.Millisecond

func TestAll_GoodHistory(t *testing.T) {
	verdicts := All(good(), Options{Rate: 5})
	if len(verdicts) != len(checkers) || !Valid(verdicts) {
		t.Error("not valid")
	}
	details := map[string]string{
		"linearizable":    "10 operations in 4 partitions, the largest of 6",
		"acknowledged":    "6 appends acknowledged, 3 refused, 2 of unknown outcome, of which 1 happened",
		"final log":       "8 events in 5 streams",
		"equal nodes":     "3 nodes, each with 8 events and 2 segments",
		"real-time order": "5 appends, each behind what was acknowledged before",
		"atomic":          "1 append of several events among 10",
		"conditions":      "4 conditions of accepted appends, 2 refusals",
		"totals":          "2 transfers among 2 accounts, which hold 100",
		"guards":          "0 events of the bank; 0 guarding generations; 0 appends refused by a guard, 0 that can't be folded",
		"rows":            "0 reads, 0 of the past; 0 tables with 0 rows; 0 generations in force over the run",
		"schemas":         "0 events with a schema; 0 of such types were read; 0 refused",
		"reads":           "1 linearizable read and 1 local read with 3 events",
		"followers":       "10 deliveries in 4 connections of 2 followers",
		"recovery":        "recovered from 1 fault, median 150ms, worst 150ms; not judged: 0 within another fault, 0 with too little time after",
		"processes":       "0 processes were killed, 0 stopped when asked, 0 ended by themselves",
		"meaning":         "7 operations acknowledged, 7.0/s; 1 fault",
	}
	for _, v := range verdicts {
		if !v.Valid || len(v.Problems) > 0 || v.Detail != details[v.Checker] || v.Proves == "" {
			t.Errorf("%s: %v, %s, %q", v.Checker, v.Valid, v.Detail, v.Problems)
		}
	}
}

// bad is a way to spoil the good history, and what the checker must then say
// among other things.
type bad struct {
	name  string
	spoil func(h *history.History)
	want  string
}

func testBad(t *testing.T, judge func(*history.History) Verdict, tests []bad) {
	t.Helper()
	if v := judge(good()); !v.Valid {
		t.Fatalf("the good history: %q", v.Problems)
	}
	for _, tt := range tests {
		h := good()
		tt.spoil(h)
		v := judge(h)
		if v.Valid || v.Counts["problems"] == 0 {
			t.Errorf("%s: valid", tt.name)
			continue
		}
		if !slices.ContainsFunc(v.Problems, func(p string) bool { return strings.Contains(p, tt.want) }) {
			t.Errorf("%s: no problem says %q:\n%s", tt.name, tt.want, strings.Join(v.Problems, "\n"))
		}
	}
}

func swap(i, j int) func([]history.Event) []history.Event {
	return func(log []history.Event) []history.Event {
		log[i], log[j] = log[j], log[i]
		return log
	}
}

func drop(i int) func([]history.Event) []history.Event {
	return func(log []history.Event) []history.Event { return slices.Delete(log, i, i+1) }
}

func TestAcknowledged(t *testing.T) {
	testBad(t, Acknowledged, []bad{
		{"lost tail", func(h *history.History) { logs(h, drop(7)) }, `op 13 (append, client 1, n1, 1.300s to 1.350s) was acknowledged at positions 8 to 8, but the final log ends at position 7`},
		{"lost in the middle", func(h *history.History) { logs(h, drop(4)) }, `in place of event "e1" of stream "s", which stands nowhere`},
		{"moved", func(h *history.History) { logs(h, swap(4, 6)) }, `which stands at position 7`},
		{"other position answered", func(h *history.History) { h.Ops[2].Append.First, h.Ops[2].Append.Last = 6, 6 }, "op 3"},
		{"fewer positions answered", func(h *history.History) { h.Ops[1].Append.Last = 3 }, "it has 2 events"},
		{"no position answered", func(h *history.History) { h.Ops[2].Append.First, h.Ops[2].Append.Last = 0, 0 }, "it has 1 event"},
		{"other version answered", func(h *history.History) { h.Ops[2].Append.Versions["s"] = 2 }, `answered was version 2 of stream "s", which is at 1`},
		{"version not answered", func(h *history.History) { delete(h.Ops[1].Append.Versions, "y") }, `answered was version 0 of stream "y"`},
		{"another stream answered", func(h *history.History) { h.Ops[1].Append.Versions["z"] = 1 }, "did not write to"},
		{"content", func(h *history.History) { h.Ops[2].Append.Events[0].Sum = "00" }, `another content than was sent`},
		{"type", func(h *history.History) { h.Ops[2].Append.Events[0].Type = "U" }, `another type`},
		{"tags", func(h *history.History) { h.Ops[6].Append.Events[0].Tags = nil }, `another tags`},
		{"refused but there", func(h *history.History) { h.Ops[2].Outcome = history.Refused }, `op 3 (append, client 0, n1, 0.300s to 0.350s) was refused (), but event "e1" of stream "s" stands at position 5`},
		{"refused twice but there", func(h *history.History) { h.Ops[4].Outcome, h.Ops[5].Outcome = history.Refused, history.Refused }, `op 6`},
		{"a duplicate of nothing", func(h *history.History) { h.Ops[2].Append.Duplicate = true }, "nobody had sent its events before"},
	})

	h := good()
	h.Ops[4].Outcome = history.Refused
	h.Ops[5].Append.Duplicate = false
	if v := Acknowledged(h); !v.Valid {
		t.Errorf("refused once, then accepted: %q", v.Problems)
	}
}

func TestFinalLog(t *testing.T) {
	stored := func(place int, change func(e *history.Event)) func(*history.History) {
		return func(h *history.History) {
			logs(h, func(log []history.Event) []history.Event { change(&log[place]); return log })
		}
	}
	testBad(t, FinalLog, []bad{
		{"gap", func(h *history.History) { logs(h, drop(3)) }, `event "e1" of stream "s" has position 5 in place 4 of the log of n1`},
		{"gap of versions", stored(7, func(e *history.Event) { e.Version = 4 }), `has version 4, but is number 3`},
		{"time runs back", stored(5, func(e *history.Event) { e.Time = 0 }), `event "e2" of stream "s" at position 6 has a time 2ns before`},
		{"twice", stored(7, func(e *history.Event) { e.ID = "e2" }), `event "e2" of stream "s" stands twice, at positions 6 and 8`},
		{"same id in two streams", stored(6, func(e *history.Event) { e.ID = "e1" }), `has an id that an event of stream "s" has`},
		{"sent by nobody", stored(7, func(e *history.Event) { e.ID = "ghost" }), `event "ghost" of stream "s" at position 8 was sent by nobody`},
		{"content of one of unknown outcome", func(h *history.History) {
			h.Ops = slices.Delete(h.Ops, 5, 6)
			stored(5, func(e *history.Event) { e.Sum = "00" })(h)
		}, `has another content than was sent`},
	})
}

func TestEqualNodes(t *testing.T) {
	testBad(t, EqualNodes, []bad{
		{"no nodes", func(h *history.History) { h.Nodes = nil }, "no node's final log"},
		{"shorter", func(h *history.History) { h.Nodes[0].Events = h.Nodes[0].Events[:7] }, "the log of n1 ends at position 7, that of n2 at 8"},
		{"other event", func(h *history.History) { swap(4, 5)(h.Nodes[2].Events) }, `n3 and n1 have another id at position 5`},
		{"other content", func(h *history.History) { h.Nodes[2].Events[4].Sum = "0" }, `another content at position 5`},
		{"other time", func(h *history.History) { h.Nodes[2].Events[4].Time++ }, `another time at position 5`},
		{"other tags", func(h *history.History) { h.Nodes[2].Events[4].Tags = []string{"x"} }, `another tags`},
		{"other type", func(h *history.History) { h.Nodes[2].Events[4].Type = "x" }, `another type`},
		{"other stream", func(h *history.History) { h.Nodes[2].Events[4].Stream = "x" }, `another stream`},
		{"other version", func(h *history.History) { h.Nodes[2].Events[4].Version++ }, `another version`},
		{"other position", func(h *history.History) { h.Nodes[2].Events[4].Position++ }, `another position`},
		{"other log", func(h *history.History) { h.Nodes[1].LogID = "M" }, "n2 has log M, n1 has L"},
		{"last segment", func(h *history.History) { h.Nodes[1].Segments[1].Size-- }, "segment 5.seg of n2 has 98 bytes with sum bb, segment 5.seg of n1 has 99"},
		{"segment bytes", func(h *history.History) { h.Nodes[1].Segments[0].Sum = "ab" }, "segment 1.seg of n2"},
		{"segment name", func(h *history.History) { h.Nodes[1].Segments[0].Name = "2.seg" }, "segment 2.seg of n2"},
		{"fewer segments", func(h *history.History) { h.Nodes[1].Segments = h.Nodes[1].Segments[:1] }, "n2 has 1 segment, n1 has 2"},
		{"a node twice", func(h *history.History) { h.Nodes[1].Name = "n1" }, "n1 is there twice"},
	})
}

func TestRealTime(t *testing.T) {
	testBad(t, RealTime, []bad{
		{"written in front", func(h *history.History) { h.Ops[2].Start, h.Ops[2].End = 800*ms, 850*ms }, `op 3 (append, client 0, n1, 0.800s to 0.850s) stands at position 5, though position 7 had been acknowledged, to op 7`},
		{"answered with a position that was taken", func(h *history.History) { h.Ops[2].Append.First = 4 }, "stands at position 4, though position 4 had been acknowledged, to op 2"},
		{"unknown, written in front", func(h *history.History) { h.Ops = slices.Delete(h.Ops, 5, 6); h.Ops[4].Start = 900 * ms }, "op 5"},
	})
	h := good()
	h.Ops[2].Start, h.Ops[2].End = 650*ms, 850*ms
	if v := RealTime(h); !v.Valid {
		t.Errorf("begun in the moment of the answer: %q", v.Problems)
	}
}

func TestAtomic(t *testing.T) {
	testBad(t, Atomic, []bad{
		{"half there", func(h *history.History) { logs(h, drop(3)) }, `of the 2 events of op 2 (transfer, client 2, n1, 0.200s to 0.250s) not all stand side by side: event "t1" of stream "x", number 1, at position 3`},
		{"first half lost", func(h *history.History) { logs(h, drop(2)) }, `event "t2"`},
		{"torn apart", func(h *history.History) { logs(h, swap(3, 4)) }, "not all stand side by side"},
		{"in another order", func(h *history.History) { logs(h, swap(2, 3)) }, "not all stand side by side"},
		{"read in the midst", func(h *history.History) { h.Ops[9].Read.Position = 3 }, "op 10 (append, client 1, n1, 1.000s to 1.050s) read as of position 3, in the midst"},
	})
}

func TestConditions(t *testing.T) {
	testBad(t, Conditions, []bad{
		{"version", func(h *history.History) { h.Ops[1].Append.Conditions[0].Version = 0 }, `op 2 (transfer, client 2, n1, 0.200s to 0.250s) was accepted at position 3, where stream "x" is at version 1, not at 0`},
		{"version, unknown outcome", func(h *history.History) {
			h.Ops[4].Append.Conditions[0].Version, h.Ops[5].Append.Conditions[0].Version = 0, 0
		}, `was accepted at position 6, where stream "s" is at version 1, not at 0`},
		{"a name taken twice", func(h *history.History) {
			h.Ops[7].Outcome, h.Ops[7].Code = history.Unknown, ""
			logs(h, func(log []history.Event) []history.Event {
				return append(log, history.Event{Position: 9, Version: 2, Stream: "u", ID: "bob2", Tags: []string{"name:bob"}})
			})
		}, `op 8 (unique, client 2, n1, 0.800s to 0.850s) was accepted at position 9, where an event with tag "name:bob" stands already, at position 7, behind 0`},
		{"a tag behind a position", func(h *history.History) {
			h.Ops[12].Append.Conditions = []history.Condition{{Tag: "name:bob", After: 6}}
		}, "at position 7, behind 6"},
		{"refused without a reason, version", func(h *history.History) { h.Ops[3].Append.Conditions[0].Version = 1 }, "op 4 (append, client 1, n1, 0.400s to 0.450s) was refused for its conditions, but all of them held"},
		{"refused without a reason, missing stream", func(h *history.History) {
			h.Ops[3].Append.Conditions[0] = history.Condition{Stream: "none"}
		}, "op 4"},
		{"refused without a reason, tag", func(h *history.History) { h.Ops[7].Append.Conditions[0].Tag = "name:eve" }, "op 8"},
		{"refused without a reason, tag too old", func(h *history.History) { h.Ops[7].Append.Conditions[0].After = 7 }, "op 8"},
		{"refused in place of a duplicate", func(h *history.History) {
			h.Ops[5].Append.Duplicate = false
			retry := h.Ops[5]
			retry.ID, retry.Start, retry.End, retry.Outcome, retry.Code = 14, 1400*ms, 1450*ms, history.Refused, "condition-failed"
			h.Ops = append(h.Ops, retry)
		}, "though its events had been acknowledged to op 6"},
	})
	for name, change := range map[string]func(h *history.History){
		"the tag stands no further than asked": func(h *history.History) {
			h.Ops[12].Append.Conditions = []history.Condition{{Tag: "name:bob", After: 7}}
		},
		"beyond the version, perhaps": func(h *history.History) {
			h.Ops[3].Append.Conditions[0].Version, h.Ops[3].End = 1, 500*ms
		},
		"behind the version, perhaps": func(h *history.History) {
			h.Ops[3].Append.Conditions[0].Version, h.Ops[3].Start = 1, 350*ms
		},
		"a tag that was sent in the moment of the answer": func(h *history.History) {
			tags := []string{"name:eve"}
			h.Ops[7].Append.Conditions[0].Tag = tags[0]
			h.Ops[12].Append.Events[0].Tags, h.Ops[12].Start = tags, h.Ops[7].End
			logs(h, func(log []history.Event) []history.Event { log[7].Tags = tags; return log })
		},
		"one of two": func(h *history.History) {
			h.Ops[3].Append.Conditions = append(h.Ops[3].Append.Conditions, history.Condition{Stream: "s", Version: 1})
		},
		"tries with different conditions": func(h *history.History) { h.Ops[4].Append.Conditions[0].Version = 7 },
	} {
		h := good()
		change(h)
		if v := Conditions(h); !v.Valid {
			t.Errorf("%s: %q", name, v.Problems)
		}
	}
}

func TestTotals(t *testing.T) {
	testBad(t, Totals, []bad{
		{"half a transfer", func(h *history.History) { logs(h, drop(3)) }, "the total is 70 after position 3 and op 2 (transfer, client 2, n1, 0.200s to 0.250s), not 100"},
		{"other amount", func(h *history.History) { h.Nodes[0].Events[3].Amount = 31 }, "the total is 101"},
		{"twice", func(h *history.History) {
			logs(h, func(log []history.Event) []history.Event { return append(log, log[1]) })
		}, "the total is 200 after position 9"},
		{"torn apart", func(h *history.History) { logs(h, swap(3, 4)) }, "the total is 70"},
		{"overdrawn", func(h *history.History) {
			for _, e := range []*history.Event{&h.Ops[1].Append.Events[0], &h.Nodes[0].Events[2]} {
				e.Amount = -130
			}
			for _, e := range []*history.Event{&h.Ops[1].Append.Events[1], &h.Nodes[0].Events[3]} {
				e.Amount = 130
			}
		}, `stream "x" is at -30 after position 4`},
	})
}
