package check

import (
	"fmt"
	"slices"
	"sort"

	"cairn/jepsen-lite/history"
)

var conditions = checker{
	"conditions",
	"The conditions of every accepted append held in its place (so a name is taken once). Who was refused for them had a reason.",
	judgeConditions,
}

// conditionFailed is the code of a refusal for a condition.
const conditionFailed = "condition-failed"

func judgeConditions(v *view, _ Options, verdict *Verdict) {
	tagged := map[string][]int{} // places of the events with a tag
	for i := range v.log {
		if own(v.log[i].Stream) {
			continue
		}
		for _, tag := range v.log[i].Tags {
			if places := tagged[tag]; len(places) == 0 || places[len(places)-1] != i {
				tagged[tag] = append(places, i)
			}
		}
	}
	held, failed := 0, 0
	for i := range v.groups {
		g := &v.groups[i]
		op := v.writer(g)
		if op == nil {
			continue
		}
		for _, c := range op.Append.Conditions {
			held++
			if fault := v.broken(c, g.first, tagged); fault != "" {
				verdict.problem("%s was accepted at position %d, where %s", opName(op), g.first+1, fault)
			}
		}
	}
	for i := range v.h.Ops {
		op := &v.h.Ops[i]
		if appendOf(op) == nil || op.Outcome != history.Refused || op.Code != conditionFailed {
			continue
		}
		failed++
		if v.surelyHeld(op, tagged) {
			verdict.problem("%s was refused for its conditions, but all of them held from its start to its end", opName(op))
		}
		if ack := v.acknowledgedBefore(op); ack != nil {
			verdict.problem("%s was refused for its conditions, though its events had been acknowledged to %s", opName(op), opName(ack))
		}
	}
	verdict.Counts["held"] = int64(held)
	verdict.Counts["refusals"] = int64(failed)
	verdict.Detail = fmt.Sprintf("%s of accepted appends, %s", count(held, "condition"), count(failed, "refusal"))
}

// writer returns a try whose conditions were those that let g into the log, or
// nil if g is not there or several tries with different conditions may have
// written it.
func (v *view) writer(g *group) *history.Op {
	if g.first < 0 {
		return nil
	}
	if g.author >= 0 {
		return &v.h.Ops[g.author]
	}
	var one *history.Op
	for _, i := range g.tries {
		op := &v.h.Ops[i]
		if op.Outcome == history.Refused {
			continue
		}
		if one != nil && !slices.Equal(one.Append.Conditions, op.Append.Conditions) {
			return nil
		}
		one = op
	}
	return one
}

// broken says why a condition does not hold for what stands at place, or "".
func (v *view) broken(c history.Condition, place int, tagged map[string][]int) string {
	if c.Tag == "" {
		if got := v.versionAt(c.Stream, uint64(place)); got != c.Version {
			return fmt.Sprintf("stream %q is at version %d, not at %d as it asked for", c.Stream, got, c.Version)
		}
		return ""
	}
	if other, ok := firstTagged(tagged[c.Tag], c.After); ok && other < place {
		return fmt.Sprintf("an event with tag %q stands already, at position %d, behind %d", c.Tag, other+1, c.After)
	}
	return ""
}

// firstTagged returns the first of places that is behind a position.
func firstTagged(places []int, after uint64) (int, bool) {
	n := sort.Search(len(places), func(i int) bool { return uint64(places[i]) >= after })
	if n == len(places) {
		return 0, false
	}
	return places[n], true
}

// surelyHeld reports whether at no moment between a refused append's start and
// end any of its conditions can have failed.
func (v *view) surelyHeld(op *history.Op, tagged map[string][]int) bool {
	for _, c := range op.Append.Conditions {
		if c.Tag != "" {
			// It failed if an event with the tag may have been there by the end. The
			// places of a tag are in log order, and one may have been sent before
			// another that stands in front of it.
			places := tagged[c.Tag]
			if first, ok := firstTagged(places, c.After); ok {
				for _, place := range places[sort.SearchInts(places, first):] {
					if v.sent[place] <= op.End {
						return false
					}
				}
			}
			continue
		}
		places := v.byStream[c.Stream]
		n := uint64(len(places))
		if c.Version > n || c.Version > 0 && v.seen[places[c.Version-1]] >= op.Start {
			return false // the stream may have been behind the version, or was never there
		}
		if c.Version < n && v.sent[places[c.Version]] <= op.End {
			return false // it may have been beyond
		}
	}
	return true
}

// acknowledgedBefore returns a try of the events of op that was acknowledged
// before op began, or nil.
func (v *view) acknowledgedBefore(op *history.Op) *history.Op {
	for _, i := range v.groups[v.groupOf[keyOf(&op.Append.Events[0])]].tries {
		if other := &v.h.Ops[i]; other.Outcome == history.OK && other.End < op.Start && slices.EqualFunc(other.Append.Events, op.Append.Events, sameEvent) {
			return other
		}
	}
	return nil
}

func sameEvent(a, b history.Event) bool { return unequal(&a, &b) == "" }
