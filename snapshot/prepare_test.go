package snapshot

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// What this node has is linked and all else fetched, both verified; the install
// that follows is that of a full stream.
func TestPrepare_FetchesWhatItLacks(t *testing.T) {
	sent := bigModel(30)
	links := 0
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpLink && strings.HasSuffix(op.Path, ".seg") {
			links++
		}
		return nil
	}))
	own := smallModel(10)
	n := newNode(t, fs, own)
	n.checkpoint(t, own)
	must(t, n.snapshot(own))
	n.store.o.Sealed = n.sealed
	src := newSender(sent)
	p, err := n.prepare(sent, src)
	must(t, err)
	want := map[string]int{}
	total := 0
	for name, b := range src.files {
		if name != segmentName(1) && name != segmentName(11) && len(b) > 0 {
			want[name] = len(b)
			total += len(b)
		}
	}
	if got := src.took(); !maps.Equal(got, want) || links != 2 {
		t.Errorf("%d links, fetched %v, want %v", links, got, want)
	}
	if p.Total.Load() != int64(total) || p.Fetched.Load() != int64(total) {
		t.Errorf("%d of %d bytes, want %d", p.Fetched.Load(), p.Total.Load(), total)
	}
	must(t, n.checkOld(t, own))
	must(t, n.installPrepared(sent))
	must(t, n.check(t, "gen-000002", sent, true, sent))
	must(t, mustOpen(t, fs).check(t, "gen-000002", sent, true, sent))
}

// Whatever the source does, what is prepared is right; and it gets there when
// the source does enough.
func TestPrepare_BadSource(t *testing.T) {
	sent := bigModel(30)
	broken := errors.New("broken")
	bad := func(attempts int, how func(b []byte) ([]byte, error)) func(string, int, []byte) ([]byte, error) {
		return func(_ string, attempt int, b []byte) ([]byte, error) {
			if attempt < attempts {
				return how(b)
			}
			return b, nil
		}
	}
	half := func(b []byte) ([]byte, error) { return b[:len(b)/2], nil }
	fault := func(b []byte) ([]byte, error) { return b[:len(b)/3], broken }
	wrong := func(b []byte) ([]byte, error) {
		b[len(b)/2] ^= 4
		return b, nil
	}
	more := func(b []byte) ([]byte, error) { return append(b, b...), nil }
	for name, c := range map[string]struct {
		spoil func(string, int, []byte) ([]byte, error)
		want  error // nil = it is prepared
	}{
		"ends early":            {bad(2, half), nil},
		"always ends early":     {bad(99, half), io.ErrUnexpectedEOF},
		"fails":                 {bad(4, fault), nil},
		"always fails":          {bad(99, fault), broken},
		"wrong bytes":           {bad(2, wrong), nil},
		"always wrong bytes":    {bad(99, wrong), &CorruptError{}},
		"more than there is":    {bad(99, more), nil},
		"wrong, and broken off": {bad(1, func(b []byte) ([]byte, error) { b, _ = wrong(b); return b[:len(b)-1], broken }), nil},
		"nothing, and no error": {bad(3, func([]byte) ([]byte, error) { return nil, nil }), nil},
		"wrong bytes of a state": {func(name string, attempt int, b []byte) ([]byte, error) {
			if name == "000011.sst" && attempt == 0 {
				return wrong(b)
			}
			return b, nil
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, vfs.NewMem(), smallModel(10))
			n.store.o.Sealed = n.sealed
			src := newSender(sent)
			src.spoil = c.spoil
			p, err := n.prepare(sent, src)
			if c.want != nil {
				var damage *CorruptError
				if !errors.Is(err, c.want) && !(errors.As(c.want, &damage) && errors.As(err, &damage)) {
					t.Fatalf("Prepare = %v, want %v", err, c.want)
				}
				if err := n.installPrepared(sent); !errors.Is(err, ErrNotPrepared) {
					t.Fatalf("install = %v", err)
				}
				src.spoil = nil
				p, err = n.prepare(sent, src)
			}
			must(t, err)
			if p.Fetched.Load() != p.Total.Load() {
				t.Errorf("%d of %d bytes", p.Fetched.Load(), p.Total.Load())
			}
			must(t, n.installPrepared(sent))
			must(t, n.check(t, "gen-000002", sent, true, sent))
		})
	}
}

