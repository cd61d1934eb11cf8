package check

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"cairn/jepsen-lite/history"
)

func TestReads(t *testing.T) {
	read := func(op int, change func(r *history.Read)) func(*history.History) {
		return func(h *history.History) { change(h.Ops[op-1].Read) }
	}
	testBad(t, Reads, []bad{
		{"stale", read(9, func(r *history.Read) { r.Position = 6 }), "op 9 (append, client 0, n1, 0.900s to 0.950s) read as of position 6, though position 7 had been answered before, to op 7"},
		{"behind another read", func(h *history.History) {
			h.Ops[9].Read.Local = false
			h.Ops[9].Read.Position = 6
			h.Ops[8].Start, h.Ops[8].End = 0, 50*ms
		}, "op 10"},
		{"behind min_position", read(10, func(r *history.Read) { r.MinPosition = 5 }), "read as of position 4, not of at least 5"},
		{"ahead of the final log", read(10, func(r *history.Read) { r.Position = 9 }), "read as of position 9, but the final log ends at 8"},
		{"ahead of what was sent", read(10, func(r *history.Read) { r.Position = 8 }), `op 10 (append, client 1, n1, 1.000s to 1.050s) read as of position 8, but event "e3" of stream "s" at position 8 was sent later`},
		{"an event is missing", read(9, func(r *history.Read) { r.Events = nil }), "op 9 (append, client 0, n1, 0.900s to 0.950s), as of position 7: 0 events in place of 1"},
		{"too many", read(10, func(r *history.Read) { r.Limit = 1 }), "2 events in place of 1"},
		{"beyond what is there", read(9, func(r *history.Read) { r.After = 1 << 63 }), "1 event in place of 0"},
		{"other event", read(10, func(r *history.Read) { r.Events[1] = r.Events[0] }), `event 2 of the answer, event "o1" of stream "x", has another id than event "t1" of stream "x" at position 3`},
		{"other content", read(10, func(r *history.Read) { r.Events[1].Sum = "0" }), `has another content`},
		{"other version", read(9, func(r *history.Read) { r.Version = 3 }), `stream "s" is at version 2, not 3`},
		{"no such stream", read(9, func(r *history.Read) { r.Stream = "none" }), `stream "none" is at version 0, not 2`},
	})
	h := good()
	read(9, func(r *history.Read) { *r = history.Read{Stream: "none", Position: 7} })(h)
	read(10, func(r *history.Read) { *r = history.Read{Local: true} })(h)
	if v := Reads(h); !v.Valid {
		t.Errorf("reads of nothing: %q", v.Problems)
	}
}

func TestFollowers(t *testing.T) {
	testBad(t, Followers, []bad{
		{"gap", func(h *history.History) { h.Deliveries = slices.Delete(h.Deliveries, 4, 5) }, `delivery 5 of follower 1 (sse, connection 2, n1, at 2.005s) is event "e2" of stream "s" at position 6, but next was event "e1" of stream "s" at 5 (another id)`},
		{"twice", func(h *history.History) { h.Deliveries = slices.Insert(h.Deliveries, 1, h.Deliveries[0]) }, `delivery 2 of follower 1`},
		{"out of order", func(h *history.History) {
			h.Deliveries[0], h.Deliveries[1] = h.Deliveries[1], h.Deliveries[0]
		}, `delivery 1 of follower 1`},
		{"content", func(h *history.History) { h.Deliveries[2].Event.Sum = "" }, "another content"},
		{"last one missing", func(h *history.History) { h.Deliveries = h.Deliveries[:len(h.Deliveries)-1] }, `follower 2 (ndjson) was never given event "e3" of stream "s" at position 8, and was told that it had all up to 8`},
		{"one too many", func(h *history.History) { h.Deliveries = append(h.Deliveries, h.Deliveries[0]) }, `though the final log has no more for it`},
		{"not matching", func(h *history.History) {
			h.Deliveries = slices.Insert(h.Deliveries, 0, h.Deliveries[1])
			h.Deliveries[0].Follower = 2
		}, `delivery 1 of follower 2`},
		{"before it was sent", func(h *history.History) { h.Deliveries[4].At = 299 * ms }, `is event "e1" of stream "s", which was sent later`},
		{"not done", func(h *history.History) { h.Followers[0].Done = false }, "follower 1 (sse) was never told that it had everything"},
		{"told too little", func(h *history.History) { h.Followers[1].Through = 6 }, "was told of nothing behind position 6, though 7 had been acknowledged"},
		{"told too much", func(h *history.History) { h.Followers[1].Through = 9 }, "was told of position 9, but the final log ends at 8"},
		{"unknown follower", func(h *history.History) { h.Followers = h.Followers[:1] }, "given to follower 2, which is not there"},
		{"a follower twice", func(h *history.History) { h.Followers[1].ID = 1 }, "follower 1 is there twice"},
	})
}

