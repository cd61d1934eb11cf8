package index

import (
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// MemFS never lets a removal survive a crash that its directory's sync did not
// cover, so the crash tests can't show what goes wrong without this order.
func TestGuardedFS_SyncsBeforeMarkersMove(t *testing.T) {
	const dir = "gen/state"
	var mu sync.Mutex
	synced, created, removed := false, 0, 0
	mem := vfs.NewMem()
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		marker := strings.HasPrefix(op.Path, dir+"/"+markerPrefix)
		switch {
		case op.Kind == errorfs.OpFileSync && op.Path == dir:
			synced = true
		case op.Kind == errorfs.OpCreate, op.Kind == errorfs.OpRemove:
			if marker && !synced {
				t.Errorf("operation %d on %s: the directory was not synced before", op.Kind, op.Path)
			}
			if marker && op.Kind == errorfs.OpCreate {
				created++
			}
			if marker && op.Kind == errorfs.OpRemove {
				removed++
			}
			synced = false
		}
		return nil
	}))
	for range 2 { // a new MANIFEST each time
		x, _, err := Open(Options{FS: fs, Dir: "gen//state/"})
		if err != nil {
			t.Fatal(err)
		}
		if err := x.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if created < 3 || removed == 0 {
		t.Errorf("%d markers created, %d removed: too few to mean anything", created, removed)
	}
}
