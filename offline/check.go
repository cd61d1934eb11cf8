package offline

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"

	"cairn/datadir"
	"cairn/fsm"
	eventlog "cairn/log"
	"cairn/snapshot"
)

// Finding is one thing that is wrong in a data folder.
type Finding struct {
	File   string `json:"file"`
	Offset int64  `json:"offset"` // where in it; 0 = its beginning, or all of it
	What   string `json:"what"`
	Do     string `json:"do"` // what puts it right
}

// What puts things right.
const (
	doRepair = "fetch the segment from another node: cairn repair --from URL"
	// The log must be whole for it: it comes after a repair.
	doRebuild = "make the state again from the log: cairn rebuild"
	doRejoin  = "move the folder away, remove the node from the cluster and start it with an empty folder under a new id"
	doNext    = "nothing: the next snapshot of the running node replaces this one"
)

// CheckOptions says what Check reads.
type CheckOptions struct {
	FS       vfs.FS
	Dir      string         // the data folder of a node
	Progress func(Progress) // called now and then, on the goroutine of the caller; nil = nothing
	// VerifyEntry reports whether an entry of Raft's log is the one that was
	// stored; nil = Raft's log is not checked, nor is it in another file system
	// than the operating system's.
	VerifyEntry func(*raft.Log) error
}

// Checked is what Check has seen.
type Checked struct {
	NodeID   string    `json:"node_id"`
	LogID    string    `json:"log_id"`
	Index    uint64    `json:"index"`    // A and
	Position uint64    `json:"position"` // P, up to which the data must be whole
	Bytes    int64     `json:"bytes"`    // of segments, read wholly
	Findings []Finding `json:"findings"` // what is wrong; none means that all is well
	Skipped  []string  `json:"skipped"`  // what could not be judged because of what is wrong before it
}

// Remedies returns what to do about all findings, each thing once, in the order
// in which to do it.
func (c *Checked) Remedies() []string {
	var all []string
	for _, do := range []string{doRejoin, doRepair, doRebuild, doNext} {
		if slices.ContainsFunc(c.Findings, func(f Finding) bool { return f.Do == do }) {
			all = append(all, do)
		}
	}
	return all
}

// Check reads a data folder wholly: node.json and the parts, CURRENT, SAVEPOINT
// and manifests, every frame, header, digest, payload and footer of the log up
// to the savepoint, every record of the state, held against what the log gives
// (fsm.StateCheck), the newest snapshot's files by their hashes, and every entry
// of Raft's log. It goes on after what it finds as far as that leaves something
// to judge.
//
// Its error means that it could not look: the node runs, a file can't be read,
// a newer program has written here, or ctx is over. It changes nothing in the
// folder but for making its lock file.
func Check(ctx context.Context, o CheckOptions) (c Checked, err error) {
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	d, faults, err := datadir.Inspect(o.FS, o.Dir, fsm.SupportedVersion)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	k := check{ctx: ctx, o: &o, dir: d, Checked: &c}
	c.NodeID, c.LogID, c.Findings, c.Skipped = d.NodeID(), d.LogID(), []Finding{}, []string{}
	for _, fault := range faults {
		k.fault(fault)
	}
	if k.found, err = snapshot.Inspect(o.FS, d.Log(), d.Snapshots()); err != nil {
		if !k.corrupt(err, doRejoin) {
			return c, err
		}
		k.skip("log, state and snapshot: it is not clear which generation is in force")
		return c, nil
	}
	return c, k.generation()
}

// check is a Check under way.
type check struct {
	*Checked
	ctx   context.Context
	o     *CheckOptions
	dir   *datadir.Dir
	found snapshot.Found
	whole map[string]eventlog.SegmentInfo // sealed segments without damage, by name
}

func (k *check) add(file string, offset int64, what, do string) {
	k.Findings = append(k.Findings, Finding{File: file, Offset: offset, What: what, Do: do})
}

func (k *check) skip(what string) { k.Skipped = append(k.Skipped, what) }

// fault takes in what datadir says.
func (k *check) fault(err error) {
	var missing *datadir.MissingPartError
	var damage *datadir.DamageError
	switch {
	case errors.As(err, &missing):
		k.add(k.o.FS.PathJoin(missing.Dir, missing.Part), 0, "it is missing", doRejoin)
	case errors.As(err, &damage):
		k.add(damage.File, 0, damage.Reason, doRejoin)
	}
}

// corrupt takes in damage, and reports whether err is that.
func (k *check) corrupt(err error, do string) bool {
	var segment *eventlog.CorruptError
	var file *snapshot.CorruptError
	var path *os.PathError
	switch {
	case errors.As(err, &segment):
		k.add(segment.File, segment.Offset, segment.Reason, do)
	case errors.As(err, &file):
		k.add(file.File, 0, file.Reason, do)
	case errors.Is(err, os.ErrNotExist) && errors.As(err, &path):
		k.add(path.Path, 0, "it is missing", do)
	default:
		return false
	}
	return true
}

