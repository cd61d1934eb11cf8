package index

import (
	"fmt"
	"os"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// markerFS closes two gaps in how Pebble moves its markers: empty files whose
// names say which MANIFEST and which format are in force. Pebble creates the
// new one, removes the old one and only then syncs the directory. On a file
// system that may keep these changes in any order, a crash in between can leave
// a marker for a MANIFEST that isn't there, or no marker at all, which Pebble
// takes for a new database. So the directory is synced before a marker appears
// and before one goes.
type markerFS struct{ vfs.FS }

const markerPrefix = "marker."

func (fs markerFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := fs.syncBefore(name); err != nil {
		return nil, err
	}
	return fs.FS.Create(name, category)
}

func (fs markerFS) Remove(name string) error {
	if err := fs.syncBefore(name); err != nil {
		return err
	}
	return fs.FS.Remove(name)
}

// Unwrap lets Pebble find the file system below.
func (fs markerFS) Unwrap() vfs.FS { return fs.FS }

// syncBefore makes what happened in a marker's directory so far durable.
func (fs markerFS) syncBefore(name string) error {
	if !strings.HasPrefix(fs.PathBase(name), markerPrefix) {
		return nil
	}
	parent := fs.PathDir(name)
	dir, err := fs.OpenDir(parent)
	if err != nil {
		return err
	}
	err = dir.Sync()
	if e := dir.Close(); err == nil {
		err = e
	}
	if err != nil {
		return &os.PathError{Op: "sync", Path: parent, Err: fmt.Errorf("before a marker is moved: %w", err)}
	}
	return nil
}
