package nemesis

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"cairn/jepsen-lite/history"
	"cairn/jepsen-lite/lab"
)

// fault is one that is at work.
type fault struct {
	what   string
	nodes  []*lab.Node
	lasts  time.Duration // 0 = a few seconds by chance
	last   bool          // healing it needs a working majority: others are healed before
	leader bool          // it took the leader out
	// heal undoes it and returns what shows that it took effect. It is called
	// once.
	heal func(ctx context.Context) (bit map[string]int64, err error)
}

// struck is a fault and what the history will say of it.
type struck struct {
	*fault
	kind  string
	start time.Duration
}

// strike begins a fault of a kind. It returns nil if there is nothing left to
// strike at.
type strike func(w *World, ctx context.Context) (*fault, error)

// strikes is how each kind begins. Those of links exclude each other.
func strikes() map[string]strike {
	return map[string]strike{
		"kill": (*World).kill, "pause": (*World).pause, "partition": (*World).partition, "slow": (*World).slow,
		"power": (*World).power, "disk": (*World).failDisk, "rot": (*World).rot, "usurp": (*World).usurp, "clock": (*World).turnClock,
		"transfer": (*World).transfer, "membership": (*World).membership, "loss": (*World).lose,
		"install": (*World).absence, "restart": (*World).restart, "upgrade": (*World).upgrade,
	}
}

// Run strikes and heals for so long, and longer until each kind has struck, but
// no more than twice as long. Faults come one at a time or two at once, by
// chance; every kind has its turn before one comes again. The error is a *Find,
// that of ctx, or one of the harness.
func (w *World) Run(ctx context.Context, kinds []string, length time.Duration, seed uint64) error {
	w.rng = rand.New(rand.NewPCG(seed, 0))
	w.busy, w.renamed = map[int]bool{}, map[int]int{}
	w.http = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	deck := &deck{kinds: kinds, rng: w.rng}
	for begun := time.Now(); ; {
		if over := time.Since(begun); over >= 2*length || over >= length && deck.turns > 0 {
			return nil
		}
		if !sleep(ctx, w.between(time.Second, 3*time.Second)) {
			return ctx.Err()
		}
		if err := w.round(ctx, deck); err != nil {
			return err
		}
		if w.rng.IntN(4) > 0 { // long enough to see it recover
			sleep(ctx, 5*time.Second)
		}
	}
}

// round strikes once or twice, heals, and waits for all nodes.
func (w *World) round(ctx context.Context, deck *deck) error {
	var at []*struck
	for range 1 + w.rng.IntN(2) {
		kind := deck.draw()
		s, err := w.strike(ctx, kind)
		if err != nil {
			return err
		}
		if s == nil {
			deck.putBack(kind)
			continue
		}
		at = append(at, s)
		sleep(ctx, w.between(0, time.Second))
	}
	slices.SortStableFunc(at, func(a, b *struck) int { return b2i(a.last) - b2i(b.last) })
	for _, s := range at {
		if !sleep(ctx, s.lasts) {
			return ctx.Err() // the lab ends with all that is wrong in it
		}
		if err := w.heal(ctx, s); err != nil {
			return fmt.Errorf("heal %s: %w", s.what, err)
		}
	}
	return w.ready(ctx, time.Minute, w.Lab.Nodes()...)
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// deck deals kinds, each once before one comes again.
type deck struct {
	kinds []string
	rng   *rand.Rand
	left  []string
	turns int // how often every kind has struck
}

func (d *deck) draw() string {
	if len(d.left) == 0 {
		d.left = slices.Clone(d.kinds)
		d.rng.Shuffle(len(d.left), func(i, j int) { d.left[i], d.left[j] = d.left[j], d.left[i] })
	}
	next := d.left[0]
	if d.left = d.left[1:]; len(d.left) == 0 {
		d.turns++
	}
	return next
}

// putBack is for a kind that found nothing to strike at: it comes next but one.
func (d *deck) putBack(kind string) {
	if kind == "upgrade" {
		return // it can be done once
	}
	if len(d.left) == 0 {
		d.turns--
	}
	d.left = slices.Insert(d.left, min(1, len(d.left)), kind)
}

// strike begins a fault of a kind, if it finds something to strike at.
func (w *World) strike(ctx context.Context, kind string) (*struck, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	links := cutsLinks(kind)
	if links && w.network {
		return nil, nil
	}
	start := w.Recorder.Now()
	f, err := strikes()[kind](w, ctx)
	if err != nil {
		return nil, fmt.Errorf("nemesis %s: %w", kind, err)
	}
	if f == nil {
		return nil, nil
	}
	if f.lasts == 0 {
		f.lasts = w.between(time.Second, 5*time.Second)
	}
	for _, n := range f.nodes {
		w.busy[n.Number()] = true
	}
	w.network = w.network || links
	w.Logger.Info("fault", "nemesis", kind, "what", f.what)
	return &struck{f, kind, start}, nil
}

// cutsLinks says of which kinds one is at work at a time.
func cutsLinks(kind string) bool { return kind == "partition" || kind == "slow" || kind == "usurp" }

// heal ends a fault and records it.
func (w *World) heal(ctx context.Context, s *struck) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute) // a rolling restart waits for each node
	defer cancel()
	bit, err := s.fault.heal(ctx)
	if err != nil {
		return err
	}
	record := history.Fault{Nemesis: s.kind, What: s.what, Start: s.start, End: w.Recorder.Now(), Bit: bit, Leader: s.leader}
	for _, n := range s.nodes {
		record.Nodes = append(record.Nodes, name(n))
		delete(w.busy, n.Number())
	}
	if cutsLinks(s.kind) {
		w.network = false
	}
	w.Recorder.Fault(record)
	w.Logger.Info("healed", "nemesis", s.kind, "what", s.what, "showed", show(bit))
	return nil
}

func show(bit map[string]int64) string {
	text := ""
	for _, k := range slices.Sorted(maps.Keys(bit)) {
		text += fmt.Sprintf("%d %s, ", bit[k], k)
	}
	return text[:max(0, len(text)-2)]
}

// between is a time by chance.
func (w *World) between(least, most time.Duration) time.Duration {
	return least + time.Duration(w.rng.Int64N(int64(most-least)))
}

// sleep waits, and reports whether ctx is still not done.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// names lists nodes for people.
func names(nodes []*lab.Node) string {
	text := ""
	for _, n := range nodes {
		text += name(n) + ", "
	}
	return text[:max(0, len(text)-2)]
}

func numbers(nodes []*lab.Node) []int {
	var found []int
	for _, n := range nodes {
		found = append(found, n.Number())
	}
	return found
}
