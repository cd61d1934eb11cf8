package datadir

import (
	"fmt"
	"path/filepath"

	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	raftwal "github.com/hashicorp/raft-wal"
)

// BuildRaft makes an empty stable store and an empty log in a data folder that
// is being built, on the operating system's file system: Options.Build.
func BuildRaft(dir string) error {
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
