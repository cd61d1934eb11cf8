package fsm

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"cairn/event"
)

// anyEntries draws a short history.
func anyEntries(t *rapid.T) []entry {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) entry {
		return entry{
			time:    rapid.Int64Range(1, 100).Draw(t, "time"),
			appends: rapid.SliceOfN(rapid.Custom(anyAppend), 1, 3).Draw(t, "appends"),
		}
	}), 1, 40).Draw(t, "entries")
}

// TestMachine_Deterministic applies one history to a machine that is left alone
// and to one that takes savepoints, is restarted and crashes at random, with
// other batches. Both must decide as the model does and hold the same bytes.
func TestMachine_Deterministic(t *testing.T) {
	var rolls, savepoints, crashes uint64
	rapid.Check(t, func(t *rapid.T) {
		entries := anyEntries(t)
		logs := rafted(entries)
		mod := born()
		want := []event.Outcome{{Code: event.Accepted, First: 1, Last: 1, Time: 1, Versions: []event.StreamVersion{{Stream: "$log", Version: 1}}}}
		for _, e := range entries {
			want = append(want, mod.apply(e.time, e.appends)...)
		}

		quietFS := vfs.NewMem()
		quiet := openMachine(t, quietFS, nil)
		if got := outcomes(t, quiet, logs); !reflect.DeepEqual(got, want) {
			t.Fatalf("outcomes\n%+v, want\n%+v", got, want)
		}
		expectEvents(t, quiet, mod.events)
		expectFilters(t, quiet, mod.events)

		fs := vfs.NewCrashableMem()
		small := func(o *Options) { o.SavepointEvents = rapid.Uint64Range(1, 20).Draw(t, "savepoint every") }
		m := openMachine(t, fs, small)
		for at := 0; at < len(logs); {
			n := rapid.IntRange(1, len(logs)-at).Draw(t, "batch")
			outcomes(t, m, logs[at:at+n])
			at += n
			switch rapid.IntRange(0, 3).Draw(t, "then") {
			case 0: // restart; Raft gives some entries again
				if err := m.Close(); err != nil {
					t.Fatalf("close: %v", err)
				}
				m, at = openMachine(t, fs, small), rapid.IntRange(0, at).Draw(t, "replay from")
			case 1:
				crashes++
				after := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rng(t)})
				savepoints += m.stats.savepoints.Load()
				_ = m.Close()
				fs = after
				m, at = openMachine(t, fs, small), 0
			}
		}
		expectEvents(t, m, mod.events)
		expectFilters(t, m, mod.events)
		if got, want := logBytes(t, fs, m), logBytes(t, quietFS, quiet); got != want {
			t.Fatalf("log\n%s, want\n%s", got, want)
		}
		if got, want := mustRoot(m), mustRoot(quiet); !slices.Equal(got, want) {
			t.Fatalf("tree root %x, want %x", got, want)
		}
		rolls += m.logStats().Rolls
		savepoints += m.stats.savepoints.Load()
		for _, m := range []*Machine{m, quiet} {
			if err := m.Close(); err != nil {
				t.Fatalf("close: %v", err)
			}
		}
	})
	t.Logf("%d rolls, %d savepoints, %d crashes", rolls, savepoints, crashes)
	if rolls == 0 || savepoints == 0 || crashes == 0 {
		t.Errorf("%d rolls, %d savepoints, %d crashes: the test tested nothing", rolls, savepoints, crashes)
	}
}

func mustRoot(m *Machine) []byte {
	root, err := m.state.tree.root()
	if err != nil {
		panic(err)
	}
	return root
}

func TestMachine_TimeNeverRunsBackwards(t *testing.T) {
	m := openMachine(t, vfs.NewMem(), nil)
	defer m.Close()
	got := outcomes(t, m, rafted([]entry{
		{time: 50, appends: []event.Append{one("a", "T")}},
		{time: 20, appends: []event.Append{one("a", "T")}},
	}))
	if got[1].Time != 50 || got[2].Time != 50 {
		t.Errorf("times %d and %d, want 50 and 50", got[1].Time, got[2].Time)
	}
}

func TestMachine_RetryWithinOneEntry(t *testing.T) {
	m := openMachine(t, vfs.NewMem(), nil)
	defer m.Close()
	a := one("a", "T", withID("k"))
	a.Conditions = []event.Condition{{Kind: event.StreamMissing, Stream: "a"}}
	other := one("a", "U", withID("k"))
	got := outcomes(t, m, rafted([]entry{{time: 5, appends: []event.Append{a, a, other}}}))
	if got[1].Code != event.Accepted || got[2].Code != event.Duplicate || got[2].First != got[1].First {
		t.Errorf("the retry got %+v after %+v", got[2], got[1])
	}
	if got[3].Code != event.IDReused {
		t.Errorf("another event with the same id got %+v", got[3])
	}
}

func TestMachine_RefusesBeforeBirth(t *testing.T) {
	m := openMachine(t, vfs.NewMem(), nil)
	defer m.Close()
	logs := rafted([]entry{{time: 5, appends: []event.Append{one("a", "T")}}})
	if got := outcomes(t, m, logs[1:]); got[0].Code != event.Refused {
		t.Errorf("before the birth: %+v", got[0])
	}
	if _, position := m.Applied(); position != 0 {
		t.Errorf("position %d, want 0", position)
	}
}

func TestMachine_SecondBirthIsNoOp(t *testing.T) {
	m := openMachine(t, vfs.NewMem(), nil)
	defer m.Close()
	logs := rafted(nil)
	again := *logs[0]
	again.Index++
	got := outcomes(t, m, []*raft.Log{logs[0], &again})
	if got[1].Code != event.Duplicate || got[1].First != 1 {
		t.Errorf("second birth: %+v", got[1])
	}
}

