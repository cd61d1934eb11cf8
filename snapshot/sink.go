package snapshot

import (
	"errors"
	"fmt"
)

// sink takes a snapshot stream in chunks of any size. Nothing of it is visible
// before Close returns nil, or after Cancel. One goroutine at a time.
type sink struct {
	store  *Store
	folder *folder

	head     []byte // until it has streamHead bytes
	encoded  []byte // the manifest, until it has length bytes
	length   int
	kind     streamKind
	manifest *Manifest // as it stands in the stream
	install  *install  // of a full or prepared stream, once its manifest is accepted

	err    error // the first one: every later Write and Close returns it
	closed bool
}

// ID returns the name under which Open knows the snapshot once it is closed.
func (s *sink) ID() string { return s.folder.id }

// Write takes the next bytes of the stream. What it can check it checks at once;
// after an error all is lost but Cancel.
func (s *sink) Write(p []byte) (int, error) {
	if s.closed {
		return 0, fmt.Errorf("write snapshot %s: closed", s.folder.id)
	}
	total := 0
	for s.err == nil && len(p) > 0 {
		n, err := s.consume(p)
		total += n
		p = p[n:]
		if err != nil {
			s.err = s.store.note(fmt.Errorf("write snapshot %s: %w", s.folder.id, err))
		}
	}
	return total, s.err
}

// consume takes at least one byte of p, but none of the part after the one that
// the stream is in.
func (s *sink) consume(p []byte) (int, error) {
	switch {
	case len(s.head) < streamHead:
		n := min(len(p), streamHead-len(s.head))
		s.head = append(s.head, p[:n]...)
		if len(s.head) < streamHead {
			return n, nil
		}
		var err error
		s.kind, s.length, err = decodeStreamHead(s.head)
		return n, err
	case s.manifest == nil:
		n := min(len(p), s.length-len(s.encoded))
		s.encoded = append(s.encoded, p[:n]...) // grows as it comes: a length alone claims no memory
		if len(s.encoded) < s.length {
			return n, nil
		}
		return n, s.begin()
	case s.install != nil && !s.install.complete():
		return s.install.write(p)
	default:
		return 0, &CorruptError{"snapshot stream", "bytes follow its last file"}
	}
}

// begin looks at the manifest, which is complete now.
func (s *sink) begin() error {
	encoded := s.encoded
	m, err := decodeManifest(encoded)
	if err != nil {
		return err
	}
	s.encoded = nil
	if s.kind == kindLocal {
		if err := m.checkDraft(); err != nil {
			return &CorruptError{"manifest", err.Error()}
		}
		s.manifest = m
		return nil
	}
	if err := m.Check(); err != nil {
		return &CorruptError{"manifest", err.Error()}
	}
	if accept := s.store.o.Accept; accept != nil {
		if err := accept(m); err != nil {
			return err
		}
	}
	s.manifest = m
	if s.kind == kindPrepared {
		s.install, err = s.store.beginPrepared(encoded)
		return err
	}
	s.install, err = s.store.beginInstall(m)
	return err
}

// Close makes the snapshot durable and the newest one, or removes every trace of
// it and says why. A second Close returns the same.
func (s *sink) Close() error {
	if s.closed {
		return s.err
	}
	s.closed = true
	if s.err == nil {
		s.err = s.finish()
	}
	if s.err != nil {
		s.cleanUp(s.err)
	}
	return s.err
}

func (s *sink) finish() error {
	var err error
	switch {
	case s.manifest == nil || s.install != nil && !s.install.complete():
		err = &CorruptError{"snapshot stream", "it ends too early"}
	case s.install != nil:
		err = s.store.finishInstall(s.folder, s.install)
	default:
		err = s.store.finishLocal(s.folder, s.manifest)
	}
	if err != nil {
		return s.store.note(fmt.Errorf("close snapshot %s: %w", s.folder.id, err))
	}
	return nil
}

// Cancel removes every trace of a snapshot that is not closed.
func (s *sink) Cancel() error {
	if s.closed {
		return nil
	}
	s.closed = true
	if s.err == nil {
		s.err = fmt.Errorf("snapshot %s: cancelled", s.folder.id)
	}
	s.cleanUp(s.err)
	return nil
}

// cleanUp removes what the sink has written. After a failed sync nothing is
// touched: the folder may be in place, and then its generation is needed.
func (s *sink) cleanUp(cause error) {
	if s.install != nil {
		s.install.abort()
	}
	if isSyncError(cause) || errors.Is(cause, ErrFailed) {
		return
	}
	var errs []error
	if s.install != nil {
		errs = append(errs, s.store.gens.Discard(s.install.generation))
	}
	if s.manifest != nil {
		if s.kind == kindLocal {
			errs = append(errs, s.store.fs.RemoveAll(s.store.checkpointDir(s.manifest)))
		}
		errs = append(errs, s.store.fs.RemoveAll(s.folder.path+tmpSuffix))
	}
	if err := errors.Join(errs...); err != nil {
		s.store.log.Warn("unfinished snapshot not removed", "id", s.folder.id, "error", err)
	}
}
