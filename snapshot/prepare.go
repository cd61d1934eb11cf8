package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sync/errgroup"
)

// A snapshot that another node offers is brought here before Raft installs it:
// Raft's own stream would block Raft on this node, has one sender and begins
// anew after every fault. What comes is gathered in a folder that becomes the
// staged generation by a rename:
//
//	logs/main/incoming/log/<base>.seg   complete and verified; links, where this node had the segment
//	logs/main/incoming/state/           complete once the preparation is
//	logs/main/incoming/<name>.part      on its way
//
// The folder outlives a crash and another offer: what is verified is not fetched
// twice. Nothing in it counts before it is a generation.
const (
	incomingName  = "incoming"
	partSuffix    = ".part"
	fetchParallel = 4 // files
)

// ErrNotPrepared says that a snapshot was to be installed whose files are not
// here.
var ErrNotPrepared = errors.New("the files of this snapshot were not fetched")

// Source gives the files of an offered snapshot. Its methods are called by
// several goroutines. attempt counts from 0: a source with several nodes asks
// another one each time.
type Source interface {
	// Segment reads a file of the log from offset on.
	Segment(ctx context.Context, name string, offset, size int64, attempt int) (io.ReadCloser, error)
	// State reads a file of the snapshot's state from offset on.
	State(ctx context.Context, name string, offset, size int64, attempt int) (io.ReadCloser, error)
}

// ReadHead reads the head of a snapshot's full stream and returns the manifest
// in it, encoded, and the stream from its beginning on.
func ReadHead(r io.Reader) (manifest []byte, whole io.Reader, err error) {
	head := make([]byte, streamHead)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, nil, fmt.Errorf("read snapshot: %w", err)
	}
	_, length, err := decodeStreamHead(head)
	if err != nil {
		return nil, nil, err
	}
	manifest = make([]byte, length)
	if _, err := io.ReadFull(r, manifest); err != nil {
		return nil, nil, fmt.Errorf("read manifest: %w", err)
	}
	return manifest, io.MultiReader(bytes.NewReader(head), bytes.NewReader(manifest), r), nil
}

// EncodePrepared returns the stream that installs a snapshot whose files Prepare
// has brought to the receiver.
func EncodePrepared(manifest []byte) ([]byte, error) {
	return appendStreamHead(nil, kindPrepared, manifest)
}

// Prepare brings the files of an offered snapshot here. When it returns nil, a
// prepared stream with the same manifest installs it, until the next call. One
// call at a time.
func (s *Store) Prepare(ctx context.Context, manifest []byte, src Source, p *Progress) error {
	m, err := decodeFullManifest(manifest)
	if err != nil {
		return err
	}
	if accept := s.o.Accept; accept != nil {
		if err := accept(m); err != nil {
			return err
		}
	}
	if err := s.beginPrepare(); err != nil {
		return err
	}
	prep := &preparation{store: s, source: src, progress: p, manifest: m, dir: s.gens.Path(incomingName)}
	err = prep.run(ctx)
	if err == nil {
		s.setPrepared(&prepared{sent: manifest, manifest: prep.manifest})
	}
	return s.note(err)
}

// prepared is a snapshot whose files lie in the incoming folder.
type prepared struct {
	sent     []byte    // the manifest as offered
	manifest *Manifest // with the state files as they are here
}

// beginPrepare forgets what was prepared before.
func (s *Store) beginPrepare() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.prepared = nil
	return s.failed
}

func (s *Store) setPrepared(p *prepared) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.prepared = p
}

// preparation is one call of Prepare.
type preparation struct {
	store    *Store
	source   Source
	progress *Progress
	manifest *Manifest
	dir      string
}

func (p *preparation) path(parts ...string) string {
	return p.store.fs.PathJoin(append([]string{p.dir}, parts...)...)
}

