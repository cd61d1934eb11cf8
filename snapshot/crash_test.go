package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// testSeed seeds what a crash keeps; CAIRN_TEST_SEED repeats a run.
func testSeed(t testing.TB) uint64 {
	seed := uint64(1)
	if s := os.Getenv("CAIRN_TEST_SEED"); s != "" {
		var err error
		seed, err = strconv.ParseUint(s, 10, 64)
		must(t, err)
	}
	t.Logf("CAIRN_TEST_SEED=%d", seed)
	return seed
}

// live stands for a crash that loses nothing: what was not synced was written
// all the same, and removed too, which a CrashClone undoes at any percentage.
const live = -1

var allPercents = []int{0, 10, 50, 100, live}

// stepwise removes a tree file by file, as a real file system does, so that a
// crash may come in between.
type stepwise struct{ vfs.FS }

func (s stepwise) RemoveAll(path string) error {
	st, err := s.FS.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.IsDir() {
		names, err := list(s.FS, path)
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := s.RemoveAll(s.FS.PathJoin(path, name)); err != nil {
				return err
			}
		}
	}
	return s.FS.Remove(path)
}

// crashNow returns what a crash at this moment leaves.
func crashNow(t testing.TB, mem *vfs.MemFS, percent int, rng *rand.Rand) *vfs.MemFS {
	if percent != live {
		return mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng})
	}
	clone := vfs.NewCrashableMem()
	for name, data := range tree(t, mem, "/") {
		if strings.HasSuffix(name, "/") {
			must(t, clone.MkdirAll("/"+name, 0o755))
			continue
		}
		must(t, clone.MkdirAll(clone.PathDir("/"+name), 0o755))
		f, err := clone.Create("/"+name, vfs.WriteCategoryUnspecified)
		must(t, err)
		_, err = f.Write([]byte(data))
		must(t, errors.Join(err, f.Sync(), f.Close()))
	}
	return clone.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rng})
}

// crashEverywhere runs do once, and check on what a crash before each of its
// file operations that change something, and after the last, may have left. It
// returns how many crashes there were.
func crashEverywhere(t testing.TB, mem *vfs.MemFS, seed uint64, percents []int, do func(vfs.FS), check func(crashed *vfs.MemFS, percent int, at string)) int {
	crashes := 0
	crash := func(at string) {
		for _, percent := range percents {
			crashes++
			rng := rand.New(rand.NewPCG(seed, uint64(crashes)))
			kept := fmt.Sprintf("%d%%", percent)
			if percent == live {
				kept = "all"
			}
			check(crashNow(t, mem, percent, rng), percent, fmt.Sprintf("%s, %s kept", at, kept))
		}
	}
	op := 0
	do(stepwise{errorfs.Wrap(mem, errorfs.InjectorFunc(func(o errorfs.Op) error {
		if o.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			op++
			crash(fmt.Sprintf("crash before operation %d (kind %d on %s)", op, o.Kind, o.Path))
		}
		return nil
	}))})
	crash("crash at the end")
	return crashes
}

// reopen starts a crashed node and gives it to check. Of the crashes that kept
// half, and of those that kept all, it crashes in the same way at every
// operation of the start-up too.
func reopen(t *testing.T, crashed *vfs.MemFS, percent int, seed uint64, at string, check func(n *node) error) {
	t.Helper()
	fail := func(at string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", at, err)
		}
	}
	start := func(fs vfs.FS) {
		n, err := openNode(fs)
		fail(at, err)
		fail(at, check(n))
	}
	if percent != 50 && percent != live {
		start(crashed)
		return
	}
	crashEverywhere(t, crashed, seed, []int{percent}, start, func(again *vfs.MemFS, _ int, inner string) {
		n, err := openNode(again)
		fail(at+", then "+inner, err)
		fail(at+", then "+inner, check(n))
	})
}

// oldNode is a durable node with a generation and a snapshot of it.
func oldNode(t testing.TB) (*vfs.MemFS, *model) {
	t.Helper()
	mem, old := vfs.NewCrashableMem(), smallModel(10)
	n := newNode(t, mem, old)
	n.checkpoint(t, old)
	must(t, n.snapshot(old))
	return mem, old
}

