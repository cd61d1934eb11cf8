package sim

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
)

// What the stores have taken is there after a loss of power at any moment.
func TestDisk_StoresSurvive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		noDelay := func() time.Duration { return time.Microsecond }
		for fuse := int64(1); fuse < 400; fuse += 3 {
			mem := vfs.NewCrashableMem()
			var crashed *vfs.MemFS
			d := newDisk(mem, noDelay, func() {
				crashed = mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(uint64(fuse), 1))})
			})
			if err := mem.MkdirAll("data/raft/wal", 0o755); err != nil {
				t.Fatal(err)
			}
			syncAll(t, mem, "/", "data", "data/raft")
			d.fuse.Store(fuse)
			stores, release, err := raftStores{d}.Open("data")
			if err != nil {
				t.Fatal(err)
			}
			taken := uint64(0) // entries and terms, each after the other
			for i := uint64(1); i <= 300 && crashed == nil; i++ {
				if err := stores.Log.StoreLog(&raft.Log{Index: i, Data: fmt.Appendf(nil, "%300d", i)}); err != nil {
					t.Fatal(err)
				}
				if err := stores.Stable.SetUint64([]byte("term"), i); err != nil {
					t.Fatal(err)
				}
				if crashed == nil {
					taken = i
				}
			}
			if err := release(); err != nil {
				t.Fatal(err)
			}
			if crashed == nil {
				t.Fatalf("fuse of %d did not burn", fuse)
			}
			again, release, err := raftStores{newDisk(crashed, noDelay, nil)}.Open("data")
			if err != nil {
				t.Fatalf("fuse of %d: %v", fuse, err)
			}
			last, err := again.Log.LastIndex()
			term, termErr := again.Stable.GetUint64([]byte("term"))
			if err != nil || last < taken || last > taken+1 || taken > 0 && (termErr != nil || term < taken) {
				t.Errorf("fuse of %d: %d entries (%v) and term %d (%v) of %d", fuse, last, err, term, termErr, taken)
			}
			if err := again.Log.StoreLog(&raft.Log{Index: last + 1}); err != nil {
				t.Errorf("fuse of %d: write: %v", fuse, err)
			}
			if err := release(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// A loss of power at any moment of writing and dropping entries leaves all that
// were taken and not dropped, whole, and a log that goes on.
func TestDisk_CompactionSurvives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		noDelay := func() time.Duration { return time.Microsecond }
		data := func(i uint64) string { return fmt.Sprintf("%300d", i) }
		compactions := 0
		for fuse := int64(1); ; fuse++ {
			mem := vfs.NewCrashableMem()
			var crashed *vfs.MemFS
			d := newDisk(mem, noDelay, func() {
				unsynced := int(fuse % 3 * 50)
				crashed = mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: unsynced, RNG: rand.New(rand.NewPCG(uint64(fuse), 1))})
			})
			if err := mem.MkdirAll("data/raft/wal", 0o755); err != nil {
				t.Fatal(err)
			}
			syncAll(t, mem, "/", "data", "data/raft")
			d.fuse.Store(fuse)
			stores, release, err := raftStores{d}.Open("data")
			if err != nil {
				t.Fatal(err)
			}
			taken, dropped, dropping := uint64(0), uint64(0), uint64(0) // up to these
			for i := uint64(1); i <= 120 && crashed == nil; i++ {
				if err := stores.Log.StoreLog(&raft.Log{Index: i, Data: []byte(data(i))}); err != nil {
					t.Fatal(err)
				}
				if crashed == nil {
					taken = i
				}
				if i%30 != 0 || crashed != nil {
					continue
				}
				dropping = i - 10
				if err := stores.Log.DeleteRange(dropped+1, dropping); err != nil {
					t.Fatal(err)
				}
				if crashed == nil {
					dropped = dropping
				}
			}
			if err := release(); err != nil {
				t.Fatal(err)
			}
			if crashed == nil {
				break // it burns later than the last write
			}
			if dropping > dropped {
				compactions++
			}
			again, release, err := raftStores{newDisk(crashed, noDelay, nil)}.Open("data")
			if err != nil {
				t.Fatalf("fuse of %d: %v", fuse, err)
			}
			first, err := again.Log.FirstIndex()
			if err != nil || taken > 0 && (first > dropping+1 || first < dropped+1) {
				t.Errorf("fuse of %d: begins at %d (%v), %d were dropped and %d being dropped", fuse, first, err, dropped, dropping)
			}
			for i := dropping + 1; i <= taken; i++ {
				var l raft.Log
				if err := again.Log.GetLog(i, &l); err != nil || string(l.Data) != data(i) {
					t.Fatalf("fuse of %d: entry %d: %v, %q", fuse, i, err, l.Data)
				}
			}
			last, err := again.Log.LastIndex()
			if err != nil || last < taken || last > taken+1 {
				t.Errorf("fuse of %d: ends at %d (%v), %d were taken", fuse, last, err, taken)
			}
			if err := again.Log.StoreLog(&raft.Log{Index: last + 1}); err != nil {
				t.Errorf("fuse of %d: write: %v", fuse, err)
			}
			if err := release(); err != nil {
				t.Fatal(err)
			}
		}
		if compactions < 3 {
			t.Errorf("power was lost in only %d compactions", compactions)
		}
	})
}

func syncAll(t *testing.T, fs *vfs.MemFS, dirs ...string) {
	t.Helper()
	for _, name := range dirs {
		dir, err := fs.OpenDir(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := dir.Sync(); err != nil {
			t.Fatal(err)
		}
	}
}
