package offline

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"cairn/datadir"
	"cairn/event"
	eventlog "cairn/log"
	"cairn/snapshot"
)

const testState = testDir + "/logs/main/gen-000001/state"

// expected is what a node that is whole answers: its events, and what it decides
// about more entries.
type expected struct {
	events   []event.Event
	outcomes []event.Outcome
}

// answers starts what a folder holds, asks, and stops it.
func answers(fs vfs.FS) (expected, error) {
	n, err := startNode(fs, 1000)
	if err != nil {
		return expected{}, err
	}
	var e expected
	if e.events, err = n.events(); err == nil {
		e.outcomes, err = n.apply(entries(testEntries-3, testEntries+6))
	}
	return e, errors.Join(err, n.stop())
}

func clone(mem *vfs.MemFS, percent int, seed uint64) *vfs.MemFS {
	return mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(seed, 11))})
}

func rebuild(fs vfs.FS) (Rebuilt, error) {
	return Rebuild(context.Background(), RebuildOptions{FS: fs, Dir: testDir})
}

func TestRebuild_GivesTheSameAnswers(t *testing.T) {
	mem := vfs.NewCrashableMem()
	madeNode(t, mem)
	want, err := answers(clone(mem, 100, 1))
	must(t, err)
	for _, test := range []struct {
		name  string
		spoil func(fs vfs.FS)
	}{
		{"whole", func(vfs.FS) {}},
		{"missing", func(fs vfs.FS) { must(t, fs.RemoveAll(testState)) }},
		{"damaged", func(fs vfs.FS) {
			names, err := fs.List(testState)
			must(t, err)
			for _, name := range names {
				must(t, writeFile(fs, fs.PathJoin(testState, name), "no"))
			}
		}},
		{"another rebuild ended early", func(fs vfs.FS) {
			must(t, fs.MkdirAll(testState+".new", 0o755))
			must(t, writeFile(fs, testState+".new/000001.log", "half"))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			fs := clone(mem, 100, 2)
			test.spoil(fs)
			r, err := rebuild(fs)
			must(t, err)
			if r.LogID != testLogID || r.Version != 1 || r.Position != uint64(len(want.events)) || r.Index != 5+testEntries-1 {
				t.Errorf("rebuilt %+v", r)
			}
			if c := checkNode(t, fs); len(c.Findings) > 0 { // the snapshot is whole as well
				t.Errorf("found %+v", c.Findings)
			}
			got, err := answers(fs)
			must(t, err)
			if !reflect.DeepEqual(got, want) {
				t.Errorf("answers\n%+v, want\n%+v", got, want)
			}
		})
	}
}

// A rebuild with a log that ends beyond the savepoint leaves the rest to the
// start.
func TestRebuild_LeavesTheTail(t *testing.T) {
	mem := vfs.NewCrashableMem()
	madeNode(t, mem)
	n, err := startNode(mem, 1000)
	must(t, err)
	_, err = n.apply(entries(testEntries, testEntries+5))
	must(t, err)
	fs := clone(mem, 100, 3) // the process died: no savepoint covers them
	r, err := rebuild(fs)
	must(t, err)
	if r.Index != 5+testEntries-1 {
		t.Errorf("rebuilt to index %d", r.Index)
	}
	again, err := startNode(fs, 1000)
	must(t, err)
	if tail := again.machine.TailIndex(); tail != 5+testEntries+4 {
		t.Errorf("the log's tail was at index %d, want %d", tail, 5+testEntries+4)
	}
	must(t, again.stop())
	must(t, n.stop())
}

func TestRebuild_EmptyNode(t *testing.T) {
	fs := vfs.NewMem()
	must(t, snapshot.MakeDir(fs, "/srv", 0o755))
	n, err := startNode(fs, 10)
	must(t, err)
	must(t, n.stop())
	if r, err := rebuild(fs); err != nil || r != (Rebuilt{}) {
		t.Errorf("rebuilt %+v, %v", r, err)
	}
	n, err = startNode(fs, 10)
	must(t, err)
	must(t, n.stop())
}

