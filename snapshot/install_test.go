package snapshot

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"pgregory.net/rapid"
)

// bigModel has the two segments of smallModel, two more, and another state.
func bigModel(index uint64) *model {
	return newModel(index, []int{6000, 700, 9000, 50}, 4800, 4799,
		map[string]int{"000011.sst": 8200, "000012.blob": 10, "MANIFEST-000013": 4097, "000014.log": 0, "marker.manifest.000001.MANIFEST-000013": 0})
}

func TestInstall_RoundTrip(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		size := rapid.IntRange(1, 5000)
		segments := rapid.SliceOfN(size, 0, 4).Draw(r, "segments")
		active := rapid.OneOf(rapid.Just(0), size).Draw(r, "active")
		prefix := 0
		if active > 0 {
			prefix = rapid.IntRange(1, active).Draw(r, "prefix")
		}
		state := rapid.MapOfN(rapid.StringMatching(`[a-z0-9]{1,8}\.(sst|log)`), rapid.IntRange(0, 3000), 0, 4).Draw(r, "state")
		own := rapid.IntRange(0, len(segments)).Draw(r, "segments that the receiver has")

		sent := newModel(40, segments, active, prefix, state)
		sender := newNode(t, vfs.NewMem(), sent)
		sender.checkpoint(t, sent)
		must(t, sender.snapshot(sent))
		stream := sender.read(t)
		if !bytes.Equal(stream, sent.stream("gen-000001")) {
			r.Fatal("the stream that is sent differs from the model")
		}

		receiver := newNode(t, vfs.NewMem(), newModel(10, segments[:own], 60, 50, smallState))
		s := receiver.create(t, sent)
		chunk := rapid.OneOf(rapid.IntRange(1, 9), rapid.IntRange(1, 40_000))
		for left := stream; len(left) > 0; {
			k := min(chunk.Draw(r, "chunk"), len(left))
			if n, err := s.Write(left[:k]); n != k || err != nil {
				r.Fatalf("Write = %d, %v", n, err)
			}
			left = left[k:]
		}
		must(t, s.Close())
		must(t, s.Close())
		must(t, receiver.restore())
		if err := receiver.check(t, "gen-000002", sent, true, sent); err != nil {
			r.Fatal(err)
		}
		if err := mustOpen(t, receiver.fs).check(t, "gen-000002", sent, true, sent); err != nil {
			r.Fatal(err)
		}
	})
}

// Segments that the receiver has are linked, once each; one that is damaged or
// differs there is taken from the stream.
func TestInstall_LinksWhatItHas(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(n *node)
		want  int
	}{
		"both":    {func(*node) {}, 2},
		"damaged": {func(n *node) { flip(t, n.fs, n.fs.PathJoin(n.gens.LogDir(), segmentName(1)), 100) }, 1},
		"none": {func(n *node) {
			must(t, n.fs.RemoveAll(n.fs.PathJoin(n.gens.LogDir(), segmentName(1))))
			must(t, n.fs.RemoveAll(n.fs.PathJoin(n.gens.LogDir(), segmentName(11))))
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			links, written := 0, 0
			fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
				isSegment := strings.HasSuffix(op.Path, ".seg")
				if op.Kind == errorfs.OpLink && isSegment {
					links++
				}
				if op.Kind == errorfs.OpCreate && isSegment && strings.Contains(op.Path, "gen-000002") {
					written++
				}
				return nil
			}))
			n := newNode(t, fs, smallModel(10))
			c.spoil(n)
			sent := bigModel(30)
			must(t, n.receive(sent, sent.stream("gen-000004"), 777))
			if links != c.want || written != 5-c.want {
				t.Errorf("%d segments linked and %d written, want %d and %d", links, written, c.want, 5-c.want)
			}
			must(t, n.restore())
			must(t, n.check(t, "gen-000002", sent, true, sent))
		})
	}
}

