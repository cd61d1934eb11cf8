package check

import "fmt"

var realTime = checker{
	"real-time order",
	"An append stands behind everything that was acknowledged before it was sent.",
	judgeOrder,
}

// judgeOrder compares each append that was written with the highest position
// acknowledged before it was sent. A duplicate is answered with the place of an
// earlier try, so it counts as an acknowledgement, not as a write.
func judgeOrder(v *view, _ Options, verdict *Verdict) {
	var marks []mark
	for i := range v.h.Ops {
		if op := &v.h.Ops[i]; appendOf(op) != nil && reached(op) > 0 {
			marks = append(marks, mark{op.End, op.Append.Last, op})
		}
	}
	known := newHighWater(marks)
	compared := 0
	for i := range v.groups {
		g := &v.groups[i]
		op, first := &v.h.Ops[g.tries[0]], uint64(g.first+1)
		if g.author >= 0 {
			op = &v.h.Ops[g.author]
			first = op.Append.First
		}
		if first == 0 {
			continue
		}
		before, ok := known.before(v.start(g))
		if !ok {
			continue
		}
		compared++
		if before.position >= first {
			verdict.problem("%s stands at position %d, though position %d had been acknowledged, to %s, before it was sent", opName(op), first, before.position, opName(before.op))
		}
	}
	verdict.Counts["compared"] = int64(compared)
	verdict.Detail = fmt.Sprintf("%s, each behind what was acknowledged before", count(compared, "append"))
}