// A source that does anything at random, over restarts and crashes.
func TestPrepare_RandomSource(t *testing.T) {
	seed := testSeed(t)
	sent := bigModel(30)
	failures := 0
	for round := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, round))
		mem := vfs.NewCrashableMem()
		newNode(t, mem, smallModel(10))
		src := newSender(sent)
		gone := 0 // how often it will not answer
		src.spoil = func(_ string, _ int, b []byte) ([]byte, error) {
			if gone > 0 {
				gone--
				return nil, errors.New("gone")
			}
			switch rng.IntN(7) {
			case 6:
				gone = 2 * downloadAttempts
				return nil, errors.New("gone")
			case 0:
				return b[:rng.IntN(len(b)+1)], errors.New("broken")
			case 1, 2:
				return b[:rng.IntN(len(b)+1)], nil
			case 3:
				if len(b) > 0 {
					b[rng.IntN(len(b))]++
				}
				return b, nil
			}
			return b, nil
		}
		n := openSerial(t, mem)
		for {
			if _, err := n.prepare(sent, src); err == nil {
				break
			}
			failures++
			if rng.IntN(2) == 0 {
				mem = mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
			}
			n = openSerial(t, mem)
		}
		must(t, n.installPrepared(sent))
		if err := n.check(t, "gen-000002", sent, true, sent); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	if failures == 0 {
		t.Error("no preparation failed")
	}
}

// What was fetched is not fetched again, after a restart neither; of a file that
// was under way the rest comes.
func TestPrepare_Resumes(t *testing.T) {
	mem, old := oldNode(t)
	n := openSerial(t, mem)
	sent := bigModel(30)
	src := newSender(sent)
	broken := errors.New("broken")
	src.spoil = func(name string, _ int, b []byte) ([]byte, error) {
		if name == segmentName(31) { // the last sealed one
			return b[:len(b)/6], broken
		}
		return b, nil
	}
	if _, err := n.prepare(sent, src); !errors.Is(err, broken) {
		t.Fatalf("Prepare = %v", err)
	}
	got := src.took()
	first := got[segmentName(31)]
	if got[segmentName(21)] != 9007 || first == 0 || first >= 57 {
		t.Fatalf("fetched %v", got)
	}
	src.spoil = nil
	n = openSerial(t, mem)
	p, err := n.prepare(sent, src)
	must(t, err)
	got = src.took()
	if got[segmentName(21)] != 0 || got[segmentName(31)] != 57-first {
		t.Errorf("fetched %v after %d bytes were there", got, first)
	}
	if p.Fetched.Load() != p.Total.Load() {
		t.Errorf("%d of %d bytes", p.Fetched.Load(), p.Total.Load())
	}
	must(t, n.checkOld(t, old))
	must(t, n.installPrepared(sent))
	must(t, n.check(t, "gen-000002", sent, true, sent))
}

// Another snapshot is offered in between: what is a part of it too stays, and
// nothing else does.
func TestPrepare_AnotherManifest(t *testing.T) {
	mem, _ := oldNode(t)
	n := openSerial(t, mem)
	_, err := n.prepare(bigModel(30), newSender(bigModel(30)))
	must(t, err)
	next := newModel(40, []int{6000, 700, 9000}, 100, 90, map[string]int{"000011.sst": 8200, "MANIFEST-000020": 30})
	src := newSender(next)
	_, err = n.prepare(next, src)
	must(t, err)
	want := map[string]int{segmentName(31): 90, "000011.sst": 8200, "MANIFEST-000020": 30}
	if got := src.took(); !maps.Equal(got, want) {
		t.Errorf("fetched %v, want %v", got, want)
	}
	files := next.files(true)
	delete(files, savepointName)
	if err := sameTree(tree(t, n.fs, n.gens.Path(incomingName)), files); err != nil {
		t.Error(err)
	}
	if err := n.installPrepared(bigModel(30)); !errors.Is(err, ErrNotPrepared) {
		t.Errorf("the install of what was prepared first: %v", err)
	}
	must(t, n.installPrepared(next))
	must(t, n.check(t, "gen-000002", next, true, next))
}

