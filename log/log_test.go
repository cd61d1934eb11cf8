package eventlog

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"cairn/event"

	"github.com/cockroachdb/pebble/v2/vfs"
)

var testID = LogID{0xca, 0x1e, 0x4d, 15: 7}

// testFrame is one frame of a script: what a state machine would append.
type testFrame struct {
	index, term uint64
	events      []event.Event
}

func (f *testFrame) last() uint64 { return f.events[len(f.events)-1].Position }

func testSalt(position uint64) (s [16]byte) {
	for i := range s {
		s[i] = byte(position) + byte(i)*7
	}
	return s
}

// testScript makes n frames of up to most events. It follows from the seed.
func testScript(seed uint64, n, most int) []testFrame {
	r := rand.New(rand.NewPCG(seed, 1))
	versions := map[string]uint64{}
	var frames []testFrame
	position, index, time := uint64(0), uint64(3), int64(1_700_000_000_000_000_000)
	for range n {
		index += 1 + r.Uint64N(3)
		time += r.Int64N(3) * 1000
		f := testFrame{index: index, term: 1 + index/40}
		count := 1 + r.IntN(most)
		for i := range count {
			position++
			stream := fmt.Sprintf("account-%d", r.IntN(9))
			versions[stream]++
			e := event.Event{
				Position: position, Version: versions[stream], Time: time, Stream: stream, Type: "Deposited",
				ID: fmt.Sprintf("%08x-0000-7000-8000-%012x", r.Uint32(), position), AppendSize: uint32(count), AppendPlace: uint32(i),
				Data: fmt.Appendf(nil, `{"amount":%d,"note":"%0*d"}`, r.IntN(1000), 1+r.IntN(60), 0),
			}
			if r.IntN(3) == 0 {
				e.ID, e.IDChosen, e.Tags = fmt.Sprintf("id %d", position), true, []string{"a:1", fmt.Sprintf("b:%d", r.IntN(5))}
			}
			if r.IntN(4) == 0 {
				e.Meta, e.CorrelationID, e.Schema = []byte(`{"by":"me"}`), "c-17", 3
			}
			f.events = append(f.events, e)
		}
		frames = append(frames, f)
	}
	return frames
}

// build encodes the frame.
func (f *testFrame) build(b *FrameBuilder) {
	b.Reset(f.index, f.term, f.events[0].Position, f.events[0].Time)
	for i := range f.events {
		b.Add(&f.events[i], testSalt(f.events[i].Position))
	}
}

func appendFrames(t testing.TB, l *Log, frames []testFrame) {
	t.Helper()
	var b FrameBuilder
	for i := range frames {
		frames[i].build(&b)
		if err := l.Append(&b); err != nil {
			t.Fatal(err)
		}
	}
}

// openTest opens and cuts a log.
func openTest(t testing.TB, fs vfs.FS, through uint64) *Log {
	t.Helper()
	l, err := Open(Options{FS: fs, Dir: "log", Through: through, Flush: -1})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Cut(); err != nil {
		t.Fatal(err)
	}
	return l
}

// createTest makes a log on fs that holds frames.
func createTest(t testing.TB, fs vfs.FS, segmentSize int64, frames []testFrame) *Log {
	t.Helper()
	l := openTest(t, fs, 0)
	if err := l.Create(testID, segmentSize); err != nil {
		t.Fatal(err)
	}
	appendFrames(t, l, frames)
	return l
}

