package eventlog

import (
	"errors"
	"io/fs"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"cairn/event"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"pgregory.net/rapid"
)

// A segment is full when the next frame would take it beyond the segment size,
// not before; a frame larger than that stands alone.
func TestWriter_RollRule(t *testing.T) {
	frame := func(position uint64, size int) testFrame {
		e := event.Event{Position: position, Version: 1, Time: 5, Stream: "s", Type: "t"}
		var b FrameBuilder
		b.Reset(position, 1, position, 5)
		b.Add(&e, testSalt(position))
		e.Data = make([]byte, size-len(b.seal()))
		return testFrame{index: position, term: 1, events: []event.Event{e}}
	}
	for _, test := range []struct {
		name  string
		sizes []int
		bases []uint64
	}{
		{"fits exactly", []int{500, 1000 - 64 - 500}, []uint64{1}},
		{"one byte too many", []int{500, 1000 - 64 - 500 + 1}, []uint64{1, 2}},
		{"larger than a segment", []int{5000, 200, 5000, 5000}, []uint64{1, 2, 3, 4}},
		{"alone and full", []int{1000 - 64, 200, 200}, []uint64{1, 2}},
	} {
		var frames []testFrame
		for i, size := range test.sizes {
			frames = append(frames, frame(uint64(i+1), size))
		}
		fs := vfs.NewMem()
		l := createTest(t, fs, 1000, frames)
		var bases []uint64
		for _, s := range l.segments {
			bases = append(bases, s.base)
		}
		if !slices.Equal(bases, test.bases) {
			t.Errorf("%s: segments begin at %d, want %d", test.name, bases, test.bases)
		}
		checkLog(t, l, allEvents(frames))
		closeTest(t, l)
	}
}

