package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
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

// node is the parts of a running node, in the order in which they start.
type node struct {
	logger  *slog.Logger
	dir     *datadir.Dir
	machine *fsm.Machine
	members *cluster.Node
	server  *httpapi.Server
	serving sync.WaitGroup // the goroutine that accepts connections
}

// start starts the parts in order. When it fails, what it had opened stays
// open until the process ends: nothing has been changed yet that a close would
// have to save.
func start(ctx context.Context, c *Config, logger *slog.Logger, fatal func(error)) (*node, error) {
	secret, err := readSecret(c.SecretFile)
	if err != nil {
		return nil, &usageError{err}
	}
	// The addresses first: a port that is taken must not cost a recovery.
	listener, err := listen(c)
	if err != nil {
		return nil, err
	}
	n := &node{logger: logger}
	registry := newRegistry()

	// The data folder is locked before anything in it is read.
	n.dir, err = datadir.Open(vfs.Default, c.Data, datadir.Options{NodeID: c.ID, Version: fsm.SupportedVersion, Build: buildStores})
	if err != nil {
		return nil, err
	}
	// Generations finish or drop an install that was cut short, so that the
	// snapshot store and the state machine see only whole ones.
	generations, err := snapshot.OpenGenerations(vfs.Default, n.dir.Log(), n.dir.Snapshots())
	if err != nil {
		return nil, err
	}
	store, err := snapshot.NewStore(snapshot.StoreOptions{
		FS: vfs.Default, Dir: n.dir.Snapshots(), Generations: generations,
		VerifySegment: verifySegment, VerifyActive: verifyActive, Accept: n.acceptManifest, OnError: fatal, Logger: logger,
	})
	if err != nil {
		return nil, err
	}
	// The state machine opens log and state as of the savepoint; what stands
	// beyond it is cut by the cluster's start-up checks, not here. The folder
	// learns the id of its log, and refuses that of another one.
	n.machine, err = fsm.Open(fsm.Options{
		FS: vfs.Default, Generations: generations, SavepointBytes: c.SavepointBytes, Logger: logger, OnFatal: fatal,
		OnBirth: n.dir.SetLogID, RaiseVersion: n.dir.RaiseMinVersion,
	})
	if err != nil {
		return nil, err
	}
	_, position := n.machine.Durable()
	logger.Info("cairn-node", "version", buildVersion(), "id", n.dir.NodeID(), "data", c.Data, "log", n.machine.LogID(), "position", position)
	// Raft replays from here on, and calls the state machine.
	n.members, err = cluster.Start(ctx, n.clusterConfig(c, secret, fatal, registry), n.machine, snapshots{store})
	if err != nil {
		return nil, err
	}
	// Last, since it needs all of the above: clients.
	n.server, err = newServer(n, c, registry, fatal)
	if err != nil {
		return nil, err
	}
	registerNode(registry, n.machine, store, logger)
	n.serve(listener, fatal)
	return n, nil
}

// clusterConfig gives package cluster its part of the settings.
func (n *node) clusterConfig(c *Config, secret []byte, fatal func(error), registry prometheus.Registerer) cluster.Config {
	return cluster.Config{
		NodeID: n.dir.NodeID(), Version: buildVersion(), StableDB: n.dir.StableDB(), WAL: n.dir.WAL(),
		HTTP:   c.HTTPURL(),
		Raft:   cluster.Endpoint{Bind: c.Raft, Advertise: c.AdvertiseRaft},
		Gossip: cluster.Endpoint{Bind: c.Gossip, Advertise: c.AdvertiseGossip},
		Expect: c.Expect, Join: c.Join, Secret: secret,
		SegmentSize: c.SegmentSize, SnapshotBytes: c.SnapshotBytes,
		Logger: n.logger, OnFatal: fatal, Registerer: registry,
	}
}

// serve accepts connections until the server is shut down.
func (n *node) serve(l net.Listener, fatal func(error)) {
	n.serving.Go(func() {
		if err := n.server.Serve(l); err != nil {
			fatal(err)
		}
	})
}

// stop stops the parts in reverse. Every step is tried, whatever became of the
// one before.
func (n *node) stop() error {
	// No new request comes in, and those that are being answered end as they
	// would have: leadership stays here for that moment. A client that is too
	// slow for it is cut off, which is no fault of the stop.
	drain, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	if err := n.server.Shutdown(drain); err != nil {
		n.logger.Warn("requests were cut off", "error", err)
	}
	n.serving.Wait()
	// Leadership is handed over before Raft stops, so that the others need not
	// find out by a timeout.
	leave, cancel := context.WithTimeout(context.Background(), leaveTime)
	defer cancel()
	err := n.members.Close(leave)
	// Nothing applies any more: the last savepoint covers all of it, and the
	// next start has nothing to replay.
	return errors.Join(err, n.machine.Close(), n.dir.Close())
}

// acceptManifest refuses a snapshot of another log, or one that is older than
// what this node has, before anything of it is written: once it is in place it
// comes into force.
func (n *node) acceptManifest(m *snapshot.Manifest) error {
	if known := n.dir.LogID(); known != "" && m.LogID != known {
		return fmt.Errorf("snapshot of log %s offered to a node of log %s", m.LogID, known)
	}
	if index, _ := n.machine.Applied(); m.Index < index {
		return fmt.Errorf("snapshot as of index %d offered to a node that has applied index %d", m.Index, index)
	}
	return nil
}

// verifyActive checks the first bytes of a segment that is not sealed.
func verifyActive(path string, size int64) error {
	return eventlog.VerifyPrefix(vfs.Default, path, size)
}

// verifySegment checks a sealed segment wholly and returns its hash as text.
func verifySegment(path string) (string, error) {
	info, err := eventlog.VerifySegment(vfs.Default, path)
	if err != nil {
		return "", err
	}
	return hex.EncodeToString(info.Hash[:]), nil
}
