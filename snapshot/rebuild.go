package snapshot

import (
	"errors"
	"fmt"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Names of a state that is to take the place of state/. Under the first it is
// being built and start-up removes it; under the second it is complete, and
// start-up puts it in place.
const (
	newStateName     = "state.new"
	rebuiltStateName = "state.rebuilt"
)

// NewStateDir returns the folder beside the state where another one is built,
// which ReplaceState puts in its place. OpenGenerations removes it.
func (g *Generations) NewStateDir() string { return g.fs.PathJoin(g.Dir(), newStateName) }

// ReplaceState puts the state in NewStateDir, which is complete and closed, in
// the place of the current one, which nobody has open. A crash leaves the one
// or the other in force at the next OpenGenerations; after nil it is the new
// one.
func (g *Generations) ReplaceState() error {
	if err := SyncTree(g.fs, g.NewStateDir()); err != nil {
		return fmt.Errorf("replace the state: %w", err)
	}
	if err := renameDurably(g.fs, g.NewStateDir(), g.fs.PathJoin(g.Dir(), rebuiltStateName)); err != nil {
		return fmt.Errorf("replace the state: %w", err)
	}
	if err := settleState(g.fs, g.Dir()); err != nil {
		return fmt.Errorf("replace the state: %w", err)
	}
	return nil
}

// settleState finishes what ReplaceState has begun in a generation, or removes
// what did not come to it. The old state is gone, durably, before the new one
// gets its name: no crash can leave a mixture.
func settleState(fs vfs.FS, dir string) error {
	if err := fs.RemoveAll(fs.PathJoin(dir, newStateName)); err != nil {
		return fmt.Errorf("remove %s: %w", newStateName, err)
	}
	rebuilt, state := fs.PathJoin(dir, rebuiltStateName), fs.PathJoin(dir, stateName)
	if _, err := fs.Stat(rebuilt); errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("stat %s: %w", rebuilt, err)
	}
	if err := fs.RemoveAll(state); err != nil {
		return fmt.Errorf("remove %s: %w", state, err)
	}
	if err := SyncDir(fs, dir); err != nil {
		return err
	}
	return renameDurably(fs, rebuilt, state)
}
