package check

import (
	"fmt"
	"slices"
	"strings"

	"cairn/jepsen-lite/history"
)

var followers = checker{
	"followers",
	"Every follower was given each matching event once, in order, without a gap, across all its connections.",
	judgeFollowers,
}

func judgeFollowers(v *view, _ Options, verdict *Verdict) {
	given := map[int][]*history.Delivery{}
	for i := range v.h.Deliveries {
		d := &v.h.Deliveries[i]
		given[d.Follower] = append(given[d.Follower], d)
	}
	acknowledged := uint64(0)
	for i := range v.h.Ops {
		if op := &v.h.Ops[i]; op.Append != nil && (v.h.Healed == 0 || op.End <= v.h.Healed) {
			acknowledged = max(acknowledged, reached(op))
		}
	}
	connections, known := 0, map[int]bool{}
	for i := range v.h.Followers {
		f := &v.h.Followers[i]
		if known[f.ID] {
			verdict.problem("follower %d is there twice", f.ID)
			continue
		}
		known[f.ID] = true
		connections += v.followed(f, given[f.ID], acknowledged, verdict)
	}
	for i := range v.h.Deliveries {
		if d := &v.h.Deliveries[i]; !known[d.Follower] {
			verdict.problem("%s was given to follower %d, which is not there", eventName(&d.Event), d.Follower)
			break
		}
	}
	verdict.Counts["followers"] = int64(len(v.h.Followers))
	verdict.Counts["connections"] = int64(connections)
	verdict.Counts["deliveries"] = int64(len(v.h.Deliveries))
	verdict.Detail = fmt.Sprintf("%s in %s of %s", comma(len(v.h.Deliveries))+" deliveries", count(connections, "connection"), count(len(v.h.Followers), "follower"))
}

// followed judges one follower and returns how many connections brought it
// anything. It stops at the first fault: what follows it follows from it.
func (v *view) followed(f *history.Follower, given []*history.Delivery, acknowledged uint64, verdict *Verdict) int {
	connections, last := 0, 0
	for _, d := range given {
		if connections == 0 || d.Connection != last {
			connections, last = connections+1, d.Connection
		}
	}
	for _, fault := range f.Faults {
		verdict.problem("follower %d was sent what is no event: %s", f.ID, fault)
	}
	if !f.Done {
		verdict.problem("follower %d (%s) was never told that it had everything", f.ID, f.Form)
	}
	if f.Through > uint64(len(v.log)) {
		verdict.problem("follower %d (%s) was told of position %d, but the final log ends at %d", f.ID, f.Form, f.Through, len(v.log))
	}
	if f.Through < acknowledged {
		verdict.problem("follower %d (%s) was told of nothing behind position %d, though %d had been acknowledged by the time all was healed", f.ID, f.Form, f.Through, acknowledged)
	}
	place := 0 // the next one to look at
	for n, d := range given {
		for place < len(v.log) && !matches(f, place, &v.log[place]) {
			place++
		}
		who := fmt.Sprintf("delivery %d of follower %d (%s, connection %d, %s, at %.3fs)", n+1, f.ID, f.Form, d.Connection, d.Node, d.At.Seconds())
		if place == len(v.log) {
			verdict.problem("%s is %s, though the final log has no more for it", who, eventName(&d.Event))
			return connections
		}
		if want := &v.log[place]; unlikeGiven(&d.Event, want, false) != "" {
			verdict.problem("%s is %s at position %d, but next was %s at %d (another %s)", who, eventName(&d.Event), d.Event.Position, eventName(want), place+1, unlikeGiven(&d.Event, want, false))
			return connections
		}
		if d.At < v.sent[place] {
			verdict.problem("%s is %s, which was sent later", who, eventName(&d.Event))
		}
		place++
	}
	for ; uint64(place) < min(f.Through, uint64(len(v.log))); place++ {
		if matches(f, place, &v.log[place]) {
			verdict.problem("follower %d (%s) was never given %s at position %d, and was told that it had all up to %d", f.ID, f.Form, eventName(&v.log[place]), place+1, f.Through)
			break
		}
	}
	return connections
}

// matches reports whether f follows the event at a place.
func matches(f *history.Follower, place int, e *history.Event) bool {
	return uint64(place) >= f.After && strings.HasPrefix(e.Stream, f.Prefix) &&
		(len(f.Types) == 0 || slices.Contains(f.Types, e.Type))
}
