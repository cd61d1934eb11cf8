package eventlog

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// directory is the one place that creates, renames and removes files of the
// log. Nothing of that is durable before sync.
type directory struct {
	fs   vfs.FS
	path string
}

// openDirectory makes the directory, durably, if it does not exist.
func openDirectory(fsys vfs.FS, path string) (directory, error) {
	d := directory{fs: fsys, path: path}
	return d, d.make(path)
}

func (d directory) make(path string) error {
	_, err := d.fs.Stat(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := d.fs.PathDir(path)
	if parent == path {
		return err
	}
	if err := d.make(parent); err != nil {
		return err
	}
	if err := d.fs.MkdirAll(path, 0o755); err != nil {
		return err
	}
	return directory{d.fs, parent}.sync()
}

func (d directory) join(name string) string { return d.fs.PathJoin(d.path, name) }

// list returns the bases of all segments, ascending, and the names of files
// that an interrupted Cut has left.
func (d directory) list() (bases []uint64, left []string, err error) {
	names, err := d.fs.List(d.path)
	if err != nil {
		return nil, nil, fmt.Errorf("list %s: %w", d.path, err)
	}
	for _, name := range names {
		if base, ok := parseSegmentName(name); ok {
			bases = append(bases, base)
		} else if strings.HasSuffix(name, segmentSuffix+tempSuffix) {
			left = append(left, name)
		}
	}
	slices.Sort(bases)
	slices.Sort(left)
	return bases, left, nil
}

// create makes a new file that can be written at any place. One that is there
// already is an error: what it holds would show through.
func (d directory) create(name string) (vfs.File, error) {
	path := d.join(name)
	switch _, err := d.fs.Stat(path); {
	case err == nil:
		return nil, fmt.Errorf("create %s: %w", path, fs.ErrExist)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("create %s: %w", path, err)
	}
	return d.open(name)
}

// open opens a file for reading and writing.
func (d directory) open(name string) (vfs.File, error) {
	f, err := d.fs.OpenReadWrite(d.join(name), vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", d.join(name), err)
	}
	return f, nil
}

func (d directory) rename(from, to string) error { return d.fs.Rename(d.join(from), d.join(to)) }

func (d directory) remove(name string) error { return d.fs.Remove(d.join(name)) }

// sync makes durable which files there are.
func (d directory) sync() error {
	f, err := d.fs.OpenDir(d.path)
	if err != nil {
		return fmt.Errorf("sync %s: %w", d.path, err)
	}
	err = f.Sync()
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("sync %s: %w", d.path, err)
	}
	return nil
}
