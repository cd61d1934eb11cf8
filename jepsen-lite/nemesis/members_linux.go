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
	if len(nodes) == 0 || len(nodes) < len(w.Lab.Nodes())/2+1 {
		return nil, nil
	}
	n := nodes[0]
	if w.rng.IntN(2) == 0 { // removed while it runs; it has to end by itself
		return &fault{
			what: fmt.Sprintf("%s is removed while it runs and comes back empty, under a new id", name(n)), nodes: []*lab.Node{n}, lasts: time.Millisecond, last: true,
			heal: func(ctx context.Context) (map[string]int64, error) {
				if err := w.remove(ctx, n.Command().ID); err != nil {
					return nil, err
				}
				ended, cancel := context.WithTimeout(ctx, stopTime)
				defer cancel()
				if _, err := n.Wait(ended); err != nil {
					return nil, fmt.Errorf("%s was removed and did not end: %w", name(n), err)
				}
				return map[string]int64{"members changed": 2}, w.replace(ctx, n)
			},
		}, nil
	}
	if err := n.Kill(); err != nil {
		return nil, err
	}
	return &fault{
		what: fmt.Sprintf("the disk of %s is gone; an empty node takes its place", name(n)), nodes: []*lab.Node{n}, last: true,
		heal: func(ctx context.Context) (map[string]int64, error) {
			return map[string]int64{"members changed": 2}, w.replace(ctx, n)
		},
	}, nil
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
