package check

import (
	"slices"
	"time"

	"cairn/jepsen-lite/history"
)

// good returns a small history without a fault, in which every checker finds
// something to judge. Op i runs from i*100 ms for 50 ms.
//
//	position  1     2   3   4   5   6   7     8
//	stream    $log  x   x   y   s   s   u     s
//	id        born  o1  t1  t2  e1  e2  bob1  e3
//	op              1   2   2   3   5,6 7     13
func good() *history.History {
	event := func(stream, id string, amount int64, tags ...string) history.Event {
		return history.Event{Stream: stream, Type: "T", ID: id, Tags: tags, Sum: history.Sum([]byte(id)), Amount: amount}
	}
	var log []history.Event
	versions := map[string]uint64{}
	put := func(e history.Event) history.Event {
		versions[e.Stream]++
		e.Position, e.Version, e.Time = uint64(len(log))+1, versions[e.Stream], int64(len(log)/2)
		log = append(log, e)
		return e
	}
	o1, t1, t2 := event("x", "o1", 100), event("x", "t1", -30), event("y", "t2", 30)
	e1, e2, e3 := event("s", "e1", 0), event("s", "e2", 0), event("s", "e3", 0)
	bob1, bob2 := event("u", "bob1", 0, "name:bob"), event("u", "bob2", 0, "name:bob")
	put(event("$log", "born", 0))
	for _, e := range []history.Event{o1, t1, t2, e1, e2, bob1, e3} {
		put(e)
	}

	h := &history.History{Seed: 42, Command: "go run ./jepsen-lite -seed 42", Length: time.Second, Healed: 1200 * time.Millisecond, NoOverdraft: true}
	op := func(workload string, outcome history.Outcome, code string, a *history.Append, r *history.Read) {
		n := len(h.Ops) + 1
		start := time.Duration(n) * 100 * time.Millisecond
		h.Ops = append(h.Ops, history.Op{ID: n, Client: n % 3, Workload: workload, Node: "n1", Start: start, End: start + 50*time.Millisecond, Outcome: outcome, Code: code, Append: a, Read: r})
	}
	sent := func(conditions []history.Condition, events ...history.Event) *history.Append {
		return &history.Append{Events: events, Conditions: conditions}
	}
	done := func(a *history.Append, first uint64, versions map[string]uint64) *history.Append {
		a.First, a.Last, a.Versions = first, first+uint64(len(a.Events))-1, versions
		return a
	}
	at := func(stream string, version uint64) []history.Condition {
		return []history.Condition{{Stream: stream, Version: version}}
	}
	free := []history.Condition{{Tag: "name:bob"}}
	op("transfer", history.OK, "", done(sent(nil, o1), 2, map[string]uint64{"x": 1}), nil)
	op("transfer", history.OK, "", done(sent(at("x", 1), t1, t2), 3, map[string]uint64{"x": 2, "y": 1}), nil)
	op("append", history.OK, "", done(sent(at("s", 0), e1), 5, map[string]uint64{"s": 1}), nil)
	op("append", history.Refused, "condition-failed", sent(at("s", 0), event("s", "r1", 0)), nil)
	op("retry", history.Unknown, "", sent(at("s", 1), e2), nil)
	again := done(sent(at("s", 1), e2), 6, map[string]uint64{"s": 2})
	again.Duplicate = true
	op("retry", history.OK, "", again, nil)
	op("unique", history.OK, "", done(sent(free, bob1), 7, map[string]uint64{"u": 1}), nil)
	op("unique", history.Refused, "condition-failed", sent(free, bob2), nil)
	op("append", history.OK, "", nil, &history.Read{Stream: "s", After: 1, Position: 7, Version: 2, Events: slices.Clone(log[5:6])})
	op("append", history.OK, "", nil, &history.Read{After: 1, Limit: 2, Local: true, MinPosition: 3, Position: 4, Events: slices.Clone(log[1:3])})
	op("append", history.Unknown, "", sent(nil, event("s", "lost", 0)), nil)
	op("append", history.Refused, "overloaded", sent(nil, event("s", "r2", 0)), nil)
	op("append", history.OK, "", done(sent(nil, e3), 8, map[string]uint64{"s": 3}), nil)

	h.Followers = []history.Follower{
		{ID: 1, Form: "sse", Done: true, Through: 8},
		{ID: 2, Form: "ndjson", Prefix: "s", Types: []string{"T"}, After: 5, Done: true, Through: 8},
	}
	for i, e := range log {
		at := 2*time.Second + time.Duration(i)*time.Millisecond
		h.Deliveries = append(h.Deliveries, history.Delivery{Follower: 1, Connection: 1 + i/3, Node: "n1", At: at, Event: e})
		if e.Stream == "s" && e.ID != "e1" {
			h.Deliveries = append(h.Deliveries, history.Delivery{Follower: 2, Connection: 1, Node: "n2", At: at, Event: e})
		}
	}
	h.Faults = []history.Fault{{Nemesis: "kill", What: "kill -9 of n2", Nodes: []string{"n2"}, Start: 900 * time.Millisecond, End: 1200 * time.Millisecond, Bit: map[string]int64{"ended": 1}}}
	for _, name := range []string{"n1", "n2", "n3"} {
		h.Nodes = append(h.Nodes, history.Node{
			Name: name, LogID: "L", Events: slices.Clone(log), Segments: []history.Segment{{Name: "1.seg", Size: 4096, Sum: "aa"}, {Name: "5.seg", Size: 99, Sum: "bb"}},
			Worked: map[string]int64{"rolls": 1, "savepoints": 1, "snapshots": 1, "installs": 1, "flushes": 1, "compactions": 1},
		})
	}
	return h
}

// logs changes the log of every node in the same way.
func logs(h *history.History, change func(log []history.Event) []history.Event) {
	for i := range h.Nodes {
		h.Nodes[i].Events = change(h.Nodes[i].Events)
	}
}
