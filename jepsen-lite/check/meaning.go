package check

import (
	"fmt"
	"slices"

	"cairn/jepsen-lite/history"
)

var meaning = checker{
	"meaning",
	"The run could have found something: enough operations, every fault took effect, the nodes rolled, saved, installed and compacted.",
	judgeMeaning,
}

// defaultRate is the one of Options.Rate, in operations a second.
const defaultRate = 50

func judgeMeaning(v *view, o Options, verdict *Verdict) {
	if o.Rate == 0 {
		o.Rate = defaultRate
	}
	if o.Worked == nil {
		o.Worked = DefaultWorked()
	}
	done := 0
	for i := range v.h.Ops {
		if op := &v.h.Ops[i]; op.Outcome == history.OK && op.Start <= v.h.Length {
			done++
		}
	}
	rate := 0.0
	if v.h.Length > 0 {
		rate = float64(done) / v.h.Length.Seconds()
	}
	if rate < o.Rate {
		verdict.problem("%.1f operations a second were acknowledged, fewer than %g", rate, o.Rate)
	}
	judgeStruck(v, verdict)
	judgeUsed(v, verdict)
	for _, counter := range o.Worked {
		sum := int64(0)
		for i := range v.h.Nodes {
			sum += v.h.Nodes[i].Worked[counter]
		}
		verdict.Counts[counter] = sum
		if sum <= 0 && (counter != "installs" || v.h.Nemeses == nil || slices.Contains(v.h.Nemeses, "install")) {
			verdict.problem("no node had any %s", counter)
		}
	}
	verdict.Counts["operations"] = int64(done)
	verdict.Counts["faults"] = int64(len(v.h.Faults))
	verdict.Detail = fmt.Sprintf("%s acknowledged, %.1f/s; %s", count(done, "operation"), rate, count(len(v.h.Faults), "fault"))
}

// judgeStruck asks of every kind of fault that was asked for that it struck, and
// that it showed. One that did not show may have come at a bad moment.
func judgeStruck(v *view, verdict *Verdict) {
	struck, showed := map[string]int{}, map[string]int{}
	for i := range v.h.Faults {
		f := &v.h.Faults[i]
		struck[f.Nemesis]++
		if bit(f) {
			showed[f.Nemesis]++
		} else {
			verdict.Counts["faults that did not show"]++
		}
	}
	kinds := slices.Clone(v.h.Nemeses)
	for kind := range struck {
		if !slices.Contains(kinds, kind) {
			kinds = append(kinds, kind)
		}
	}
	slices.Sort(kinds)
	for _, kind := range kinds {
		switch {
		case struck[kind] == 0:
			verdict.problem("the nemesis %s never struck", kind)
		case showed[kind] == 0:
			verdict.problem("nothing shows that the nemesis %s took effect, in %s", kind, count(struck[kind], "fault"))
		}
	}
}

// leastUse is how often a workload that was asked for must have succeeded.
const leastUse = 3

// judgeUsed asks of every workload that was asked for that it was of use.
func judgeUsed(v *view, verdict *Verdict) {
	used, refused, seen := map[string]int{follow: len(v.h.Deliveries)}, map[string]int{}, map[string]int{}
	for i := range v.h.Ops {
		op := &v.h.Ops[i]
		switch {
		case op.Outcome == history.OK && op.Append != nil:
			used[op.Workload]++
		case op.Outcome == history.OK && op.State != nil:
			seen[op.Workload]++
		case op.Code == codeGuardFailed:
			refused[op.Workload]++
		}
	}
	for _, w := range v.h.Workloads {
		if used[w] < leastUse {
			verdict.problem("of the workload %s only %d operations succeeded", w, used[w])
		}
		switch {
		case w == bankWorkload && refused[w] < leastUse:
			verdict.problem("of the workload %s only %d appends were refused by its guard", w, refused[w])
		case w == rowsWorkload && seen[w] < leastUse:
			verdict.problem("of the workload %s only %d reads of rows succeeded", w, seen[w])
		case w == schemaWorkload && !v.defined().last().Types().Any():
			verdict.problem("no schema of the workload %s came into force", w)
		}
	}
}

// Workloads of which more is asked than that they append.
const (
	follow         = "follow"
	rowsWorkload   = "projection"
	schemaWorkload = "schema-change-under-load"
)

// bit reports whether something shows that a fault took effect.
func bit(f *history.Fault) bool {
	for _, n := range f.Bit {
		if n != 0 {
			return true
		}
	}
	return false
}
