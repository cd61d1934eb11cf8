package check

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/anishathalye/porcupine"

	"cairn/jepsen-lite/history"
)

// The model of one stream. Its state is its version alone, because the final
// log is a last read of it: a stream only grows, so the state at version n is
// the first n events of that read, and any other state could never come to it.
// For the same reason an append of unknown outcome happened if and only if the
// read has its events: what would be a choice in the search is none.
//
// A stream's share of an append of several streams is an append to that stream.
// This is sound: one order of all appends that explains the whole history also
// explains the share of each stream, so a correct history is never refused. It
// is weaker than judging all streams together: what it cannot see, that two
// streams saw two appends in different orders, the checkers of real-time order,
// atomic appends and reads see by positions.
type stepKind int

const (
	adds    stepKind = iota // answered as new
	joins                   // answered as a duplicate, or of unknown outcome: adds unless that was done
	stands                  // the version is at
	refused                 // the version is not at, and the events are not there
)

// step is the input of an operation of the model, with its output.
type step struct {
	op    *history.Op
	kind  stepKind
	first uint64 // of adds, joins and refused: the versions of its events, 0 if they are not there
	last  uint64
	at    uint64 // of stands and refused
	lost  bool   // was answered otherwise than the final log has it
}

// apply says whether s can be the next step at a version, and what comes then.
func (s *step) apply(version uint64) (bool, uint64) {
	switch s.kind {
	case adds:
		return !s.lost && version == s.first-1, s.last
	case joins:
		if s.lost || version < s.first-1 || version >= s.first && version < s.last {
			return false, version
		}
		return true, max(version, s.last)
	case stands:
		return version == s.at, version
	default:
		return version != s.at && (s.first == 0 || version < s.first), version
	}
}

func (s *step) String() string {
	name := fmt.Sprintf("op %d", s.op.ID)
	switch {
	case s.lost:
		return name + ": append, not in the final log as answered"
	case s.kind == adds:
		return fmt.Sprintf("%s: append of %d to %d", name, s.first, s.last)
	case s.kind == joins:
		return fmt.Sprintf("%s: append of %d to %d, %s", name, s.first, s.last, s.op.Outcome)
	case s.kind == stands:
		return fmt.Sprintf("%s: at %d", name, s.at)
	default:
		return fmt.Sprintf("%s: refused, not at %d", name, s.at)
	}
}

// model begins at a version: that of a stream when its earlier operations had
// all ended.
func model(version uint64) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return version },
		Step: func(state, input, _ any) (bool, any) {
			ok, next := input.(*step).apply(state.(uint64))
			return ok, next
		},
		DescribeOperation: func(input, _ any) string { return input.(*step).String() },
		DescribeState:     func(state any) string { return fmt.Sprintf("version %d", state) },
	}
}

// partition is a stream's operations within a span of time at whose ends none
// was under way.
type partition struct {
	stream string
	from   uint64 // the version it begins at
	ops    []porcupine.Operation
}

// partitionSize is how many operations a partition has before the next gap ends
// it. Porcupine's memory grows with their square.
const partitionSize = 500

// partitions cuts what the history tells of each stream into partitions, in
// order of the streams' names.
func (v *view) partitions() []partition {
	steps := map[string][]porcupine.Operation{}
	add := func(stream string, s *step, call, end int64) {
		steps[stream] = append(steps[stream], porcupine.Operation{ClientId: s.op.Client, Input: s, Call: call, Return: max(call, end)})
	}
	for i := range v.groups {
		v.appendSteps(&v.groups[i], add)
	}
	for i := range v.h.Ops {
		op := &v.h.Ops[i]
		if r := op.Read; r != nil && op.Append == nil && op.Outcome == history.OK && !r.Local && r.Stream != "" {
			add(r.Stream, &step{op: op, kind: stands, at: r.Version}, int64(op.Start), int64(op.End))
		}
	}
	streams := make([]string, 0, len(steps))
	for stream := range steps {
		streams = append(streams, stream)
	}
	slices.Sort(streams)
	var parts []partition
	for _, stream := range streams {
		parts = append(parts, cut(stream, steps[stream])...)
	}
	return parts
}

