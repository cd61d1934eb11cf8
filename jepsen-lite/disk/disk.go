//go:build linux

// Package disk is a disk that can lose power: a FUSE file system (Linux) that
// stands under the data directory of one node and, told to, forgets what was
// not fsynced. It can also fail, hang, fill up, tear a write and rot.
//
// What an operation changed is visible at once. It is durable once it has been
// synced, in the strict reading of POSIX: fsync and fdatasync of a file cover
// its bytes and size, never its name. Names (create, rename, link, unlink,
// mkdir, rmdir) are covered by fsync of their directory; a file moved from one
// directory to another has two halves, each covered by its own directory. A
// directory moved so is one step, durable with either of them and with all that
// came before it in both, since no journal tears that.
//
// Disk.PowerLoss makes the state that a machine would boot with. See there for
// what may be kept of the rest. What it does not model: a version of a sector
// that was overwritten again before any fsync is never the one that survives;
// what a process writes through a shared map counts from when the kernel writes
// it back; sync and syncfs do nothing. Modes and times are never rolled back.
//
// A process that is killed loses nothing: its writes are in the file system.
// Locks are the kernel's. Symbolic links, devices, extended attributes and
// punched holes are refused.
//
// The harness mounts one Disk a node. All methods of Disk may be called
// concurrently. Disks share nothing.
package disk

import (
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// unmountWait bounds how long Unmount waits for requests under way.
const unmountWait = 10 * time.Second

// Options says where a Disk stands.
type Options struct {
	// Dir is the mount point, a directory that exists.
	Dir string
	// Backing is a directory on a real disk, made if it is not there. While
	// mounted it holds the files' bytes without their names. Mount takes up
	// what is in its folder "tree", as synced, and Unmount puts it back there,
	// so that a run's files can be looked at and mounted again.
	Backing string
	// Logger gets power losses and faults. Required.
	Logger *slog.Logger
}

// Disk is one mounted file system.
type Disk struct {
	o      Options
	v      *volume
	server *fuse.Server
	served chan struct{} // closed when the last request has been answered
	end    func() error  // Unmount, once
}

// Mount mounts the file system at Options.Dir. It needs the right to mount, as
// root of the machine or of a user namespace with a mount namespace of its own.
func Mount(o Options) (*Disk, error) {
	if o.Dir == "" || o.Backing == "" || o.Logger == nil {
		return nil, errors.New("mount disk: Dir, Backing and Logger are required")
	}
	v, err := openVolume(o.Backing)
	if err != nil {
		return nil, fmt.Errorf("mount disk: %w", err)
	}
	d := &Disk{o: o, v: v, served: make(chan struct{})}
	d.end = sync.OnceValue(d.unmount)
	if err := d.attach(); err != nil {
		return nil, errors.Join(fmt.Errorf("mount disk at %s: %w", o.Dir, err), v.putBack())
	}
	return d, nil
}

// attach mounts by hand: the library would leave /dev/fuse open in every child
// process, and a node that holds it would keep the mount alive without us.
func (d *Disk) attach() error {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/fuse: %w", err)
	}
	const maxWrite = 128 << 10
	data := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d,max_read=%d", fd, os.Geteuid(), os.Getegid(), maxWrite)
	if err := unix.Mount("cairn-disk", d.o.Dir, "fuse.cairn-disk", unix.MS_NOSUID|unix.MS_NODEV, data); err != nil {
		return errors.Join(fmt.Errorf("mount: %w", err), unix.Close(fd))
	}
	d.server, err = fuse.NewServer(d.v, fmt.Sprintf("/dev/fd/%d", fd), &fuse.MountOptions{
		MaxWrite:                 maxWrite,
		DisableXAttrs:            true,
		DisableReadDirPlus:       true,
		ExplicitDataCacheControl: true,
		Logger:                   log.New(io.Discard, "", 0),
	})
	if err != nil {
		return errors.Join(err, unix.Unmount(d.o.Dir, unix.MNT_FORCE|unix.MNT_DETACH))
	}
	d.v.server = d.server
	go func() {
		defer close(d.served)
		d.server.Serve()
	}()
	if err := refusePolling(d.o.Dir); err != nil {
		return errors.Join(err, d.detach())
	}
	return nil
}

// refusePolling makes the kernel ask once whether files can be polled. Were the
// first to ask this process's own runtime, it could hold the last thread that
// would have answered. The server knows the name.
func refusePolling(dir string) error {
	fd, err := unix.Open(filepath.Join(dir, ".go-fuse-epoll-hack"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return errors.Join(err, unix.Close(fd))
}

// Unmount ends the file system, also under processes that still use it (they
// see ENOTCONN), lets go of everything that hangs, and puts the files back in
// their places in Backing/tree, unsynced changes included. It does not hang. Later calls return what the first
// did.
func (d *Disk) Unmount() error { return d.end() }

func (d *Disk) unmount() error {
	if err := d.detach(); err != nil {
		return fmt.Errorf("unmount %s: %w", d.o.Dir, err)
	}
	if err := d.v.putBack(); err != nil {
		return fmt.Errorf("put files of %s back: %w", d.o.Dir, err)
	}
	return nil
}

func (d *Disk) detach() error {
	d.v.faults.close()
	// By force, since a copy of the mount in another mount namespace would keep
	// the connection open otherwise. EINVAL: no longer mounted, which will do.
	err := unix.Unmount(d.o.Dir, unix.MNT_FORCE|unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.EINVAL) {
		return err
	}
	select {
	case <-d.served:
		return nil
	case <-time.After(unmountWait):
		return fmt.Errorf("requests still under way after %v", unmountWait)
	}
}

// Counters says what a Disk has done since it was mounted.
type Counters struct {
	BytesWritten int64 // by the nodes, after faults
	Syncs        int64 // successful fsyncs of files and directories
	PowerLosses  int64
	Lost         Loss // by all power losses together
	// How often a fault bit: operations that failed with EIO, failed with
	// ENOSPC or came out short for it, were held up, and were torn; bits flipped.
	Failed, NoSpace, Stalled, Torn, Flipped int64
}

// Counters returns the counts up to now.
func (d *Disk) Counters() Counters {
	v := d.v
	v.mu.RLock()
	lost, losses := v.lost, v.losses
	v.mu.RUnlock()
	f := v.faults
	return Counters{
		BytesWritten: v.written.Load(), Syncs: v.syncs.Load(), PowerLosses: losses, Lost: lost,
		Failed: f.failed.Load(), NoSpace: f.noSpace.Load(), Stalled: f.stalled.Load(), Torn: f.torn.Load(),
		Flipped: f.flipped.Load(),
	}
}