// What a crash left of a file may have its length and not its bytes: its hash
// shows it, and all of it comes again.
func TestPrepare_TornPart(t *testing.T) {
	sent := bigModel(30)
	for name, size := range map[string]int{"short": 8000, "whole": 9007, "too long": 9100} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, vfs.NewMem(), smallModel(10))
			n.store.o.Sealed = n.sealed
			torn := make([]byte, size)
			copy(torn, sent.segments[2].data[:4096]) // a block was written, the rest is zeros
			put(t, n.fs, n.fs.PathJoin(n.gens.Path(incomingName), segmentName(21)+partSuffix), torn)
			src := newSender(sent)
			p, err := n.prepare(sent, src)
			must(t, err)
			if got, want := src.took()[segmentName(21)], 9007+max(9007-size, 0); got != want {
				t.Errorf("fetched %d bytes, want %d", got, want)
			}
			if p.Fetched.Load() != p.Total.Load() {
				t.Errorf("%d of %d bytes", p.Fetched.Load(), p.Total.Load())
			}
			must(t, n.installPrepared(sent))
			must(t, n.check(t, "gen-000002", sent, true, sent))
		})
	}
}

// stuck is a source that begins each file and then sends nothing.
type stuck struct {
	*sender
	begun chan string
}

func (s stuck) Segment(ctx context.Context, name string, offset, size int64, attempt int) (io.ReadCloser, error) {
	body, err := s.sender.Segment(ctx, name, offset, min(size, offset+5), attempt)
	if err != nil {
		return nil, err
	}
	s.begun <- name
	return io.NopCloser(io.MultiReader(io.LimitReader(body, 5), waitReader{ctx})), nil
}

type waitReader struct{ ctx context.Context }

func (r waitReader) Read([]byte) (int, error) {
	<-r.ctx.Done()
	return 0, r.ctx.Err()
}

// A preparation that is cancelled ends at once, tries nothing again, and leaves
// what has come.
func TestPrepare_Cancelled(t *testing.T) {
	sent := bigModel(30)
	n := newNode(t, vfs.NewMem(), smallModel(10))
	n.store.o.Sealed = n.sealed
	src := stuck{newSender(sent), make(chan string, 100)}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- n.store.Prepare(ctx, offered(sent), src, &Progress{}) }()
	for range 3 { // two segments and the active one, all at once
		<-src.begun
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Prepare = %v", err)
	}
	if len(src.begun) > 0 {
		t.Errorf("%s was asked for again", <-src.begun)
	}
	if len(n.errors) > 0 {
		t.Errorf("OnError: %v", n.errors)
	}
	if b := tree(t, n.fs, n.gens.Path(incomingName))[segmentName(21)+partSuffix]; b != string(sent.segments[2].data[:5]) {
		t.Errorf("%d bytes are left", len(b))
	}
	// One that is cancelled before it begins asks for nothing.
	if err := n.store.Prepare(ctx, offered(sent), src, &Progress{}); !errors.Is(err, context.Canceled) || len(src.begun) > 0 {
		t.Errorf("Prepare = %v, %d files begun", err, len(src.begun))
	}
	_, err := n.prepare(sent, src.sender)
	must(t, err)
	must(t, n.installPrepared(sent))
	must(t, n.check(t, "gen-000002", sent, true, sent))
}

func TestPrepare_Refused(t *testing.T) {
	sent := bigModel(30)
	n := newNode(t, vfs.NewMem(), smallModel(10))
	before := tree(t, n.fs, testLogs)
	src := newSender(sent)
	if err := n.installPrepared(sent); !errors.Is(err, ErrNotPrepared) {
		t.Errorf("nothing was prepared: %v", err)
	}
	bad := offered(sent)
	bad[100] ^= 1
	if err := n.store.Prepare(context.Background(), bad, src, &Progress{}); err == nil {
		t.Error("a damaged manifest was prepared")
	}
	other := errors.New("another log")
	n.store.o.Accept = func(*Manifest) error { return other }
	if _, err := n.prepare(sent, src); !errors.Is(err, other) || len(src.took()) > 0 {
		t.Errorf("a refused manifest: %v", err)
	}
	n.store.o.Accept = nil
	if err := sameTree(tree(t, n.fs, testLogs), before); err != nil {
		t.Error(err)
	}
	_, err := n.prepare(sent, src)
	must(t, err)
	// The manifest of another sender is another one, whatever is in it.
	b, err := EncodePrepared(encodeManifest(sent.manifest("gen-000008")))
	must(t, err)
	if err := n.receive(sent, b, 1000); !errors.Is(err, ErrNotPrepared) {
		t.Errorf("another manifest: %v", err)
	}
	// A stream that goes on after its manifest, or ends within it, is none.
	b, err = EncodePrepared(offered(sent))
	must(t, err)
	if err := n.receive(sent, b[:len(b)-1], 1000); err == nil {
		t.Error("half a manifest was installed")
	}
	must(t, n.installPrepared(sent))
	if err := n.installPrepared(sent); !errors.Is(err, ErrNotPrepared) {
		t.Errorf("the same again: %v", err)
	}
	must(t, n.check(t, "gen-000002", sent, true, sent))
	if len(n.errors) > 0 {
		t.Errorf("OnError: %v", n.errors)
	}
}

