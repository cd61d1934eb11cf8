package eventlog

import "fmt"

// Frame says which Raft entry added an event to the log, and with which others.
type Frame struct {
	Index, Term uint64 // of the entry
	First, Last uint64 // positions of its events
	Time        int64  // of all of them, nanoseconds
}

// ScanFrames is Scan for one who goes through the log entry by entry: the event
// at position from must be the first of its frame, else Next fails, and of each
// event Frame tells the frame. When Next has returned true for the last event
// of a frame, the whole frame was read and its CRC is right.
func (l *Log) ScanFrames(from uint64) *Scanner {
	s := l.Scan(from)
	s.frames = true
	return s
}

// Frame returns the frame of the event that Next has read. Only a scanner of
// ScanFrames has it.
func (s *Scanner) Frame() Frame {
	h := &s.walker.frame
	return Frame{Index: h.index, Term: h.term, First: h.first, Last: h.last(), Time: h.time}
}

// frameAt returns where the frame begins whose first event stands at position,
// which is not the first of its segment: where the record before it ends. What
// merely looks like a frame there may be data that a client chose; but between
// two records of one frame there is nothing.
func (l *Log) frameAt(position uint64) (int64, error) {
	_, size, x, err := l.readHead(position - 1)
	if err != nil {
		return 0, fmt.Errorf("find the frame of position %d: %w", position, err)
	}
	if x.last || x.end-x.off-size != frameHeaderSize {
		return 0, fmt.Errorf("position %d does not begin a frame", position)
	}
	return x.off + size, nil
}
