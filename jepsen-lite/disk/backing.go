//go:build linux

package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	treeName    = "tree"    // the files under their names, while not mounted
	objectsName = "objects" // the files under their nodes' ids, while mounted
)

// ErrNotPutBack is returned when a backing directory was mounted by a process
// that ended without Unmount: its files have lost their names.
var ErrNotPutBack = errors.New("backing directory holds files without names")

// openVolume takes up the tree of a backing directory.
func openVolume(backing string) (*volume, error) {
	backing, err := filepath.Abs(backing)
	if err != nil {
		return nil, err
	}
	objects, tree := filepath.Join(backing, objectsName), filepath.Join(backing, treeName)
	for _, dir := range []string{objects, tree} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	if left, err := os.ReadDir(objects); err != nil || len(left) > 0 {
		return nil, errors.Join(err, fmt.Errorf("%s: %w", backing, ErrNotPutBack))
	}
	v := newVolume(backing)
	if err := v.takeUp(v.root, tree, map[uint64]*node{}); err != nil {
		return nil, errors.Join(fmt.Errorf("take up %s: %w", tree, err), v.putBack())
	}
	// Only folders are left of it, which would come back.
	if err := os.RemoveAll(tree); err != nil {
		return nil, err
	}
	return v, nil
}

// takeUp moves the files of a folder to their objects. known has those with
// several names, by inode.
func (v *volume) takeUp(dir *node, folder string, known map[uint64]*node) error {
	list, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, e := range list {
		at := filepath.Join(folder, e.Name())
		info, err := e.Info()
		if err != nil {
			return err
		}
		var n *node
		switch info.Mode().Type() {
		case fs.ModeDir:
			n = v.newDirLocked(unix.S_IFDIR | uint32(info.Mode().Perm()))
			dir.set(e.Name(), nil, n)
			if err := v.takeUp(n, at, known); err != nil {
				return err
			}
		case 0:
			inode := info.Sys().(*syscall.Stat_t).Ino
			if n = known[inode]; n == nil {
				n = v.newFileLocked(unix.S_IFREG | uint32(info.Mode().Perm()))
				n.size, n.synced, n.low, n.alloc = info.Size(), info.Size(), info.Size(), info.Size()
				n.modified = info.ModTime()
				known[inode] = n
			}
			// A second name replaces the object by itself, which rename leaves
			// alone: so it is removed.
			dir.set(e.Name(), nil, n)
			if err := os.Rename(at, n.object); err != nil {
				return err
			}
			if err := os.Remove(at); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		default:
			return fmt.Errorf("%s is neither a file nor a directory", at)
		}
	}
	return nil
}

// putBack gives the objects their names. The file system is no longer in use.
func (v *volume) putBack() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, n := range v.nodes {
		if !n.dir() {
			n.close()
		}
	}
	err := putBack(v.root, filepath.Join(v.backing, treeName), map[*node]string{})
	if err != nil {
		return err
	}
	// What is left has no name: unlinked, but not durably.
	return os.RemoveAll(filepath.Join(v.backing, objectsName))
}

func putBack(dir *node, folder string, placed map[*node]string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for name, n := range dir.entries {
		at := filepath.Join(folder, name)
		var err error
		switch {
		case n.dir():
			err = putBack(n, at, placed)
		case placed[n] != "":
			err = os.Link(placed[n], at)
		default:
			placed[n] = at
			err = errors.Join(os.Rename(n.object, at), os.Chmod(at, fs.FileMode(n.mode)&fs.ModePerm))
		}
		if err != nil {
			return err
		}
	}
	return os.Chmod(folder, fs.FileMode(dir.mode)&fs.ModePerm)
}