func TestCrash_Local(t *testing.T) {
	seed := testSeed(t)
	mem, old := oldNode(t)
	next := newModel(20, []int{6000, 700}, 5000, 4500, map[string]int{"000004.sst": 5000, "000021.sst": 6100, "MANIFEST-000022": 10})
	// Nothing of the checkpoint is durable but what the state had before.
	n := mustOpen(t, mem)
	dir := mem.PathJoin(n.gens.Dir(), StateName(next.index))
	must(t, mem.MkdirAll(dir, 0o755))
	must(t, mem.Link(mem.PathJoin(n.gens.StateDir(), "000004.sst"), mem.PathJoin(dir, "000004.sst")))
	for _, s := range next.state[1:] {
		f, err := mem.Create(mem.PathJoin(dir, s.name), vfs.WriteCategoryUnspecified)
		must(t, err)
		_, err = f.Write(bytes.Clone(s.data))
		must(t, errors.Join(err, f.Close()))
	}
	closed := false
	crashes := crashEverywhere(t, mem, seed, allPercents, func(fs vfs.FS) {
		must(t, mustOpen(t, &keepCheckpoint{fs}).snapshot(next))
		closed = true
	}, func(crashed *vfs.MemFS, percent int, at string) {
		reopen(t, crashed, percent, seed, at, func(n *node) error {
			// The generation's own files are those of old: only the snapshot changes.
			err := n.check(t, "gen-000001", old, false, next)
			if err != nil && !closed {
				if oldErr := n.check(t, "gen-000001", old, false, old); oldErr != nil {
					return errors.Join(oldErr, err)
				}
				return nil
			}
			return err
		})
	})
	t.Logf("%d crashes", crashes)
	if !closed || crashes < 5*20 {
		t.Errorf("only %d crashes", crashes)
	}
}

// keepCheckpoint lets a test open a node without start-up removing the
// checkpoint that the test has prepared.
type keepCheckpoint struct{ vfs.FS }

func (k *keepCheckpoint) RemoveAll(path string) error {
	if strings.HasPrefix(k.PathBase(path), checkpointPrefix) {
		return nil
	}
	return k.FS.RemoveAll(path)
}

func TestCrash_Install(t *testing.T) {
	seed := testSeed(t)
	mem, old := oldNode(t)
	sent := bigModel(30)
	stream := sent.stream("gen-000005")
	var closed, seenOld, seenNew bool
	crashes := crashEverywhere(t, mem, seed, allPercents, func(fs vfs.FS) {
		n := mustOpen(t, fs)
		must(t, n.receive(sent, stream, 3000))
		closed = true
		must(t, n.restore())
		must(t, n.check(t, "gen-000002", sent, true, sent))
	}, func(crashed *vfs.MemFS, percent int, at string) {
		reopen(t, crashed, percent, seed, at, func(n *node) error {
			err := n.check(t, "gen-000002", sent, true, sent)
			if err == nil {
				seenNew = true
				i, p, err := ReadSavepoint(n.fs, n.gens.Dir())
				if err != nil || i != sent.index || p != sent.position {
					return fmt.Errorf("savepoint %d, %d, %v", i, p, err)
				}
				return nil
			}
			if closed {
				return err
			}
			if oldErr := n.check(t, "gen-000001", old, false, old); oldErr != nil {
				return errors.Join(oldErr, err)
			}
			seenOld = true
			return nil
		})
	})
	t.Logf("%d crashes", crashes)
	if !closed || !seenOld || !seenNew || crashes < 5*60 {
		t.Errorf("%d crashes, old seen: %v, new seen: %v", crashes, seenOld, seenNew)
	}
}

