package datadir

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"cairn/snapshot"
)

// everywhere runs do, and check on what a crash before each operation and after
// the last may leave.
func everywhere(mem *vfs.MemFS, do func(vfs.FS), check func(crashed *vfs.MemFS, at string)) (crashes int) {
	crash := func(at string) {
		for _, percent := range []int{0, 10, 50, 100} {
			crashes++
			clone := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(1, uint64(crashes)))})
			check(clone, fmt.Sprintf("crash before %s, %d%% kept", at, percent))
		}
	}
	do(errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			crash(fmt.Sprintf("kind %d on %s", op.Kind, op.Path))
		}
		return nil
	})))
	crash("the end")
	return crashes
}

// A crash while building leaves nothing or all of it, and the next start builds
// or goes on; once Open has returned, the directory stays.
func TestCrash_Build(t *testing.T) {
	mem := vfs.NewCrashableMem()
	must(t, snapshot.MakeDir(mem, "/srv", 0o755))
	opened := ""
	crashes := everywhere(mem, func(fs vfs.FS) {
		d, err := Open(fs, "/srv/data", fake(fs))
		must(t, err)
		opened = d.NodeID()
	}, func(crashed *vfs.MemFS, at string) {
		o := fake(crashed)
		if opened != "" {
			o = Options{NodeID: opened}
		}
		d, err := Open(crashed, "/srv/data", o)
		if err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		if _, err := snapshot.OpenGenerations(crashed, d.Log(), d.Snapshots()); err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		for path, want := range map[string]string{d.StableDB(): "stable", crashed.PathJoin(d.WAL(), "wal-meta.db"): "meta"} {
			if b, err := readFile(crashed, path, 100); err != nil || string(b) != want {
				t.Fatalf("%s: %s = %q, %v", at, path, b, err)
			}
		}
	})
	if opened == "" || crashes < 4*30 {
		t.Errorf("%d crashes", crashes)
	}
}

// The folders above a new directory are durable with it.
func TestCrash_Parents(t *testing.T) {
	mem := vfs.NewCrashableMem()
	d, err := Open(mem, "/srv/a/b/data", fake(mem))
	must(t, err)
	again, err := Open(mem.CrashClone(vfs.CrashCloneCfg{}), "/srv/a/b/data", Options{})
	if err != nil || again.NodeID() != d.NodeID() {
		t.Errorf("after a crash: %v", err)
	}
}

func TestCrash_SetLogID(t *testing.T) {
	mem := vfs.NewCrashableMem()
	newDir(t, mem, fake(mem))
	set := false
	everywhere(mem, func(fs vfs.FS) {
		d, err := Open(fs, "/srv/data", Options{})
		must(t, err)
		must(t, d.SetLogID("log-1"))
		set = true
	}, func(crashed *vfs.MemFS, at string) {
		d, err := Open(crashed, "/srv/data", Options{})
		if err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		if id := d.LogID(); id != "log-1" && (id != "" || set) {
			t.Fatalf("%s: log id %q", at, id)
		}
	})
}

// With any one operation failing, Open says so or has done its work; the next
// start goes through, and a failed write of node.json is the last.
func TestError_Everywhere(t *testing.T) {
	for k := 0; ; k++ {
		mem := vfs.NewCrashableMem()
		must(t, mem.MkdirAll("/srv", 0o755))
		i, injected := 0, false
		fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(errorfs.Op) error {
			i++
			if i == k+1 {
				injected = true
				return errorfs.ErrInjected
			}
			return nil
		}))
		d, err := Open(fs, "/srv/data", fake(fs))
		opened := err == nil
		if opened {
			if err = d.SetLogID("log-1"); err != nil {
				if again := d.SetLogID("log-1"); !errors.Is(again, err) {
					t.Fatalf("operation %d: SetLogID again = %v", k+1, again)
				}
			}
			must(t, d.Close())
		}
		if injected != (err != nil) || err != nil && !errors.Is(err, errorfs.ErrInjected) {
			t.Fatalf("operation %d: injected %v, error %v", k+1, injected, err)
		}
		again, err := Open(mem, "/srv/data", fake(mem))
		if err != nil {
			t.Fatalf("operation %d: the next start: %v", k+1, err)
		}
		if opened && again.NodeID() != d.NodeID() {
			t.Fatalf("operation %d: another node", k+1)
		}
		if !injected {
			if k < 30 {
				t.Errorf("only %d operations", k)
			}
			return
		}
	}
}
