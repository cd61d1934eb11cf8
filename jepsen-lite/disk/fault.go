//go:build linux

package disk

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Kind is what a Fault does.
type Kind int

const (
	// EIO fails operations with EIO and without effect. Unsynced bytes of a
	// file whose fsync failed are lost at the next PowerLoss, even when a later
	// fsync succeeds, unless they are written again.
	EIO Kind = iota + 1
	// NoSpace lets matching files grow by Fault.Free bytes, then fails writes
	// and allocations that would grow them with ENOSPC (a write that fits in
	// part is short). What truncates and removals free can be used again.
	NoSpace
	// Stall holds operations up, each for Fault.For, or, if that is zero, until
	// it is released. A process that is killed meanwhile does not wait; its
	// operation has no effect.
	Stall
	// Torn writes the sectors of about the first half of a write, then fails it
	// with EIO.
	Torn
)

// Ops is a set of operations.
type Ops int

const (
	Read  Ops = 1 << iota // of files
	Write                 // of files, also truncate and allocate
	Sync                  // fsync and fdatasync of files and directories
	Names                 // create, rename, link, unlink, mkdir, rmdir; the path is the new name's
)

// Fault is something wrong with the disk.
type Fault struct {
	Kind Kind
	// Ops that EIO and Stall concern; zero is all.
	Ops Ops
	// Glob chooses paths, relative to the mount, as path.Match does; without a
	// slash it is matched against the last element. Empty is all.
	Glob string
	Free int64         // of NoSpace, bytes
	For  time.Duration // of Stall
}

// active is a fault that is switched on.
type active struct {
	Fault
	free     atomic.Int64
	released chan struct{}
}

func (a *active) meets(op Ops, name string) bool {
	if a.Ops != 0 && a.Ops&op == 0 {
		return false
	}
	if a.Glob == "" {
		return true
	}
	if !strings.Contains(a.Glob, "/") {
		name = path.Base(name)
	}
	ok, _ := path.Match(a.Glob, name) // a bad pattern was refused
	return ok
}

// faults are those of one volume, and what they did.
type faults struct {
	failed, noSpace, stalled, torn, flipped atomic.Int64

	now atomic.Pointer[[]*active] // replaced as a whole, under mu

	mu     sync.Mutex
	power  chan struct{} // closed when the power fails: nothing waits any longer
	closed bool
}

func newFaults() *faults {
	f := &faults{power: make(chan struct{})}
	f.now.Store(&[]*active{})
	return f
}

// Inject switches a fault on. It is on until release is called, which may be
// done more than once, or Unmount. A fault that concerns reads makes the kernel
// forget what it has cached, so that the next reads meet it; it waits for
// reads under way.
func (d *Disk) Inject(f Fault) (release func(), err error) {
	if f.Kind < EIO || f.Kind > Torn {
		return nil, fmt.Errorf("inject: no kind of fault: %d", f.Kind)
	}
	if _, err := path.Match(f.Glob, ""); err != nil {
		return nil, fmt.Errorf("inject: glob %q: %w", f.Glob, err)
	}
	a := &active{Fault: f, released: make(chan struct{})}
	a.free.Store(f.Free)
	v := d.v
	v.faults.change(func(now []*active) []*active { return append(now, a) })
	if f.Kind == EIO || f.Kind == Stall {
		for _, n := range v.filesMeeting(a) {
			v.server.InodeNotify(n.id, 0, 0)
		}
	}
	d.o.Logger.Info("fault on", "dir", d.o.Dir, "fault", fmt.Sprintf("%+v", f))
	return sync.OnceFunc(func() {
		v.faults.change(func(now []*active) []*active {
			return slices.DeleteFunc(now, func(o *active) bool { return o == a })
		})
		close(a.released)
		d.o.Logger.Info("fault off", "dir", d.o.Dir, "fault", fmt.Sprintf("%+v", f))
	}), nil
}

func (v *volume) filesMeeting(a *active) (list []*node) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	for _, n := range v.nodes {
		if !n.dir() && !n.gone && a.meets(Read, n.path()) {
			list = append(list, n)
		}
	}
	return list
}

func (f *faults) change(to func([]*active) []*active) {
	f.mu.Lock()
	defer f.mu.Unlock()
	next := to(slices.Clone(*f.now.Load()))
	f.now.Store(&next)
}

// cutPower ends the operations that are held up.
func (f *faults) cutPower() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		close(f.power)
		f.power = make(chan struct{})
	}
}

// close ends them for good.
func (f *faults) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.closed = true
		close(f.power)
	}
	f.now.Store(&[]*active{})
}

// meet lets an operation of thread pid run into the faults that are on. The
// caller holds no lock, since it may take long. Any errno: it must not take place;
// ECANCELED: nobody is left to know.
func (f *faults) meet(op Ops, name func() string, pid uint32) (torn bool, errno unix.Errno) {
	now := *f.now.Load()
	if len(now) == 0 {
		return false, 0
	}
	at := name()
	for _, a := range now {
		if !a.meets(op, at) {
			continue
		}
		switch a.Kind {
		case Stall:
			f.stalled.Add(1)
			if !f.hold(a, pid) {
				return false, unix.ECANCELED
			}
		case EIO:
			f.failed.Add(1)
			return false, unix.EIO
		case Torn:
			torn = torn || op == Write
		}
	}
	return torn, 0
}

// hold waits as a says. False: the power failed, or the process was killed.
func (f *faults) hold(a *active, pid uint32) bool {
	f.mu.Lock()
	power, closed := f.power, f.closed
	f.mu.Unlock()
	if closed {
		return false
	}
	var over <-chan time.Time
	if a.For > 0 {
		t := time.NewTimer(a.For)
		defer t.Stop()
		over = t.C
	}
	// The kernel tells of signals, but of any: Go's runtime sends many, and an
	// operation on a disk is not cut short by them.
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for {
		select {
		case <-a.released:
			return true
		case <-over:
			return true
		case <-power:
			return false
		case <-poll.C:
			if killed(pid) {
				return false
			}
		}
	}
}

// killed says whether SIGKILL waits for a thread.
func killed(pid uint32) bool {
	status, err := os.ReadFile("/proc/" + strconv.FormatUint(uint64(pid), 10) + "/status")
	if err != nil {
		return errors.Is(err, os.ErrNotExist) && pid != 0
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		if name != "SigPnd" && name != "ShdPnd" {
			continue
		}
		set, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		if err == nil && set&(1<<(unix.SIGKILL-1)) != 0 {
			return true
		}
	}
	return false
}

// grow takes up to want bytes from the budgets for a file and returns how many
// there are.
func (f *faults) grow(name string, want int64) int64 {
	got := want
	for _, a := range *f.now.Load() {
		if a.Kind != NoSpace || want == 0 || !a.meets(Write, name) {
			continue
		}
		for {
			free := a.free.Load()
			take := min(got, max(0, free))
			if a.free.CompareAndSwap(free, free-take) {
				got = take
				break
			}
		}
	}
	if got < want {
		f.noSpace.Add(1)
	}
	return got
}

func (f *faults) giveBack(name string, n int64) {
	for _, a := range *f.now.Load() {
		if a.Kind == NoSpace && a.meets(Write, name) {
			a.free.Add(n)
		}
	}
}

// free is the smallest budget that concerns the whole disk, for statfs.
func (f *faults) free() (least int64, ok bool) {
	for _, a := range *f.now.Load() {
		if a.Kind == NoSpace && a.Glob == "" {
			if n := max(0, a.free.Load()); !ok || n < least {
				least, ok = n, true
			}
		}
	}
	return least, ok
}