// A superseded snapshot is out of sight, durably, before the first of its files
// is removed: else a crash might leave half of it under its name.
func TestCrash_RemovalOrder(t *testing.T) {
	mem, old := oldNode(t)
	var trace []string
	fs := stepwise{errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		name := mem.PathBase(op.Path)
		switch {
		case op.Kind == errorfs.OpRename && name == "7-12-1":
			trace = append(trace, "rename")
		case op.Kind == errorfs.OpFileSync && op.Path == testSnaps && len(trace) == 1:
			trace = append(trace, "sync")
		case op.Kind == errorfs.OpRemove && strings.Contains(op.Path, "7-12-1"):
			trace = append(trace, "remove")
		}
		return nil
	}))}
	n := mustOpen(t, fs)
	n.checkpoint(t, old)
	must(t, n.snapshot(old))
	if got := strings.Join(trace, " "); !strings.HasPrefix(got, "rename sync remove remove") {
		t.Errorf("operations: %s", got)
	}
}

// After a crash an install can be done again, whatever the first try left.
func TestCrash_InstallAgain(t *testing.T) {
	seed := testSeed(t)
	mem, _ := oldNode(t)
	sent := bigModel(30)
	stream := sent.stream("gen-000005")
	crashEverywhere(t, mem, seed, []int{50}, func(fs vfs.FS) {
		n := mustOpen(t, fs)
		must(t, n.receive(sent, stream, 5000))
		must(t, n.restore())
	}, func(crashed *vfs.MemFS, percent int, at string) {
		n, err := openNode(crashed)
		if err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		generation := generationName(generationNumber(n.gens.Current()) + 1)
		if err := errors.Join(n.receive(sent, stream, 5000), n.restore(), n.check(t, generation, sent, true, sent)); err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		again := mustOpen(t, crashed.CrashClone(vfs.CrashCloneCfg{}))
		if err := again.check(t, generation, sent, true, sent); err != nil {
			t.Fatalf("%s, again, crash: %v", at, err)
		}
	})
}

func TestCrash_CreateGenerations(t *testing.T) {
	seed := testSeed(t)
	mem := vfs.NewCrashableMem()
	must(t, MakeDir(mem, testLogs, 0o755))
	done := false
	crashEverywhere(t, mem, seed, allPercents, func(fs vfs.FS) {
		must(t, CreateGenerations(fs, testLogs))
		done = true
	}, func(crashed *vfs.MemFS, percent int, at string) {
		g, err := OpenGenerations(crashed, testLogs, testSnaps)
		if done && (err != nil || g.Current() != "gen-000001") {
			t.Fatalf("%s: %v", at, err)
		}
		if err == nil {
			for _, dir := range []string{g.LogDir(), g.StateDir()} {
				if _, err := crashed.Stat(dir); err != nil {
					t.Fatalf("%s: %v", at, err)
				}
			}
		}
	})
}

// failEverywhere runs do again and again on fresh copies of mem, each time with
// the next file operation failing once, and then check, until none is left to
// fail.
func failEverywhere(t *testing.T, mem *vfs.MemFS, do func(fs vfs.FS, raw *vfs.MemFS) (check func(injected bool))) {
	t.Helper()
	for k := 0; ; k++ {
		raw := mem.CrashClone(vfs.CrashCloneCfg{})
		var failed *errorfs.Op
		i, armed := 0, true
		fs := stepwise{errorfs.Wrap(raw, errorfs.InjectorFunc(func(op errorfs.Op) error {
			i++
			if armed && i == k+1 {
				failed = &op
				return errorfs.ErrInjected
			}
			return nil
		}))}
		check := do(fs, raw)
		armed = false
		check(failed != nil)
		if failed == nil {
			t.Logf("%d operations", k)
			if k < 20 {
				t.Errorf("only %d operations", k)
			}
			return
		}
		if t.Failed() {
			t.Fatalf("operation %d failed: kind %d on %s", k+1, failed.Kind, failed.Path)
		}
	}
}

// use puts another file system under a node that is open.
func (n *node) use(fs vfs.FS) {
	n.fs, n.store.fs, n.store.o.FS, n.gens.fs = fs, fs, fs, fs
	n.store.o.VerifySegment = verifier(fs)
}