// A full stream after a preparation is taken as ever, and what was prepared can
// be removed.
func TestPrepare_FullStreamInstead(t *testing.T) {
	sent := bigModel(30)
	n := newNode(t, vfs.NewMem(), smallModel(10))
	n.store.o.Sealed = n.sealed
	_, err := n.prepare(sent, newSender(sent))
	must(t, err)
	must(t, n.receive(sent, sent.stream("gen-000007"), 3000))
	must(t, n.restore())
	must(t, n.store.RemoveIncoming())
	must(t, n.check(t, "gen-000002", sent, true, sent))
	must(t, n.store.RemoveIncoming())
	if err := n.installPrepared(sent); !errors.Is(err, ErrNotPrepared) {
		t.Errorf("what was removed was installed: %v", err)
	}
}

// The state is folded where StoreOptions.Fold can, and fetched where it can't or
// fails: what this node has may be damaged.
func TestPrepare_Fold(t *testing.T) {
	sent := bigModel(30)
	folded := bigModel(30)
	folded.state = []blob{{"000099.sst", noise(7, 3000)}, {"MANIFEST-000100", noise(8, 20)}}
	for name, c := range map[string]struct {
		does bool
		err  error
		want *model
	}{
		"folds":            {true, nil, folded},
		"does not":         {false, nil, sent},
		"fails":            {false, errors.New("damaged"), sent},
		"fails at the end": {true, errors.New("damaged"), sent},
	} {
		t.Run(name, func(t *testing.T) {
			mem := vfs.NewCrashableMem()
			newNode(t, mem, smallModel(10))
			n := openSerial(t, mem)
			n.store.o.Fold = func(_ context.Context, m *Manifest, logDir, stateDir string) (bool, error) {
				if m.Index != 30 || len(tree(t, n.fs, logDir)) != 5 {
					t.Errorf("to fold: %d files as of %d", len(tree(t, n.fs, logDir)), m.Index)
				}
				if _, err := n.fs.Stat(stateDir); err == nil {
					t.Error("the state's folder is there")
				}
				must(t, n.fs.MkdirAll(stateDir, 0o755))
				for _, b := range folded.state { // not synced
					f, err := n.fs.Create(n.fs.PathJoin(stateDir, b.name), vfs.WriteCategoryUnspecified)
					must(t, err)
					_, err = f.Write(bytes.Clone(b.data))
					must(t, errors.Join(err, f.Close()))
				}
				return c.does, c.err
			}
			src := newSender(sent)
			_, err := n.prepare(sent, src)
			must(t, err)
			if fetched := src.took()["000011.sst"] > 0; fetched != (c.want == sent) {
				t.Errorf("the state was fetched: %v", fetched)
			}
			must(t, n.installPrepared(sent))
			must(t, n.check(t, "gen-000002", c.want, true, c.want))
			must(t, mustOpen(t, mem.CrashClone(vfs.CrashCloneCfg{})).check(t, "gen-000002", c.want, true, c.want))
		})
	}
}

// A preparation that begins while another one is being installed does not touch
// the files that go over.
func TestPrepare_BesideInstall(t *testing.T) {
	sent, next := bigModel(30), newModel(40, []int{6000}, 100, 90, map[string]int{"000011.sst": 8200})
	var n *node
	ended := make(chan error, 1)
	begun := false
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpRename && strings.Contains(op.Path, incomingName) && !strings.HasSuffix(op.Path, partSuffix) && !begun {
			begun = true
			go func() { ended <- n.store.Prepare(context.Background(), offered(next), newSender(next), &Progress{}) }()
			time.Sleep(20 * time.Millisecond) // enough for one that does not wait
		}
		return nil
	}))
	n = newNode(t, fs, smallModel(10))
	_, err := n.prepare(sent, newSender(sent))
	must(t, err)
	begun = false
	must(t, n.installPrepared(sent))
	must(t, <-ended)
	must(t, n.installPrepared(next))
	must(t, n.check(t, "gen-000003", next, true, next))
}
