package eventlog

import (
	"bytes"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A scan by frames may begin at each frame, and nowhere else.
func TestScanner_Frames(t *testing.T) {
	frames := testScript(8, 60, 4)
	frames[20].events[0].Data = bytes.Repeat([]byte{'x'}, chunkSize+17)
	l := createTest(t, vfs.NewMem(), 2000, frames)
	defer closeTest(t, l)
	starts := map[uint64]int{}
	for i, f := range frames {
		starts[f.events[0].Position] = i
	}
	for from := uint64(1); from <= l.Last(); from++ {
		i, ok := starts[from]
		s := l.ScanFrames(from)
		if !ok {
			if s.Next() || s.Err() == nil {
				t.Errorf("ScanFrames(%d) begins inside a frame", from)
			}
			s.Close()
			continue
		}
		n := from
		for ; s.Next(); n++ {
			f := &frames[i]
			want := Frame{Index: f.index, Term: f.term, First: f.events[0].Position, Last: f.last(), Time: f.events[0].Time}
			if got := s.Frame(); got != want || s.Event().Position != n {
				t.Fatalf("ScanFrames(%d): position %d is in %+v, want %+v", from, n, got, want)
			}
			if n == f.last() {
				i++
			}
		}
		if s.Err() != nil || n != l.Last()+1 {
			t.Fatalf("ScanFrames(%d) ends before %d: %v", from, n, s.Err())
		}
		s.Close()
	}
}

// A client may choose data that look like the header of a frame.
func TestScanner_FramesAreNotForged(t *testing.T) {
	frames := testScript(3, 2, 1)
	f := &frames[1]
	second := f.events[0]
	second.Position, second.AppendPlace = second.Position+1, 1
	head := frameHeader{length: frameHeaderSize + 200, first: second.Position, count: 1, index: 9, time: second.Time}
	forged := make([]byte, frameHeaderSize)
	putFrameHeader(forged, &head, 0)
	f.events[0].Data = append([]byte("..."), forged...)
	f.events[0].Meta = nil
	f.events = append(f.events, second)
	l := createTest(t, vfs.NewMem(), 1<<20, frames)
	defer closeTest(t, l)
	s := l.ScanFrames(second.Position)
	defer s.Close()
	if s.Next() || s.Err() == nil || isCorrupt(s.Err()) {
		t.Errorf("ScanFrames at forged data: %v, want that no frame begins there", s.Err())
	}
}
