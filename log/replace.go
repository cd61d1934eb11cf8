package eventlog

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// VerifySealed reads a sealed segment of the log wholly, as VerifySegment does,
// through another view of the same file system, which may be a slow one. A file
// that is whole but not the one that was sealed is damage too.
func (l *Log) VerifySealed(fs vfs.FS, name string) error {
	want, err := l.sealedInfo(name)
	if err != nil {
		return err
	}
	return verifyAs(fs, l.path(want.Base), want)
}

// Replace puts the file at path, which lies on the same file system, in the
// place of a sealed, durable segment that is damaged. It must be that segment,
// whole and synced; it is verified first. Readers that have the damaged file
// open go on with it until they are done.
func (l *Log) Replace(name, path string) error {
	want, err := l.sealedInfo(name)
	if err != nil {
		return err
	}
	fs := l.dir.fs
	if err := verifyAs(fs, path, want); err != nil {
		return err
	}
	if err := fs.Rename(path, l.path(want.Base)); err != nil {
		return fmt.Errorf("put %s in place: %w", name, err)
	}
	l.handles.drop(want.Base)
	if err := l.dir.sync(); err != nil {
		return l.poison(err)
	}
	return nil
}

// PrefixTo checks a segment as VerifySegment does, but only up to the frame that
// ends with a position, and returns how many bytes that is. Damage before, or a
// frame that goes on after the position, is a *CorruptError.
func PrefixTo(fs vfs.FS, path string, position uint64) (size int64, err error) {
	base, ok := parseSegmentName(fs.PathBase(path))
	if !ok {
		return 0, &CorruptError{File: path, Reason: "not the name of a segment"}
	}
	f, err := openFile(fs, path, base)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	s := segment{base: base, last: base - 1, end: segmentHeaderSize}
	k := f.frames(f.size)
	defer k.release()
	var d decoder
	for s.last < position {
		offsets, err := verifyFrame(k, &d, &s)
		if err != nil {
			return 0, err
		}
		s.add(&k.frame, offsets)
	}
	if s.last != position {
		return 0, k.damage(k.start, fmt.Sprintf("position %d does not end a frame", position))
	}
	return s.end, nil
}

// sealedInfo describes a sealed segment whose bytes are all durable.
func (l *Log) sealedInfo(name string) (SegmentInfo, error) {
	base, ok := parseSegmentName(name)
	if !ok {
		return SegmentInfo{}, fmt.Errorf("segment %q: %w", name, ErrNotFound)
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	s := l.findLocked(base)
	if s == nil || s.base != base || !s.sealed || s.synced < s.size {
		return SegmentInfo{}, fmt.Errorf("segment %s is not sealed: %w", name, ErrNotFound)
	}
	return s.info(), nil
}

// verifyAs checks a file that must be a certain segment, under whatever name.
func verifyAs(fs vfs.FS, path string, want SegmentInfo) error {
	have, err := VerifySegment(fs, path)
	if err != nil {
		return err
	}
	if have != want {
		return &CorruptError{File: path, Reason: "it is whole, but not the segment that was sealed"}
	}
	return nil
}
