package main

import (
	"context"
	"encoding/json"
	"fmt"
	"syscall"
	"time"
)

// readyLimit is for a start; one that takes this long misses its goal by far.
const readyLimit = 5 * time.Minute

// cluster is the nodes under measurement.
type cluster struct {
	binary string
	nodes  []*process
	leader *process // as of the last start; nothing here makes it change later
}

func newCluster(s *settings) (*cluster, error) {
	c := &cluster{binary: s.binary}
	for i := range s.nodes {
		p, err := newProcess(i+1, s.data, s.out)
		if err != nil {
			return nil, err
		}
		c.nodes = append(c.nodes, p)
	}
	return c, nil
}

// start starts all nodes and waits until all are ready and know their leader.
func (c *cluster) start(ctx context.Context) error {
	for _, p := range c.nodes {
		if err := p.start(c.binary, c.nodes); err != nil {
			return err
		}
	}
	for _, p := range c.nodes {
		if err := p.awaitReady(ctx, readyLimit); err != nil {
			return err
		}
	}
	return c.findLeader(ctx)
}

// check returns an error if a node does not run.
func (c *cluster) check() error {
	for _, p := range c.nodes {
		if p.running() == 0 {
			return fmt.Errorf("%s has ended; see %s", p.id, p.log)
		}
	}
	return nil
}

// end ends all nodes, at once if the signal is SIGKILL.
func (c *cluster) end(signal syscall.Signal) {
	for _, p := range c.nodes {
		if p.cmd != nil {
			_ = p.cmd.Process.Signal(signal) // it may have ended already
		}
	}
	for _, p := range c.nodes {
		p.end(signal)
	}
}

// restart ends all nodes by a signal, starts them, and returns how long it took
// from there until all were ready.
func (c *cluster) restart(ctx context.Context, signal syscall.Signal) (time.Duration, error) {
	c.end(signal)
	begun := time.Now()
	if err := c.start(ctx); err != nil {
		return 0, fmt.Errorf("restart: %w", err)
	}
	return time.Since(begun), nil
}

// findLeader asks until a leader is known.
func (c *cluster) findLeader(ctx context.Context) error {
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		a, err := c.get(ctx, c.nodes[0], "/v1/cluster")
		if err != nil {
			return err
		}
		var status struct {
			Leader string `json:"leader"`
		}
		if err := json.Unmarshal(a.body, &status); err != nil {
			return fmt.Errorf("status of the cluster: %w", err)
		}
		for _, p := range c.nodes {
			if p.id == status.Leader {
				c.leader = p
				return nil
			}
		}
	}
	return fmt.Errorf("no leader in 30 s")
}

// get asks a node for something, on a connection of its own.
func (c *cluster) get(ctx context.Context, p *process, path string) (answer, error) {
	connection, err := dial(ctx, p.http)
	if err != nil {
		return answer{}, err
	}
	defer connection.close()
	a, err := connection.do(getRequest(p.http, path, "application/json"))
	if err == nil && a.status != 200 {
		err = a.unexpected(path)
	}
	return a, err
}
