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
	what  string
	nodes []*lab.Node
	lasts time.Duration // 0 = a few seconds by chance
	last  bool          // healing it needs a working majority: others are healed before
	// heal undoes it and returns what shows that it took effect. It is called
	// once, also when the run is to end at once.
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
		"power": (*World).power, "disk": (*World).failDisk, "rot": (*World).rot, "clock": (*World).turnClock,
		"transfer": (*World).transfer, "membership": (*World).membership, "loss": (*World).lose,
		"install": (*World).absence, "restart": (*World).restart, "upgrade": (*World).upgrade,
	}
}

// Run strikes and heals until ctx is done; then it heals what is left. Faults
// come one at a time or two at once, by chance; every kind has its turn before
// one comes again. An error means that a node did not come back, or that the
// harness could not do its part.
func (w *World) Run(ctx context.Context, names []string, seed uint64) error {
	w.rng = rand.New(rand.NewPCG(seed, 0))
	w.busy, w.renamed = map[int]bool{}, map[int]int{}
	w.http = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	var deck []string
	draw := func() string {
		if len(deck) == 0 {
			deck = slices.Clone(names)
			w.rng.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
		}
		next := deck[0]
		deck = deck[1:]
		return next
	}
	for ctx.Err() == nil {
		if !sleep(ctx, w.between(time.Second, 3*time.Second)) {
			return nil
		}
		var at []*struck
		for range 1 + w.rng.IntN(2) {
			s, err := w.strike(ctx, draw())
			if err != nil {
				return err
			}
			if s != nil {
				at = append(at, s)
			}
			sleep(ctx, w.between(0, time.Second))
		}
		slices.SortStableFunc(at, func(a, b *struck) int {
			if a.last == b.last {
				return 0
			}
			if b.last {
				return -1
			}
			return 1
		})
		for _, s := range at {
			sleep(ctx, s.lasts)
			if err := w.heal(s); err != nil {
				return fmt.Errorf("heal %s: %w", s.what, err)
			}
		}
		if err := w.ready(context.WithoutCancel(ctx), time.Minute, w.Lab.Nodes()...); err != nil {
			return err
		}
		if w.rng.IntN(4) > 0 { // long enough to see it recover
			sleep(ctx, 5*time.Second)
		}
	}
	return nil
}

// strike begins a fault of a kind, if it finds something to strike at.
func (w *World) strike(ctx context.Context, kind string) (*struck, error) {
	links := kind == "partition" || kind == "slow"
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

// heal ends a fault and records it. It must work when the run ends too.
func (w *World) heal(s *struck) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	bit, err := s.fault.heal(ctx)
	if err != nil {
		return err
	}
	record := history.Fault{Nemesis: s.kind, What: s.what, Start: s.start, End: w.Recorder.Now(), Bit: bit}
	for _, n := range s.nodes {
		record.Nodes = append(record.Nodes, name(n))
		delete(w.busy, n.Number())
	}
	if s.kind == "partition" || s.kind == "slow" {
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
