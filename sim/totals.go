package sim

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"cairn/jepsen-lite/history"
)

// Totals add up what runs did. The zero value is ready.
type Totals struct {
	Runs, Invalid  int
	Virtual        time.Duration
	Acknowledged   int // operations
	Unknown        int
	Deliveries     int
	Faults         map[string]int
	Metrics        map[string]float64
	FewestFaults   int // of a run
	ShortestLength time.Duration
}

// Add adds a run.
func (t *Totals) Add(r *Result) {
	if t.Faults == nil {
		t.Faults, t.Metrics = map[string]int{}, map[string]float64{}
		t.FewestFaults, t.ShortestLength = 1<<30, 1<<62
	}
	t.Runs++
	t.Virtual += r.Virtual
	t.ShortestLength = min(t.ShortestLength, r.Virtual)
	if !r.Valid() {
		t.Invalid++
	}
	for name, n := range r.Totals {
		t.Metrics[name] += n
	}
	h := r.History
	if h == nil {
		t.FewestFaults = 0
		return
	}
	t.FewestFaults = min(t.FewestFaults, len(h.Faults))
	t.Deliveries += len(h.Deliveries)
	for i := range h.Faults {
		t.Faults[h.Faults[i].Nemesis]++
	}
	for i := range h.Ops {
		switch h.Ops[i].Outcome {
		case history.OK:
			t.Acknowledged++
		case history.Unknown:
			t.Unknown++
		}
	}
}

// String is a table for people.
func (t *Totals) String() string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-24s "+format+"\n", append([]any{name}, args...)...)
	}
	line("runs", "%d, %d of them invalid", t.Runs, t.Invalid)
	line("virtual time", "%s, at least %s each", t.Virtual.Round(time.Second), t.ShortestLength.Round(time.Second))
	line("operations", "%d acknowledged, %d of unknown outcome", t.Acknowledged, t.Unknown)
	line("deliveries", "%d", t.Deliveries)
	for _, m := range []struct{ name, metric string }{
		{"rolls", "cairn_log_rolls_total"}, {"savepoints", "cairn_savepoints_total"},
		{"snapshots", "cairn_raft_snapshots_total"}, {"installs", "cairn_installs_total"},
		{"leaders won or lost", "cairn_leadership_changes_total"}, {"read index rounds", "cairn_read_index_rounds_total"},
	} {
		line(m.name, "%.0f", t.Metrics[m.metric])
	}
	all := 0
	for _, n := range t.Faults {
		all += n
	}
	line("faults", "%d, at least %d a run", all, t.FewestFaults)
	for _, name := range slices.Sorted(maps.Keys(t.Faults)) {
		line("  "+name, "%d", t.Faults[name])
	}
	return b.String()
}
