package snapshot

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"os"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Everything here that is created, renamed or removed and must outlive a crash
// goes through this file. The rule: contents are synced before the name, and a
// name counts only once the directory that holds it is synced.

const (
	writeBuffer = 256 << 10
	// syncEvery bounds what the last fsync of a big file has to write.
	syncEvery = 8 << 20
	tmpSuffix = ".tmp"
)

// SyncDir makes the entries of dir durable: what was created, renamed or
// removed in it.
func SyncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return fmt.Errorf("open directory %s: %w", dir, err)
	}
	if err := d.Sync(); err != nil {
		_ = d.Close()
		return &syncError{fmt.Errorf("sync directory %s: %w", dir, err)}
	}
	if err := d.Close(); err != nil {
		return fmt.Errorf("close directory %s: %w", dir, err)
	}
	return nil
}

// MakeDir makes dir and those of its parents that are missing, all durable.
func MakeDir(fs vfs.FS, dir string, perm os.FileMode) error {
	var parents []string // of what is missing, from the lowest up to one that is there
	for path := dir; ; path = fs.PathDir(path) {
		_, err := fs.Stat(path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("stat %s: %w", path, err)
		}
		if err == nil || fs.PathDir(path) == path {
			break
		}
		parents = append(parents, fs.PathDir(path))
	}
	if err := fs.MkdirAll(dir, perm); err != nil {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	for _, parent := range parents {
		if err := SyncDir(fs, parent); err != nil {
			return err
		}
	}
	return nil
}

// SyncTree makes dir and everything below it durable. The entry of dir in its
// parent is the caller's to sync.
func SyncTree(fs vfs.FS, dir string) error {
	names, err := list(fs, dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		path := fs.PathJoin(dir, name)
		st, err := fs.Stat(path)
		if err != nil {
			return fmt.Errorf("stat %s: %w", path, err)
		}
		if st.IsDir() {
			err = SyncTree(fs, path)
		} else {
			err = syncFile(fs, path)
		}
		if err != nil {
			return err
		}
	}
	return SyncDir(fs, dir)
}

// ReplaceFile gives path the contents data, durably and at once: a crash leaves
// the old contents or the new. After an error it may be either.
func ReplaceFile(fs vfs.FS, path string, data []byte) error {
	tmp := path + tmpSuffix
	if err := writeFile(fs, tmp, data); err != nil {
		return err
	}
	return renameDurably(fs, tmp, path)
}

// renameDurably gives a complete file or folder the name under which it counts.
// After an error it may have it or not, and may lose it in a crash.
func renameDurably(fs vfs.FS, from, to string) error {
	if err := fs.Rename(from, to); err != nil {
		return &syncError{fmt.Errorf("rename %s: %w", from, err)}
	}
	if err := SyncDir(fs, fs.PathDir(to)); err != nil {
		return &syncError{err}
	}
	return nil
}

// writeFile creates path with data and syncs it, not its directory.
func writeFile(fs vfs.FS, path string, data []byte) error {
	w, err := newFileWriter(fs, path)
	if err != nil {
		return err
	}
	if err := w.write(data); err != nil {
		w.abort()
		return err
	}
	return w.close()
}

func syncFile(fs vfs.FS, path string) error {
	f, err := fs.Open(path)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return &syncError{fmt.Errorf("sync %s: %w", path, err)}
	}
	return nil
}

// copyFile copies a whole file and syncs the copy, not its directory.
func copyFile(fs vfs.FS, from, to string) error {
	return CopyPrefix(fs, from, to, math.MaxInt64)
}

// CopyPrefix copies the first size bytes of a file, which may be shorter, and
// syncs the copy, not its directory.
func CopyPrefix(fs vfs.FS, from, to string, size int64) error {
	f, err := fs.Open(from, vfs.SequentialReadsOption)
	if err != nil {
		return fmt.Errorf("open %s: %w", from, err)
	}
	defer f.Close()
	w, err := newFileWriter(fs, to)
	if err != nil {
		return err
	}
	r := io.LimitReader(f, size)
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		if werr := w.write(buf[:n]); werr != nil {
			w.abort()
			return werr
		}
		if err == io.EOF {
			return w.close()
		}
		if err != nil {
			w.abort()
			return fmt.Errorf("read %s: %w", from, err)
		}
	}
}

// HashPrefix returns the hex SHA-256 of the first size bytes of a file. A shorter
// file is a *CorruptError.
func HashPrefix(fs vfs.FS, path string, size int64) (string, error) {
	return hashPrefix(fs, path, size, false)
}

