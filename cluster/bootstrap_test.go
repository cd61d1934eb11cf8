package cluster

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"cairn/event"
)

// Three nodes are started in random order, and stopped and started at random
// until they are a cluster; then all of them are stopped and started once more.
func TestForm_OnceUnderRestarts(t *testing.T) {
	t.Parallel()
	rng := memberSeed(t)
	board := newSwitchboard()
	ids := []string{"a", "b", "c"}
	disks := map[string]*disk{}
	gossip := map[string]string{} // fixed once known, so that seeds stay good
	running := map[string]*member{}
	wrote := 0
	start := func(id string) {
		if disks[id] == nil {
			disks[id] = newDisk(t)
		}
		join := slices.Collect(func(yield func(string) bool) {
			for _, other := range ids {
				if g := gossip[other]; g != "" && !yield(g) {
					return
				}
			}
		})
		n := startMember(t, board, memberOptions{id: id, expect: 3, join: join, disk: disks[id], gossip: gossip[id]})
		gossip[id] = n.gossipAddress()
		running[id] = n
	}
	stop := func(id string) {
		running[id].stop(t, rng.IntN(2) == 0)
		if running[id].formed() {
			wrote++
		}
		delete(running, id)
	}
	for _, i := range rng.Perm(3) {
		start(ids[i])
	}
	for range 6 {
		id := ids[rng.IntN(3)]
		if running[id] != nil {
			stop(id)
		} else {
			start(id)
		}
	}
	for _, id := range ids {
		if running[id] == nil {
			start(id)
		}
	}
	all := func() (nodes []*member) {
		for _, id := range ids {
			nodes = append(nodes, running[id])
		}
		return nodes
	}
	eventually(t, "one cluster", func() bool { return oneCluster(all()) })
	list := firstList(t, disks["a"])
	logID := running["a"].state.LogID()
	for _, id := range ids {
		stop(id)
	}
	for _, i := range rng.Perm(3) {
		start(ids[i])
	}
	eventually(t, "the same cluster", func() bool { return oneCluster(all()) })
	if got := running["a"].state.LogID(); got != logID {
		t.Errorf("log %s after a restart of all, %s before", got, logID)
	}
	for _, n := range all() {
		if n.formed() {
			wrote++
		}
		if got := firstList(t, n.disk); !bytes.Equal(got, list) {
			t.Errorf("first list of %s differs", n.id)
		}
	}
	if wrote != 1 {
		t.Errorf("the list was written %d times", wrote)
	}
	eventually(t, "gossip tells all of the log", func() bool {
		return !slices.ContainsFunc(all(), func(n *member) bool {
			return slices.ContainsFunc(n.roster.alive(), func(i instance) bool { return i.LogID != logID })
		})
	})
}

// The stamp of the log's birth needs the others' clocks, which the coordinator
// has read before: here nobody makes rounds of its own.
func TestForm_BirthHasATime(t *testing.T) {
	t.Parallel()
	board := newSwitchboard()
	var nodes []*member
	var join []string
	for _, id := range []string{"a", "b", "c"} {
		n := startMember(t, board, memberOptions{id: id, expect: 3, join: join, tune: func(tune *tuning) {
			tune.busyTick, tune.idleTick = time.Hour, time.Hour
		}})
		nodes, join = append(nodes, n), append(join, n.seeds()...)
	}
	eventually(t, "one cluster", func() bool { return oneCluster(nodes) })
	if stamp := firstStamp(t, nodes[0].disk); stamp == 0 {
		t.Error("the log's birth has no time")
	}
}

// firstStamp returns the time of the first command of a node's log.
func firstStamp(t *testing.T, d *disk) int64 {
	t.Helper()
	var l raft.Log
	for i := uint64(1); d.logs.GetLog(i, &l) == nil; i++ {
		if l.Type != raft.LogCommand {
			continue
		}
		entry, err := event.DecodeEntry(l.Data)
		if err != nil {
			t.Fatal(err)
		}
		return entry.Time
	}
	t.Fatal("no command")
	return 0
}

func TestForm_TooFew(t *testing.T) {
	t.Parallel()
	board := newSwitchboard()
	a := startMember(t, board, memberOptions{id: "a", expect: 3})
	b := startMember(t, board, memberOptions{id: "b", expect: 3, join: a.seeds()})
	eventually(t, "both see each other", func() bool {
		return len(a.roster.alive()) == 2 && len(b.roster.alive()) == 2
	})
	for range 50 {
		for _, n := range []*member{a, b} {
			if err := n.form(t.Context(), n.rf); err == nil || !strings.Contains(err.Error(), "2 nodes are there, 3 are expected") {
				t.Fatalf("form: %v", err)
			}
		}
	}
	for _, n := range []*member{a, b} {
		if n.rf.LastIndex() != 0 || n.former.pledged() != nil {
			t.Errorf("%s has an entry or a pledge", n.id)
		}
	}
}