func TestRecovery(t *testing.T) {
	testBad(t, Recovery, []bad{
		{"late", func(h *history.History) { h.Ops[12].End = 6201 * ms }, "after kill -9 of n2 (kill) was healed at 1.200s the first append succeeded only 5.001s later"},
		{"never", func(h *history.History) {
			h.Ops[12].End, h.Ops[12].Outcome = time.Minute, history.Unknown
		}, "no append succeeded any more"},
		{"not healed", func(h *history.History) { h.Faults[0].End = 0 }, "kill -9 of n2 (kill) was never healed"},
	})
	fault := func(start, end time.Duration) history.Fault {
		return history.Fault{Nemesis: "pause", What: "pause", Start: start, End: end}
	}
	for _, tt := range []struct {
		name                 string
		change               func(h *history.History)
		recovered, over, few int64
	}{
		{"within another fault", func(h *history.History) { h.Faults = append(h.Faults, fault(0, 1250*ms)) }, 1, 1, 0},
		{"healed at once", func(h *history.History) { h.Faults = append(h.Faults, fault(0, 1200*ms)) }, 1, 1, 0},
		{"another fault soon after", func(h *history.History) { h.Faults = append(h.Faults, fault(6*time.Second, 7*time.Second)) }, 0, 0, 2},
		{"another fault later", func(h *history.History) { h.Faults = append(h.Faults, fault(8*time.Second, 9*time.Second)) }, 1, 0, 1},
		{"end of the run", func(h *history.History) { h.Ops[12].Outcome = history.Refused }, 0, 0, 1},
	} {
		h := good()
		tt.change(h)
		v := Recovery(h)
		if c := v.Counts; !v.Valid || c["recovered"] != tt.recovered || c["skipped_overlapping"] != tt.over || c["skipped_short"] != tt.few {
			t.Errorf("%s: %v, %q", tt.name, v.Counts, v.Problems)
		}
	}
}

func TestProcesses(t *testing.T) {
	end := func(how string, code int, line string, at time.Duration) func(*history.History) {
		return func(h *history.History) {
			h.Exits = append(h.Exits, history.Exit{Node: "n2", At: at, How: how, Code: code, Status: fmt.Sprint("exit status ", code), LastLine: line})
		}
	}
	testBad(t, Processes, []bad{
		{"a find", func(h *history.History) { h.Finds = []string{"n1 is not ready after 1m0s"} }, "n1 is not ready after 1m0s"},
		{"a panic", end(history.Itself, 2, "goroutine 1 [running]", 0), "n2 crashed with exit status 2"},
		{"a panic that looks like a stop", end(history.Stopped, 2, "goroutine 1 [running]", 0), "n2 was asked to stop and ended with exit status 2"},
		{"a fatal error without a fault", end(history.Itself, 1, "cairn-node: apply entry 7: no", 950*ms), "n2 ended by itself at 0.950s, without a fault that explains it"},
		{"a handler's panic", func(h *history.History) { h.Nodes[0].Panics = 2 }, "n1: 2 panics of request handlers"},
	})
	h := good()
	h.Faults = append(h.Faults, history.Fault{Nemesis: "disk", Nodes: []string{"n2"}, Start: 900 * ms, End: 1200 * ms})
	end(history.Itself, 1, "cairn-node: write Raft's log: input/output error", 950*ms)(h)
	end(history.Killed, -1, "", 960*ms)(h)
	end(history.Stopped, 0, "stopped", 970*ms)(h)
	if v := Processes(h); !v.Valid || v.Counts[history.Itself] != 1 {
		t.Errorf("%v, %q", v.Counts, v.Problems)
	}
}

func TestMeaning(t *testing.T) {
	testBad(t, func(h *history.History) Verdict { return Meaning(h, Options{Rate: 7}) }, []bad{
		{"too slow", func(h *history.History) { h.Ops[8].Outcome = history.Unknown }, "6.0 operations a second were acknowledged, fewer than 7"},
		{"no length", func(h *history.History) { h.Length = 0 }, "0.0 operations a second"},
		{"a fault without effect", func(h *history.History) { h.Faults[0].Bit["ended"] = 0 }, "nothing shows that the nemesis kill took effect, in 1 fault"},
		{"a kind that never struck", func(h *history.History) { h.Nemeses = []string{"kill", "pause"} }, "the nemesis pause never struck"},
		{"a bank that refuses nothing", func(h *history.History) { h.Workloads = []string{bankWorkload} }, "of the workload bank-guarded only 0 appends were refused by its guard"},
		{"rows that nobody reads", func(h *history.History) { h.Workloads = []string{rowsWorkload} }, "of the workload projection only 0 reads of rows succeeded"},
		{"no schema", func(h *history.History) { h.Workloads = []string{schemaWorkload} }, "no schema of the workload schema-change-under-load came into force"},
		{"a workload without success", func(h *history.History) { h.Workloads = []string{"unheard-of"} }, "of the workload unheard-of only 0 operations succeeded"},
		{"no installs", func(h *history.History) {
			for i := range h.Nodes {
				delete(h.Nodes[i].Worked, "installs")
			}
		}, "no node had any installs"},
	})
	h := good()
	if v := Meaning(h, Options{}); v.Valid {
		t.Error("7 operations a second are enough by default")
	}
	h.Nodes = []history.Node{{Name: "n1"}}
	h.Ops = nil
	if v := Meaning(h, Options{Rate: -1, Worked: []string{}}); !v.Valid {
		t.Errorf("nothing was asked for: %q", v.Problems)
	}
}

