package eventlog

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// What Open finds, with the savepoint's position P = Options.Through:
//
//	      sealed         sealed        holds P                      after P
//	+---------------+ +----------+ +-----------+ - - - - - + + - - - - - - - +
//	| header footer | |          | | frames    | frames?   | | frames?       | ...
//	+---------------+ +----------+ +-----------+ - - - - - + + - - - - - - - +
//	  must be intact and without gaps         P  torn, missing or whole: cut
//
// A segment with a later one that begins at or before P was sealed before the
// sync that made P durable, which covered its footer: so it must have one. The
// segment with P may have a footer that was not synced, intact or torn; P may
// end it, or stand before its end.

// file is a segment file that is being checked.
type file struct {
	vfs.File
	path   string
	size   int64
	header segmentHeader
}

// openFile opens a segment and checks its header. The caller closes it.
func openFile(fs vfs.FS, path string, base uint64) (*file, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	s := &file{File: f, path: path}
	if err := s.readHeader(base); err != nil {
		_ = f.Close()
		return nil, err
	}
	return s, nil
}

func (f *file) readHeader(base uint64) error {
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("stat %s: %w", f.path, err)
	}
	f.size = info.Size()
	var b [segmentHeaderSize]byte
	if err := readFull(f, b[:], 0); err != nil {
		return f.corrupt(0, err)
	}
	if f.header, err = decodeSegmentHeader(b[:]); err != nil {
		return f.corrupt(0, err)
	}
	if f.header.base != base {
		return f.corrupt(0, formatError("base position is not that of the file's name"))
	}
	return nil
}

// corrupt says which file err is about.
func (f *file) corrupt(off int64, err error) error {
	if err = corrupt(f.path, off, err); isCorrupt(err) {
		return err
	}
	return fmt.Errorf("%s: %w", f.path, err)
}

// trailer reads and checks the trailer.
func (f *file) trailer() (trailer, error) {
	off := f.size - trailerSize
	if off < segmentHeaderSize {
		return trailer{}, f.corrupt(f.size, formatError("no footer"))
	}
	var b [trailerSize]byte
	if err := readFull(f, b[:], off); err != nil {
		return trailer{}, f.corrupt(off, err)
	}
	t, err := decodeTrailer(b[:], f.size)
	if err == nil && t.first != f.header.base {
		err = formatError("footer is of another segment")
	}
	if err != nil {
		return trailer{}, f.corrupt(off, err)
	}
	return t, nil
}

// table reads the offsets of the footer and checks their CRC.
func (f *file) table(t *trailer) ([]byte, error) {
	b := make([]byte, f.size-trailerSize-t.footer)
	err := readFull(f, b, t.footer)
	if err == nil && crc(0, b) != t.tableCRC {
		err = formatError("CRC of the offsets does not match")
	}
	if err != nil {
		return nil, f.corrupt(t.footer, err)
	}
	return b, nil
}

// frames returns a walker over the frames up to limit.
func (f *file) frames(limit int64) *walker {
	return &walker{window: window{file: f}, path: f.path, off: segmentHeaderSize, limit: limit}
}

// recover reads what is on disk.
func (l *Log) recover() error {
	bases, left, err := l.dir.list()
	if err != nil {
		return err
	}
	through := l.options.Through
	n, _ := slices.BinarySearch(bases, through+1) // segments that begin at or before through
	next := uint64(1)
	l.todo = &cut{remove: left}
	for i, base := range bases[:n] {
		if base > next {
			return l.missing(next)
		}
		if base < next {
			return &CorruptError{File: l.path(base), Reason: fmt.Sprintf("the file before ends with position %d", next-1)}
		}
		if i+1 < n {
			err = l.recoverSealed(base)
		} else {
			err = l.recoverLast(base)
		}
		if err != nil {
			return err
		}
		next = l.segments[i].last + 1
	}
	if n == 0 && through > 0 {
		return l.missing(1)
	}
	for _, base := range bases[n:] {
		l.todo.remove = append(l.todo.remove, SegmentName(base))
		if err := l.recoverTail(base); err != nil {
			return err
		}
	}
	for _, s := range l.segments {
		l.bytes.Add(s.size)
	}
	return nil
}

func (l *Log) missing(base uint64) error {
	return &CorruptError{File: l.path(base), Reason: fmt.Sprintf("the file with position %d is missing", base)}
}

// open opens a segment that must belong to this log.
func (l *Log) open(base uint64) (*file, error) {
	f, err := openFile(l.dir.fs, l.path(base), base)
	if err != nil {
		return nil, err
	}
	h := f.header
	h.base = 0
	if known := l.identity.Load(); known == nil {
		l.identity.Store(&h)
	} else if *known != h {
		_ = f.Close()
		return nil, f.corrupt(0, formatError("log id or segment size is not that of the files before"))
	}
	return f, nil
}

