package eventlog

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"

	"cairn/event"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

var seed = flag.Uint64("seed", 1, "of the scripts and of what survives a crash")

// crashSegmentSize lets every life of a story roll.
const crashSegmentSize = 4096

// story is a run of a log that is opened, written, synced and left several
// times. Its model is the list of events that all its frames hold.
type story struct {
	frames []testFrame
	events []event.Event
	final  map[string][]byte // what the files hold in the end
	index  map[uint64]bool   // Raft indexes of the frames

	// What a life has done so far; a crash test looks at it in the middle.
	savepoints []uint64 // positions that a Sync has made durable, ascending
	seen       struct{ rolls, rewrites, footers, removes, syncs int }
}

func newStory(t testing.TB) *story {
	t.Helper()
	s := &story{frames: testScript(*seed, 70, 2), index: map[uint64]bool{}}
	for _, f := range s.frames {
		for i := range f.events { // so that a segment has few events but several blocks
			f.events[i].Data = append(f.events[i].Data, make([]byte, 100+f.index*37%900)...)
		}
	}
	s.events = allEvents(s.frames)
	s.final = testFiles(t, crashSegmentSize, s.frames)
	for _, f := range s.frames {
		s.index[f.index] = true
	}
	return s
}

func (s *story) savepoint() uint64 { return s.savepoints[len(s.savepoints)-1] }

// run lives the story on fs: four lives, each from the last savepoint on. It
// ends with the first error.
func (s *story) run(fs vfs.FS) error {
	s.savepoints = []uint64{0}
	for life, until := range []int{25, 40, 41, len(s.frames)} {
		if err := s.live(fs, until, 4+life); err != nil {
			return err
		}
	}
	return nil
}

// live opens the log, appends frames up to until and syncs after every few.
func (s *story) live(fs vfs.FS, until, every int) (err error) {
	l, err := Open(Options{FS: fs, Dir: "a/log", Through: s.savepoint(), Flush: -1})
	if err != nil {
		return err
	}
	defer func() {
		s.seen.rolls += int(l.Stats().Rolls)
		if cerr := l.Close(); err == nil {
			err = cerr
		}
	}()
	s.note(l.todo)
	if err := l.Cut(); err != nil {
		return poisoned(l, err)
	}
	if l.Last() == 0 {
		if err := l.Create(testID, crashSegmentSize); err != nil {
			return err
		}
	}
	var b FrameBuilder
	for i := range s.frames[:until] {
		f := &s.frames[i]
		if f.last() <= l.Last() {
			continue
		}
		f.build(&b)
		if err := l.Append(&b); err != nil {
			return poisoned(l, err)
		}
		if i%every == every-1 || i == len(s.frames)-1 {
			if err := l.Sync(l.Last()); err != nil {
				return poisoned(l, err)
			}
			s.savepoints = append(s.savepoints, l.Last())
			s.seen.syncs++
		}
	}
	return nil
}

func (s *story) note(c *cut) {
	s.seen.removes += len(c.remove)
	if c.rewrite {
		s.seen.rewrites++
	}
	if c.footer {
		s.seen.footers++
	}
}

// poisoned checks that nothing is written after err.
func poisoned(l *Log, err error) error {
	var b FrameBuilder
	b.Reset(1, 1, l.Last()+1, 1<<62)
	b.Add(&event.Event{Position: l.Last() + 1, Version: 1, Time: 1 << 62}, testSalt(0))
	for _, again := range []error{l.Append(&b), l.Sync(l.Last()), l.Cut()} {
		if !errors.Is(again, ErrPoisoned) || !errors.Is(again, errors.Unwrap(err)) {
			return fmt.Errorf("after %v: next call is %v", err, again)
		}
	}
	return err
}

