package check

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"cairn/event"
	"cairn/jepsen-lite/history"
	"cairn/projection"
)

const (
	bankText = `{"match":{"category":"bank"},"init":{"balance":0},
		"when":{"*":"{'balance': state.balance + event.data.amount}"},
		"guards":{"Withdrawn":[{"rule":"state.balance + event.data.amount >= 0"}]}}`
	bankRule   = "state.balance + event.data.amount >= 0"
	firstForm  = `{"schema":{"required":["c"]}}`
	secondForm = `{"schema":{"required":["k"]},"upcast":"{'k': data.c + 273}","examples":[{"old":{"c":1},"new":{"k":274}}]}`
)

// story builds a history by hand: events, and operations that take 50 of every
// 100 ms, one after the other.
type story struct {
	h        history.History
	log      []history.Event
	versions map[string]uint64
}

func (s *story) put(e history.Event) history.Event {
	s.versions[e.Stream]++
	e.Position, e.Version, e.Time = uint64(len(s.log))+1, s.versions[e.Stream], int64(len(s.log))
	s.log = append(s.log, e)
	return e
}

func (s *story) system(stream, typ string, body any) {
	data, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	s.put(history.Event{Stream: stream, Type: typ, ID: string(data), Data: data})
}

func (s *story) op(op history.Op) {
	op.ID = len(s.h.Ops) + 1
	op.Start = time.Duration(op.ID) * 100 * ms
	op.End, op.Client, op.Node = op.Start+50*ms, 1, "n1"
	if op.Workload == "" {
		op.Workload = bankWorkload
	}
	if op.Outcome == "" {
		op.Outcome = history.OK
	}
	s.h.Ops = append(s.h.Ops, op)
}

// sentEvent is one as it is sent.
func sentEvent(stream, typ, id string, schema uint32, data string) history.Event {
	var form struct{ Amount json.Number }
	_ = json.Unmarshal([]byte(data), &form) // a text has no amount
	n, _ := form.Amount.Int64()
	return history.Event{Stream: stream, Type: typ, ID: id, Sum: history.Sum([]byte(data)), Data: json.RawMessage(data), Schema: schema, Amount: n}
}

// append is one that was accepted, with its events stamped with a schema.
func (s *story) append(schema uint32, events ...history.Event) {
	a := &history.Append{Events: events, First: uint64(len(s.log)) + 1, Versions: map[string]uint64{}}
	for _, e := range events {
		e.Schema = schema
		a.Versions[e.Stream] = s.put(e).Version
	}
	a.Last = uint64(len(s.log))
	op := history.Op{Append: a}
	if schema > 0 {
		op.Workload = "schema-change-under-load"
	}
	s.op(op)
}

func (s *story) refuse(code string, r history.Refusal, events ...history.Event) {
	s.op(history.Op{Append: &history.Append{Events: events}, Outcome: history.Refused, Code: code, Refusal: &r})
}

func canonical(text string) json.RawMessage {
	d, err := projection.ParseDefinition("bank", []byte(text))
	if err != nil {
		panic(err)
	}
	return d.Canonical()
}

