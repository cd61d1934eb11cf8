// Package node builds a whole node from a data folder, a file system, a network
// and a configuration: it opens the parts of the other packages, starts them in
// order and stops them in reverse.
//
// A Node owns everything it has opened; nothing is a process-wide singleton, so
// that one process can hold several. It keeps no state of its own and adds no
// rules. After Options.OnFatal was called the node must not go on: in a process
// of its own that means to end the process.
//
// cmd/node calls it with real files and listeners, package sim with those in
// memory. Start and Stop are called once each; what Cluster and Machine return
// may be used from any goroutine in between.
package node

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"

	"cairn/cluster"
	"cairn/datadir"
	"cairn/fsm"
	"cairn/httpapi"
	eventlog "cairn/log"
	"cairn/snapshot"
)

// How long the steps of a clean stop may take. Their sum stays below what
// service managers wait before they kill.
const (
	drainTime = 3 * time.Second // requests that are being answered
	leaveTime = 5 * time.Second // handing leadership over, leaving the gossip
)

// Options is what a node is built from.
type Options struct {
	Dir string // folder of the node's data; made if it is missing
	FS  vfs.FS // that Dir is in; nil = the operating system's
	ID  string // of the node; "" = the one in its data, or a new one

	Version        string // of this program, shown to people
	SavepointBytes int64  // of state in memory that make a savepoint due; 0 = 24 MiB
	CacheBytes     int64  // of the index's blocks kept in memory; 0 = 128 MiB
	ScrubRate      int64  // bytes of sealed segments read a second to find damage; 0 = 8 MiB
	FileRate       int64  // bytes of files a second sent to nodes that catch up and to backups; 0 = 128 MiB

	// Cluster holds addresses, sizes and times. NodeID, Version, StableDB, WAL,
	// Stores, Logger, OnFatal and Registerer are filled in by Start.
	Cluster cluster.Config
	// Stores replaces the files of Raft; nil = raft-boltdb and raft-wal in Dir,
	// which needs the operating system's file system.
	Stores Stores

	Listener net.Listener // clients are served on it, and Stop closes it; nil = no HTTP
	Logger   *slog.Logger // required
	// OnFatal, required, is called when the node must not go on, by any goroutine and perhaps
	// more than once. It must not wait for the node.
	OnFatal func(error)
}

// Node is the parts of a running node, in the order in which they start.
type Node struct {
	options  *Options
	registry *prometheus.Registry // its own, so that two nodes may live in one process

	dir     *datadir.Dir
	store   *snapshot.Store
	machine *fsm.Machine
	fetches *catchUp
	scrubs  *scrubber
	lives   *liver
	release func() error // closes stores that were not cluster's to open
	members *cluster.Node
	started atomic.Pointer[cluster.Node] // members, for goroutines that are older
	server  *httpapi.Server              // nil without HTTP
	serving sync.WaitGroup               // the goroutine that accepts connections
	tidying sync.WaitGroup               // tidy; ending ends it
	ending  chan struct{}
}

// Start starts the parts in order. It does not wait for other nodes; ctx bounds
// the start, not the node. When it fails, what it had opened is closed again.
func Start(ctx context.Context, o Options) (*Node, error) {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Stores == nil {
		o.Stores = files{}
	}
	n := &Node{options: &o, registry: prometheus.NewRegistry(), release: func() error { return nil }, ending: make(chan struct{})}
	for _, step := range []func(context.Context) error{n.openData, n.openMachine, n.startCluster, n.startHTTP} {
		if err := step(ctx); err != nil {
			// What closing says beside the reason would only hide it.
			if also := n.Stop(); also != nil {
				o.Logger.Debug("closing what was opened", "error", also)
			}
			return nil, err
		}
	}
	return n, nil
}

// openData locks the data folder before anything in it is read.
func (n *Node) openData(context.Context) (err error) {
	o := n.options
	n.dir, err = datadir.Open(o.FS, o.Dir, datadir.Options{NodeID: o.ID, Version: fsm.SupportedVersion, Build: o.Stores.Build})
	return err
}

func (n *Node) openMachine(context.Context) error {
	o := n.options
	// Generations finish or drop an install that was cut short, so that the
	// snapshot store and the state machine see only whole ones.
	generations, err := snapshot.OpenGenerations(o.FS, n.dir.Log(), n.dir.Snapshots())
	if err != nil {
		return err
	}
	n.store, err = snapshot.NewStore(snapshot.StoreOptions{
		FS: o.FS, Dir: n.dir.Snapshots(), Generations: generations,
		VerifySegment: n.verifySegment, VerifyActive: n.verifyActive, Accept: n.acceptManifest,
		Sealed: func() []snapshot.Segment { return n.machine.DurableSegments() }, Fold: n.foldAhead, OnError: o.OnFatal, Logger: o.Logger,
	})
	if err != nil {
		return err
	}
	// The state machine opens log and state as of the savepoint; what stands
	// beyond it is cut by the cluster's start-up checks, not here. The folder
	// learns the id of its log, and refuses that of another one.
	n.machine, err = fsm.Open(fsm.Options{
		FS: o.FS, Generations: generations, SavepointBytes: o.SavepointBytes, CacheBytes: o.CacheBytes, Logger: o.Logger, OnFatal: o.OnFatal,
		OnBirth: n.dir.SetLogID, RaiseVersion: n.dir.RaiseMinVersion,
	})
	if err != nil {
		return err
	}
	if _, newest, err := n.store.Newest(); err == nil && newest != nil {
		n.machine.Replayed(newest.Index)
	}
	_, position := n.machine.Durable()
	o.Logger.Info("cairn-node", "version", o.Version, "id", n.dir.NodeID(), "data", o.Dir, "log", n.machine.LogID(), "position", position)
	return nil
}