// appendSteps adds the steps of a group's tries, for each stream it writes to
// or has a condition on.
func (v *view) appendSteps(g *group, add func(stream string, s *step, call, end int64)) {
	for _, i := range g.tries {
		op := &v.h.Ops[i]
		call, end := int64(op.Start), int64(op.End)
		switch op.Outcome {
		case history.OK:
			written := v.written(op.Append)
			for stream, s := range written {
				s.op, s.kind = op, adds
				if op.Append.Duplicate {
					s.kind = joins
				}
				s.lost = s.lost || op.Append.Versions[stream] != s.last
				add(stream, s, call, end)
			}
			if op.Append.Duplicate {
				continue // its conditions were those of another moment
			}
			for _, c := range op.Append.Conditions {
				if c.Tag != "" {
					continue
				}
				if s, ok := written[c.Stream]; ok {
					s.lost = s.lost || s.first != c.Version+1
				} else {
					add(c.Stream, &step{op: op, kind: stands, at: c.Version}, call, end)
				}
			}
		case history.Refused:
			// Of several conditions it is not known which one failed.
			if c := op.Append.Conditions; op.Code == conditionFailed && len(c) == 1 && c[0].Tag == "" {
				s := &step{op: op, kind: refused, at: c[0].Version}
				if w := v.written(op.Append)[c[0].Stream]; w != nil && !w.lost {
					s.first, s.last = w.first, w.last
				}
				add(c[0].Stream, s, call, end)
			}
		}
	}
	if g.open < 0 || g.author >= 0 || g.first < 0 {
		return // nothing of unknown outcome, or it is known to have changed nothing
	}
	// However many tries ended in the unknown, one of them wrote the events: some
	// time after the first of them began, and before anybody saw them. That is all
	// there is to know of them, so together they are one step.
	op := &v.h.Ops[g.open]
	end := int64(never)
	if g.whole {
		end = int64(v.seen[g.first+len(v.events(g))-1])
	}
	for stream, s := range v.written(op.Append) {
		s.op, s.kind = op, joins
		add(stream, s, int64(op.Start), end)
	}
}

// written returns a step for each stream that an append writes to, with the
// versions that its events have in the final log. Where they are not all there,
// side by side, the step is lost.
func (v *view) written(a *history.Append) map[string]*step {
	written := map[string]*step{}
	for i := range a.Events {
		e := &a.Events[i]
		s := written[e.Stream]
		if s == nil {
			s = &step{}
			written[e.Stream] = s
		}
		place, ok := v.at[keyOf(e)]
		version := v.versionAt(e.Stream, uint64(place)+1)
		switch {
		case !ok || s.last > 0 && version != s.last+1:
			s.lost = true
		case s.last == 0:
			s.first = version
		}
		s.last = version
	}
	return written
}

// cut orders a stream's operations and cuts them where none is under way. Then
// the version is known: all appends before have been made, those after have not.
func cut(stream string, ops []porcupine.Operation) []partition {
	slices.SortStableFunc(ops, func(a, b porcupine.Operation) int {
		if c := cmp.Compare(a.Call, b.Call); c != 0 {
			return c
		}
		return cmp.Compare(a.Input.(*step).op.ID, b.Input.(*step).op.ID)
	})
	var parts []partition
	begin, version, next, end := 0, uint64(0), uint64(0), int64(0)
	for i := range ops {
		if i-begin >= partitionSize && ops[i].Call > end {
			parts = append(parts, partition{stream, version, ops[begin:i]})
			begin, version = i, next
		}
		if s := ops[i].Input.(*step); !s.lost && (s.kind == adds || s.kind == joins) {
			next = max(next, s.last)
		}
		end = max(end, ops[i].Return)
	}
	return append(parts, partition{stream, version, ops[begin:]})
}
