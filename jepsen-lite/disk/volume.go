//go:build linux

package disk

import (
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// volume is the file system without its mount. The names are in memory; the
// bytes of a file are in an object of the backing directory, which is named
// after the node and so survives renames and unlinks that may be undone.
type volume struct {
	fuse.RawFileSystem // refuses what is not here
	backing            string
	server             *fuse.Server
	faults             *faults

	written, syncs atomic.Int64

	// mu: names and the power change under Lock. What touches one file's bytes
	// holds RLock, and the file's own lock.
	mu      sync.RWMutex
	root    *node
	nodes   map[uint64]*node // all that the kernel, a name, a handle or an undo refers to
	last    uint64           // node id
	seq     uint64           // of the newest operation on names
	losses  int64
	lost    Loss
	lists   map[uint64][]entry // open directories
	listing uint64
}

// node is one file or directory. Unless said otherwise volume.mu guards it.
type node struct {
	id      uint64
	mode    uint32
	lookups atomic.Int64 // references of the kernel; falls under Lock only
	links   int          // names that are visible
	undo    int          // names that would come back
	handles int          // open files
	gone    bool         // by a power loss: only its handles are left

	// One place where it is to be found.
	parent *node
	name   string

	*file // nil for a directory

	entries map[string]*node // of a directory
	pending []*op            // of a directory, not synced, oldest first
	changed time.Time        // of a directory
}

func (n *node) dir() bool { return n.file == nil }

// path is relative to the mount, for globs and people.
func (n *node) path() string {
	if n.parent == nil {
		return n.name
	}
	return filepath.Join(n.parent.path(), n.name)
}

func newVolume(backing string) *volume {
	v := &volume{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		backing:       backing,
		faults:        newFaults(),
		nodes:         map[uint64]*node{},
		lists:         map[uint64][]entry{},
	}
	v.root = v.newDirLocked(unix.S_IFDIR | 0o755)
	v.root.links = 1
	return v
}

func (v *volume) newDirLocked(mode uint32) *node {
	v.last++
	n := &node{id: v.last, mode: mode, entries: map[string]*node{}, changed: time.Now()}
	v.nodes[n.id] = n
	return n
}

// newFileLocked makes a node; its object must exist before it is used.
func (v *volume) newFileLocked(mode uint32) *node {
	v.last++
	n := &node{id: v.last, mode: mode, file: newFile(v.object(v.last))}
	v.nodes[n.id] = n
	return n
}

func (v *volume) object(id uint64) string {
	return filepath.Join(v.backing, objectsName, strconv.FormatUint(id, 10))
}

// dropLocked lets go of a node that nothing can bring back.
func (v *volume) dropLocked(n *node) {
	if n.links == 0 && n.undo == 0 && n.handles == 0 {
		v.vanishLocked(n)
	}
}

// vanishLocked frees what a node holds, and forgets it once nobody can ask for it.
func (v *volume) vanishLocked(n *node) {
	if !n.gone {
		n.gone = true
		if n.dir() {
			v.commitLocked(n, v.seq)
		} else {
			v.faults.giveBack(n.path(), n.discard())
		}
	}
	if n.handles == 0 && n.lookups.Load() == 0 {
		delete(v.nodes, n.id)
	}
}

// op is one step on names that is kept or undone as a whole.
type op struct {
	seq     uint64
	changes []change
	done    bool
}

// change is a name's meaning before and after; nil is no such name.
type change struct {
	dir           *node
	name          string
	before, after *node
}

// applyLocked makes the changes visible and notes how to undo them.
func (v *volume) applyLocked(changes ...change) {
	v.seq++
	o := &op{seq: v.seq, changes: changes}
	now := time.Now()
	for i, c := range changes {
		c.dir.set(c.name, c.before, c.after)
		if c.before != nil {
			c.before.undo++
		}
		c.dir.changed = now
		if i == 0 || changes[i-1].dir != c.dir {
			c.dir.pending = append(c.dir.pending, o)
		}
	}
}

// set gives a name its meaning.
func (n *node) set(name string, before, after *node) {
	if before != nil {
		before.links--
	}
	if after == nil {
		delete(n.entries, name)
		return
	}
	n.entries[name] = after
	after.links++
	after.parent, after.name = n, name
}

// commitLocked makes the names of dir durable up to operation seq, and with a
// step that concerns another directory too all before it there.
func (v *volume) commitLocked(dir *node, seq uint64) {
	for len(dir.pending) > 0 && dir.pending[0].seq <= seq {
		o := dir.pending[0]
		dir.pending = dir.pending[1:]
		if o.done {
			continue
		}
		o.done = true
		for _, c := range o.changes {
			if c.dir != dir {
				v.commitLocked(c.dir, o.seq)
			}
			if c.before != nil {
				c.before.undo--
				v.dropLocked(c.before)
			}
		}
	}
}

// undoLocked takes an operation back. All later ones on its names must have been.
func (v *volume) undoLocked(o *op) {
	for i := len(o.changes) - 1; i >= 0; i-- {
		c := o.changes[i]
		c.dir.set(c.name, c.after, c.before)
		if c.before != nil {
			c.before.undo--
		}
	}
	o.done = true
}

// makeObject makes the empty object of a new file.
func (n *node) makeObject() error {
	f, err := os.OpenFile(n.object, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	n.f = f
	return nil
}
