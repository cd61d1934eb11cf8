package datadir

import (
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestInspect_TellsAllFaults(t *testing.T) {
	fs := vfs.NewMem()
	must(t, fs.MkdirAll("/srv", 0o755))
	newDir(t, fs, fake(fs))
	d, faults, err := Inspect(fs, "/srv/data", 1)
	if err != nil || len(faults) > 0 || d.NodeID() == "" {
		t.Fatalf("a whole directory: %v, %v", faults, err)
	}
	if _, err := Open(fs, "/srv/data", Options{}); !errors.Is(err, ErrInUse) {
		t.Errorf("opened beside an inspection: %v", err)
	}
	must(t, d.Close())

	must(t, write(fs, "/srv/data/node.json", "{}"))
	must(t, fs.Remove("/srv/data/raft/stable.db"))
	must(t, fs.RemoveAll("/srv/data/raft/snapshots"))
	d, faults, err = Inspect(fs, "/srv/data", 1)
	must(t, err)
	must(t, d.Close())
	var damage *DamageError
	var missing *MissingPartError
	if len(faults) != 3 || !errors.As(faults[0], &damage) || !errors.As(faults[1], &missing) || missing.Part != "raft/stable.db" {
		t.Errorf("faults %v", faults)
	}
}

func TestInspect_Refuses(t *testing.T) {
	fs := vfs.NewMem()
	if _, _, err := Inspect(fs, "/srv/data", 1); !errors.Is(err, ErrMissing) {
		t.Errorf("a missing directory: %v", err)
	}
	must(t, fs.MkdirAll("/srv/data", 0o755))
	must(t, write(fs, "/srv/data/letter", "dear"))
	var foreign *ForeignError
	if _, _, err := Inspect(fs, "/srv/data", 1); !errors.As(err, &foreign) {
		t.Errorf("a directory of something else: %v", err)
	}
	must(t, fs.RemoveAll("/srv/data"))
	newDir(t, fs, fake(fs))
	d, err := Open(fs, "/srv/data", Options{Version: 2})
	must(t, err)
	must(t, d.RaiseMinVersion(2))
	if _, _, err := Inspect(fs, "/srv/data", 2); !errors.Is(err, ErrInUse) {
		t.Errorf("a directory in use: %v", err)
	}
	must(t, d.Close())
	var newer *VersionError
	if _, _, err := Inspect(fs, "/srv/data", 1); !errors.As(err, &newer) {
		t.Errorf("a directory of a newer version: %v", err)
	}
}