func TestMachine_SystemStreamsAreClosed(t *testing.T) {
	m := openMachine(t, vfs.NewMem(), nil)
	defer m.Close()
	got := outcomes(t, m, rafted([]entry{{time: 5, appends: []event.Append{one("$log", "T"), {}}}}))
	for _, o := range got[1:] {
		if o.Code != event.Refused {
			t.Errorf("got %+v, want a refusal", o)
		}
	}
}

func TestMachine_UnknownFormsStopIt(t *testing.T) {
	newer, err := event.SystemCommand(event.StreamLog, event.TypeClusterVersion, event.ClusterVersion{Version: SupportedVersion + 1})
	if err != nil {
		t.Fatal(err)
	}
	unknown, err := event.SystemCommand("$later", "thing", struct{}{})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"entry format":    {event.EntryFormat + 1, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"torn entry":      event.EncodeEntry(nil, 1, [][]byte{{1}}),
		"cluster version": event.EncodeEntry(nil, 1, [][]byte{event.EncodeCommand(nil, &newer)}),
		"system event":    event.EncodeEntry(nil, 1, [][]byte{event.EncodeCommand(nil, &unknown)}),
	} {
		t.Run(name, func(t *testing.T) {
			var fatal error
			m := openMachine(t, vfs.NewMem(), func(o *Options) { o.OnFatal = func(err error) { fatal = err } })
			defer m.Close()
			logs := append(rafted([]entry{{time: 5, appends: []event.Append{one("a", "T")}}}), &raft.Log{Index: 9, Term: 3, Data: data})
			answers := m.ApplyBatch(append(logs, &raft.Log{Index: 10, Term: 3, Data: logs[1].Data}))
			for _, answer := range answers[2:] {
				if _, ok := answer.(error); !ok {
					t.Errorf("answer %v, want an error", answer)
				}
			}
			if fatal == nil {
				t.Error("the node was not told to stop")
			}
			if err := m.WaitIndex(context.Background(), 10); err == nil {
				t.Error("a reader was told that the entry is applied")
			}
		})
	}
}

func TestMachine_RemovalOutlivesRestart(t *testing.T) {
	fs := vfs.NewMem()
	m := openMachine(t, fs, nil)
	removal, err := event.SystemCommand(event.StreamMembers, event.TypeMemberRemoved, event.MemberRemoved{NodeID: "node-7"})
	if err != nil {
		t.Fatal(err)
	}
	logs := append(rafted(nil), &raft.Log{Index: 9, Term: 1, Data: event.EncodeEntry(nil, 1, [][]byte{event.EncodeCommand(nil, &removal)})})
	outcomes(t, m, logs)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m = openMachine(t, fs, nil)
	defer m.Close()
	if !m.Removed("node-7") || m.Removed("node-8") || m.ClusterVersion() != 1 || m.LogID() != testLogID {
		t.Errorf("after a restart: removed %v, version %d, log %s", m.Removed("node-7"), m.ClusterVersion(), m.LogID())
	}
}

func TestMachine_PrecheckAgreesWithApply(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		entries := anyEntries(t)
		m := openMachine(t, vfs.NewMem(), func(o *Options) { o.SavepointEvents = 10 })
		defer m.Close()
		mod := born()
		logs := rafted(entries)
		for _, e := range entries {
			mod.apply(e.time, e.appends)
		}
		outcomes(t, m, logs)
		a := anyAppend(t)
		verified, refusal, err := m.Precheck(&a)
		if err != nil {
			t.Fatal(err)
		}
		want := mod.decide(200, &a)
		if refusal != nil && want.Code != event.ConditionFailed {
			t.Fatalf("refused with %+v, but the model says %+v", refusal, want)
		}
		c := event.Command{Kind: event.KindAppend, Append: a, VerifiedTo: verified}
		next := &raft.Log{Index: 1000, Term: 9, Data: event.EncodeEntry(nil, 200, [][]byte{event.EncodeCommand(nil, &c)})}
		if got := outcomes(t, m, []*raft.Log{next})[0]; !reflect.DeepEqual(got, want) {
			t.Fatalf("verified to %d: %+v, want %+v", verified, got, want)
		}
	})
}

func TestMachine_ViewStaysAsOfItsPosition(t *testing.T) {
	m := openMachine(t, vfs.NewMem(), func(o *Options) { o.SavepointEvents = 2 })
	defer m.Close()
	var entries []entry
	for i := range 30 {
		entries = append(entries, entry{time: int64(i), appends: []event.Append{one("a", "T", withID(fmt.Sprint(i)))}})
	}
	logs := rafted(entries)
	outcomes(t, m, logs[:10])
	v := m.View(0)
	defer v.Close()
	outcomes(t, m, logs[10:])
	if head, err := v.Head("a"); err != nil || head.Version != 9 || head.Last != 10 {
		t.Errorf("head %+v, %v; want version 9, position 10", head, err)
	}
	if _, err := v.Event(11); err == nil {
		t.Error("an event from after the view was read")
	}
	c, err := v.Stream("a", 9, true)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var versions []uint64
	for c.Next() {
		versions = append(versions, c.Event().Version)
	}
	if c.Err() != nil || !slices.Equal(versions, []uint64{9, 8, 7, 6, 5, 4, 3, 2, 1}) {
		t.Errorf("versions %v, %v", versions, c.Err())
	}
}
