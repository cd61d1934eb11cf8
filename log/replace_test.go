package eventlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// damagedLog is a durable log, one of whose sealed segments has a wrong byte.
type damagedLog struct {
	*Log
	fs   vfs.FS
	name string // of the damaged segment
	base uint64 // position of an event in it
	good []byte // what it should hold
	at   int64  // of the wrong byte
}

func newDamagedLog(t *testing.T, fs vfs.FS, frames []testFrame) *damagedLog {
	t.Helper()
	l := createTest(t, fs, 700, frames)
	if err := l.Sync(l.Last()); err != nil {
		t.Fatal(err)
	}
	sealed := l.Sealed(l.Last())
	if len(sealed) < 4 {
		t.Fatalf("only %d sealed segments", len(sealed))
	}
	d := &damagedLog{Log: l, fs: fs, name: sealed[1].Name, base: sealed[1].Base, good: contents(t, fs, "log/"+sealed[1].Name), at: 200}
	d.damage(t)
	return d
}

// damage changes a byte of the file in its place, as a disk does.
func (d *damagedLog) damage(t *testing.T) {
	t.Helper()
	f, err := d.fs.OpenReadWrite("log/"+d.name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte{d.good[d.at] ^ 8}, d.at)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// arrive puts a file with the segment's name into the folder in.
func (d *damagedLog) arrive(t *testing.T, b []byte) string {
	t.Helper()
	err := d.fs.MkdirAll("in", 0o755)
	if err == nil {
		err = put(d.fs, "in/"+d.name, b)
	}
	if err != nil {
		t.Fatal(err)
	}
	return "in/" + d.name
}

func put(fs vfs.FS, path string, b []byte) error {
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(bytes.Clone(b))
	return errors.Join(err, f.Sync(), f.Close())
}

func contents(t *testing.T, fs vfs.FS, path string) []byte {
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

func TestReplace_DamagedSegment(t *testing.T) {
	frames := testScript(11, 60, 3)
	counting := &countingFS{FS: vfs.NewMem()}
	d := newDamagedLog(t, counting, frames)
	var damage *CorruptError
	if err := d.VerifySealed(counting, d.name); !errors.As(err, &damage) || !strings.HasSuffix(damage.File, d.name) {
		t.Fatalf("verify: %v", err)
	}
	// One who has the damaged file open reads on in it; nobody else does.
	open, err := d.handles.acquire(d.base)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Replace(d.name, d.arrive(t, d.good)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 1)
	if _, err := open.file.ReadAt(got, d.at); err != nil || got[0] != d.good[d.at]^8 {
		t.Errorf("the file that was open: %x, %v", got, err)
	}
	before := counting.open.Load()
	if d.handles.release(open); counting.open.Load() != before-1 {
		t.Error("the damaged file was left open")
	}
	if err := d.VerifySealed(counting, d.name); err != nil {
		t.Errorf("verify: %v", err)
	}
	for _, e := range allEvents(frames) {
		if _, err := d.Read(e.Position); err != nil {
			t.Fatalf("read %d: %v", e.Position, err)
		}
	}
	if _, err := counting.Stat("in/" + d.name); err == nil {
		t.Error("the file is still where it arrived")
	}
	if err := d.Replace(d.name, d.arrive(t, d.good)); err != nil { // once more does no harm
		t.Error(err)
	}
	closeTest(t, d.Log)
	closeTest(t, openTest(t, counting, uint64(len(allEvents(frames)))))
	if n := counting.open.Load(); n != 0 {
		t.Errorf("%d files were left open", n)
	}
}

// A scan that is in the middle of the segment goes on when that is replaced, and
// meets no damage behind.
func TestReplace_ScanGoesOn(t *testing.T) {
	frames := testScript(11, 60, 3)
	events := allEvents(frames)
	fs := vfs.NewMem()
	d := newDamagedLog(t, fs, frames)
	defer closeTest(t, d.Log)
	s := d.Scan(1)
	defer s.Close()
	for s.Next() {
		if s.Event().Position == d.base-1 {
			if err := d.Replace(d.name, d.arrive(t, d.good)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if s.Err() != nil || s.next != uint64(len(events))+1 {
		t.Errorf("the scan ended at %d of %d: %v", s.next, len(events), s.Err())
	}
}

// afterOpen calls then once, when a file of this name was opened.
type afterOpen struct {
	vfs.FS
	name string
	then func()
}

func (fs *afterOpen) Open(name string, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := fs.FS.Open(name, o...)
	if then := fs.then; then != nil && name == fs.name {
		fs.then = nil
		then()
	}
	return f, err
}

// A reader that has just opened the damaged file when it is replaced must not
// keep it for those after him.
func TestReplace_WhileAReaderOpens(t *testing.T) {
	fs := &afterOpen{FS: vfs.NewMem()}
	d := newDamagedLog(t, fs, testScript(11, 60, 3))
	defer closeTest(t, d.Log)
	d.handles.drop(d.base)
	fs.name, fs.then = "log/"+d.name, func() {
		if err := d.Replace(d.name, d.arrive(t, d.good)); err != nil {
			t.Error(err)
		}
	}
	h, err := d.handles.acquire(d.base)
	if err != nil {
		t.Fatal(err)
	}
	defer d.handles.release(h)
	got := make([]byte, len(d.good))
	if _, err := h.file.ReadAt(got, 0); err != nil || !bytes.Equal(got, d.good) {
		t.Errorf("it has the damaged file, %v", err)
	}
}

func TestReplace_RefusesTheWrongFile(t *testing.T) {
	fs := vfs.NewMem()
	frames := testScript(11, 60, 3)
	d := newDamagedLog(t, fs, frames)
	defer closeTest(t, d.Log)
	sealed := d.Sealed(d.Last())
	other := testScript(11, 60, 3)
	for i := range other { // whole, of the same length, but not what was sealed
		other[i].term += 7
	}
	var foreign []byte
	for name, b := range testFiles(t, 700, other) {
		if name == d.name {
			foreign = b
		}
	}
	short := d.good[:len(d.good)-5]
	for what, b := range map[string][]byte{
		"damaged": contents(t, fs, "log/"+d.name), "cut short": short, "empty": nil,
		"the next segment": contents(t, fs, "log/"+sealed[2].Name), "of another log": foreign,
	} {
		var damage *CorruptError
		path := d.arrive(t, b)
		if err := d.Replace(d.name, path); !errors.As(err, &damage) || damage.File != path {
			t.Errorf("%s: got %v", what, err)
		}
		if got := contents(t, fs, "log/"+d.name); bytes.Equal(got, b) && what != "damaged" {
			t.Errorf("%s: it took the segment's place", what)
		}
	}
	for _, name := range []string{"../" + d.name, "x", "", SegmentName(d.base + 1), SegmentName(sealed[len(sealed)-1].Last + 1), SegmentName(1 << 40)} {
		if err := d.Replace(name, d.arrive(t, d.good)); !errors.Is(err, ErrNotFound) {
			t.Errorf("replace %q: %v", name, err)
		}
		if err := d.VerifySealed(fs, name); !errors.Is(err, ErrNotFound) {
			t.Errorf("verify %q: %v", name, err)
		}
	}
	if err := d.Replace(d.name, "in/missing"); err == nil {
		t.Error("a missing file was taken")
	}
}

// What is sealed but not durable yet is not looked at: its bytes may still be on
// their way.
func TestReplace_NotDurable(t *testing.T) {
	fs := vfs.NewMem()
	l := createTest(t, fs, 700, testScript(11, 60, 3))
	defer closeTest(t, l)
	name := l.Sealed(l.Last())[1].Name
	if err := l.VerifySealed(fs, name); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v, want %v", err, ErrNotFound)
	}
	if err := l.Sync(l.Last()); err != nil {
		t.Fatal(err)
	}
	if err := l.VerifySealed(fs, name); err != nil {
		t.Error(err)
	}
}

// A crash leaves the damaged segment or the whole one, and when Replace has
// returned, the whole one.
func TestCrash_Replace(t *testing.T) {
	const seed = 5
	mem := vfs.NewCrashableMem()
	frames := testScript(11, 60, 3)
	d := newDamagedLog(t, mem, frames)
	path := d.arrive(t, d.good)
	for _, dir := range []string{"in", ""} {
		f, err := mem.OpenDir(dir)
		if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	done, seenOld, seenNew, crashes := false, 0, 0, uint64(0)
	crash := func(at string) {
		for _, percent := range []int{0, 10, 50, 100} {
			crashes++
			clone := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(seed, crashes))})
			b := contents(t, clone, "log/"+d.name)
			switch {
			case bytes.Equal(b, d.good):
				seenNew++
			case !done && len(b) == len(d.good):
				seenOld++
			default:
				t.Fatalf("crash before %s, %d%% kept: neither the old nor the new one", at, percent)
			}
			closeTest(t, openTest(t, clone, uint64(len(allEvents(frames)))))
		}
	}
	d.dir.fs = errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			crash(fmt.Sprintf("kind %d on %s", op.Kind, op.Path))
		}
		return nil
	}))
	if err := d.Replace(d.name, path); err != nil {
		t.Fatal(err)
	}
	done = true
	crash("the end")
	if seenOld == 0 || seenNew == 0 {
		t.Errorf("old seen %d times, new %d", seenOld, seenNew)
	}
	d.dir.fs = mem
	closeTest(t, d.Log)
}

