package eventlog

import "hash"

// segment is what the log keeps in memory of one file. base never changes. The
// rest is written under Log.mu by the appending goroutine (synced: by whoever
// syncs), and read under it by others.
type segment struct {
	base    uint64
	last    uint64 // position of the last event; base-1 while there is none
	end     int64  // where the frames end, and the footer begins
	size    int64  // bytes written, with the footer
	synced  int64  // of them, bytes known to be durable
	sealed  bool   // the footer is written
	hash    [32]byte
	offsets []uint32 // of each record; nil once sealed, the footer has them

	firstTime, lastTime   int64
	firstIndex, lastIndex uint64

	pin *handle // open as long as anything is not synced; guarded by Log.syncMu after the segment is published
}

// SegmentInfo describes a sealed segment.
type SegmentInfo struct {
	Name                string // of the file, without folder
	Base, Last          uint64 // positions of its first and last event
	Size                int64  // of the file
	FirstTime, LastTime int64  // of the first and the last event, nanoseconds
	Hash                [32]byte
}

func (s *segment) info() SegmentInfo {
	return SegmentInfo{
		Name: SegmentName(s.base), Base: s.base, Last: s.last, Size: s.size,
		FirstTime: s.firstTime, LastTime: s.lastTime, Hash: s.hash,
	}
}

// has reports whether an event of the segment stands at position.
func (s *segment) has(position uint64) bool { return s.base <= position && position <= s.last }

// add takes in one frame whose records lie at offsets, counted from where the
// segment's frames end.
func (s *segment) add(h *frameHeader, offsets []uint32) {
	if s.last < s.base {
		s.firstTime, s.firstIndex = h.time, h.index
	}
	s.lastTime, s.lastIndex = h.time, h.index
	for _, o := range offsets {
		s.offsets = append(s.offsets, uint32(s.end)+o)
	}
	s.last = h.last()
	s.end += h.length
	s.size = s.end
}

// seal ends the segment with a footer of size bytes.
func (s *segment) seal(hash [32]byte, size int64) {
	s.sealed, s.hash, s.offsets = true, hash, nil
	s.size += size
}

// trailer returns the trailer of the segment, whose running hash is sum.
func (s *segment) trailer(sum hash.Hash) trailer {
	t := trailer{
		first: s.base, last: s.last, firstTime: s.firstTime, lastTime: s.lastTime,
		firstIndex: s.firstIndex, lastIndex: s.lastIndex, footer: s.end,
	}
	sum.Sum(t.hash[:0])
	return t
}

// sealedSegment is the segment that a file with this trailer holds.
func sealedSegment(t *trailer, size int64) *segment {
	return &segment{
		base: t.first, last: t.last, end: t.footer, size: size, synced: size, sealed: true, hash: t.hash,
		firstTime: t.firstTime, lastTime: t.lastTime, firstIndex: t.firstIndex, lastIndex: t.lastIndex,
	}
}