func (p *preparation) run(ctx context.Context) error {
	fs := p.store.fs
	if err := fs.RemoveAll(p.path(stateName)); err != nil {
		return fmt.Errorf("remove an unfinished state: %w", err)
	}
	if err := fs.MkdirAll(p.path(logName), 0o755); err != nil {
		return fmt.Errorf("make %s: %w", p.dir, err)
	}
	missing, err := p.linkSegments(ctx)
	if err != nil {
		return err
	}
	for _, f := range missing {
		p.progress.Total.Add(f.size)
	}
	if err := p.fetchAll(ctx, missing); err != nil {
		return err
	}
	return p.makeState(ctx)
}

// linkSegments takes over the segments that this node has and returns the files
// of the log that it lacks. What an earlier preparation left and this one does
// not need goes.
func (p *preparation) linkSegments(ctx context.Context) (missing []part, err error) {
	fs := p.store.fs
	files, parts := make(map[string]bool), map[string]bool{logName: true}
	own := p.store.ownSegments()
	for _, f := range p.manifest.files(fs, p.path(logName), "")[:p.manifest.logFiles()] {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		name := fs.PathBase(f.path)
		files[name] = true
		switch {
		case f.kind == segmentPart && own[name] == f.hash: // first: it is not read
			if err := fs.RemoveAll(f.path); err != nil {
				return nil, fmt.Errorf("remove %s: %w", f.path, err)
			}
			if err := fs.Link(fs.PathJoin(p.store.gens.LogDir(), name), f.path); err != nil {
				return nil, fmt.Errorf("link %s: %w", name, err)
			}
		case p.verify(f) == nil: // an earlier preparation has brought it
		default:
			missing = append(missing, f)
			parts[name+partSuffix] = true
		}
	}
	return missing, errors.Join(keepOnly(fs, p.path(logName), files), keepOnly(fs, p.dir, parts))
}

// keepOnly removes from dir what is not named.
func keepOnly(fs vfs.FS, dir string, keep map[string]bool) error {
	names, err := list(fs, dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if keep[name] {
			continue
		}
		if err := fs.RemoveAll(fs.PathJoin(dir, name)); err != nil {
			return fmt.Errorf("remove %s: %w", name, err)
		}
	}
	return nil
}

// ownSegments returns the hashes of the sealed segments of the current
// generation that are durable, by name.
func (s *Store) ownSegments() map[string]string {
	own := make(map[string]string)
	if s.o.Sealed != nil {
		for _, seg := range s.o.Sealed() {
			own[seg.Name] = seg.Hash
		}
	}
	return own
}

// fetchAll fetches files, some at a time.
func (p *preparation) fetchAll(ctx context.Context, files []part) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(p.store.parallel)
	for _, f := range files {
		g.Go(func() error { return p.fetch(ctx, f) })
	}
	return g.Wait()
}

// fetch brings one file here, complete, verified and synced.
func (p *preparation) fetch(ctx context.Context, f part) error {
	name := p.store.fs.PathBase(f.path)
	open := p.source.Segment
	if f.kind == statePart {
		open = p.source.State
	}
	d := Download{
		FS: p.store.fs, Path: f.path, Part: p.path(name + partSuffix), Size: f.size,
		Open: func(ctx context.Context, offset int64, attempt int) (io.ReadCloser, error) {
			return open(ctx, name, offset, f.size, attempt)
		},
		Verify: func() error { return p.verify(f) },
	}
	return d.Run(ctx, p.progress)
}

// verify compares a complete file with its hash.
func (p *preparation) verify(f part) error {
	fs := p.store.fs
	st, err := fs.Stat(f.path)
	if err != nil {
		return fmt.Errorf("stat %s: %w", f.path, err)
	}
	if st.Size() != f.size {
		return &CorruptError{f.path, fmt.Sprintf("it has %d bytes, not %d", st.Size(), f.size)}
	}
	var hash string
	if f.kind == segmentPart {
		hash, err = p.store.o.VerifySegment(f.path)
	} else {
		hash, err = hashPrefix(fs, f.path, f.size, false)
	}
	if err != nil {
		return err
	}
	if hash != f.hash {
		return &CorruptError{f.path, "it does not have the hash of its manifest"}
	}
	return nil
}

