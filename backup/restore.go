package backup

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/uuid"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"cairn/datadir"
	"cairn/event"
	"cairn/fsm"
	"cairn/index"
	eventlog "cairn/log"
	"cairn/snapshot"
)

// restoredTerm is the term of Raft in which a restored node begins.
const restoredTerm = 1

// RestoreOptions says what is made of which backup.
type RestoreOptions struct {
	FS   vfs.FS
	From string // folder of the backup
	Data string // folder of the node to be; must not exist, or be empty

	// Position and Time bound what is restored: no event after that position, and
	// none that is younger than Time. Zero values mean all. An append that does
	// not fit in whole is left out whole.
	Position uint64
	Time     time.Time

	NodeID string // of the new node; "" = a new one
	Raft   string // host:port where other nodes will reach it; it may change later
	// Build makes raft/stable.db and an empty log in raft/wal; SetTerm notes a
	// term in the former. nil = raft-boltdb and raft-wal, which need the
	// operating system's file system.
	Build   func(dir string) error
	SetTerm func(stableDB string, term uint64) error

	Now func() time.Time
	// Progress is called with the last position copied, or folded, and the last
	// one there is. nil = nothing.
	Progress func(step string, position, last uint64)
}

// Restored says what came of a restore.
type Restored struct {
	NodeID   string `json:"node"`
	Log      string `json:"log"`       // the new log id
	From     string `json:"from"`      // id of the log that the backup is of
	Position uint64 `json:"position"`  // of the last event that was restored
	Left     uint64 `json:"left"`      // events of the backup that come after it
	LastTime string `json:"last_time"` // of the last event that was restored, RFC 3339
}

// restore is one call of Restore.
type restore struct {
	RestoreOptions
	manifest *Manifest
	staging  string // folder beside Data where the node's data is made
	last     uint64 // position of the last event to restore
	lastTime int64
	id       string // of the new log
	frames   uint64 // written so far; the last one's Raft index
	position uint64 // written so far
}

// Restore makes the data of a node that is a cluster of its own, with the events
// of a backup and a last one of type log-restored. Other nodes join it empty.
// The folder appears when all is done; what an earlier try left is thrown away.
func Restore(ctx context.Context, o RestoreOptions) (*Restored, error) {
	o.setDefaults()
	r := &restore{RestoreOptions: o, id: uuid.NewString(), staging: o.Data + ".restoring"}
	var err error
	if r.manifest, err = Read(o.FS, o.From); err != nil {
		return nil, err
	}
	if err := r.checkEmpty(); err != nil {
		return nil, err
	}
	if err := snapshot.MakeDir(o.FS, r.staging, 0o700); err != nil {
		return nil, err
	}
	l, err := lock(o.FS, r.staging)
	if err != nil {
		return nil, err
	}
	node, err := r.run(ctx)
	// When all went well that holds nothing any more: that it can't be removed is
	// no reason to call the node's data bad.
	removeErr := o.FS.RemoveAll(r.staging)
	_ = l.Close()
	if err != nil {
		return nil, errors.Join(err, removeErr)
	}
	return &Restored{
		NodeID: node, Log: r.id, From: r.manifest.Log, Position: r.last, Left: r.manifest.Position - r.last,
		LastTime: event.FormatTime(r.lastTime),
	}, nil
}

// run does the work, and returns the node's id.
func (r *restore) run(ctx context.Context) (string, error) {
	if err := r.verify(ctx); err != nil {
		return "", err
	}
	staged := r.FS.PathJoin(r.staging, "data")
	if err := r.FS.RemoveAll(staged); err != nil {
		return "", fmt.Errorf("remove what an earlier restore left: %w", err)
	}
	node, err := r.build(ctx, staged)
	if err != nil {
		return "", fmt.Errorf("restore %s: %w", r.From, err)
	}
	return node, r.putInPlace(staged)
}

func (o *RestoreOptions) setDefaults() {
	if o.Build == nil {
		o.Build = datadir.BuildRaft
	}
	if o.SetTerm == nil {
		o.SetTerm = setTerm
	}
	if o.Progress == nil {
		o.Progress = func(string, uint64, uint64) {}
	}
}

// setTerm notes a term in raft-boltdb's file, under the key that Raft reads.
func setTerm(stableDB string, term uint64) error {
	stable, err := raftboltdb.NewBoltStore(stableDB)
	if err != nil {
		return fmt.Errorf("open %s: %w", stableDB, err)
	}
	return errors.Join(stable.SetUint64([]byte("CurrentTerm"), term), stable.Close())
}

func (r *restore) checkEmpty() error {
	names, err := r.FS.List(r.Data)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("look into %s: %w", r.Data, err)
	case len(names) > 0:
		return fmt.Errorf("%s is not empty: a restore makes a new node, give it a folder of its own", r.Data)
	}
	return nil
}

