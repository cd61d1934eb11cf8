package cluster

import (
	"errors"
	"slices"
	"testing"

	"github.com/hashicorp/raft"
)

// without returns the nodes but one.
func without(nodes []*member, gone *member) []*member {
	return slices.DeleteFunc(slices.Clone(nodes), func(n *member) bool { return n == gone })
}

// offList says that a node is on nobody's list.
func offList(nodes []*member, id string) bool {
	return !slices.ContainsFunc(nodes, func(n *member) bool { return n.role(id) != "" || !n.state.Removed(id) })
}

// The removed node runs on, as one does whose process does not end: it is told
// so, and it does not come back.
func TestRemove_StaysOut(t *testing.T) {
	t.Parallel()
	board := newSwitchboard()
	nodes := formThree(t, board)
	victim := followerOf(t, nodes)
	rest := without(nodes, victim)
	asked := followerOf(t, rest)
	if err := asked.remove(t.Context(), victim.id); err != nil {
		t.Fatalf("remove: %v", err)
	}
	expectFatal(t, victim, ErrRemoved)
	eventually(t, "it is on no list", func() bool { return offList(rest, victim.id) })
	leader := awaitLeader(t, rest)
	if i, ok := leader.roster.get(victim.id); !ok || !i.alive {
		t.Error("the removed node is not in gossip: the test shows nothing")
	}
	seen := leader.look(t.Context())
	if _, ok := seen.answers[victim.id]; !ok {
		t.Error("the removed node does not answer: the test shows nothing")
	}
	if c, ok := leader.plan(servers(leader.rf), seen, nil, nil); ok {
		t.Errorf("the leader plans %v", c)
	}
	if err := leader.apply(t.Context(), change{changeAdd, victim.id, victim.raftAddr}); !errors.Is(err, ErrRemoved) {
		t.Errorf("taken in again: %v", err)
	}
	if err := asked.remove(t.Context(), victim.id); err != nil {
		t.Errorf("remove once more: %v", err)
	}
}

// A node that is away when it is removed learns it from the others.
func TestRemove_WhileAway(t *testing.T) {
	t.Parallel()
	board := newSwitchboard()
	nodes := formThree(t, board)
	victim := followerOf(t, nodes)
	rest := without(nodes, victim)
	victim.stop(t, false)
	if err := rest[0].remove(t.Context(), victim.id); err != nil {
		t.Fatalf("remove: %v", err)
	}
	eventually(t, "it is on no list", func() bool { return offList(rest, victim.id) })
	back := startMember(t, board, memberOptions{id: victim.id, expect: 3, join: rest[0].seeds(), disk: victim.disk, deaf: true})
	expectFatal(t, back, ErrRemoved)
	if back.state.Removed(back.id) {
		t.Error("it learned it from the log: the test shows nothing")
	}
}

// A node that is alone learns it from its own log.
func TestRemove_ByTheLog(t *testing.T) {
	t.Parallel()
	n := startMember(t, newSwitchboard(), memberOptions{id: "a", expect: 3})
	n.state.mu.Lock()
	n.state.removed["a"] = true
	n.state.mu.Unlock()
	expectFatal(t, n, ErrRemoved)
}

func TestRemove_TheLeader(t *testing.T) {
	t.Parallel()
	board := newSwitchboard()
	nodes := formThree(t, board)
	victim := awaitLeader(t, nodes)
	rest := without(nodes, victim)
	if err := victim.remove(t.Context(), victim.id); err != nil {
		t.Fatalf("remove: %v", err)
	}
	eventually(t, "the others go on without it", func() bool {
		return offList(rest, victim.id) && leaderOf(rest) != nil
	})
	expectFatal(t, victim, ErrRemoved)
}

func TestRemove_Refused(t *testing.T) {
	t.Parallel()
	board := newSwitchboard()
	nodes := formThree(t, board)
	follower := followerOf(t, nodes)
	if err := follower.remove(t.Context(), "nobody"); !errors.Is(err, ErrUnknownMember) {
		t.Errorf("unknown member through a follower: %v", err)
	}
	if err := awaitLeader(t, nodes).remove(t.Context(), "nobody"); !errors.Is(err, ErrUnknownMember) {
		t.Errorf("unknown member: %v", err)
	}
	follower.stop(t, false)
	rest := without(nodes, follower)
	other := followerOf(t, rest)
	if err := other.remove(t.Context(), other.id); !errors.Is(err, ErrNoQuorum) {
		t.Errorf("the second of two live voters of three: %v", err)
	}
	// The dead one may go, and then one of the two.
	if err := other.remove(t.Context(), follower.id); err != nil {
		t.Errorf("the dead one: %v", err)
	}
	leader := awaitLeader(t, rest)
	if err := leader.remove(t.Context(), other.id); err != nil {
		t.Errorf("one of two: %v", err)
	}
	expectFatal(t, other, ErrRemoved)
	if err := leader.remove(t.Context(), leader.id); !errors.Is(err, ErrLastVoter) {
		t.Errorf("the last voter: %v", err)
	}
	if leader.state.Removed(leader.id) {
		t.Error("the refused removal is in the log")
	}
}

// What one leader has put into the log, the next one finishes.
func TestRemove_FinishedByTheNext(t *testing.T) {
	t.Parallel()
	board := newSwitchboard()
	nodes := formThree(t, board)
	victim := followerOf(t, nodes)
	rest := without(nodes, victim)
	victim.stop(t, false)
	declare(t, rest, victim.id)
	eventually(t, "it is taken off the list", func() bool { return offList(rest, victim.id) })
}

func TestRemove_NoLeader(t *testing.T) {
	t.Parallel()
	n := startMember(t, newSwitchboard(), memberOptions{id: "a", expect: 3, tune: func(tune *tuning) { tune.remove = tune.selfTick }})
	if err := n.remove(t.Context(), "b"); !errors.Is(err, ErrNoLeader) {
		t.Errorf("remove without a leader: %v", err)
	}
	if n.rf.State() == raft.Leader {
		t.Error("it leads")
	}
}
