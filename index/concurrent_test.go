package index

import (
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// One goroutine adds and freezes, one commits, some read: every view must
// answer like the model as of its position, from its opening to its end,
// whatever is added, frozen and committed meanwhile.
func TestView_WhileAddingAndCommitting(t *testing.T) {
	const seed, events, batch, readers = 11, 2500, 7, 3
	rng := rand.New(rand.NewPCG(seed, 1))
	all := newModel()
	for range events {
		all.add(rng)
	}
	x, _, err := open(Options{FS: vfs.NewMem(), Dir: "state", CacheBytes: 1 << 20}, smallLimits)
	if err != nil {
		t.Fatal(err)
	}
	x.AllowMerges()
	var applied, commits, across atomic.Uint64 // across: views that lived through a commit
	var done atomic.Bool
	var wg sync.WaitGroup
	freezes, committed := make(chan uint64), make(chan struct{}, 1)
	wg.Go(func() { // Apply
		defer close(freezes)
		defer done.Store(true)
		frozen := uint64(0)
		for at := 0; at < events && !t.Failed(); at += batch {
			last := uint64(min(at+batch, events))
			x.AddAll(all.events[at:last])
			if h, err := x.Head("a-1"); err != nil || h != all.head("a-1", last) {
				t.Errorf("seed %d: Head = %v, %v as of %d", seed, h, err, last)
			}
			applied.Store(last)
			if x.Frozen() && last <= frozen+100 {
				continue
			}
			if frozen > 0 { // at the latest when the second overlay is full
				<-committed
			}
			v := x.View(rng.Uint64N(last + 1))
			x.Freeze()
			frozen = last
			freezes <- last
			if last%2 == 0 {
				<-committed
				across.Add(1)
				committed <- struct{}{}
			}
			all.checkSlowly(fatal{t, seed}, v, rng)
			v.Close()
		}
	})
	wg.Go(func() { // savepoints
		for position := range freezes {
			if err := x.Commit(Savepoint{Index: position, Position: position}); err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
			commits.Add(1)
			committed <- struct{}{}
		}
	})
	for i := range readers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(2+i)))
			for !done.Load() && !t.Failed() {
				v := x.View(rng.Uint64N(applied.Load() + 1))
				before := commits.Load()
				all.checkSlowly(fatal{t, seed}, v, rng)
				if commits.Load() > before+1 {
					across.Add(1)
				}
				v.Close()
			}
		})
	}
	wg.Wait()
	t.Logf("%d commits, %d views lived through one or more, %+v", commits.Load(), across.Load(), x.Stats())
	if commits.Load() < 5 || across.Load() == 0 {
		t.Errorf("%d commits, %d views lived through one: too few to mean anything", commits.Load(), across.Load())
	}
	if err := x.Close(); err != nil {
		t.Error(err)
	}
}

// checkSlowly reads a stream before and after the rest is checked.
func (m *model) checkSlowly(t reporter, v *View, rng *rand.Rand) {
	var s seen
	it := v.Stream("a-1", 0, false)
	want := m.stream("a-1", v.Position())
	if len(want) > 0 {
		if first, ok := it.Next(); !ok || first != want[0] {
			t.Fatalf("the first event is at %d, %t, want %d", first, ok, want[0])
		}
		want = want[1:]
	}
	for range 3 {
		m.check(t, v, rng, &s)
	}
	compare(t, it, want, false, rng, "a stream read slowly")
}

// fatal ends a goroutine that is not the test's own.
type fatal struct {
	t    *testing.T
	seed int
}

func (f fatal) Helper() { f.t.Helper() }

func (f fatal) Fatalf(format string, args ...any) {
	f.t.Helper()
	f.t.Errorf("seed %d: "+format, append([]any{f.seed}, args...)...)
	runtime.Goexit()
}

func TestClose_RefusesWhileViewsAreOpen(t *testing.T) {
	x, _, err := Open(Options{FS: vfs.NewMem(), Dir: "state"})
	if err != nil {
		t.Fatal(err)
	}
	v := x.View(0)
	if err := x.Close(); err == nil {
		t.Fatal("closed with a view open")
	}
	v.Close()
	v.Close() // no matter
	for range 2 {
		if err := x.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := x.Head("a"); !errors.Is(err, ErrClosed) {
		t.Errorf("Head after Close: %v", err)
	}
	if err := x.Commit(Savepoint{}); !errors.Is(err, ErrClosed) {
		t.Errorf("Commit after Close: %v", err)
	}
	if err := x.Checkpoint("copy"); !errors.Is(err, ErrClosed) {
		t.Errorf("Checkpoint after Close: %v", err)
	}
	late := x.View(1)
	defer late.Close()
	if it := late.Stream("a", 0, false); !errors.Is(it.Err(), ErrClosed) {
		t.Errorf("Stream after Close: %v", it.Err())
	}
	_ = x.Stats()
}