// verify checks every segment of the backup wholly, before anything is written.
func (r *restore) verify(ctx context.Context) error {
	for _, s := range r.manifest.Segments {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := verify(r.FS, r.FS.PathJoin(r.From, logName, s.Name), s); err != nil {
			return fmt.Errorf("the backup is damaged: %w", err)
		}
		r.Progress("verify", s.Last, r.manifest.Position)
	}
	return nil
}

// build makes the whole data folder, and returns the node's id.
func (r *restore) build(ctx context.Context, dir string) (node string, err error) {
	d, err := datadir.Open(r.FS, dir, datadir.Options{NodeID: r.NodeID, Version: fsm.SupportedVersion, Build: r.Build})
	if err != nil {
		return "", err
	}
	generations, err := snapshot.OpenGenerations(r.FS, d.Log(), d.Snapshots())
	if err == nil {
		err = r.fill(ctx, d, generations)
	}
	return d.NodeID(), errors.Join(err, d.Close())
}

// fill writes log, state, savepoint, snapshot and term, in this order: a folder
// without its term is refused by every start.
func (r *restore) fill(ctx context.Context, d *datadir.Dir, g *snapshot.Generations) error {
	if err := r.copyLog(ctx, g.LogDir()); err != nil {
		return err
	}
	folded, err := fsm.Fold(ctx, fsm.FoldOptions{
		FS: r.FS, LogDir: g.LogDir(), StateDir: g.StateDir(), Index: r.frames, Position: r.position,
		Progress: func(position uint64) { r.Progress("fold", position, r.position) },
	})
	if err != nil {
		return err
	}
	if err := snapshot.WriteSavepoint(r.FS, g.Dir(), r.frames, r.position); err != nil {
		return err
	}
	if err := r.snapshot(d, g, folded.Version); err != nil {
		return err
	}
	if err := errors.Join(d.SetLogID(r.id), d.RaiseMinVersion(folded.Version)); err != nil {
		return err
	}
	return r.SetTerm(d.StableDB(), restoredTerm)
}

// copyLog writes the events to restore into segments of the new log.
func (r *restore) copyLog(ctx context.Context, dir string) error {
	from, err := eventlog.Open(eventlog.Options{FS: r.FS, Dir: r.FS.PathJoin(r.From, logName), Through: r.manifest.Position})
	if err != nil {
		return err
	}
	defer from.Close()
	id, size, _ := from.Identity()
	if has := uuid.UUID(id).String(); has != r.manifest.Log {
		return fmt.Errorf("the backup is damaged: its segments are of log %s, %s names %s", has, manifestName, r.manifest.Log)
	}
	if err := r.findEnd(from); err != nil {
		return err
	}
	to, err := eventlog.Open(eventlog.Options{FS: r.FS, Dir: dir})
	if err != nil {
		return err
	}
	err = errors.Join(to.Cut(), to.Create(eventlog.LogID(uuid.MustParse(r.id)), size))
	if err == nil {
		err = r.copyFrames(ctx, from, to)
	}
	if err == nil {
		err = to.Sync(r.position)
	}
	return errors.Join(err, to.Close())
}

// findEnd finds the last event to restore: the end of an append.
func (r *restore) findEnd(from *eventlog.Log) error {
	r.last = from.Last()
	if r.Position > 0 {
		r.last = min(r.last, r.Position)
	}
	if !r.Time.IsZero() {
		younger, err := from.SeekTime(r.Time.UnixNano() + 1)
		if err != nil {
			return err
		}
		r.last = min(r.last, younger-1)
	}
	if r.last > 0 {
		e, err := from.Read(r.last)
		if err != nil {
			return err
		}
		if e.AppendPlace+1 < e.AppendSize {
			r.last = e.Position - uint64(e.AppendPlace) - 1
		}
	}
	if r.last == 0 {
		return errors.New("no event of the backup is that old: nothing would be restored")
	}
	e, err := from.Read(r.last)
	r.lastTime = e.Time
	return err
}

// copyFrames copies frame by frame. The headers stay as they are, byte for byte,
// and so does the tree over them; the entries of Raft are counted anew, as if
// they had been the first of this log.
func (r *restore) copyFrames(ctx context.Context, from, to *eventlog.Log) error {
	s := from.ScanFrames(1)
	defer s.Close()
	var b eventlog.FrameBuilder
	logVersion := uint64(0) // of stream $log
	for s.Next() {
		e, frame := s.Event(), s.Frame()
		if e.Position > r.last {
			break
		}
		if e.Position == frame.First {
			if err := ctx.Err(); err != nil {
				return err
			}
			b.Reset(r.frames+1, restoredTerm, frame.First, frame.Time)
		}
		switch e.Stream {
		case event.StreamLog:
			logVersion = e.Version
		case event.StreamMembers:
			if err := r.checkRemoved(e); err != nil {
				return err
			}
		}
		if b.Add(e, s.Salt()) != eventlog.Leaf(s.Header()) {
			return fmt.Errorf("the event at position %d has fields that this program does not know: use a newer cairn", e.Position)
		}
		if e.Position == min(frame.Last, r.last) {
			if err := r.append(to, &b, e.Position); err != nil {
				return err
			}
		}
	}
	if err := s.Err(); err != nil {
		return err
	}
	return r.appendRestored(to, &b, logVersion+1)
}