// afterError checks a node of which something failed: it goes on with what it
// had, or it has said that it must not, and either way a restart finds a whole
// state.
func afterError(t *testing.T, n *node, raw *vfs.MemFS, err error, retry func(*node) error, check func(*node) error) {
	t.Helper()
	if errors.Is(err, errorfs.ErrInjected) != (err != nil) {
		t.Errorf("the cause is lost: %v", err)
	}
	_, cerr := n.store.Create(1, 1, 1, testServers, 1, nil)
	if stopped := errors.Is(cerr, ErrFailed); stopped != (len(n.errors) == 1) {
		t.Errorf("Create = %v, OnError got %v", cerr, n.errors)
	}
	for _, percent := range []int{0, 100, live} {
		again, err := openNode(crashNow(t, raw, percent, rand.New(rand.NewPCG(1, 1))))
		if err == nil {
			err = check(again)
		}
		if err != nil {
			t.Errorf("after a restart with %d%% kept (%d: all): %v", percent, live, err)
		}
	}
	if len(n.errors) > 0 || n.gens.failed != nil {
		return
	}
	if err := retry(n); err != nil {
		t.Errorf("a second try: %v", err)
	}
}

func TestError_Local(t *testing.T) {
	mem, old := oldNode(t)
	next := smallModel(20)
	oldOrNext := func(n *node) error {
		if n.check(t, "gen-000001", old, false, old) == nil {
			return nil
		}
		return n.check(t, "gen-000001", old, false, next)
	}
	failEverywhere(t, mem, func(fs vfs.FS, raw *vfs.MemFS) func(bool) {
		n := mustOpen(t, raw)
		n.checkpoint(t, next)
		n.use(fs)
		err := n.snapshot(next)
		return func(injected bool) {
			if !injected && err != nil {
				t.Error(err)
			}
			afterError(t, n, raw, err, func(n *node) error {
				if err != nil {
					n.checkpoint(t, next)
					if err := n.snapshot(next); err != nil {
						return err
					}
				}
				return mustOpen(t, raw).check(t, "gen-000001", old, false, next)
			}, oldOrNext)
		}
	})
}

func TestError_Install(t *testing.T) {
	mem, old := oldNode(t)
	sent := bigModel(30)
	stream := sent.stream("gen-000005")
	failEverywhere(t, mem, func(fs vfs.FS, raw *vfs.MemFS) func(bool) {
		n := mustOpen(t, raw)
		n.use(fs)
		err := n.receive(sent, stream, 3000)
		received := err == nil
		if received {
			err = n.restore()
		}
		return func(injected bool) {
			if !injected && err != nil {
				t.Error(err)
			}
			afterError(t, n, raw, err, func(n *node) error {
				if !received {
					if err := n.receive(sent, stream, 3000); err != nil {
						return err
					}
				}
				if err := n.restore(); err != nil {
					return err
				}
				// What could not be removed goes at the next start.
				again := mustOpen(t, raw)
				return again.check(t, again.gens.Current(), sent, true, sent)
			}, func(n *node) error {
				if !received && n.check(t, "gen-000001", old, false, old) == nil {
					return nil
				}
				return n.check(t, "gen-000002", sent, true, sent)
			})
		}
	})
}

// Start-up with an operation failing says so, and the next one goes through.
func TestError_Start(t *testing.T) {
	mem, _ := oldNode(t)
	sent := bigModel(30)
	n := mustOpen(t, mem)
	must(t, n.receive(sent, sent.stream("gen-000005"), 3000))
	put(t, mem, mem.PathJoin(testSnaps, "1-1-1.tmp", manifestName), []byte("unfinished"))
	failEverywhere(t, mem, func(fs vfs.FS, raw *vfs.MemFS) func(bool) {
		_, err := openNode(fs)
		return func(injected bool) {
			if (err != nil) != injected {
				t.Errorf("injected: %v, error: %v", injected, err)
			}
			if err := mustOpen(t, raw).check(t, "gen-000002", sent, true, sent); err != nil {
				t.Error(err)
			}
		}
	})
}
