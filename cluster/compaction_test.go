package cluster

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cairn/event"
)

func bigAppend(id string, bytes int) *event.Append {
	a := one(id)
	a.Events[0].Data = []byte(`"` + strings.Repeat("x", bytes) + `"`)
	return a
}

// Snapshots come by bytes, and leave as many bytes of entries behind them as
// the configuration says; a follower that was away longer gets the snapshot.
func TestCompact_ByBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const appendBytes = 16 << 10
		c := newMemCluster(t, 3, func(_ int, cfg *Config) {
			cfg.SnapshotBytes, cfg.TrailingBytes = 1<<20, 2<<20 // of which a quarter is kept without need
		})
		defer c.closeAll()
		l := c.leader()
		away := (l + 1) % 3
		ctx := context.Background()
		const appends = 200 // 3 MiB
		for i := range appends {
			if i == 10 {
				c.hub.setCut(nodeID(away), true)
			}
			if _, err := c.nodes[l].Propose(ctx, bigAppend(fmt.Sprint(i), appendBytes)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Second)
		n := c.nodes[l]
		list, err := c.snaps[l].List()
		if err != nil || len(list) == 0 {
			t.Fatalf("no snapshot: %v", err)
		}
		first, _ := n.log.FirstIndex()
		last, _ := n.log.LastIndex()
		kept, behind := int64(last-first+1)*appendBytes, list[0].Index-first
		if kept > 2<<20 || behind > 32 {
			t.Errorf("the log keeps %d to %d, the snapshot ends at %d", first, last, list[0].Index)
		}
		if first == 1 {
			t.Fatal("nothing was dropped")
		}
		if behind < 8 {
			t.Errorf("only %d entries are kept behind the snapshot", behind)
		}
		c.hub.setCut(nodeID(away), false)
		if err := c.nodes[away].ReadIndex(ctx); err != nil {
			t.Fatal(err)
		}
		if got := len(c.machines[away].events()); got != appends || c.machines[away].restores == 0 {
			t.Errorf("the one that was away has %d events after %d installs", got, c.machines[away].restores)
		}
	})
}
