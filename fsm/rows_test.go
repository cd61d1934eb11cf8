package fsm

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"

	"cairn/event"
	"cairn/index"
	"cairn/projection"
)

// guardedTotal is totalDefinition with a guard.
var guardedTotal = strings.Replace(totalDefinition, `"when"`, `"guards":{"*":[{"rule":"state.n < 100","message":"enough"}]},"when"`, 1)

// stalled is a machine with the projection "total" in force, whose rows are
// folded no further than position.
func stalled(t *testing.T) (m *Machine, l *ledger, position uint64) {
	t.Helper()
	m = openMachine(t, vfs.NewMem(), nil)
	t.Cleanup(func() { _ = m.Close() })
	l = newLedger(t)
	outcomes(t, m, l.logs)
	define(t, l, m, "total", totalDefinition)
	decided(t, m, l.add(appended(amount("a-1", "Deposited", "1"))))
	expectState(t, m, "total", "Deposited", Moment{}, `{"last":1,"n":1,"sum":1}`)
	m.folds.stop()
	_, position = m.Applied()
	return m, l, position
}

// awaitReader returns once somebody reads a generation's rows, or waits for them.
func awaitReader(t *testing.T, m *Machine, generation uint64) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !m.folds.read(generation); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nobody reads")
		}
	}
}

// Who waits for a generation that ends meanwhile goes on with what is in force
// then, or learns that nothing is.
func TestRow_GenerationEndsMeanwhile(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(m *Machine, l *ledger)
		want func(s RowState, err error) bool
	}{
		"deleted": {
			func(m *Machine, l *ledger) {
				c, _ := event.SystemCommand(event.StreamProjections, event.TypeProjectionDeleted, event.ProjectionDeleted{Name: "total"})
				decided(t, m, l.add(c))
			},
			func(_ RowState, err error) bool { return errors.Is(err, ErrNoProjection) },
		},
		"replaced": {
			func(m *Machine, l *ledger) { define(t, l, m, "total", guardedTotal) },
			func(s RowState, err error) bool {
				return err == nil && string(s.Row.State) == `{"last":2,"n":2,"sum":3}`
			},
		},
		"failed": {
			func(m *Machine, _ *ledger) { _ = m.fail(errors.New("the disk is gone")) },
			func(_ RowState, err error) bool {
				return err != nil && strings.Contains(err.Error(), "the disk is gone")
			},
		},
		"closed": {
			func(m *Machine, _ *ledger) { _ = m.Close() },
			func(_ RowState, err error) bool { return errors.Is(err, ErrClosed) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			m, l, _ := stalled(t)
			decided(t, m, l.add(appended(amount("a-1", "Deposited", "2"))))
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			type answer struct {
				s   RowState
				err error
			}
			answers := make(chan answer)
			live, _ := m.Catalog().Find("total")
			_, position := m.Applied()
			go func() {
				s, err := m.Row(ctx, "total", "Deposited", Moment{}, position)
				answers <- answer{s, err}
			}()
			awaitReader(t, m, live.ID)
			test.end(m, l)
			if a := <-answers; !test.want(a.s, a.err) {
				t.Errorf("%+v, %v", a.s, a.err)
			}
		})
	}
}

// An answer that says it is final has all that belongs to its moment.
func TestRow_FinalIsFolded(t *testing.T) {
	m, l, before := stalled(t)
	decided(t, m, l.add(appended(amount("a-1", "Deposited", "2"))))
	_, position := m.Applied()
	read := func(at Moment, wait time.Duration) (RowState, error) {
		ctx, cancel := context.WithTimeout(context.Background(), wait)
		defer cancel()
		return m.Row(ctx, "total", "Deposited", at, 0)
	}
	if s, err := read(Moment{Position: position}, 20*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("as of what is not folded: %+v, %v", s, err)
	}
	if s, err := read(Moment{Position: before}, 10*time.Second); err != nil || !s.Final || s.AsOf != before {
		t.Errorf("as of what is folded: %+v, %v", s, err)
	}
	if s, err := read(Moment{Position: position + 9}, 10*time.Second); err != nil || s.Final || s.AsOf != before {
		t.Errorf("as of what is yet to come: %+v, %v", s, err)
	}
	m.folds = startFolds(m)
	if s, err := read(Moment{Position: position}, 10*time.Second); err != nil || !s.Final || string(s.Row.State) != `{"last":2,"n":2,"sum":3}` {
		t.Errorf("once it is folded: %+v, %v", s, err)
	}
}