// makeState makes the state as of the snapshot: folded from this node's own
// where that is less than fetching it, else fetched.
func (p *preparation) makeState(ctx context.Context) error {
	fs, m := p.store.fs, p.manifest
	if fold := p.store.o.Fold; fold != nil {
		folded, err := fold(ctx, m, p.path(logName), p.path(stateName))
		if ctx.Err() != nil {
			return fmt.Errorf("fold the state: %w", errors.Join(ctx.Err(), err))
		}
		if err != nil { // what we have may be damaged, which is no reason to refuse what is sound
			p.store.log.Warn("state not folded, it is fetched", "error", err)
			folded = false
		}
		if folded {
			own := *m
			if own.StateFiles, err = p.store.describeState(p.path(stateName), knownState{}); err != nil {
				return err
			}
			p.manifest = &own
			return own.Check()
		}
	}
	if err := errors.Join(fs.RemoveAll(p.path(stateName)), fs.MkdirAll(p.path(stateName), 0o755)); err != nil {
		return fmt.Errorf("make a folder for the state: %w", err)
	}
	files := m.files(fs, p.path(logName), p.path(stateName))[m.logFiles():]
	for _, f := range files {
		p.progress.Total.Add(f.size)
	}
	return p.fetchAll(ctx, files)
}

// logFiles is how many of files are of the log.
func (m *Manifest) logFiles() int {
	n := len(m.Segments)
	if m.Active.Name != "" {
		n++
	}
	return n
}

// beginPrepared stages what was prepared for a manifest as it was offered.
func (s *Store) beginPrepared(sent []byte) (*install, error) {
	p, generation, err := s.stagePrepared(sent)
	if err != nil {
		return nil, err
	}
	m := *p.manifest
	m.Generation = generation
	s.log.Info("install begins", "generation", generation, "log_id", m.LogID, "index", m.Index,
		"position", m.Position, "segments", len(m.Segments), "bytes", m.contentSize())
	return &install{store: s, fs: s.fs, manifest: &m, generation: generation, dir: s.gens.Path(generation), reused: len(m.Segments)}, nil
}

// stagePrepared takes the folder away under the lock: a Prepare, which would
// change it, comes before or after.
func (s *Store) stagePrepared(sent []byte) (*prepared, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.prepared
	if p == nil || !bytes.Equal(p.sent, sent) {
		return nil, "", ErrNotPrepared
	}
	s.prepared = nil
	generation, err := s.gens.StageFrom(s.gens.Path(incomingName))
	return p, generation, err
}

// RemoveIncoming removes what was fetched for a snapshot that was not installed.
// No Prepare may be running.
func (s *Store) RemoveIncoming() error {
	s.setPrepared(nil)
	return s.fs.RemoveAll(s.gens.Path(incomingName))
}

// OpenState opens a file of the state in a snapshot that is the newest one or is
// being sent. Any other is os.ErrNotExist.
func (s *Store) OpenState(id, name string) (f vfs.File, size int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.newest
	if k == nil || k.id != id {
		k = nil
		for held := range s.held {
			if held.id == id {
				k = held
			}
		}
	}
	if k != nil {
		for _, file := range k.manifest.StateFiles {
			if file.Name == name {
				opened, err := s.fs.Open(s.fs.PathJoin(k.path, stateName, name))
				if err != nil {
					return nil, 0, fmt.Errorf("open %s of snapshot %s: %w", name, id, err)
				}
				return opened, file.Size, nil
			}
		}
	}
	return nil, 0, fmt.Errorf("open %s of snapshot %s: %w", name, id, os.ErrNotExist)
}
