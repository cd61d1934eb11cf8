package datadir

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2/vfs"

	"cairn/snapshot"
)

// parts are what a whole directory has besides node.json, which is checked by
// reading it. folder tells what each one must be.
var parts = []struct {
	path   string // relative, with slashes
	folder bool
}{
	{"raft", true},
	{"raft/stable.db", false},
	{"raft/wal", true},
	{"raft/wal/wal-meta.db", false}, // raft-wal makes a new, empty log where it is missing
	{"raft/snapshots", true},
	{"logs/main", true},
	{"logs/main/CURRENT", false},
}

// checkParts returns a MissingPartError for the first part that is not there.
func checkParts(fs vfs.FS, dir string) error {
	for _, p := range parts {
		if err := checkPart(fs, dir, p.path, p.folder); err != nil {
			return err
		}
	}
	return nil
}

func checkPart(fs vfs.FS, dir, part string, folder bool) error {
	st, err := fs.Stat(fs.PathJoin(dir, part))
	if errors.Is(err, os.ErrNotExist) || err == nil && st.IsDir() != folder {
		return &MissingPartError{dir, part}
	}
	if err != nil {
		return fmt.Errorf("data directory %s: %w", dir, err)
	}
	return nil
}

// state says what stands at a directory's place.
type state int

const (
	absent state = iota // nothing, or an empty folder
	begun               // a data directory, whole or not
)

// look finds out without changing anything.
func look(fs vfs.FS, dir string) (state, error) {
	st, err := fs.Stat(dir)
	if errors.Is(err, os.ErrNotExist) {
		return absent, nil
	}
	if err != nil {
		return 0, fmt.Errorf("data directory %s: %w", dir, err)
	}
	if !st.IsDir() {
		return 0, &ForeignError{dir, "it is a file"}
	}
	names, err := fs.List(dir)
	if err != nil {
		return 0, fmt.Errorf("data directory %s: %w", dir, err)
	}
	if len(names) == 0 {
		return absent, nil
	}
	for _, name := range names {
		switch name {
		case nodeFile, "raft", "logs":
			return begun, nil
		}
	}
	return 0, &ForeignError{dir, fmt.Sprintf("it holds %s, but no %s", names[0], nodeFile)}
}

// build makes a whole directory as dir.new and renames it, so that there is
// never a part without the others. What an earlier try left is thrown away.
func build(fs vfs.FS, dir string, o Options) error {
	staged := dir + ".new"
	if err := snapshot.MakeDir(fs, staged, 0o700); err != nil {
		return err
	}
	lock, err := lockDir(fs, staged)
	if err != nil {
		return err
	}
	defer lock.Close()
	// Another process may have finished it before the lock was ours.
	if st, err := look(fs, dir); err != nil || st != absent {
		return errors.Join(err, fs.RemoveAll(staged))
	}
	if err := fill(fs, staged, o); err != nil {
		return err
	}
	// An empty folder makes way; until the rename there is nothing to lose.
	if err := fs.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w (it is empty, but cannot be replaced; if it is a mount point, name a folder inside it)", err)
	}
	if err := fs.Rename(staged, dir); err != nil {
		return err
	}
	return snapshot.SyncDir(fs, fs.PathDir(dir))
}

// fill makes all parts, durably. It must not open the lock file: closing it
// would give up the lock.
func fill(fs vfs.FS, dir string, o Options) error {
	names, err := fs.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if name == lockFile {
			continue
		}
		if err := fs.RemoveAll(fs.PathJoin(dir, name)); err != nil {
			return err
		}
	}
	for _, p := range parts {
		if p.folder {
			if err := fs.MkdirAll(fs.PathJoin(dir, p.path), 0o755); err != nil {
				return err
			}
		}
	}
	if err := snapshot.CreateGenerations(fs, fs.PathJoin(dir, "logs", "main")); err != nil {
		return err
	}
	if err := o.Build(dir); err != nil {
		return err
	}
	if err := checkParts(fs, dir); err != nil {
		return fmt.Errorf("build: %w", err)
	}
	for _, name := range []string{"raft", "logs"} {
		if err := snapshot.SyncTree(fs, fs.PathJoin(dir, name)); err != nil {
			return err
		}
	}
	n := node{Format: nodeFormat, NodeID: o.NodeID, MinVersion: 1}
	if n.NodeID == "" {
		n.NodeID = newNodeID()
	}
	return snapshot.ReplaceFile(fs, fs.PathJoin(dir, nodeFile), encodeNode(n))
}

const lockFile = "lock"

// lockDir takes the lock in a directory. Of the errors that Lock gives, only one
// about the path is not about who holds it.
func lockDir(fs vfs.FS, dir string) (io.Closer, error) {
	lock, err := fs.Lock(fs.PathJoin(dir, lockFile))
	var path *os.PathError
	switch {
	case err == nil:
		return lock, nil
	case errors.As(err, &path):
		return nil, fmt.Errorf("lock: %w", err)
	default:
		return nil, fmt.Errorf("%w (%w)", ErrInUse, err)
	}
}

// canonical returns one name for a directory of the operating system however it
// was spelled, because a lock is known by its name within a process.
func canonical(fs vfs.FS, dir string) (string, error) {
	if vfs.Root(fs) != vfs.Default {
		return dir, nil
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		return real, nil
	}
	if parent, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
		return filepath.Join(parent, filepath.Base(abs)), nil
	}
	return abs, nil
}

// readFile returns the contents of a file of at most limit bytes; of a larger
// one, more than limit bytes.
func readFile(fs vfs.FS, path string, limit int64) ([]byte, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit+1))
}
