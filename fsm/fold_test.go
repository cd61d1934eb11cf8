package fsm

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"cairn/event"
	eventlog "cairn/log"
	"cairn/snapshot"
)

// foldInto folds the log of a closed machine's generation into a state folder.
func foldInto(fs vfs.FS, stateDir string, index, position uint64) (Folded, error) {
	return Fold(context.Background(), FoldOptions{
		FS: fs, LogDir: "logs/main/gen-000001/log", StateDir: stateDir, Index: index, Position: position,
		SavepointBytes: 1 << 10, CacheBytes: 1 << 20,
	})
}

// removal is the entry that removes a node for good.
func removal(t failer, index uint64, node string) *raft.Log {
	c, err := event.SystemCommand(event.StreamMembers, event.TypeMemberRemoved, event.MemberRemoved{NodeID: node})
	if err != nil {
		t.Fatalf("%v", err)
	}
	c.Seed, c.Append.Events[0].ID = [16]byte{}, node
	return &raft.Log{Index: index, Term: 4, Data: event.EncodeEntry(nil, 200, [][]byte{event.EncodeCommand(nil, &c)})}
}

// expectSame holds all that two machines answer against each other, and then
// what they decide about more entries, old ids among them.
func expectSame(t failer, got, want *Machine, more []*raft.Log) {
	t.Helper()
	if g, w := got.state.encode(), want.state.encode(); got.state.index != want.state.index || got.state.position != want.state.position || !slices.Equal(g, w) {
		t.Fatalf("state as of %d, %d\n%s, want %d, %d\n%s", got.state.index, got.state.position, g, want.state.index, want.state.position, w)
	}
	v, w := got.View(0), want.View(0)
	defer v.Close()
	defer w.Close()
	streams, err := v.Streams("", "", 100)
	wanted, err2 := w.Streams("", "", 100)
	if err != nil || err2 != nil || !slices.Equal(streams, wanted) {
		t.Fatalf("streams %v, %v; want %v, %v", streams, err, wanted, err2)
	}
	for _, s := range wanted {
		g, err := v.Head(s.Stream)
		h, err2 := w.Head(s.Stream)
		if err != nil || err2 != nil || g != h {
			t.Fatalf("head of %s is %+v, %v; want %+v, %v", s.Stream, g, err, h, err2)
		}
	}
	for i := range want.state.position>>subtreeLevel + 1 {
		g, err := got.gen.index.Get(subtreeKey(i))
		h, err2 := want.gen.index.Get(subtreeKey(i))
		if err != nil || err2 != nil || !slices.Equal(g, h) {
			t.Fatalf("subtree %d is %x, %v; want %x, %v", i, g, err, h, err2)
		}
	}
	if g, w := outcomes(t, got, more), outcomes(t, want, more); !reflect.DeepEqual(g, w) {
		t.Fatalf("outcomes\n%+v, want\n%+v", g, w)
	}
	if g, w := mustRoot(got), mustRoot(want); !slices.Equal(g, w) {
		t.Fatalf("tree root %x, want %x", g, w)
	}
}