// checkRemoved refuses the id of a node that was removed from the cluster for
// good: it would end at its start.
func (r *restore) checkRemoved(e *event.Event) error {
	var removal event.MemberRemoved
	if err := json.Unmarshal(e.Data, &removal); err != nil {
		return fmt.Errorf("%s at position %d: %w", e.Type, e.Position, err)
	}
	if removal.NodeID != "" && removal.NodeID == r.NodeID {
		return fmt.Errorf("node %s was removed from the cluster at position %d: choose another id", r.NodeID, e.Position)
	}
	return nil
}

func (r *restore) append(to *eventlog.Log, b *eventlog.FrameBuilder, last uint64) error {
	if err := to.Append(b); err != nil {
		return err
	}
	r.frames++
	r.position = last
	if r.frames%64 == 0 {
		r.Progress("copy", last, r.last)
	}
	return nil
}

// appendRestored appends the event that makes this a history of its own.
func (r *restore) appendRestored(to *eventlog.Log, b *eventlog.FrameBuilder, version uint64) error {
	data, err := json.Marshal(event.LogRestored{LogID: r.id, From: r.manifest.Log, Position: r.last})
	if err != nil {
		return fmt.Errorf("encode %s: %w", event.TypeLogRestored, err)
	}
	var salt [16]byte
	_, _ = rand.Read(salt[:]) // never fails: crypto/rand ends the process instead
	e := event.Event{
		Stream: event.StreamLog, Type: event.TypeLogRestored, ID: event.NewID(), Data: data, Version: version,
		Position: r.position + 1, Time: max(r.Now().UnixNano(), r.lastTime), AppendSize: 1,
	}
	b.Reset(r.frames+1, restoredTerm, e.Position, e.Time)
	b.Add(&e, salt)
	return r.append(to, b, e.Position)
}

// snapshot makes the Raft snapshot from which the node starts: a cluster of one.
func (r *restore) snapshot(d *datadir.Dir, g *snapshot.Generations, version uint32) error {
	store, err := snapshot.NewStore(snapshot.StoreOptions{
		FS: r.FS, Dir: d.Snapshots(), Generations: g,
		VerifySegment: func(string) (string, error) { return "", errors.New("nothing is installed here") },
	})
	if err != nil {
		return err
	}
	draft, err := r.draft(g, version)
	if err != nil {
		return err
	}
	encoded, err := snapshot.EncodeLocal(draft)
	if err != nil {
		return err
	}
	members := raft.Configuration{Servers: []raft.Server{{
		Suffrage: raft.Voter, ID: raft.ServerID(d.NodeID()), Address: raft.ServerAddress(r.Raft),
	}}}
	sink, err := store.Create(raft.SnapshotVersionMax, r.frames, restoredTerm, members, r.frames, nil)
	if err != nil {
		return err
	}
	if _, err := sink.Write(encoded); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

// draft describes what the snapshot consists of, with a checkpoint of the state.
func (r *restore) draft(g *snapshot.Generations, version uint32) (*snapshot.Manifest, error) {
	name := snapshot.StateName(r.frames)
	state, _, err := index.Open(index.Options{FS: r.FS, Dir: g.StateDir()})
	if err != nil {
		return nil, err
	}
	err = state.Checkpoint(r.FS.PathJoin(g.Dir(), name))
	if err = errors.Join(err, state.Close()); err != nil {
		return nil, err
	}
	log, err := eventlog.Open(eventlog.Options{FS: r.FS, Dir: g.LogDir(), Through: r.position})
	if err != nil {
		return nil, err
	}
	defer log.Close()
	m := &snapshot.Manifest{
		LogID: r.id, Version: version, Generation: g.Current(), Index: r.frames, Position: r.position, State: name,
	}
	for _, s := range log.Sealed(r.position) {
		m.Segments = append(m.Segments, snapshot.Segment{Name: s.Name, Base: s.Base, Last: s.Last, Size: s.Size, Hash: hex.EncodeToString(s.Hash[:])})
	}
	m.Active.Name, m.Active.Size, err = log.ActiveAt(r.position)
	return m, err
}

// putInPlace gives the finished folder its name.
func (r *restore) putInPlace(staged string) error {
	if err := r.FS.Remove(r.Data); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("replace the empty folder %s: %w (if it is a mount point, name a folder inside it)", r.Data, err)
	}
	if err := r.FS.Rename(staged, r.Data); err != nil {
		return fmt.Errorf("put %s in place: %w", r.Data, err)
	}
	return snapshot.SyncDir(r.FS, r.FS.PathDir(r.Data))
}
