package eventlog

import (
	"crypto/sha256"
	"errors"
	"fmt"
)

var errAppended = errors.New("frame was appended already")

// Create is the birth of an empty log: it fixes log id and segment size. The
// first file appears with the first Append.
func (l *Log) Create(id LogID, segmentSize int64) error {
	if err := l.writable(); err != nil {
		return err
	}
	switch {
	case l.todo != nil:
		return ErrNotCut
	case l.identity.Load() != nil:
		return errors.New("create event log: it was created before")
	case segmentSize < MinSegmentSize || segmentSize > MaxSegmentSize:
		return fmt.Errorf("create event log: segment size %d is not between %d and %d", segmentSize, MinSegmentSize, MaxSegmentSize)
	}
	l.identity.Store(&segmentHeader{logID: id, segmentSize: segmentSize})
	return nil
}

// Append writes the frame to the active segment; its events can be read when
// Append has returned. It is not durable before Sync. If the segment has a
// frame and would outgrow the segment size, it is sealed and a new one begun. A
// frame without events is nothing. b may be reset afterwards, not used as it is.
// Any error is the end of writing; calls after it get ErrPoisoned.
func (l *Log) Append(b *FrameBuilder) error {
	if err := l.writable(); err != nil {
		return err
	}
	switch {
	case l.todo != nil:
		return ErrNotCut
	case l.identity.Load() == nil:
		return ErrNotCreated
	case b.err == nil && b.Count() == 0:
		return nil
	}
	if err := l.append(b); err != nil {
		return l.poison(fmt.Errorf("append at position %d: %w", b.head.first, err))
	}
	return nil
}

func (l *Log) append(b *FrameBuilder) error {
	switch {
	case b.err != nil:
		return b.err
	case b.head.first != l.Last()+1:
		return fmt.Errorf("frame does not follow position %d", l.Last())
	case b.head.time < l.times:
		return fmt.Errorf("time %d is before that of the last event, %d", b.head.time, l.times)
	}
	frame := b.seal()
	if l.active != nil && l.active.end+int64(len(frame)) > l.identity.Load().segmentSize {
		if err := l.seal(); err != nil {
			return err
		}
	}
	if l.active == nil {
		if err := l.roll(b.head.first); err != nil {
			return err
		}
	}
	l.hash.Write(frame[:frameHeaderSize])
	for _, o := range b.offsets {
		head, _, _ := recordSizes(frame[o:])
		l.hash.Write(frame[o : int(o)+head])
	}
	// A file system may scribble on what it is given to write.
	b.err = errAppended
	if err := l.write(frame, l.active.end); err != nil {
		return err
	}
	l.publish(&b.head, b.offsets)
	return nil
}

// write writes to the active segment.
func (l *Log) write(p []byte, off int64) error {
	size := len(p)
	n, err := l.file.WriteAt(p, off)
	if err == nil && n != size {
		err = errors.New("short write")
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", SegmentName(l.active.base), err)
	}
	return nil
}

// publish lets readers see the frame that was written last.
func (l *Log) publish(h *frameHeader, offsets []uint32) {
	s := l.active
	l.mu.Lock()
	before := s.size
	if s.last < s.base {
		l.segments = append(l.segments, s)
		before = 0
	}
	s.add(h, offsets)
	written := s.size - before
	l.mu.Unlock()
	l.times = h.time
	l.last.Store(h.last())
	l.wrote(written)
}

// wrote counts n bytes written to a segment.
func (l *Log) wrote(n int64) {
	l.bytes.Add(n)
	l.unsynced.Add(n)
	l.flusher.wrote(n)
}

// roll begins the segment whose first event stands at base. It appears in
// l.segments with its first frame.
func (l *Log) roll(base uint64) error {
	name := SegmentName(base)
	f, err := l.dir.create(name)
	if err != nil {
		return err
	}
	l.created.Add(1)
	l.file = f
	l.active = &segment{base: base, last: base - 1, end: segmentHeaderSize, size: segmentHeaderSize}
	if err := l.pinActive(); err != nil {
		return err
	}
	header := *l.identity.Load()
	header.base = base
	b := header.encode()
	l.hash = sha256.New()
	l.hash.Write(b[:])
	return l.write(b[:], 0)
}

// pinActive opens the active segment once more, to be read and synced while
// l.file is written: one handle must not be written and synced at a time.
func (l *Log) pinActive() error {
	f, err := l.dir.open(SegmentName(l.active.base))
	if err != nil {
		return err
	}
	l.active.pin, err = l.handles.adopt(l.active.base, f)
	return err
}

// seal writes the footer of the active segment. There is none afterwards.
func (l *Log) seal() error {
	s := l.active
	t := s.trailer(l.hash)
	l.footer = appendFooter(l.footer[:0], &t, s.offsets)
	size := int64(len(l.footer))
	if err := l.write(l.footer, s.end); err != nil {
		return err
	}
	if err := l.file.Close(); err != nil {
		return fmt.Errorf("close %s: %w", SegmentName(s.base), err)
	}
	l.mu.Lock()
	s.seal(t.hash, size)
	l.mu.Unlock()
	l.file, l.active, l.hash = nil, nil, nil
	l.rolls.Add(1)
	l.wrote(size)
	l.logger.Debug("segment sealed", "segment", SegmentName(s.base), "last", s.last, "bytes", s.size)
	return nil
}
