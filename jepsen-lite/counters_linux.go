package main

import (
	"bufio"
	"context"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"cairn/jepsen-lite/lab"
)

// measured says under which name the history has a metric.
func measured() map[string]string {
	return map[string]string{
		"cairn_log_rolls_total": "rolls", "cairn_savepoints_total": "savepoints", "cairn_raft_snapshots_total": "snapshots",
		"cairn_raft_installs_total": "installs", "cairn_index_flushes_total": "flushes", "cairn_index_compactions_total": "compactions",
		"cairn_index_write_stalls_total": "write stalls", "cairn_leadership_changes_total": "leadership changes",
	}
}

// counters adds up what the nodes count, over all their starts. What a process
// counted in its last second is lost with it.
type counters struct {
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu    sync.Mutex
	total map[int]map[string]int64 // under mu; by node and name
	seen  map[int]map[string]int64 // the goroutine's; of the present process
}

func watchCounters(l *lab.Lab) *counters {
	ctx, cancel := context.WithCancel(context.Background())
	c := &counters{cancel: cancel, total: map[int]map[string]int64{}, seen: map[int]map[string]int64{}}
	c.done.Go(func() {
		for wait(ctx, time.Second) {
			for _, n := range l.Nodes() {
				c.look(ctx, n)
			}
		}
	})
	return c
}

func (c *counters) stop() {
	c.cancel()
	c.done.Wait()
}

// of returns what a node has counted.
func (c *counters) of(node int) map[string]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.total[node])
}

// look reads a node's counters. A node that does not answer is left out.
func (c *counters) look(ctx context.Context, n *lab.Node) {
	if now, err := measure(ctx, n); err == nil {
		c.add(n.Number(), now)
	}
}

// measure reads what the present process of a node has counted.
func measure(ctx context.Context, n *lab.Node) (map[string]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, n.URL()+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	now := map[string]int64{}
	names := measured()
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		metric, value, _ := strings.Cut(lines.Text(), " ")
		if name, ok := names[metric]; ok {
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return nil, err
			}
			now[name] = int64(v)
		}
	}
	return now, lines.Err()
}

func (c *counters) add(node int, now map[string]int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.total[node] == nil {
		c.total[node], c.seen[node] = map[string]int64{}, map[string]int64{}
	}
	for name, v := range now {
		before := c.seen[node][name]
		if v < before { // a new process counts from 0
			before = 0
		}
		c.total[node][name] += v - before
		c.seen[node][name] = v
	}
}