func TestLinearizable(t *testing.T) {
	testBad(t, func(h *history.History) Verdict { return Linearizable(h, Options{}) }, []bad{
		{"lost", func(h *history.History) { logs(h, drop(7)) }, `stream "s": after 5 of 6 operations, at version 2, none can be next that had to be: op 13: append, not in the final log as answered`},
		{"stale read", func(h *history.History) { h.Ops[8].Read.Version = 1 }, "op 9: at 1"},
		{"read from nowhere", func(h *history.History) { h.Ops[8].Read.Version = 7 }, "op 9: at 7"},
		{"read ahead", func(h *history.History) { h.Ops[8].Read.Version = 3 }, "op 9: at 3"},
		{"accepted at another version", func(h *history.History) { h.Ops[2].Append.Conditions[0].Version = 1 }, "op 3"},
		{"refused at the version asked for", func(h *history.History) { h.Ops[3].Append.Conditions[0].Version = 1 }, "op 4: refused, not at 1"},
		{"two appends the wrong way round", func(h *history.History) { h.Ops[2].Start, h.Ops[2].End = 1400*ms, 1450*ms }, "at version 0, none can be next that had to be: op 4"},
		{"added twice", func(h *history.History) {
			logs(h, func(log []history.Event) []history.Event {
				return slices.Insert(log, 6, log[5])
			})
		}, `stream "s"`},
		{"answered twice as new", func(h *history.History) {
			h.Ops[4].Outcome, h.Ops[5].Append.Duplicate = history.OK, false
			*h.Ops[4].Append = *h.Ops[5].Append
		}, `op 6: append of 2 to 2`},
		{"read before the only try that was not refused", func(h *history.History) {
			h.Ops[3].Append.Events, h.Ops[3].Code = h.Ops[4].Append.Events, "overloaded"
			h.Ops[8].Start, h.Ops[8].End = 400*ms, 450*ms
		}, "op 9: at 2"},
		{"duplicate before the first try", func(h *history.History) {
			h.Ops[5].Start, h.Ops[5].End = 250*ms, 260*ms
		}, `op 6`},
		{"condition on a stream it does not write to", func(h *history.History) {
			h.Ops[12].Append.Conditions = []history.Condition{{Stream: "x", Version: 1}}
		}, `stream "x"`},
		{"refused though its events were there", func(h *history.History) {
			retry := h.Ops[5]
			a := *retry.Append
			a.Conditions = []history.Condition{{Stream: "s", Version: 0}}
			retry.ID, retry.Start, retry.End, retry.Outcome, retry.Code, retry.Append = 14, 1400*ms, 1450*ms, history.Refused, "condition-failed", &a
			h.Ops = append(h.Ops, retry)
		}, "op 14: refused"},
	})
}

func TestLinearizable_SeveralTriesOfUnknownOutcome(t *testing.T) {
	h := good()
	for i := range 3 { // any of them may have written the events
		try := h.Ops[4]
		try.ID, try.Start = 14+i, time.Duration(400-i)*ms
		h.Ops = append(h.Ops, try)
	}
	h.Ops[8].Start, h.Ops[8].End = 400*ms, 450*ms
	if v := Linearizable(h, Options{}); !v.Valid {
		t.Errorf("%q", v.Problems)
	}
	for i := 13; i < len(h.Ops); i++ {
		h.Ops[i].Start = 451 * ms
	}
	if v := Linearizable(h, Options{}); v.Valid {
		t.Error("read before any try began")
	}
}

func TestLinearizable_OutOfTime(t *testing.T) {
	v := Linearizable(good(), Options{Timeout: 1})
	if v.Valid || !strings.Contains(v.Problems[0], "time ran out with 4 of 4 partitions undecided") {
		t.Errorf("%+v", v)
	}
}

func TestTimeline(t *testing.T) {
	h := good()
	var b bytes.Buffer
	if err := Timeline(h, Options{}, &b); err != nil || !strings.Contains(b.String(), "op 13: append of 3 to 3") {
		t.Errorf("no picture of the busiest stream, %v", err)
	}
	b.Reset()
	h.Ops[0].Append.Versions["x"] = 9
	if err := Timeline(h, Options{}, &b); err != nil || !strings.Contains(b.String(), "op 1: append, not in the final log as answered") {
		t.Errorf("no picture of the stream that is wrong, %v", err)
	}
	b.Reset()
	if err := Timeline(&history.History{}, Options{}, &b); err != nil || b.Len() > 0 {
		t.Errorf("a picture of nothing, %v", err)
	}
}

func TestComma(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", -1000: "-1,000", -999: "-999", 12345678: "12,345,678"} {
		if got := comma(n); got != want {
			t.Errorf("comma(%d) = %s", n, got)
		}
	}
}