// TestFold_IsWhatApplyWouldHaveMade folds random logs, from nothing or from a
// state that another fold has left, and puts the result in the place of the
// state that Apply has made.
func TestFold_IsWhatApplyWouldHaveMade(t *testing.T) {
	var resumed, retries, saved, subtrees int
	rapid.Check(t, func(t *rapid.T) {
		entries := anyEntries(t)
		for i := range rapid.IntRange(0, 3).Draw(t, "big") { // enough for whole subtrees
			var a event.Append
			for j := range 200 {
				a.Events = append(a.Events, event.Event{Stream: fmt.Sprintf("big-%d", j%7), Type: "B", ID: fmt.Sprintf("big %d %d", i, j), IDChosen: true})
			}
			entries = append(entries, entry{time: 90, appends: []event.Append{a}})
		}
		logs := rafted(entries)
		last := logs[len(logs)-1].Index
		logs = append(logs, removal(t, last+1, "node-8"), removal(t, last+2, "node-8"))
		fs := vfs.NewMem()
		small := func(o *Options) { o.SavepointEvents = rapid.Uint64Range(5, 100).Draw(t, "savepoint every") }
		applied := openMachine(t, fs, small)
		outcomes(t, applied, logs)
		mod := born()
		ends := []uint64{1} // positions that end a frame; in ends[i+1] the i-th entry's
		for _, e := range entries {
			mod.apply(e.time, e.appends)
			ends = append(ends, uint64(len(mod.events)))
		}
		if err := applied.Close(); err != nil {
			t.Fatalf("close: %v", err)
		}
		index, position := applied.Durable()

		stateDir := "folded"
		if rapid.Bool().Draw(t, "in two steps") {
			resumed++
			i := rapid.IntRange(0, len(ends)-1).Draw(t, "first to")
			at := uint64(birthIndex)
			if i > 0 {
				at = firstIndex + uint64(i) - 1
			}
			if _, err := foldInto(fs, stateDir, at, ends[i]); err != nil {
				t.Fatalf("fold to entry %d, position %d: %v", at, ends[i], err)
			}
		}
		folded, err := foldInto(fs, stateDir, index, position)
		if err != nil || folded.LogID != testLogID || folded.Version != 1 {
			t.Fatalf("fold: %+v, %v", folded, err)
		}
		again, err := foldInto(fs, stateDir, index, position)
		if err != nil || again.Events != 0 {
			t.Fatalf("fold again: %+v, %v", again, err)
		}

		// A second machine gets a copy of the log and the folded state.
		other := vfs.NewMem()
		twin := openMachine(t, other, small)
		if err := twin.Close(); err != nil {
			t.Fatalf("close: %v", err)
		}
		for from, to := range map[string]string{"logs/main/gen-000001/log": "logs/main/gen-000001/log", stateDir: "logs/main/gen-000001/state"} {
			if err := other.RemoveAll(to); err != nil {
				t.Fatalf("remove: %v", err)
			}
			if ok, err := vfs.Clone(fs, other, from, to); err != nil || !ok {
				t.Fatalf("clone: %v", err)
			}
		}
		if err := snapshot.WriteSavepoint(other, "logs/main/gen-000001", index, position); err != nil {
			t.Fatalf("savepoint: %v", err)
		}
		applied, twin = openMachine(t, fs, small), openMachine(t, other, small)
		if !twin.Removed("node-8") || twin.ClusterVersion() != 1 || twin.LogID() != testLogID {
			t.Fatalf("removed %v, version %d, log %s", twin.Removed("node-8"), twin.ClusterVersion(), twin.LogID())
		}
		if rapid.Bool().Draw(t, "read") {
			want := append(mod.events, mustEvent(t, applied, uint64(len(mod.events)+1)))
			expectEvents(t, twin, want)
			expectFilters(t, twin, want)
		}
		more := rafted(append(slices.Clone(entries), anyEntries(t)...))[1:]
		for i, l := range more {
			l.Index = index + uint64(i) + 1
		}
		saved += int(position)
		subtrees += int(position >> subtreeLevel)
		expectSame(t, twin, applied, more)
		for _, e := range entries {
			for _, a := range e.appends {
				if a.Events[0].IDChosen {
					retries++
				}
			}
		}
		if err := errors.Join(applied.Close(), twin.Close()); err != nil {
			t.Fatalf("close: %v", err)
		}
	})
	t.Logf("%d folds in two steps, %d retries, %d events, %d subtrees", resumed, retries, saved, subtrees)
	if resumed == 0 || retries == 0 || subtrees == 0 {
		t.Error("the test tested nothing")
	}
}

func mustEvent(t failer, m *Machine, position uint64) event.Event {
	e, err := m.gen.log.Read(position)
	if err != nil {
		t.Fatalf("read %d: %v", position, err)
	}
	return e
}

// closedScript leaves the log and the state of the script.
func closedScript(t *testing.T) (fs *vfs.MemFS, index, position uint64) {
	logs, _ := script()
	fs = vfs.NewMem()
	m := openMachine(t, fs, nil)
	outcomes(t, m, logs)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	index, position = m.Durable()
	return fs, index, position
}

