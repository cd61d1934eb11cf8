package offline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"

	"cairn/datadir"
	"cairn/fsm"
	"cairn/snapshot"
)

// Progress says how far something is.
type Progress struct {
	Stage       string // what is being done, for people
	Done, Total uint64 // in Unit; a Total of 0 is not known
	Unit        string // "bytes", "events", "records", "files" or "entries"
}

// RebuildOptions says what Rebuild works on.
type RebuildOptions struct {
	FS       vfs.FS
	Dir      string         // the data folder of a node
	Progress func(Progress) // called now and then, on the goroutine of the caller; nil = nothing
	Logger   *slog.Logger   // nil = discard
}

// Rebuilt says what a state was made from.
type Rebuilt struct {
	Index    uint64 `json:"index"`    // A: of the last command that the state stands for
	Position uint64 `json:"position"` // P: of the last event in it
	LogID    string `json:"log_id"`   // "" for a log that is not born yet
	Version  uint32 `json:"cluster_version"`
}

// Rebuild makes a node's state again, from its log up to the savepoint that
// SAVEPOINT notes, and puts it in the place of the one that is there or is
// missing. It needs room for both. What the log holds beyond that savepoint
// stays for the next start to cut, as after any crash.
//
// The log must be whole up to the savepoint: damage is an *eventlog.CorruptError
// and leaves everything as it was. So do all errors and crashes before the new
// state is complete and durable.
func Rebuild(ctx context.Context, o RebuildOptions) (r Rebuilt, err error) {
	d, err := datadir.Open(o.FS, o.Dir, datadir.Options{Version: fsm.SupportedVersion})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	generations, err := snapshot.OpenGenerations(o.FS, d.Log(), d.Snapshots())
	if err != nil {
		return r, err
	}
	r.Index, r.Position, err = savepoint(o.FS, d, generations)
	if err != nil {
		return r, err
	}
	fold := fsm.FoldOptions{
		FS: o.FS, LogDir: generations.LogDir(), StateDir: generations.NewStateDir(),
		Index: r.Index, Position: r.Position, Logger: o.Logger,
	}
	if o.Progress != nil {
		fold.Progress = func(position uint64) {
			o.Progress(Progress{Stage: "rebuilding the state", Done: position, Total: r.Position, Unit: "events"})
		}
	}
	folded, err := fsm.Fold(ctx, fold)
	if err == nil && d.LogID() != "" && folded.LogID != "" && folded.LogID != d.LogID() {
		err = &datadir.IdentityError{Dir: o.Dir, What: "log", Has: d.LogID(), Asked: folded.LogID}
	}
	if err != nil {
		// The next start removes what is left of it; a full disk should not have
		// to wait for that.
		return r, errors.Join(fmt.Errorf("rebuild the state: %w", err), o.FS.RemoveAll(generations.NewStateDir()))
	}
	r.LogID, r.Version = folded.LogID, folded.Version
	return r, generations.ReplaceState()
}

// savepoint returns (A, P) as SAVEPOINT notes them. It may be missing only where
// no savepoint was ever taken; a snapshot is one.
func savepoint(fs vfs.FS, d *datadir.Dir, g *snapshot.Generations) (index, position uint64, err error) {
	index, position, err = snapshot.ReadSavepoint(fs, g.Dir())
	if !errors.Is(err, os.ErrNotExist) {
		return index, position, err
	}
	found, err := snapshot.Inspect(fs, d.Log(), d.Snapshots())
	if err == nil && found.Manifest != nil && found.Manifest.Index > 0 {
		err = &snapshot.CorruptError{File: g.Dir(), Reason: "its SAVEPOINT is missing, but there is a snapshot; let this node rejoin under a new id"}
	}
	return 0, 0, err
}
