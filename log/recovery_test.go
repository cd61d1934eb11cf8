package eventlog

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// testFiles returns the files of a log that holds frames.
func testFiles(t testing.TB, segmentSize int64, frames []testFrame) map[string][]byte {
	t.Helper()
	fs := vfs.NewMem()
	l := createTest(t, fs, segmentSize, frames)
	defer closeTest(t, l)
	return files(t, fs)
}

// place puts files on a new file system.
func placeFiles(t testing.TB, all map[string][]byte) vfs.FS {
	t.Helper()
	fs := vfs.NewMem()
	if err := fs.MkdirAll("log", 0o755); err != nil {
		t.Fatal(err)
	}
	for name, b := range all {
		writeFile(t, fs, fs.PathJoin("log", name), b)
	}
	return fs
}

// The log is cut after each frame and goes on from there: the files are those
// of a log that was never cut.
func TestRecovery_CutAnywhere(t *testing.T) {
	frames := testScript(2, 40, 3)
	events := allEvents(frames)
	want := testFiles(t, 1500, frames)
	names := slices.Sorted(maps.Keys(want))
	var unsealed, ended, rewritten int
	for n := 0; n <= len(frames); n++ {
		fs := placeFiles(t, want)
		through := uint64(0)
		if n > 0 {
			through = frames[n-1].last()
		}
		l, err := Open(Options{FS: fs, Dir: "log", Through: through, Flush: -1})
		if err != nil {
			t.Fatalf("Open through %d: %v", through, err)
		}
		tail := frames[len(frames)-1].index
		if n == len(frames) {
			tail = 0
		}
		if l.TailIndex() != tail {
			t.Errorf("TailIndex through %d = %d, want %d", through, l.TailIndex(), tail)
		}
		checkLog(t, l, events[:through])
		if l.todo.footer {
			ended++
		}
		if l.todo.rewrite {
			rewritten++
			if i := slices.Index(names, SegmentName(l.active.base)); i+1 < len(names) {
				unsealed++
			}
		}
		if err := l.Cut(); err != nil {
			t.Fatal(err)
		}
		checkLog(t, l, events[:through])
		checkNothingLeft(t, l, fs, through)
		if n == 0 {
			if _, _, ok := l.Identity(); ok {
				t.Error("a log that was cut to nothing has an identity")
			}
			if err := l.Create(testID, 1500); err != nil {
				t.Fatal(err)
			}
		}
		if l.Unsynced() != 0 {
			t.Errorf("Unsynced() = %d after Cut", l.Unsynced())
		}
		appendFrames(t, l, frames[n:])
		checkLog(t, l, events)
		if err := l.Sync(l.Last()); err != nil || l.Unsynced() != 0 {
			t.Errorf("Sync = %v, Unsynced() = %d", err, l.Unsynced())
		}
		closeTest(t, l)
		if err := sameFiles(files(t, fs), want); err != nil {
			t.Errorf("cut after position %d: %v", through, err)
		}
	}
	if unsealed == 0 || ended == 0 || rewritten <= unsealed {
		t.Errorf("the script is too tame: %d unsealed, %d ended with a segment, %d rewritten", unsealed, ended, rewritten)
	}
}

// checkNothingLeft checks that the files hold what stands up to through, and no
// more but a footer.
func checkNothingLeft(t *testing.T, l *Log, fs vfs.FS, through uint64) {
	t.Helper()
	active, length, err := l.ActiveAt(through)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int64{}
	for _, info := range l.Sealed(through) {
		want[info.Name] = info.Size
	}
	if active != "" {
		want[active] = length
		if n := len(l.segments); l.segments[n-1].sealed {
			want[active] = l.segments[n-1].size
		}
	}
	got := map[string]int64{}
	for name, b := range files(t, fs) {
		got[name] = int64(len(b))
	}
	if !maps.Equal(got, want) {
		t.Errorf("files after cutting at %d: %v, want %v", through, got, want)
	}
}

