package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"cairn/client"
	"cairn/event"
	"cairn/jepsen-lite/history"
	"cairn/jepsen-lite/lab"
	"cairn/jepsen-lite/workload"
)

const (
	settleTime = 30 * time.Second // for projections to be built when all is over
	followTime = 30 * time.Second // for followers to catch up
	readTime   = 2 * time.Minute  // to read everything back from one node
	stopTime   = 20 * time.Second // for a node to stop by itself
)

// conclude reads everything back from every node, stops them, looks at their
// files and completes the history. What a node can't do any more is a find.
func (e *trial) conclude(ctx context.Context, length, healed time.Duration) (*history.History, error) {
	position, projections, err := e.settled(ctx)
	if err != nil {
		e.found(fmt.Errorf("after all was healed: %w", err))
	}
	following, cancel := context.WithTimeout(ctx, followTime)
	h := history.History{
		Seed: e.seed, Command: e.command(), Length: length, Healed: healed, Workloads: e.workloads, Nemeses: append([]string{}, e.nemeses...),
		NoOverdraft: slices.ContainsFunc(e.workloads, workload.Money), Followers: e.load.Finish(following, position),
	}
	cancel()
	for _, n := range e.lab.Nodes() {
		last := history.Node{Name: nodeName(n)}
		if last.LogID, last.Events, err = e.readBack(ctx, n, position); err != nil {
			e.found(fmt.Errorf("read everything back from %s: %w", nodeName(n), err))
		}
		if last.Tables, err = tables(ctx, n, projections, position); err != nil {
			e.found(fmt.Errorf("read all rows back from %s: %w", nodeName(n), err))
		}
		h.Nodes = append(h.Nodes, last)
	}
	wait(ctx, 1500*time.Millisecond) // the counters' last look
	for i, n := range e.lab.Nodes() {
		h.Nodes[i].Worked = e.counters.of(n.Number())
		if err := n.Stop(stopTime); err != nil {
			e.found(err)
		}
	}
	if err := e.segments(h.Nodes); err != nil {
		e.found(err)
	}
	if err := e.ends(&h); err != nil {
		return nil, err
	}
	h.Finds = e.finds
	return e.recorder.Finish(h)
}

// settled waits until projections have come to rest and returns their names and
// the last position then, of whoever answers, linearizably.
func (e *trial) settled(ctx context.Context) (position uint64, projections []string, err error) {
	var urls []string
	for _, n := range e.lab.Nodes() {
		urls = append(urls, n.URL())
	}
	c, err := client.New(client.Config{Nodes: urls, Fixed: true, RetryFor: 30 * time.Second})
	if err != nil {
		return 0, nil, err
	}
	defer c.Close()
	waiting, cancel := context.WithTimeout(ctx, settleTime)
	projections, unsettled := workload.Settled(waiting, c)
	cancel()
	position, _, err = c.Position(ctx)
	return position, projections, errors.Join(unsettled, err)
}

// tables reads all rows that one node has, from its own disk: as they are, and as
// they were at a third and at two thirds of the log.
func tables(ctx context.Context, n *lab.Node, projections []string, position uint64) ([]history.Table, error) {
	if !n.Alive() {
		return nil, nil // which the log says already
	}
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	c, err := client.New(client.Config{Nodes: []string{n.URL()}, Fixed: true, AttemptTimeout: 20 * time.Second})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var all []history.Table
	for _, name := range projections {
		for _, past := range []uint64{0, position / 3, 2 * position / 3} {
			t, err := workload.Table(ctx, c, name, position, past)
			if err != nil {
				return all, fmt.Errorf("projection %s: %w", name, err)
			}
			all = append(all, t)
		}
	}
	return all, nil
}

// readBack returns all that one node has up to a position, from its own disk.
func (e *trial) readBack(ctx context.Context, n *lab.Node, position uint64) (logID string, events []history.Event, err error) {
	if !n.Alive() {
		return "", nil, errors.New("it does not run")
	}
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	c, err := client.New(client.Config{Nodes: []string{n.URL()}, Fixed: true, AttemptTimeout: 20 * time.Second})
	if err != nil {
		return "", nil, err
	}
	defer c.Close()
	page, err := c.Events(ctx, event.Filter{}, client.ReadOptions{Local: true, MinPosition: position, Limit: 1000, Raw: true})
	for err == nil {
		for i := range page.Events {
			events = append(events, workload.Seen(&page.Events[i]))
		}
		if page.Next == "" {
			return page.Log, events, nil
		}
		page, err = c.NextPage(ctx, page)
	}
	return "", nil, err
}

// segments adds the files of the nodes' logs. Of the last one the nodes may have
// reserved different lengths: it counts as far as all have it.
func (e *trial) segments(nodes []history.Node) error {
	folders := make([]string, len(nodes))
	shortest := map[string]int64{} // of the last segment, by name
	for i, n := range e.lab.Nodes() {
		current, err := os.ReadFile(filepath.Join(n.Command().Data, "logs/main/CURRENT"))
		if err != nil {
			return err
		}
		generation, _, _ := strings.Cut(strings.TrimSpace(string(current)), " ")
		folders[i] = filepath.Join(n.Command().Data, "logs/main", generation, "log")
		names, err := filepath.Glob(filepath.Join(folders[i], "*.seg"))
		if err != nil || len(names) == 0 {
			return errors.Join(fmt.Errorf("%s has no segments", nodes[i].Name), err)
		}
		slices.Sort(names)
		for _, name := range names {
			stat, err := os.Stat(name)
			if err != nil {
				return err
			}
			nodes[i].Segments = append(nodes[i].Segments, history.Segment{Name: filepath.Base(name), Size: stat.Size()})
		}
		last := nodes[i].Segments[len(names)-1]
		if known, ok := shortest[last.Name]; !ok || last.Size < known {
			shortest[last.Name] = last.Size
		}
	}
	for i := range nodes {
		for k := range nodes[i].Segments {
			s := &nodes[i].Segments[k]
			if size, ok := shortest[s.Name]; ok && k == len(nodes[i].Segments)-1 {
				s.Size = size
			}
			var err error
			if s.Sum, err = sum(filepath.Join(folders[i], s.Name), s.Size); err != nil {
				return err
			}
		}
	}
	return nil
}

// sum is the SHA-256 of the first bytes of a file.
func sum(file string, size int64) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.CopyN(hash, f, size); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// ends adds how processes ended, and what the nodes' logs say of panics that
// cost only a request.
func (e *trial) ends(h *history.History) error {
	now := e.recorder.Now()
	for _, exit := range e.lab.Exits() {
		how := history.Itself
		switch {
		case exit.Stopped:
			how = history.Stopped
		case exit.Asked:
			how = history.Killed
		}
		h.Exits = append(h.Exits, history.Exit{
			Node: fmt.Sprintf("n%d", exit.Node), At: now - time.Since(exit.At), How: how, Code: exit.Code, Status: exit.String(), LastLine: exit.LastLine,
		})
	}
	for i, n := range e.lab.Nodes() {
		text, err := os.ReadFile(n.LogFile())
		if err != nil {
			return err
		}
		h.Nodes[i].Panics = bytes.Count(text, []byte("handler panicked"))
	}
	return nil
}
