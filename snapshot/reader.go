package snapshot

import (
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// reader yields a full stream straight from the files. It opens one at a time:
// a log may have more segments than a process may open files.
type reader struct {
	store *Store
	kept  *kept

	head  []byte // what is left of head and manifest
	parts []part // the first one is open if file is not nil
	file  vfs.File
	left  int64 // of the open file

	err    error
	closed bool
}

// newReader checks that every file is there at its length, so that most damage
// shows before a byte has been sent.
func (s *Store) newReader(k *kept) (*reader, error) {
	logDir := s.fs.PathJoin(s.gens.Path(k.manifest.Generation), logName)
	r := &reader{store: s, kept: k, parts: k.manifest.files(s.fs, logDir, s.fs.PathJoin(k.path, stateName))}
	for _, p := range r.parts {
		if err := checkSize(s.fs, p); err != nil {
			return nil, err
		}
	}
	var err error
	r.head, err = appendStreamHead(nil, kindFull, k.encoded)
	return r, err
}

// Read fails for good at the first file that cannot be read.
func (r *reader) Read(p []byte) (int, error) {
	if r.closed {
		return 0, errors.New("read snapshot: closed")
	}
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.read(p)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("read snapshot %s: %w", r.kept.id, err)
	}
	r.err = err
	return n, err
}

func (r *reader) read(p []byte) (int, error) {
	if len(r.head) > 0 {
		n := copy(p, r.head)
		r.head = r.head[n:]
		return n, nil
	}
	for r.left == 0 {
		if err := r.next(); err != nil {
			return 0, err
		}
	}
	n, err := r.file.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	if err == io.EOF && r.left > 0 {
		return n, &CorruptError{r.parts[0].path, fmt.Sprintf("it ends %d bytes before its snapshot says", r.left)}
	}
	if err == io.EOF {
		err = nil
	}
	return n, err
}

// next closes the file that is open, if any, and opens the one after it.
func (r *reader) next() error {
	if r.file != nil {
		err := r.file.Close()
		r.file, r.parts = nil, r.parts[1:]
		if err != nil {
			return err
		}
	}
	if len(r.parts) == 0 {
		return io.EOF
	}
	f, err := r.store.fs.Open(r.parts[0].path, vfs.SequentialReadsOption)
	if err != nil {
		return err
	}
	r.file, r.left = f, r.parts[0].size
	return nil
}

// Close lets go of the snapshot; the last reader of a superseded one removes it.
func (r *reader) Close() error {
	if r.closed {
		return nil
	}
	r.closed = true
	var err error
	if r.file != nil {
		err = r.file.Close()
	}
	if rerr := r.store.release(r.kept); rerr != nil {
		r.store.log.Warn("superseded snapshot not removed", "id", r.kept.id, "error", rerr)
	}
	return err
}
