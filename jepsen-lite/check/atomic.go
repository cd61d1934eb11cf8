package check

import "fmt"

var atomic = checker{
	"atomic",
	"The events of an append are all there, side by side, or none is. No read saw a part of them.",
	judgeAtomic,
}

func judgeAtomic(v *view, _ Options, verdict *Verdict) {
	inside := make([]bool, len(v.log)) // by place: the append that stands there goes on behind it
	several := 0
	for i := range v.groups {
		g := &v.groups[i]
		events := v.events(g)
		if len(events) > 1 {
			several++
		}
		if g.whole {
			for j := range len(events) - 1 {
				inside[g.first+j] = true
			}
			continue
		}
		op := &v.h.Ops[g.tries[0]]
		for j := range events {
			if place, ok := v.at[keyOf(&events[j])]; ok {
				verdict.problem("of the %d events of %s not all stand side by side: %s, number %d, at position %d", len(events), opName(op), eventName(&events[j]), j+1, place+1)
				break
			}
		}
	}
	for i := range v.h.Ops {
		op := &v.h.Ops[i]
		if op.Append != nil || op.State != nil && op.State.AtPosition > 0 {
			continue
		}
		if p := reached(op); p > 0 && p <= uint64(len(v.log)) && inside[p-1] {
			verdict.problem("%s read as of position %d, in the midst of an append", opName(op), p)
		}
	}
	verdict.Counts["appends_of_several_events"] = int64(several)
	verdict.Detail = count(several, "append") + " of several events"
	verdict.Detail += fmt.Sprintf(" among %s", comma(len(v.groups)))
}