// folded returns a history with a guarding projection, of which schema 2 of a type
// makes a second generation.
//
//	position  1  2        3     4   5   6         7   8         9        10     11  12
//	          -  defined  live  d1  w1  schema 1  m1  schema 2  defined  live   m2  m3
//	op                          1   2             6                             7   8
func folded() *history.History {
	s := &story{versions: map[string]uint64{}}
	s.put(history.Event{Stream: "$log", Type: "log-created", ID: "born"})
	s.system(event.StreamProjections, event.TypeProjectionDefined, event.ProjectionDefined{Name: "bank", Definition: canonical(bankText), Engine: projection.Engine})
	s.system(event.StreamProjections, event.TypeProjectionLive, event.ProjectionLive{Name: "bank", Generation: 2, Built: 2})
	s.append(0, sentEvent("bank-a", "Deposited", "d1", 0, `{"amount":50}`))
	s.append(0, sentEvent("bank-a", "Withdrawn", "w1", 0, `{"amount":-30}`))
	s.refuse(codeGuardFailed, history.Refusal{Projection: "bank", Key: "bank-a", Guard: bankRule, State: 5}, sentEvent("bank-a", "Withdrawn", "w2", 0, `{"amount":-21}`))
	s.refuse(codeGuardFailed, history.Refusal{Event: 1, Projection: "bank", Key: "bank-a", Guard: bankRule, State: 5},
		sentEvent("bank-a", "Deposited", "d3", 0, `{"amount":10}`), sentEvent("bank-a", "Withdrawn", "w3", 0, `{"amount":-31}`))
	s.refuse(codeFoldFailed, history.Refusal{Projection: "bank", Key: "bank-a"}, sentEvent("bank-a", "Deposited", "d4", 0, `{"amount":"x"}`))
	s.system(event.StreamTypes, event.TypeSchemaRegistered, event.SchemaRegistered{Type: "M", Number: 1, Engine: projection.Engine, Body: json.RawMessage(firstForm)})
	s.append(1, sentEvent("m", "M", "m1", 0, `{"c":1}`))
	s.system(event.StreamTypes, event.TypeSchemaRegistered, event.SchemaRegistered{Type: "M", Number: 2, Engine: projection.Engine, Body: json.RawMessage(secondForm)})
	s.system(event.StreamProjections, event.TypeProjectionDefined,
		event.ProjectionDefined{Name: "bank", Definition: canonical(bankText), Engine: projection.Engine, Schemas: map[string]uint32{"M": 2}})
	s.system(event.StreamTypes, event.TypeSchemaLive, event.SchemaLive{Type: "M", Number: 2, Built: 9})
	s.append(2, sentEvent("m", "M", "m2", 0, `{"k":274}`))
	s.append(1, sentEvent("m", "M", "m3", 1, `{"c":2}`))

	raw := []history.Event{s.log[6], s.log[10], s.log[11]}
	newest := slices.Clone(raw)
	for i, data := range []string{`{"k":274}`, `{"k":274}`, `{"k":275}`} {
		newest[i].Schema, newest[i].Data, newest[i].Sum = 2, json.RawMessage(data), history.Sum([]byte(data))
	}
	s.op(history.Op{Read: &history.Read{Stream: "m", Position: 12, Version: 3, Events: newest}})         // op 9
	s.op(history.Op{Read: &history.Read{Stream: "m", Position: 12, Version: 3, Events: raw, Raw: true}}) // op 10
	s.refuse(codeSchemaViolation, history.Refusal{Schema: 2}, sentEvent("m", "M", "m4", 0, `{"c":1}`))   // 11
	s.refuse(codeSchemaViolation, history.Refusal{Schema: 3}, sentEvent("m", "M", "m5", 3, `{"c":1}`))   // 12
	a := history.Row{Key: "bank-a", State: `{"balance":20}`, Events: 2, Position: 5}
	was := history.Row{Key: "bank-a", State: `{"balance":50}`, Events: 1, Position: 4}
	s.op(history.Op{State: &history.StateRead{Projection: "bank", Key: "bank-a", AsOf: 12, Generation: 9, Rows: []history.Row{a}}}) // op 13
	s.op(history.Op{State: &history.StateRead{Projection: "bank", Key: "bank-a", AtPosition: 4, AsOf: 12, Generation: 9, Rows: []history.Row{was}}})
	s.op(history.Op{State: &history.StateRead{Projection: "bank", Prefix: "bank-", Limit: 1, AsOf: 12, Generation: 9, Rows: []history.Row{a}}})
	s.op(history.Op{State: &history.StateRead{Projection: "bank", Key: "none", AsOf: 12}})
	s.op(history.Op{State: &history.StateRead{Projection: "bank", Prefix: "z"}})
	s.op(history.Op{Define: &history.Define{Projection: "bank", Body: json.RawMessage(bankText), Generation: 9}})        // op 18
	s.op(history.Op{Define: &history.Define{Type: "M", Number: 2, Body: json.RawMessage(secondForm)}})                   // op 19
	s.op(history.Op{Outcome: history.Refused, Code: codeBuilding, State: &history.StateRead{Projection: "x", Key: "a"}}) // op 20

	s.h.Length, s.h.Healed, s.h.NoOverdraft = 3*time.Second, 3*time.Second, true
	s.h.Followers = []history.Follower{{ID: 1, Form: "sse", Prefix: "m", Done: true, Through: 12}}
	for i := range newest {
		s.h.Deliveries = append(s.h.Deliveries, history.Delivery{Follower: 1, Connection: 1, Node: "n1", At: 4 * time.Second, Event: newest[i]})
	}
	for _, name := range []string{"n1", "n2"} {
		s.h.Nodes = append(s.h.Nodes, history.Node{Name: name, LogID: "L", Events: slices.Clone(s.log), Tables: []history.Table{
			{Projection: "bank", Generation: 9, AtPosition: 12, Rows: []history.Row{a}},
			{Projection: "bank", Generation: 9, AtPosition: 4, Past: true, Rows: []history.Row{was}},
			{Projection: "bank", AtPosition: 2, Past: true},
		}})
	}
	return &s.h
}

