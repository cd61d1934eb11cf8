package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cairn/event"
)

// BenchmarkPropose measures replication alone: three nodes in one process, over
// loopback, with real files and a state machine in memory. clients are spread
// over the nodes, or all on the leader.
func BenchmarkPropose(b *testing.B) {
	for _, where := range []string{"leader", "spread"} {
		for _, clients := range []int{1, 64, 256} {
			b.Run(fmt.Sprintf("%s/clients=%d", where, clients), func(b *testing.B) {
				c := newTCPCluster(b, 3, func(cfg *Config) { cfg.HeartbeatTimeout = time.Second })
				leader := c.leader()
				var left atomic.Int64
				left.Store(int64(b.N))
				took := make([][]time.Duration, clients)
				var running sync.WaitGroup
				b.ResetTimer()
				for k := range clients {
					n := c.nodes[leader]
					if where == "spread" {
						n = c.nodes[k%3]
					}
					running.Go(func() {
						a := &event.Append{Events: []event.Event{{
							Stream: fmt.Sprintf("bench-%d", k), Type: "Benched", ID: "x", Data: []byte(strings.Repeat("x", 256)),
						}}}
						for left.Add(-1) >= 0 {
							begun := time.Now()
							if _, err := n.Propose(context.Background(), a); err != nil {
								b.Error(err)
								return
							}
							took[k] = append(took[k], time.Since(begun))
						}
					})
				}
				running.Wait()
				b.StopTimer()
				all := slices.Concat(took...)
				slices.Sort(all)
				b.ReportMetric(float64(len(all))/b.Elapsed().Seconds(), "appends/s")
				b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "p50-ms")
				b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "p99-ms")
			})
		}
	}
}