// On the real file system too, and what is linked there is one file.
func TestInstall_RealFiles(t *testing.T) {
	t.Chdir(t.TempDir())
	own, sent := smallModel(10), bigModel(30)
	n := newNode(t, vfs.Default, own)
	n.checkpoint(t, own)
	must(t, n.snapshot(own))
	must(t, n.check(t, "gen-000001", own, false, own))
	must(t, n.receive(sent, sent.stream("gen-000004"), 32<<10))
	for _, base := range []uint64{1, 11, 21} {
		a, errA := os.Stat(filepath.Join(testLogs, "gen-000001/log", segmentName(base)))
		b, errB := os.Stat(filepath.Join(testLogs, "gen-000002/log", segmentName(base)))
		must(t, errors.Join(errA, errB))
		if got, want := os.SameFile(a, b), base < 21; got != want {
			t.Errorf("segment %d shared: %v, want %v", base, got, want)
		}
	}
	must(t, n.restore())
	must(t, n.check(t, "gen-000002", sent, true, sent))
	must(t, mustOpen(t, vfs.Default).check(t, "gen-000002", sent, true, sent))
	// The next snapshot is one of this node's own again.
	next := bigModel(50)
	n.fill(t, next)
	n.checkpoint(t, next)
	must(t, n.snapshot(next))
}

// flip inverts one bit of a file.
func flip(t testing.TB, fs vfs.FS, path string, bit int) {
	t.Helper()
	b, err := readFile(fs, path, 1<<30)
	must(t, err)
	b[bit/8] ^= 1 << (bit % 8)
	put(t, fs, path, b)
}

// Every flipped bit, every cut and every surplus byte is refused, and leaves the
// disk as it was.
func TestInstall_BadStreams(t *testing.T) {
	sent := newModel(30, []int{20}, 9, 8, map[string]int{"1.sst": 5, "2": 0})
	stream := sent.stream("gen-000003")
	n := newNode(t, vfs.NewMem(), newModel(10, []int{20}, 5, 5, map[string]int{"1.sst": 3}))
	before := tree(t, n.fs, "data")
	try := func(what string, at int, b []byte) {
		t.Helper()
		if err := n.receive(sent, b, 100); err == nil {
			t.Fatalf("%s %d: the stream was accepted", what, at)
		}
		if err := sameTree(tree(t, n.fs, "data"), before); err != nil {
			t.Fatalf("%s %d: %v", what, at, err)
		}
	}
	// The first segment's bytes are thrown away, because the receiver has it: its
	// own copy is what was verified.
	manifest := len(encodeManifest(sent.manifest("gen-000003")))
	first := streamHead + manifest
	for bit := range 8 * len(stream) {
		if at := bit / 8; at >= first && at < first+len(sent.segments[0].data) {
			continue
		}
		b := bytes.Clone(stream)
		b[bit/8] ^= 1 << (bit % 8)
		try("bit", bit, b)
	}
	for cut := range len(stream) {
		try("cut at", cut, stream[:cut])
	}
	try("surplus", 1, append(bytes.Clone(stream), 0))
	if len(n.errors) > 0 {
		t.Errorf("OnError: %v", n.errors)
	}
	must(t, n.receive(sent, stream, 100))
}

// A flipped bit in a segment that is not linked is noticed too, and so is a cut
// where no file is missing but the end of the last.
func TestInstall_BadSegment(t *testing.T) {
	sent := newModel(30, []int{20}, 9, 8, nil)
	stream := sent.stream("gen-000003")
	n := newNode(t, vfs.NewMem(), newModel(10, nil, 5, 5, nil))
	first := streamHead + len(encodeManifest(sent.manifest("gen-000003")))
	for bit := 8 * first; bit < 8*len(stream); bit++ {
		b := bytes.Clone(stream)
		b[bit/8] ^= 1 << (bit % 8)
		if err := n.receive(sent, b, 64); err == nil {
			t.Fatalf("bit %d: the stream was accepted", bit)
		}
	}
	for cut := first; cut < len(stream); cut++ {
		if err := n.receive(sent, stream[:cut], 64); err == nil {
			t.Fatalf("cut at %d: the stream was accepted", cut)
		}
	}
	must(t, n.receive(sent, stream, 64))
}

func TestInstall_Cancel(t *testing.T) {
	sent := bigModel(30)
	stream := sent.stream("gen-000003")
	n := newNode(t, vfs.NewMem(), smallModel(10))
	n.checkpoint(t, smallModel(10))
	must(t, n.snapshot(smallModel(10)))
	before := tree(t, n.fs, "data")
	for at := 0; at <= len(stream); at += 97 {
		s := n.create(t, sent)
		_, err := s.Write(bytes.Clone(stream[:at]))
		must(t, err)
		must(t, s.Cancel())
		must(t, s.Cancel())
		if err := s.Close(); err == nil {
			t.Fatal("Close after Cancel succeeded")
		}
		if _, err := s.Write(stream[:1]); err == nil {
			t.Fatal("Write after Cancel succeeded")
		}
		if err := sameTree(tree(t, n.fs, "data"), before); err != nil {
			t.Fatalf("cancelled at %d: %v", at, err)
		}
	}
}

