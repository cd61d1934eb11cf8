// Package backup copies the log of a running cluster into a folder, and makes a
// new node's data of such a folder.
//
// A backup is the event log alone: what else a node keeps is folded from it. Run
// may be repeated into the same folder; sealed segments are copied once, since
// they never change. What Run returned nil for is complete, verified and durable,
// and holds every event that was committed before Run began; a crash at any
// moment leaves the backup before or the new one. Restore makes a history of its
// own: a new log id, so that positions of the old one are refused, and an event
// that says where it came from.
//
// Neither trusts what it reads: every segment is verified wholly, as a node does
// when it takes in a snapshot. Neither copies a node's identity, Raft's log or
// the members of the cluster.
//
// Command cairn calls it. One Run works in a folder at a time, and one Restore
// makes a node's data: locks see to it. A Run and a Restore of the same backup
// do not disturb each other.
package backup

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/uuid"

	eventlog "cairn/log"
	"cairn/snapshot"
)

// A backup's folder:
//
//	BACKUP            what the backup consists of: JSON, one line; written last
//	LOCK              held while somebody works in the folder
//	log/<base>.seg    the segments; the last one holds a prefix while it is not sealed
//	incoming/<log>/   segments of a log on their way
const (
	manifestName = "BACKUP"
	lockName     = "LOCK"
	logName      = "log"
	incomingName = "incoming"
	partSuffix   = ".part"

	manifestFormat = 1
	maxManifest    = 64 << 20
)

// ErrNone means that a folder holds no complete backup.
var ErrNone = errors.New("there is no complete backup")

// Manifest is the contents of BACKUP.
type Manifest struct {
	Format   int       `json:"format"`   // 1
	Log      string    `json:"log"`      // id of the history
	Position uint64    `json:"position"` // of the last event
	Taken    string    `json:"taken"`    // when, RFC 3339; by the clock of whoever took it
	Segments []Segment `json:"segments"` // ascending, without gaps
}

// Segment is one file of a backup.
type Segment struct {
	Name string `json:"name"`
	Base uint64 `json:"base"` // position of its first event
	Last uint64 `json:"last"` // and of its last one in the backup
	Size int64  `json:"size"` // bytes up to and with Last
	Hash string `json:"hash"` // of a sealed segment, over frames and headers; "" if it was not sealed
}

// Read returns the manifest of the backup in a folder, ErrNone if there is none.
func Read(fs vfs.FS, dir string) (*Manifest, error) {
	path := fs.PathJoin(dir, manifestName)
	f, err := fs.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", dir, ErrNone)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxManifest))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	// The format comes first: a later one may have other fields.
	var form struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(b, &form); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if form.Format != manifestFormat {
		return nil, fmt.Errorf("%s has format %d, this program knows %d: use a newer cairn", path, form.Format, manifestFormat)
	}
	m := new(Manifest)
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(m); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return m, m.check(path)
}

// check reports what can't be the manifest of a backup, or names a file outside
// of its folder.
func (m *Manifest) check(path string) error {
	if err := uuid.Validate(m.Log); err != nil {
		return fmt.Errorf("%s: %q is not the id of a log", path, m.Log)
	}
	last := uint64(0)
	for i, s := range m.Segments {
		switch {
		case s.Name != eventlog.SegmentName(s.Base):
			return fmt.Errorf("%s: %q is not the segment of position %d", path, s.Name, s.Base)
		case s.Base != last+1 || s.Last < s.Base || s.Size <= 0:
			return fmt.Errorf("%s: segment %s does not follow the one before", path, s.Name)
		case s.Hash == "" && i < len(m.Segments)-1:
			return fmt.Errorf("%s: segment %s is not sealed and not the last one", path, s.Name)
		}
		last = s.Last
	}
	if last != m.Position || last == 0 {
		return fmt.Errorf("%s: its segments end at position %d, not %d", path, last, m.Position)
	}
	return nil
}

// write makes m the manifest of the folder, durably.
func (m *Manifest) write(fs vfs.FS, dir string) error {
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode %s: %w", manifestName, err)
	}
	return snapshot.ReplaceFile(fs, fs.PathJoin(dir, manifestName), append(b, '\n'))
}

// lock keeps others out of a folder.
func lock(fs vfs.FS, dir string) (io.Closer, error) {
	l, err := fs.Lock(fs.PathJoin(dir, lockName))
	if err != nil {
		return nil, fmt.Errorf("%s is in use by another backup or restore: %w", dir, err)
	}
	return l, nil
}