// check opens what a crash or an error has left on fs with the savepoint P, and
// compares it with the model. Then it goes on to the story's end.
func (s *story) check(fs vfs.FS, through uint64) error {
	l, err := Open(Options{FS: fs, Dir: "a/log", Through: through, Flush: -1})
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	if err := readAll(l, s.events[:through]); err != nil {
		return fmt.Errorf("before Cut: %w", err)
	}
	if index := l.TailIndex(); index != 0 && !s.index[index] {
		return fmt.Errorf("TailIndex() = %d, which no frame has", index)
	}
	for _, f := range s.frames {
		if index := l.TailIndex(); index == f.index && f.last() <= through {
			return fmt.Errorf("TailIndex() = %d, which is not beyond the savepoint", index)
		}
	}
	s.note(l.todo)
	if err := l.Cut(); err != nil {
		return err
	}
	if through == 0 {
		if err := l.Create(testID, crashSegmentSize); err != nil {
			return err
		}
	}
	var b FrameBuilder
	for i := range s.frames {
		if f := &s.frames[i]; f.last() > through {
			f.build(&b)
			if err := l.Append(&b); err != nil {
				return err
			}
		}
	}
	return sameFiles(filesIn(fs, "a/log"), s.final)
}

func filesIn(fs vfs.FS, dir string) map[string][]byte {
	all := make(map[string][]byte)
	names, _ := fs.List(dir)
	for _, name := range names {
		mem := vfs.Root(fs).(*vfs.MemFS)
		all[name], _ = mem.UnsafeGetFileDataBuffer(fs.PathJoin(dir, name))
	}
	return all
}

// checkAll checks what a crash has left with the last savepoint and with the
// one before it: the sync may be done and the savepoint not yet written.
func (s *story) checkAll(crashed *vfs.MemFS) error {
	for i := max(0, len(s.savepoints)-2); i < len(s.savepoints); i++ {
		through := s.savepoints[i]
		if err := s.check(crashed.CrashClone(vfs.CrashCloneCfg{}), through); err != nil {
			return fmt.Errorf("savepoint %d: %w", through, err)
		}
	}
	return nil
}

func (s *story) checkSeen(t *testing.T) {
	t.Helper()
	if n := s.seen; n.rolls == 0 || n.rewrites == 0 || n.footers == 0 || n.removes == 0 || n.syncs == 0 {
		t.Errorf("the story is too tame: %+v", n)
	}
	t.Logf("%+v", s.seen)
}

// The power goes before and after every single operation that changes files.
func TestCrash_EveryOperation(t *testing.T) {
	s := newStory(t)
	mem := vfs.NewCrashableMem()
	n, crashes := 0, 0
	crash := func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
			return nil
		}
		n++
		for _, percent := range []int{0, 10, 50, 100} {
			if (n+percent)%stride != 0 {
				continue
			}
			rng := rand.New(rand.NewPCG(*seed, uint64(n*101+percent)))
			if err := s.checkAll(mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng})); err != nil {
				t.Fatalf("seed %d, crash before operation %d (%d on %s) with %d %% of what is not synced: %v",
					*seed, n, op.Kind, op.Path, percent, err)
			}
			crashes++
		}
		return nil
	}
	if err := s.run(errorfs.Wrap(mem, errorfs.InjectorFunc(crash))); err != nil {
		t.Fatal(err)
	}
	_ = crash(errorfs.Op{Kind: errorfs.OpFileWrite, Path: "the end"})
	if err := sameFiles(filesIn(mem, "a/log"), s.final); err != nil {
		t.Error(err)
	}
	s.checkSeen(t)
	t.Logf("%d operations, %d crashes", n, crashes)
}

// Every single operation, reading ones too, goes wrong once. The log must say
// so and write nothing more; the process ends and the next one goes on.
func TestCrash_EveryOperationFails(t *testing.T) {
	s := newStory(t)
	count := errorfs.OnIndex(-1)
	if err := s.run(errorfs.Wrap(vfs.NewMem(), count)); err != nil {
		t.Fatal(err)
	}
	operations := -1 - int(count.Load())
	if operations < 200 {
		t.Fatalf("only %d operations", operations)
	}
	for i := 0; i < operations; i += stride {
		mem := vfs.NewCrashableMem()
		err := s.run(errorfs.Wrap(mem, errorfs.OnIndex(int32(i))))
		if !errors.Is(err, errorfs.ErrInjected) {
			t.Fatalf("seed %d, operation %d fails: the run ends with %v", *seed, i, err)
		}
		for _, percent := range []int{0, 50, 100} {
			rng := rand.New(rand.NewPCG(*seed, uint64(i*101+percent)))
			if err := s.check(mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng}), s.savepoint()); err != nil {
				t.Fatalf("seed %d, operation %d fails, then a crash with %d %% of what is not synced: %v", *seed, i, percent, err)
			}
		}
	}
	s.checkSeen(t)
	t.Logf("%d operations", operations)
}