func TestPrefixTo(t *testing.T) {
	fs := vfs.NewMem()
	frames := testScript(11, 60, 3)
	d := newDamagedLog(t, fs, frames)
	defer closeTest(t, d.Log)
	sealed := d.Sealed(d.Last())
	inside := 0
	for position := sealed[2].Base; position < sealed[len(sealed)-1].Last; position++ {
		name := sealed[slices.IndexFunc(sealed, func(s SegmentInfo) bool { return position <= s.Last })].Name
		path := "log/" + name
		size, err := PrefixTo(fs, path, position)
		if slices.ContainsFunc(frames, func(f testFrame) bool { return f.last() == position }) {
			_, want, aerr := d.ActiveAt(position)
			if err != nil || aerr != nil || size != want {
				t.Errorf("up to %d: %d bytes, %v, want %d, %v", position, size, err, want, aerr)
			}
			if err := VerifyPrefix(fs, path, size); err != nil {
				t.Errorf("up to %d: %v", position, err)
			}
			continue
		}
		inside++
		if !isCorrupt(err) {
			t.Errorf("up to %d, which ends no frame: %v", position, err)
		}
	}
	if inside == 0 {
		t.Error("all frames have one event")
	}
	for at, position := range map[string]uint64{"log/" + sealed[2].Name: sealed[2].Last + 1, "log/" + d.name: sealed[1].Last, "log/x": 1} {
		if _, err := PrefixTo(fs, at, position); !isCorrupt(err) {
			t.Errorf("%s up to %d: %v", at, position, err)
		}
	}
	if size, err := PrefixTo(fs, "log/"+sealed[0].Name, 0); err != nil || size != segmentHeaderSize {
		t.Errorf("up to nothing: %d, %v", size, err)
	}
}
