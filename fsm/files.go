package fsm

import (
	"encoding/hex"
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"

	eventlog "cairn/log"
	"cairn/snapshot"
)

// LogFiles are the files of the log as of a position, which ends an entry.
type LogFiles struct {
	LogID      string
	Position   uint64
	Sealed     []snapshot.Segment
	Active     string // name of the file with Position, "" in an empty log
	ActiveBase uint64 // position of its first event
	ActiveSize int64  // its bytes up to and with Position
}

// LogFiles describes the files as of what is applied.
func (m *Machine) LogFiles() (LogFiles, error) {
	gen, err := m.hold()
	if err != nil {
		return LogFiles{}, err
	}
	defer gen.release()
	_, position := m.Applied()
	position = min(position, gen.log.Last())
	f := LogFiles{LogID: m.LogID(), Position: position, ActiveBase: 1, Sealed: manifestSegments(gen.log.Sealed(position))}
	if n := len(f.Sealed); n > 0 {
		f.ActiveBase = f.Sealed[n-1].Last + 1
	}
	f.Active, f.ActiveSize, err = gen.log.ActiveAt(position)
	return f, err
}

// DurableSegments returns the sealed segments that the newest savepoint covers.
func (m *Machine) DurableSegments() []snapshot.Segment {
	gen, err := m.hold()
	if err != nil {
		return nil
	}
	defer gen.release()
	_, position := m.Durable()
	return manifestSegments(gen.log.Sealed(position))
}

// OpenSegment opens a file of the log, and says how many bytes of it will not
// change: where its frames end. A file that does not exist is
// eventlog.ErrNotFound.
func (m *Machine) OpenSegment(name string) (vfs.File, int64, error) {
	gen, err := m.hold()
	if err != nil {
		return nil, 0, err
	}
	defer gen.release()
	size, ok := gen.log.Written(name)
	if !ok {
		return nil, 0, fmt.Errorf("segment %q: %w", name, eventlog.ErrNotFound)
	}
	f, err := m.opts.FS.Open(m.opts.FS.PathJoin(gen.logDir, name), vfs.SequentialReadsOption)
	if err != nil {
		return nil, 0, fmt.Errorf("open segment %s: %w", name, err)
	}
	return f, size, nil
}

// hold returns the generation in use, which the caller releases; ErrClosed when
// the machine was closed.
func (m *Machine) hold() (*generation, error) {
	m.genMu.RLock()
	defer m.genMu.RUnlock()
	if !m.gen.tryAcquire() {
		return nil, ErrClosed
	}
	return m.gen, nil
}

func manifestSegments(infos []eventlog.SegmentInfo) []snapshot.Segment {
	list := make([]snapshot.Segment, 0, len(infos))
	for _, s := range infos {
		list = append(list, snapshot.Segment{Name: s.Name, Base: s.Base, Last: s.Last, Size: s.Size, Hash: hex.EncodeToString(s.Hash[:])})
	}
	return list
}

// VerifySegment reads a sealed, durable segment wholly, through another view of
// the machine's file system. Damage is an *eventlog.CorruptError.
func (m *Machine) VerifySegment(fs vfs.FS, name string) error {
	gen, err := m.hold()
	if err != nil {
		return err
	}
	defer gen.release()
	return gen.log.VerifySealed(fs, name)
}

// ReplaceSegment puts a file that is a sealed segment, whole, in the place of the
// one that is damaged.
func (m *Machine) ReplaceSegment(name, path string) error {
	gen, err := m.hold()
	if err != nil {
		return err
	}
	defer gen.release()
	return gen.log.Replace(name, path)
}