// A joiner does not count, one node too many does: nobody may guess which
// three of four are meant.
func TestForm_ExactlyAsManyAsExpected(t *testing.T) {
	for _, test := range []struct {
		name    string
		expects []int // of the others; -1 = it has a log
		own     int
		want    string // "" = a list
	}{
		{"three", []int{3, 3}, 3, ""},
		{"one of a cluster beside them", []int{3, 3, -1}, 3, "there is a cluster"},
		{"a joiner beside them", []int{3, 3, 0}, 3, ""},
		{"four", []int{3, 3, 3}, 3, "4 nodes are there"},
		{"different ideas", []int{3, 2}, 3, "expects 2 nodes, this one 3"},
		{"joiner itself", []int{3, 3, 3}, 0, "waits for a cluster"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := bareMembership(t, &memberSM{}, &Config{NodeID: "a", Expect: test.own, Raft: Endpoint{Advertise: "ra"}})
			own := m.profile()
			m.roster.seen("a#", "", own.encode())
			for i, expect := range test.expects {
				id := string(rune('b' + i))
				p := profile{ID: id, Raft: "r" + id, Expect: max(expect, 0)}
				if expect < 0 {
					p.LogID = "log"
				}
				m.roster.seen(id+"#", "", p.encode())
			}
			list, err := m.formingList()
			if test.want == "" {
				if err != nil || len(list) != 3 || list[0].ID != "a" || list[2].ID != "c" {
					t.Errorf("list %v, %v", list, err)
				}
			} else if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

func TestForm_AloneAtOnce(t *testing.T) {
	t.Parallel()
	n := startMember(t, newSwitchboard(), memberOptions{id: "a", expect: 1})
	eventually(t, "a cluster of one", func() bool { return oneCluster([]*member{n}) })
	if n.clockStamp() == 0 {
		t.Error("a single node does not know its own clock")
	}
}

// One that expects itself only but is given a seed wants to join: it must not
// found a second cluster.
func TestForm_AloneWithSeedJoins(t *testing.T) {
	t.Parallel()
	board := newSwitchboard()
	a := startMember(t, board, memberOptions{id: "a", expect: 1})
	b := startMember(t, board, memberOptions{id: "b", expect: 1, join: a.seeds()})
	eventually(t, "b is a voter of a's cluster", func() bool { return oneCluster([]*member{a, b}) })
	if b.formed() {
		t.Error("b formed a cluster of its own")
	}
}

func TestForm_NeverWithState(t *testing.T) {
	t.Parallel()
	board := newSwitchboard()
	old := newDisk(t)
	if err := old.stable.SetUint64(keyTerm, 7); err != nil {
		t.Fatal(err)
	}
	a := startMember(t, board, memberOptions{id: "a", expect: 3})
	b := startMember(t, board, memberOptions{id: "b", expect: 3, join: a.seeds()})
	c := startMember(t, board, memberOptions{id: "c", expect: 3, join: a.seeds(), disk: old})
	nodes := []*member{a, b, c}
	eventually(t, "all see each other", func() bool {
		return !slices.ContainsFunc(nodes, func(n *member) bool { return len(n.roster.alive()) != 3 })
	})
	for range 20 {
		if err := a.form(t.Context(), a.rf); err == nil || !strings.Contains(err.Error(), "c has Raft state") {
			t.Fatalf("form: %v", err)
		}
	}
	if a.rf.LastIndex() != 0 || b.former.pledged() != nil {
		t.Error("a has an entry or b a pledge")
	}
	// Each of the two steps would have been enough.
	list, err := a.formingList()
	if err != nil {
		t.Fatal(err)
	}
	p := pledge{Coordinator: "a", Attempt: "1", Servers: list}
	var reply formingReply
	if err := a.ask(t.Context(), c.raftAddr, "pledge", formingCall{Pledge: p, To: "c"}, &reply); err != nil || reply.OK {
		t.Errorf("c pledged itself: %v %v", reply, err)
	}
	// A list with another address is another list.
	other := slices.Clone(list)
	other[2].Addr = "elsewhere"
	if err := a.probeAll(t.Context(), other); err == nil || !strings.Contains(err.Error(), "b sees other members") {
		t.Errorf("probe with a wrong list: %v", err)
	}
	p.Servers = other
	if err := a.ask(t.Context(), b.raftAddr, "pledge", formingCall{Pledge: p, To: "b"}, &reply); err != nil || reply.OK {
		t.Errorf("b pledged itself to a wrong list: %v %v", reply, err)
	}
	p.Servers, p.Coordinator = list, "x"
	if err := a.ask(t.Context(), b.raftAddr, "pledge", formingCall{Pledge: p, To: "b"}, &reply); err != nil || reply.OK {
		t.Errorf("b pledged itself to a stranger: %v %v", reply, err)
	}
}

// A crash between the two writes of BootstrapCluster leaves a node that Raft
// will never bootstrap; the next one must take over, although all are bound.
func TestForm_TornCoordinator(t *testing.T) {
	t.Parallel()
	board := newSwitchboard()
	half := newDisk(t)
	if err := half.stable.SetUint64(keyTerm, 1); err != nil {
		t.Fatal(err)
	}
	// Nobody answers until all see one another and two of them are bound to it.
	var nodes []*member
	var join []string
	for _, id := range []string{"a", "b", "c"} {
		board.mute("raft-"+id, true)
		o := memberOptions{id: id, expect: 3, join: join}
		if id == "a" {
			o.disk = half
		}
		n := startMember(t, board, o)
		nodes, join = append(nodes, n), append(join, n.seeds()...)
	}
	var list []listedServer
	eventually(t, "all see the same list", func() bool {
		var err error
		list, err = nodes[0].formingList()
		return err == nil && !slices.ContainsFunc(nodes, func(n *member) bool { return len(n.roster.alive()) != 3 })
	})
	for _, n := range nodes[1:] {
		if err := n.former.accept(&pledge{Coordinator: "a", Attempt: "1", Servers: list}); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range nodes {
		board.mute(n.raftAddr, false)
	}
	eventually(t, "one cluster", func() bool { return oneCluster(nodes) })
	if !nodes[1].formed() {
		t.Error("b did not form it")
	}
	eventually(t, "no pledge is left", func() bool {
		return nodes[1].former.pledged() == nil && nodes[2].former.pledged() == nil
	})
}

// A node that is bound to a coordinator that is gone forms nothing else.
func TestForm_BoundToTheDead(t *testing.T) {
	t.Parallel()
	board := newSwitchboard()
	d := newDisk(t)
	held := &pledge{Coordinator: "0", Attempt: "1", Servers: []listedServer{{"0", "raft-0"}, {"b", "raft-b"}, {"c", "raft-c"}}}
	if err := filePledge(d.folder + "/" + pledgeFile).save(held); err != nil {
		t.Fatal(err)
	}
	a := startMember(t, board, memberOptions{id: "a", expect: 3})
	b := startMember(t, board, memberOptions{id: "b", expect: 3, join: a.seeds(), disk: d})
	c := startMember(t, board, memberOptions{id: "c", expect: 3, join: a.seeds()})
	nodes := []*member{a, b, c}
	eventually(t, "all see each other", func() bool {
		return !slices.ContainsFunc(nodes, func(n *member) bool { return len(n.roster.alive()) != 3 })
	})
	if err := a.form(t.Context(), a.rf); err == nil || !strings.Contains(err.Error(), "has pledged itself to 0") {
		t.Errorf("a: form: %v", err)
	}
	if err := b.form(t.Context(), b.rf); err == nil || !strings.Contains(err.Error(), "wipe this node") {
		t.Errorf("b: form: %v", err)
	}
	// The dead one comes back, empty: it gives the attempt up, and all form.
	zero := startMember(t, board, memberOptions{id: "0", expect: 0, join: a.seeds()})
	eventually(t, "one cluster of three", func() bool { return oneCluster(nodes) })
	eventually(t, "the fourth is taken in", func() bool { return oneCluster(append(nodes, zero)) })
}

func TestForm_RefusesWrongCalls(t *testing.T) {
	t.Parallel()
	board := newSwitchboard()
	a := startMember(t, board, memberOptions{id: "a", expect: 3})
	list := []listedServer{{"a", "raft-a"}, {"b", "raft-b"}, {"c", "raft-c"}}
	p := pledge{Coordinator: "b", Attempt: "1", Servers: list}
	var reply formingReply
	if err := a.ask(t.Context(), a.raftAddr, "pledge", formingCall{Pledge: p, To: "x"}, &reply); err == nil {
		t.Error("a call for another node was answered")
	}
	if err := a.ask(t.Context(), a.raftAddr, "pledge", formingCall{Pledge: p, To: "a"}, &reply); err != nil || reply.OK {
		t.Errorf("pledged itself to members it does not see: %v %v", reply, err)
	}
	if err := a.ask(t.Context(), a.raftAddr, "withdraw", formingCall{Pledge: p, To: "a"}, &reply); err == nil {
		t.Error("withdrew for another node")
	}
	for _, name := range []string{"status", "probe", "pledge", "withdraw", "remove"} {
		if _, err := board.Call(t.Context(), a.raftAddr, name, []byte("{")); err == nil {
			t.Errorf("%s took malformed JSON", name)
		}
	}
	if a.former.pledged() != nil {
		t.Error("a is bound")
	}
}

// bareMembership is a membership without Raft and gossip.
func bareMembership(t *testing.T, sm *memberSM, cfg *Config) *membership {
	t.Helper()
	m, err := newMembership(cfg, membershipDeps{sm: sm, server: newPeerServer(), raft: func() *raft.Raft { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

var errDisk = errors.New("disk full")

type brokenPledge struct{ memoryPledge }

func (*brokenPledge) save(*pledge) error { return errDisk }
