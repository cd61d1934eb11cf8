package fsm

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"

	"cairn/event"
	"cairn/projection"
)

// register registers a schema and returns what became of it.
func register(t failer, l *ledger, m *Machine, typ string, number uint32, body string) event.Outcome {
	t.Helper()
	c, err := event.SystemCommand(event.StreamTypes, event.TypeSchemaRegistered,
		event.SchemaRegistered{Type: typ, Number: number, Engine: projection.Engine, Body: []byte(body)})
	if err != nil {
		t.Fatalf("%v", err)
	}
	return decided(t, m, l.add(c))
}

const (
	firstSchema  = `{"schema":{"type":"object","properties":{"amount":{"type":"number"}},"required":["amount"]}}`
	secondSchema = `{"schema":{"type":"object","properties":{"cents":{"type":"number"}},"required":["cents"]},
		"upcast":"{'cents': data.amount * 100}","examples":[{"old":{"amount":2},"new":{"cents":200}}]}`
)

func TestCheck_StampsAndRefuses(t *testing.T) {
	m := openMachine(t, vfs.NewMem(), nil)
	defer m.Close()
	l := newLedger(t)
	outcomes(t, m, l.logs)
	check := func(a event.Append) (uint32, string) {
		t.Helper()
		refused, err := m.Check(&a)
		if err != nil {
			t.Fatal(err)
		}
		if refused == nil {
			return a.Events[0].Schema, ""
		}
		return 0, fmt.Sprintf("%d: %+v", refused.Code, refused.Violation.Errors)
	}
	withSchema := func(a event.Append, n uint32) event.Append {
		a.Events[0].Schema = n
		return a
	}
	if n, refused := check(amount("b-1", "Paid", `"x"`)); n != 0 || refused != "" {
		t.Errorf("a type without schemas: %d, %s", n, refused)
	}
	if _, refused := check(withSchema(amount("b-1", "Paid", "1"), 1)); !strings.Contains(refused, "has no schemas") {
		t.Errorf("a schema that does not exist: %s", refused)
	}
	before := amount("b-1", "Paid", "1")
	if o := register(t, l, m, "Paid", 1, firstSchema); !o.OK() {
		t.Fatalf("schema 1: %+v", o)
	}
	if n, refused := check(amount("b-1", "Paid", "1")); n != 1 || refused != "" {
		t.Errorf("data that conforms: %d, %s", n, refused)
	}
	if _, refused := check(amount("b-1", "Paid", `"x"`)); !strings.Contains(refused, "/amount") {
		t.Errorf("data that does not: %s", refused)
	}
	// It was checked where schema 1 was not known yet.
	if o := decided(t, m, l.add(appended(before))); o.Code != event.SchemaChanged {
		t.Errorf("an append without a schema: %+v", o)
	}
	known := one("b-1", "Paid", withID("p1"), func(e *event.Event) { e.Data, e.Schema = []byte(`{"amount":1}`), 1 })
	if o := decided(t, m, l.add(appended(known))); o.Code != event.Accepted {
		t.Fatalf("%+v", o)
	}
	if o := register(t, l, m, "Paid", 2, secondSchema); !o.OK() {
		t.Fatalf("schema 2: %+v", o)
	}
	if n, refused := check(withSchema(amount("b-1", "Paid", "1"), 1)); n != 1 || refused != "" {
		t.Errorf("a program of yesterday says which schema it writes: %d, %s", n, refused)
	}
	// A retry is one, whatever was registered since.
	retry := known
	retry.Events = append([]event.Event{}, known.Events...)
	retry.Events[0].Schema = 0
	if n, refused := check(retry); refused != "" || n != 2 {
		t.Errorf("a retry from before schema 2: %d, %s", n, refused)
	}
	retry.Events[0].Schema = 2
	if o := decided(t, m, l.add(appended(retry))); o.Code != event.Duplicate {
		t.Errorf("a retry from before schema 2: %+v", o)
	}
}

