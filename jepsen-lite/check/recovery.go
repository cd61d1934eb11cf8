package check

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"time"

	"cairn/jepsen-lite/history"
)

var recovery = checker{
	"recovery",
	"Within 5 s of the moment when the last of the faults at work was healed an append succeeds.",
	judgeRecovery,
}

const recoveryTime = 5 * time.Second

// judgeRecovery looks at the time after each fault. It says nothing of a fault
// that was healed while another was at work, nor where the next fault or the
// end of the run came too soon to tell.
func judgeRecovery(v *view, _ Options, verdict *Verdict) {
	var succeeded []time.Duration // when appends did
	end := time.Duration(0)
	for i := range v.h.Ops {
		op := &v.h.Ops[i]
		if op.Append == nil {
			continue
		}
		end = max(end, op.End)
		if op.Outcome == history.OK {
			succeeded = append(succeeded, op.End)
		}
	}
	slices.Sort(succeeded)
	faults := slices.Clone(v.h.Faults)
	slices.SortStableFunc(faults, func(a, b history.Fault) int { return cmp.Compare(a.End, b.End) })
	var took []time.Duration
	overlapped, short := 0, 0
	for i := range faults {
		f := &faults[i]
		if f.End <= 0 || f.End < f.Start {
			verdict.problem("%s (%s) was never healed", f.What, f.Nemesis)
			continue
		}
		overlaps, next := around(faults, i)
		if overlaps {
			overlapped++
			continue
		}
		window := never
		if n := sort.Search(len(succeeded), func(i int) bool { return succeeded[i] > f.End }); n < len(succeeded) {
			window = succeeded[n] - f.End
		}
		if next < recoveryTime || end-f.End < recoveryTime && window == never {
			short++
			continue
		}
		if window > recoveryTime {
			verdict.problem("after %s (%s) was healed at %.3fs %s", f.What, f.Nemesis, f.End.Seconds(), late(window))
			continue
		}
		took = append(took, window)
	}
	v.judgeFailover(verdict)
	slices.Sort(took)
	verdict.Counts["recovered"] = int64(len(took))
	verdict.Counts["skipped_overlapping"] = int64(overlapped)
	verdict.Counts["skipped_short"] = int64(short)
	verdict.Detail = fmt.Sprintf("recovered from %s", count(len(took), "fault"))
	if len(took) > 0 {
		median, worst := took[len(took)/2], took[len(took)-1]
		verdict.Counts["median_ms"], verdict.Counts["worst_ms"] = median.Milliseconds(), worst.Milliseconds()
		verdict.Detail += fmt.Sprintf(", median %v, worst %v", median.Round(time.Millisecond), worst.Round(time.Millisecond))
	}
	if n := verdict.Counts["failovers"]; n > 0 {
		verdict.Detail += fmt.Sprintf("; %s without the leader, first append after %d ms at the median, %d ms at worst",
			count(int(n), "fault"), verdict.Counts["failover_median_ms"], verdict.Counts["failover_worst_ms"])
	}
	verdict.Detail += fmt.Sprintf("; not judged: %s within another fault, %s with too little time after", comma(overlapped), comma(short))
}

// judgeFailover measures how long it took from a fault that took the leader out
// until an append succeeded that was sent after it. It judges nothing: while a
// majority is gone, none can.
func (v *view) judgeFailover(verdict *Verdict) {
	var took []time.Duration
	for i := range v.h.Faults {
		f := &v.h.Faults[i]
		if !f.Leader {
			continue
		}
		first := never
		for j := range v.h.Ops {
			if op := &v.h.Ops[j]; op.Append != nil && op.Outcome == history.OK && op.Start >= f.Start {
				first = min(first, op.End-f.Start)
			}
		}
		if first != never {
			took = append(took, first)
		}
	}
	if len(took) == 0 {
		return
	}
	slices.Sort(took)
	verdict.Counts["failovers"] = int64(len(took))
	verdict.Counts["failover_median_ms"] = took[len(took)/2].Milliseconds()
	verdict.Counts["failover_worst_ms"] = took[len(took)-1].Milliseconds()
}

// around reports whether another fault was at work when faults[i] was healed,
// and how long it was until the next one.
func around(faults []history.Fault, i int) (overlaps bool, next time.Duration) {
	f, next := &faults[i], never
	for j := range faults {
		other := &faults[j]
		switch {
		case j == i:
		case other.Start <= f.End && (other.End > f.End || other.End == f.End && j > i):
			overlaps = true // of those healed at once the last counts
		case other.Start > f.End:
			next = min(next, other.Start-f.End)
		}
	}
	return overlaps, next
}

func late(window time.Duration) string {
	if window == never {
		return "no append succeeded any more"
	}
	return fmt.Sprintf("the first append succeeded only %.3fs later", window.Seconds())
}