func TestAll_FoldedHistory(t *testing.T) {
	details := map[string]string{
		"guards":  "2 events of the bank; 2 guarding generations; 2 appends refused by a guard, 1 that can't be folded",
		"rows":    "5 reads, 1 of the past; 6 tables with 4 rows; 2 generations in force over the run",
		"schemas": "3 events with a schema; 6 of such types were read; 2 refused",
		"totals":  "2 transfers among 1 account, which hold 20",
	}
	for _, v := range All(folded(), Options{Rate: -1, Worked: []string{}}) {
		if !v.Valid {
			t.Errorf("%s: %q", v.Checker, v.Problems)
		}
		if want := details[v.Checker]; want != "" && v.Detail != want {
			t.Errorf("%s says %q, want %q", v.Checker, v.Detail, want)
		}
	}
}

// testFolded spoils the folded history.
func testFolded(t *testing.T, judge func(*history.History) Verdict, tests []bad) {
	t.Helper()
	for _, tt := range tests {
		h := folded()
		tt.spoil(h)
		v := judge(h)
		if v.Valid || !slices.ContainsFunc(v.Problems, func(p string) bool { return strings.Contains(p, tt.want) }) {
			t.Errorf("%s: valid %t, no problem says %q:\n%s", tt.name, v.Valid, tt.want, strings.Join(v.Problems, "\n"))
		}
	}
}

// holds changes what stands at a position on all nodes.
func holds(position int, change func(e *history.Event)) func(*history.History) {
	return func(h *history.History) {
		logs(h, func(log []history.Event) []history.Event { change(&log[position-1]); return log })
	}
}

func data(text string) func(e *history.Event) {
	return func(e *history.Event) { e.Data = json.RawMessage(text) }
}

func TestGuards(t *testing.T) {
	refusal := func(op int, change func(op *history.Op)) func(*history.History) {
		return func(h *history.History) { change(&h.Ops[op-1]) }
	}
	testFolded(t, Guards, []bad{
		{"below zero", holds(5, data(`{"amount":-51}`)), `account "bank-a" is at -1 at version 2, position 5`},
		{"let in", holds(5, data(`{"amount":-51}`)), `position 5 (event "w1" of stream "bank-a") was let in by projection bank, which guards since 3: it breaks its guard ` + bankRule},
		{"a text let in", holds(5, data(`{"amount":"x"}`)), `it can't be folded`},
		{"behind a row that stopped", func(h *history.History) {
			holds(4, data(`{"amount":"x"}`))(h)
		}, `position 5 (event "w1" of stream "bank-a") was let in by projection bank, which guards since 3: it is for row "bank-a", which stopped at position 4`},
		{"a text has no amount", holds(4, data(`{"amount":"x"}`)), `has no amount: {"amount":"x"}`},
		{"refused for nothing", refusal(3, func(op *history.Op) { op.Append.Events[0].Data = json.RawMessage(`{"amount":-20}`) }), "op 3 (bank-guarded, client 1, n1, 0.300s to 0.350s) was refused (guard-failed), but event 0 breaks nothing"},
		{"refused in a state that was over", refusal(3, func(op *history.Op) { op.Refusal.State = 4 }), "that ended with position 4"},
		{"refused in a state that never was", refusal(3, func(op *history.Op) { op.Refusal.State = 0 }), "that ended with position 0"},
		{"refused in a state of its own that can't be", refusal(4, func(op *history.Op) { op.Refusal.State = 9 }), "that ended with position 9"},
		{"refused for another rule", refusal(3, func(op *history.Op) { op.Refusal.Guard = "false" }), "op 3"},
		{"refused for another event", refusal(4, func(op *history.Op) { op.Refusal.Event = 0 }), "op 4"},
		{"refused for the second though the first breaks it", refusal(4, func(op *history.Op) {
			op.Append.Events[0].Type, op.Append.Events[0].Data = "Withdrawn", json.RawMessage(`{"amount":-99}`)
		}), "op 4"},
		{"refused for another row", refusal(3, func(op *history.Op) { op.Refusal.Key = "bank-b" }), `for row "bank-b"`},
		{"refused by nobody", refusal(3, func(op *history.Op) { op.Refusal.Projection = "other" }), `projection "other" did not guard anything then`},
		{"no reason", refusal(3, func(op *history.Op) { op.Refusal = nil }), `does not say for which event`},
		{"can be folded", refusal(5, func(op *history.Op) { op.Append.Events[0].Data = json.RawMessage(`{"amount":1}`) }), "op 5"},
		{"refused before it guarded", refusal(3, func(op *history.Op) {
			op.Start, op.End = 0, 10*ms
		}), "op 3"},
		{"acknowledged before", func(h *history.History) {
			h.Ops[2].Append = &history.Append{Events: h.Ops[1].Append.Events}
		}, "though its events had been acknowledged to op 2"},
	})
}

