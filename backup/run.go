package backup

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sync/errgroup"

	"cairn/client"
	eventlog "cairn/log"
	"cairn/snapshot"
)

// defaultParallel is how many segments are copied at a time.
const defaultParallel = 4

// Node is where a backup comes from; *client.Files is one.
type Node interface {
	// Log describes the files of the log, up to all that was committed before
	// the call.
	Log(ctx context.Context) (client.LogFiles, error)
	// Segment reads a file of the log from offset to before end.
	Segment(ctx context.Context, name string, offset, end int64) (io.ReadCloser, error)
}

// Options says what is copied where.
type Options struct {
	FS    vfs.FS
	Dir   string // of the backup; made if it is missing
	Nodes []Node // of one cluster, at least one; the next one helps out when one fails
	Now   func() time.Time
	// Progress counts the bytes of the segments that the backup does not have as
	// they are now. nil = nobody looks.
	Progress *snapshot.Progress

	// Patience is how long to go on while no node gives anything; 0 = a few
	// attempts.
	Patience time.Duration

	parallel int // defaultParallel, but in tests
}

// Summary says what a run did.
type Summary struct {
	Manifest
	Copied       int    // segments, a part of one too
	CopiedBytes  int64  // that the nodes sent
	Kept         int    // segments that were there already
	EventsBefore uint64 // in the backup before
}

// run is one call of Run.
type run struct {
	Options
	before   *Manifest // empty = the first backup into this folder
	incoming string    // folder for segments of this log on their way

	copied      atomic.Int64 // segments
	copiedBytes atomic.Int64
}

// Run brings the backup in a folder up to what is committed now. A folder with a
// backup of another log is refused. When it fails the backup before still holds,
// or the new one does already; the next run goes on where this one ended.
func Run(ctx context.Context, o Options) (*Summary, error) {
	if o.Progress == nil {
		o.Progress = new(snapshot.Progress)
	}
	if len(o.Nodes) == 0 {
		return nil, errors.New("no node to copy from is given")
	}
	if o.parallel == 0 {
		o.parallel = defaultParallel
	}
	r := &run{Options: o}
	if err := snapshot.MakeDir(o.FS, o.FS.PathJoin(o.Dir, logName), 0o755); err != nil {
		return nil, err
	}
	l, err := lock(o.FS, o.Dir)
	if err != nil {
		return nil, err
	}
	s, err := r.run(ctx)
	return s, errors.Join(err, l.Close())
}

func (r *run) run(ctx context.Context) (*Summary, error) {
	var err error
	if r.before, err = Read(r.FS, r.Dir); errors.Is(err, ErrNone) {
		r.before, err = &Manifest{}, nil
	}
	if err != nil {
		return nil, err
	}
	files, err := r.list(ctx)
	if err != nil {
		return nil, err
	}
	s := &Summary{EventsBefore: r.before.Position, Manifest: Manifest{
		Format: manifestFormat, Log: files.Log, Position: files.Position, Taken: r.Now().UTC().Format(time.RFC3339),
	}}
	var missing []Segment
	for _, f := range files.Segments {
		seg := Segment(f)
		s.Segments = append(s.Segments, seg)
		if r.has(seg) {
			s.Kept++
			continue
		}
		missing = append(missing, seg)
		r.Progress.Total.Add(seg.Size)
	}
	if err := s.check("the node's list of segments"); err != nil {
		return nil, err
	}
	if err := r.follows(s.Segments); err != nil {
		return nil, err
	}
	// What an earlier run left of another log's segments must not be gone on with.
	r.incoming = r.FS.PathJoin(r.Dir, incomingName, s.Log)
	if err := snapshot.MakeDir(r.FS, r.incoming, 0o755); err != nil {
		return nil, err
	}
	if err := r.copyAll(ctx, missing); err != nil {
		return nil, err
	}
	s.Copied, s.CopiedBytes = int(r.copied.Load()), r.copiedBytes.Load()
	s.Kept += len(missing) - s.Copied
	if err := snapshot.SyncDir(r.FS, r.FS.PathJoin(r.Dir, logName)); err != nil {
		return nil, err
	}
	if err := s.write(r.FS, r.Dir); err != nil {
		return nil, err
	}
	// The backup is complete. What stays when this goes wrong the next run removes.
	_ = r.FS.RemoveAll(r.FS.PathJoin(r.Dir, incomingName))
	return s, nil
}

// list asks the nodes in turn for the files of the log, and refuses what can't
// follow the backup before.
func (r *run) list(ctx context.Context) (client.LogFiles, error) {
	var errs error
	for _, node := range r.Nodes {
		files, err := node.Log(ctx)
		switch {
		case err != nil:
			errs = errors.Join(errs, err)
			continue
		case files.Position == 0:
			return files, errors.New("the log is empty: there is nothing to back up")
		case r.before.Log != "" && r.before.Log != files.Log:
			return files, fmt.Errorf("%s holds a backup of log %s, the cluster has log %s: back up into another folder", r.Dir, r.before.Log, files.Log)
		case files.Position < r.before.Position:
			return files, fmt.Errorf("%s holds a backup up to position %d, the cluster has only %d: back up into another folder, and find out what was lost", r.Dir, r.before.Position, files.Position)
		}
		return files, nil
	}
	return client.LogFiles{}, fmt.Errorf("no node answered: %w", errs)
}