// Records of a generation that ended go when its end is durable and nobody reads
// them.
func TestFolds_SweepSparesReaders(t *testing.T) {
	m := openMachine(t, vfs.NewMem(), func(o *Options) { o.SavepointEvents = 4 })
	defer m.Close()
	l := newLedger(t)
	outcomes(t, m, l.logs)
	define(t, l, m, "total", totalDefinition)
	decided(t, m, l.add(appended(amount("a-1", "Deposited", "1"))))
	_, position := m.Applied()
	r, err := m.reader(context.Background(), "total", "Deposited", Moment{}, position)
	if err != nil {
		t.Fatal(err)
	}
	m.folds.stop()
	c, _ := event.SystemCommand(event.StreamProjections, event.TypeProjectionDeleted, event.ProjectionDeleted{Name: "total"})
	decided(t, m, l.add(c))
	sweep := func() (records int) {
		t.Helper()
		if err := m.folds.sweep(); err != nil {
			t.Fatal(err)
		}
		pairs, _, _, err := m.gen.index.Rows(nil, nil, 100, nil)
		if err != nil {
			t.Fatal(err)
		}
		return len(pairs)
	}
	// What is applied becomes durable by and by, as more is.
	settle := func() {
		_, through := m.Applied()
		for durable := uint64(0); durable < through; _, durable = m.Durable() {
			decided(t, m, l.add(appended(amount("c", "Other", "1"))))
		}
	}
	settle()
	if sweep() == 0 {
		t.Error("records went when it was first seen that nobody has them")
	}
	if sweep() == 0 {
		t.Error("records went before that was durable")
	}
	settle()
	if sweep() == 0 {
		t.Error("records went while they were read")
	}
	if rows, _, err := r.read("", "", 10); err != nil || len(rows) != 1 {
		t.Errorf("rows %v, %v", rows, err)
	}
	r.close()
	if n := sweep(); n > 0 {
		t.Errorf("%d records are left", n)
	}
	if f := m.folds; len(f.gone)+len(f.taken)+len(f.progress)+len(f.readers) > 0 {
		t.Errorf("left behind: %v, %v, %v, %v", f.gone, f.taken, f.progress, f.readers)
	}
}

// How far the rows of another data generation were says nothing of those here.
func TestFolds_ReachedInThisDataGeneration(t *testing.T) {
	m, _, position := stalled(t)
	g, _ := m.Catalog().Find("total")
	if got, _ := m.folds.reached(g.ID); got != position {
		t.Errorf("reached %d, want %d", got, position)
	}
	m.folds.report(&generation{}, g, position+9)
	if got, _ := m.folds.reached(g.ID); got != 0 {
		t.Errorf("reached %d in another data generation", got)
	}
}

// Taking a generation over ends when the machine has stopped.
func TestTakeOver_EndsWithTheMachine(t *testing.T) {
	m, _, _ := stalled(t)
	gone := errors.New("the disk is gone")
	_ = m.fail(gone)
	g := generationOfDefinition(t, totalDefinition)
	if _, err := m.takeOver(m.Catalog(), g); !errors.Is(err, gone) {
		t.Errorf("take over: %v", err)
	}
	if cursor, err := storedCursor(m.gen.index, g); cursor != 0 || err != nil {
		t.Errorf("it is folded up to %d, %v", cursor, err)
	}
}

// Apply waits only for a slice of the generation that it takes over.
func TestFolds_TakeOverWaitsForItsOwnSlice(t *testing.T) {
	m, _, _ := stalled(t)
	f := m.folds
	if !f.begin(1) {
		t.Fatal("begin")
	}
	f.takeOver(2)
	over := make(chan struct{})
	go func() {
		f.takeOver(1)
		close(over)
	}()
	select {
	case <-over:
		t.Error("a slice was under way")
	case <-time.After(10 * time.Millisecond):
	}
	f.end()
	<-over
	if f.begin(1) || f.begin(2) || !f.begin(3) {
		t.Error("what is taken over is folded no more")
	}
	f.end()
}

// memory is an event source and a row store.
type memory struct {
	events []event.Event
	at     int
	rows   map[string][]byte
}

func (m *memory) Next() bool          { m.at++; return m.at <= len(m.events) }
func (m *memory) Event() *event.Event { return &m.events[m.at-1] }
func (m *memory) Err() error          { return nil }

func (m *memory) Row(key []byte) ([]byte, uint64, error) { return m.rows[string(key)], 0, nil }

func (m *memory) WriteRows(pairs []index.Pair) error {
	for _, p := range pairs {
		m.rows[string(p.Key)] = p.Value
	}
	return nil
}

// many is n events of stream b, each of its own type.
func many(n int, data string) *memory {
	m := &memory{rows: make(map[string][]byte)}
	for i := range n {
		m.events = append(m.events, event.Event{Position: uint64(i) + 1, Stream: "b", Type: fmt.Sprint("T", i), Data: []byte(data)})
	}
	return m
}

func generationOfDefinition(t *testing.T, definition string) *projection.Generation {
	t.Helper()
	g, err := projection.NewGeneration(&event.ProjectionDefined{Name: "p", Definition: []byte(definition)})
	if err != nil {
		t.Fatal(err)
	}
	g.ID = 7
	return g
}

