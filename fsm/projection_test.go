package fsm

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"cairn/event"
	"cairn/projection"
)

// Definitions that tests put together: a guarding one, one by stream, one whose
// rows are not streams.
const (
	accountDefinition = `{"match":{"category":"a"},"init":{"balance":0},
		"when":{"Deposited":"{'balance': state.balance + event.data.amount}","Withdrawn":"{'balance': state.balance - event.data.amount}"},
		"guards":{"Withdrawn":[{"rule":"state.balance >= event.data.amount","message":"insufficient funds"}]}}`
	totalDefinition = `{"match":{"types":["Deposited","Withdrawn"]},"key":"event.type","init":{"n":0,"sum":0},
		"when":{"*":"{'n': state.n + 1, 'sum': state.sum + event.data.amount, 'last': event.data.amount}"}}`
	mergedDefinition = `{"match":{"stream_prefix":"b"}}`
)

// ledger makes the Raft entries of a test one after the other and applies them
// to its machines.
type ledger struct {
	t     failer
	index uint64
	logs  []*raft.Log
}

func newLedger(t failer) *ledger {
	l := &ledger{t: t, index: birthIndex}
	b, err := event.SystemCommand(event.StreamLog, event.TypeLogCreated,
		event.LogCreated{LogID: testLogID, SegmentSize: testSegmentSize, ClusterVersion: event.ClusterVersionNewest})
	if err != nil {
		t.Fatalf("birth: %v", err)
	}
	l.logs = append(l.logs, &raft.Log{Index: l.index, Term: 1, Data: event.EncodeEntry(nil, 1, [][]byte{event.EncodeCommand(nil, &b)})})
	return l
}

// add makes an entry of commands.
func (l *ledger) add(commands ...event.Command) *raft.Log {
	encoded := make([][]byte, len(commands))
	for i := range commands {
		encoded[i] = event.EncodeCommand(nil, &commands[i])
	}
	l.index++
	entry := &raft.Log{Index: l.index, Term: 3, Data: event.EncodeEntry(nil, int64(l.index), encoded)}
	l.logs = append(l.logs, entry)
	return entry
}

func appended(a event.Append) event.Command {
	return event.Command{Kind: event.KindAppend, Append: a, Seed: [16]byte{7}}
}

func amount(stream, typ, amount string) event.Append {
	return one(stream, typ, func(e *event.Event) { e.Data = []byte(`{"amount":` + amount + `}`) })
}

// decided applies an entry of one command and returns its outcome.
func decided(t failer, m *Machine, entry *raft.Log) event.Outcome {
	t.Helper()
	all := outcomes(t, m, []*raft.Log{entry})
	if len(all) != 1 {
		t.Fatalf("%d outcomes", len(all))
	}
	return all[0]
}

// define defines a projection and puts it in force.
func define(t failer, l *ledger, m *Machine, name, definition string) {
	t.Helper()
	c, err := m.DefineCommand(name, []byte(definition))
	if err != nil {
		t.Fatalf("define %s: %v", name, err)
	}
	if o := decided(t, m, l.add(c)); !o.OK() {
		t.Fatalf("define %s: %+v", name, o)
	}
	if o := decided(t, m, l.add(enforced(t, m, name))); !o.OK() {
		t.Fatalf("put %s in force: %+v", name, o)
	}
}

// enforced is the command that puts the newest generation of a projection in
// force.
func enforced(t failer, m *Machine, name string) event.Command {
	t.Helper()
	_, position := m.Applied()
	_, g := m.Catalog().Find(name)
	if g == nil {
		t.Fatalf("projection %s has no generation that is being built", name)
	}
	c, err := LiveCommand(g, position)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return c
}

func stateOf(t failer, m *Machine, name, key string, at Moment) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, position := m.Applied()
	s, err := m.Row(ctx, name, key, at, position)
	return string(s.Row.State), err
}

func expectState(t failer, m *Machine, name, key string, at Moment, want string) {
	t.Helper()
	if got, err := stateOf(t, m, name, key, at); got != want || err != nil {
		t.Fatalf("%s of %s at %+v is %s, %v; want %s", key, name, at, got, err, want)
	}
}

