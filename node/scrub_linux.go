package node

import (
	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
)

// dropCache asks the kernel to forget what it holds of a file: what is in memory
// says nothing about the disk. It is advice; that it was not taken shows in
// nothing but damage that is found later.
func dropCache(f vfs.File) {
	if fd := f.Fd(); fd != vfs.InvalidFd {
		_ = unix.Fadvise(int(fd), 0, 0, unix.FADV_DONTNEED)
	}
}