// hashPrefix returns the hex SHA-256 of the first size bytes of a file; with
// sync it also makes the file durable. A shorter file is an error.
func hashPrefix(fs vfs.FS, path string, size int64, sync bool) (string, error) {
	f, err := fs.Open(path, vfs.SequentialReadsOption)
	if err != nil {
		return "", fmt.Errorf("open %s: %w", path, err)
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.CopyBuffer(sum, io.LimitReader(f, size), make([]byte, 64<<10))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	if n < size {
		return "", &CorruptError{path, fmt.Sprintf("it ends at %d of %d bytes", n, size)}
	}
	if sync {
		if err := f.Sync(); err != nil {
			return "", &syncError{fmt.Errorf("sync %s: %w", path, err)}
		}
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// list returns the sorted names in dir.
func list(fs vfs.FS, dir string) ([]string, error) {
	names, err := fs.List(dir)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	slices.Sort(names)
	return names, nil
}

// listIfAny is list, and empty when dir does not exist.
func listIfAny(fs vfs.FS, dir string) ([]string, error) {
	names, err := list(fs, dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return names, err
}

// readFile returns the contents of a file of at most limit bytes.
func readFile(fs vfs.FS, path string, limit int64) ([]byte, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if int64(len(b)) > limit {
		return nil, &CorruptError{path, fmt.Sprintf("it is larger than %d bytes", limit)}
	}
	return b, nil
}

// fileWriter writes one new file and sums it up. It has its own buffer because
// a vfs.File may change the bytes it is given. One goroutine.
type fileWriter struct {
	f        vfs.File
	path     string
	buf      []byte
	sum      hash.Hash
	unsynced int64
}

func newFileWriter(fs vfs.FS, path string) (*fileWriter, error) {
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", path, err)
	}
	return &fileWriter{f: f, path: path, sum: sha256.New()}, nil
}

func (w *fileWriter) write(p []byte) error {
	w.sum.Write(p)
	for len(p) > 0 {
		n := min(len(p), writeBuffer-len(w.buf))
		w.buf = append(w.buf, p[:n]...)
		p = p[n:]
		if len(w.buf) == writeBuffer {
			if err := w.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *fileWriter) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	if _, err := w.f.Write(w.buf); err != nil {
		return fmt.Errorf("write %s: %w", w.path, err)
	}
	w.unsynced += int64(len(w.buf))
	w.buf = w.buf[:0]
	if w.unsynced < syncEvery {
		return nil
	}
	w.unsynced = 0
	if err := w.f.SyncData(); err != nil {
		return &syncError{fmt.Errorf("sync %s: %w", w.path, err)}
	}
	return nil
}

// close makes the contents durable; the name becomes so with the directory.
func (w *fileWriter) close() error {
	err := w.flush()
	if err == nil {
		if err = w.f.Sync(); err != nil {
			err = &syncError{fmt.Errorf("sync %s: %w", w.path, err)}
		}
	}
	if cerr := w.f.Close(); err == nil && cerr != nil {
		err = fmt.Errorf("close %s: %w", w.path, cerr)
	}
	return err
}

// abort closes a file that will be removed.
func (w *fileWriter) abort() { _ = w.f.Close() }

func (w *fileWriter) hash() string { return hex.EncodeToString(w.sum.Sum(nil)) }

// partWriter goes on with a file that was begun before. One goroutine.
type partWriter struct {
	f        vfs.File
	path     string
	offset   int64
	unsynced int64
}

// openPart opens a file to go on where it ends, and returns where that is. One
// that is longer than size is begun anew.
func openPart(fs vfs.FS, path string, size int64) (*partWriter, int64, error) {
	f, err := fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	if errors.Is(err, os.ErrNotExist) {
		f, err = fs.Create(path, vfs.WriteCategoryUnspecified)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("open %s: %w", path, err)
	}
	st, err := f.Stat()
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("stat %s: %w", path, err), f.Close())
	}
	if st.Size() > size {
		if f, err = anew(fs, f, path); err != nil {
			return nil, 0, err
		}
		return &partWriter{f: f, path: path}, 0, nil
	}
	return &partWriter{f: f, path: path, offset: st.Size()}, st.Size(), nil
}

func anew(fs vfs.FS, old vfs.File, path string) (vfs.File, error) {
	if err := old.Close(); err != nil {
		return nil, fmt.Errorf("close %s: %w", path, err)
	}
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", path, err)
	}
	return f, nil
}

// copy appends what r gives, and tells of each piece.
func (w *partWriter) copy(r io.Reader, tell func(n int64)) error {
	buf := make([]byte, writeBuffer)
	for {
		n, err := io.ReadFull(r, buf)
		if n > 0 {
			if _, err := w.f.WriteAt(buf[:n], w.offset); err != nil {
				return fmt.Errorf("write %s: %w", w.path, err)
			}
			w.offset += int64(n)
			tell(int64(n))
			if w.unsynced += int64(n); w.unsynced >= syncEvery {
				w.unsynced = 0
				if err := w.f.SyncData(); err != nil {
					return &syncError{fmt.Errorf("sync %s: %w", w.path, err)}
				}
			}
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// close makes what was written durable.
func (w *partWriter) close() error {
	err := w.f.Sync()
	if err != nil {
		err = &syncError{fmt.Errorf("sync %s: %w", w.path, err)}
	}
	if cerr := w.f.Close(); err == nil && cerr != nil {
		err = fmt.Errorf("close %s: %w", w.path, cerr)
	}
	return err
}
