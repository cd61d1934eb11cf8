package check

import (
	"fmt"
	"slices"

	"cairn/jepsen-lite/history"
)

var equalNodes = checker{
	"equal nodes",
	"All nodes have the same events in the same places and the same segment files, byte for byte.",
	judgeNodes,
}

func judgeNodes(v *view, _ Options, verdict *Verdict) {
	var want *history.Node // the one with the final log
	for i := range v.h.Nodes {
		if v.h.Nodes[i].Name == v.node {
			want = &v.h.Nodes[i]
			break
		}
	}
	names := map[string]bool{}
	for i := range v.h.Nodes {
		got := &v.h.Nodes[i]
		if names[got.Name] {
			verdict.problem("node %s is there twice", got.Name)
		}
		names[got.Name] = true
		if got == want {
			continue
		}
		if got.LogID != want.LogID {
			verdict.problem("%s has log %s, %s has %s", got.Name, got.LogID, want.Name, want.LogID)
		}
		for j := range want.Events {
			if j >= len(got.Events) {
				verdict.problem("the log of %s ends at position %d, that of %s at %d", got.Name, j, want.Name, len(want.Events))
				break
			}
			if fault := unequal(&got.Events[j], &want.Events[j]); fault != "" {
				verdict.problem("%s and %s have another %s at position %d: %s and %s", got.Name, want.Name, fault, j+1,
					eventName(&got.Events[j]), eventName(&want.Events[j]))
				break
			}
		}
		segments(got, want, verdict)
	}
	verdict.Counts["nodes"] = int64(len(v.h.Nodes))
	verdict.Counts["segments"] = int64(len(want.Segments))
	verdict.Detail = fmt.Sprintf("%s, each with %s and %s", count(len(v.h.Nodes), "node"), count(len(want.Events), "event"), count(len(want.Segments), "segment"))
}

func segments(got, want *history.Node, verdict *Verdict) {
	if len(got.Segments) != len(want.Segments) {
		verdict.problem("%s has %s, %s has %d", got.Name, count(len(got.Segments), "segment"), want.Name, len(want.Segments))
	}
	for i := range min(len(got.Segments), len(want.Segments)) {
		if g, w := got.Segments[i], want.Segments[i]; g != w {
			verdict.problem("segment %s of %s has %d bytes with sum %s, segment %s of %s has %d with %s",
				g.Name, got.Name, g.Size, g.Sum, w.Name, want.Name, w.Size, w.Sum)
		}
	}
}

// unequal names what two events that should be the same differ in, or "".
func unequal(a, b *history.Event) string {
	switch {
	case a.Stream != b.Stream:
		return "stream"
	case a.ID != b.ID:
		return "id"
	case a.Position != b.Position:
		return "position"
	case a.Version != b.Version:
		return "version"
	case a.Time != b.Time:
		return "time"
	case a.Type != b.Type:
		return "type"
	case a.Sum != b.Sum:
		return "content"
	case a.Schema != b.Schema:
		return "schema"
	case !slices.Equal(a.Tags, b.Tags):
		return "tags"
	}
	return ""
}

// unlikeGiven names what of an event that was read differs from the stored one,
// or "". Unless it was read raw its data may be in the form of another schema,
// which the checker of schemas judges.
func unlikeGiven(got, stored *history.Event, raw bool) string {
	if raw || got.Schema == stored.Schema {
		return unequal(got, stored)
	}
	same := *got
	same.Schema, same.Sum = stored.Schema, stored.Sum
	return unequal(&same, stored)
}