// A schema with an upcast waits for the projections that fold its type, and goes
// into force together with generations that are made for it.
func TestSchema_GoesLiveWithItsProjections(t *testing.T) {
	m := openMachine(t, vfs.NewMem(), nil)
	defer m.Close()
	l := newLedger(t)
	outcomes(t, m, l.logs)
	register(t, l, m, "Paid", 1, firstSchema)
	define(t, l, m, "sum", `{"match":{"types":["Paid"]},"key":"'all'","init":{"sum":0},
		"when":{"Paid":"{'sum': state.sum + (has(event.data.cents) ? event.data.cents : event.data.amount * 100)}"},
		"guards":{"Paid":[{"rule":"state.sum < 1000","message":"enough"}]}}`)
	pay := func(data string, n uint32) event.Outcome {
		return decided(t, m, l.add(appended(one("b-1", "Paid", func(e *event.Event) { e.Data, e.Schema = []byte(data), n }))))
	}
	pay(`{"amount":3}`, 1)
	if o := register(t, l, m, "Paid", 2, secondSchema); !o.OK() {
		t.Fatalf("schema 2: %+v", o)
	}
	pending, lacking, _ := m.Catalog().Pending()
	if pending == nil || pending.Number != 2 || len(lacking) != 1 || m.Catalog().Types().Newest("Paid") != 1 {
		t.Fatalf("pending %+v, lacking %v, newest %d", pending, lacking, m.Catalog().Types().Newest("Paid"))
	}
	if o := register(t, l, m, "Other", 1, firstSchema); o.Code != event.Refused {
		t.Errorf("another schema while one is pending: %+v", o)
	}
	live, err := SchemaLiveCommand(pending, m.published.position)
	if err != nil {
		t.Fatal(err)
	}
	if o := decided(t, m, l.add(live)); o.Code != event.Refused {
		t.Errorf("in force without the projection: %+v", o)
	}
	old, _ := m.Catalog().Find("sum")
	again, err := m.DefineCommand("sum", old.Definition().Canonical())
	if err != nil {
		t.Fatal(err)
	}
	if o := decided(t, m, l.add(again)); o.Code != event.Accepted {
		t.Fatalf("the generation for schema 2: %+v", o)
	}
	if o := decided(t, m, l.add(enforced(t, m, "sum"))); o.Code != event.Refused {
		t.Errorf("the generation without its schema: %+v", o)
	}
	pay(`{"amount":4}`, 1)
	if live, err = SchemaLiveCommand(pending, m.published.position); err != nil {
		t.Fatal(err)
	}
	if o := decided(t, m, l.add(live)); o.Code != event.Accepted {
		t.Fatalf("schema 2 goes live: %+v", o)
	}
	expectState(t, m, "sum", "all", Moment{}, `{"sum":700}`)
	if o := pay(`{"cents":350}`, 2); !o.OK() {
		t.Errorf("an event of schema 2: %+v", o)
	}
	if o := pay(`{"amount":1}`, 1); o.Code != event.GuardFailed || o.Guard.Message != "enough" {
		t.Errorf("an event of schema 1 beyond the guard: %+v", o)
	}
	expectState(t, m, "sum", "all", Moment{}, `{"sum":1050}`)
	// The catalog is folded from the log: a restart finds the same.
	if c, err := loadCatalog(m.gen.index, m.gen.log, m.state.position); err != nil || c.Types().Newest("Paid") != 2 || len(c.Guarding()) != 1 {
		t.Errorf("catalog loaded anew: %v", err)
	}
}

