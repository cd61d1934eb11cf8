package eventlog

import (
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// countingFS counts bytes that are read and files that are open, and spoils
// what it is given to write, as a vfs.File may.
type countingFS struct {
	vfs.FS
	read   atomic.Int64
	open   atomic.Int64
	opened atomic.Int64
	short  atomic.Bool // WriteAt leaves out a byte, without an error
}

type countingFile struct {
	vfs.File
	fs *countingFS
}

func (fs *countingFS) wrap(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	fs.open.Add(1)
	fs.opened.Add(1)
	return &countingFile{f, fs}, nil
}

func (fs *countingFS) Open(name string, o ...vfs.OpenOption) (vfs.File, error) {
	return fs.wrap(fs.FS.Open(name, o...))
}

func (fs *countingFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return fs.wrap(fs.FS.Create(name, c))
}

func (fs *countingFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return fs.wrap(fs.FS.OpenReadWrite(name, c, o...))
}

func (f *countingFile) Close() error {
	f.fs.open.Add(-1)
	return f.File.Close()
}

func (f *countingFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	f.fs.read.Add(int64(n))
	return n, err
}

func (f *countingFile) Write(p []byte) (int, error) {
	defer spoil(p)
	return f.File.Write(p)
}

func (f *countingFile) WriteAt(p []byte, off int64) (int, error) {
	defer spoil(p)
	if f.fs.short.Load() {
		return f.File.WriteAt(p[:len(p)-1], off)
	}
	return f.File.WriteAt(p, off)
}

func spoil(p []byte) {
	for i := range p {
		p[i] ^= 0x5a
	}
}
