package nemesis

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	"cairn/jepsen-lite/lab"
)

// membership changes who is a member, under load.
func (w *World) membership(ctx context.Context) (*fault, error) {
	nodes := w.free()
	if len(nodes)-1 < len(w.Lab.Nodes())/2+1 {
		return nil, nil // without this one there would be too few to decide anything, such as a removal
	}
	n := nodes[0]
	if w.rng.IntN(2) == 0 { // removed while it runs; it has to end by itself
		return &fault{
			what: fmt.Sprintf("%s is removed while it runs and comes back empty, under a new id", name(n)), nodes: []*lab.Node{n}, lasts: time.Millisecond, last: true,
			heal: func(ctx context.Context) (map[string]int64, error) {
				before := n.Command().ID
				if err := w.remove(ctx, before); err != nil {
					return nil, err
				}
				ended, cancel := context.WithTimeout(ctx, stopTime)
				defer cancel()
				if _, err := n.Wait(ended); err != nil {
					return nil, found("%s was removed and did not end: %v", name(n), err)
				}
				return w.replaced(ctx, n, before)
			},
		}, nil
	}
	if err := n.Kill(); err != nil {
		return nil, err
	}
	return &fault{
		what: fmt.Sprintf("the disk of %s is gone; an empty node takes its place", name(n)), nodes: []*lab.Node{n}, last: true,
		heal: func(ctx context.Context) (map[string]int64, error) {
			return w.replaced(ctx, n, n.Command().ID)
		},
	}, nil
}

// replaced replaces a node and returns how the list of members shows it.
func (w *World) replaced(ctx context.Context, n *lab.Node, before string) (map[string]int64, error) {
	if err := w.replace(ctx, n); err != nil {
		return nil, err
	}
	status, err := w.cluster(ctx)
	if err != nil {
		return nil, nil // nobody can say
	}
	bit := map[string]int64{"members removed": 1}
	for _, m := range status.Members {
		switch m.ID {
		case before:
			bit["members removed"] = 0
		case n.Command().ID:
			bit["members added"] = 1
		}
	}
	return bit, nil
}

// turnClock sets the clock of one node forth or back, up to an hour.
func (w *World) turnClock(ctx context.Context) (*fault, error) {
	nodes, who := w.some(ctx, 2)
	if len(nodes) == 0 {
		return nil, nil
	}
	n := nodes[0]
	by := w.between(time.Minute, time.Hour)
	if w.rng.IntN(2) == 0 {
		by = -by
	}
	before, err := turns(n)
	if err != nil {
		return nil, err
	}
	if err := turn(w.Clock(n.Number()), by); err != nil {
		return nil, err
	}
	return &fault{
		what: fmt.Sprintf("the clock of %s (%s) jumps by %s", name(n), who, by.Round(time.Second)), nodes: []*lab.Node{n},
		heal: func(ctx context.Context) (map[string]int64, error) {
			after, err := turns(n)
			if err != nil {
				return nil, err
			}
			return map[string]int64{"jumps noticed": after - before}, turn(w.Clock(n.Number()), 0)
		},
	}, nil
}

// turns is how often a node has said that its clock was turned.
func turns(n *lab.Node) (int64, error) {
	text, err := os.ReadFile(n.LogFile())
	return int64(bytes.Count(text, []byte("the clock was turned"))), err
}

// turn writes how far a clock is off.
func turn(file string, by time.Duration) error {
	return os.WriteFile(file, []byte(strconv.FormatInt(int64(by), 10)), 0o644)
}