// A slice ends when what it has to write is much, and the next one goes on behind
// it without losing an event.
func TestFoldSlice_Bytes(t *testing.T) {
	const n = 200
	m := many(n, `{"text":"`+strings.Repeat("x", 60<<10)+`"}`)
	g := generationOfDefinition(t, `{"match":{"stream_prefix":"b"},"key":"event.type","when":{"*":"{'text': event.data.text}"}}`)
	slices := 0
	for reached := uint64(0); reached < n; slices++ {
		var err error
		if reached, err = foldSlice(projection.NewCatalog(), g, m, n, m); err != nil {
			t.Fatal(err)
		}
	}
	if slices < 2 || slices > 4 {
		t.Errorf("%d slices", slices)
	}
	if rows := len(m.rows); rows != 2*n+1 {
		t.Errorf("%d records, want a row and an event of each, and the cursor", rows)
	}
}

func TestFoldSlice_BoundsFailuresWithoutRow(t *testing.T) {
	const n = maxUnkeyed + 2*sliceEvents
	m := many(n, `{"x":1}`)
	g := generationOfDefinition(t, `{"match":{"stream_prefix":"b"},"key":"event.data.x","when":{"*":"{}"}}`)
	for reached := uint64(0); reached < n; {
		var err error
		if reached, err = foldSlice(projection.NewCatalog(), g, m, n, m); err != nil {
			t.Fatal(err)
		}
	}
	if records := len(m.rows); records != maxUnkeyed+2 {
		t.Errorf("%d records, want %d failures, their number and the cursor", records, maxUnkeyed)
	}
}

// What nobody waits for any more ends.
func TestReplay_EndsWithItsContext(t *testing.T) {
	m := openMachine(t, vfs.NewMem(), nil)
	defer m.Close()
	l := newLedger(t)
	outcomes(t, m, l.logs)
	large := one("b-1", "Large", func(e *event.Event) { e.Data = []byte(`{"text":"` + strings.Repeat("x", 60<<10) + `"}`) })
	decided(t, m, l.add(appended(large)))
	for range 10 {
		var a event.Append
		for range 60 {
			a.Events = append(a.Events, amount("b-1", "Deposited", "1").Events...)
		}
		outcomes(t, m, []*raft.Log{l.add(appended(a))})
	}
	define(t, l, m, "merged", mergedDefinition)
	_, position := m.Applied()
	if _, err := m.Row(context.Background(), "merged", "b-1", Moment{}, position); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if s, err := m.Row(ctx, "merged", "b-1", Moment{Version: 600}, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("a row after %d events: %v", s.Replayed, err)
	}
	if s, err := m.StreamState(ctx, "b-1", Moment{}, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("a stream's state of %d events: %v", s.Events, err)
	}
}

func TestStreamState(t *testing.T) {
	m := openMachine(t, vfs.NewMem(), nil)
	defer m.Close()
	l := newLedger(t)
	outcomes(t, m, l.logs)
	register(t, l, m, "Paid", 1, firstSchema)
	paid := func(stream, data string) {
		t.Helper()
		decided(t, m, l.add(appended(one(stream, "Paid", func(e *event.Event) { e.Data, e.Schema = []byte(data), 1 }))))
	}
	paid("b-1", `{"amount":2}`)
	paid("b-1", `{"amount":"x"}`) // as a node may have let in that did not know the schema
	for range 4 {
		paid("b-2", `{"`+event.NewID()+`":"`+strings.Repeat("x", 300<<10)+`"}`)
	}
	if o := register(t, l, m, "Paid", 2, secondSchema); !o.OK() {
		t.Fatalf("schema 2: %+v", o)
	}
	ctx := context.Background()
	if s, err := m.StreamState(ctx, "b-1", Moment{}, 0); err != nil || string(s.State) != `{"amount":"x","cents":200}` || s.Events != 2 || !s.Final {
		t.Errorf("%s, %+v, %v", s.State, s, err)
	}
	if s, err := m.StreamState(ctx, "b-1", Moment{Version: 1}, 0); err != nil || string(s.State) != `{"cents":200}` || s.AsOf != 3 {
		t.Errorf("at version 1: %s, %+v, %v", s.State, s, err)
	}
	if _, err := m.StreamState(ctx, "b-2", Moment{}, 0); !errors.Is(err, ErrStateTooLarge) {
		t.Errorf("too large: %v", err)
	}
	for _, missing := range []struct {
		stream string
		at     Moment
	}{{"b-3", Moment{}}, {"b-1", Moment{Position: 2}}, {"b-1", Moment{Version: 3}}} {
		if _, err := m.StreamState(ctx, missing.stream, missing.at, 0); !errors.Is(err, ErrNoRow) {
			t.Errorf("%s at %+v: %v", missing.stream, missing.at, err)
		}
	}
}
