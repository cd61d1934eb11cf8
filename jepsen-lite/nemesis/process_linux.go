package nemesis

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cairn/jepsen-lite/lab"
)

// stopTime is how long a node may take to stop by itself.
const stopTime = 20 * time.Second

func (w *World) kill(ctx context.Context) (*fault, error) {
	nodes, who := w.some(ctx, 5)
	if len(nodes) == 0 {
		return nil, nil
	}
	alive, leads := alive(nodes), w.includesLeader(ctx, nodes)
	if err := w.Lab.Kill(numbers(nodes)...); err != nil {
		return nil, err
	}
	return &fault{
		what: fmt.Sprintf("kill -9 of %s (%s)", names(nodes), who), nodes: nodes, leader: leads,
		heal: func(context.Context) (map[string]int64, error) {
			return map[string]int64{"processes killed": alive}, w.start(nodes)
		},
	}, nil
}

func (w *World) pause(ctx context.Context) (*fault, error) {
	nodes, who := w.some(ctx, 4)
	if len(nodes) == 0 {
		return nil, nil
	}
	alive, leads := alive(nodes), w.includesLeader(ctx, nodes)
	for _, n := range nodes {
		if err := n.Pause(); err != nil {
			w.Logger.Info("not at rest yet", "node", name(n), "reason", err) // a thread of it waits for its disk
		}
	}
	return &fault{
		what: fmt.Sprintf("pause of %s (%s)", names(nodes), who), nodes: nodes, leader: leads,
		heal: func(context.Context) (map[string]int64, error) {
			for _, n := range nodes {
				n.Resume()
			}
			return map[string]int64{"processes paused": alive}, nil
		},
	}, nil
}

// restart restarts the free nodes one after the other, as an operator does.
func (w *World) restart(ctx context.Context) (*fault, error) {
	return w.roll("a rolling restart", func(*lab.Node) {})
}

// upgrade moves the nodes, one after the other, from the binary of an earlier
// commit, with which they began, to the present one. It can be done once.
func (w *World) upgrade(ctx context.Context) (*fault, error) {
	if w.Old == "" {
		return nil, errors.New("there is no earlier binary: set -upgrade-from")
	}
	if len(w.free()) < len(w.Lab.Nodes()) || w.free()[0].Command().Binary == w.Present {
		return nil, nil
	}
	return w.roll("a rolling upgrade", func(n *lab.Node) {
		n.Change(func(c *lab.Command) { c.Binary = w.Present })
	})
}

// roll stops and starts nodes one by one, each when the one before is ready. All
// of it is done when it is healed: it is the run that goes on meanwhile.
func (w *World) roll(what string, change func(*lab.Node)) (*fault, error) {
	nodes := w.free()
	if len(nodes) == 0 {
		return nil, nil
	}
	return &fault{
		what: what + " of " + names(nodes), nodes: nodes, lasts: time.Millisecond, last: true,
		heal: func(ctx context.Context) (map[string]int64, error) {
			for _, n := range nodes {
				if err := n.Stop(stopTime); err != nil {
					return nil, found("%v", err)
				}
				change(n)
				if err := w.start([]*lab.Node{n}); err != nil {
					return nil, err
				}
				if err := w.ready(ctx, time.Minute, n); err != nil {
					return nil, err
				}
			}
			return map[string]int64{"processes restarted": int64(len(nodes))}, nil
		},
	}, nil
}

// absence kills a node and lets it come back when the others have forgotten what
// it lacks: when each of them has taken two more snapshots, behind which Raft's
// log is cut, and was started again. As long as it runs, raft-wal reads what was
// cut off from the file it is in.
func (w *World) absence(ctx context.Context) (*fault, error) {
	nodes := w.free()
	if len(nodes) == 0 {
		return nil, nil
	}
	n := nodes[0]
	if l := w.leader(ctx); l != nil && l.Number() == n.Number() && len(nodes) > 1 {
		n = nodes[1]
	}
	leads := w.includesLeader(ctx, []*lab.Node{n})
	if err := n.Kill(); err != nil {
		return nil, err
	}
	return &fault{
		what: fmt.Sprintf("absence of %s until the others have forgotten what it lacks", name(n)), nodes: []*lab.Node{n}, lasts: time.Millisecond, last: true, leader: leads,
		heal: func(ctx context.Context) (map[string]int64, error) {
			w.awaitSnapshots(ctx, n)
			all := w.Lab.Nodes()
			if err := w.Lab.Kill(numbers(all)...); err != nil {
				return nil, err
			}
			if err := w.start(all); err != nil {
				return nil, err
			}
			if err := w.ready(ctx, time.Minute, n); err != nil {
				return nil, err
			}
			counted, err := w.Count(ctx, n)
			return map[string]int64{"snapshots installed": counted["installs"]}, err
		},
	}, nil
}

// awaitSnapshots waits until every node that runs, but for one, has taken two
// snapshots, or for a minute.
func (w *World) awaitSnapshots(ctx context.Context, but *lab.Node) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	first := map[int]int64{}
	for enough := false; !enough && ctx.Err() == nil; sleep(ctx, 200*time.Millisecond) {
		enough = true
		for _, n := range w.Lab.Nodes() {
			if n.Number() == but.Number() || !n.Alive() {
				continue
			}
			counted, err := w.Count(ctx, n)
			if err != nil {
				enough = false
				continue
			}
			now := counted["snapshots"]
			if begun, known := first[n.Number()]; !known || now < begun { // or it was started again
				first[n.Number()] = now
			}
			enough = enough && now >= first[n.Number()]+2
		}
	}
}
