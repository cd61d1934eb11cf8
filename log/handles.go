package eventlog

import (
	"container/list"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// idleHandles is how many files stay open that nobody reads.
const idleHandles = 128

// handles holds the segment files that are open for reading. A log may have
// tens of thousands of segments, so those that are not in use are closed, least
// recently used first. A file in use is never closed.
type handles struct {
	dir   directory
	limit int

	mu     sync.Mutex
	open   map[uint64]*handle // by base
	idle   list.List          // of *handle with refs == 0, the one used last at the back
	drops  uint64             // calls of drop
	closed bool
}

type handle struct {
	base uint64
	file vfs.File
	// refs, idle and dropped are guarded by handles.mu.
	refs    int
	idle    *list.Element // nil while refs > 0
	dropped bool          // no longer in handles.open: close it when refs is 0
}

func newHandles(d directory, limit int) *handles {
	return &handles{dir: d, limit: limit, open: make(map[uint64]*handle)}
}

// acquire returns the open file of a segment. It stays open until release.
func (c *handles) acquire(base uint64) (*handle, error) {
	for {
		h, drops, err := c.lookup(base)
		if h != nil || err != nil {
			return h, err
		}
		// Opened without the lock: one slow open must not stop other readers.
		f, err := c.dir.fs.Open(c.dir.join(SegmentName(base)))
		if err != nil {
			return nil, err
		}
		if h, err = c.adoptSince(drops, base, f); h != nil || err != nil {
			return h, err
		}
	}
}

// lookup returns the file if it is open, and how many drops there were.
func (c *handles) lookup(base uint64) (*handle, uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, 0, ErrClosed
	}
	h := c.open[base]
	if h != nil {
		c.useLocked(h)
	}
	return h, c.drops, nil
}

// adoptSince is adopt, unless there was a drop meanwhile: f may be the file whose
// place another one has taken. Then it returns nothing, and f is closed.
func (c *handles) adoptSince(drops, base uint64, f vfs.File) (*handle, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.drops != drops {
		return nil, f.Close()
	}
	return c.adoptLocked(base, f)
}

// adopt takes over f, an open file of the segment, and returns a handle in use
// of that segment; f is closed if there is one already.
func (c *handles) adopt(base uint64, f vfs.File) (*handle, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.adoptLocked(base, f)
}

func (c *handles) adoptLocked(base uint64, f vfs.File) (*handle, error) {
	h := c.open[base]
	if c.closed || h != nil {
		if err := f.Close(); err != nil {
			return nil, err
		}
		if c.closed {
			return nil, ErrClosed
		}
		c.useLocked(h)
		return h, nil
	}
	h = &handle{base: base, file: f, refs: 1}
	c.open[base] = h
	return h, nil
}

func (c *handles) useLocked(h *handle) {
	if h.idle != nil {
		c.idle.Remove(h.idle)
		h.idle = nil
	}
	h.refs++
}

// release ends one use. What closing a file that was only read reports is of no
// use to anyone.
func (c *handles) release(h *handle) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h.refs--; h.refs > 0 {
		return
	}
	if h.dropped {
		_ = h.file.Close()
		return
	}
	h.idle = c.idle.PushBack(h)
	for c.idle.Len() > c.limit {
		c.dropLocked(c.idle.Front().Value.(*handle))
	}
}

// drop forgets the file of a segment, because another one takes its place.
func (c *handles) drop(base uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drops++
	if h := c.open[base]; h != nil {
		c.dropLocked(h)
	}
}

func (c *handles) dropLocked(h *handle) {
	delete(c.open, h.base)
	h.dropped = true
	if h.idle != nil {
		c.idle.Remove(h.idle)
		h.idle = nil
		_ = h.file.Close()
	}
}

// close closes all files, those in use as soon as they are released.
func (c *handles) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, h := range c.open {
		c.dropLocked(h)
	}
}

// segmentReader reads one segment through the handles: it keeps no file open
// between two reads.
type segmentReader struct {
	handles *handles
	base    uint64
}

func (r segmentReader) ReadAt(p []byte, off int64) (int, error) {
	h, err := r.handles.acquire(r.base)
	if err != nil {
		return 0, err
	}
	defer r.handles.release(h)
	return h.file.ReadAt(p, off)
}
