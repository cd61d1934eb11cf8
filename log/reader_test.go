package eventlog

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"cairn/event"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestReader_NotFound(t *testing.T) {
	frames := testScript(1, 20, 3)
	l := createTest(t, vfs.NewMem(), 1024, frames)
	defer closeTest(t, l)
	for _, position := range []uint64{0, l.Last() + 1, math.MaxUint64} {
		if _, err := l.Read(position); !errors.Is(err, ErrNotFound) {
			t.Errorf("Read(%d) = %v", position, err)
		}
		if _, err := l.ReadRecord(position); !errors.Is(err, ErrNotFound) {
			t.Errorf("ReadRecord(%d) = %v", position, err)
		}
	}
	for _, from := range []uint64{l.Last() + 1, math.MaxUint64} {
		s := l.Scan(from)
		if s.Next() || s.Err() != nil {
			t.Errorf("Scan(%d) has an event, or %v", from, s.Err())
		}
		s.Close()
	}
	s := l.ScanBack(0)
	if s.Next() || s.Err() != nil {
		t.Errorf("ScanBack(0) has an event, or %v", s.Err())
	}
	s.Close()
	if s = l.Scan(1); !s.Next() {
		t.Error("Scan(1) has no event")
	}
	if s.Close(); s.Next() {
		t.Error("Next after Close")
	}
}

func TestReader_ReadRecord(t *testing.T) {
	frames := testScript(1, 20, 3)
	var b FrameBuilder
	l := createTest(t, vfs.NewMem(), 1024, frames)
	defer closeTest(t, l)
	scan := l.Scan(1)
	defer scan.Close()
	for _, f := range frames {
		b.Reset(f.index, f.term, f.events[0].Position, f.events[0].Time)
		for i := range f.events {
			e := &f.events[i]
			leaf := b.Add(e, testSalt(e.Position))
			r, err := l.ReadRecord(e.Position)
			if err != nil {
				t.Fatal(err)
			}
			if Leaf(r.Header) != leaf || r.Salt != testSalt(e.Position) || !bytes.Equal(r.Payload, appendPayload(nil, e.Data, e.Meta)) {
				t.Fatalf("ReadRecord(%d) = %+v", e.Position, r)
			}
			if !scan.Next() || !bytes.Equal(scan.Header(), r.Header) {
				t.Fatalf("Scanner.Header() at %d is not that of the record", e.Position)
			}
		}
	}
}

// spoilChunk overwrites memory that was released.
func spoilChunk() {
	c := chunks.Get().(*[chunkSize]byte)
	clear(c[:])
	chunks.Put(c)
}

// Scans begin at every position and go through every kind of border.
func TestScanner_FromEverywhere(t *testing.T) {
	frames := testScript(6, 40, 6)
	big := &frames[17].events[0]
	big.Data = bytes.Repeat([]byte{'x'}, chunkSize+17)
	events := allEvents(frames)
	l := createTest(t, vfs.NewMem(), 3000, frames)
	defer closeTest(t, l)
	for from := 1; from <= len(events); from += 1 + stride/10 {
		n := from
		s := l.Scan(uint64(from))
		for ; s.Next(); n++ {
			if !sameEvent(s.Event(), &events[n-1]) {
				t.Fatalf("Scan(%d): event %d is %+v", from, n, *s.Event())
			}
			if n%11 == 0 {
				s.Release() // at any time; it goes on where it was
				spoilChunk()
			}
		}
		s.Close()
		if n != len(events)+1 || s.Err() != nil {
			t.Fatalf("Scan(%d) ends before %d: %v", from, n, s.Err())
		}
		s = l.ScanBack(uint64(from))
		for n = from; s.Next(); n-- {
			if !sameEvent(s.Event(), &events[n-1]) {
				t.Fatalf("ScanBack(%d): event %d is %+v", from, n, *s.Event())
			}
			if n%11 == 0 {
				s.Release()
				spoilChunk()
			}
		}
		s.Close()
		if n != 0 || s.Err() != nil {
			t.Fatalf("ScanBack(%d) ends after %d: %v", from, n, s.Err())
		}
	}
}

