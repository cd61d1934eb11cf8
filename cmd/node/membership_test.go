package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// roleOf is the role of p as seen by a node, "" if it is no member or the node
// can't tell.
func roleOf(by, p *process) string {
	s, err := by.status()
	if err != nil {
		return ""
	}
	return s.role(p)
}

// A fourth node becomes a member by itself, catches up and votes.
func TestProcess_FourthNodeJoins(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, small...)
	c.up()
	l := startLoad(t, c, 4, 4*time.Millisecond)
	l.progress(300)
	fourth := c.add()
	fourth.start()
	fourth.waitReady()
	eventually(t, 20*time.Second, func() bool { return roleOf(c.nodes[0], fourth) == "voter" },
		func() string { s, err := c.nodes[0].status(); return fmt.Sprintf("no voter: %+v, %v", s, err) })
	// Three of four are a majority only because the fourth votes.
	c.nodes[0].kill()
	l.progress(100)
	c.nodes[0].start()
	c.nodes[0].waitReady()
	l.stop()
	l.checkNodes()
	for _, p := range c.nodes {
		p.stop()
	}
	sameLogs(t, c.nodes)
}

// A node that was removed and still runs, or is started again, does not come
// back, and does not disturb the others.
func TestProcess_RemovedNodeStaysOut(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, small...)
	c.up()
	leader := c.leader()
	removed := c.others(leader)[0]
	stays := c.others(removed)
	appendUntil(t, c.nodes, "removed", "before")
	id := removed.id()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	a, err := stays[1].request(ctx, http.MethodDelete, "/v1/cluster/members/"+id, "", "Content-Type", "application/json")
	if err != nil || a.status/100 != 2 {
		t.Fatalf("remove %s: %s, %v", id, a, err)
	}
	out := func() bool { return roleOf(stays[0], removed) == "" && roleOf(stays[1], removed) == "" }
	eventually(t, 10*time.Second, out, func() string { s, _ := stays[0].status(); return fmt.Sprintf("still a member: %+v", s) })
	before, err := stays[0].status()
	if err != nil {
		t.Fatal(err)
	}
	// It may have learned of it and ended by itself already.
	removed.kill()
	removed.start()
	for i := range 20 { // two seconds of appends while it tries
		appendUntil(t, stays, "removed", fmt.Sprintf("after-%d", i))
		if !out() {
			t.Fatal("the removed node is a member again")
		}
		sleep(t.Context(), 100*time.Millisecond)
	}
	after, err := stays[0].status()
	if err != nil {
		t.Fatal(err)
	}
	if before.Term != after.Term {
		t.Errorf("the removed node disturbed the others: term %d became %d", before.Term, after.Term)
	}
	if code := removed.waitExit(10 * time.Second); code != 1 || !strings.Contains(lastLine(removed.out()), "removed from the cluster") {
		t.Errorf("the removed node ended with exit code %d:\n%s", code, tail(removed.out()))
	}
}
