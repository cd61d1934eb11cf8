package eventlog

import (
	"hash"
	"io"
	"sync"
)

// chunkSize is how much of a file is read at once; a walk that has just begun
// reads firstChunk, then twice as much each time.
const (
	chunkSize  = 256 << 10
	firstChunk = 16 << 10
)

var chunks = sync.Pool{New: func() any { return new([chunkSize]byte) }}

// window is a part of a file in memory.
type window struct {
	file   io.ReaderAt
	buf    []byte // what the file holds at off
	off    int64
	next   int // how much to read at once the next time
	pooled *[chunkSize]byte
}

// at returns n bytes of the file at off, which lie below limit; they are good
// until the next call. It reads ahead up to limit.
func (w *window) at(off int64, n int, limit int64) ([]byte, error) {
	if int64(n) > limit-off {
		return nil, formatError("ends too early")
	}
	if off < w.off || off+int64(n) > w.off+int64(len(w.buf)) {
		size := w.grow(n)
		if err := w.fill(off, int(min(int64(size), limit-off))); err != nil {
			return nil, err
		}
	}
	from := off - w.off
	return w.buf[from : from+int64(n) : from+int64(n)], nil
}

// before is like at, but reads ahead downwards, to floor.
func (w *window) before(floor, off int64, n int) ([]byte, error) {
	if off < floor {
		return nil, formatError("begins too early")
	}
	if off < w.off || off+int64(n) > w.off+int64(len(w.buf)) {
		end := off + int64(n)
		start := max(floor, end-int64(w.grow(n)))
		if err := w.fill(start, int(end-start)); err != nil {
			return nil, err
		}
	}
	from := off - w.off
	return w.buf[from : from+int64(n) : from+int64(n)], nil
}

// grow returns how much to read now, at least n.
func (w *window) grow(n int) int {
	size := max(w.next, firstChunk)
	w.next = min(2*size, chunkSize)
	return max(size, n)
}

// fill reads n bytes at off.
func (w *window) fill(off int64, n int) error {
	if w.pooled == nil {
		w.pooled = chunks.Get().(*[chunkSize]byte)
	}
	buf := w.pooled[:]
	if n > len(buf) {
		buf = make([]byte, n)
	}
	w.buf = nil
	if err := readFull(w.file, buf[:n], off); err != nil {
		return err
	}
	w.buf, w.off = buf[:n], off
	return nil
}

// release gives the memory back. The window can be used again.
func (w *window) release() {
	if w.pooled != nil {
		chunks.Put(w.pooled)
	}
	w.pooled, w.buf, w.next = nil, nil, 0
}

// readFull reads len(p) bytes at off. A file that ends before is damaged: the
// caller knew that they are there.
func readFull(f io.ReaderAt, p []byte, off int64) error {
	n, err := f.ReadAt(p, off)
	switch {
	case n == len(p):
		return nil
	case err == nil || err == io.EOF:
		return formatError("ends too early")
	default:
		return err
	}
}

// walker goes through the frames and records of a segment, upwards, and checks
// them. It may begin at any record; a frame it enters in the middle is checked
// record by record only.
type walker struct {
	window
	path  string // for errors
	off   int64  // of what comes next
	limit int64  // no frame that is looked at goes beyond

	frame   frameHeader
	start   int64 // of frame
	raw     [frameHeaderSize]byte
	left    uint32    // records of frame not yet read; 0 outside
	records uint32    // CRC over those read
	hash    hash.Hash // if not nil, takes in what the hash of a segment covers
}

// seek goes to the frame or record at off.
func (k *walker) seek(off int64) {
	k.off = off
	k.left = 0
}

// enter reads the frame header at k.off.
func (k *walker) enter() error {
	b, err := k.at(k.off, frameHeaderSize, k.limit)
	if err != nil {
		return corrupt(k.path, k.off, err)
	}
	head, err := decodeFrameHeader(b)
	if err != nil {
		return corrupt(k.path, k.off, err)
	}
	if head.length > k.limit-k.off {
		return k.damage(k.off, "frame ends too early")
	}
	k.frame, k.start = head, k.off
	copy(k.raw[:], b)
	k.left, k.records = head.count, 0
	k.off += frameHeaderSize
	if k.hash != nil {
		k.hash.Write(k.raw[:])
	}
	return nil
}

func (k *walker) damage(off int64, reason string) error {
	return &CorruptError{File: k.path, Offset: off, Reason: reason}
}

// atFrame reports whether a frame begins at k.off, rather than a record.
func (k *walker) atFrame() (bool, error) {
	b, err := k.at(k.off, 4, k.limit)
	if err != nil {
		return false, corrupt(k.path, k.off, err)
	}
	return b[3]&0x80 != 0, nil
}

// record reads the record at k.off, whose CRCs match; with the last one of a
// frame the frame's do too. It is good until the walker's next step.
func (k *walker) record() (rawRecord, error) {
	limit := k.limit
	if k.left > 0 {
		limit = k.start + k.frame.length
	}
	b, err := k.at(k.off, leadSize, k.limit)
	if err != nil {
		return rawRecord{}, corrupt(k.path, k.off, err)
	}
	_, size, err := recordSizes(b)
	if err == nil && int64(size) > limit-k.off {
		err = formatError("record ends too late")
	}
	if err == nil {
		b, err = k.at(k.off, size, k.limit)
	}
	if err != nil {
		return rawRecord{}, corrupt(k.path, k.off, err)
	}
	r, err := decodeRecord(b)
	if err != nil {
		return rawRecord{}, corrupt(k.path, k.off, err)
	}
	if k.hash != nil {
		k.hash.Write(r.head)
	}
	k.off += int64(size)
	if k.left == 0 {
		return r, nil
	}
	k.records = crc(k.records, r.head)
	if k.left--; k.left > 0 {
		return r, nil
	}
	if k.off != k.start+k.frame.length {
		return rawRecord{}, k.damage(k.start, "length of the frame does not match its records")
	}
	if frameCRC(k.records, k.raw[:]) != k.frame.crc {
		return rawRecord{}, k.damage(k.start, "CRC of the frame does not match")
	}
	return r, nil
}