// generation checks the data generation that the next start will use.
func (k *check) generation() error {
	fs := k.o.FS
	index, position, err := snapshot.ReadSavepoint(fs, k.found.Generation)
	noted := err == nil
	switch manifest := k.found.Manifest; {
	case errors.Is(err, os.ErrNotExist) && (manifest == nil || manifest.Index == 0): // none was ever taken
	case err != nil && !k.corrupt(err, doRejoin):
		return err
	case noted && manifest != nil && index < manifest.Index:
		k.add(fs.PathJoin(k.found.Generation, "SAVEPOINT"), 0, fmt.Sprintf("it notes index %d, but the newest snapshot is of index %d", index, manifest.Index), doRejoin)
	}
	k.Index, k.Position = index, position
	state, err := k.openState()
	if err != nil {
		return err
	}
	if state != nil {
		k.Index, k.Position = state.Savepoint()
		if k.Position < position || k.Index < index {
			k.add(k.found.StateDir, 0, fmt.Sprintf("it ends at position %d, but its savepoint was at %d: part of it was lost", k.Position, position), doRebuild)
			k.Index, k.Position = index, position
		}
	}
	err = k.log()
	if err == nil && state != nil {
		err = k.state(state)
	}
	if state != nil {
		err = errors.Join(err, state.Close())
	}
	if err == nil && k.found.Manifest != nil {
		err = k.snapshot()
	}
	if err != nil {
		return err
	}
	return k.raftLog()
}

// openState opens the state if it can be opened; nil without an error means
// that it can't, or that there is none yet.
func (k *check) openState() (*fsm.StateCheck, error) {
	k.o.Progress(Progress{Stage: "opening the state"})
	state, err := fsm.OpenState(k.o.FS, k.found.StateDir)
	if err == nil {
		return state, nil
	}
	if errors.Is(err, pebble.ErrDBDoesNotExist) && k.Index == 0 {
		return nil, k.ctx.Err()
	}
	k.add(k.found.StateDir, 0, err.Error(), doRebuild)
	return nil, k.ctx.Err()
}

// log checks the segments up to P.
func (k *check) log() error {
	var total uint64
	fs := k.o.FS
	names, err := fs.List(k.found.LogDir)
	if err != nil {
		if k.corrupt(&os.PathError{Op: "list", Path: k.found.LogDir, Err: err}, doRepair) {
			return nil
		}
		return err
	}
	for _, name := range names {
		st, err := fs.Stat(fs.PathJoin(k.found.LogDir, name))
		if err != nil {
			return err
		}
		total += uint64(st.Size())
	}
	var unknown error
	whole, err := eventlog.Check(eventlog.CheckOptions{
		FS: fs, Dir: k.found.LogDir, Through: k.Position,
		Found: func(err error) {
			if !k.corrupt(err, doRepair) {
				unknown = err
			}
		},
		Read: func(n int64) error {
			k.Bytes = n
			k.o.Progress(Progress{Stage: "reading segments", Done: uint64(n), Total: total, Unit: "bytes"})
			return k.ctx.Err()
		},
	})
	k.whole = make(map[string]eventlog.SegmentInfo, len(whole))
	for _, s := range whole {
		k.whole[s.Name] = s
	}
	return errors.Join(err, unknown)
}

// state holds the state against the log, which must be whole for it.
func (k *check) state(state *fsm.StateCheck) error {
	if has := k.dir.LogID(); has != "" && state.LogID() != "" && state.LogID() != has {
		k.add(k.found.StateDir, 0, fmt.Sprintf("it is of log %s, node.json says %s", state.LogID(), has), doRejoin)
	}
	if len(k.Findings) > 0 {
		k.skip("state: it was not held against the log, because of what was found before")
		return nil
	}
	differences, err := state.Compare(k.ctx, k.found.LogDir, func(stage string, done, total uint64) {
		p := Progress{Stage: stage, Done: done, Total: total, Unit: "events"}
		if total == 0 { // of the state, whose records nobody has counted
			p.Unit = "records"
		}
		k.o.Progress(p)
	})
	if canceled := k.ctx.Err(); canceled != nil {
		return canceled
	}
	if err != nil { // the log was read without damage just now, so it is the state's files
		differences = append(differences, err.Error())
	}
	for _, what := range differences {
		k.add(k.found.StateDir, 0, what, doRebuild)
	}
	return nil
}

// snapshot checks the files of the newest snapshot.
func (k *check) snapshot() error {
	fs, m := k.o.FS, k.found.Manifest
	damaged := len(k.Findings) > 0
	for _, want := range m.Segments {
		got, ok := k.whole[want.Name]
		path := fs.PathJoin(k.found.LogDir, want.Name)
		switch {
		case !ok && damaged: // most likely it is what was found
		case got.Base != want.Base || got.Last != want.Last || got.Size != want.Size || hex.EncodeToString(got.Hash[:]) != want.Hash:
			k.add(path, 0, "it is not the segment that the snapshot names", doRepair)
		}
	}
	if m.Active.Name != "" && !damaged {
		if err := snapshot.VerifyFile(fs, fs.PathJoin(k.found.LogDir, m.Active.Name), m.Active, false); err != nil && !k.corrupt(err, doNext) {
			return err
		}
	}
	for i, f := range m.StateFiles {
		k.o.Progress(Progress{Stage: "reading the snapshot", Done: uint64(i), Total: uint64(len(m.StateFiles)), Unit: "files"})
		if err := k.ctx.Err(); err != nil {
			return err
		}
		if err := snapshot.VerifyFile(fs, fs.PathJoin(k.found.Snapshot, "state", f.Name), f, true); err != nil && !k.corrupt(err, doNext) {
			return err
		}
	}
	return nil
}
