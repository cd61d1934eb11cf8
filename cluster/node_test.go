package cluster

import (
	"context"
	"fmt"
	"slices"
	"testing"
)

func TestNode_ProposeAndReadAnywhere(t *testing.T) {
	c := newTCPCluster(t, 3, nil)
	ctx := context.Background()
	var want []string
	for k := range 30 {
		id := fmt.Sprintf("e%d", k)
		c.propose(k%3, id)
		want = append(want, id)
		reader := (k + 1) % 3
		if err := c.nodes[reader].ReadIndex(ctx); err != nil {
			t.Fatalf("read index on %s: %v", nodeID(reader), err)
		}
		if got := c.machines[reader].events(); !slices.Equal(got, want) {
			t.Fatalf("after %s, %s has %v", id, nodeID(reader), got)
		}
	}
	for i, n := range c.nodes {
		if err := n.Ready(); err != nil {
			t.Errorf("%s: not ready: %v", nodeID(i), err)
		}
	}
	if got := c.machines[0].births; got != 1 {
		t.Errorf("the log was born %d times", got)
	}
}
