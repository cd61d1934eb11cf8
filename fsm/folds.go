package fsm

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"cairn/bug"
	"cairn/event"
	"cairn/index"
	"cairn/projection"
)

// folds keeps the rows of the generations that Apply does not fold: those that
// are being built, and those without guards. Nothing that is decided depends on
// how far it is. One goroutine owns it; a slice of work is done under slicing,
// so that Apply can take a generation over between two of them.
type folds struct {
	m      *Machine
	cancel context.CancelFunc
	done   sync.WaitGroup

	slicing sync.Mutex
	taken   map[uint64]bool // under slicing: generations that Apply folds now

	mu       sync.Mutex
	progress map[uint64]uint64 // under mu, by generation: position folded to
	wake     chan struct{}     // under mu: closed when progress changes

	gone map[uint64]uint64 // owned: generations with records that no projection has, and the position at which that was seen
}

const (
	// sliceEvents is how many events are folded at a time, sliceWindow how many
	// positions are looked through for them.
	sliceEvents = 2048
	sliceWindow = 1 << 16
	// A generation that is being built and farther than restLag behind is folded
	// half of the time: appends come first. Near the head it must get faster than
	// they are.
	restLag = 1 << 17
	// sweepEvery is the time between two looks for records that nobody needs.
	sweepEvery = 2 * time.Second
)

func startFolds(m *Machine) *folds {
	ctx, cancel := context.WithCancel(context.Background())
	f := &folds{m: m, cancel: cancel, taken: make(map[uint64]bool), progress: make(map[uint64]uint64), wake: make(chan struct{}), gone: make(map[uint64]uint64)}
	f.done.Go(func() { f.run(ctx) })
	return f
}

func (f *folds) stop() {
	f.cancel()
	f.done.Wait()
}

// run folds until it is stopped. An error of the store or the log stops the
// machine, as everywhere.
func (f *folds) run(ctx context.Context) {
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	for ctx.Err() == nil {
		changed := f.m.Changed()
		more, rest, err := f.round()
		if err != nil {
			if !errors.Is(err, ErrClosed) {
				_ = f.m.fail(fmt.Errorf("fold projections: %w", err))
			}
			return
		}
		if more && rest == 0 {
			continue
		}
		if more {
			changed = nil // it goes on after the rest
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
			if f.m.stopped() != nil {
				return
			}
		case <-after(rest):
		case <-sweep.C:
			if err := f.sweep(); err != nil {
				_ = f.m.fail(fmt.Errorf("sweep projections: %w", err))
				return
			}
		}
	}
}

// after is time.After, never for 0.
func after(d time.Duration) <-chan time.Time {
	if d <= 0 {
		return nil
	}
	return time.After(d)
}

// round folds one slice into each generation. It reports whether there is more
// to do, and for how long to leave the processor to others before.
func (f *folds) round() (more bool, rest time.Duration, err error) {
	v := f.m.View(0)
	defer v.Close()
	for _, g := range f.m.Catalog().Generations() {
		if g.Live > 0 && g.Guarding() {
			f.report(g, v.Position())
			continue
		}
		begun := time.Now()
		lag, err := f.slice(v, g)
		if err != nil {
			return false, 0, fmt.Errorf("projection %s, generation %d: %w", g.Name, g.ID, err)
		}
		more = more || lag > 0
		if g.Live == 0 && lag > restLag {
			rest += time.Since(begun)
		}
	}
	return more, rest, nil
}

// slice folds some events into one generation and returns how many positions are
// left to look through.
func (f *folds) slice(v *View, g *projection.Generation) (lag uint64, err error) {
	f.slicing.Lock()
	defer f.slicing.Unlock()
	if f.taken[g.ID] {
		return 0, nil
	}
	from, err := storedCursor(v.gen.index, g)
	if err != nil || from >= v.Position() {
		f.report(g, from)
		return 0, err
	}
	through := min(v.Position(), from+sliceWindow)
	events, err := v.Select(Selection{Filter: g.Filter(), After: from, Before: through + 1})
	if err != nil {
		return 0, err
	}
	defer events.Close()
	reached, err := foldSlice(f.m.Catalog(), g, events, through, v.gen.index)
	if err != nil {
		return 0, err
	}
	f.report(g, reached)
	return v.Position() - reached, nil
}

// report notes how far a generation is folded on this node.
func (f *folds) report(g *projection.Generation, position uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.progress[g.ID] != position {
		f.progress[g.ID] = position
		close(f.wake)
		f.wake = make(chan struct{})
	}
}

// reached returns how far a generation is folded, and what is closed when that
// changes.
func (f *folds) reached(generation uint64) (uint64, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.progress[generation], f.wake
}

// takeOver ends the folding of a generation here, for good, and returns when
// no slice of it is under way: Apply folds it from now on.
func (f *folds) takeOver(generation uint64) {
	f.slicing.Lock()
	defer f.slicing.Unlock()
	f.taken[generation] = true
}

// sweep drops the records of generations that are no more. Only once a savepoint
// is durable that has the end of a generation: a crash before would go back to
// where it is in force.
func (f *folds) sweep() error {
	gen, err := f.m.hold()
	if err != nil {
		return nil // the machine is being closed
	}
	defer gen.release()
	_, position := f.m.Applied()
	_, durable := f.m.Durable()
	known := make(map[uint64]bool)
	for _, g := range f.m.Catalog().Generations() {
		known[g.ID] = true
	}
	for next := uint64(0); ; {
		pairs, _, _, err := gen.index.Rows(nil, rowKeys{next}.all(), 1, nil)
		if err != nil || len(pairs) == 0 {
			return err
		}
		id := generationOf(pairs[0].Key)
		next = id + 1
		switch seen, ok := f.gone[id]; {
		case known[id] || id > durable: // one whose definition is yet to be applied again
			delete(f.gone, id)
		case !ok:
			f.gone[id] = position
		case durable >= seen:
			if err := gen.index.DropRows(rowKeys{id}.all()); err != nil {
				return err
			}
			delete(f.gone, id)
		}
	}
}

// storedCursor returns the position up to which the stored rows of a generation
// are folded.
func storedCursor(rows rowSource, g *projection.Generation) (uint64, error) {
	value, _, err := rows.Row(keysOf(g).cursor())
	if err != nil {
		return 0, err
	}
	return decodeCursor(value)
}

// eventSource gives events in the order of their positions.
type eventSource interface {
	Next() bool
	Event() *event.Event
	Err() error
}

// rowStore is where rows are folded past the overlay.
type rowStore interface {
	rowSource
	WriteRows(pairs []index.Pair) error
}

// foldSlice folds up to sliceEvents events into a generation that Apply does not
// fold, as far as position through, and writes rows and cursor at once. It
// returns the cursor.
func foldSlice(c *projection.Catalog, g *projection.Generation, events eventSource, through uint64, store rowStore) (uint64, error) {
	rows := newGuarded(c, store)
	n := 0
	for n < sliceEvents && events.Next() {
		e := events.Event()
		if e.Position > through {
			break
		}
		if !g.Matches(e) {
			continue
		}
		if err := rows.foldAccepted(g, e); err != nil {
			return 0, err
		}
		if n++; n == sliceEvents {
			through = e.Position
		}
	}
	if err := events.Err(); err != nil {
		return 0, err
	}
	if bug.Is(bug.LostRows) && len(rows.pairs) > 2 {
		rows.pairs = rows.pairs[:len(rows.pairs)-1]
	}
	rows.pairs = append(rows.pairs, index.Pair{Key: keysOf(g).cursor(), Value: encodeCursor(through)})
	return through, store.WriteRows(rows.pairs)
}
