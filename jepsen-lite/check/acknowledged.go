package check

import (
	"fmt"
	"slices"

	"cairn/jepsen-lite/history"
)

var acknowledged = checker{
	"acknowledged",
	"Every acknowledged append is in the final log where and as it was answered. No refused one is.",
	judgeAcknowledged,
}

func judgeAcknowledged(v *view, _ Options, verdict *Verdict) {
	there, refused, unknown, happened := 0, 0, 0, 0
	for i := range v.h.Ops {
		op := &v.h.Ops[i]
		if appendOf(op) == nil {
			continue
		}
		switch op.Outcome {
		case history.OK:
			there++
			if fault := v.misplaced(op); fault != "" {
				verdict.problem("%s was acknowledged at positions %d to %d, but %s", opName(op), op.Append.First, op.Append.Last, fault)
			}
			if op.Append.Duplicate && !v.triedBefore(i) {
				verdict.problem("%s was answered as a duplicate, but nobody had sent its events before", opName(op))
			}
		case history.Refused:
			refused++
		default:
			unknown++
			if v.groups[v.groupOf[keyOf(&op.Append.Events[0])]].first >= 0 {
				happened++
			}
		}
	}
	v.refusedButThere(verdict)
	verdict.Counts["acknowledged"] = int64(there)
	verdict.Counts["refused"] = int64(refused)
	verdict.Counts["unknown"] = int64(unknown)
	verdict.Counts["unknown_happened"] = int64(happened)
	verdict.Detail = fmt.Sprintf("%s acknowledged, %s refused, %s of unknown outcome, of which %s happened",
		count(there, "append"), comma(refused), comma(unknown), comma(happened))
}

// misplaced says how the final log differs from the answer to an append, or "".
func (v *view) misplaced(op *history.Op) string {
	a := op.Append
	if a.Last-a.First != uint64(len(a.Events)-1) || a.First == 0 || a.Last < a.First {
		return fmt.Sprintf("it has %s", count(len(a.Events), "event"))
	}
	versions := map[string]uint64{}
	for i := range a.Events {
		e := &a.Events[i]
		position := a.First + uint64(i)
		if position > uint64(len(v.log)) {
			return fmt.Sprintf("the final log ends at position %d, before %s", len(v.log), eventName(e))
		}
		got := &v.log[position-1]
		if keyOf(got) != keyOf(e) {
			return fmt.Sprintf("%s stands at position %d of the final log in place of %s, which stands %s", eventName(got), position, eventName(e), v.where(e))
		}
		if fault := differs(got, e); fault != "" {
			return fmt.Sprintf("%s at position %d has another %s than was sent", eventName(e), position, fault)
		}
		versions[e.Stream] = got.Version
	}
	for _, e := range a.Events {
		if got, ok := a.Versions[e.Stream]; !ok || got != versions[e.Stream] {
			return fmt.Sprintf("answered was version %d of stream %q, which is at %d there", got, e.Stream, versions[e.Stream])
		}
	}
	if len(a.Versions) != len(versions) {
		return "the answer has versions of streams that it did not write to"
	}
	return ""
}

// where says where an event stands in the final log.
func (v *view) where(e *history.Event) string {
	if place, ok := v.at[keyOf(e)]; ok {
		return fmt.Sprintf("at position %d", place+1)
	}
	return "nowhere in it"
}

// differs names what of a stored event is not as it was sent, or "".
func differs(stored, sent *history.Event) string {
	switch {
	case stored.Type != sent.Type:
		return "type"
	case stored.Sum != sent.Sum:
		return "content"
	case !slices.Equal(stored.Tags, sent.Tags):
		return "tags"
	}
	return ""
}

// triedBefore reports whether another try of the events of Ops[i] began before
// that one ended.
func (v *view) triedBefore(i int) bool {
	op := &v.h.Ops[i]
	for _, other := range v.groups[v.groupOf[keyOf(&op.Append.Events[0])]].tries {
		if o := &v.h.Ops[other]; other != i && o.Outcome != history.Refused && o.Start <= op.End {
			return true
		}
	}
	return false
}

// refusedButThere finds events in the final log whose every try was refused. A
// refused try of events that another try may have written says nothing.
func (v *view) refusedButThere(verdict *Verdict) {
	possible := map[eventKey]bool{}
	for i := range v.h.Ops {
		if a := appendOf(&v.h.Ops[i]); a != nil && v.h.Ops[i].Outcome != history.Refused {
			for j := range a.Events {
				possible[keyOf(&a.Events[j])] = true
			}
		}
	}
	for i := range v.h.Ops {
		op := &v.h.Ops[i]
		if appendOf(op) == nil || op.Outcome != history.Refused {
			continue
		}
		for j := range op.Append.Events {
			e := &op.Append.Events[j]
			if place, ok := v.at[keyOf(e)]; ok && !possible[keyOf(e)] {
				verdict.problem("%s was refused (%s), but %s stands at position %d", opName(op), op.Code, eventName(e), place+1)
			}
		}
	}
}