func TestPrecheck_CompensatesAnEventOfItsStream(t *testing.T) {
	m := openMachine(t, vfs.NewMem(), nil)
	defer m.Close()
	l := newLedger(t)
	outcomes(t, m, l.logs)
	chosen, given := one("b-1", "Paid", withID("p1")), one("b-1", "Paid")
	outcomes(t, m, []*raft.Log{l.add(appended(chosen)), l.add(appended(given))})
	for _, test := range []struct {
		stream, id string
		ok         bool
	}{{"b-1", "p1", true}, {"b-1", given.Events[0].ID, true}, {"b-2", "p1", false}, {"b-1", "p2", false}} {
		a := one(test.stream, "Refunded", func(e *event.Event) { e.Compensates = test.id })
		_, refusal, err := m.Precheck(&a)
		if err != nil || (refusal == nil) != test.ok {
			t.Errorf("%s in %s: %+v, %v", test.id, test.stream, refusal, err)
		}
	}
	both := event.Append{Events: append(one("b-3", "Paid", withID("p3")).Events, one("b-3", "Refunded", func(e *event.Event) { e.Compensates = "p3" }).Events...)}
	if _, refusal, err := m.Precheck(&both); err != nil || refusal != nil {
		t.Errorf("an event of the same append: %+v, %v", refusal, err)
	}
}

// What stands behind an append that is to be proposed again, in the same entry and
// in one of its streams, stays behind it.
func TestStale_KeepsTheOrderOfAStream(t *testing.T) {
	m := openMachine(t, vfs.NewMem(), nil)
	defer m.Close()
	l := newLedger(t)
	outcomes(t, m, l.logs)
	if o := register(t, l, m, "Paid", 1, firstSchema); !o.OK() {
		t.Fatalf("%+v", o)
	}
	entry := l.add(appended(one("b-1", "Paid")), appended(one("b-1", "Other")), appended(one("b-2", "Other")))
	var codes []event.OutcomeCode
	for _, o := range outcomes(t, m, []*raft.Log{entry}) {
		codes = append(codes, o.Code)
	}
	if want := []event.OutcomeCode{event.SchemaChanged, event.SchemaChanged, event.Accepted}; !slices.Equal(codes, want) {
		t.Errorf("%v, want %v", codes, want)
	}
	if o := decided(t, m, l.add(appended(one("b-1", "Other")))); o.Code != event.Accepted {
		t.Errorf("in the next entry: %+v", o)
	}
}

// A type that has rules is not renamed to one that has none: its guards would be
// off, and nobody told.
func TestSchema_RenameKeepsRules(t *testing.T) {
	m := openMachine(t, vfs.NewMem(), nil)
	defer m.Close()
	l := newLedger(t)
	outcomes(t, m, l.logs)
	define(t, l, m, "account", accountDefinition)
	body := `{"schema":{},"upcast":"data","renamed":"Taken","examples":[{"old":{},"new":{}}]}`
	if o := register(t, l, m, "Withdrawn", 1, body); o.Code != event.Refused || !strings.Contains(o.Reason, "account") {
		t.Errorf("renamed under a guard: %+v", o)
	}
	if o := register(t, l, m, "Other", 1, body); o.Code != event.Accepted {
		t.Errorf("renamed without rules: %+v", o)
	}
}

// One append may not have Apply read and write rows without end, nor evaluate.
func TestGuard_BoundsTheWorkOfAnAppend(t *testing.T) {
	m := openMachine(t, vfs.NewMem(), nil)
	defer m.Close()
	l := newLedger(t)
	outcomes(t, m, l.logs)
	define(t, l, m, "big", `{"match":{"category":"big"},"key":"'all'","when":{"Filled":"event.data","*":"{'n': event.position}"},"guards":{"*":[{"rule":"true","message":"no"}]}}`)
	text := strings.Repeat("x", 60<<10)
	if o := decided(t, m, l.add(appended(one("big-1", "Filled", func(e *event.Event) { e.Data = []byte(`{"text":"` + text + `"}`) })))); !o.OK() {
		t.Fatalf("%+v", o)
	}
	var many event.Append
	for range 1000 {
		many.Events = append(many.Events, one("big-1", "Touched").Events...)
	}
	if o := decided(t, m, l.add(appended(many))); o.Code != event.FoldFailed || !strings.Contains(o.Guard.Message, "several appends") {
		t.Errorf("a thousand events on a large row: %+v", o)
	}
	if o := decided(t, m, l.add(appended(one("big-1", "Touched")))); !o.OK() {
		t.Errorf("one event on it: %+v", o)
	}
}