func TestRebuild_Refuses(t *testing.T) {
	mem := vfs.NewCrashableMem()
	madeNode(t, mem)
	t.Run("a node that runs", func(t *testing.T) {
		fs := clone(mem, 100, 1)
		n, err := startNode(fs, 10)
		must(t, err)
		if _, err := rebuild(fs); !errors.Is(err, datadir.ErrInUse) {
			t.Errorf("Rebuild = %v, want %v", err, datadir.ErrInUse)
		}
		must(t, n.stop())
	})
	t.Run("a damaged log", func(t *testing.T) {
		fs := clone(mem, 100, 1)
		flip(t, fs, testDir+"/logs/main/gen-000001/log/00000000000000000001.seg", 1000)
		var damage *eventlog.CorruptError
		if _, err := rebuild(fs); !errors.As(err, &damage) {
			t.Errorf("Rebuild = %v, want damage", err)
		}
		if _, err := fs.Stat(testState + ".new"); err == nil {
			t.Error("state.new was left")
		}
		if _, err := fs.Stat(testState); err != nil {
			t.Errorf("the old state: %v", err)
		}
	})
	t.Run("a lost savepoint", func(t *testing.T) {
		fs := clone(mem, 100, 1)
		must(t, fs.Remove(testDir+"/logs/main/gen-000001/SAVEPOINT"))
		var damage *snapshot.CorruptError
		if _, err := rebuild(fs); !errors.As(err, &damage) {
			t.Errorf("Rebuild = %v, want damage", err)
		}
	})
	t.Run("no data folder", func(t *testing.T) {
		if _, err := Rebuild(context.Background(), RebuildOptions{FS: vfs.NewMem(), Dir: "/nowhere"}); !errors.Is(err, datadir.ErrMissing) {
			t.Errorf("Rebuild = %v, want %v", err, datadir.ErrMissing)
		}
	})
}

// flip changes one bit of a file.
func flip(t testing.TB, fs vfs.FS, path string, at int64) {
	t.Helper()
	b := readFile(t, fs, path)
	b[at] ^= 4
	must(t, writeFile(fs, path, string(b)))
}

// TestCrash_Rebuild crashes before every operation of a rebuild, with parts of
// what was not synced kept. Where the old state was whole, the node must start;
// where it was lost, it must start or be rebuilt. Either way it gives all the
// answers.
func TestCrash_Rebuild(t *testing.T) {
	for _, lost := range []bool{false, true} {
		t.Run(fmt.Sprintf("state lost %v", lost), func(t *testing.T) {
			base := vfs.NewCrashableMem()
			madeNode(t, base)
			want, err := answers(clone(base, 100, 1))
			must(t, err)
			mem := vfs.NewCrashableMem()
			if ok, err := vfs.Clone(base, mem, "/srv", "/srv", vfs.CloneSync); err != nil || !ok {
				t.Fatal(err)
			}
			must(t, snapshot.SyncDir(mem, "/"))
			if lost {
				must(t, mem.RemoveAll(testState))
				must(t, snapshot.SyncDir(mem, testDir+"/logs/main/gen-000001"))
			}
			before, after, durable := 0, 0, false
			var seed uint64
			check := func(at string) {
				for _, percent := range []int{0, 10, 50, 100} {
					seed++
					crashed := clone(mem, percent, seed)
					got, err := answers(crashed)
					if err != nil {
						if before++; !lost || durable {
							t.Fatalf("crash before %s, %d%% kept: start: %v", at, percent, err)
						}
						if _, err := rebuild(crashed); err != nil {
							t.Fatalf("crash before %s, %d%% kept: rebuild: %v", at, percent, err)
						}
						got, err = answers(crashed)
					} else if lost {
						after++
						durable = durable || percent == 0 // from here on it is there to stay
					}
					if err != nil || !reflect.DeepEqual(got, want) {
						t.Fatalf("crash before %s, %d%% kept: %v, answers\n%+v, want\n%+v", at, percent, err, got, want)
					}
				}
			}
			_, err = rebuild(errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
					check(fmt.Sprintf("kind %d on %s", op.Kind, op.Path))
				}
				return nil
			})))
			must(t, err)
			check("the end")
			t.Logf("%d crashes; %d before the new state counted, %d after", seed, before, after)
			if lost && (before == 0 || after == 0) {
				t.Error("the test tested nothing")
			}
		})
	}
}

// TestError_Rebuild lets each operation of a rebuild fail once, reads too.
// Nothing may be lost by it: the node starts as before.
func TestError_Rebuild(t *testing.T) {
	base := vfs.NewCrashableMem()
	madeNode(t, base)
	want, err := answers(clone(base, 100, 1))
	must(t, err)
	injected := errors.New("injected failure")
	failed := 0
	for at := int64(1); ; at++ {
		mem := clone(base, 100, 1)
		var n atomic.Int64
		_, err := rebuild(errorfs.Wrap(mem, errorfs.InjectorFunc(func(errorfs.Op) error {
			if n.Add(1) == at {
				return injected
			}
			return nil
		})))
		if err != nil {
			failed++
		}
		left := clone(mem, 100, uint64(at)) // what a dead process leaves, without its locks
		got, err := answers(left)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("operation %d fails: %v, answers\n%+v, want\n%+v", at, err, got, want)
		}
		if n.Load() < at {
			break
		}
	}
	t.Logf("%d failures were noticed", failed)
	if failed == 0 {
		t.Error("no failure was noticed")
	}
}
