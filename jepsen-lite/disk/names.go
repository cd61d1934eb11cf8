//go:build linux

package disk

import (
	"maps"
	"path"
	"slices"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// The kernel is told to cache neither names nor attributes: a power loss would
// have to take them back. Answering from memory is cheap.

// dirLocked returns the directory with an id.
func (v *volume) dirLocked(id uint64) (*node, fuse.Status) {
	n := v.nodes[id]
	switch {
	case n == nil || n.gone:
		return nil, fuse.Status(unix.ESTALE)
	case !n.dir():
		return nil, fuse.ENOTDIR
	}
	return n, fuse.OK
}

// meetNames lets a step on names run into faults.
func (v *volume) meetNames(h *fuse.InHeader, dir uint64, name string) fuse.Status {
	_, errno := v.faults.meet(Names, func() string { return path.Join(v.pathOf(dir), name) }, h.Pid)
	return fuse.Status(errno)
}

func (v *volume) pathOf(id uint64) string {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if n := v.nodes[id]; n != nil {
		return n.path()
	}
	return ""
}

// entryLocked answers with a node, which the kernel may refer to from now on.
func (v *volume) entryLocked(n *node, out *fuse.EntryOut) {
	n.lookups.Add(1)
	out.NodeId, out.Generation = n.id, 1
	v.attrLocked(n, &out.Attr)
}

func (v *volume) attrLocked(n *node, out *fuse.Attr) {
	changed := n.changed
	out.Ino, out.Mode, out.Nlink, out.Blksize = n.id, n.mode, uint32(n.links), pageSize
	out.Owner = *fuse.CurrentOwner()
	if n.dir() {
		out.Nlink++
	} else {
		n.mu.RLock()
		out.Size, out.Blocks = uint64(n.size), uint64(n.alloc+sectorSize-1)/sectorSize
		changed = n.modified
		n.mu.RUnlock()
	}
	out.SetTimes(&changed, &changed, &changed)
}

func (v *volume) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	v.mu.RLock()
	defer v.mu.RUnlock()
	dir, code := v.dirLocked(h.NodeId)
	if !code.Ok() {
		return code
	}
	n := dir.entries[name]
	if n == nil {
		return fuse.ENOENT
	}
	v.entryLocked(n, out)
	return fuse.OK
}

func (v *volume) Forget(id, lookups uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if n := v.nodes[id]; n != nil && n.lookups.Add(-int64(lookups)) == 0 {
		v.dropLocked(n)
	}
}

func (v *volume) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	v.mu.RLock()
	defer v.mu.RUnlock()
	n := v.nodes[in.NodeId]
	if n == nil || n.gone {
		return fuse.Status(unix.ESTALE)
	}
	v.attrLocked(n, &out.Attr)
	return fuse.OK
}

func (v *volume) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	if code := v.meetNames(&in.InHeader, in.NodeId, name); !code.Ok() {
		return code
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	dir, code := v.freeNameLocked(in.NodeId, name)
	if !code.Ok() {
		return code
	}
	n := v.newDirLocked(unix.S_IFDIR | in.Mode&0o7777)
	v.applyLocked(change{dir: dir, name: name, after: n})
	v.entryLocked(n, out)
	return fuse.OK
}

// freeNameLocked returns a directory in which a name is free.
func (v *volume) freeNameLocked(id uint64, name string) (*node, fuse.Status) {
	dir, code := v.dirLocked(id)
	if code.Ok() && dir.links == 0 {
		return nil, fuse.ENOENT
	}
	if code.Ok() && dir.entries[name] != nil {
		return nil, fuse.Status(unix.EEXIST)
	}
	return dir, code
}

func (v *volume) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	if code := v.meetNames(&in.InHeader, in.NodeId, name); !code.Ok() {
		return code
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	dir, code := v.freeNameLocked(in.NodeId, name)
	if !code.Ok() {
		return code
	}
	n, code := v.createLocked(dir, name, in.Mode)
	if !code.Ok() {
		return code
	}
	n.handles++
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	v.entryLocked(n, &out.EntryOut)
	return fuse.OK
}

func (v *volume) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	if in.Mode&unix.S_IFMT != unix.S_IFREG {
		return fuse.EPERM
	}
	if code := v.meetNames(&in.InHeader, in.NodeId, name); !code.Ok() {
		return code
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	dir, code := v.freeNameLocked(in.NodeId, name)
	if !code.Ok() {
		return code
	}
	n, code := v.createLocked(dir, name, in.Mode)
	if !code.Ok() {
		return code
	}
	n.close()
	v.entryLocked(n, out)
	return fuse.OK
}

// createLocked makes a file with its object open.
func (v *volume) createLocked(dir *node, name string, mode uint32) (*node, fuse.Status) {
	n := v.newFileLocked(unix.S_IFREG | mode&0o7777)
	if err := n.makeObject(); err != nil {
		delete(v.nodes, n.id)
		return nil, fuse.ToStatus(err)
	}
	v.applyLocked(change{dir: dir, name: name, after: n})
	return n, fuse.OK
}

