package fsm

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"cairn/event"
)

func rng(t *rapid.T) *rand.Rand {
	return rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "crash seed"), 1))
}

// script is a fixed history that rolls, seals and saves several times.
func script() ([]*raft.Log, *model) {
	mod := born()
	var entries []entry
	for i := range 24 {
		e := entry{time: int64(10 * i), appends: []event.Append{
			one(fmt.Sprintf("a-%d", i%5), "T", withID(fmt.Sprint("id", i)), func(e *event.Event) { e.Tags = []string{"x"} }),
			one("b", "U"),
		}}
		mod.apply(e.time, e.appends)
		entries = append(entries, e)
	}
	return rafted(entries), mod
}

// runScript applies the script, waiting for each savepoint, and tells how far
// the machine said that it was durable. It stops at the first error.
func runScript(fs vfs.FS, logs []*raft.Log, fatal func(error)) (durable uint64, err error) {
	m, err := tryOpen(fs, func(o *Options) { o.SavepointEvents, o.OnFatal = 7, fatal })
	if err != nil {
		return 0, err
	}
	for _, l := range logs {
		if err, ok := m.Apply(l).(error); ok {
			_ = m.Close()
			durable, _ = m.Durable()
			return durable, err
		}
		m.savepoint.settle()
	}
	err = m.Close()
	durable, _ = m.Durable()
	return durable, err
}

// expectRecovery opens what a crash left and goes on: the savepoint must be at
// least what was promised, and the end must be that of the model.
func expectRecovery(t *testing.T, fs vfs.FS, logs []*raft.Log, promised uint64, mod *model) {
	t.Helper()
	m := openMachine(t, fs, func(o *Options) { o.SavepointEvents = 7 })
	defer m.Close()
	index, position := m.Durable()
	if index < promised {
		t.Fatalf("savepoint at index %d, but %d was durable", index, promised)
	}
	if applied, at := m.Applied(); applied != index || at != position {
		t.Fatalf("opened at index %d, position %d; the savepoint is at %d, %d", applied, at, index, position)
	}
	expectEvents(t, m, mod.events[:position])
	outcomes(t, m, logs)
	expectEvents(t, m, mod.events)
}

// TestMachine_CrashPoints crashes after every single file operation, with parts
// of what was not synced kept.
func TestMachine_CrashPoints(t *testing.T) {
	logs, mod := script()
	total := countWrites(t, logs)
	step := 1
	if testing.Short() {
		step = 7
	}
	for _, percent := range []int{0, 10, 50, 100} {
		t.Run(fmt.Sprintf("%d%% kept", percent), func(t *testing.T) {
			for at := 1; at <= total; at += step {
				mem := vfs.NewCrashableMem()
				var n atomic.Int64
				var after *vfs.MemFS
				promised, _ := runScript(errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
					if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && n.Add(1) == int64(at) {
						after = mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(uint64(at), 7))})
						return errCrash
					}
					if n.Load() >= int64(at) {
						return errCrash
					}
					return nil
				})), logs, func(error) {})
				if after == nil {
					continue // background work of the store made fewer operations this time
				}
				expectRecovery(t, after, logs, promised, mod)
			}
		})
	}
}

var errCrash = errors.New("injected failure")

// TestMachine_FailsEachOperationOnce lets every single file operation fail
// once. Whatever the machine makes of it, nothing it promised may be lost.
func TestMachine_FailsEachOperationOnce(t *testing.T) {
	logs, mod := script()
	total := countWrites(t, logs)
	stopped := 0
	step := 1
	if testing.Short() {
		step = 7
	}
	for at := 1; at <= total; at += step {
		mem := vfs.NewCrashableMem()
		var n atomic.Int64
		promised, err := runScript(errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && n.Add(1) == int64(at) {
				return errCrash
			}
			return nil
		})), logs, func(error) {})
		if err != nil {
			stopped++
		}
		// What a dead process leaves: all it wrote, and no locks.
		left := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(uint64(at), 7))})
		expectRecovery(t, left, logs, promised, mod)
	}
	if stopped == 0 {
		t.Error("no failure was noticed")
	}
}

func countWrites(t *testing.T, logs []*raft.Log) int {
	t.Helper()
	var n atomic.Int64
	_, err := runScript(errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			n.Add(1)
		}
		return nil
	})), logs, func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	return int(n.Load())
}
