package fsm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"cairn/bug"
	"cairn/event"
	"cairn/index"
	"cairn/projection"
)

// folds keeps the rows of the generations that Apply does not fold: those that
// are being built, and those without guards. Nothing that is decided depends on
// how far it is. One goroutine owns it and folds a slice of events at a time, so
// that Apply can take a generation over between two slices of it.
type folds struct {
	m      *Machine
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu       sync.Mutex        // guards all up to readers
	sliced   sync.Cond         // on mu: a slice has ended
	slicing  uint64            // generation of which a slice is under way, or 0
	taken    map[uint64]bool   // generations that Apply folds now
	progress map[uint64]uint64 // by generation: position folded to, in the data generation of
	of       *generation
	wake     chan struct{}  // closed when progress changes
	readers  map[uint64]int // by generation: how many read its rows

	// Owned by the goroutine.
	gone    map[uint64]uint64   // generations with records that no projection has, and the position at which that was seen
	catalog *projection.Catalog // as of which all was made
	all     []*projection.Generation
}

const (
	// sliceEvents is how many events are folded at a time, sliceWindow how many
	// positions are looked through for them.
	// A slice ends, too, at about sliceBytes of records, which are looked at every
	// sliceLook events.
	sliceEvents = 2048
	sliceWindow = 1 << 16
	sliceBytes  = 4 << 20
	sliceLook   = 16
	// A generation that is being built and farther than restLag behind is folded
	// half of the time: appends come first. Near the head it must get faster than
	// they are.
	restLag = 1 << 17
	// sweepEvery is the time between two looks for records that nobody needs.
	sweepEvery = 2 * time.Second
)

func startFolds(m *Machine) *folds {
	ctx, cancel := context.WithCancel(context.Background())
	f := &folds{
		m: m, cancel: cancel, taken: make(map[uint64]bool), progress: make(map[uint64]uint64), wake: make(chan struct{}),
		readers: make(map[uint64]int), gone: make(map[uint64]uint64),
	}
	f.sliced.L = &f.mu
	f.done.Go(func() { f.run(ctx) })
	return f
}

