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