func TestGuard_RefusesWhatWouldBreakIt(t *testing.T) {
	m := openMachine(t, vfs.NewMem(), nil)
	defer m.Close()
	l := newLedger(t)
	outcomes(t, m, l.logs)
	decided(t, m, l.add(appended(amount("a-1", "Deposited", "10"))))
	define(t, l, m, "account", accountDefinition)
	expectState(t, m, "account", "a-1", Moment{}, `{"balance":10}`)

	o := decided(t, m, l.add(appended(amount("a-1", "Withdrawn", "11"))))
	if g := o.Guard; o.Code != event.GuardFailed || g.Projection != "account" || g.Message != "insufficient funds" || g.StatePosition != 2 || g.Key != "a-1" {
		t.Errorf("a withdrawal of more than there is: %+v, %+v", o, o.Guard)
	}
	// Two in one append: the second sees what the first would leave.
	both := amount("a-1", "Withdrawn", "6")
	both.Events = append(both.Events, amount("a-1", "Withdrawn", "6").Events...)
	if o := decided(t, m, l.add(appended(both))); o.Code != event.GuardFailed || o.Guard.Event != 1 {
		t.Errorf("two withdrawals of which one is covered: %+v", o)
	}
	if o := decided(t, m, l.add(appended(amount("a-1", "Deposited", `"ten"`)))); o.Code != event.FoldFailed || o.Guard.Message == "" {
		t.Errorf("a deposit of a text: %+v", o)
	}
	// And two commands in one entry.
	two := outcomes(t, m, []*raft.Log{l.add(appended(amount("a-1", "Withdrawn", "6")), appended(amount("a-1", "Withdrawn", "6")))})
	if two[0].Code != event.Accepted || two[1].Code != event.GuardFailed || two[1].Guard.StatePosition != two[0].First {
		t.Errorf("two withdrawals in one entry: %+v", two)
	}
	expectState(t, m, "account", "a-1", Moment{}, `{"balance":4}`)
	expectState(t, m, "account", "a-1", Moment{Version: 1}, `{"balance":10}`)
	if v := m.View(0); v.Position() != 5 {
		t.Errorf("refused appends left something: position %d", v.Position())
	} else {
		v.Close()
	}
}

func TestProjection_RowStopsAndTheRestGoesOn(t *testing.T) {
	m := openMachine(t, vfs.NewMem(), nil)
	defer m.Close()
	l := newLedger(t)
	outcomes(t, m, l.logs)
	define(t, l, m, "total", totalDefinition)
	for _, a := range []event.Append{amount("a-1", "Deposited", "1"), amount("a-1", "Deposited", `"x"`), amount("a-1", "Deposited", "2"), amount("a-1", "Withdrawn", "3")} {
		if o := decided(t, m, l.add(appended(a))); !o.OK() {
			t.Fatalf("%+v", o)
		}
	}
	expectState(t, m, "total", "Withdrawn", Moment{}, `{"last":3,"n":1,"sum":3}`)
	ctx := context.Background()
	s, err := m.Row(ctx, "total", "Deposited", Moment{}, 7)
	if err != nil || s.Row.Failed == nil || s.Row.Failed.Position != 5 || string(s.Row.State) != `{"last":1,"n":1,"sum":1}` {
		t.Errorf("the row that stopped: %+v, %v", s, err)
	}
	g, _ := m.Catalog().Find("total")
	failures, total, err := m.Failures(g, 5)
	if err != nil || total != 1 || failures[0].Key != "Deposited" || failures[0].Position != 5 {
		t.Errorf("failures %+v, %d, %v", failures, total, err)
	}
}

// Of a long row the state is kept now and then: to read it as of a moment takes
// a bounded number of events.
func TestRow_AsOf_ReplaysFewEvents(t *testing.T) {
	m := openMachine(t, vfs.NewMem(), func(o *Options) { o.SavepointEvents = 700 })
	defer m.Close()
	l := newLedger(t)
	outcomes(t, m, l.logs)
	define(t, l, m, "total", totalDefinition)
	define(t, l, m, "account", accountDefinition)
	const deposits = 2000
	for range deposits / 10 {
		var a event.Append
		for range 10 {
			a.Events = append(a.Events, amount("a-1", "Deposited", "1").Events...)
		}
		outcomes(t, m, []*raft.Log{l.add(appended(a))})
	}
	_, position := m.Applied()
	for _, n := range []uint64{1, 255, 256, 257, 1024, 1999, 2000} {
		for name, key := range map[string]string{"total": "Deposited", "account": "a-1"} {
			at := Moment{Position: position - deposits + n}
			s, err := m.Row(context.Background(), name, key, at, position)
			if err != nil || s.Row.Events != n || s.Row.Last != at.Position || s.Replayed >= 2*keepEvents || !s.Final || s.AsOf != at.Position {
				t.Errorf("%s after %d deposits: %+v, %v", name, n, s, err)
			}
			if want := fmt.Sprintf(`"sum":%d}`, n); name == "total" && !strings.HasSuffix(string(s.Row.State), want) {
				t.Errorf("after %d deposits: %s", n, s.Row.State)
			}
		}
	}
	page, err := m.History(context.Background(), "total", "Deposited", position-5, 3, 1<<20, position)
	if err != nil || len(page.Entries) != 3 || !page.More || page.Entries[0].Position != position-4 || string(page.Entries[2].State) != `{"last":1,"n":1998,"sum":1998}` {
		t.Errorf("history %+v, %v", page, err)
	}
}

