package node

import (
	"errors"

	"cairn/cluster"
	"cairn/datadir"
	"cairn/snapshot"
)

// Stores makes and opens what Raft keeps in a data folder: raft/stable.db and
// raft/wal.
type Stores interface {
	// Build makes them, empty, in a data folder that is being built, so that a
	// later start can tell a lost file from a new node. Its caller makes them
	// durable.
	Build(dir string) error
	// Open opens them; release is called when Raft has ended. Without stores it
	// leaves that to package cluster.
	Open(dir string) (stores *cluster.Stores, release func() error, err error)
}

// files are raft-boltdb and raft-wal on the operating system's file system.
// Package cluster opens them, with checks of its own.
type files struct{}

// Build makes an empty stable store and an empty log.
func (files) Build(dir string) error { return datadir.BuildRaft(dir) }

// Open opens nothing.
func (files) Open(string) (*cluster.Stores, func() error, error) { return nil, nil, nil }

// snapshots is the snapshot store with the question that package cluster has
// about a snapshot: up to which command it goes.
type snapshots struct{ *snapshot.Store }

// CommandIndex returns the Raft index of the last command that a snapshot
// holds. The store keeps only the newest.
func (s snapshots) CommandIndex(id string) (uint64, error) {
	meta, manifest, err := s.Newest()
	switch {
	case err != nil:
		return 0, err
	case meta == nil || meta.ID != id:
		return 0, errors.New("it is not the newest snapshot any more")
	}
	return manifest.Index, nil
}