func TestFold_Refuses(t *testing.T) {
	fs, index, position := closedScript(t)
	if _, err := foldInto(fs, "beyond", index, position); err != nil {
		t.Fatal(err)
	}
	t.Run("a state that is beyond", func(t *testing.T) {
		if _, err := foldInto(fs, "beyond", index-1, position-2); err == nil {
			t.Error("it was folded")
		}
	})
	t.Run("an entry beyond A", func(t *testing.T) {
		if _, err := foldInto(fs, "new-1", index-1, position); err == nil {
			t.Error("it was folded")
		}
	})
	t.Run("a log that ends before P", func(t *testing.T) {
		var damage *eventlog.CorruptError
		if _, err := foldInto(fs, "new-2", index+1, position+1); !errors.As(err, &damage) {
			t.Errorf("Fold = %v, want damage", err)
		}
	})
	t.Run("P inside a frame", func(t *testing.T) {
		if _, err := foldInto(fs, "new-3", index, position-1); err == nil {
			t.Error("it was folded")
		}
	})
	t.Run("a log of another birth", func(t *testing.T) {
		other := vfs.NewMem()
		m := openMachine(t, other, nil)
		l := birth(testSegmentSize + 1)
		outcomes(t, m, []*raft.Log{l})
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := foldInto(other, "state", birthIndex, 1); err != nil {
			t.Fatal(err)
		}
		if ok, err := vfs.Clone(other, fs, "state", "foreign"); err != nil || !ok {
			t.Fatal(err)
		}
		if _, err := foldInto(fs, "foreign", index, position); err == nil {
			t.Error("it was folded")
		}
	})
	for name, e := range map[string]event.Event{
		"an event of the cluster that it does not know": {Stream: "$later", Type: "thing"},
		"a newer cluster version":                       {Stream: event.StreamLog, Type: event.TypeClusterVersion, Data: fmt.Appendf(nil, `{"version":%d}`, SupportedVersion+1)},
		"a removal that is not JSON":                    {Stream: event.StreamMembers, Type: event.TypeMemberRemoved, Data: []byte("?")},
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewMem()
			if _, err := foldInto(fs, "state", 9, writeLog(t, fs, e)); err == nil {
				t.Error("it was folded")
			}
		})
	}
	t.Run("a log without a birth", func(t *testing.T) {
		fs := vfs.NewMem()
		l, err := eventlog.Open(eventlog.Options{FS: fs, Dir: "logs/main/gen-000001/log"})
		if err != nil {
			t.Fatal(err)
		}
		appendTo(t, l, 2, 1, event.Event{Stream: "a", Type: "T"})
		if _, err := foldInto(fs, "state", 9, 1); err == nil {
			t.Error("it was folded")
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		var a event.Append
		for range 2 * progressEvery {
			a.Events = append(a.Events, event.Event{Stream: "a", Type: "T", ID: event.NewID()})
		}
		fs := vfs.NewMem()
		m := openMachine(t, fs, nil)
		outcomes(t, m, rafted([]entry{{time: 1, appends: []event.Append{a}}}))
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		index, position := m.Durable()
		ctx, cancel := context.WithCancel(context.Background())
		o := FoldOptions{FS: fs, LogDir: "logs/main/gen-000001/log", StateDir: "new", Index: index, Position: position, Progress: func(uint64) { cancel() }}
		if _, err := Fold(ctx, o); !errors.Is(err, context.Canceled) {
			t.Errorf("Fold = %v, want that it was cancelled", err)
		}
	})
}

// writeLog writes a log that consists of its birth and one more event, and
// returns where it ends.
func writeLog(t *testing.T, fs vfs.FS, e event.Event) uint64 {
	t.Helper()
	l, err := eventlog.Open(eventlog.Options{FS: fs, Dir: "logs/main/gen-000001/log"})
	if err != nil {
		t.Fatal(err)
	}
	appendTo(t, l, 2, 1, born().events[0], e)
	return 2
}

// appendTo cuts and creates an empty log, appends events, one entry each, and
// closes it.
func appendTo(t *testing.T, l *eventlog.Log, index, position uint64, events ...event.Event) {
	t.Helper()
	id, err := toLogID(testLogID)
	if err := errors.Join(err, l.Cut(), l.Create(id, testSegmentSize)); err != nil {
		t.Fatal(err)
	}
	for i, e := range events {
		var b eventlog.FrameBuilder
		b.Reset(index+uint64(i), 1, position+uint64(i), 1)
		e.Position, e.Version, e.Time = position+uint64(i), 1, 1
		b.Add(&e, [16]byte{})
		if err := l.Append(&b); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(l.Sync(l.Last()), l.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestFold_GoesOnAfterACrash crashes before every operation of a fold, with
// parts of what was not synced kept. Another fold goes on from what is left and
// comes to the same state.
func TestFold_GoesOnAfterACrash(t *testing.T) {
	logs, _ := script()
	mem := vfs.NewCrashableMem()
	m := openMachine(t, mem, nil)
	outcomes(t, m, logs)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	index, position := m.Durable()
	crashes, fresh, resumed := 0, 0, 0
	check := func(at string) {
		for _, percent := range []int{0, 10, 50, 100} {
			crashes++
			left := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(uint64(crashes), 5))})
			folded, err := foldInto(left, "logs/main/gen-000001/state.new", index, position)
			if err != nil {
				t.Fatalf("crash before %s, %d%% kept: %v", at, percent, err)
			}
			if folded.Events == position {
				fresh++
			} else {
				resumed++
			}
			if found := compareState(t, left, "logs/main/gen-000001/state.new"); len(found) > 0 {
				t.Fatalf("crash before %s, %d%% kept: %q", at, percent, found)
			}
		}
	}
	_, err := foldInto(errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			check(fmt.Sprintf("kind %d on %s", op.Kind, op.Path))
		}
		return nil
	})), "logs/main/gen-000001/state.new", index, position)
	if err != nil {
		t.Fatal(err)
	}
	check("the end")
	t.Logf("%d crashes; %d folds began anew, %d went on", crashes, fresh, resumed)
	if fresh == 0 || resumed == 0 {
		t.Error("the test tested nothing")
	}
}