// Files follow from frames, segment size and log id, not from when the log was
// synced, closed, opened or read.
func TestWriter_SameFilesWhateverHappens(t *testing.T) {
	frames := testScript(21, 25, 4)
	events := allEvents(frames)
	want := testFiles(t, 1500, frames)
	rapid.Check(t, func(t *rapid.T) {
		fs := vfs.NewMem()
		through := uint64(0)
		var l *Log
		open := func() {
			var err error
			if l, err = Open(Options{FS: fs, Dir: "log", Through: through, Flush: 3000}); err != nil {
				t.Fatal(err)
			}
			if err = l.Cut(); err == nil && through == 0 {
				err = l.Create(testID, 1500)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		open()
		var b FrameBuilder
		for l.Last() < uint64(len(events)) {
			switch rapid.IntRange(0, 24).Draw(t, "step") {
			case 0, 4:
				through = l.Last()
				if err := l.Sync(through); err != nil {
					t.Fatal(err)
				}
			case 1:
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				open()
			case 2:
				if err := readAll(l, events[:l.Last()]); err != nil {
					t.Fatal(err)
				}
			default:
				i := slices.IndexFunc(frames, func(f testFrame) bool { return f.last() > l.Last() })
				frames[i].build(&b)
				if err := l.Append(&b); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if err := sameFiles(filesIn(fs, "log"), want); err != nil {
			t.Fatal(err)
		}
	})
}

func TestWriter_Refuses(t *testing.T) {
	good := event.Event{Position: 4, Version: 1, Time: 100, Stream: "s", Type: "t"}
	huge := good
	huge.Data = make([]byte, maxPayload)
	long := good
	long.Stream = strings.Repeat("x", maxHeader)
	with := func(change func(e *event.Event)) event.Event { e := good; change(&e); return e }
	for _, test := range []struct {
		name string
		do   func(b *FrameBuilder)
		want string
	}{
		{"not begun", func(b *FrameBuilder) { *b = FrameBuilder{}; b.Add(&good, testSalt(4)) }, "not begun"},
		{"position leaves a gap", func(b *FrameBuilder) {
			b.Reset(9, 1, 5, 100)
			e := with(func(e *event.Event) { e.Position = 5 })
			b.Add(&e, testSalt(5))
		}, "does not follow"},
		{"position again", func(b *FrameBuilder) {
			b.Reset(9, 1, 3, 100)
			e := with(func(e *event.Event) { e.Position = 3 })
			b.Add(&e, testSalt(5))
		}, "does not follow"},
		{"event is not the next", func(b *FrameBuilder) {
			b.Reset(9, 1, 4, 100)
			e := with(func(e *event.Event) { e.Position = 5 })
			b.Add(&e, testSalt(5))
		}, "next one of the frame"},
		{"time goes back", func(b *FrameBuilder) {
			b.Reset(9, 1, 4, 1)
			e := with(func(e *event.Event) { e.Time = 1 })
			b.Add(&e, testSalt(4))
		}, "is before that"},
		{"time is not the frame's", func(b *FrameBuilder) { b.Reset(9, 1, 4, 101); b.Add(&good, testSalt(4)) }, "not that of the frame"},
		{"no version", func(b *FrameBuilder) {
			b.Reset(9, 1, 4, 100)
			e := with(func(e *event.Event) { e.Version = 0 })
			b.Add(&e, testSalt(4))
		}, "no version"},
		{"payload too large", func(b *FrameBuilder) { b.Reset(9, 1, 4, 100); b.Add(&huge, testSalt(4)) }, "payload is too large"},
		{"header too large", func(b *FrameBuilder) { b.Reset(9, 1, 4, 100); b.Add(&long, testSalt(4)); b.Add(&good, testSalt(4)) }, "header is too large"},
		{"appended twice", func(b *FrameBuilder) {}, "appended already"},
	} {
		mem := vfs.NewMem()
		l := openTest(t, mem, 0)
		if err := l.Create(testID, 4096); err != nil {
			t.Fatal(err)
		}
		var b FrameBuilder
		b.Reset(8, 1, 1, 50)
		for i := range uint64(3) {
			b.Add(&event.Event{Position: i + 1, Version: i + 1, Time: 50, Stream: "s", Type: "t"}, testSalt(i))
		}
		if err := l.Append(&b); err != nil {
			t.Fatal(err)
		}
		test.do(&b)
		err := l.Append(&b)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: Append = %v, want %q", test.name, err, test.want)
		}
		b.Reset(9, 1, 4, 100)
		b.Add(&good, testSalt(4))
		if err := l.Append(&b); !errors.Is(err, ErrPoisoned) {
			t.Errorf("%s: the next Append = %v", test.name, err)
		}
		if l.Last() != 3 {
			t.Errorf("%s: Last() = %d", test.name, l.Last())
		}
		closeTest(t, l)
	}
}

func TestWriter_Order(t *testing.T) {
	mem := vfs.NewMem()
	frames := testScript(1, 3, 2)
	var b FrameBuilder
	frames[0].build(&b)
	l, err := Open(Options{FS: mem, Dir: "log"})
	if err != nil {
		t.Fatal(err)
	}
	step := func(what string, got, want error) {
		t.Helper()
		if !errors.Is(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	step("Append before Cut", l.Append(&b), ErrNotCut)
	step("Create before Cut", l.Create(testID, 4096), ErrNotCut)
	step("Cut", l.Cut(), nil)
	step("Cut again", l.Cut(), nil)
	step("Append before Create", l.Append(&b), ErrNotCreated)
	for _, size := range []int64{MinSegmentSize - 1, MaxSegmentSize + 1, math.MinInt64} {
		if l.Create(testID, size) == nil {
			t.Errorf("Create with segment size %d", size)
		}
	}
	step("Create", l.Create(testID, 4096), nil)
	if l.Create(testID, 4096) == nil {
		t.Error("Create twice")
	}
	if names, err := mem.List("log"); err != nil || len(names) != 0 {
		t.Errorf("files before the first Append: %v, %v", names, err)
	}
	step("Sync of nothing", l.Sync(0), nil)
	step("Append", l.Append(&b), nil)
	b.Reset(99, 1, l.Last()+1, 1)
	step("Append of no events", l.Append(&b), nil)
	if l.Create(testID, 4096) == nil {
		t.Error("Create of a log with events")
	}
	step("Close", l.Close(), nil)
	step("Close again", l.Close(), nil)
	frames[1].build(&b)
	step("Append after Close", l.Append(&b), ErrClosed)
	step("Sync after Close", l.Sync(1), ErrClosed)
	_, err = l.Read(1)
	step("Read after Close", err, ErrClosed)
	if _, err := Open(Options{Dir: "log"}); err == nil {
		t.Error("Open without a file system")
	}
}

// Time does not go back over a restart, whatever the log ends with.
func TestWriter_TimeAfterReopen(t *testing.T) {
	s := newScene(t)
	for _, through := range []uint64{s.end(1), s.inside(2)} {
		l := openTest(t, placeFiles(t, s.all), through)
		e, err := l.Read(through)
		if err != nil {
			t.Fatal(err)
		}
		var b FrameBuilder
		b.Reset(1000, 1, through+1, e.Time-1)
		b.Add(&event.Event{Position: through + 1, Version: 1, Time: e.Time - 1}, testSalt(1))
		if l.Append(&b) == nil {
			t.Errorf("time went back after position %d", through)
		}
		closeTest(t, l)
	}
}

func TestWriter_ShortWrite(t *testing.T) {
	fs := &countingFS{FS: vfs.NewMem()}
	frames := testScript(1, 3, 2)
	l := createTest(t, fs, 4096, frames[:1])
	defer closeTest(t, l)
	fs.short.Store(true)
	var b FrameBuilder
	frames[1].build(&b)
	if err := l.Append(&b); err == nil || errors.Is(err, ErrPoisoned) {
		t.Errorf("Append = %v", err)
	}
	checkLog(t, l, frames[0].events)
}

// Last is raised when the events are in place, not before.
func TestWriter_PublishesInOrder(t *testing.T) {
	frames := testScript(1, 2, 2)
	l := createTest(t, vfs.NewMem(), 4096, frames[:1])
	defer closeTest(t, l)
	var b FrameBuilder
	frames[1].build(&b)
	l.mu.RLock()
	var appending sync.WaitGroup
	appending.Go(func() {
		if err := l.Append(&b); err != nil {
			t.Error(err)
		}
	})
	for l.mu.TryRLock() { // fails as soon as Append waits for the lock
		l.mu.RUnlock()
		runtime.Gosched()
	}
	if l.Last() != frames[0].last() {
		t.Errorf("Last() = %d while the events are not in place", l.Last())
	}
	l.mu.RUnlock()
	appending.Wait()
	if l.Last() != frames[1].last() {
		t.Errorf("Last() = %d, want %d", l.Last(), frames[1].last())
	}
}

// What an unknown file holds must not show through a new segment.
func TestWriter_FileIsThereAlready(t *testing.T) {
	mem := vfs.NewMem()
	frames := testScript(1, 3, 2)
	l := createTest(t, mem, MinSegmentSize, frames[:1])
	defer closeTest(t, l)
	writeFile(t, mem, "log/"+SegmentName(l.Last()+1), make([]byte, 9000))
	var b FrameBuilder
	frames[1].build(&b)
	if err := l.Append(&b); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Append = %v", err)
	}
}

// A builder allocates nothing once it has its buffers.
func TestFrameBuilder_Allocations(t *testing.T) {
	frames := testScript(1, 1, 1)
	e := &frames[0].events[0]
	var b FrameBuilder
	salt := testSalt(1)
	n := testing.AllocsPerRun(100, func() {
		b.Reset(1, 1, e.Position, e.Time)
		b.Add(e, salt)
		b.seal()
	})
	if n != 0 {
		t.Errorf("%v allocations an event", n)
	}
}

// Sync covers everything that was appended before it, and leaves nothing to do
// for a second one.
func TestSync_OnlyWhatIsNew(t *testing.T) {
	syncs := 0
	count := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSync {
			syncs++
		}
		return nil
	})
	frames := testScript(31, 40, 3)
	l := createTest(t, errorfs.Wrap(vfs.NewMem(), count), 2048, frames)
	defer closeTest(t, l)
	all := l.Unsynced()
	if all == 0 || all != l.Stats().Bytes {
		t.Errorf("Unsynced() = %d of %d bytes", all, l.Stats().Bytes)
	}
	infos := l.Sealed(l.Last())
	if len(infos) < 4 {
		t.Fatalf("only %d sealed segments", len(infos))
	}
	for _, test := range []struct {
		through uint64
		want    int // files, and the directory once
	}{{infos[1].Last, 3}, {infos[1].Last, 0}, {infos[2].Base, 1}, {l.Last(), len(infos) + 1 - 3}, {l.Last(), 0}} {
		syncs = 0
		if err := l.Sync(test.through); err != nil {
			t.Fatal(err)
		}
		if syncs != test.want {
			t.Errorf("Sync(%d) made %d syncs, want %d", test.through, syncs, test.want)
		}
	}
	if l.Unsynced() != 0 {
		t.Errorf("Unsynced() = %d in the end", l.Unsynced())
	}
	for i, f := range testScript(31, 60, 3)[40:] { // the segment is synced in parts
		before := l.Stats().Bytes
		appendFrames(t, l, []testFrame{f})
		if got, want := l.Unsynced(), l.Stats().Bytes-before; got != want {
			t.Errorf("frame %d: Unsynced() = %d, want %d", i, got, want)
		}
		if err := l.Sync(l.Last()); err != nil {
			t.Fatal(err)
		}
	}
}