// A client chooses the last bytes of an active segment: they may look like the
// footer of it.
func TestRecovery_ForgedFooter(t *testing.T) {
	frames := testScript(11, 40, 3)
	const n = 6
	e := &frames[n].events[len(frames[n].events)-1]
	forged := trailer{first: 1, last: e.Position, lastTime: 1}
	offsets := make([]uint32, e.Position)
	e.ContentType, e.Meta, e.Data = "x", nil, appendFooter(nil, &forged, offsets)
	for i := range offsets {
		offsets[i] = segmentHeaderSize + frameHeaderSize
	}
	size := int64(len(testFiles(t, 1<<20, frames[:n+1])[SegmentName(1)]))
	forged.footer = size - int64(len(e.Data))
	e.Data = appendFooter(nil, &forged, offsets)

	want := testFiles(t, 1<<20, frames)
	all := testFiles(t, 1<<20, frames[:n+1])
	b := all[SegmentName(1)]
	if _, err := decodeTrailer(b[len(b)-trailerSize:], size); err != nil {
		t.Fatalf("not well forged: %v", err)
	}
	fs := placeFiles(t, all)
	l := openTest(t, fs, e.Position)
	checkLog(t, l, allEvents(frames[:n+1]))
	appendFrames(t, l, frames[n+1:])
	checkLog(t, l, allEvents(frames))
	closeTest(t, l)
	if err := sameFiles(files(t, fs), want); err != nil {
		t.Error(err)
	}
	if _, err := VerifySegment(placeFiles(t, all), "log/"+SegmentName(1)); !isCorrupt(err) {
		t.Errorf("VerifySegment = %v", err)
	}
}

// A footer may be read from memory that never reached the disk. The next
// process that relies on it must write it again.
func TestRecovery_FooterWasNotDurable(t *testing.T) {
	s := newScene(t)
	through := s.end(0)
	first := slices.IndexFunc(s.frames, func(f testFrame) bool { return f.events[0].Position > through })
	mem := vfs.NewCrashableMem()
	l := createTest(t, mem, 1800, s.frames[:first])
	if err := l.Sync(through); err != nil {
		t.Fatal(err)
	}
	appendFrames(t, l, s.frames[first:first+1]) // seals the first segment
	if l.Stats().Rolls != 1 {
		t.Fatalf("%d rolls", l.Stats().Rolls)
	}
	closeTest(t, l)
	l = openTest(t, mem, through)
	appendFrames(t, l, s.frames[first:])
	last := l.Last()
	if err := l.Sync(last); err != nil {
		t.Fatal(err)
	}
	closeTest(t, l)
	l = openTest(t, mem.CrashClone(vfs.CrashCloneCfg{}), last)
	checkLog(t, l, allEvents(s.frames))
	closeTest(t, l)
}

func TestRecovery_SavepointInsideFrame(t *testing.T) {
	frames := testScript(5, 6, 4)
	all := testFiles(t, 4096, frames)
	ends := map[uint64]bool{0: true}
	for i := range frames {
		ends[frames[i].last()] = true
	}
	tried := 0
	for through := uint64(1); through < frames[len(frames)-1].last(); through++ {
		if ends[through] {
			continue
		}
		tried++
		_, err := Open(Options{FS: placeFiles(t, all), Dir: "log", Through: through, Flush: -1})
		if !isCorrupt(err) {
			t.Errorf("Open through %d = %v", through, err)
		}
	}
	if tried == 0 {
		t.Error("no frame of two events")
	}
}

// scene is a log of several segments and how it was damaged.
type scene struct {
	all    map[string][]byte
	names  []string // of the segments, ascending
	frames []testFrame
}

func newScene(t *testing.T) scene {
	frames := testScript(11, 40, 3)
	s := scene{all: testFiles(t, 1800, frames), frames: frames}
	s.names = slices.Sorted(maps.Keys(s.all))
	if len(s.names) < 5 {
		t.Fatalf("only %d segments", len(s.names))
	}
	return s
}

// ends returns the last position of each segment but the last.
func (s *scene) end(i int) uint64 {
	base, _ := parseSegmentName(s.names[i+1])
	return base - 1
}

// inside returns the end of a frame inside segment i, the first one.
func (s *scene) inside(i int) uint64 {
	base, _ := parseSegmentName(s.names[i])
	for _, f := range s.frames {
		if f.events[0].Position == base {
			return f.last()
		}
	}
	panic("no frame begins the segment")
}

