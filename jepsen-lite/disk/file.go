//go:build linux

package disk

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"
)

const (
	sectorSize = 512  // what a disk writes whole
	pageSize   = 4096 // what a kernel writes back together
	sectors    = pageSize / sectorSize
)

// file is the bytes of one file: the object has what is visible, pages what the
// disk had before. mu guards all of it except object.
type file struct {
	mu       sync.RWMutex
	object   string
	f        *os.File // nil while nobody has it open
	size     int64
	alloc    int64 // bytes taken from the disk: the size, and what was allocated beyond
	modified time.Time

	synced int64 // the durable size
	low    int64 // the smallest size since then, ≤ synced: what was cut off is durable until the next sync
	pages  map[int64]*page
}

// page is what may be lost of pageSize bytes. Its masks have a bit a sector.
type page struct {
	dirty  uint8  // written since the last sync
	doomed uint8  // written before an fsync that failed: lost unless written again
	old    []byte // durable content; zeros follow
}

func newFile(object string) *file {
	return &file{object: object, modified: time.Now(), pages: map[int64]*page{}}
}

// open opens the object; close may be called more than once.
func (f *file) open() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.openLocked()
}

func (f *file) openLocked() error {
	if f.f != nil {
		return nil
	}
	o, err := os.OpenFile(f.object, os.O_RDWR, 0)
	f.f = o
	return err
}

func (f *file) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closeLocked()
}

func (f *file) closeLocked() {
	if f.f != nil {
		f.f.Close() // nothing to lose: the object is not what is durable
		f.f = nil
	}
}

// discard removes the object and returns what it had allocated.
func (f *file) discard() (freed int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closeLocked()
	_ = os.Remove(f.object) // of no name: it only takes space until Unmount
	f.pages = map[int64]*page{}
	return f.alloc
}

// read reads visible bytes, fewer only at the end.
func (f *file) read(b []byte, off int64) (int, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.f == nil {
		return 0, os.ErrClosed
	}
	n, err := f.f.ReadAt(b, off)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// writeLocked makes b visible at off. The object is open.
func (f *file) writeLocked(b []byte, off int64) (int, error) {
	end := off + int64(len(b))
	if err := f.keepOldLocked(off, end); err != nil {
		return 0, err
	}
	n, err := f.f.WriteAt(b, off)
	end = off + int64(n)
	for at := off &^ (sectorSize - 1); at < end; at += sectorSize {
		p := f.pages[at/pageSize]
		p.dirty |= 1<<(at%pageSize/sectorSize) | p.doomed
		p.doomed = 0 // a page is written back whole
	}
	f.size = max(f.size, end)
	f.alloc = max(f.alloc, end)
	f.modified = time.Now()
	return n, err
}

// keepOldLocked notes what the disk has of [from, to) before it changes.
func (f *file) keepOldLocked(from, to int64) error {
	for i := from / pageSize; i*pageSize < to; i++ {
		if f.pages[i] != nil {
			continue
		}
		p := &page{}
		if n := min(pageSize, f.synced-i*pageSize); n > 0 {
			p.old = make([]byte, n)
			if _, err := f.f.ReadAt(p.old, i*pageSize); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
		}
		f.pages[i] = p
	}
	return nil
}

// truncateLocked sets the visible size. The object is open.
func (f *file) truncateLocked(size int64) error {
	if size < f.synced {
		if err := f.keepOldLocked(size, min(f.size, f.synced)); err != nil {
			return err
		}
	}
	if err := f.f.Truncate(size); err != nil {
		return err
	}
	for i, p := range f.pages {
		if i*pageSize >= size {
			p.dirty, p.doomed = 0, 0 // cut off, whatever was written there
		}
	}
	f.size, f.low = size, min(f.low, size)
	f.alloc = size
	f.modified = time.Now()
	return nil
}

// sync makes the file durable as it is, but for what an earlier sync lost.
func (f *file) sync() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, p := range f.pages {
		if p.doomed == 0 {
			delete(f.pages, i)
			continue
		}
		now, err := f.readPageLocked(i)
		if err != nil {
			return err
		}
		old := p.before(i, f.low)
		for s := range sectors {
			if p.doomed&(1<<s) != 0 {
				copy(now[s*sectorSize:(s+1)*sectorSize], old[s*sectorSize:])
			}
		}
		p.old, p.dirty = now, 0
	}
	f.synced, f.low = f.size, f.size
	return nil
}

// doom is what a kernel makes of a failed fsync: the pages count as clean, so
// that the next fsync succeeds without them.
func (f *file) doom() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.pages {
		p.doomed |= p.dirty
		p.dirty = 0
	}
}

// readPageLocked returns the visible page i, zeros after its end.
func (f *file) readPageLocked(i int64) ([]byte, error) {
	b := make([]byte, pageSize)
	if _, err := f.f.ReadAt(b, i*pageSize); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b, nil
}

// before returns the durable page i when all from low on was cut off.
func (p *page) before(i, low int64) []byte {
	b := make([]byte, pageSize)
	copy(b, p.old[:min(int64(len(p.old)), max(0, low-i*pageSize))])
	return b
}

// lostBytes counts the bytes of a page's sectors that are in the visible file.
func (f *file) lostBytes(i int64, mask uint8) (n int64) {
	for s := range int64(sectors) {
		if mask&(1<<s) != 0 {
			n += max(0, min(sectorSize, f.size-i*pageSize-s*sectorSize))
		}
	}
	return n
}