// Every interleaving of appends, definitions, schemas, savepoints, restarts, crashes
// and rebuilds gives the rows of a plain fold over the log, on every machine, now and as of
// every position.
func TestProjections_EqualTheFold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newLedger(t)
		steady := openMachine(t, vfs.NewMem(), nil)
		defer func() { _ = steady.Close() }()
		outcomes(t, steady, l.logs)
		for range rapid.IntRange(5, 40).Draw(t, "steps") {
			anyStep(t, l, steady)
		}
		other := followDrawn(t, l)
		defer func() { _ = other.Close() }()
		compareWithFold(t, steady, other)
	})
}

// anyStep applies one drawn entry to the machine.
func anyStep(t *rapid.T, l *ledger, m *Machine) {
	names := map[string]string{"account": accountDefinition, "total": totalDefinition, "merged": mergedDefinition}
	name := rapid.SampledFrom([]string{"account", "total", "merged"}).Draw(t, "projection")
	switch rapid.IntRange(0, 11).Draw(t, "kind") {
	case 10, 11:
		anySchemaStep(t, l, m)
	case 0:
		definition := names[name]
		if rapid.Bool().Draw(t, "another") {
			definition = strings.Replace(definition, `"match":{`, `"init":{"balance":1,"n":1,"sum":0},"match":{`, 1)
			definition = strings.Replace(definition, `},"init":{"balance":0},`, `},`, 1)
			definition = strings.Replace(definition, `,"init":{"n":0,"sum":0},`, `,`, 1)
		}
		c, err := m.DefineCommand(name, []byte(definition))
		if err != nil {
			t.Fatalf("%v", err)
		}
		outcomes(t, m, []*raft.Log{l.add(c)})
	case 1:
		c, _ := event.SystemCommand(event.StreamProjections, event.TypeProjectionDeleted, event.ProjectionDeleted{Name: name})
		outcomes(t, m, []*raft.Log{l.add(c)})
	case 2, 3:
		if _, g := m.Catalog().Find(name); g != nil {
			// In one entry with appends before and after it.
			deposit := stamped(t, m, amount("a-1", "Deposited", "5"))
			outcomes(t, m, []*raft.Log{l.add(deposit, enforced(t, m, name), deposit)})
		}
	default:
		var commands []event.Command
		for range rapid.IntRange(1, 3).Draw(t, "commands") {
			a := event.Append{}
			for range rapid.IntRange(1, 2).Draw(t, "events") {
				a.Events = append(a.Events, amount(
					rapid.SampledFrom([]string{"a-1", "a-2", "b-1", "c"}).Draw(t, "stream"),
					rapid.SampledFrom([]string{"Deposited", "Withdrawn", "Other"}).Draw(t, "type"),
					rapid.SampledFrom([]string{"1", "2.5", "3", "3", "1e0", `"x"`}).Draw(t, "amount")).Events...)
			}
			if refused, err := m.Check(&a); err != nil || refused != nil { // it stamps the schemas
				t.Fatalf("check: %+v, %v", refused, err)
			}
			commands = append(commands, appended(a))
		}
		outcomes(t, m, []*raft.Log{l.add(commands...)})
	}
}

// anySchemaStep registers a schema, or goes on with one that is pending.
func anySchemaStep(t *rapid.T, l *ledger, m *Machine) {
	pending, lacking, _ := m.Catalog().Pending()
	switch {
	case pending != nil && len(lacking) > 0:
		live, next := m.Catalog().Find(lacking[0])
		if next == nil {
			next = live
		}
		c, err := m.DefineCommand(lacking[0], next.Definition().Canonical())
		if err != nil {
			t.Fatalf("%v", err)
		}
		outcomes(t, m, []*raft.Log{l.add(c)})
	case pending != nil:
		_, position := m.Applied()
		c, err := SchemaLiveCommand(pending, position)
		if err != nil {
			t.Fatalf("%v", err)
		}
		outcomes(t, m, []*raft.Log{l.add(c, stamped(t, m, amount("a-1", "Deposited", "7")))})
	default:
		typ := rapid.SampledFrom([]string{"Deposited", "Withdrawn"}).Draw(t, "type with a schema")
		body := `{"schema":{},"upcast":"{'amount': data.amount + 1}","examples":[{"old":{"amount":1},"new":{"amount":2}}]}`
		register(t, l, m, typ, m.Catalog().Types().Newest(typ)+1, body)
	}
}

