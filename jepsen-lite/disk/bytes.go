//go:build linux

package disk

import (
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// The handle of an open file says nothing that its node does not, so none has a
// number. Pages stay in the kernel's cache (writes go through it), which keeps
// maps of a file and its reads alike.

// held returns the file of a request with mu held for reading; the caller
// unlocks it unless there is an error.
func (v *volume) held(id uint64) (*node, fuse.Status) {
	v.mu.RLock()
	n := v.nodes[id]
	switch {
	case n == nil || n.gone:
		v.mu.RUnlock()
		return nil, fuse.Status(unix.ESTALE)
	case n.dir():
		v.mu.RUnlock()
		return nil, fuse.Status(unix.EISDIR)
	}
	return n, fuse.OK
}

// meetBytes lets an operation on a file run into faults.
func (v *volume) meetBytes(op Ops, h *fuse.InHeader) (torn bool, code fuse.Status) {
	torn, errno := v.faults.meet(op, func() string { return v.pathOf(h.NodeId) }, h.Pid)
	return torn, fuse.Status(errno)
}

func (v *volume) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	v.mu.Lock()
	defer v.mu.Unlock()
	n := v.nodes[in.NodeId]
	if n == nil || n.gone || n.dir() {
		return fuse.Status(unix.ESTALE)
	}
	if err := n.open(); err != nil {
		return fuse.ToStatus(err)
	}
	n.handles++
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	return fuse.OK
}

func (v *volume) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	v.mu.Lock()
	defer v.mu.Unlock()
	n := v.nodes[in.NodeId]
	if n == nil {
		return
	}
	if n.handles--; n.handles == 0 {
		n.close()
		v.dropLocked(n)
	}
}

func (v *volume) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	if _, code := v.meetBytes(Read, &in.InHeader); !code.Ok() {
		return nil, code
	}
	n, code := v.held(in.NodeId)
	if !code.Ok() {
		return nil, code
	}
	defer v.mu.RUnlock()
	got, err := n.read(buf[:min(len(buf), int(in.Size))], int64(in.Offset))
	if err != nil {
		return nil, fuse.ToStatus(err)
	}
	return fuse.ReadResultData(buf[:got]), fuse.OK
}

func (v *volume) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	torn, code := v.meetBytes(Write, &in.InHeader)
	if !code.Ok() {
		return 0, code
	}
	n, code := v.held(in.NodeId)
	if !code.Ok() {
		return 0, code
	}
	defer v.mu.RUnlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.openLocked(); err != nil { // a page of a map, after the last handle
		return 0, fuse.ToStatus(err)
	}
	off := int64(in.Offset)
	if torn {
		v.faults.torn.Add(1)
		half := (off + int64(len(data))/2) &^ (sectorSize - 1)
		data = data[:max(0, half-off)]
	}
	if more := off + int64(len(data)) - n.alloc; more > 0 {
		if data = data[:max(0, int64(len(data))-more+v.faults.grow(n.path(), more))]; len(data) == 0 && !torn {
			return 0, fuse.Status(unix.ENOSPC)
		}
	}
	put, err := n.writeLocked(data, off)
	v.written.Add(int64(put))
	switch {
	case err != nil:
		return 0, fuse.ToStatus(err)
	case torn:
		return 0, fuse.EIO
	}
	return uint32(put), fuse.OK
}

// Flush is asked for at every close, and means nothing here.
func (v *volume) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

// Fsync takes fdatasync for fsync: both make the size durable.
func (v *volume) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	_, failed := v.meetBytes(Sync, &in.InHeader)
	n, code := v.held(in.NodeId)
	if !code.Ok() {
		return code
	}
	defer v.mu.RUnlock()
	if !failed.Ok() {
		if failed == fuse.EIO {
			n.doom()
		}
		return failed
	}
	if err := n.sync(); err != nil {
		return fuse.ToStatus(err)
	}
	v.syncs.Add(1)
	return fuse.OK
}

func (v *volume) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	if size, ok := in.GetSize(); ok {
		if _, code := v.meetBytes(Write, &in.InHeader); !code.Ok() {
			return code
		}
		if code := v.truncate(in.NodeId, int64(size)); !code.Ok() {
			return code
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	n := v.nodes[in.NodeId]
	if n == nil || n.gone {
		return fuse.Status(unix.ESTALE)
	}
	if mode, ok := in.GetMode(); ok {
		n.mode = n.mode&unix.S_IFMT | mode&0o7777
	}
	if t, ok := in.GetMTime(); ok {
		n.setTimes(t)
	}
	v.attrLocked(n, &out.Attr)
	return fuse.OK
}

func (v *volume) truncate(id uint64, size int64) fuse.Status {
	n, code := v.held(id)
	if !code.Ok() {
		return code
	}
	defer v.mu.RUnlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.f == nil {
		defer n.closeLocked()
		if err := n.openLocked(); err != nil {
			return fuse.ToStatus(err)
		}
	}
	before := n.alloc
	if err := n.truncateLocked(size); err != nil {
		return fuse.ToStatus(err)
	}
	// A hole takes no space; what is allocated beyond the end goes with a cut.
	n.alloc = min(before, size)
	v.faults.giveBack(n.path(), before-n.alloc)
	return fuse.OK
}

func (v *volume) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	if in.Mode&^unix.FALLOC_FL_KEEP_SIZE != 0 {
		return fuse.Status(unix.EOPNOTSUPP)
	}
	if _, code := v.meetBytes(Write, &in.InHeader); !code.Ok() {
		return code
	}
	n, code := v.held(in.NodeId)
	if !code.Ok() {
		return code
	}
	defer v.mu.RUnlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	end := int64(in.Offset + in.Length)
	if more := end - n.alloc; more > 0 {
		if got := v.faults.grow(n.path(), more); got < more {
			v.faults.giveBack(n.path(), got)
			return fuse.Status(unix.ENOSPC)
		}
	}
	if in.Mode == 0 && end > n.size {
		if err := n.openLocked(); err != nil {
			return fuse.ToStatus(err)
		}
		if err := n.truncateLocked(end); err != nil {
			return fuse.ToStatus(err)
		}
	}
	n.alloc = max(n.alloc, end)
	n.modified = time.Now()
	return fuse.OK
}

func (v *volume) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	var s unix.Statfs_t
	if err := unix.Statfs(v.backing, &s); err != nil {
		return fuse.ToStatus(err)
	}
	out.Bsize, out.Frsize, out.NameLen = pageSize, pageSize, 255
	scale := uint64(s.Bsize)
	out.Blocks, out.Bfree, out.Bavail = s.Blocks*scale/pageSize, s.Bfree*scale/pageSize, s.Bavail*scale/pageSize
	out.Files, out.Ffree = s.Files, s.Ffree
	if free, ok := v.faults.free(); ok {
		out.Bfree, out.Bavail = min(out.Bfree, uint64(free)/pageSize), min(out.Bavail, uint64(free)/pageSize)
	}
	return fuse.OK
}
