package eventlog

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// CheckOptions says what Check reads, and whom it tells.
type CheckOptions struct {
	FS      vfs.FS
	Dir     string
	Through uint64 // position of the savepoint; what stands after it is not checked
	// Found is called with each damage, a *CorruptError, or ErrFormat for a
	// file of a later format.
	Found func(error)
	// Read is called with how many bytes have been checked, file by file; nil =
	// nothing. An error ends the check.
	Read func(bytes int64) error
}

// Check reads a log up to a savepoint, wholly, and goes on after damage with
// the next file: every checksum and digest, positions without a gap from 1, one
// log id and segment size, times and Raft indexes in order, and footers where
// they must be. It returns the sealed segments that are whole. Its error is one
// of reading. It changes nothing; the log may be open elsewhere.
func Check(o CheckOptions) ([]SegmentInfo, error) {
	c := checker{o: &o, next: 1}
	bases, _, err := directory{o.FS, o.Dir}.list()
	if err != nil {
		return nil, err
	}
	n, _ := slices.BinarySearch(bases, o.Through+1)
	for i, base := range bases[:n] {
		var s segment
		if i+1 < n {
			s, err = c.sealed(base)
		} else {
			s, err = c.last(base)
		}
		if c.tell(err) {
			return c.whole, err
		}
		c.follow(base, &s, err == nil)
		if o.Read != nil {
			if err := o.Read(c.read); err != nil {
				return c.whole, err
			}
		}
	}
	if n == 0 && o.Through > 0 {
		o.Found(&CorruptError{File: c.path(1), Reason: "the file with position 1 is missing"})
	}
	return c.whole, nil
}

// checker is a Check under way.
type checker struct {
	o     *CheckOptions
	next  uint64 // position that the next file must begin with; 0 = not known
	known *segmentHeader
	time  int64  // of the last frame
	index uint64 // of the last frame
	read  int64
	whole []SegmentInfo
}

func (c *checker) path(base uint64) string { return c.o.FS.PathJoin(c.o.Dir, SegmentName(base)) }

// tell passes damage on, and reports whether err is something else.
func (c *checker) tell(err error) (stop bool) {
	switch {
	case err == nil:
		return false
	case isCorrupt(err), errors.Is(err, ErrFormat):
		c.o.Found(err)
		return false
	}
	return true
}

// follow checks that a file goes on where the one before ended, as far as both
// could be read.
func (c *checker) follow(base uint64, s *segment, whole bool) {
	damage := func(file uint64, format string, args ...any) {
		c.o.Found(&CorruptError{File: c.path(file), Reason: fmt.Sprintf(format, args...)})
	}
	switch {
	case c.next != 0 && base > c.next:
		damage(c.next, "the file with position %d is missing", c.next)
	case c.next != 0 && base < c.next:
		damage(base, "the file before ends with position %d", c.next-1)
	case whole && (s.firstTime < c.time || s.firstIndex <= c.index):
		damage(base, "its first frame is of a time or an entry before the last one of the file before")
	}
	c.next = 0
	if whole {
		c.next, c.time, c.index = s.last+1, s.lastTime, s.lastIndex
	}
}

// open opens a file and checks that it is of the same log as those before.
func (c *checker) open(base uint64) (*file, error) {
	f, err := openFile(c.o.FS, c.path(base), base)
	if err != nil {
		return nil, err
	}
	h := f.header
	h.base = 0
	if c.known == nil {
		c.known = &h
	} else if *c.known != h {
		return nil, errors.Join(f.corrupt(0, formatError("log id or segment size is not that of the files before")), f.Close())
	}
	c.read += f.size
	return f, nil
}

// sealed checks a file that is followed by another one.
func (c *checker) sealed(base uint64) (segment, error) {
	f, err := c.open(base)
	if err != nil {
		return segment{}, err
	}
	defer f.Close()
	t, err := f.verify()
	if err != nil {
		return segment{}, err
	}
	s := sealedSegment(&t, f.size)
	c.whole = append(c.whole, s.info())
	return *s, nil
}

// last checks the file with the savepoint as far as that.
func (c *checker) last(base uint64) (segment, error) {
	f, err := c.open(base)
	if err != nil {
		return segment{}, err
	}
	defer f.Close()
	s := segment{base: base, last: base - 1, end: segmentHeaderSize}
	k := f.frames(f.size)
	defer k.release()
	var d decoder
	for s.last < c.o.Through {
		if k.off == k.limit {
			return s, k.damage(k.off, fmt.Sprintf("the log ends with position %d, the savepoint is at %d", s.last, c.o.Through))
		}
		at := k.off
		offsets, err := verifyFrame(k, &d, &s)
		if err != nil {
			if t, terr := f.trailer(); terr == nil && t.footer == at { // sealed, so another one followed
				err = &CorruptError{File: c.path(s.last + 1), Reason: fmt.Sprintf("the file with position %d is missing", s.last+1)}
			}
			return s, err
		}
		s.add(&k.frame, offsets)
	}
	if s.last != c.o.Through {
		return s, k.damage(k.start, fmt.Sprintf("savepoint at %d lies inside a frame", c.o.Through))
	}
	return s, nil
}