// recoverSealed takes in a segment that is followed by another one which begins
// at or before P.
func (l *Log) recoverSealed(base uint64) error {
	f, err := l.open(base)
	if err != nil {
		return err
	}
	defer f.Close()
	t, err := f.trailer()
	if err != nil {
		return err
	}
	l.segments = append(l.segments, sealedSegment(&t, f.size))
	l.times = t.lastTime
	return nil
}

// recoverLast takes in the segment with P. Whether it is sealed is told by its
// frames: where they end, exactly the footer that belongs to them must stand.
// What merely looks like a footer at the end of the file may be the last
// event's data, which a client chose.
func (l *Log) recoverLast(base uint64) error {
	f, err := l.open(base)
	if err != nil {
		return err
	}
	defer f.Close()
	s, sum, err := l.scan(f)
	if err != nil {
		return err
	}
	l.segments = append(l.segments, s)
	l.times = s.lastTime
	if f.size > s.end {
		t := s.trailer(sum)
		footer := appendFooter(nil, &t, s.offsets)
		if ok, err := f.ends(s.end, footer); err != nil {
			return err
		} else if ok {
			s.seal(t.hash, int64(len(footer)))
			s.synced = s.size
			l.todo.footer = true
			return nil
		}
	}
	l.active, l.hash = s, sum
	l.todo.rewrite = f.size > s.end
	return nil
}

// ends reports whether the file holds b at off, and nothing after it.
func (f *file) ends(off int64, b []byte) (bool, error) {
	if f.size-off != int64(len(b)) {
		return false, nil
	}
	got := make([]byte, len(b))
	if err := readFull(f, got, off); err != nil {
		return false, f.corrupt(off, err)
	}
	return bytes.Equal(got, b), nil
}

// scan reads all frames of the segment with P and checks them. The segment and
// the hash that it returns end with P; what stands after it raises tailIndex.
func (l *Log) scan(f *file) (*segment, hash.Hash, error) {
	s := &segment{base: f.header.base, last: f.header.base - 1, end: segmentHeaderSize}
	sum := sha256.New()
	b := f.header.encode()
	sum.Write(b[:])
	k := f.frames(f.size)
	defer k.release()
	var offsets []uint32
	through := l.options.Through
	k.hash = sum
	for s.last < through {
		if k.off == k.limit {
			return nil, nil, k.damage(k.off, fmt.Sprintf("the log ends with position %d, the savepoint is at %d", s.last, through))
		}
		var err error
		if offsets, err = k.whole(s.last+1, max(l.times, s.lastTime), offsets[:0]); err != nil {
			var c *CorruptError
			if errors.As(err, &c) {
				c.Reason += fmt.Sprintf("; intact up to position %d, the savepoint is at %d", s.last, through)
			}
			return nil, nil, err
		}
		s.add(&k.frame, offsets)
	}
	if s.last != through {
		return nil, nil, k.damage(k.start, fmt.Sprintf("savepoint at %d lies inside a frame", through))
	}
	s.synced = s.size
	k.hash = nil
	return s, sum, l.tail(k, s.last+1, s.lastTime)
}

// recoverTail looks for intact frames in a segment that begins after P. They
// count even if something before them is lost: that they are there means that
// Raft had promised them.
func (l *Log) recoverTail(base uint64) error {
	f, err := openFile(l.dir.fs, l.path(base), base)
	if isCorrupt(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if known := l.identity.Load(); known != nil && known.logID != f.header.logID {
		return nil
	}
	k := f.frames(f.size)
	defer k.release()
	return l.tail(k, base, l.times)
}

// tail raises tailIndex by the frames from k.off on, up to the first that is
// not intact.
func (l *Log) tail(k *walker, next uint64, time int64) error {
	var offsets []uint32
	for k.off < k.limit {
		var err error
		if offsets, err = k.whole(next, time, offsets[:0]); isCorrupt(err) {
			return nil
		}
		if err != nil {
			return err
		}
		next, time = k.frame.last()+1, k.frame.time
		l.tailIndex = max(l.tailIndex, k.frame.index)
	}
	return nil
}

// whole reads the frame at k.off with all its records, which begins at position
// next and not before time. It appends the records' offsets, from the start of
// the frame. Payloads are checked by their CRCs, not by their digests.
func (k *walker) whole(next uint64, time int64, offsets []uint32) ([]uint32, error) {
	if err := k.enter(); err != nil {
		return offsets, err
	}
	if k.frame.first != next || k.frame.time < time {
		return offsets, k.damage(k.start, "frame does not follow the one before")
	}
	for k.left > 0 {
		offsets = append(offsets, uint32(k.off-k.start))
		at := k.off
		r, err := k.record()
		if err != nil {
			return offsets, err
		}
		position, t, err := place(r.header())
		if err != nil {
			return offsets, corrupt(k.path, at, err)
		}
		if position != next || t != k.frame.time {
			return offsets, k.damage(at, "record is not the next one of its frame")
		}
		next++
	}
	return offsets, nil
}