func TestRows(t *testing.T) {
	state := func(op int, change func(r *history.StateRead)) func(*history.History) {
		return func(h *history.History) { change(h.Ops[op-1].State) }
	}
	table := func(n int, change func(t *history.Table)) func(*history.History) {
		return func(h *history.History) { change(&h.Nodes[1].Tables[n]) }
	}
	testFolded(t, Rows, []bad{
		{"another state", state(13, func(r *history.StateRead) { r.Rows[0].State = `{"balance":50}` }), `as of position 12 row "bank-a" is bank-a {"balance":50} after 2 events, the last at 5, but folding the log gives bank-a {"balance":20}`},
		{"another count", state(13, func(r *history.StateRead) { r.Rows[0].Events = 1 }), "op 13"},
		{"another last event", state(13, func(r *history.StateRead) { r.Rows[0].Position = 4 }), "op 13"},
		{"stopped", state(13, func(r *history.StateRead) { r.Rows[0].Failed = 5 }), "stopped at 5"},
		{"missing", state(13, func(r *history.StateRead) { r.Rows = nil }), `row "bank-a" is missing as of position 12`},
		{"stale", state(13, func(r *history.StateRead) { r.AsOf = 11 }), "it is as of position 11, though position 12 had been answered before"},
		{"from the future", state(13, func(r *history.StateRead) { r.AsOf = 13 }), "it is as of position 13, though only 12 events had been sent"},
		{"old generation", state(13, func(r *history.StateRead) { r.Generation = 2 }), "no generation that it can be of (2) was in force then"},
		{"the present for the past", state(14, func(r *history.StateRead) { r.Rows[0].State = `{"balance":20}` }), "as of position 4"},
		{"a list with less", state(15, func(r *history.StateRead) { r.Rows = nil }), "op 15"},
		{"a list with more", state(15, func(r *history.StateRead) {
			r.Limit, r.Rows = 2, append(r.Rows, history.Row{Key: "bank-b"})
		}), `row "bank-b" is there as of position 12, though no event made it`},
		{"a row that is not", state(16, func(r *history.StateRead) { r.Rows = []history.Row{{Key: "none"}} }), "op 16"},
		{"an unknown projection", state(16, func(r *history.StateRead) { r.Projection = "x" }), "no generation"},
		{"building again", state(20, func(r *history.StateRead) { r.Projection = "bank" }), "was told that projection bank is being built, which is live since position 10"},
		{"behind min_position", func(h *history.History) {
			s := h.Ops[12].State
			s.Local, s.MinPosition, s.AsOf = true, 12, 11
		}, "it is as of position 11"},
		{"lost on a node", table(0, func(t *history.Table) { t.Rows = nil }), `projection bank on n2: row "bank-a" is missing`},
		{"different on a node", table(0, func(t *history.Table) { t.Rows[0].State = `{"balance":21}` }), "projection bank on n2"},
		{"different in the past", table(1, func(t *history.Table) { t.Rows[0].Position = 5 }), "projection bank on n2: as of position 4"},
		{"there too early", table(2, func(t *history.Table) { t.Generation, t.Rows = 9, []history.Row{{Key: "bank-a"}} }), "no event made it"},
		{"not switched", table(0, func(t *history.Table) { t.Generation = 2 }), "rows are of generation 2, in force is 9"},
		{"behind", table(0, func(t *history.Table) { t.AtPosition = 11 }), "rows are as of position 11, the final log ends at 12"},
		{"of nothing", table(0, func(t *history.Table) { t.Projection = "x" }), "no generation is in force"},
		{"not read", func(h *history.History) { h.Nodes[1].Tables = h.Nodes[1].Tables[1:] }, "the rows of projection bank on n2 could not be read"},
		{"not defined", func(h *history.History) { h.Ops[17].Define.Generation = 4 }, "no definition stands there"},
		{"defined beyond the end", func(h *history.History) { h.Ops[17].Define.Generation = 13 }, "the final log ends at position 12"},
		{"defined otherwise", func(h *history.History) { h.Ops[17].Define.Body = json.RawMessage(`{}`) }, "another definition stands there"},
		{"live without a definition", holds(3, data(`{"name":"bank","generation":1}`)), "projection-live at position 3 can't have been accepted"},
	})
}

