package eventlog

import (
	"math"

	"cairn/event"
)

// FrameBuilder puts the events of one Raft entry together into a frame. It
// keeps its buffers from one frame to the next. One goroutine uses it.
type FrameBuilder struct {
	head    frameHeader
	buf     []byte   // room for the frame header, then the records
	offsets []uint32 // of each record in buf
	records uint32   // CRC over the records' leads and headers so far
	err     error    // what Append will say
}

// keepBuffer is how large a buffer a FrameBuilder keeps for the next frame.
const keepBuffer = 4 << 20

// Reset begins a frame with the events of the Raft entry at index. The first
// one stands at position first; time is that of all of them.
func (b *FrameBuilder) Reset(index, term, first uint64, time int64) {
	b.head = frameHeader{index: index, term: term, first: first, time: time}
	if cap(b.buf) < frameHeaderSize || cap(b.buf) > keepBuffer {
		b.buf = make([]byte, frameHeaderSize, 64<<10)
	}
	b.buf = b.buf[:frameHeaderSize]
	b.offsets = b.offsets[:0]
	b.records = 0
	b.err = nil
}

// Add encodes e's record and returns its leaf of the Merkle tree. e must have
// its position, the next one of the frame, and the frame's time; e is not kept.
// What is wrong with e is told by Append.
func (b *FrameBuilder) Add(e *event.Event, salt [16]byte) (leaf [32]byte) {
	switch want := b.head.first + uint64(b.head.count); {
	case b.err != nil:
		return leaf
	case len(b.buf) == 0:
		b.err = formatError("frame was not begun")
		return leaf
	case e.Position != want:
		b.err = formatError("position is not the next one of the frame")
		return leaf
	case e.Time != b.head.time:
		b.err = formatError("time is not that of the frame")
		return leaf
	case e.Version == 0:
		b.err = formatError("event has no version")
		return leaf
	}
	start := len(b.buf)
	buf, leaf, err := appendRecord(b.buf, e, salt)
	if b.buf = buf; err != nil {
		b.err = err
		return leaf
	}
	if len(b.buf) > maxFrame || b.head.count == math.MaxUint32 {
		b.err = formatError("frame is too large")
		return leaf
	}
	head, _, _ := recordSizes(b.buf[start:])
	b.records = crc(b.records, b.buf[start:start+head])
	b.offsets = append(b.offsets, uint32(start))
	b.head.count++
	return leaf
}

// Count returns how many events have been added since Reset.
func (b *FrameBuilder) Count() int { return int(b.head.count) }

// seal completes the frame header. The bytes belong to b and are good until
// its next Reset.
func (b *FrameBuilder) seal() []byte {
	b.head.length = int64(len(b.buf))
	putFrameHeader(b.buf, &b.head, b.records)
	return b.buf
}
