package nemesis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"time"

	"cairn/client"
	"cairn/jepsen-lite/disk"
	"cairn/jepsen-lite/history"
	"cairn/jepsen-lite/lab"
)

// World is what there is to break.
type World struct {
	Lab      *lab.Lab
	Disks    map[int]*disk.Disk // by number of the node; empty if nodes write to a real disk
	Recorder *history.Recorder
	Logger   *slog.Logger
	Present  string                                                     // the binary that nodes run
	Old      string                                                     // that of an earlier commit, for upgrade; "" = none
	Clock    func(node int) string                                      // file that a node's clock is turned by
	Count    func(context.Context, *lab.Node) (map[string]int64, error) // what the present process of a node has counted
	rng      *rand.Rand                                                 // of the schedule's goroutine, as is the rest
	busy     map[int]bool                                               // nodes that a fault is at work on
	network  bool                                                       // links that a fault is at work on
	renamed  map[int]int                                                // how often a node came back under a new id
	http     *http.Client
}

// Find is a promise that Cairn has broken before the eyes of the nemesis. Any
// other error is the harness's own.
type Find struct{ What string }

func (f *Find) Error() string { return f.What }

func found(format string, args ...any) error { return &Find{fmt.Sprintf(format, args...)} }

// name is what the history calls a node.
func name(n *lab.Node) string { return "n" + strconv.Itoa(n.Number()) }

// free returns the nodes that no fault is at work on, in random order.
func (w *World) free() []*lab.Node {
	var found []*lab.Node
	for _, n := range w.Lab.Nodes() {
		if !w.busy[n.Number()] {
			found = append(found, n)
		}
	}
	w.rng.Shuffle(len(found), func(i, j int) { found[i], found[j] = found[j], found[i] })
	return found
}

// some picks who is struck: one node, the leader, a minority, a majority or all
// of those that are free, as many kinds of it as widest allows.
func (w *World) some(ctx context.Context, widest int) ([]*lab.Node, string) {
	free := w.free()
	if len(free) == 0 {
		return nil, ""
	}
	all := len(w.Lab.Nodes())
	switch w.rng.IntN(widest) {
	case 0:
		return free[:1], "one node"
	case 1:
		if l := w.leader(ctx); l != nil && !w.busy[l.Number()] {
			return []*lab.Node{l}, "the leader"
		}
		return free[:1], "one node"
	case 2:
		return free[:min(len(free), max(1, (all-1)/2))], "a minority"
	case 3:
		return free[:min(len(free), all/2+1)], "a majority"
	default:
		return free, "all"
	}
}

// alive counts the nodes that have a process.
func alive(nodes []*lab.Node) int64 {
	n := int64(0)
	for _, node := range nodes {
		if node.Alive() {
			n++
		}
	}
	return n
}

// includesLeader reports whether one of the nodes leads.
func (w *World) includesLeader(ctx context.Context, nodes []*lab.Node) bool {
	l := w.leader(ctx)
	return l != nil && slices.ContainsFunc(nodes, func(n *lab.Node) bool { return n.Number() == l.Number() })
}

// leader is the node that leads, as far as anybody can say; nil if nobody can.
func (w *World) leader(ctx context.Context) *lab.Node {
	status, err := w.cluster(ctx)
	if err != nil {
		return nil
	}
	for _, n := range w.Lab.Nodes() {
		if n.Command().ID == status.Leader {
			return n
		}
	}
	return nil
}

// cluster is the cluster as some node sees it.
func (w *World) cluster(ctx context.Context) (client.Cluster, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	c, err := w.client()
	if err != nil {
		return client.Cluster{}, err
	}
	defer c.Close()
	return c.Cluster(ctx)
}

func (w *World) client() (*client.Client, error) {
	var urls []string
	for _, n := range w.Lab.Nodes() {
		if n.Alive() {
			urls = append(urls, n.URL())
		}
	}
	if len(urls) == 0 {
		return nil, errors.New("no node runs")
	}
	return client.New(client.Config{Nodes: urls, Fixed: true, AttemptTimeout: time.Second, RetryFor: 3 * time.Second})
}

// start starts nodes that do not run.
func (w *World) start(nodes []*lab.Node) error {
	for _, n := range nodes {
		if n.Alive() {
			continue
		}
		if err := n.Start(); err != nil {
			return err
		}
	}
	return nil
}

// ready waits until nodes may be sent traffic, or one of them has ended.
func (w *World) ready(ctx context.Context, patience time.Duration, nodes ...*lab.Node) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, n := range nodes {
		for !w.isReady(ctx, n) {
			if !n.Alive() {
				exit, err := n.Wait(ctx)
				if err != nil {
					return err
				}
				return found("%s ended: %s: %s", name(n), exit, exit.LastLine)
			}
			select {
			case <-ctx.Done():
				return found("%s is not ready after %s", name(n), patience)
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	return nil
}

func (w *World) isReady(ctx context.Context, n *lab.Node) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, n.URL()+"/readyz", nil)
	if err != nil {
		return false
	}
	answer, err := w.http.Do(request)
	if err != nil {
		return false
	}
	_ = answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}

// empty deletes all that a node that does not run has on its disk.
func empty(n *lab.Node) error {
	return os.RemoveAll(n.Command().Data)
}

// replace takes a node that does not run out of the cluster and starts it with
// an empty disk, under a new id. It waits until the node is ready.
func (w *World) replace(ctx context.Context, n *lab.Node) error {
	if err := w.remove(ctx, n.Command().ID); err != nil {
		return err
	}
	if err := empty(n); err != nil {
		return err
	}
	w.renamed[n.Number()]++
	id := fmt.Sprintf("n%d-%d", n.Number(), w.renamed[n.Number()]+1)
	n.Change(func(c *lab.Command) { c.ID = id })
	if err := w.start([]*lab.Node{n}); err != nil {
		return err
	}
	return w.ready(ctx, time.Minute, n)
}

// remove removes a member for good; one that is none any more is fine.
func (w *World) remove(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		c, err := w.client()
		if err == nil {
			err = c.Remove(ctx, id)
			c.Close()
		}
		if err == nil || client.IsNotFound(err) {
			return nil
		}
		select {
		case <-ctx.Done():
			return found("%s could not be removed: %v", id, err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}