func TestAtomic_Rows(t *testing.T) {
	testFolded(t, Atomic, []bad{{"rows in the midst", func(h *history.History) {
		h.Ops[0].Append.Events = append(h.Ops[0].Append.Events, h.Ops[1].Append.Events...)
		h.Ops[12].State.AsOf = 4
	}, "op 13 (bank-guarded, client 1, n1, 1.300s to 1.350s) read as of position 4, in the midst of an append"}})
}

func TestSchemas(t *testing.T) {
	given := func(op, n int, change func(e *history.Event)) func(*history.History) {
		return func(h *history.History) { change(&h.Ops[op-1].Read.Events[n]) }
	}
	refusal := func(op int, change func(e *history.Event, r *history.Refusal)) func(*history.History) {
		return func(h *history.History) { change(&h.Ops[op-1].Append.Events[0], h.Ops[op-1].Refusal) }
	}
	testFolded(t, Schemas, []bad{
		{"not valid", holds(11, data(`{"c":1}`)), `event "m2" of stream "m" at position 11 is not valid under schema 2`},
		{"no schema", holds(11, func(e *history.Event) { e.Schema = 0 }), "at position 11 has no schema, though its type has 2 since before"},
		{"too new", holds(7, func(e *history.Event) { e.Schema = 2 }), "at position 7 has schema 2, but the newest in force there is 1"},
		{"not the one named", holds(12, func(e *history.Event) { e.Schema, e.Data = 2, json.RawMessage(`{"k":2}`) }), "at position 12 has schema 2, but was sent with 1"},
		{"read in an old form", given(9, 0, func(e *history.Event) { e.Schema, e.Data = 1, json.RawMessage(`{"c":1}`) }), `op 9 (bank-guarded, client 1, n1, 0.900s to 0.950s) was given event "m1" of stream "m" in the form of schema 1, though 2 was in force before`},
		{"upcast wrongly", given(9, 2, data(`{"k":2}`)), `as {"k":2}, but what is stored gives {"k":275} under schema 2`},
		{"in a form that is not", given(9, 0, func(e *history.Event) { e.Schema = 3 }), "in the form of schema 3, to which nothing leads"},
		{"followed in an old form", func(h *history.History) {
			h.Deliveries[2].Event.Schema, h.Deliveries[2].Event.Data = 1, json.RawMessage(`{"c":2}`)
		}, `follower 1 was given event "m3" of stream "m" by n1 at 4.000s in the form of schema 1`},
		{"refused though valid", refusal(11, func(e *history.Event, _ *history.Refusal) { e.Data = json.RawMessage(`{"k":1}`) }), `op 11 (bank-guarded, client 1, n1, 1.100s to 1.150s) was refused (schema-violation), but {"k":1} is valid under schema 2`},
		{"refused for an old schema", refusal(11, func(e *history.Event, r *history.Refusal) { e.Data, r.Schema = json.RawMessage(`{"k":1}`), 1 }), "for schema 1, though the newest then was 2 to 2"},
		{"refused for another schema", refusal(12, func(_ *history.Event, r *history.Refusal) { r.Schema = 2 }), "for schema 2 in place of 3, which it names"},
		{"refused for one in force", refusal(12, func(e *history.Event, r *history.Refusal) { e.Schema, r.Schema = 1, 1 }), `{"c":1} is valid under schema 1`},
		{"no reason", func(h *history.History) { h.Ops[10].Refusal = nil }, "does not say for which event"},
		{"registered otherwise", func(h *history.History) {
			h.Ops[18].Define.Body = json.RawMessage(strings.Replace(secondForm, `["k"]`, `["k","n"]`, 1))
		}, "another one stands at position 8"},
		{"not registered", func(h *history.History) { h.Ops[18].Define.Type = "N" }, "the final log has none of that number"},
		{"no schema at all", func(h *history.History) { h.Ops[18].Define.Body = json.RawMessage(`[]`) }, "it is none"},
	})
	testFolded(t, Reads, []bad{
		{"a raw read of another form", func(h *history.History) { h.Ops[9].Read.Events[0] = h.Ops[8].Read.Events[0] }, "has another content"},
	})
	testFolded(t, EqualNodes, []bad{
		{"another schema on a node", func(h *history.History) { h.Nodes[1].Events[6].Schema = 0 }, "another schema at position 7"},
	})
}
