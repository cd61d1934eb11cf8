package snapshot

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// finishLocal completes a snapshot of this node's own: the checkpoint moves from
// the generation into the snapshot's folder.
func (s *Store) finishLocal(f *folder, draft *Manifest) error {
	err := s.moveLocal(f, draft)
	if err != nil && !errors.Is(err, ErrSuperseded) && draft.Generation != s.gens.Current() {
		// An install may have removed the files meanwhile.
		return fmt.Errorf("%w: %w", ErrSuperseded, err)
	}
	return err
}

func (s *Store) moveLocal(f *folder, draft *Manifest) error {
	if draft.Generation != s.gens.Current() {
		return ErrSuperseded
	}
	m, err := s.describe(draft)
	if err != nil {
		return err
	}
	if err := f.setManifest(m); err != nil {
		return err
	}
	tmp := f.path + tmpSuffix
	if err := s.fs.MkdirAll(tmp, 0o755); err != nil {
		return fmt.Errorf("make %s: %w", tmp, err)
	}
	checkpoint := s.checkpointDir(m)
	if err := s.fs.Rename(checkpoint, s.fs.PathJoin(tmp, stateName)); err != nil {
		return fmt.Errorf("move %s: %w", checkpoint, err)
	}
	// Should the old name of the checkpoint come back in a crash, start-up
	// removes it: only the new one has to be durable.
	if err := f.write(s.fs, tmp); err != nil {
		return err
	}
	return s.commit(f, tmp)
}

// setManifest makes m the manifest of a folder that is being made.
func (f *folder) setManifest(m *Manifest) error {
	f.manifest, f.encoded = m, encodeManifest(m)
	if len(f.encoded) > MaxManifest {
		return fmt.Errorf("manifest of %d bytes is larger than %d", len(f.encoded), MaxManifest)
	}
	f.meta.Size = f.streamSize()
	return nil
}

func (s *Store) checkpointDir(m *Manifest) string {
	return s.fs.PathJoin(s.gens.Path(m.Generation), m.State)
}

// describe completes a draft: the hash of the active segment's prefix, and the
// files of the checkpoint, which it makes durable.
func (s *Store) describe(draft *Manifest) (*Manifest, error) {
	m := *draft
	logDir := s.fs.PathJoin(s.gens.Path(m.Generation), logName)
	if m.Active.Name != "" {
		var err error
		if m.Active.Hash, err = hashPrefix(s.fs, s.fs.PathJoin(logDir, m.Active.Name), m.Active.Size, false); err != nil {
			return nil, err
		}
	}
	var err error
	if m.StateFiles, err = s.describeState(s.checkpointDir(&m), s.knownState(m.Generation)); err != nil {
		return nil, err
	}
	for _, p := range m.files(s.fs, logDir, "")[:len(m.Segments)] {
		if err := checkSize(s.fs, p); err != nil {
			return nil, err
		}
	}
	return &m, m.Check()
}

// describeState lists, hashes and syncs the files of a checkpoint. An immutable
// file that the last snapshot had too is taken over from there: so a snapshot
// costs what is new, not what there is.
func (s *Store) describeState(dir string, known knownState) ([]File, error) {
	names, err := list(s.fs, dir)
	if err != nil {
		return nil, err
	}
	files := make([]File, 0, len(names))
	for _, name := range names {
		path := s.fs.PathJoin(dir, name)
		st, err := s.fs.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("stat %s: %w", path, err)
		}
		if st.IsDir() {
			return nil, &CorruptError{path, "it is a folder inside a checkpoint"}
		}
		f := File{Name: name, Size: st.Size()}
		if f.Hash = known.hash(s.fs, st); f.Hash != "" {
			files = append(files, f)
			continue
		}
		if f.Hash, err = hashPrefix(s.fs, path, f.Size, true); err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, SyncDir(s.fs, dir)
}

// knownState is the immutable state files of the newest snapshot.
type knownState struct {
	dir   string
	files map[string]File
}

// knownState is empty if the newest snapshot is not of the given generation.
func (s *Store) knownState(generation string) knownState {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.newest == nil || s.newest.manifest.Generation != generation {
		return knownState{}
	}
	known := knownState{s.fs.PathJoin(s.newest.path, stateName), make(map[string]File)}
	for _, f := range s.newest.manifest.StateFiles {
		if immutable(f.Name) {
			known.files[f.Name] = f
		}
	}
	return known
}

// hash returns the hash of a checkpoint's file if it is known, else "". Two
// links to one file have one time of change; another file that got the same name
// and size, because the state was built anew, has another.
func (k knownState) hash(fs vfs.FS, st vfs.FileInfo) string {
	f, ok := k.files[st.Name()]
	if !ok || f.Size != st.Size() {
		return ""
	}
	have, err := fs.Stat(fs.PathJoin(k.dir, f.Name))
	if err != nil || have.Size() != f.Size || !have.ModTime().Equal(st.ModTime()) {
		return ""
	}
	return f.Hash
}

// immutable reports whether the state never changes such a file once it is
// written, so that two folders may share it: Pebble's tables and blobs. Its
// logs, manifests and markers are copied, as Pebble's own checkpoints do.
func immutable(name string) bool {
	return strings.HasSuffix(name, ".sst") || strings.HasSuffix(name, ".blob")
}
