// Package sim runs clusters of nodes in the virtual time of testing/synctest,
// over a network and disks in memory, and breaks them on purpose: a minute of
// kills, lost power, partitions and stalls takes well under a second.
//
// The nodes are built by package node, as cairn-node does it, so that start-up,
// savepoints, snapshots, installs, membership and the gossip are those of
// production. Replaced are: the sockets (network.go), the file system
// (Pebble's crashable one in memory), the two bbolt databases (small files on
// it, replaced as a whole), and HTTP: clients call the node's methods.
// DESIGN.md says what that leaves out and what a seed fixes.
//
// The history of a run is judged by the checkers of jepsen-lite. Run is called
// in a bubble; runs in different bubbles may go on at the same time.
package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"cairn/jepsen-lite/history"
	"cairn/node"
)

// world is one simulated cluster and all that is known of it.
type world struct {
	seed  uint64
	sizes sizes
	net   *network
	hosts []*host
	log   *journal
	rec   *history.Recorder
	began time.Time
	ended time.Duration // when the last client had

	mu     sync.Mutex
	rng    *rand.Rand         // under mu
	faults []string           // what is wrong beside the history; under mu
	totals map[string]float64 // metrics of the runs that have ended; under mu
	losses int                // powers lost at a burnt fuse; under mu
}

// sizes make the nodes roll, save, snapshot and compact many times a minute.
type sizes struct {
	segment, savepoint, snapshot, trailing int64
	commitTimeout                          time.Duration
}

func newWorld(seed uint64, nodes int, log *journal) (*world, error) {
	rng := rand.New(rand.NewPCG(seed, 0xCA1))
	rec, err := history.NewRecorder("")
	if err != nil {
		return nil, err
	}
	w := &world{
		seed: seed, log: log, rec: rec, rng: rng, began: time.Now(), totals: map[string]float64{},
		net: newNetwork(rand.New(rand.NewPCG(seed, 0x2E7))),
		sizes: sizes{
			segment: 4 << 10, savepoint: 16 << 10 << rng.IntN(3), snapshot: 16 << 10 << rng.IntN(3), trailing: 1,
			commitTimeout: 100 * time.Millisecond,
		},
	}
	for i := range nodes {
		w.hosts = append(w.hosts, newHost(w, i))
	}
	return w, nil
}

// random returns a number below n.
func (w *world) random(n int64) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rng.Int64N(n)
}

// fork returns a source of random numbers of its own.
func (w *world) fork() *rand.Rand {
	w.mu.Lock()
	defer w.mu.Unlock()
	return rand.New(rand.NewPCG(w.rng.Uint64(), w.rng.Uint64()))
}

// fail notes what must not happen.
func (w *world) fail(format string, args ...any) {
	fault := fmt.Sprintf(format, args...)
	w.log.note("FAILED: %s", fault)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults = append(w.faults, fmt.Sprintf("at %.3fs: %s", w.rec.Now().Seconds(), fault))
}

func (w *world) failures() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.faults...)
}

func (w *world) gossipAddresses() []string {
	var all []string
	for _, h := range w.hosts {
		all = append(all, gossipAddress(h.address))
	}
	return all
}

// powerLoss is what a burnt fuse does: some of what was not synced is lost.
func (w *world) powerLoss(h *host) {
	rng := w.fork()
	percent := []int{0, 50, 100}[rng.IntN(3)]
	if h.kill(percent, rng) {
		w.log.note("%s loses power in the middle of a write, %d%% of what is not synced is kept", h.name, percent)
		w.mu.Lock()
		w.losses++
		w.mu.Unlock()
	}
}

func (w *world) powerLosses() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.losses
}

// count adds up the metrics of a run that ends.
func (w *world) count(n *node.Node) {
	families, err := n.Metrics().Gather()
	if err != nil {
		w.fail("metrics: %v", err)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range families {
		for _, m := range f.Metric {
			if c := m.GetCounter(); c != nil {
				w.totals[f.GetName()] += c.GetValue()
			}
		}
	}
}

// up returns the runs whose nodes are up.
func (w *world) up() []*run {
	var all []*run
	for _, h := range w.hosts {
		if r := h.current(); r != nil {
			all = append(all, r)
		}
	}
	return all
}

// leader returns the run that its node and the most others take for the leader,
// nil if there is none.
func (w *world) leader() *run {
	for _, r := range w.up() {
		if id, _ := r.node.Cluster().Leader(); id == r.host.name {
			return r
		}
	}
	return nil
}

// settled waits until all nodes are up and ready.
func (w *world) settled(within time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	for {
		missing := ""
		for _, h := range w.hosts {
			if r := h.current(); r == nil {
				missing = h.name + " is not up"
			} else if err := r.node.Cluster().Ready(); err != nil {
				missing = fmt.Sprintf("%s is not ready: %v", h.name, err)
			}
		}
		if missing == "" {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("after %s %s", within, missing)
		}
	}
}