// A scan back over more positions than are looked up at once.
func TestScanner_BackOverManyRecords(t *testing.T) {
	var f testFrame
	for i := range uint64(3*tablePart + 5) {
		f.events = append(f.events, event.Event{Position: i + 1, Version: i + 1, Time: 7, Stream: "s", Type: "t"})
	}
	for _, size := range []int64{MinSegmentSize, MaxSegmentSize} {
		next := testFrame{index: 9, events: []event.Event{{Position: uint64(len(f.events)) + 1, Version: 1, Time: 8, Stream: "s", Type: "t"}}}
		l := createTest(t, vfs.NewMem(), size, []testFrame{f, next})
		checkLog(t, l, allEvents([]testFrame{f, next}))
		closeTest(t, l)
	}
}

// A scanner that has come to the end goes on when more is appended.
func TestScanner_Follows(t *testing.T) {
	frames := testScript(8, 60, 3)
	events := allEvents(frames)
	l := createTest(t, vfs.NewMem(), 1500, frames[:1])
	defer closeTest(t, l)
	s := l.Scan(1)
	defer s.Close()
	n := 0
	for i := range frames {
		for s.Next() {
			if !sameEvent(s.Event(), &events[n]) {
				t.Fatalf("event %d is %+v", n+1, *s.Event())
			}
			n++
		}
		if s.Err() != nil || uint64(n) != l.Last() {
			t.Fatalf("stopped after %d of %d: %v", n, l.Last(), s.Err())
		}
		if s.walker.pooled != nil {
			t.Fatal("memory is held at the end of the log")
		}
		if i > 0 {
			appendFrames(t, l, frames[i:i+1])
		}
	}
}

// crowd are the goroutines that use a log while another one appends. Each ends
// when it has seen the last event.
type crowd struct {
	*testing.T
	log    *Log
	events []event.Event
	total  uint64
}

func (c *crowd) check(what string, e *event.Event, position uint64) bool {
	if !sameEvent(e, &c.events[position-1]) {
		c.Errorf("%s: event %d is %+v", what, position, *e)
		return false
	}
	return true
}

func (c *crowd) scan() {
	s := c.log.Scan(1)
	defer s.Close()
	for n := uint64(1); n <= c.total && s.Err() == nil; {
		if s.Next() {
			if !c.check("Scan", s.Event(), n) {
				return
			}
			n++
		}
	}
	if s.Err() != nil {
		c.Error(s.Err())
	}
}

func (c *crowd) read(r *rand.Rand) {
	for last := uint64(0); last < c.total; {
		if last = c.log.Last(); last == 0 {
			continue
		}
		position := last - r.Uint64N(min(last, 50))
		e, err := c.log.Read(position)
		if err != nil {
			c.Errorf("Read(%d) of %d: %v", position, last, err)
			return
		}
		if !c.check("Read", &e, position) {
			return
		}
		if p, err := c.log.SeekTime(e.Time); err != nil || p > position || c.events[p-1].Time != e.Time {
			c.Errorf("SeekTime(%d) = %d, %v", e.Time, p, err)
			return
		}
	}
}

func (c *crowd) back() {
	for last := uint64(0); last < c.total; {
		last = c.log.Last()
		s := c.log.ScanBack(last)
		for n := uint64(0); n < 40 && s.Next(); n++ {
			if !c.check("ScanBack", s.Event(), last-n) {
				return
			}
		}
		s.Close()
		if _, _, err := c.log.ActiveAt(last); err != nil || s.Err() != nil {
			c.Error(err, s.Err())
			return
		}
		_ = c.log.Sealed(last)
	}
}

func (c *crowd) sync() {
	for last := uint64(0); last < c.total; {
		last = c.log.Last()
		if err := c.log.Sync(last); err != nil {
			c.Error(err)
			return
		}
	}
}

