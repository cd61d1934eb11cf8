package index

import (
	"fmt"
	"os"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// guardedFS stands between Pebble and the file system.
//
// It ends Pebble's work at the first failed write. Pebble itself answers some
// of them with a panic while a mutex that a deferred call unlocks is not
// locked, which nothing can catch, and goes on after others. Here the failure
// is recorded, and the goroutine it happened in, and each that writes later, is
// parked for good: nothing is written or removed after a write that failed. The
// process is expected to end; guard lets the caller go.
//
// It also closes two gaps in how Pebble moves its markers: empty files whose
// names say which MANIFEST and which format are in force. Pebble creates the
// new one, removes the old one and only then syncs the directory. On a file
// system that may keep these changes in any order, a crash in between can leave
// a marker for a MANIFEST that isn't there, or no marker at all, which Pebble
// takes for a new database. So the directory is synced before a marker appears
// and before one goes.
type guardedFS struct {
	vfs.FS
	store *store
	dir   string // files outside, those of a checkpoint, may fail
}

const markerPrefix = "marker."

func newGuardedFS(fs vfs.FS, dir string, s *store) guardedFS {
	return guardedFS{fs, s, clean(fs, dir)}
}

// clean returns the one form of a path that PathDir gives.
func clean(fs vfs.FS, name string) string { return fs.PathDir(fs.PathJoin(name, "x")) }

// inside reports whether a file is one of the directory, or is the directory.
func (fs guardedFS) inside(name string) bool {
	name = clean(fs.FS, name)
	return name == fs.dir || fs.PathDir(name) == fs.dir
}

// wrote does not return if a write inside the directory has failed, this one or
// one before.
func (fs guardedFS) wrote(op, name string, err error) error {
	if fs.inside(name) {
		fs.store.wrote(op, name, err)
	}
	return err
}

func (s *store) wrote(op, name string, err error) {
	if err != nil {
		s.fail(&os.PathError{Op: op, Path: name, Err: err})
	}
	if s.failed() != nil {
		park()
	}
}

// park never returns. What is parked is freed by the end of the process.
func park() { select {} }

func (fs guardedFS) guard(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil || !fs.inside(name) {
		return f, err
	}
	return guardedFile{f, fs.store, name}, nil
}

func (fs guardedFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	fs.syncBefore(name)
	f, err := fs.FS.Create(name, category)
	return fs.guard(name, f, fs.wrote("create", name, err))
}

func (fs guardedFS) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := fs.FS.OpenReadWrite(name, category, opts...)
	return fs.guard(name, f, fs.wrote("open", name, err))
}

func (fs guardedFS) ReuseForWrite(oldName, newName string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.ReuseForWrite(oldName, newName, category)
	return fs.guard(newName, f, fs.wrote("reuse", newName, err))
}

func (fs guardedFS) OpenDir(name string) (vfs.File, error) {
	f, err := fs.FS.OpenDir(name)
	return fs.guard(name, f, err)
}

func (fs guardedFS) Rename(oldName, newName string) error {
	return fs.wrote("rename", newName, fs.FS.Rename(oldName, newName))
}

// List is asked once more at the end of Open, when a compaction may run
// already that an error there would pull the tables away from.
func (fs guardedFS) List(dir string) ([]string, error) {
	names, err := fs.FS.List(dir)
	return names, fs.wrote("list", dir, err)
}

// Remove may fail: Pebble tries again when it is opened next.
func (fs guardedFS) Remove(name string) error {
	fs.syncBefore(name)
	_ = fs.wrote("remove", name, nil)
	return fs.FS.Remove(name)
}

// Unwrap lets Pebble find the file system below.
func (fs guardedFS) Unwrap() vfs.FS { return fs.FS }

// syncBefore makes what happened in a marker's directory so far durable.
func (fs guardedFS) syncBefore(name string) {
	if !strings.HasPrefix(fs.PathBase(name), markerPrefix) {
		return
	}
	parent := fs.PathDir(name)
	dir, err := fs.FS.OpenDir(parent)
	if err == nil {
		err = dir.Sync()
		if e := dir.Close(); err == nil {
			err = e
		}
	}
	if err != nil {
		err = fmt.Errorf("before a marker is moved: %w", err)
	}
	_ = fs.wrote("sync", parent, err)
}

// guardedFile is a file, or the directory, that Pebble writes.
type guardedFile struct {
	vfs.File
	store *store
	name  string
}

func (f guardedFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	f.store.wrote("write", f.name, err)
	return n, err
}

func (f guardedFile) WriteAt(p []byte, offset int64) (int, error) {
	n, err := f.File.WriteAt(p, offset)
	f.store.wrote("write", f.name, err)
	return n, err
}

func (f guardedFile) Sync() error {
	err := f.File.Sync()
	f.store.wrote("sync", f.name, err)
	return err
}

func (f guardedFile) SyncData() error {
	err := f.File.SyncData()
	f.store.wrote("sync", f.name, err)
	return err
}

func (f guardedFile) SyncTo(length int64) (bool, error) {
	full, err := f.File.SyncTo(length)
	f.store.wrote("sync", f.name, err)
	return full, err
}

// Stat is asked of a WAL that is used again, and its error is a panic.
func (f guardedFile) Stat() (vfs.FileInfo, error) {
	info, err := f.File.Stat()
	f.store.wrote("stat", f.name, err)
	return info, err
}

func (f guardedFile) Close() error {
	err := f.File.Close()
	f.store.wrote("close", f.name, err)
	return err
}
