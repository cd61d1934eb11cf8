package snapshot

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// install is a received snapshot on its way into a staged generation. The sink's
// goroutine owns it.
type install struct {
	store      *Store
	fs         vfs.FS
	manifest   *Manifest // as sent, but of the staged generation
	generation string
	dir        string

	parts   []part      // what is still to come; the first one is being received
	left    int64       // bytes of it to come
	file    *fileWriter // nil while a part is linked, its bytes thrown away
	started bool        // the first of parts
	reused  int         // segments that were linked
}

// beginInstall stages a generation for a checked manifest.
func (s *Store) beginInstall(sent *Manifest) (*install, error) {
	generation, err := s.gens.Stage()
	if err != nil {
		return nil, err
	}
	m := *sent
	m.Generation = generation
	in := &install{store: s, fs: s.fs, manifest: &m, generation: generation, dir: s.gens.Path(generation)}
	in.parts = m.files(s.fs, s.fs.PathJoin(in.dir, logName), s.fs.PathJoin(in.dir, stateName))
	s.log.Info("install begins", "generation", generation, "log_id", m.LogID, "index", m.Index,
		"position", m.Position, "segments", len(m.Segments), "bytes", m.contentSize())
	return in, in.advance()
}

// complete reports whether every file has been received and verified.
func (in *install) complete() bool { return len(in.parts) == 0 }

// write takes bytes of the current file and says how many.
func (in *install) write(p []byte) (int, error) {
	p = p[:min(int64(len(p)), in.left)]
	if in.file != nil {
		if err := in.file.write(p); err != nil {
			return 0, err
		}
	}
	in.left -= int64(len(p))
	return len(p), in.advance()
}

// advance ends the current file if all of it has come, and goes on to the next
// one that expects bytes.
func (in *install) advance() error {
	for len(in.parts) > 0 && in.left == 0 {
		if in.started {
			if err := in.endPart(in.parts[0]); err != nil {
				return err
			}
			in.parts, in.started = in.parts[1:], false
			continue
		}
		if err := in.beginPart(in.parts[0]); err != nil {
			return err
		}
		in.left, in.started = in.parts[0].size, true
	}
	return nil
}

func (in *install) beginPart(p part) error {
	if p.kind == segmentPart {
		linked, err := in.linkSegment(p)
		if err != nil {
			return err
		}
		if linked {
			in.reused++
			return nil
		}
	}
	var err error
	in.file, err = newFileWriter(in.fs, p.path)
	return err
}

// linkSegment shares a sealed segment with the current generation if it stands
// there with the same hash and no damage. The stream carries its bytes all the
// same; not writing them is what is saved.
func (in *install) linkSegment(p part) (bool, error) {
	have := in.fs.PathJoin(in.store.gens.LogDir(), in.fs.PathBase(p.path))
	if st, err := in.fs.Stat(have); err != nil || st.Size() != p.size {
		return false, nil
	}
	if hash, err := in.store.o.VerifySegment(have); err != nil || hash != p.hash {
		return false, nil
	}
	if err := in.fs.Link(have, p.path); err != nil {
		in.store.log.Warn("segment not linked, it is copied", "file", have, "error", err)
		return false, nil
	}
	// It may be sealed, but not yet covered by a savepoint of ours.
	return true, syncFile(in.fs, p.path)
}

// endPart makes a received file durable and compares it with its hash.
func (in *install) endPart(p part) error {
	if in.file == nil {
		return nil
	}
	w := in.file
	in.file = nil
	if err := w.close(); err != nil {
		return err
	}
	hash := w.hash()
	if p.kind == segmentPart {
		var err error
		if hash, err = in.store.o.VerifySegment(p.path); err != nil {
			return fmt.Errorf("received segment: %w", err)
		}
	}
	if hash != p.hash {
		return &CorruptError{"received " + in.fs.PathBase(p.path), "it does not have the hash of its manifest"}
	}
	return nil
}

// abort closes the file that is open.
func (in *install) abort() {
	if in.file != nil {
		in.file.abort()
		in.file = nil
	}
}

// finishInstall makes a complete install durable. The order is that of the crash
// table in DESIGN.md: the generation with its manifest first, the snapshot's
// folder last, because start-up takes the folder as the decision.
func (s *Store) finishInstall(f *folder, in *install) error {
	if err := f.setManifest(in.manifest); err != nil {
		return err
	}
	for _, sub := range []string{logName, stateName} {
		if err := SyncDir(s.fs, s.fs.PathJoin(in.dir, sub)); err != nil {
			return err
		}
	}
	if active := in.manifest.Active; active.Name != "" && s.o.VerifyActive != nil {
		if err := s.o.VerifyActive(s.fs.PathJoin(in.dir, logName, active.Name), active.Size); err != nil {
			return fmt.Errorf("verify a received segment: %w", err)
		}
	}
	if err := WriteSavepoint(s.fs, in.dir, in.manifest.Index, in.manifest.Position); err != nil {
		return err
	}
	tmp := f.path + tmpSuffix
	if err := s.shareState(in, s.fs.PathJoin(tmp, stateName)); err != nil {
		return err
	}
	if err := f.write(s.fs, tmp); err != nil {
		return err
	}
	if err := s.gens.finishStaging(in.generation, f.encoded); err != nil {
		return err
	}
	if err := s.commit(f, tmp); err != nil {
		return err
	}
	s.gens.installed(in.generation)
	s.log.Info("install staged", "id", f.id, "generation", in.generation, "segments_linked", in.reused)
	return nil
}

// shareState gives the snapshot a checkpoint of its own: the staged state will
// be opened and go on, the snapshot must stay as it is.
func (s *Store) shareState(in *install, dir string) error {
	if err := s.fs.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	for _, f := range in.manifest.StateFiles {
		from, to := s.fs.PathJoin(in.dir, stateName, f.Name), s.fs.PathJoin(dir, f.Name)
		err := errors.ErrUnsupported
		if immutable(f.Name) {
			err = s.fs.Link(from, to)
		}
		if err != nil {
			err = copyFile(s.fs, from, to)
		}
		if err != nil {
			return fmt.Errorf("share state: %w", err)
		}
	}
	return SyncDir(s.fs, dir)
}