// Readers of all kinds run while one goroutine appends and another one syncs.
func TestReader_Concurrently(t *testing.T) {
	frames := testScript(9, 400/stride+100, 4)
	fs := &countingFS{FS: vfs.NewMem()}
	l, err := Open(Options{FS: fs, Dir: "log", Flush: 2000})
	if err != nil {
		t.Fatal(err)
	}
	l.handles.limit = 2
	if err := l.Cut(); err != nil {
		t.Fatal(err)
	}
	if err := l.Create(testID, 4096); err != nil {
		t.Fatal(err)
	}
	events := allEvents(frames)
	c := &crowd{t, l, events, uint64(len(events))}
	var all sync.WaitGroup
	all.Go(c.scan)
	all.Go(func() { c.read(rand.New(rand.NewPCG(*seed, 1))) })
	all.Go(func() { c.read(rand.New(rand.NewPCG(*seed, 2))) })
	all.Go(c.back)
	all.Go(c.sync)
	appendFrames(t, l, frames)
	all.Wait()
	checkLog(t, l, events)
	if n := l.handles.idle.Len(); n > 2 {
		t.Errorf("%d idle handles", n)
	}
	closeTest(t, l)
	if n := fs.open.Load(); n != 0 {
		t.Errorf("%d files are open after Close", n)
	}
}

func TestReader_SeekTime(t *testing.T) {
	frames := testScript(12, 60, 3)
	events := allEvents(frames)
	for _, through := range []int{0, 1, len(events)} {
		l := createTest(t, vfs.NewMem(), 1200, nil)
		for i := range frames {
			if frames[i].last() <= uint64(through) || through == 1 && i == 0 {
				appendFrames(t, l, frames[i:i+1])
			}
		}
		have := events[:l.Last()]
		times := []int64{math.MinInt64, 0, math.MaxInt64}
		for _, e := range events {
			times = append(times, e.Time-1, e.Time, e.Time+1)
		}
		for _, at := range times {
			want := slices.IndexFunc(have, func(e event.Event) bool { return e.Time >= at })
			if want < 0 {
				want = len(have)
			}
			if got, err := l.SeekTime(at); err != nil || got != uint64(want+1) {
				t.Fatalf("SeekTime(%d) of %d events = %d, %v, want %d", at, len(have), got, err, want+1)
			}
		}
		closeTest(t, l)
	}
}

// What Sealed and ActiveAt name is a log that ends at that position: a snapshot
// copies it to another node, which goes on with it.
func TestReader_FilesUpToAPosition(t *testing.T) {
	frames := testScript(13, 50, 3)
	events := allEvents(frames)
	want := testFiles(t, 1500, frames)
	whole := vfs.NewMem()
	l := createTest(t, whole, 1500, frames)
	defer closeTest(t, l)
	early := createTest(t, vfs.NewMem(), 1500, nil)
	defer closeTest(t, early)
	for i, f := range frames {
		through := f.last()
		copied := vfs.NewMem()
		infos := l.Sealed(through)
		for _, info := range infos {
			b := readFile(t, whole, "log/"+info.Name)
			if int64(len(b)) != info.Size || info.Last >= through {
				t.Errorf("through %d: %+v of %d bytes", through, info, len(b))
			}
			writeFile(t, copied, "log/"+info.Name, b)
		}
		name, length, err := l.ActiveAt(through)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, copied, "log/"+name, readFile(t, whole, "log/"+name)[:length])
		node := openTest(t, copied, through)
		checkLog(t, node, events[:through])
		appendFrames(t, node, frames[i+1:])
		closeTest(t, node)
		if err := sameFiles(files(t, copied), want); err != nil {
			t.Errorf("through %d: %v", through, err)
		}
		// Whoever asks at once gets the same answer as one who asks later.
		appendFrames(t, early, frames[i:i+1])
		first, n, err := early.ActiveAt(through)
		if first != name || n != length || err != nil || !slices.Equal(early.Sealed(through), infos) {
			t.Errorf("through %d: %s, %d, %v, later %s, %d", through, first, n, err, name, length)
		}
		for p := f.events[0].Position; p < through; p++ {
			if _, _, err := l.ActiveAt(p); err == nil {
				t.Errorf("ActiveAt(%d) inside a frame", p)
			}
		}
	}
	if name, n, err := l.ActiveAt(0); name != "" || n != 0 || err != nil {
		t.Errorf("ActiveAt(0) = %q, %d, %v", name, n, err)
	}
	if _, _, err := l.ActiveAt(l.Last() + 1); !errors.Is(err, ErrNotFound) {
		t.Errorf("ActiveAt beyond the end: %v", err)
	}
	if n := len(l.Sealed(math.MaxUint64)); n != len(want)-1 {
		t.Errorf("%d of %d segments are sealed", n, len(want))
	}
}

