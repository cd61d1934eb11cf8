package sim

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/memberlist"

	"cairn/cluster"
	"cairn/node"
)

// dataDir is the node's data folder on its disk.
const dataDir = "data"

// host is a machine: an address and a disk, which stay, and runs of a node on
// it, one after the other.
type host struct {
	world   *world
	name    string // the node's id too
	address string
	skew    atomic.Int64 // of its clock, nanoseconds
	stall   atomic.Int64 // added to each sync of its disk, nanoseconds at most
	stalled atomic.Int64 // syncs that took longer for that

	mu   sync.Mutex
	fs   *vfs.MemFS // what the next run finds; under mu
	run  *run       // nil while it is down; under mu
	past sync.WaitGroup
}

// run is one process of a node, from its start until it was killed or stopped.
type run struct {
	host *host
	fs   *vfs.MemFS
	disk *disk
	end  *endpoint
	up   chan struct{} // closed when node is set
	node *node.Node    // nil until up is closed
	over chan struct{} // closed when the node's goroutines have ended
	quit chan struct{} // closed to stop it cleanly
	err  error         // of a clean stop; set before over is closed

	lifetime context.Context // of what clients ask; ends when the run is killed
	cancel   context.CancelFunc
	mu       sync.Mutex
	closing  bool           // no new requests; under mu
	requests sync.WaitGroup // of clients, under way
}

// enter begins a request of a client, leave ends it. The node is not stopped in
// between: a server would drain its connections, too.
func (r *run) enter() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closing {
		r.requests.Add(1)
	}
	return !r.closing
}

func (r *run) leave() { r.requests.Done() }

func newHost(w *world, i int) *host {
	return &host{world: w, name: fmt.Sprintf("n%d", i+1), address: fmt.Sprintf("10.0.0.%d", i+1), fs: vfs.NewCrashableMem()}
}

// current returns the run whose node is up, nil if there is none.
func (h *host) current() *run {
	r := h.starting()
	if r == nil {
		return nil
	}
	select {
	case <-r.up:
		return r
	default:
		return nil
	}
}

// starting returns the run, which may not be up yet, nil if there is none.
func (h *host) starting() *run {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.run
}

// start begins a run on what the disk holds. It does not wait for it. If fuse is
// not 0, the run loses power when its disk has been changed so many times.
func (h *host) start(fuse int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.run != nil {
		return
	}
	r := &run{
		host: h, fs: h.fs, end: h.world.net.listen(h.address, h.name),
		up: make(chan struct{}), over: make(chan struct{}), quit: make(chan struct{}),
	}
	r.lifetime, r.cancel = context.WithCancel(context.Background())
	r.disk = newDisk(h.fs, h.syncTime, func() {
		if !r.end.killed() { // else the power it has is not that of the host any more
			h.world.powerLoss(h)
		}
	})
	r.disk.fuse.Store(fuse)
	h.run = r
	h.past.Go(r.live)
}

// live is the whole life of a run.
func (r *run) live() {
	defer close(r.over)
	n, err := node.Start(context.Background(), r.options())
	if err != nil {
		if !r.end.killed() {
			r.host.world.fail("%s does not start: %v", r.host.name, err)
		}
		return
	}
	r.node = n
	close(r.up)
	select {
	case <-r.end.dead:
		r.cancel()
	case <-r.quit:
	}
	r.mu.Lock()
	r.closing = true
	r.mu.Unlock()
	r.requests.Wait()
	r.cancel()
	r.host.world.count(n)
	if err := n.Stop(); err != nil && !r.end.killed() {
		r.err = err
	}
}

// kill ends the run as a loss of power does: of what was not synced, percent of
// the blocks and names are on the disk for the next run; 100 is the death of the
// process alone. The node's goroutines go on for a while, on a disk that nobody
// reads and a network where nobody hears them. It returns false
// if the host was down already.
func (h *host) kill(percent int, rng *rand.Rand) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.run == nil {
		return false
	}
	// First nobody hears it any more, then its disk is as it was at that moment:
	// the other way round it could promise what its disk no longer takes in.
	h.run.end.kill()
	h.fs = h.run.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng})
	h.run = nil
	return true
}

// stop ends the run cleanly; what is not synced after that is lost.
func (h *host) stop() error {
	r := h.starting()
	if r == nil {
		return nil
	}
	close(r.quit)
	<-r.over
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.run != r {
		return nil // killed meanwhile
	}
	r.end.kill()
	h.fs = r.fs.CrashClone(vfs.CrashCloneCfg{})
	h.run = nil
	return r.err
}

// fatal is what a node calls that must not go on: its process ends.
func (r *run) fatal(err error) {
	if r.end.killed() {
		return
	}
	r.host.world.fail("%s met a fatal error: %v", r.host.name, err)
	go r.host.kill(100, rand.New(rand.NewPCG(1, 1))) // it must not wait for the node
}

// syncTime is how long one sync of the disk takes now.
func (h *host) syncTime() time.Duration {
	d := 50*time.Microsecond + time.Duration(h.world.random(int64(time.Millisecond)))
	if stall := h.stall.Load(); stall > 0 {
		h.stalled.Add(1)
		d += time.Duration(h.world.random(stall))
	}
	return d
}

// options is the node as cairn-node builds it, with small sizes.
func (r *run) options() node.Options {
	h, w := r.host, r.host.world
	return node.Options{
		Dir: dataDir, FS: r.disk, ID: h.name, Version: "sim", Stores: raftStores{r.disk},
		SavepointBytes: w.sizes.savepoint, CacheBytes: 1 << 20,
		Cluster: cluster.Config{
			HTTP:   "http://" + h.address,
			Raft:   cluster.Endpoint{Bind: string(raftAddress(h.address))},
			Gossip: cluster.Endpoint{Bind: gossipAddress(h.address)},
			Expect: len(w.hosts), Join: w.gossipAddresses(),
			SegmentSize: w.sizes.segment, SnapshotBytes: w.sizes.snapshot, TrailingBytes: w.sizes.trailing, CacheBytes: 64 << 10,
			CommitTimeout: w.sizes.commitTimeout,
			Network: func(o cluster.NetworkOptions) (cluster.Network, error) {
				r.end.raft.mayVote = o.MayVote
				return clusterNetwork{r.end}, nil
			},
			GossipNet:   func() (memberlist.NodeAwareTransport, error) { return &gossip{end: r.end}, nil },
			ClockOffset: func() time.Duration { return time.Duration(h.skew.Load()) },
		},
		Logger:  slog.New(w.log.handler(h.name)),
		OnFatal: r.fatal,
	}
}