func closeTest(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func allEvents(frames []testFrame) []event.Event {
	var events []event.Event
	for i := range frames {
		events = append(events, frames[i].events...)
	}
	return events
}

// sameEvent compares as a reader sees it: no tags are nil or empty alike.
func sameEvent(a, b *event.Event) bool {
	return a.Position == b.Position && a.Version == b.Version && a.Time == b.Time && a.Stream == b.Stream &&
		a.Type == b.Type && a.ID == b.ID && a.IDChosen == b.IDChosen && a.Schema == b.Schema &&
		slices.Equal(a.Tags, b.Tags) && a.CorrelationID == b.CorrelationID && a.CausationID == b.CausationID &&
		a.Compensates == b.Compensates && a.ContentType == b.ContentType &&
		bytes.Equal(a.Data, b.Data) && (a.Data == nil) == (b.Data == nil) &&
		bytes.Equal(a.Meta, b.Meta) && (a.Meta == nil) == (b.Meta == nil) &&
		a.AppendSize == b.AppendSize && a.AppendPlace == b.AppendPlace
}

// A field added to Event must be stored, and compared above. UpcastError is not
// stored: readers set it.
func TestEvent_FieldsAreKnown(t *testing.T) {
	if n := reflect.TypeFor[event.Event]().NumField(); n != 18 {
		t.Errorf("event.Event has %d fields", n)
	}
}

// checkLog reads the whole log in every way and compares it with want.
func checkLog(t testing.TB, l *Log, want []event.Event) {
	t.Helper()
	if err := readAll(l, want); err != nil {
		t.Fatal(err)
	}
}

// readAll reads the whole log in every way and compares it with want.
func readAll(l *Log, want []event.Event) error {
	if got := l.Last(); got != uint64(len(want)) {
		return fmt.Errorf("Last() = %d, want %d", got, len(want))
	}
	up := l.Scan(0)
	defer up.Close()
	n := 0
	for up.Next() {
		if n >= len(want) || !sameEvent(up.Event(), &want[n]) {
			return fmt.Errorf("Scan: event %d is %+v", n+1, *up.Event())
		}
		n++
	}
	if up.Err() != nil {
		return up.Err()
	}
	if n != len(want) {
		return fmt.Errorf("Scan: %d events, want %d", n, len(want))
	}
	for i := range want {
		e, err := l.Read(uint64(i + 1))
		if err != nil {
			return err
		}
		if !sameEvent(&e, &want[i]) {
			return fmt.Errorf("Read(%d) = %+v, want %+v", i+1, e, want[i])
		}
	}
	down := l.ScanBack(^uint64(0))
	defer down.Close()
	for down.Next() {
		n--
		if n < 0 || !sameEvent(down.Event(), &want[n]) {
			return fmt.Errorf("ScanBack: event %d is %+v", n+1, *down.Event())
		}
	}
	if down.Err() != nil {
		return down.Err()
	}
	if n != 0 {
		return fmt.Errorf("ScanBack: stopped before position %d", n)
	}
	return nil
}

func TestLog_AppendReadReopen(t *testing.T) {
	fs := vfs.NewMem()
	frames := testScript(1, 60, 5)
	l := createTest(t, fs, 1024, frames)
	events := allEvents(frames)
	checkLog(t, l, events)
	if err := l.Sync(l.Last()); err != nil {
		t.Fatal(err)
	}
	if l.Unsynced() != 0 {
		t.Errorf("Unsynced() = %d after Sync", l.Unsynced())
	}
	if s := l.Stats(); s.Rolls < 5 || s.Segments != int(s.Rolls)+1 {
		t.Errorf("stats %+v: expected more rolls", s)
	}
	closeTest(t, l)
	l = openTest(t, fs, uint64(len(events)))
	checkLog(t, l, events)
	if id, size, ok := l.Identity(); id != testID || size != 1024 || !ok {
		t.Errorf("Identity() = %x, %d, %v", id, size, ok)
	}
	if l.TailIndex() != 0 {
		t.Errorf("TailIndex() = %d, want 0", l.TailIndex())
	}
	closeTest(t, l)
}

func TestLog_CloseWithoutSync(t *testing.T) {
	fs := &countingFS{FS: vfs.NewMem()}
	l := createTest(t, fs, MinSegmentSize, testScript(1, 20, 2))
	if n := fs.open.Load(); n < 10 {
		t.Errorf("only %d files are open", n)
	}
	closeTest(t, l)
	if n := fs.open.Load(); n != 0 {
		t.Errorf("%d files are open after Close", n)
	}
}

// The same on a real file system, from a folder that does not exist on.
func TestLog_OnDisk(t *testing.T) {
	dir := vfs.Default.PathJoin(t.TempDir(), "gen-000001", "log")
	frames := testScript(1, 60, 5)
	want := testFiles(t, 4096, frames)
	through := uint64(0)
	for _, until := range []int{20, 40, len(frames)} {
		l, err := Open(Options{FS: vfs.Default, Dir: dir, Through: through, Flush: 500})
		if err != nil {
			t.Fatal(err)
		}
		if err = l.Cut(); err == nil && through == 0 {
			err = l.Create(testID, 4096)
		}
		if err != nil {
			t.Fatal(err)
		}
		var b FrameBuilder
		for i := range frames[:until] {
			if frames[i].last() <= l.Last() {
				continue
			}
			frames[i].build(&b)
			if err := l.Append(&b); err != nil {
				t.Fatal(err)
			}
			if i == until-10 { // the rest is cut and appended again
				through = l.Last()
				if err := l.Sync(through); err != nil {
					t.Fatal(err)
				}
			}
		}
		checkLog(t, l, allEvents(frames[:until]))
		closeTest(t, l)
	}
	got := make(map[string][]byte)
	names, err := vfs.Default.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		got[name] = readFile(t, vfs.Default, vfs.Default.PathJoin(dir, name))
	}
	if err := sameFiles(got, want); err != nil {
		t.Error(err)
	}
}

// writeFile puts a file on fs, durably.
func writeFile(t testing.TB, fs vfs.FS, path string, b []byte) {
	t.Helper()
	d, err := openDirectory(fs, fs.PathDir(path))
	if err != nil {
		t.Fatal(err)
	}
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = f.Write(bytes.Clone(b)); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = d.sync()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// readFile returns what a file holds.
func readFile(t testing.TB, fs vfs.FS, path string) []byte {
	t.Helper()
	f, err := fs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// files returns all files of a log.
func files(t testing.TB, fs vfs.FS) map[string][]byte {
	t.Helper()
	names, err := fs.List("log")
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string][]byte)
	for _, name := range names {
		all[name] = readFile(t, fs, fs.PathJoin("log", name))
	}
	return all
}

// sameFiles says in which file two logs differ.
func sameFiles(got, want map[string][]byte) error {
	for name := range got {
		if _, ok := want[name]; !ok {
			return fmt.Errorf("file %s should not be there", name)
		}
	}
	for name, b := range want {
		if !bytes.Equal(got[name], b) {
			return fmt.Errorf("file %s has %d bytes that differ from the %d expected", name, len(got[name]), len(b))
		}
	}
	return nil
}
