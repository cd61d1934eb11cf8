package eventlog

import (
	"encoding/binary"

	"cairn/bug"
	"cairn/event"
)

// Scanner reads events in the order of their positions, or against it. It
// belongs to one goroutine.
//
//	s := log.Scan(from)
//	defer s.Close()
//	for s.Next() {
//		use(s.Event())
//	}
//	return s.Err()
type Scanner struct {
	log    *Log
	back   bool
	frames bool   // begins at a frame, not at a record
	next   uint64 // position of the event that Next is to read

	base     uint64 // of the segment it is in; 0 = none
	readable uint64 // upwards: up to here it can read in this segment without asking the log again
	walker   walker // upwards
	table    table  // downwards

	decoder decoder
	raw     rawRecord
	event   event.Event
	err     error
	closed  bool
}

// textBlock is how many bytes of texts the events of a scan share at most: about
// ten events, so that memory is not asked for with each.
const textBlock = 2 << 10

// Scan returns a Scanner that reads upwards, the event at position from first.
func (l *Log) Scan(from uint64) *Scanner {
	return &Scanner{log: l, next: max(from, 1), decoder: decoder{block: textBlock}}
}

// ScanBack returns a Scanner that reads downwards to position 1, the event at
// position from first, or that at Last if from is beyond it.
func (l *Log) ScanBack(from uint64) *Scanner {
	return &Scanner{log: l, back: true, next: min(from, l.Last()), decoder: decoder{block: textBlock}}
}

// Next reads the next event, and reports whether there is one. Upwards it is
// false at the end of the log; a later call goes on when more was appended.
// After an error it stays false.
func (s *Scanner) Next() bool {
	if s.err != nil || s.closed {
		return false
	}
	var ok bool
	if s.back {
		ok, s.err = s.down()
	} else {
		ok, s.err = s.up()
	}
	if !ok {
		s.Release()
	}
	return ok
}

// Event returns the event that Next has read. It is good until the next call of
// Next, Release or Close, which use the memory of Data, Meta and Tags again; its
// strings stay as they are, but one that is kept keeps textBlock bytes with it.
func (s *Scanner) Event() *event.Event { return &s.event }

// Header returns the record header of the event that Next has read, good as
// long as Event is.
func (s *Scanner) Header() []byte { return s.raw.header() }

// Err returns what went wrong, a *CorruptError for damage; nil at the end.
func (s *Scanner) Err() error { return s.err }

// Release gives back the memory that was read ahead, for one who does not know
// when he will call Next again.
func (s *Scanner) Release() {
	s.walker.release()
	s.table.window.release()
	s.raw, s.event.Data, s.event.Meta = rawRecord{}, nil, nil
}

// Close ends the scan.
func (s *Scanner) Close() {
	s.closed = true
	s.Release()
}

// up reads the event at s.next, going upwards.
func (s *Scanner) up() (bool, error) {
	if s.next > s.readable {
		if ok, err := s.extend(); !ok {
			return false, err
		}
	}
	k := &s.walker
	if k.left == 0 {
		frame, err := k.atFrame()
		if err == nil && frame {
			err = s.enter()
		}
		if err != nil {
			return false, err
		}
	}
	at := k.off
	r, err := k.record()
	if err != nil {
		return false, err
	}
	if err := s.take(r); err != nil {
		return false, corrupt(k.path, at, err)
	}
	s.next++
	return true, nil
}

// enter reads a frame header. A frame becomes readable as a whole, so one that
// goes on after what is readable would never be checked to its end.
func (s *Scanner) enter() error {
	k := &s.walker
	if err := k.enter(); err != nil {
		return err
	}
	if k.frame.first != s.next || k.frame.last() > s.readable {
		return k.damage(k.start, "frame does not follow the one before")
	}
	return nil
}

// take decodes the record and checks that it is that of s.next.
func (s *Scanner) take(r rawRecord) error {
	if err := s.decoder.record(r, &s.event); err != nil {
		return err
	}
	s.raw = r
	return samePosition(s.event.Position, s.next)
}

