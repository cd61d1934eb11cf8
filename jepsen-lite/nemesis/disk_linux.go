package nemesis

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"cairn/client"
	"cairn/event"
	"cairn/jepsen-lite/disk"
	"cairn/jepsen-lite/history"
	"cairn/jepsen-lite/lab"
)

var errNoDisks = errors.New("the nodes write to a real disk, which can't be told to fail: FUSE is needed")

// power kills nodes and lets their disks forget what was not fsynced, or a part
// of it.
func (w *World) power(ctx context.Context) (*fault, error) {
	if len(w.Disks) == 0 {
		return nil, errNoDisks
	}
	nodes, who := w.some(ctx, 5)
	if len(nodes) == 0 {
		return nil, nil
	}
	leads := w.includesLeader(ctx, nodes)
	if err := w.Lab.Kill(numbers(nodes)...); err != nil {
		return nil, err
	}
	keep := []float64{0, 0.5, 0.9}[w.rng.IntN(3)]
	bit := map[string]int64{}
	for _, n := range nodes {
		lost, err := w.Disks[n.Number()].PowerLoss(w.rng, keep)
		if err != nil {
			return nil, err
		}
		bit["bytes lost"] += lost.Bytes
		bit["files lost"] += lost.Files
		bit["names undone"] += lost.Names
	}
	return &fault{
		what: fmt.Sprintf("power failure of %s (%s), %.0f %% of what was not fsynced is kept", names(nodes), who, 100*keep), nodes: nodes, leader: leads,
		heal: func(context.Context) (map[string]int64, error) { return bit, w.start(nodes) },
	}, nil
}

// failDisk lets the disk of one node fail in one way.
func (w *World) failDisk(ctx context.Context) (*fault, error) {
	if len(w.Disks) == 0 {
		return nil, errNoDisks
	}
	nodes, who := w.some(ctx, 2)
	if len(nodes) == 0 {
		return nil, nil
	}
	n := nodes[0]
	d := w.Disks[n.Number()]
	var f disk.Fault
	var what string
	switch w.rng.IntN(5) {
	case 0:
		f, what = disk.Fault{Kind: disk.EIO, Ops: disk.Write}, "fails writes (EIO)"
	case 1:
		f, what = disk.Fault{Kind: disk.EIO, Ops: disk.Sync}, "fails fsync (EIO)"
	case 2:
		f, what = disk.Fault{Kind: disk.NoSpace, Free: int64(w.rng.IntN(1 << 20))}, "is full (ENOSPC)"
	case 3:
		f, what = disk.Fault{Kind: disk.Torn}, "tears writes, then fails them (EIO)"
	default:
		f, what = disk.Fault{Kind: disk.Stall, Ops: disk.Write | disk.Sync}, "stalls"
	}
	before := d.Counters()
	release, err := d.Inject(f)
	if err != nil {
		return nil, err
	}
	return &fault{
		what: fmt.Sprintf("the disk of %s (%s) %s", name(n), who, what), nodes: []*lab.Node{n},
		heal: func(ctx context.Context) (map[string]int64, error) {
			release()
			after := d.Counters()
			bit := map[string]int64{
				"operations failed":  after.Failed - before.Failed + after.NoSpace - before.NoSpace + after.Torn - before.Torn,
				"operations held up": after.Stalled - before.Stalled,
			}
			// A node whose disk failed must have ended, or end any moment. One that
			// was only held up goes on.
			if bit["operations failed"] > 0 {
				ended, cancel := context.WithTimeout(ctx, stopTime)
				defer cancel()
				exit, err := n.Wait(ended)
				if err != nil {
					return nil, found("%s met a disk that %s and did not end: %v", name(n), what, err)
				}
				bit["nodes ended"]++
				w.Logger.Info("node ended", "node", name(n), "exit", exit.String(), "said", exit.LastLine)
			}
			return bit, w.start([]*lab.Node{n})
		},
	}, nil
}

// usurp lets the leader hang in a write, so that it can't step down, and cuts it
// off from the other nodes: they elect another leader, and clients still reach
// the first, which must not answer as if it still led.
func (w *World) usurp(ctx context.Context) (*fault, error) {
	if len(w.Disks) == 0 {
		return nil, errNoDisks
	}
	l := w.leader(ctx)
	if l == nil || w.busy[l.Number()] {
		return nil, nil
	}
	var others []int
	for _, n := range w.Lab.Nodes() {
		if n.Number() != l.Number() {
			others = append(others, n.Number())
		}
	}
	d := w.Disks[l.Number()]
	held := d.Counters().Stalled
	release, err := d.Inject(disk.Fault{Kind: disk.Stall, Ops: disk.Write | disk.Sync})
	if err != nil {
		return nil, err
	}
	sleep(ctx, 200*time.Millisecond) // for the next append to reach the disk
	links := lab.Between([]int{l.Number()}, others)
	before := w.Lab.Traffic(links...)
	w.Lab.Cut(links...)
	return &fault{
		what: fmt.Sprintf("%s, the leader, hangs in a write and is cut off from the other nodes, not from clients", name(l)), nodes: []*lab.Node{l}, leader: true,
		lasts: w.between(2*time.Second, 6*time.Second),
		heal: func(context.Context) (map[string]int64, error) {
			release()
			w.Lab.Restore(links...)
			dropped := int64(w.Lab.Traffic(links...).Cut - before.Cut)
			return map[string]int64{"packets dropped": dropped, "writes held up": d.Counters().Stalled - held}, w.start([]*lab.Node{l})
		},
	}, nil
}