// follows refuses a list of segments in which those that the backup has sealed
// are not the same: what was sealed never changes, so it is another history under
// the same id, and the backup may be the last good copy of the one that was.
func (r *run) follows(now []Segment) error {
	for i, old := range r.before.Segments {
		if old.Hash != "" && (i >= len(now) || now[i] != old) {
			return fmt.Errorf("segment %s of the backup in %s is not that of the cluster any more: back up into another folder, and find out which history is the right one", old.Name, r.Dir)
		}
	}
	return nil
}

// has reports whether the backup before holds a segment as it is now. Sealed
// segments were verified when they were copied.
func (r *run) has(s Segment) bool {
	st, err := r.FS.Stat(r.path(s.Name))
	if err != nil || st.Size() != s.Size {
		return false
	}
	for _, old := range r.before.Segments {
		if old == s {
			return true
		}
	}
	return false
}

func (r *run) path(segment string) string { return r.FS.PathJoin(r.Dir, logName, segment) }

func (r *run) copyAll(ctx context.Context, missing []Segment) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(r.parallel)
	for _, s := range missing {
		g.Go(func() error { return r.copy(ctx, s) })
	}
	return g.Wait()
}

// copy brings one segment here, beside the one of the backup before, and puts it
// in its place when it is verified.
func (r *run) copy(ctx context.Context, s Segment) error {
	if err := ctx.Err(); err != nil { // another one's failure has ended the run
		return err
	}
	if r.hasCome(s) {
		r.Progress.Fetched.Add(s.Size)
		return nil
	}
	r.copied.Add(1)
	path := r.FS.PathJoin(r.incoming, s.Name)
	d := snapshot.Download{
		FS: r.FS, Path: path, Part: path + partSuffix, Size: s.Size,
		Open: func(ctx context.Context, offset int64, attempt int) (io.ReadCloser, error) {
			body, err := r.Nodes[attempt%len(r.Nodes)].Segment(ctx, s.Name, offset, s.Size)
			if err != nil {
				return nil, err
			}
			return &countedBody{body, &r.copiedBytes}, nil
		},
		Verify:   func() error { return r.verify(path, s) },
		Patience: r.Patience,
	}
	if err := r.seed(d.Part, s); err != nil {
		return err
	}
	if err := d.Run(ctx, r.Progress); err != nil {
		return err
	}
	if err := r.FS.Rename(d.Path, r.path(s.Name)); err != nil {
		return fmt.Errorf("put %s in place: %w", s.Name, err)
	}
	return nil
}

// verify checks a segment that has come: it must be what was listed, and begin
// with what the backup before has of it.
func (r *run) verify(path string, s Segment) error {
	if err := verify(r.FS, path, s); err != nil {
		return err
	}
	for _, old := range r.before.Segments {
		if old.Name != s.Name || old.Hash != "" || verify(r.FS, r.path(s.Name), old) != nil { // lost or damaged here
			continue
		}
		was, err := snapshot.HashPrefix(r.FS, r.path(s.Name), old.Size)
		is, err2 := snapshot.HashPrefix(r.FS, path, old.Size)
		if err := errors.Join(err, err2); err != nil {
			return err
		}
		if was != is {
			return &eventlog.CorruptError{File: path, Reason: "it does not begin with what the backup has of it: the cluster has another history under the same id; back up into another folder"}
		}
	}
	return nil
}

// hasCome reports whether an earlier run that was broken off has put a sealed
// segment in place. Its hash tells its log too; what is not sealed has none.
func (r *run) hasCome(s Segment) bool {
	st, err := r.FS.Stat(r.path(s.Name))
	return err == nil && st.Size() == s.Size && s.Hash != "" && verify(r.FS, r.path(s.Name), s) == nil
}

// countedBody counts what is read of a segment.
type countedBody struct {
	io.ReadCloser
	bytes *atomic.Int64
}

// Read reads on.
func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.bytes.Add(int64(n))
	return n, err
}

// seed begins a download with what the backup before has of the segment.
func (r *run) seed(part string, s Segment) error {
	if _, err := r.FS.Stat(part); err == nil {
		return nil // an earlier run was broken off; what it has may be more
	}
	for _, old := range r.before.Segments {
		if old.Name == s.Name && old.Size < s.Size {
			err := snapshot.CopyPrefix(r.FS, r.path(s.Name), part, old.Size)
			if errors.Is(err, os.ErrNotExist) {
				return nil
			}
			return err
		}
	}
	return nil
}

// verify checks a segment of a backup wholly.
func verify(fs vfs.FS, path string, s Segment) error {
	if s.Hash == "" {
		size, err := eventlog.PrefixTo(fs, path, s.Last)
		if err == nil && size != s.Size {
			err = &eventlog.CorruptError{File: path, Offset: size, Reason: fmt.Sprintf("position %d ends here, not at %d", s.Last, s.Size)}
		}
		return err
	}
	info, err := eventlog.VerifySegment(fs, path)
	if err != nil {
		return err
	}
	if hex.EncodeToString(info.Hash[:]) != s.Hash {
		return &eventlog.CorruptError{File: path, Reason: "it does not have the hash that it was listed with"}
	}
	return nil
}
