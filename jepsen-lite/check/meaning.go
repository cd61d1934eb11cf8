package check

import (
	"fmt"

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
	for i := range v.h.Faults {
		f := &v.h.Faults[i]
		if !bit(f) {
			verdict.problem("nothing shows that %s (%s, at %.3fs) took effect", f.What, f.Nemesis, f.Start.Seconds())
		}
	}
	for _, counter := range o.Worked {
		sum := int64(0)
		for i := range v.h.Nodes {
			sum += v.h.Nodes[i].Worked[counter]
		}
		verdict.Counts[counter] = sum
		if sum <= 0 {
			verdict.problem("no node had any %s", counter)
		}
	}
	verdict.Counts["operations"] = int64(done)
	verdict.Counts["faults"] = int64(len(v.h.Faults))
	verdict.Detail = fmt.Sprintf("%s acknowledged, %.1f/s; %s", count(done, "operation"), rate, count(len(v.h.Faults), "fault"))
}

// bit reports whether something shows that a fault took effect.
func bit(f *history.Fault) bool {
	for _, n := range f.Bit {
		if n != 0 {
			return true
		}
	}
	return false
}
