package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"cairn/event"
)

// The leader checks conditions as of what it has applied, also for appends that
// came through another node, and the command says up to where it did.
func TestPropose_Precheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, 3, nil)
		defer c.closeAll()
		l := c.leader()
		broken := errors.New("segment is damaged")
		for i := range c.machines {
			c.machines[i].precheck = func(a *event.Append) (uint64, *event.Outcome, error) {
				if i != l {
					t.Errorf("%s checks, which does not lead", nodeID(i))
				}
				switch a.Events[0].ID {
				case "refused":
					return 0, &event.Outcome{Code: event.ConditionFailed, Conflict: &event.Conflict{Position: 7}}, nil
				case "broken":
					return 0, nil, broken
				}
				return 1234, nil, nil
			}
		}
		for i, n := range c.nodes {
			out, err := n.Propose(context.Background(), one("refused"))
			if err != nil || out.Code != event.ConditionFailed || out.Conflict.Position != 7 {
				t.Errorf("refused through %s: %+v, %v", nodeID(i), out, err)
			}
			_, err = n.Propose(context.Background(), one("broken"))
			if peer := (*PeerError)(nil); !errors.Is(err, broken) && !errors.As(err, &peer) {
				t.Errorf("broken through %s: %v", nodeID(i), err)
			}
			if unknown := (*UnknownError)(nil); errors.As(err, &unknown) {
				t.Errorf("broken through %s: the outcome is known: %v", nodeID(i), err)
			}
			c.propose(i, "good")
		}
		if got := c.machines[l].verified; !slices.Equal(got, []uint64{1234, 1234, 1234}) {
			t.Errorf("verified to %v", got)
		}
	})
}

// A node refuses an append by its schemas only when it has applied all that was
// committed before; and an append that was accepted by schemas of the past is
// checked again.
func TestPropose_Check(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, 3, nil)
		defer c.closeAll()
		for i, n := range c.nodes {
			asked := 0
			c.machines[i].check = func(a *event.Append) (*event.Outcome, error) {
				asked++
				if a.Events[0].ID == "behind" && asked > 1 {
					return nil, nil
				}
				return &event.Outcome{Code: event.SchemaViolation, Violation: &event.Violation{Type: "T"}}, nil
			}
			if out, err := n.Propose(context.Background(), one("behind")); err != nil || !out.OK() || asked != 2 {
				t.Errorf("%s, which is behind: %+v, %v, asked %d times", nodeID(i), out, err, asked)
			}
			if out, err := n.Propose(context.Background(), one("bad")); err != nil || out.Code != event.SchemaViolation {
				t.Errorf("%s: %+v, %v", nodeID(i), out, err)
			}
			c.machines[i].check = nil
		}
		// Cut off from the others, nobody can say what is current.
		alone := 1 - min(c.leader(), 1)
		c.machines[alone].check = func(*event.Append) (*event.Outcome, error) {
			return &event.Outcome{Code: event.SchemaViolation, Violation: &event.Violation{Type: "T"}}, nil
		}
		for i := range c.nodes {
			if i != alone {
				c.stop(i)
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if out, err := c.nodes[alone].Propose(ctx, one("alone")); err == nil {
			t.Errorf("a node that is alone refuses by its schemas: %+v", out)
		} else if unknown := (*UnknownError)(nil); errors.As(err, &unknown) {
			t.Errorf("a node that is alone: the outcome is known: %v", err)
		}
	})
}