func stamped(t *rapid.T, m *Machine, a event.Append) event.Command {
	if refused, err := m.Check(&a); err != nil || refused != nil {
		t.Fatalf("check: %+v, %v", refused, err)
	}
	return appended(a)
}

// followDrawn applies all entries to another machine, which saves and restarts
// at drawn moments.
func followDrawn(t *rapid.T, l *ledger) *Machine {
	fs := vfs.NewCrashableMem()
	small := func(o *Options) { o.SavepointEvents = 4 }
	m := openMachine(t, fs, small)
	for i := 0; i < len(l.logs); {
		n := rapid.IntRange(1, 8).Draw(t, "entries")
		outcomes(t, m, l.logs[i:min(i+n, len(l.logs))])
		i += n
		if rapid.IntRange(0, 2).Draw(t, "restart") == 0 {
			fs = stop(t, fs, m)
			m = openMachine(t, fs, small)
			durable, _ := m.Durable()
			i = slices.IndexFunc(l.logs, func(e *raft.Log) bool { return e.Index > durable })
			if i < 0 {
				i = len(l.logs)
			}
		}
	}
	return m
}

// stop ends a machine in one of the ways it may end, and returns the file system
// to open it from again.
func stop(t *rapid.T, fs *vfs.MemFS, m *Machine) *vfs.MemFS {
	how := rapid.SampledFrom([]string{"close", "crash", "rebuild"}).Draw(t, "how")
	if how == "crash" {
		// What was not synced may have reached the disk all the same.
		seed := rapid.Uint64().Draw(t, "crash seed")
		crashed := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rapid.SampledFrom([]int{0, 50, 100}).Draw(t, "unsynced"), RNG: rand.New(rand.NewPCG(seed, 1))})
		_ = m.Close()
		return crashed
	}
	if err := m.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	if index, position := m.Durable(); how == "rebuild" && position > 0 {
		if err := fs.RemoveAll(stateOfFirst); err != nil {
			t.Fatalf("%v", err)
		}
		if _, err := foldInto(fs, stateOfFirst, index, position); err != nil {
			t.Fatalf("rebuild: %v", err)
		}
	}
	return fs
}

// stateOfFirst is where the first data generation has its state.
const stateOfFirst = "logs/main/gen-000001/state"

// plainRow is a row as a plain fold has it.
type plainRow struct {
	state  []byte
	failed bool
}

// compareWithFold holds both machines against a plain fold over the first one's
// log, and their logs against each other.
func compareWithFold(t *rapid.T, a, b *Machine) {
	v := a.View(0)
	defer v.Close()
	if _, p := b.Applied(); p != v.Position() {
		t.Fatalf("positions %d and %d", v.Position(), p)
	}
	for _, name := range a.Catalog().Names() {
		g, _ := a.Catalog().Find(name)
		if g == nil {
			continue
		}
		rows := make(map[string]plainRow)
		for position := uint64(1); position <= v.Position(); position++ {
			e, err := v.Event(position)
			if err != nil {
				t.Fatalf("%v", err)
			}
			if brought, err := a.Catalog().Bring(g, &e); err == nil && g.Matches(&e) {
				plainFold(t, g, rows, brought)
			}
			for _, m := range []*Machine{a, b} {
				comparePage(t, m, name, Moment{Position: position}, rows)
			}
		}
		for _, m := range []*Machine{a, b} {
			comparePage(t, m, name, Moment{}, rows)
		}
	}
}

func plainFold(t *rapid.T, g *projection.Generation, rows map[string]plainRow, e *event.Event) {
	in := projection.NewInput(e)
	key, ok, err := g.Key(in)
	if err != nil {
		t.Fatalf("key: %v", err)
	}
	row := rows[key]
	if !ok || row.failed {
		return
	}
	next, changed, _, err := g.Step(row.state, in, false)
	switch {
	case err != nil:
		rows[key] = plainRow{row.state, true}
	case changed:
		rows[key] = plainRow{next, false}
	}
}

func comparePage(t *rapid.T, m *Machine, name string, at Moment, rows map[string]plainRow) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, position := m.Applied()
	page, err := m.Rows(ctx, name, RowsQuery{Limit: 100, Bytes: 1 << 20, At: at}, position)
	if err != nil {
		t.Fatalf("rows of %s at %+v: %v", name, at, err)
	}
	got, want := []string{}, []string{}
	for _, r := range page.Rows {
		got = append(got, fmt.Sprintf("%s %s %v", r.Key, r.Row.State, r.Row.Failed != nil))
	}
	for key, r := range rows {
		want = append(want, fmt.Sprintf("%s %s %v", key, r.state, r.failed))
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		g, _ := json.Marshal(got)
		w, _ := json.Marshal(want)
		t.Fatalf("rows of %s at %+v\nare  %s\nwant %s", name, at, g, w)
	}
}
