package check

import (
	"fmt"
)

var totals = checker{
	"totals",
	"At the end of every append the accounts together hold what was paid in. None is overdrawn, if the workload promises it.",
	judgeTotals,
}

// The workloads whose amounts are added up.
const (
	transferWorkload = "transfer"
	bankWorkload     = "bank-guarded"
)

// judgeTotals walks through the log. Each append must change the total by what
// it was sent to change it by, once: nothing for a transfer, something for the
// appends that pay in.
func judgeTotals(v *view, _ Options, verdict *Verdict) {
	author := v.transfers()
	done := make([]bool, len(v.groups))
	balance := map[string]int64{}
	total, appends := int64(0), 0
	for i := 0; i < len(v.log); {
		g := author[keyOf(&v.log[i])] - 1
		if g < 0 {
			i++
			continue
		}
		events := v.events(&v.groups[g])
		want := total
		if !done[g] {
			for j := range events {
				want += events[j].Amount
			}
		}
		done[g] = true
		appends++
		begin := i
		for ; i < len(v.log) && i-begin < len(events) && author[keyOf(&v.log[i])]-1 == g; i++ {
			total += v.log[i].Amount
			balance[v.log[i].Stream] += v.log[i].Amount
		}
		if total != want {
			verdict.problem("the total is %d after position %d and %s, not %d", total, i, opName(&v.h.Ops[v.groups[g].tries[0]]), want)
			total = want // what follows is judged by itself
		}
		for j := begin; v.h.NoOverdraft && j < i; j++ {
			if stream := v.log[j].Stream; balance[stream] < 0 {
				verdict.problem("stream %q is at %d after position %d", stream, balance[stream], i)
			}
		}
	}
	verdict.Counts["transfers"] = int64(appends)
	verdict.Counts["accounts"] = int64(len(balance))
	verdict.Counts["total"] = total
	verdict.Detail = fmt.Sprintf("%s among %s, which hold %s", count(appends, "transfer"), count(len(balance), "account"), comma(int(total)))
}

// transfers returns the group of each event of the workloads with money, plus 1.
func (v *view) transfers() map[eventKey]int {
	author := map[eventKey]int{}
	for i := range v.groups {
		if w := v.h.Ops[v.groups[i].tries[0]].Workload; w != transferWorkload && w != bankWorkload {
			continue
		}
		events := v.events(&v.groups[i])
		for j := range events {
			author[keyOf(&events[j])] = i + 1
		}
	}
	return author
}
