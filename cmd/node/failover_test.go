package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"
)

// appendOnce appends one event with an id and reports whether it is in the log.
func (p *process) appendOnce(stream, id string, limit time.Duration) (answer, bool) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	a, err := p.request(ctx, http.MethodPost, "/v1/streams/"+stream+"/events", fmt.Sprintf(`{"type":"Tick","id":%q,"data":{}}`, id))
	if err != nil {
		return answer{}, false
	}
	return a, a.status == http.StatusCreated || a.status == http.StatusOK
}

// appendUntil repeats one append on the nodes in turn until it is in the log,
// and returns how long that took.
func appendUntil(t *testing.T, nodes []*process, stream, id string) time.Duration {
	t.Helper()
	begin := time.Now()
	last := answer{}
	i := 0
	eventually(t, 20*time.Second, func() bool {
		a, ok := nodes[i%len(nodes)].appendOnce(stream, id, time.Second)
		last, i = a, i+1
		return ok
	}, func() string { return fmt.Sprintf("no append succeeds: %s", last) })
	return time.Since(begin)
}

// others are the nodes that run, without p.
func (c *group) others(p *process) []*process {
	return slices.DeleteFunc(slices.Clone(c.nodes), func(o *process) bool { return o == p || !o.running() })
}

// After a SIGKILL of the leader appends go on soon. The figures are logged; the
// bound only catches what is broken, since machines differ.
func TestProcess_Failover(t *testing.T) {
	rounds := 10
	if testing.Short() {
		rounds = 3
	}
	c := newCluster(t, 3)
	c.up()
	var took []time.Duration
	for i := range rounds {
		leader := c.leader()
		appendUntil(t, c.nodes, "failover", fmt.Sprintf("before-%d", i))
		leader.kill()
		took = append(took, appendUntil(t, c.others(leader), "failover", fmt.Sprintf("after-%d", i)))
		leader.start()
		leader.waitReady()
	}
	slices.Sort(took)
	median := took[len(took)/2]
	t.Logf("SIGKILL of the leader to the next append: median %s, all %s", median, took)
	if median > 5*time.Second {
		t.Errorf("the median of a failover is %s", median)
	}
}

// A stop hands leadership over first: appends on the other nodes see no
// failure, and only a short gap.
func TestProcess_StopHandsOver(t *testing.T) {
	rounds := 5
	if testing.Short() {
		rounds = 2
	}
	c := newCluster(t, 3)
	c.up()
	var gaps []time.Duration
	for i := range rounds {
		leader := c.leader()
		nodes := c.others(leader)
		longest, failures := time.Duration(0), 0
		done := make(chan struct{})
		go func() {
			defer close(done)
			sleep(t.Context(), 200*time.Millisecond)
			leader.stop()
		}()
		for k, stopped := 0, false; !stopped; k++ {
			select {
			case <-done:
				stopped = true
			default:
			}
			begin := time.Now()
			id := fmt.Sprintf("gap-%d-%d", i, k)
			for _, ok := nodes[k%2].appendOnce("handover", id, 5*time.Second); !ok; _, ok = nodes[k%2].appendOnce("handover", id, 5*time.Second) {
				failures++
				if time.Since(begin) > 5*time.Second {
					t.Fatal("no append for 5 s")
				}
			}
			longest = max(longest, time.Since(begin))
		}
		gaps = append(gaps, longest)
		t.Logf("stop of the leader: the slowest append took %s, %d tries failed", longest, failures)
		if longest > 2*time.Second {
			t.Errorf("a gap of %s", longest)
		}
		leader.start()
		leader.waitReady()
	}
	slices.Sort(gaps)
	t.Logf("longest gap of a stop: median %s, all %s", gaps[len(gaps)/2], gaps)
}

// A node that stands still for a while and wakes must not answer from the past.
func TestProcess_PausedLeader(t *testing.T) {
	c := newCluster(t, 3)
	c.up()
	leader := c.leader()
	appendUntil(t, c.nodes, "pause", "before")
	pause(leader)
	appendUntil(t, c.others(leader), "pause", "during")
	resume(leader)
	// Its own view may still be the old one; a linearizable read must not be.
	var a answer
	eventually(t, 10*time.Second, func() bool {
		var err error
		a, err = leader.get("/v1/streams/pause/events")
		return err == nil && a.status == http.StatusOK
	}, func() string { return "no read: " + a.String() })
	if v := a.header.Get("ETag"); v != `"2"` && !containsVersion(a, 2) {
		t.Errorf("the woken leader answers from the past: %s", a)
	}
}
