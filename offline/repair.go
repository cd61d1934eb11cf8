package offline

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"

	"cairn/client"
	"cairn/datadir"
	"cairn/fsm"
	eventlog "cairn/log"
	"cairn/snapshot"
)

// repairName is the folder beside the generations where segments arrive; every
// start removes it.
const repairName = "repair.tmp"

// Peer is a node that has what this one lacks; *client.Files is one. It need not
// know of a leader: most nodes may be down.
type Peer interface {
	// LocalLog describes the files of its log, up to what it has.
	LocalLog(ctx context.Context) (client.LogFiles, error)
	// Segment reads a file of its log from offset to before end.
	Segment(ctx context.Context, name string, offset, end int64) (io.ReadCloser, error)
}

// RepairOptions says what Repair works on.
type RepairOptions struct {
	FS       vfs.FS
	Dir      string         // the data folder of a node
	From     []Peer         // running nodes of its cluster; the next one helps out when one fails
	Progress func(Progress) // called now and then, on the goroutine of the caller; nil = nothing
}

// Repaired says what was put right.
type Repaired struct {
	LogID    string   `json:"log_id"`
	Position uint64   `json:"position"` // up to which the log is whole now
	Segments []string `json:"segments"` // that were damaged or missing and came from a peer
}

// Repair reads every segment of a node's log up to its savepoint and fetches
// those that are damaged or missing from a peer. What comes is verified wholly
// and must have the hash that the peer lists; it takes the place of the damaged
// file when it is durable, so that a crash leaves the one or the other. Nothing
// else is touched: a state that is damaged too is made again by Rebuild.
func Repair(ctx context.Context, o RepairOptions) (r Repaired, err error) {
	d, err := datadir.Open(o.FS, o.Dir, datadir.Options{Version: fsm.SupportedVersion})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	generations, err := snapshot.OpenGenerations(o.FS, d.Log(), d.Snapshots())
	if err != nil {
		return r, err
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	p := &repair{RepairOptions: o, dir: generations.LogDir(), incoming: d.Path("logs", "main", repairName)}
	if r.Position, err = durablePosition(o.FS, d, generations); err != nil {
		return r, err
	}
	if r.Position == 0 {
		return r, errors.New("this node has no savepoint yet: there is nothing to repair")
	}
	if err := p.choose(ctx, d.LogID(), r.Position); err != nil {
		return r, err
	}
	if err := snapshot.MakeDir(o.FS, p.incoming, 0o755); err != nil {
		return r, err
	}
	r.LogID = p.files.Log
	r.Segments, err = p.run(ctx, r.Position)
	return r, errors.Join(err, o.FS.RemoveAll(p.incoming))
}

// durablePosition returns how far the log must reach: as far as SAVEPOINT says,
// or as the state, which may be one savepoint ahead of it.
func durablePosition(fs vfs.FS, d *datadir.Dir, g *snapshot.Generations) (uint64, error) {
	_, position, err := savepoint(fs, d, g)
	if err != nil {
		return 0, err
	}
	state, err := fsm.OpenState(fs, g.StateDir())
	if err != nil {
		return position, nil // Rebuild makes one as of SAVEPOINT
	}
	_, saved := state.Savepoint()
	return max(position, saved), state.Close()
}

// repair is one call of Repair.
type repair struct {
	RepairOptions
	dir      string // of the segments
	incoming string
	peers    []Peer          // those that have all that this node must have
	files    client.LogFiles // of the first of them
}

// choose finds the peers that have all that this node must have.
func (p *repair) choose(ctx context.Context, logID string, position uint64) error {
	if len(p.From) == 0 {
		return errors.New("no node to fetch from is given")
	}
	var errs error
	for _, peer := range p.From {
		files, err := peer.LocalLog(ctx)
		switch {
		case err != nil:
		case logID != "" && files.Log != logID:
			err = fmt.Errorf("a node of log %s can't help: this one is of log %s", files.Log, logID)
		case files.Position < position:
			err = fmt.Errorf("a node is at position %d, this one must reach %d", files.Position, position)
		default:
			err = checkList(files.Segments)
		}
		if err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		if len(p.peers) == 0 {
			p.files = files
		}
		p.peers = append(p.peers, peer)
	}
	if len(p.peers) == 0 {
		return errs
	}
	return nil
}

// checkList refuses a list that names other files than segments.
func checkList(segments []client.SegmentFile) error {
	for _, s := range segments {
		if s.Name != eventlog.SegmentName(s.Base) {
			return fmt.Errorf("a node lists %q as the segment of position %d", s.Name, s.Base)
		}
	}
	return nil
}

// run checks the whole log, and fetches what is not as it should be.
func (p *repair) run(ctx context.Context, position uint64) ([]string, error) {
	damaged, whole, err := p.check(ctx, position)
	if err != nil {
		return nil, err
	}
	repaired := []string{}
	for _, s := range p.files.Segments {
		switch {
		case s.Base > position:
			return repaired, p.open(position)
		case s.Last >= position: // the one that holds the savepoint
			if !damaged[s.Name] {
				continue
			}
		case whole[s.Name] == s.Hash, !damaged[s.Name] && p.verify(p.FS.PathJoin(p.dir, s.Name), s) == nil:
			continue
		case whole[s.Name] != "" && !damaged[s.Name]:
			return repaired, fmt.Errorf("segment %s is whole here and at the peer, but not the same (%s and %s): that is no damage but another history; nothing was changed in it, find out which one is right",
				s.Name, whole[s.Name], s.Hash)
		}
		p.Progress(Progress{Stage: "fetching " + s.Name})
		if err := p.fetch(ctx, s, position); err != nil {
			return repaired, err
		}
		repaired = append(repaired, s.Name)
	}
	return repaired, p.open(position)
}

// check returns the names of files with damage, and of missing ones, and the
// hashes of the sealed segments that are whole.
func (p *repair) check(ctx context.Context, position uint64) (damaged map[string]bool, whole map[string]string, err error) {
	damaged, whole = make(map[string]bool), make(map[string]string)
	infos, err := eventlog.Check(eventlog.CheckOptions{
		FS: p.FS, Dir: p.dir, Through: position,
		Found: func(err error) {
			var damage *eventlog.CorruptError
			if errors.As(err, &damage) {
				damaged[p.FS.PathBase(damage.File)] = true
			}
		},
		Read: func(bytes int64) error {
			p.Progress(Progress{Stage: "reading segments", Done: uint64(bytes), Unit: "bytes"})
			return ctx.Err()
		},
	})
	for _, s := range infos {
		whole[s.Name] = hex.EncodeToString(s.Hash[:])
	}
	for _, s := range p.files.Segments {
		if _, err := p.FS.Stat(p.FS.PathJoin(p.dir, s.Name)); errors.Is(err, os.ErrNotExist) {
			damaged[s.Name] = true
		}
	}
	return damaged, whole, err
}

// fetch puts a verified copy of a peer's segment in place, durably. What the
// peer has of it beyond the savepoint is left out: Raft here may not know of it,
// and then the node would not start.
func (p *repair) fetch(ctx context.Context, s client.SegmentFile, position uint64) error {
	path := p.FS.PathJoin(p.incoming, s.Name)
	d := snapshot.Download{
		FS: p.FS, Path: path, Part: path + ".part", Size: s.Size,
		Open: func(ctx context.Context, offset int64, attempt int) (io.ReadCloser, error) {
			return p.peers[attempt%len(p.peers)].Segment(ctx, s.Name, offset, s.Size)
		},
		Verify: func() error { return p.verify(path, s) },
	}
	if err := d.Run(ctx, new(snapshot.Progress)); err != nil {
		return err
	}
	if s.Last > position {
		size, err := eventlog.PrefixTo(p.FS, path, position)
		if err != nil {
			return err
		}
		cut := path + ".cut"
		if err := snapshot.CopyPrefix(p.FS, path, cut, size); err != nil {
			return err
		}
		path = cut
	}
	if err := p.FS.Rename(path, p.FS.PathJoin(p.dir, s.Name)); err != nil {
		return fmt.Errorf("put %s in place: %w", s.Name, err)
	}
	return snapshot.SyncDir(p.FS, p.dir)
}

func (p *repair) verify(path string, s client.SegmentFile) error {
	if s.Hash == "" {
		return eventlog.VerifyPrefix(p.FS, path, s.Size)
	}
	info, err := eventlog.VerifySegment(p.FS, path)
	if err == nil && hex.EncodeToString(info.Hash[:]) != s.Hash {
		err = &eventlog.CorruptError{File: path, Reason: "it does not have the hash that its node lists"}
	}
	return err
}

// open makes sure that the log is one that a node can start on.
func (p *repair) open(position uint64) error {
	log, err := eventlog.Open(eventlog.Options{FS: p.FS, Dir: p.dir, Through: position})
	if err != nil {
		return fmt.Errorf("the log is still not whole: %w", err)
	}
	return log.Close()
}