// stop ends the folding, and wakes those who wait for more of it.
func (f *folds) stop() {
	f.cancel()
	f.done.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wakeLocked()
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

// generations returns those of the newest catalog that are folded here.
func (f *folds) generations() []*projection.Generation {
	if c := f.m.Catalog(); c != f.catalog {
		f.catalog, f.all = c, slices.DeleteFunc(c.Generations(), func(g *projection.Generation) bool { return g.Live > 0 && g.Guarding() })
	}
	return f.all
}

// round folds one slice into each generation. It reports whether there is more
// to do, and for how long to leave the processor to others before.
func (f *folds) round() (more bool, rest time.Duration, err error) {
	if len(f.generations()) == 0 {
		return false, 0, nil
	}
	// The view is older than the catalog: nothing is folded into a generation
	// beyond the event that ends it.
	v := f.m.View(0)
	defer v.Close()
	for _, g := range f.generations() {
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
	if !f.begin(g.ID) {
		return 0, nil
	}
	defer f.end()
	from, err := storedCursor(v.gen.index, g)
	if err != nil || from >= v.Position() {
		f.report(v.gen, g, from)
		return 0, err
	}
	through := min(v.Position(), from+sliceWindow)
	events, err := v.Select(Selection{Filter: g.Filter(), After: from, Before: through + 1})
	if err != nil {
		return 0, err
	}
	defer events.Close()
	reached, err := foldSlice(f.catalog, g, events, through, v.gen.index)
	if err != nil {
		return 0, err
	}
	f.report(v.gen, g, reached)
	return v.Position() - reached, nil
}

// begin begins a slice of a generation, unless Apply has taken it over.
func (f *folds) begin(generation uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.taken[generation] {
		return false
	}
	f.slicing = generation
	return true
}

func (f *folds) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.slicing = 0
	f.sliced.Broadcast()
}

// takeOver ends the folding of a generation here, for good, and returns when
// no slice of it is under way: Apply folds it from now on.
func (f *folds) takeOver(generation uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.taken[generation] = true
	for f.slicing == generation {
		f.sliced.Wait()
	}
}

// report notes how far the rows of a generation are folded in a data generation.
// A snapshot that was installed since has other rows.
func (f *folds) report(of *generation, g *projection.Generation, position uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.of != of {
		f.of = of
		clear(f.progress)
	}
	if was, ok := f.progress[g.ID]; !ok || was != position {
		f.progress[g.ID] = position
		f.wakeLocked()
	}
}

func (f *folds) wakeLocked() {
	close(f.wake)
	f.wake = make(chan struct{})
}

// reached returns how far a generation is folded, and what is closed when that
// changes.
func (f *folds) reached(generation uint64) (uint64, <-chan struct{}) {
	f.m.genMu.RLock()
	current := f.m.gen
	f.m.genMu.RUnlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.of != current {
		return 0, f.wake
	}
	return f.progress[generation], f.wake
}

// hold keeps the rows of a generation from being dropped until release. Who
// holds them makes sure after that that they are not dropped yet: the generation
// must be in the catalog.
func (f *folds) hold(generation uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.readers[generation]++
}

func (f *folds) release(generation uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.readers[generation]--; f.readers[generation] == 0 {
		delete(f.readers, generation)
	}
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
	// What was defined up to settled is in the catalog unless it has ended, for a
	// crash does not go back behind it, and the catalog is read after it. What the
	// catalog lacks had ended by position, which is read after that.
	_, applied := f.m.Applied()
	_, durable := f.m.Durable()
	settled := min(applied, durable)
	known := make(map[uint64]bool)
	for _, g := range f.m.Catalog().Generations() {
		known[g.ID] = true
	}
	_, position := f.m.Applied()
	ended := func(id uint64) bool { return id <= settled && !known[id] }
	f.forget(ended)
	for next := uint64(0); ; {
		pairs, _, _, err := gen.index.Rows(nil, rowKeys{next}.all(), 1, nil)
		if err != nil || len(pairs) == 0 {
			return err
		}
		id := generationOf(pairs[0].Key)
		next = id + 1
		switch seen, ok := f.gone[id]; {
		case !ended(id):
			delete(f.gone, id)
		case !ok:
			f.gone[id] = position
		case durable >= seen && !f.read(id):
			if err := gen.index.DropRows(rowKeys{id}.all()); err != nil {
				return err
			}
			delete(f.gone, id)
		}
	}
}

// forget removes what was noted of generations that have ended.
func (f *folds) forget(ended func(generation uint64) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.progress, func(id, _ uint64) bool { return ended(id) })
	maps.DeleteFunc(f.taken, func(id uint64, _ bool) bool { return ended(id) })
}

// read reports whether somebody reads the rows of a generation.
func (f *folds) read(generation uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.readers[generation] > 0
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

// foldSlice folds events into a generation that Apply does not fold, as far as
// position through or until the slice is full, and writes rows and cursor at
// once. It returns the cursor. Of events none may be beyond through unless the one
// there is among them too: it is not taken then.
func foldSlice(c *projection.Catalog, g *projection.Generation, events eventSource, through uint64, store rowStore) (uint64, error) {
	rows := newGuarded(c, store)
	for n := 0; events.Next(); {
		e := events.Event()
		if g.Matches(e) {
			if err := rows.foldAccepted(g, e); err != nil {
				return 0, err
			}
			if n++; n == sliceEvents || n%sliceLook == 0 && pairBytes(rows.pairs) >= sliceBytes {
				through = e.Position
			}
		}
		if e.Position >= through {
			break
		}
	}
	if err := events.Err(); err != nil {
		return 0, err
	}
	if bug.Is(bug.LostRows) && len(rows.pairs) > 2 {
		rows.pairs = rows.pairs[:len(rows.pairs)-1]
	}
	pairs, err := boundUnkeyed(g, rows.pairs, store)
	if err != nil {
		return 0, err
	}
	pairs = append(pairs, index.Pair{Key: keysOf(g).cursor(), Value: encodeCursor(through)})
	return through, store.WriteRows(pairs)
}

func pairBytes(pairs []index.Pair) (n int) {
	for _, p := range pairs {
		n += len(p.Key) + len(p.Value)
	}
	return n
}
