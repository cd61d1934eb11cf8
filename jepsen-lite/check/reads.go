package check

import (
	"fmt"
	"math"

	"cairn/jepsen-lite/history"
)

var reads = checker{
	"reads",
	"Every answer is the final log's content as of its position. Linearizable ones miss nothing acknowledged before, local ones are no older than asked for, none is ahead of what was sent.",
	judgeReads,
}

func judgeReads(v *view, _ Options, verdict *Verdict) {
	// latest is when the last of the first n events was sent, by n.
	latest := make([]mark, len(v.log)+1)
	for i := range v.log {
		latest[i+1] = latest[i]
		if v.sent[i] > latest[i].at {
			latest[i+1] = mark{at: v.sent[i], position: uint64(i) + 1}
		}
	}
	local, linear, events := 0, 0, 0
	for i := range v.h.Ops {
		op := &v.h.Ops[i]
		r := op.Read
		if r == nil || op.Append != nil || op.Outcome != history.OK {
			continue
		}
		events += len(r.Events)
		if r.Local {
			local++
		} else {
			linear++
			if m, ok := v.known.before(op.Start); ok && r.Position < m.position {
				verdict.problem("%s read as of position %d, though position %d had been answered before, to %s", opName(op), r.Position, m.position, opName(m.op))
			}
		}
		if r.Position < r.MinPosition {
			verdict.problem("%s read as of position %d, not of at least %d as it asked for", opName(op), r.Position, r.MinPosition)
		}
		if r.Position > uint64(len(v.log)) {
			verdict.problem("%s read as of position %d, but the final log ends at %d", opName(op), r.Position, len(v.log))
			continue
		}
		if m := latest[r.Position]; m.position > 0 && m.at > op.End {
			verdict.problem("%s read as of position %d, but %s at position %d was sent later", opName(op), r.Position, eventName(&v.log[m.position-1]), m.position)
		}
		if fault := v.misread(r); fault != "" {
			verdict.problem("%s, as of position %d: %s", opName(op), r.Position, fault)
		}
	}
	verdict.Counts["linearizable"] = int64(linear)
	verdict.Counts["local"] = int64(local)
	verdict.Counts["events"] = int64(events)
	verdict.Detail = fmt.Sprintf("%s and %s with %s", count(linear, "linearizable read"), count(local, "local read"), count(events, "event"))
}

// misread says how the answer to a read differs from the final log's content as
// of its position, which the final log must reach; or "".
func (v *view) misread(r *history.Read) string {
	var places []int // of the stream's events, if it is one stream's
	end := r.Position
	if r.Stream != "" {
		places = v.byStream[r.Stream]
		end = v.versionAt(r.Stream, r.Position)
		if r.Version != end {
			return fmt.Sprintf("stream %q is at version %d, not %d", r.Stream, end, r.Version)
		}
	}
	want := uint64(0)
	if r.After < end {
		want = end - r.After
	}
	limit := uint64(math.MaxUint64)
	if r.Limit > 0 {
		limit = uint64(r.Limit)
	}
	if want = min(want, limit); uint64(len(r.Events)) != want {
		return fmt.Sprintf("%s in place of %d", count(len(r.Events), "event"), want)
	}
	for i := range r.Events {
		place := int(r.After) + i
		if places != nil {
			place = places[place]
		}
		got, stored := &r.Events[i], &v.log[place]
		if fault := unlikeGiven(got, stored, r.Raw); fault != "" {
			return fmt.Sprintf("event %d of the answer, %s, has another %s than %s at position %d", i+1, eventName(got), fault, eventName(stored), place+1)
		}
	}
	return ""
}
