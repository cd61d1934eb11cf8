package cluster

import (
	"encoding/json"
	"reflect"
	"testing"
)

func TestStatus_Cluster(t *testing.T) {
	t.Parallel()
	board := newSwitchboard()
	nodes := formThree(t, board)
	leader := awaitLeader(t, nodes)
	follower := without(nodes, leader)[0]
	_, position := leader.state.Applied()
	var st Status
	eventually(t, "all three alive, with nothing to catch up", func() bool {
		st = follower.status(t.Context())
		for _, m := range st.Members {
			if !m.Alive || m.Applied != position || m.Lag != 0 {
				return false
			}
		}
		return len(st.Members) == 3
	})
	if st.Log != leader.state.LogID() || st.Leader != leader.id || st.LeaderHTTP != "http://"+leader.id || st.Term != leader.rf.CurrentTerm() {
		t.Errorf("status %+v", st)
	}
	for i, id := range []string{"a", "b", "c"} {
		want := Member{ID: id, HTTP: "http://" + id, Role: RoleVoter, Alive: true, Applied: position, Version: "test"}
		if id == leader.id {
			want.Role = RoleLeader
		}
		if st.Members[i] != want {
			t.Errorf("member %+v, want %+v", st.Members[i], want)
		}
	}
	eventually(t, "the leader knows that it has caught up", func() bool {
		leader.status(t.Context())
		leader.membership.mu.Lock()
		defer leader.membership.mu.Unlock()
		return leader.seen[follower.id].Position == position
	})
	follower.stop(t, false)
	// The leader goes on while it is away.
	declare(t, without(nodes, follower), "somebody")
	_, now := leader.state.Applied()
	for _, m := range leader.status(t.Context()).Members {
		if m.ID == follower.id && (m.Alive || m.Applied != position || m.Lag != now-position || m.Role != RoleVoter) {
			t.Errorf("stopped member %+v", m)
		}
	}
}

func TestStatus_BeforeTheCluster(t *testing.T) {
	t.Parallel()
	board := newSwitchboard()
	a := startMember(t, board, memberOptions{id: "a", expect: 3})
	b := startMember(t, board, memberOptions{id: "b", expect: 3, join: a.seeds()})
	eventually(t, "they see each other", func() bool { return len(b.roster.alive()) == 2 })
	st := b.status(t.Context())
	want := []Member{
		{ID: "a", HTTP: "http://a", Role: RoleNonVoter, Alive: true, Version: "test"},
		{ID: "b", HTTP: "http://b", Role: RoleNonVoter, Alive: true, Version: "test"},
	}
	if st.Leader != "" || st.Log != "" || !reflect.DeepEqual(st.Members, want) {
		t.Errorf("status %+v", st)
	}
}

func TestStatus_JSON(t *testing.T) {
	st := Status{Log: "l", Leader: "a", LeaderHTTP: "http://a", Term: 3,
		Members: []Member{{ID: "a", HTTP: "http://a", Role: RoleLeader, Alive: true, Applied: 9, Lag: 1, Version: "v"}}}
	b, err := json.Marshal(st)
	want := `{"log":"l","leader":"a","term":3,"members":[{"id":"a","http":"http://a","role":"leader","alive":true,"applied":9,"lag":1,"version":"v"}]}`
	if err != nil || string(b) != want {
		t.Errorf("%s, %v", b, err)
	}
}
