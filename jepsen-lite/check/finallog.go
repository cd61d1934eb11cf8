package check

import (
	"fmt"
	"time"

	"cairn/jepsen-lite/history"
)

var finalLog = checker{
	"final log",
	"Positions and versions have no gaps, no event is there twice, none that nobody sent, and time never runs backwards.",
	judgeFinalLog,
}

func judgeFinalLog(v *view, _ Options, verdict *Verdict) {
	sent := map[eventKey][]*history.Event{}
	for i := range v.h.Ops {
		if a := appendOf(&v.h.Ops[i]); a != nil {
			for j := range a.Events {
				e := &a.Events[j]
				sent[keyOf(e)] = append(sent[keyOf(e)], e)
			}
		}
	}
	versions := map[string]uint64{}
	streamOf := map[string]string{} // by id, of the events that clients sent
	for i := range v.log {
		e := &v.log[i]
		position := uint64(i) + 1
		if e.Position != position {
			verdict.problem("%s has position %d in place %d of the log of %s", eventName(e), e.Position, position, v.node)
		}
		versions[e.Stream]++
		if e.Version != versions[e.Stream] {
			verdict.problem("%s at position %d has version %d, but is number %d of its stream", eventName(e), position, e.Version, versions[e.Stream])
		}
		if i > 0 && e.Time < v.log[i-1].Time {
			verdict.problem("%s at position %d has a time %v before that of the event in front of it", eventName(e), position, time.Duration(v.log[i-1].Time-e.Time))
		}
		if first := v.at[keyOf(e)]; first != i {
			verdict.problem("%s stands twice, at positions %d and %d", eventName(e), first+1, position)
		}
		if own(e.Stream) {
			continue
		}
		if other, ok := streamOf[e.ID]; ok && other != e.Stream {
			verdict.problem("%s at position %d has an id that an event of stream %q has", eventName(e), position, other)
		}
		streamOf[e.ID] = e.Stream
		if fault := unlike(e, sent[keyOf(e)]); fault != "" {
			verdict.problem("%s at position %d %s", eventName(e), position, fault)
		}
	}
	verdict.Counts["events"] = int64(len(v.log))
	verdict.Counts["streams"] = int64(len(versions))
	verdict.Detail = fmt.Sprintf("%s in %s", count(len(v.log), "event"), count(len(versions), "stream"))
}

// unlike says how a stored event is like none that was sent with its id, or "".
func unlike(stored *history.Event, sent []*history.Event) string {
	if len(sent) == 0 {
		return "was sent by nobody"
	}
	var fault string
	for _, e := range sent {
		if fault = differs(stored, e); fault == "" {
			return ""
		}
	}
	return "has another " + fault + " than was sent"
}
