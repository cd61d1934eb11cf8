package snapshot

import (
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/errors/oserror"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// A crash while the first generation is made leaves nothing that names it, or a
// generation that opens.
func TestCreateGenerations_Crash(t *testing.T) {
	named := 0
	for at := 1; ; at++ {
		crashed := false
		for seed := range uint64(40) {
			mem := vfs.NewCrashableMem()
			if err := mem.MkdirAll("logs/main", 0o755); err != nil {
				t.Fatal(err)
			}
			if err := SyncTree(mem, ""); err != nil {
				t.Fatal(err)
			}
			n := 0
			var after *vfs.MemFS
			fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
					return nil
				}
				if n++; n == at {
					after = mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(seed, 7))})
				}
				return nil
			}))
			if err := CreateGenerations(fs, "logs/main"); err != nil {
				t.Fatal(err)
			}
			if after == nil {
				continue
			}
			crashed = true
			if _, err := after.Stat("logs/main/CURRENT"); oserror.IsNotExist(err) {
				continue
			}
			named++
			if _, err := OpenGenerations(after, "logs/main", "raft/snapshots"); err != nil {
				t.Fatalf("crash before operation %d, seed %d: %v", at, seed, err)
			}
		}
		if !crashed {
			break
		}
	}
	if named == 0 {
		t.Error("no crash left a file that names the generation")
	}
}