// startCluster starts Raft, which replays from here on and calls the state
// machine.
func (n *Node) startCluster(ctx context.Context) (err error) {
	o := n.options
	c := o.Cluster
	c.NodeID, c.Version, c.Logger, c.OnFatal, c.Registerer = n.dir.NodeID(), o.Version, o.Logger, o.OnFatal, n.registry
	given, release, err := o.Stores.Open(n.dir.Path())
	if err != nil {
		return err
	}
	if given != nil {
		c.Stores, n.release = given, release
	} else {
		c.StableDB, c.WAL = n.dir.StableDB(), n.dir.WAL()
	}
	n.fetches = newCatchUp(n.store, n.peers, o.Logger)
	c.Preparer = n.fetches
	if n.members, err = cluster.Start(ctx, c, n.machine, snapshots{n.store}); err != nil {
		return err
	}
	n.started.Store(n.members)
	n.tidying.Go(n.tidy)
	n.scrubs = startScrubber(&scrubber{
		machine: n.machine, fs: o.FS, dir: o.FS.PathJoin(n.dir.Log(), "repair.tmp"), peers: n.peers, logger: o.Logger,
	}, o.ScrubRate)
	n.lives = startLiver(&liver{machine: n.machine, members: n.members, id: n.dir.NodeID(), logger: o.Logger})
	return nil
}

// peers returns the URLs of the other live nodes by id, none before this one has
// met them.
func (n *Node) peers() map[string]string {
	if members := n.started.Load(); members != nil {
		return members.Peers()
	}
	return nil
}

// tidy removes what an interrupted fetch left, once the node has caught up
// without it.
func (n *Node) tidy() {
	for n.members.Ready() != nil {
		select {
		case <-time.After(time.Second):
		case <-n.ending:
			return
		}
	}
	n.fetches.forget()
}

// startHTTP comes last, since it needs all of the above: clients.
func (n *Node) startHTTP(context.Context) error {
	n.register()
	if n.options.Listener == nil {
		return nil
	}
	server, err := n.newServer()
	if err != nil {
		return err
	}
	n.server = server
	n.serving.Go(func() {
		if err := server.Serve(n.options.Listener); err != nil {
			n.options.OnFatal(err)
		}
	})
	return nil
}

// ID returns the node's id in the cluster.
func (n *Node) ID() string { return n.dir.NodeID() }

// Cluster returns the node's half that proposes, and reads linearizably.
func (n *Node) Cluster() *cluster.Node { return n.members }

// Machine returns the state machine, to read from.
func (n *Node) Machine() *fsm.Machine { return n.machine }

// Metrics returns what the parts count.
func (n *Node) Metrics() prometheus.Gatherer { return n.registry }

// Stop stops the parts in reverse. Every step is tried, whatever became of the
// one before.
func (n *Node) Stop() error {
	var errs []error
	// No new request comes in, and those that are being answered end as they
	// would have: leadership stays here for that moment. A client that is too
	// slow for it is cut off, which is no fault of the stop.
	if n.server != nil {
		drain, cancel := context.WithTimeout(context.Background(), drainTime)
		defer cancel()
		if err := n.server.Shutdown(drain); err != nil {
			n.options.Logger.Warn("requests were cut off", "error", err)
		}
		n.serving.Wait()
	} else if n.options.Listener != nil {
		errs = append(errs, n.options.Listener.Close())
	}
	close(n.ending)
	n.tidying.Wait()
	if n.scrubs != nil {
		n.scrubs.close()
	}
	if n.lives != nil {
		n.lives.close()
	}
	if n.fetches != nil {
		n.fetches.close() // it uses the machine's files
	}
	// Leadership is handed over before Raft stops, so that the others need not
	// find out by a timeout.
	if n.members != nil {
		leave, cancel := context.WithTimeout(context.Background(), leaveTime)
		defer cancel()
		errs = append(errs, n.members.Close(leave))
	}
	errs = append(errs, n.release())
	// Nothing applies any more: the last savepoint covers all of it, and the
	// next start has nothing to replay.
	if n.machine != nil {
		errs = append(errs, n.machine.Close())
	}
	if n.dir != nil {
		errs = append(errs, n.dir.Close())
	}
	return errors.Join(errs...)
}

// acceptManifest refuses a snapshot of another log, or one that is older than
// what this node has, before anything of it is written: once it is in place it
// comes into force.
func (n *Node) acceptManifest(m *snapshot.Manifest) error {
	if known := n.dir.LogID(); known != "" && m.LogID != known {
		return fmt.Errorf("snapshot of log %s offered to a node of log %s", m.LogID, known)
	}
	if index, _ := n.machine.Applied(); m.Index < index {
		return fmt.Errorf("snapshot as of index %d offered to a node that has applied index %d", m.Index, index)
	}
	return nil
}

// foldAhead makes the state of a snapshot that is being fetched.
func (n *Node) foldAhead(ctx context.Context, m *snapshot.Manifest, logDir, stateDir string) (bool, error) {
	return n.machine.FoldAhead(ctx, m, logDir, stateDir)
}

// verifyActive checks the first bytes of a segment that is not sealed.
func (n *Node) verifyActive(path string, size int64) error {
	return eventlog.VerifyPrefix(n.options.FS, path, size)
}

// verifySegment checks a sealed segment wholly and returns its hash as text.
func (n *Node) verifySegment(path string) (string, error) {
	info, err := eventlog.VerifySegment(n.options.FS, path)
	if err != nil {
		return "", err
	}
	return hex.EncodeToString(info.Hash[:]), nil
}
