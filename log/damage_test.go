package eventlog

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"cairn/event"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// promised returns how many bytes of a file belong to positions up to through.
func promised(t *testing.T, all map[string][]byte, name string, through uint64) int {
	t.Helper()
	base, _ := parseSegmentName(name)
	if base > through {
		return 0
	}
	next := slices.IndexFunc(slices.Sorted(maps.Keys(all)), func(n string) bool { return n > name })
	if next >= 0 {
		following, _ := parseSegmentName(slices.Sorted(maps.Keys(all))[next])
		if following <= through {
			return len(all[name])
		}
	}
	b := all[name]
	k := walker{window: window{file: bytes.NewReader(b)}, off: segmentHeaderSize, limit: int64(len(b))}
	defer k.release()
	for last := base - 1; last < through; last = k.frame.last() {
		if _, err := k.whole(last+1, 0, nil); err != nil {
			t.Fatal(err)
		}
	}
	return int(k.off)
}

// Every bit of a log is flipped, one at a time. What is promised is refused or
// read as it was written; what is not is cut.
func TestDamage_EveryBit(t *testing.T) {
	frames := testScript(4, 6, 2)
	events := allEvents(frames)
	all := testFiles(t, 500, frames)
	if len(all) < 3 {
		t.Fatalf("only %d segments", len(all))
	}
	names := slices.Sorted(maps.Keys(all))
	middle, _ := parseSegmentName(names[2])
	inside := frames[slices.IndexFunc(frames, func(f testFrame) bool { return f.events[0].Position == middle })].last()
	for _, through := range []uint64{uint64(len(events)), middle - 1, inside} {
		var refused, unreadable, cut int
		step := stride
		if through < uint64(len(events)) {
			step *= 5
		}
		for name, b := range all {
			keep := promised(t, all, name, through)
			for bit := 0; bit < len(b)*8; bit += step {
				b[bit/8] ^= 1 << (bit % 8)
				switch err := openAndRead(all, through, events); {
				case err == nil && bit/8 >= keep:
					cut++
				case err == nil:
					t.Fatalf("through %d: bit %d of byte %d of %s is not noticed", through, bit%8, bit/8, name)
				case bit/8 >= keep || !isCorrupt(err):
					t.Fatalf("through %d: bit %d of byte %d of %s: %v", through, bit%8, bit/8, name, err)
				case errors.Is(err, errRead):
					unreadable++
				default:
					refused++
				}
				b[bit/8] ^= 1 << (bit % 8)
			}
		}
		t.Logf("through %d: %d bits refused by Open, %d by reads, %d cut", through, refused, unreadable, cut)
		if refused == 0 || unreadable == 0 || (cut == 0) != (through == uint64(len(events))) {
			t.Errorf("through %d: a kind of damage was not met", through)
		}
	}
}

var errRead = errors.New("noticed by a read")

func openAndRead(all map[string][]byte, through uint64, events []event.Event) error {
	fs := vfs.NewMem()
	if err := fs.MkdirAll("log", 0o755); err != nil {
		return err
	}
	for name, b := range all {
		f, err := fs.Create("log/"+name, vfs.WriteCategoryUnspecified)
		if err != nil {
			return err
		}
		if _, err := f.Write(bytes.Clone(b)); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	l, err := Open(Options{FS: fs, Dir: "log", Through: through, Flush: -1})
	if err != nil {
		return err
	}
	defer l.Close()
	if err := l.Cut(); err != nil {
		return err
	}
	if err := readAll(l, events[:through]); err != nil {
		return fmt.Errorf("%w: %w", errRead, err)
	}
	return nil
}

// A payload whose CRC was made to match is told by its digest.
func TestDamage_Digest(t *testing.T) {
	frames := testScript(4, 9, 2)
	last := frames[len(frames)-1].last()
	all := testFiles(t, 1000, frames)
	name := SegmentName(1)
	record := all[name][segmentHeaderSize+frameHeaderSize:]
	_, size, err := recordSizes(record)
	if err != nil {
		t.Fatal(err)
	}
	record[size-2] ^= 1
	mendRecord(record)
	l := openTest(t, placeFiles(t, all), last)
	defer closeTest(t, l)
	up, back := l.Scan(1), l.ScanBack(1)
	defer up.Close()
	defer back.Close()
	_, err1 := l.Read(1)
	_, err2 := l.ReadRecord(1)
	_, err3 := VerifySegment(l.dir.fs, "log/"+name)
	if up.Next() || back.Next() {
		t.Error("a scan returns the event")
	}
	for i, err := range []error{err1, err2, err3, up.Err(), back.Err()} {
		if !isCorrupt(err) {
			t.Errorf("%d: %v", i, err)
		}
	}
}

// checkTrailer compares a footer with the frames of the segment.
func checkTrailer(t *testing.T, b []byte, info SegmentInfo, frames []testFrame) {
	t.Helper()
	got, err := decodeTrailer(b[len(b)-trailerSize:], int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	var first, last *testFrame
	for i := range frames {
		if frames[i].events[0].Position == info.Base {
			first = &frames[i]
		}
		if frames[i].last() == info.Last {
			last = &frames[i]
		}
	}
	want := trailer{
		first: info.Base, last: info.Last, firstTime: first.events[0].Time, lastTime: last.events[0].Time,
		firstIndex: first.index, lastIndex: last.index, hash: info.Hash, footer: got.footer, tableCRC: got.tableCRC,
	}
	if got != want {
		t.Errorf("%s: footer %+v, want %+v", info.Name, got, want)
	}
}

func TestVerifySegment(t *testing.T) {
	frames := testScript(4, 9, 2)
	all := testFiles(t, 1000, frames)
	fs := placeFiles(t, all)
	l := openTest(t, fs, frames[len(frames)-1].last())
	defer closeTest(t, l)
	infos := l.Sealed(l.Last())
	if len(infos) < 2 || len(infos) != len(all)-1 {
		t.Fatalf("%d sealed segments of %d", len(infos), len(all))
	}
	for _, want := range infos {
		path := "log/" + want.Name
		checkTrailer(t, readFile(t, fs, path), want, frames)
		if got, err := VerifySegment(fs, path); err != nil || got != want {
			t.Errorf("VerifySegment(%s) = %+v, %v, want %+v", want.Name, got, err, want)
		}
	}
	name := infos[1].Name
	b := bytes.Clone(all[name])
	for bit := 0; bit < len(b)*8; bit += stride {
		b[bit/8] ^= 1 << (bit % 8)
		writeFile(t, fs, "log/"+name, b)
		if _, err := VerifySegment(fs, "log/"+name); !isCorrupt(err) {
			t.Fatalf("bit %d of byte %d: %v", bit%8, bit/8, err)
		}
		b[bit/8] ^= 1 << (bit % 8)
	}
	for _, n := range []int{0, 63, 64, 200, len(b) - 1} {
		writeFile(t, fs, "log/"+name, b[:n])
		if _, err := VerifySegment(fs, "log/"+name); !isCorrupt(err) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	active, _, err := l.ActiveAt(l.Last())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := VerifySegment(fs, "log/"+active); !isCorrupt(err) {
		t.Errorf("a segment that is not sealed: %v", err)
	}
	if _, err := VerifySegment(fs, "log/x.seg"); !isCorrupt(err) {
		t.Errorf("a file of another name: %v", err)
	}
}