func TestRecovery_Damage(t *testing.T) {
	cutShort := func(i, n int) func(*scene) {
		return func(s *scene) { s.all[s.names[i]] = s.all[s.names[i]][:n] }
	}
	without := func(i ...int) func(*scene) {
		return func(s *scene) {
			for _, i := range i {
				delete(s.all, s.names[i])
			}
		}
	}
	shorten := func(i, n int) func(*scene) {
		return func(s *scene) { b := s.all[s.names[i]]; s.all[s.names[i]] = b[:len(b)-n] }
	}
	zero := func(i, from, n int) func(*scene) {
		return func(s *scene) {
			b := s.all[s.names[i]]
			if from < 0 {
				from += len(b)
			}
			clear(b[from : from+n])
		}
	}
	end, inside := (*scene).end, (*scene).inside
	for _, test := range []struct {
		name    string
		damage  func(*scene)
		through func(*scene, int) uint64
		segment int
		corrupt string // part of the error; "" = can be cut
	}{
		{"new file is empty", cutShort(2, 0), end, 1, ""},
		{"header of the new file is torn", cutShort(2, 40), end, 1, ""},
		{"new file has its header only", cutShort(2, 64), end, 1, ""},
		{"first frame of the new file is torn", cutShort(2, 130), end, 1, ""},
		{"footer is not there, next file is", shorten(1, 112), end, 1, ""},
		{"footer is torn in its trailer", shorten(1, 50), end, 1, ""},
		{"footer is torn in its table", zero(1, -114, 2), end, 1, ""},
		{"footer is zero", zero(1, -112, 112), end, 1, ""},
		{"footer is torn and savepoint inside", shorten(1, 7), inside, 1, ""},
		{"savepoint inside a sealed segment", func(*scene) {}, inside, 1, ""},
		{"later file is missing", without(3), inside, 2, ""},
		{"all later files are missing", without(2, 3, 4), end, 1, ""},
		{"everything is missing", func(s *scene) { clear(s.all) }, func(*scene, int) uint64 { return 0 }, 0, ""},
		{"first file is missing, nothing promised", without(0), func(*scene, int) uint64 { return 0 }, 0, ""},

		{"everything promised is missing", func(s *scene) { clear(s.all) }, inside, 0, "is missing"},
		{"first file is missing", without(0), end, 2, "is missing"},
		{"file in the middle is missing", without(1), end, 2, "is missing"},
		{"file of the savepoint is missing", without(2), end, 2, "the savepoint is at"},
		{"file of the savepoint and later are missing", without(2, 3, 4), end, 2, "the savepoint is at"},
		{"file of the savepoint is empty", cutShort(2, 0), end, 2, "ends too early"},
		{"file of the savepoint is torn", cutShort(2, 300), end, 2, "ends too early"},
		{"file of the savepoint has its header only", cutShort(2, 64), end, 2, "the savepoint is at"},
		{"footer is missing before the savepoint", shorten(1, 112), inside, 2, "no footer"},
		{"trailer is zero before the savepoint", zero(1, -112, 112), inside, 2, "no footer"},
		{"header is zero", zero(1, 0, 64), end, 2, "not a segment"},
		{"frame of the savepoint is zero", zero(2, 64, 48), inside, 2, "not a frame"},
		{"a file of another log", func(s *scene) {
			h := segmentHeader{logID: LogID{1}, segmentSize: 1800}
			h.base, _ = parseSegmentName(s.names[1])
			b := h.encode()
			copy(s.all[s.names[1]], b[:])
		}, end, 2, "log id"},
		{"a file under another name", func(s *scene) { s.all[s.names[1]] = s.all[s.names[2]] }, end, 2, "base position"},
		{"a file that overlaps", func(s *scene) { s.all[SegmentName(2)] = s.all[s.names[1]] }, end, 2, "the file before ends"},
	} {
		t.Run(strings.ReplaceAll(test.name, " ", "_"), func(t *testing.T) {
			s := newScene(t)
			want := maps.Clone(s.all)
			for name, b := range s.all {
				s.all[name] = bytes.Clone(b)
			}
			through := test.through(&s, test.segment)
			test.damage(&s)
			fs := placeFiles(t, s.all)
			l, err := Open(Options{FS: fs, Dir: "log", Through: through, Flush: -1})
			if test.corrupt != "" {
				var c *CorruptError
				if !errors.As(err, &c) || !strings.Contains(c.Reason, test.corrupt) || c.File == "" {
					t.Fatalf("Open = %v, want a CorruptError with %q", err, test.corrupt)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer closeTest(t, l)
			goOn(t, l, fs, s.frames, through, want)
		})
	}
}

// goOn cuts the log, appends the frames after through and compares the files.
func goOn(t *testing.T, l *Log, fs vfs.FS, frames []testFrame, through uint64, want map[string][]byte) {
	t.Helper()
	if err := l.Cut(); err != nil {
		t.Fatal(err)
	}
	if through == 0 {
		if err := l.Create(testID, 1800); err != nil {
			t.Fatal(err)
		}
	}
	i := slices.IndexFunc(frames, func(f testFrame) bool { return f.last() > through })
	appendFrames(t, l, frames[i:])
	checkLog(t, l, allEvents(frames))
	if err := sameFiles(files(t, fs), want); err != nil {
		t.Error(err)
	}
}

// Raft must not have lost a frame that is intact, wherever it stands after P.
func TestRecovery_TailIndex(t *testing.T) {
	s := newScene(t)
	last := s.frames[len(s.frames)-1].index
	through := s.end(0)
	indexBefore := func(position uint64) uint64 {
		index := uint64(0)
		for _, f := range s.frames {
			if f.last() <= position {
				index = f.index
			}
		}
		return index
	}
	for _, test := range []struct {
		name    string
		through uint64
		damage  func(all map[string][]byte)
		want    uint64
	}{
		{"whole", through, func(map[string][]byte) {}, last},
		{"hole after the savepoint", through, func(all map[string][]byte) { delete(all, s.names[1]) }, last},
		{"hole", through, func(all map[string][]byte) { delete(all, s.names[2]) }, last},
		{"last frame torn", through, func(all map[string][]byte) {
			name := s.names[len(s.names)-1]
			all[name] = all[name][:len(all[name])-1]
		}, s.frames[len(s.frames)-2].index},
		{"payload of the next frame torn", through, func(all map[string][]byte) {
			for _, name := range s.names[2:] {
				delete(all, name)
			}
			b := bytes.Clone(all[s.names[1]])
			r, err := decodeRecord(b[segmentHeaderSize+frameHeaderSize:])
			if err != nil {
				t.Fatal(err)
			}
			b[segmentHeaderSize+frameHeaderSize+len(r.head)+4+saltSize+5] ^= 1
			all[s.names[1]] = b
		}, 0},
		{"one segment", through, func(all map[string][]byte) {
			for _, name := range s.names[2:] {
				delete(all, name)
			}
		}, indexBefore(s.end(1))},
		{"inside a sealed segment", s.inside(1), func(all map[string][]byte) {
			for _, name := range s.names[2:] {
				delete(all, name)
			}
		}, indexBefore(s.end(1))},
	} {
		all := maps.Clone(s.all)
		test.damage(all)
		l, err := Open(Options{FS: placeFiles(t, all), Dir: "log", Through: test.through, Flush: -1})
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		if l.TailIndex() != test.want {
			t.Errorf("%s: TailIndex() = %d, want %d", test.name, l.TailIndex(), test.want)
		}
		closeTest(t, l)
	}
}

func TestRecovery_FormatFromTheFuture(t *testing.T) {
	s := newScene(t)
	for _, i := range []int{0, 2, 4} { // before, with and after the savepoint
		all := maps.Clone(s.all)
		b := bytes.Clone(all[s.names[i]])
		b[8] = 2
		sum := crc(0, b[:60])
		b[60], b[61], b[62], b[63] = byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)
		all[s.names[i]] = b
		_, err := Open(Options{FS: placeFiles(t, all), Dir: "log", Through: s.inside(2), Flush: -1})
		if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), s.names[i]) {
			t.Errorf("segment %d: %v", i, err)
		}
	}
}

// Open reads header and trailer of old segments alone.
func TestRecovery_OpenReadsLittle(t *testing.T) {
	s := newScene(t)
	last := s.frames[len(s.frames)-1].last()
	fs := &countingFS{FS: placeFiles(t, s.all)}
	l, err := Open(Options{FS: fs, Dir: "log", Through: last, Flush: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer closeTest(t, l)
	sealed := int64(len(s.names) - 1)
	want := sealed*(segmentHeaderSize+trailerSize) + int64(len(s.all[s.names[sealed]])) + segmentHeaderSize + trailerSize
	if got := fs.read.Load(); got > want || got == 0 {
		t.Errorf("Open read %d bytes, want at most %d", got, want)
	}
}
