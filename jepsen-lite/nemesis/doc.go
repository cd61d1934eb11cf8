// Package nemesis is what breaks a run: it kills, stops and cuts off nodes, fails
// their disks, turns their clocks, changes who is a member, and heals it all
// again, by chance and on a schedule that a seed fixes. What the faults do to the
// nodes depends on time too, so that a seed makes a run alike, not the same.
//
// Each fault is recorded with what shows that it took effect.
//
// Only Linux has the namespaces and file systems that it needs.
package nemesis

import (
	"fmt"
	"strings"
)

// kind is a kind of faults.
type kind struct{ name, does string }

// kinds is every kind, in the order of the help.
func kinds() []kind {
	return []kind{
		{"kill", "kill -9 of one node, the leader, a minority, a majority or all at once"},
		{"pause", "nodes stand still (SIGSTOP) and go on"},
		{"partition", "one-way, halves, overlapping majorities, a leader cut off from nodes or from clients"},
		{"slow", "links that are slow, or lose packets"},
		{"power", "power failures: killed nodes lose what was not fsynced (needs FUSE)"},
		{"disk", "a disk fails (EIO), tears a write, fills up or stalls (needs FUSE)"},
		{"rot", "a bit of the log flips on a disk; the node is replaced (needs FUSE)"},
		{"usurp", "the leader's disk hangs while it is cut off from the other nodes, not from clients (needs FUSE)"},
		{"clock", "a clock jumps by up to an hour, forth or back (needs a binary built with -tags faults)"},
		{"transfer", "leadership is handed over again and again"},
		{"membership", "nodes are removed, replaced by empty ones, and added"},
		{"loss", "a node loses stable.db, Raft's log or its state, and is replaced if it refuses to go on"},
		{"install", "a node is away until the others have forgotten what it lacks"},
		{"restart", "a rolling restart"},
		{"upgrade", "a rolling change to the binary of an earlier commit and back (needs -upgrade-from)"},
	}
}

// All returns the names of all kinds.
func All() []string {
	var names []string
	for _, k := range kinds() {
		names = append(names, k.name)
	}
	return names
}

// Describe returns a line of help for each kind.
func Describe() string {
	var text strings.Builder
	for _, k := range kinds() {
		fmt.Fprintf(&text, "  %-10s %s\n", k.name, k.does)
	}
	return text.String()
}
