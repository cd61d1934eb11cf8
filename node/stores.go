package node

import (
	"errors"
	"fmt"
	"path/filepath"

	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	raftwal "github.com/hashicorp/raft-wal"

	"cairn/cluster"
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
func (files) Build(dir string) error {
	stable, err := raftboltdb.NewBoltStore(filepath.Join(dir, "raft", "stable.db"))
	if err != nil {
		return fmt.Errorf("make stable.db: %w", err)
	}
	if err := stable.Close(); err != nil {
		return fmt.Errorf("close stable.db: %w", err)
	}
	wal, err := raftwal.Open(filepath.Join(dir, "raft", "wal"))
	if err != nil {
		return fmt.Errorf("make the Raft log: %w", err)
	}
	if err := wal.Close(); err != nil {
		return fmt.Errorf("close the Raft log: %w", err)
	}
	return nil
}

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