func (v *volume) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	if code := v.meetNames(&in.InHeader, in.NodeId, name); !code.Ok() {
		return code
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	dir, code := v.freeNameLocked(in.NodeId, name)
	if !code.Ok() {
		return code
	}
	n := v.nodes[in.Oldnodeid]
	switch {
	case n == nil || n.gone || n.links == 0:
		return fuse.ENOENT
	case n.dir():
		return fuse.EPERM
	}
	v.applyLocked(change{dir: dir, name: name, after: n})
	v.entryLocked(n, out)
	return fuse.OK
}

func (v *volume) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return v.remove(h, name, func(n *node) fuse.Status {
		if n.dir() {
			return fuse.Status(unix.EISDIR)
		}
		return fuse.OK
	})
}

func (v *volume) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return v.remove(h, name, func(n *node) fuse.Status {
		if !n.dir() {
			return fuse.ENOTDIR
		}
		if len(n.entries) > 0 {
			return fuse.Status(unix.ENOTEMPTY)
		}
		return fuse.OK
	})
}

func (v *volume) remove(h *fuse.InHeader, name string, may func(*node) fuse.Status) fuse.Status {
	if code := v.meetNames(h, h.NodeId, name); !code.Ok() {
		return code
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	dir, code := v.dirLocked(h.NodeId)
	if !code.Ok() {
		return code
	}
	n := dir.entries[name]
	if n == nil {
		return fuse.ENOENT
	}
	if code := may(n); !code.Ok() {
		return code
	}
	v.applyLocked(change{dir: dir, name: name, before: n})
	return fuse.OK
}

func (v *volume) Rename(_ <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	if in.Flags&^unix.RENAME_NOREPLACE != 0 {
		return fuse.EINVAL
	}
	if code := v.meetNames(&in.InHeader, in.Newdir, newName); !code.Ok() {
		return code
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	from, code := v.dirLocked(in.NodeId)
	if !code.Ok() {
		return code
	}
	to, code := v.dirLocked(in.Newdir)
	if !code.Ok() {
		return code
	}
	n, over := from.entries[oldName], to.entries[newName]
	switch {
	case n == nil || to.links == 0:
		return fuse.ENOENT
	case over == n:
		return fuse.OK
	case over == nil:
	case in.Flags&unix.RENAME_NOREPLACE != 0:
		return fuse.Status(unix.EEXIST)
	case over.dir() && !n.dir():
		return fuse.Status(unix.EISDIR)
	case !over.dir() && n.dir():
		return fuse.ENOTDIR
	case over.dir() && len(over.entries) > 0:
		return fuse.Status(unix.ENOTEMPTY)
	}
	put := change{dir: to, name: newName, before: over, after: n}
	take := change{dir: from, name: oldName, before: n}
	if from == to || n.dir() {
		v.applyLocked(take, put)
	} else {
		v.applyLocked(put)
		v.applyLocked(take)
	}
	n.parent, n.name = to, newName
	return fuse.OK
}

// entry is one line of a listing, which stays as it was when it began.
type entry struct {
	name string
	id   uint64
	mode uint32
}

func (v *volume) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, code := v.dirLocked(in.NodeId); !code.Ok() {
		return code
	}
	v.listing++
	out.Fh = v.listing
	v.lists[out.Fh] = nil
	return fuse.OK
}

func (v *volume) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	v.mu.Lock()
	defer v.mu.Unlock()
	dir, code := v.dirLocked(in.NodeId)
	if !code.Ok() {
		return code
	}
	if in.Offset == 0 {
		list := []entry{{".", dir.id, dir.mode}, {"..", dir.id, dir.mode}}
		for _, name := range slices.Sorted(maps.Keys(dir.entries)) {
			n := dir.entries[name]
			list = append(list, entry{name, n.id, n.mode})
		}
		v.lists[in.Fh] = list
	}
	list := v.lists[in.Fh]
	for i := min(int(in.Offset), len(list)); i < len(list); i++ {
		if !out.AddDirEntry(fuse.DirEntry{Name: list[i].name, Ino: list[i].id, Mode: list[i].mode, Off: uint64(i + 1)}) {
			break
		}
	}
	return fuse.OK
}

func (v *volume) ReleaseDir(in *fuse.ReleaseIn) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.lists, in.Fh)
}

func (v *volume) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	if _, errno := v.faults.meet(Sync, func() string { return v.pathOf(in.NodeId) }, in.Pid); errno != 0 {
		return fuse.Status(errno)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	dir, code := v.dirLocked(in.NodeId)
	if !code.Ok() {
		return code
	}
	v.commitLocked(dir, v.seq)
	v.syncs.Add(1)
	return fuse.OK
}

// setTimes gives a node the time of modification that was asked for.
func (n *node) setTimes(t time.Time) {
	if n.dir() {
		n.changed = t
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.modified = t
}