// rot flips a bit of what a node has stored of the log, starts the node again
// and then replaces it: damage that nobody has read yet is still damage.
func (w *World) rot(ctx context.Context) (*fault, error) {
	if len(w.Disks) == 0 {
		return nil, errNoDisks
	}
	nodes := w.free()
	if len(nodes) == 0 || len(nodes) < len(w.Lab.Nodes())/2+1 {
		return nil, nil // it is out of the cluster for a while
	}
	n := nodes[0]
	if err := n.Kill(); err != nil {
		return nil, err
	}
	flip, err := w.Disks[n.Number()].FlipBit(w.rng, "*.seg")
	if errors.Is(err, disk.ErrNothingToFlip) {
		return nil, w.start([]*lab.Node{n})
	}
	if err != nil {
		return nil, err
	}
	return &fault{
		what: fmt.Sprintf("a bit flips in %s of %s, at byte %d", filepath.Base(flip.Path), name(n), flip.Offset), nodes: []*lab.Node{n}, last: true,
		heal: func(ctx context.Context) (map[string]int64, error) {
			bit := map[string]int64{"bits flipped": 1}
			if err := w.start([]*lab.Node{n}); err != nil {
				return nil, err
			}
			if err := w.ready(ctx, 30*time.Second, n); err != nil && n.Alive() {
				return nil, err
			}
			noticed, err := w.compare(ctx, n)
			if err != nil {
				return nil, err
			}
			if noticed {
				bit["times noticed"]++
			}
			if err := n.Kill(); err != nil {
				return nil, err
			}
			return bit, w.replace(ctx, n)
		},
	}, nil
}

// compare reads the whole log of a node, from its own disk, beside that of
// another one. It must be the same, or the node must notice the damage.
func (w *World) compare(ctx context.Context, n *lab.Node) (noticed bool, err error) {
	for _, other := range w.Lab.Nodes() {
		if other.Number() == n.Number() || !w.isReady(ctx, other) {
			continue
		}
		want, err := readAll(ctx, other, 0)
		if err != nil {
			continue // it may be under a fault of its own
		}
		got, err := readAll(ctx, n, uint64(len(want)))
		if err != nil {
			return true, nil
		}
		for i := range want {
			if i >= len(got) || got[i] != want[i] {
				return false, found("%s serves damage: event %d differs from that of %s", name(n), i+1, name(other))
			}
		}
		return false, nil
	}
	return false, nil
}

// readAll returns what a node has of the log, an entry for each event. It waits
// until there are so many.
func readAll(ctx context.Context, n *lab.Node, least uint64) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	c, err := client.New(client.Config{Nodes: []string{n.URL()}, Fixed: true, AttemptTimeout: 10 * time.Second, RetryFor: -1})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var all []string
	for e, err := range c.AllEvents(ctx, event.Filter{}, client.ReadOptions{Local: true, MinPosition: least}) {
		if err != nil {
			return nil, err
		}
		all = append(all, fmt.Sprint(e.Position, e.Stream, e.Version, e.ID, e.Time, history.Sum(e.Data)))
	}
	return all, nil
}

// lose takes away a part of what a node has on its disk. Without its votes or
// its log it must refuse to start, so that it can't vote twice or forget what it
// acknowledged; then it is replaced.
func (w *World) lose(ctx context.Context) (*fault, error) {
	nodes := w.free()
	if len(nodes) == 0 || len(nodes) < len(w.Lab.Nodes())/2+1 {
		return nil, nil
	}
	n := nodes[0]
	if err := n.Kill(); err != nil {
		return nil, err
	}
	current, err := os.ReadFile(filepath.Join(n.Command().Data, "logs/main/CURRENT"))
	if err != nil {
		return nil, err
	}
	generation, _, _ := strings.Cut(strings.TrimSpace(string(current)), " ")
	state := filepath.Join("logs/main", generation, "state")
	part := []string{"raft/stable.db", "raft/wal", "logs/main/CURRENT", state}[w.rng.IntN(4)]
	if _, err := os.Stat(filepath.Join(n.Command().Data, part)); err != nil {
		return nil, err
	}
	if err := os.RemoveAll(filepath.Join(n.Command().Data, part)); err != nil {
		return nil, err
	}
	return &fault{
		what: fmt.Sprintf("%s has lost %s", name(n), part), nodes: []*lab.Node{n}, lasts: time.Millisecond, last: true,
		heal: func(ctx context.Context) (map[string]int64, error) {
			if err := w.start([]*lab.Node{n}); err != nil {
				return nil, err
			}
			refusal := w.ready(ctx, 20*time.Second, n)
			switch {
			case refusal == nil && part == state: // it can be made again from the log
				return map[string]int64{"states rebuilt": 1}, nil
			case refusal == nil:
				return nil, found("%s started without %s as if nothing had happened", name(n), part)
			case n.Alive():
				return nil, refusal
			}
			w.Logger.Info("node refused to start", "node", name(n), "why", refusal)
			return map[string]int64{"starts refused": 1}, w.replace(ctx, n)
		},
	}, nil
}