// Appends that are proposed together are decided in their order and each by
// itself.
func TestProposeAll_KeepsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, 3, nil)
		defer c.closeAll()
		l := c.leader()
		var want []string
		for i, n := range c.nodes {
			var appends []*event.Append
			for k := range 50 {
				appends = append(appends, bigAppend(fmt.Sprintf("%d-%d", i, k), 20<<10)) // two entries
			}
			appends[7].Events[0].ID = "refused"
			c.machines[l].precheck = func(a *event.Append) (uint64, *event.Outcome, error) {
				if a.Events[0].ID == "refused" {
					return 0, &event.Outcome{Code: event.Refused}, nil
				}
				return 0, nil, nil
			}
			for k, r := range n.ProposeAll(context.Background(), appends) {
				if r.Err != nil || r.Outcome.OK() == (k == 7) {
					t.Errorf("append %d through %s: %+v, %v", k, nodeID(i), r.Outcome, r.Err)
				}
				if k != 7 {
					want = append(want, appends[k].Events[0].ID)
				}
			}
		}
		if got := c.machines[l].events(); !slices.Equal(got, want) {
			t.Errorf("the log has %v", got)
		}
	})
}

// An append that can't be written in time leaves nothing behind: it is not
// written later.
func TestPropose_GivenUpInTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, 3, nil)
		defer c.closeAll()
		l := c.leader()
		n, m := c.nodes[l], c.machines[l]
		hold := make(chan struct{})
		m.mu.Lock()
		m.hold = hold
		m.mu.Unlock()
		var running sync.WaitGroup
		for i := range n.cfg.InFlight { // fill what may be under way
			running.Go(func() {
				if _, err := n.Propose(context.Background(), one(fmt.Sprint(i))); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := n.Propose(ctx, one("late"))
		if unknown := (*UnknownError)(nil); !errors.Is(err, ErrTimeout) || errors.As(err, &unknown) {
			t.Errorf("an append that waited in the queue: %v", err)
		}
		m.mu.Lock()
		m.hold = nil
		m.mu.Unlock()
		close(hold)
		running.Wait()
		c.propose(l, "next")
		if got := m.events(); slices.Contains(got, "late") || len(got) != n.cfg.InFlight+1 {
			t.Errorf("the log has %v", got)
		}
	})
}

func TestReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, 3, nil)
		defer c.closeAll()
		l := c.leader()
		back := (l + 1) % 3
		c.stop(back)
		for i := range 10 {
			c.propose(l, fmt.Sprint(i))
		}
		c.machines[back] = newMachine()
		c.machines[back].hold = make(chan struct{})
		c.start(back)
		time.Sleep(time.Second)
		if err := c.nodes[back].Ready(); !errors.Is(err, errBehind) {
			t.Errorf("ready before it has applied what was committed when it started: %v", err)
		}
		hold := c.machines[back].hold
		c.machines[back].mu.Lock()
		c.machines[back].hold = nil
		c.machines[back].mu.Unlock()
		close(hold)
		time.Sleep(time.Second)
		if err := c.nodes[back].Ready(); err != nil {
			t.Errorf("not ready: %v", err)
		}
		if got := len(c.machines[back].events()); got != 10 {
			t.Errorf("ready with %d events", got)
		}
		if id, url := c.nodes[back].Leader(); id != nodeID(l) || url != "http://"+nodeID(l) {
			t.Errorf("the leader is %s at %s, want %s", id, url, nodeID(l))
		}
	})
}

func TestMetrics_Registered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := prometheus.NewRegistry()
		c := newMemCluster(t, 1, func(_ int, cfg *Config) { cfg.Registerer = r })
		c.propose(0, "x")
		families, err := r.Gather()
		if err != nil {
			t.Fatal(err)
		}
		values := map[string]float64{}
		for _, f := range families {
			m := f.GetMetric()[0]
			values[f.GetName()] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
		for _, name := range []string{
			"cairn_proposed_entries_total", "cairn_commit_seconds", "cairn_raft_log_write_seconds", "cairn_leader",
			"cairn_raft_term", "cairn_applied_index", "cairn_raft_log_cache_bytes", "cairn_leadership_changes_total",
		} {
			if values[name] <= 0 {
				t.Errorf("%s is %v", name, values[name])
			}
		}
		c.closeAll()
		if families, err := r.Gather(); err != nil || len(families) != 0 {
			t.Errorf("a closed node leaves %d metrics, %v", len(families), err)
		}
	})
}