// extend finds out how far the scanner can read upwards, and goes on to the
// next segment if it has to. It is not ok at the end of the log.
func (s *Scanner) extend() (ok bool, err error) {
	l := s.log
	last := l.Last()
	if s.next > last {
		return false, nil
	}
	l.mu.RLock()
	seg := l.findLocked(s.next)
	if seg == nil {
		l.mu.RUnlock()
		return false, ErrNotFound
	}
	base, readable, limit := seg.base, min(seg.last, last), seg.end
	l.mu.RUnlock()
	s.readable, s.walker.limit = readable, limit
	if base == s.base {
		return true, nil
	}
	s.walker.release()
	if bug.Is(bug.SkipAtSegment) && s.base != 0 && s.next < readable {
		s.next++
	}
	s.base = base
	s.walker = walker{window: window{file: segmentReader{l.handles, base}}, path: l.path(base), limit: limit}
	if s.next == base {
		s.walker.seek(segmentHeaderSize)
		return true, nil
	}
	off, err := s.begin()
	if err != nil {
		return false, err
	}
	s.walker.seek(off)
	return true, nil
}

// begin returns where to start reading upwards in the middle of a segment.
func (s *Scanner) begin() (int64, error) {
	if s.frames {
		return s.log.frameAt(s.next)
	}
	x, err := s.log.locate(s.next)
	return x.off, err
}

// table is a part of the offsets of a segment, for a scan downwards.
type table struct {
	window  window // over the records
	path    string
	first   uint64   // position of offsets[0]
	offsets []uint32 // one more than positions: the last one is where the last record ends at the latest
}

// tablePart is for how many positions offsets are read at once.
const tablePart = 1024

// down reads the event at s.next, going downwards.
func (s *Scanner) down() (bool, error) {
	if s.next == 0 {
		return false, nil
	}
	t := &s.table
	if len(t.offsets) == 0 || s.next < t.first {
		if err := s.loadTable(); err != nil {
			return false, err
		}
	}
	i := s.next - t.first
	off, end := int64(t.offsets[i]), int64(t.offsets[i+1])
	if off < segmentHeaderSize+frameHeaderSize || end-off < recordOverhead {
		return false, &CorruptError{File: t.path, Offset: off, Reason: "offsets of the footer make no sense"}
	}
	b, err := t.window.before(segmentHeaderSize, off, int(end-off))
	if err != nil {
		return false, corrupt(t.path, off, err)
	}
	r, err := decodeRecord(b)
	if err == nil {
		err = s.take(r)
	}
	if err != nil {
		return false, corrupt(t.path, off, err)
	}
	s.next--
	return true, nil
}

// loadTable gets the offsets of s.next and of those before it.
func (s *Scanner) loadTable() error {
	l, t := s.log, &s.table
	l.mu.RLock()
	seg := l.findLocked(s.next)
	if seg == nil {
		l.mu.RUnlock()
		return ErrNotFound
	}
	base, end, sealed := seg.base, seg.end, seg.sealed
	t.first = base
	if s.next-base >= tablePart {
		t.first = s.next - tablePart + 1
	}
	n := int(s.next - t.first + 1)
	more := 1 // the offset after that of s.next
	if s.next == seg.last {
		more = 0
	}
	t.offsets = t.offsets[:0]
	if !sealed {
		i := int(t.first - base)
		t.offsets = append(t.offsets, seg.offsets[i:i+n+more]...)
	}
	l.mu.RUnlock()
	file := segmentReader{l.handles, base}
	t.path = l.path(base)
	if base != s.base {
		t.window.release()
		t.window, s.base = window{file: file}, base
	}
	if sealed {
		at := end + int64(t.first-base)*tableEntry
		b := make([]byte, (n+more)*tableEntry)
		if err := readFull(file, b, at); err != nil {
			return corrupt(t.path, at, err)
		}
		for i := 0; i < len(b); i += tableEntry {
			t.offsets = append(t.offsets, min(binary.LittleEndian.Uint32(b[i:]), uint32(end)))
		}
	}
	if more == 0 {
		t.offsets = append(t.offsets, uint32(end))
	}
	return nil
}
