package cluster

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/hashicorp/raft"

	"cairn/event"
)

func TestClusterVersion_Next(t *testing.T) {
	for _, test := range []struct {
		name      string
		current   uint32
		supported [][2]uint32
		want      uint32 // 0 = none
	}{
		{"no log yet", 0, [][2]uint32{{1, 3}}, 0},
		{"nobody", 1, nil, 0},
		{"all at the newest", 1, [][2]uint32{{1, 1}, {1, 1}}, 0},
		{"one is older", 1, [][2]uint32{{1, 2}, {1, 1}, {1, 2}}, 0},
		{"all support the next", 1, [][2]uint32{{1, 2}, {1, 2}}, 2},
		{"one step at a time", 1, [][2]uint32{{1, 3}, {1, 4}}, 2},
		{"one has no use for the next", 1, [][2]uint32{{1, 3}, {3, 4}}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, ok := nextClusterVersion(test.current, test.supported)
			if got != test.want || ok != (test.want != 0) {
				t.Errorf("got %d, %v, want %d", got, ok, test.want)
			}
		})
	}
}

func TestClusterVersion_Raise(t *testing.T) {
	seen := sighting{servers: []raft.Server{{ID: "a"}, {ID: "b"}, {ID: "c", Suffrage: raft.Nonvoter}}}
	for _, test := range []struct {
		name  string
		forms map[string][2]uint32 // who was ever seen
		dead  string
		want  uint32 // 0 = nothing is proposed
	}{
		{"all support it", map[string][2]uint32{"a": {1, 2}, "b": {1, 2}, "c": {1, 2}}, "", 2},
		{"the non-voter does not", map[string][2]uint32{"a": {1, 2}, "b": {1, 2}, "c": {1, 1}}, "", 0},
		{"one was never seen", map[string][2]uint32{"a": {1, 2}, "b": {1, 2}}, "", 0},
		{"one is away", map[string][2]uint32{"a": {1, 2}, "b": {1, 2}, "c": {1, 2}}, "c", 0},
		{"a stranger does not matter", map[string][2]uint32{"a": {1, 2}, "b": {1, 2}, "c": {1, 2}, "d": {1, 1}}, "", 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := bareMembership(t, &memberSM{version: 1}, &Config{NodeID: "a"})
			for id, forms := range test.forms {
				p := profile{ID: id, Raft: "r" + id, Forms: forms}
				m.roster.seen(id+"#", "", p.encode())
			}
			m.roster.gone(test.dead + "#")
			var proposed uint32
			m.deps.proposeSystem = func(_ context.Context, c event.Command) (event.Outcome, error) {
				e := c.Append.Events[0]
				var v event.ClusterVersion
				if err := json.Unmarshal(e.Data, &v); err != nil || e.Stream != event.StreamLog || e.Type != event.TypeClusterVersion {
					t.Errorf("proposed %s %s %s: %v", e.Stream, e.Type, e.Data, err)
				}
				proposed = v.Version
				return event.Outcome{Code: event.Accepted}, nil
			}
			if err := m.raiseVersion(t.Context(), seen); err != nil || proposed != test.want {
				t.Errorf("proposed %d, %v, want %d", proposed, err, test.want)
			}
			m.deps.proposeSystem = func(context.Context, event.Command) (event.Outcome, error) {
				return event.Outcome{Code: event.Refused, Reason: "no"}, nil
			}
			if err := m.raiseVersion(t.Context(), seen); (err != nil) != (test.want != 0) {
				t.Errorf("a refusal gave %v", err)
			}
		})
	}
}
