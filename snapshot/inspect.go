package snapshot

import (
	"errors"
	"fmt"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
)

// Found is what the folders of one log and of its snapshots hold, before
// anything was settled there.
type Found struct {
	Generation string // the folder that the next start-up will use
	LogDir     string
	StateDir   string
	Snapshot   string // folder of the newest snapshot, "" = none
	Meta       raft.SnapshotMeta
	Manifest   *Manifest // nil without a snapshot
}

// Inspect finds what OpenGenerations would open, and changes nothing. It reads
// CURRENT and the manifests, not the files that they name.
func Inspect(fs vfs.FS, dir, snapshots string) (Found, error) {
	path := fs.PathJoin(dir, currentName)
	b, err := readFile(fs, path, 256)
	if err != nil {
		return Found{}, err
	}
	current := decodeCurrent(b)
	if current == "" {
		return Found{}, &CorruptError{path, "it does not name a generation"}
	}
	newest, err := newestFolder(fs, snapshots)
	if err != nil {
		return Found{}, err
	}
	var f Found
	if newest != nil {
		f.Snapshot, f.Meta, f.Manifest = newest.path, newest.meta, newest.manifest
		switch has, want := generationNumber(current), generationNumber(newest.manifest.Generation); {
		case want < has:
			return Found{}, &CorruptError{newest.path, fmt.Sprintf("it is a snapshot of %s, which %s has replaced", newest.manifest.Generation, current)}
		case want > has:
			current = newest.manifest.Generation // an install that the next start-up finishes
		}
	}
	f.Generation = fs.PathJoin(dir, current)
	f.LogDir = fs.PathJoin(f.Generation, logName)
	f.StateDir = fs.PathJoin(f.Generation, stateName)
	if rebuilt := fs.PathJoin(f.Generation, rebuiltStateName); exists(fs, rebuilt) {
		f.StateDir = rebuilt
	}
	return f, nil
}

func exists(fs vfs.FS, path string) bool {
	_, err := fs.Stat(path)
	return !errors.Is(err, os.ErrNotExist)
}

// VerifyFile checks that the first f.Size bytes of a file have f's hash, and
// with whole that it has no more. Damage is a *CorruptError.
func VerifyFile(fs vfs.FS, path string, f File, whole bool) error {
	st, err := fs.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return &CorruptError{path, "it is missing"}
	}
	if err != nil {
		return fmt.Errorf("stat %s: %w", path, err)
	}
	if whole && st.Size() != f.Size {
		return &CorruptError{path, fmt.Sprintf("it has %d bytes, its snapshot says %d", st.Size(), f.Size)}
	}
	switch hash, err := hashPrefix(fs, path, f.Size, false); {
	case err != nil:
		return err
	case hash != f.Hash:
		return &CorruptError{path, "its hash is not the one that its snapshot says"}
	}
	return nil
}
