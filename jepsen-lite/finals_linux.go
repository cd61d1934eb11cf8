package main

import (
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
	"cairn/jepsen-lite/check"
	"cairn/jepsen-lite/history"
	"cairn/jepsen-lite/lab"
	"cairn/jepsen-lite/workload"
)

const (
	readTime = 2 * time.Minute  // to read everything back from every node
	stopTime = 20 * time.Second // for a node to stop by itself
)

// conclude reads everything back from every node, stops them, looks at their
// files and completes the history.
func (e *trial) conclude(ctx context.Context, length, healed time.Duration) (*history.History, []check.Verdict, error) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	position, logID, err := e.lastPosition(ctx)
	if err != nil {
		return nil, nil, e.invalid(fmt.Errorf("nobody could say how long the log is after all was healed: %w", err))
	}
	h := history.History{
		Seed: e.seed, Command: e.command(), Length: length, Healed: healed,
		NoOverdraft: slices.Contains(e.workloads, "transfer"), Followers: e.load.Finish(ctx, position),
	}
	for _, n := range e.lab.Nodes() {
		events, err := e.readBack(ctx, n, position)
		if err != nil {
			return nil, nil, e.invalid(fmt.Errorf("read everything back from %s: %w", nodeName(n), err))
		}
		h.Nodes = append(h.Nodes, history.Node{Name: nodeName(n), LogID: logID, Events: events})
	}
	time.Sleep(1500 * time.Millisecond) // the counters' last look
	for i, n := range e.lab.Nodes() {
		h.Nodes[i].Worked = e.counters.of(n.Number())
		if err := n.Stop(stopTime); err != nil {
			return nil, nil, e.invalid(err)
		}
	}
	if err := e.segments(h.Nodes); err != nil {
		return nil, nil, err
	}
	complete, err := e.recorder.Finish(h)
	return complete, []check.Verdict{e.ends()}, err
}

// lastPosition asks, linearizably, until somebody answers.
func (e *trial) lastPosition(ctx context.Context) (position uint64, logID string, err error) {
	var urls []string
	for _, n := range e.lab.Nodes() {
		urls = append(urls, n.URL())
	}
	c, err := client.New(client.Config{Nodes: urls, Fixed: true, RetryFor: 30 * time.Second})
	if err != nil {
		return 0, "", err
	}
	defer c.Close()
	return c.Position(ctx)
}

// readBack returns all that one node has up to a position, from its own disk.
func (e *trial) readBack(ctx context.Context, n *lab.Node, position uint64) ([]history.Event, error) {
	c, err := client.New(client.Config{Nodes: []string{n.URL()}, Fixed: true, AttemptTimeout: 20 * time.Second})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var events []history.Event
	for found, err := range c.AllEvents(ctx, event.Filter{}, client.ReadOptions{Local: true, MinPosition: position}) {
		if err != nil {
			return nil, err
		}
		events = append(events, workload.Seen(&found))
	}
	return events, nil
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

// ends judges how processes ended by themselves. One that met a disk it can't
// use or was removed says so in a line and exits with 1; anything else is a
// crash.
func (e *trial) ends() check.Verdict {
	v := check.Verdict{
		Checker: "processes", Proves: "A process that ended by itself said why and exited with status 1; none crashed.",
		Valid: true, Counts: map[string]int64{},
	}
	for _, exit := range e.lab.Exits() {
		if exit.Asked {
			v.Counts["ended by the nemesis"]++
			continue
		}
		v.Counts["ended by themselves"]++
		if exit.Code != 1 || !strings.Contains(exit.LastLine, "cairn-node: ") {
			v.Valid = false
			v.Problems = append(v.Problems, fmt.Sprintf("n%d ended with %s after %s: %s", exit.Node, exit, exit.Ran.Round(time.Millisecond), exit.LastLine))
		}
	}
	v.Detail = fmt.Sprintf("%d ended by the nemesis, %d by themselves", v.Counts["ended by the nemesis"], v.Counts["ended by themselves"])
	return v
}
