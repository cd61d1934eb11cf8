package cluster

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func TestReconcile_Plan(t *testing.T) {
	voter := func(id string) raft.Server {
		return raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress("r" + id)}
	}
	nonvoter := func(id string) raft.Server { s := voter(id); s.Suffrage = raft.Nonvoter; return s }
	on := func(id, addr string) profile { return profile{ID: id, Run: id, Raft: addr, Forms: [2]uint32{1, 1}} }
	list := []raft.Server{voter("a"), voter("b")}
	empty := map[string]answer{"c": {peerStatus: peerStatus{ID: "c", Run: "c"}}}
	with := func(change func(*peerStatus)) map[string]answer {
		s := peerStatus{ID: "c", Run: "c"}
		change(&s)
		return map[string]answer{"c": {peerStatus: s}}
	}
	for _, test := range []struct {
		name    string
		list    []raft.Server
		alive   []profile
		answers map[string]answer
		near    map[string]int
		removed []string
		failed  []change
		want    change
	}{
		{name: "nothing to do", list: list, alive: []profile{on("a", "ra"), on("b", "rb")}},
		{name: "a dead server stays", list: list, alive: []profile{on("a", "ra")}},
		{name: "new and empty", list: list, alive: []profile{on("c", "rc")}, answers: empty, want: change{changeAdd, "c", "rc"}},
		{name: "new but does not answer", list: list, alive: []profile{on("c", "rc")}},
		{name: "another run answers", list: list, alive: []profile{on("c", "rc")},
			answers: with(func(s *peerStatus) { s.Run = "old" })},
		{name: "new with our log", list: list, alive: []profile{on("c", "rc")},
			answers: with(func(s *peerStatus) { s.LogID, s.LastIndex = "log", 9 }), want: change{changeAdd, "c", "rc"}},
		{name: "new with another log", list: list, alive: []profile{on("c", "rc")},
			answers: with(func(s *peerStatus) { s.LogID = "other" })},
		{name: "entries of another cluster", list: list, alive: []profile{on("c", "rc")},
			answers: with(func(s *peerStatus) { s.LastIndex, s.Servers = 1, []string{"c", "x"} })},
		{name: "entries of ours before the birth was applied", list: list, alive: []profile{on("c", "rc")},
			answers: with(func(s *peerStatus) { s.LastIndex, s.Servers = 1, []string{"a", "c"} }), want: change{changeAdd, "c", "rc"}},
		{name: "too new a program", list: list, alive: []profile{{ID: "c", Run: "c", Raft: "rc", Forms: [2]uint32{2, 3}}}, answers: empty},
		{name: "removed before", list: list, alive: []profile{on("c", "rc")}, answers: empty, removed: []string{"c"}},
		{name: "removed but still listed", list: append(list, voter("c")), alive: []profile{on("c", "rc")}, removed: []string{"c"},
			want: change{changeRemove, "c", ""}},
		{name: "the leader does not remove itself", list: list, removed: []string{"a"}},
		{name: "moved", list: list, alive: []profile{on("b", "new")}, want: change{changeMove, "b", "new"}},
		{name: "moved to where another one was", list: append(list, voter("c")), alive: []profile{on("b", "rc")},
			want: change{changeVacate, "c", "c.invalid:0"}},
		{name: "moved to where another one is", list: append(list, voter("c")), alive: []profile{on("b", "rc"), on("c", "rc")},
			want: change{changeMove, "b", "rc"}},
		{name: "wiped: a new id at the old address", list: append(list, voter("x")), alive: []profile{on("c", "rx")}, answers: empty,
			want: change{changeVacate, "x", "x.invalid:0"}},
		{name: "near once", list: append(list, nonvoter("c")), near: map[string]int{"c": 1}},
		{name: "near twice", list: append(list, nonvoter("c")), near: map[string]int{"c": 2}, want: change{changePromote, "c", "rc"}},
		{name: "a failed change makes room", list: append(list, nonvoter("d")), alive: []profile{on("c", "rc")}, answers: empty,
			near: map[string]int{"d": 2}, failed: []change{{changePromote, "d", "rd"}}, want: change{changeAdd, "c", "rc"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			sm := &memberSM{logID: "log", version: 1, removed: map[string]bool{}}
			for _, id := range test.removed {
				sm.removed[id] = true
			}
			m := bareMembership(t, sm, &Config{NodeID: "a"})
			for _, p := range test.alive {
				m.roster.seen(p.ID+"#", "", p.encode())
			}
			failed := map[change]bool{}
			for _, c := range test.failed {
				failed[c] = true
			}
			got, ok := m.plan(test.list, sighting{servers: test.list, answers: test.answers}, test.near, failed)
			if got != test.want || ok != (test.want != change{}) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

// Only a non-voter that is close by both measures in every round counts.
func TestReconcile_Near(t *testing.T) {
	m := bareMembership(t, &memberSM{index: 1000}, &Config{NodeID: "a"})
	list := []raft.Server{{ID: "a"}, {ID: "b", Suffrage: raft.Nonvoter}}
	near := map[string]int{}
	round := func(applied, command uint64, answers bool) int {
		seen := sighting{servers: list, answers: map[string]answer{}}
		if answers {
			seen.answers["b"] = answer{peerStatus: peerStatus{ID: "b", Applied: applied, Command: command}, asked: 1010}
		}
		m.countNear(seen, near)
		return near["b"]
	}
	for i, s := range []struct {
		applied, command uint64
		answers          bool
		want             int
	}{
		{1010, 1000, true, 1}, {1010 - caughtUp, 1000 - caughtUp, true, 2},
		{1010, 1000, false, 0}, {1010, 1000, true, 1},
		{1010 - caughtUp - 1, 1000, true, 0}, {1010, 1000, true, 1},
		{1010, 1000 - caughtUp - 1, true, 0}, {5000, 5000, true, 1},
	} {
		if got := round(s.applied, s.command, s.answers); got != s.want {
			t.Errorf("round %d: %d, want %d", i, got, s.want)
		}
	}
}

func TestReconcile_FourthJoins(t *testing.T) {
	t.Parallel()
	board := newSwitchboard()
	nodes := formThree(t, board)
	d := startMember(t, board, memberOptions{id: "d", expect: 3, join: nodes[1].seeds()})
	nodes = append(nodes, d)
	eventually(t, "d is a voter", func() bool { return oneCluster(nodes) })
	var roles []string
	leader := awaitLeader(t, nodes)
	for i := uint64(1); i <= leader.rf.LastIndex(); i++ {
		var l raft.Log
		if leader.disk.logs.GetLog(i, &l) != nil || l.Type != raft.LogConfiguration {
			continue
		}
		if s, ok := findServer(raft.DecodeConfiguration(l.Data).Servers, "d"); ok {
			roles = append(roles, s.Suffrage.String())
		}
	}
	if roles = slices.Compact(roles); !slices.Equal(roles, []string{"Nonvoter", "Voter"}) {
		t.Errorf("d was %v", roles)
	}
	if d.formed() || d.former.pledged() != nil {
		t.Error("d took part in forming a cluster")
	}
}

// Raft's list follows a node that comes back at another address, although
// gossip still believes its last run to be alive: with probes an hour apart it
// would believe so for ever.
func TestReconcile_RestartElsewhere(t *testing.T) {
	t.Parallel()
	board := newSwitchboard()
	slow := func(tune *tuning) { tune.probeInterval, tune.probeTimeout = time.Hour, time.Hour }
	var nodes []*member
	var join []string
	for _, id := range []string{"a", "b", "c"} {
		n := startMember(t, board, memberOptions{id: id, expect: 3, join: join, tune: slow})
		nodes, join = append(nodes, n), append(join, n.seeds()...)
	}
	eventually(t, "one cluster", func() bool { return oneCluster(nodes) })
	old := followerOf(t, nodes)
	old.stop(t, false)
	awaitSilence(t, without(nodes, old), old.id)
	back := startMember(t, board, memberOptions{id: old.id, raftAddr: "elsewhere", expect: 3, join: join, disk: old.disk, tune: slow})
	nodes[slices.Index(nodes, old)] = back
	eventually(t, "all know the new address", func() bool {
		return !slices.ContainsFunc(nodes, func(n *member) bool {
			addr, ok := n.address(raft.ServerID(back.id))
			s, _ := findServer(servers(n.rf), back.id)
			return !ok || addr != "elsewhere" || s.Address != "elsewhere"
		})
	})
	eventually(t, "one cluster", func() bool { return oneCluster(nodes) })
	rest := without(nodes, back)
	for _, n := range rest {
		if len(n.roster.contested()) != 1 {
			t.Errorf("%s does not know the last run any more: the test shows nothing", n.id)
		}
	}
	// When the new run is gone too, the old one, which only gossip believes in,
	// must not get its place back.
	back.stop(t, true)
	for _, n := range rest {
		eventually(t, n.id+" sees it gone", func() bool { i, _ := n.roster.get(back.id); return !i.alive })
		n.settle(t.Context())
		if i, _ := n.roster.get(back.id); i.alive || i.Raft != "elsewhere" {
			t.Errorf("%s has %s at %s again", n.id, i.ID, i.Raft)
		}
	}
}

// Two live nodes with one id: the one that is on Raft's list keeps it.
func TestReconcile_TwoNodesOneID(t *testing.T) {
	t.Parallel()
	board := newSwitchboard()
	nodes := formThree(t, board)
	copied := startMember(t, board, memberOptions{id: "b", raftAddr: "copy", expect: 3, join: nodes[0].seeds()})
	for _, n := range nodes {
		eventually(t, n.id+" refuses the copy", func() bool { return n.lines.count("node refused") > 0 })
	}
	eventually(t, "the copy sees that it is not alone", func() bool { return copied.lines.count("node refused") > 0 })
	for range 20 {
		for _, n := range nodes {
			if s, _ := findServer(servers(n.rf), "b"); s.Address != "raft-b" {
				t.Fatalf("%s has b at %s", n.id, s.Address)
			}
			if addr, _ := n.address("b"); addr != "raft-b" {
				t.Fatalf("%s calls b at %s", n.id, addr)
			}
		}
		if leader := leaderOf(nodes); leader != nil {
			leader.leaderBell.ring()
		}
	}
	for _, n := range nodes {
		if got := n.lines.count("node refused"); got != 1 {
			t.Errorf("%s said so %d times", n.id, got)
		}
	}
	// A node that saw the copy first corrects itself by Raft's list.
	last := nodes[2]
	for _, i := range last.roster.contested()["b"] {
		if i.Raft == "copy" {
			last.roster.choose(i)
		}
	}
	last.settle(t.Context())
	if addr, _ := last.address("b"); addr != "raft-b" {
		t.Errorf("%s calls b at %s", last.id, addr)
	}
}

// A node whose disk was wiped has forgotten its votes: under its old id it ends,
// under a new one it is taken in, at the old address too.
func TestReconcile_Wiped(t *testing.T) {
	t.Parallel()
	board := newSwitchboard()
	nodes := formThree(t, board)
	old := followerOf(t, nodes)
	old.stop(t, false)
	rest := without(nodes, old)
	same := startMember(t, board, memberOptions{id: old.id, expect: 3, join: rest[0].seeds(), late: true})
	expectFatal(t, same, ErrWiped)
	same.stop(t, false)
	awaitSilence(t, rest, old.id)
	fresh := startMember(t, board, memberOptions{id: "new", raftAddr: old.raftAddr, expect: 3, join: rest[0].seeds()})
	eventually(t, "it is a voter under its new id", func() bool { return oneCluster(append(rest, fresh)) })
	s, ok := findServer(servers(fresh.rf), old.id)
	if !ok || string(s.Address) != vacant(old.id) {
		t.Errorf("the old id is at %q, %v", s.Address, ok)
	}
	select {
	case err := <-fresh.fatals:
		t.Errorf("it ended: %v", err)
	default:
	}
}

// A change that was planned before another leader changed the list is refused.
func TestReconcile_StaleChange(t *testing.T) {
	t.Parallel()
	board := newSwitchboard()
	n := startMember(t, board, memberOptions{id: "a", expect: 1})
	eventually(t, "a cluster of one", func() bool { return oneCluster([]*member{n}) })
	add := func(id string) error {
		return n.apply(t.Context(), change{changeAdd, id, "r" + id})
	}
	if err := add("x"); err != nil {
		t.Fatal(err)
	}
	if got := n.rf.GetConfiguration().Index(); got != 0 {
		t.Errorf("GetConfiguration knows the index %d: the change of nothing is no longer needed", got)
	}
	before := n.changer.last
	if err := n.rf.AddNonvoter("y", "ry", 0, time.Second).Error(); err != nil { // another leader's doing
		t.Fatal(err)
	}
	if err := add("z"); err == nil || !strings.Contains(err.Error(), "the list of servers has changed") {
		t.Errorf("a stale change: %v", err)
	}
	if n.role("z") != "" || before == 0 {
		t.Error("z is on the list")
	}
	if err := add("z"); err != nil {
		t.Errorf("planned anew: %v", err)
	}
	if err := add("z"); err == nil {
		t.Error("added twice")
	}
}