func TestInstall_Refused(t *testing.T) {
	sent := smallModel(30)
	n := newNode(t, vfs.NewMem(), smallModel(10))
	other := errors.New("another log")
	n.store.o.Accept = func(m *Manifest) error {
		if m.LogID == "log-1" {
			return other
		}
		return nil
	}
	if err := n.receive(sent, sent.stream("gen-000003"), 100); !errors.Is(err, other) {
		t.Errorf("a refused manifest: %v", err)
	}
	n.store.o.Accept = nil

	// One at a time; the first one is not harmed.
	s := n.create(t, sent)
	stream := sent.stream("gen-000003")
	_, err := s.Write(stream[:len(stream)-1])
	must(t, err)
	if err := n.receive(sent, stream, 100); err == nil {
		t.Error("a second install beside the first was accepted")
	}
	if _, err := n.gens.Promote("gen-000002"); err == nil {
		t.Error("a generation that is being staged was promoted")
	}
	_, err = s.Write(stream[len(stream)-1:])
	must(t, err)
	must(t, s.Close())
	must(t, n.restore())
	must(t, n.check(t, "gen-000002", sent, true, sent))
}

// A local checkpoint that is being made survives a bad install whose manifest
// names the same folder.
func TestInstall_LeavesCheckpointAlone(t *testing.T) {
	m := smallModel(10)
	n := newNode(t, vfs.NewMem(), m)
	n.checkpoint(t, m)
	s := n.create(t, m) // holds the staging, so that the next one is refused
	_, err := s.Write(m.stream("gen-000001"))
	must(t, err)
	if err := n.receive(m, m.stream("gen-000001"), 100); err == nil {
		t.Fatal("a second install was accepted")
	}
	must(t, s.Cancel())
	must(t, n.snapshot(m))
	must(t, n.check(t, "gen-000001", m, false, m))
}

// An install that Restore never promoted gives way to the next one.
func TestInstall_Twice(t *testing.T) {
	n := newNode(t, vfs.NewMem(), smallModel(10))
	first, second := smallModel(30), bigModel(40)
	must(t, n.receive(first, first.stream("gen-000003"), 100))
	must(t, n.receive(second, second.stream("gen-000003"), 100))
	must(t, n.restore())
	must(t, n.check(t, "gen-000003", second, true, second))
}

// A reader whose generation an install removes fails, and never yields a byte of
// the new one.
func TestInstall_RemovesWhatIsBeingSent(t *testing.T) {
	own, sent := smallModel(10), bigModel(30)
	n := newNode(t, vfs.NewMem(), own)
	n.checkpoint(t, own)
	must(t, n.snapshot(own))
	want := own.stream("gen-000001")
	_, r, err := n.store.Open(mustID(t, n))
	must(t, err)
	head := make([]byte, 2000)
	_, err = io.ReadFull(r, head)
	must(t, err)

	must(t, n.receive(sent, sent.stream("gen-000004"), 100))
	must(t, n.restore())
	rest, err := io.ReadAll(r)
	if err == nil {
		t.Error("reading on succeeded")
	}
	if got := append(head, rest...); !bytes.HasPrefix(want, got) {
		t.Error("wrong bytes were read")
	}
	must(t, r.Close())
	must(t, n.check(t, "gen-000002", sent, true, sent))
}

// A segment may be sealed at the receiver and not yet durable: a link to it is
// made durable before Close returns.
func TestInstall_SyncsWhatItLinks(t *testing.T) {
	mem := vfs.NewCrashableMem()
	n := newNode(t, mem, newModel(10, nil, 50, 40, nil))
	sent := smallModel(30)
	f, err := mem.Create(mem.PathJoin(n.gens.LogDir(), segmentName(1)), vfs.WriteCategoryUnspecified)
	must(t, err)
	_, err = f.Write(bytes.Clone(sent.segments[0].data))
	must(t, err)
	must(t, f.Close())
	must(t, n.receive(sent, sent.stream("gen-000003"), 100))
	crashed := mustOpen(t, mem.CrashClone(vfs.CrashCloneCfg{}))
	must(t, crashed.check(t, "gen-000002", sent, true, sent))
}
