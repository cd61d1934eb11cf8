package eventlog

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sort"
	"sync"

	"cairn/event"
)

// extent is where a record lies: it begins at off, and the next one, or the
// end of the frames, is at end. The header of the next frame may lie between.
type extent struct {
	base     uint64 // of the segment
	off, end int64
	last     bool // no record of the segment follows
}

// decoders are for single reads; what they return does not share their memory.
var decoders = sync.Pool{New: func() any { return new(decoder) }}

func (l *Log) path(base uint64) string { return l.dir.join(SegmentName(base)) }

// Read returns the event at a position. It is checked; damage is a
// *CorruptError. A position beyond Last is ErrNotFound.
func (l *Log) Read(position uint64) (event.Event, error) {
	r, x, err := l.read(position)
	if err != nil {
		return event.Event{}, err
	}
	d := decoders.Get().(*decoder)
	defer decoders.Put(d)
	var e event.Event
	if err := d.record(r, &e); err != nil {
		return event.Event{}, corrupt(l.path(x.base), x.off, err)
	}
	return e, nil
}

// ReadRecord returns the record at a position as it lies in its segment,
// checked as in Read.
func (l *Log) ReadRecord(position uint64) (Record, error) {
	r, x, err := l.read(position)
	if err != nil {
		return Record{}, err
	}
	d := decoders.Get().(*decoder)
	defer decoders.Put(d)
	if err = d.parse(r.header()); err == nil {
		err = d.checkDigest(r)
	}
	if err != nil {
		return Record{}, corrupt(l.path(x.base), x.off, err)
	}
	return Record{Header: r.header(), Salt: [16]byte(r.salted), Payload: r.payload()}, nil
}

// read reads a record; its CRCs and its position are right.
func (l *Log) read(position uint64) (rawRecord, extent, error) {
	x, err := l.locate(position)
	if err != nil {
		return rawRecord{}, x, err
	}
	b := make([]byte, x.end-x.off)
	if err := readFull(segmentReader{l.handles, x.base}, b, x.off); err != nil {
		return rawRecord{}, x, corrupt(l.path(x.base), x.off, err)
	}
	r, err := decodeRecord(b)
	if err == nil {
		err = checkPosition(r.header(), position)
	}
	return r, x, corrupt(l.path(x.base), x.off, err)
}

func checkPosition(header []byte, position uint64) error {
	got, _, err := place(header)
	if err != nil {
		return err
	}
	return samePosition(got, position)
}

func samePosition(got, want uint64) error {
	if got != want {
		return formatError(fmt.Sprintf("record of position %d where that of %d should be", got, want))
	}
	return nil
}

// locate returns where the record of a position lies.
func (l *Log) locate(position uint64) (extent, error) {
	if position == 0 || position > l.Last() {
		return extent{}, ErrNotFound
	}
	l.mu.RLock()
	s := l.findLocked(position)
	if s == nil {
		l.mu.RUnlock()
		return extent{}, ErrNotFound
	}
	x := extent{base: s.base, end: s.end, last: position == s.last}
	i, table := int64(position-s.base), s.end
	if !s.sealed {
		x.off = int64(s.offsets[i])
		if !x.last {
			x.end = int64(s.offsets[i+1])
		}
		l.mu.RUnlock()
		return x, nil
	}
	l.mu.RUnlock()
	b := make([]byte, tableEntry, 2*tableEntry)
	if !x.last {
		b = b[:2*tableEntry]
	}
	at := table + i*tableEntry
	if err := readFull(segmentReader{l.handles, x.base}, b, at); err != nil {
		return x, corrupt(l.path(x.base), at, err)
	}
	x.off = int64(binary.LittleEndian.Uint32(b))
	if !x.last {
		x.end = int64(binary.LittleEndian.Uint32(b[tableEntry:]))
	}
	if x.off < segmentHeaderSize+frameHeaderSize || x.end > table || x.end-x.off < recordOverhead {
		return x, &CorruptError{File: l.path(x.base), Offset: at, Reason: "offsets of the footer make no sense"}
	}
	return x, nil
}

// readHead reads lead and header of a record alone.
func (l *Log) readHead(position uint64) (header []byte, record int64, x extent, err error) {
	if x, err = l.locate(position); err != nil {
		return nil, 0, x, err
	}
	const usual = 1 << 10
	b := make([]byte, min(usual, x.end-x.off))
	f := segmentReader{l.handles, x.base}
	if err = readFull(f, b, x.off); err != nil {
		return nil, 0, x, corrupt(l.path(x.base), x.off, err)
	}
	n, _, err := recordSizes(b)
	if err == nil && n > len(b) {
		if int64(n) > x.end-x.off {
			err = formatError("record is cut short")
		} else {
			b = slices.Grow(b, n-len(b))[:n]
			err = readFull(f, b, x.off)
		}
	}
	var head []byte
	var size int
	if err == nil {
		if head, size, err = checkHead(b); err == nil {
			header = head[leadSize:]
			err = checkPosition(header, position)
		}
	}
	return header, int64(size), x, corrupt(l.path(x.base), x.off, err)
}

// SeekTime returns the first position whose time is t or later, Last()+1 if
// there is none.
func (l *Log) SeekTime(t int64) (uint64, error) {
	end := l.Last()
	l.mu.RLock()
	i := sort.Search(len(l.segments), func(i int) bool { return l.segments[i].lastTime >= t })
	if i == len(l.segments) {
		l.mu.RUnlock()
		return end + 1, nil
	}
	low, high := l.segments[i].base, l.segments[i].last
	l.mu.RUnlock()
	// The last one has the time asked for, or there is none up to end.
	for high = min(high, end+1); low < high; {
		middle := low + (high-low)/2
		header, _, _, err := l.readHead(middle)
		if err != nil {
			return 0, fmt.Errorf("seek time %d: %w", t, err)
		}
		_, time, err := place(header)
		if err != nil {
			return 0, fmt.Errorf("seek time %d: %w", t, err)
		}
		if time >= t {
			high = middle
		} else {
			low = middle + 1
		}
	}
	return low, nil
}

// Sealed returns the segments that are sealed and end before through,
// ascending. Together with ActiveAt it names all bytes up to through, and both
// answers depend on through alone: a segment that ends with through counts as
// the active one, whether or not the next frame has sealed it meanwhile. After
// Sync(through) all of these bytes are durable.
func (l *Log) Sealed(through uint64) []SegmentInfo {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var infos []SegmentInfo
	for _, s := range l.segments {
		if !s.sealed || s.last >= through {
			break
		}
		infos = append(infos, s.info())
	}
	return infos
}

// ActiveAt returns the file that holds position through and how many of its
// bytes belong to positions up to through, the file's header among them; name
// is "" if through is 0. A through that does not end a frame is an error.
func (l *Log) ActiveAt(through uint64) (name string, length int64, err error) {
	if through == 0 {
		return "", 0, nil
	}
	_, size, x, err := l.readHead(through)
	if err != nil {
		return "", 0, fmt.Errorf("length up to position %d: %w", through, err)
	}
	end := x.off + size
	if !x.last && x.end-end != frameHeaderSize {
		return "", 0, fmt.Errorf("length up to position %d: it does not end a frame", through)
	}
	return SegmentName(x.base), end, nil
}

// Written returns how many bytes of a file are written and will stay as they
// are; ok is false if there is no such file.
func (l *Log) Written(name string) (size int64, ok bool) {
	base, ok := parseSegmentName(name)
	if !ok {
		return 0, false
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	if s := l.findLocked(base); s != nil && s.base == base {
		return s.size, true
	}
	return 0, false
}