// Offsets that lead to other records do not lead to other events.
func TestReader_WrongOffsets(t *testing.T) {
	frames := testScript(4, 12, 2)
	all := testFiles(t, 1000, frames)
	name := SegmentName(1)
	b := all[name]
	end, err := decodeTrailer(b[len(b)-trailerSize:], int64(len(b)))
	if err != nil || end.last < 3 {
		t.Fatal(end, err)
	}
	copy(b[end.footer:len(b)-trailerSize], bytes.Clone(b[end.footer+tableEntry:len(b)-trailerSize]))
	l := openTest(t, placeFiles(t, all), frames[len(frames)-1].last())
	defer closeTest(t, l)
	for position := uint64(1); position < end.last; position++ {
		if e, err := l.Read(position); !isCorrupt(err) {
			t.Errorf("Read(%d) = event %d, %v", position, e.Position, err)
		}
		back := l.ScanBack(position)
		if back.Next() || !isCorrupt(back.Err()) {
			t.Errorf("ScanBack(%d) = event %d, %v", position, back.Event().Position, back.Err())
		}
		back.Close()
	}
	if _, err := VerifySegment(l.dir.fs, "log/"+name); !isCorrupt(err) {
		t.Errorf("VerifySegment = %v", err)
	}
}

// A log has more segments than a process may open files.
func TestHandles_Bounded(t *testing.T) {
	frames := testScript(3, 400, 1)
	mem := vfs.NewMem()
	fs := &countingFS{FS: mem}
	l := createTest(t, fs, MinSegmentSize, nil)
	for i := range frames {
		appendFrames(t, l, frames[i:i+1])
		if err := l.Sync(l.Last()); err != nil {
			t.Fatal(err)
		}
	}
	if n := fs.open.Load(); n > idleHandles+2 {
		t.Errorf("%d files are open after writing", n)
	}
	if n := l.Stats().Segments; n < 2*idleHandles {
		t.Fatalf("only %d segments", n)
	}
	closeTest(t, l)
	l = openTest(t, fs, uint64(len(frames)))
	before := fs.open.Load()
	checkLog(t, l, allEvents(frames))
	if n := fs.open.Load() - before; n != idleHandles {
		t.Errorf("%d files stay open, want %d", n, idleHandles)
	}
	opened := fs.opened.Load()
	for range 10 {
		if _, err := l.Read(7); err != nil {
			t.Fatal(err)
		}
	}
	if n := fs.opened.Load() - opened; n > 1 {
		t.Errorf("one segment was opened %d times", n)
	}
	h, err := l.handles.acquire(1)
	if err != nil {
		t.Fatal(err)
	}
	closeTest(t, l)
	if n := fs.open.Load(); n != 1 {
		t.Errorf("%d files are open, the one in use should be", n)
	}
	if _, err := h.file.ReadAt(make([]byte, 8), 0); err != nil {
		t.Errorf("a file in use was closed: %v", err)
	}
	l.handles.release(h)
	if n := fs.open.Load(); n != 0 {
		t.Errorf("%d files are open in the end", n)
	}
}
