// Package datadir opens a node's data directory: whose it is, whether it is
// whole, and that nobody else uses it.
//
// It guarantees: all parts exist or none, because a new directory is built
// beside its place and renamed; a missing part is an error that names it, never
// a silent fresh start; one process at a time; a directory that a newer binary
// has used is refused before anything in it is opened; what SetLogID and
// RaiseMinVersion returned nil for is durable.
//
// It does not look into the parts: their owners do, raft-boltdb, raft-wal and
// package snapshot.
//
// cmd calls Open before anything else and Close after everything else. A Dir may
// be used from any goroutine.
package datadir

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"

	"cairn/snapshot"
)

// Options of Open.
type Options struct {
	// NodeID is the id the node is to have: letters, digits, '.', '_' and '-', at
	// most 64. "" means the directory's own, for a new one node-<8 hex digits>.
	NodeID string
	// Version is the highest cluster version that this binary supports; 0 = 1. A
	// directory that needs a higher one is refused.
	Version uint32
	// Build makes raft/stable.db and an empty log in raft/wal of a new directory,
	// whose folders exist already, and closes them. nil means that the directory
	// must exist.
	Build func(dir string) error
}

// Dir is an open data directory.
type Dir struct {
	fs      vfs.FS
	path    string
	version uint32
	lock    io.Closer

	mu     sync.Mutex
	node   node  // owned by mu
	failed error // a write of node.json that may or may not have taken effect; owned by mu
	closed bool  // owned by mu
}

// Open locks the directory and checks that it is whole, of a known format and
// the node's own. Where there is none, or an empty one, it builds a new one.
func Open(fs vfs.FS, dir string, o Options) (*Dir, error) {
	if o.Version == 0 {
		o.Version = 1
	}
	if o.NodeID != "" && !idForm.MatchString(o.NodeID) {
		return nil, fmt.Errorf("node id %q: 1 to 64 letters, digits, '.', '_' or '-' are allowed, the first a letter or digit", o.NodeID)
	}
	dir, err := canonical(fs, dir)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	st, err := look(fs, dir)
	if err != nil {
		return nil, err
	}
	if st == absent {
		if o.Build == nil {
			return nil, fmt.Errorf("data directory %s %w", dir, ErrMissing)
		}
		if err := build(fs, dir, o); err != nil {
			return nil, inDir(dir, "build data directory", err)
		}
	}
	lock, err := lockDir(fs, dir)
	if err != nil {
		return nil, inDir(dir, "data directory", err)
	}
	d := &Dir{fs: fs, path: dir, version: o.Version, lock: lock}
	if err := d.check(o); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return d, nil
}

// check reads node.json, which comes first because a newer format may have other
// parts.
func (d *Dir) check(o Options) error {
	var err error
	if d.node, err = readNode(d.fs, d.path, o.Version); err != nil {
		return err
	}
	if err := checkParts(d.fs, d.path); err != nil {
		return err
	}
	if o.NodeID != "" && o.NodeID != d.node.NodeID {
		return &IdentityError{Dir: d.path, What: "node", Has: d.node.NodeID, Asked: o.NodeID}
	}
	// A crash may have left what the directory was built from.
	return d.fs.RemoveAll(d.path + ".new")
}

// inDir puts the path before an error that does not name it.
func inDir(dir, what string, err error) error {
	var missing *MissingPartError
	var foreign *ForeignError
	if errors.As(err, &missing) || errors.As(err, &foreign) {
		return err
	}
	return fmt.Errorf("%s %s: %w", what, dir, err)
}

// NodeID returns the node's id; it never changes.
func (d *Dir) NodeID() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.node.NodeID
}

// LogID returns the id of the log the node holds, "" before it has one.
func (d *Dir) LogID() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.node.LogID
}

// MinVersion returns the cluster version that a binary must support to open the
// directory.
func (d *Dir) MinVersion() uint32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.node.MinVersion
}

// SetLogID makes id the directory's log id, durably. Another one than it has is
// refused: the positions of one history mean nothing in another.
func (d *Dir) SetLogID(id string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case !logForm.MatchString(id):
		return fmt.Errorf("log id %q: 1 to 128 printable ASCII characters are allowed", id)
	case d.failed == nil && id == d.node.LogID:
		return nil
	case d.node.LogID != "" && id != d.node.LogID:
		return &IdentityError{Dir: d.path, What: "log", Has: d.node.LogID, Asked: id}
	}
	n := d.node
	n.LogID = id
	return d.replaceLocked(n)
}

// RaiseMinVersion makes sure, durably, that only binaries that support cluster
// version v open the directory. It never lowers.
func (d *Dir) RaiseMinVersion(v uint32) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case v > d.version:
		return &VersionError{Dir: d.path, What: "cluster version", Needs: v, Knows: d.version}
	case d.failed == nil && v <= d.node.MinVersion:
		return nil
	}
	n := d.node
	n.MinVersion = max(n.MinVersion, v)
	return d.replaceLocked(n)
}

// replaceLocked writes node.json. After an error it holds the old or the new,
// and nothing more is written to it.
func (d *Dir) replaceLocked(n node) error {
	switch {
	case d.failed != nil:
		return d.failed
	case d.closed:
		return errors.New("data directory is closed")
	}
	if err := snapshot.ReplaceFile(d.fs, d.fs.PathJoin(d.path, nodeFile), encodeNode(n)); err != nil {
		d.failed = fmt.Errorf("write %s: %w", nodeFile, err)
		return d.failed
	}
	d.node = n
	return nil
}

// Path returns a path in the directory.
func (d *Dir) Path(parts ...string) string {
	return d.fs.PathJoin(append([]string{d.path}, parts...)...)
}

// StableDB returns the file of Raft's term and vote.
func (d *Dir) StableDB() string { return d.Path("raft", "stable.db") }

// WAL returns the folder of Raft's entries.
func (d *Dir) WAL() string { return d.Path("raft", "wal") }

// Snapshots returns the folder of Raft's snapshots.
func (d *Dir) Snapshots() string { return d.Path("raft", "snapshots") }

// Log returns the folder of the log's generations.
func (d *Dir) Log() string { return d.Path("logs", "main") }

// Close lets another process open the directory.
func (d *Dir) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	if err := d.lock.Close(); err != nil {
		return fmt.Errorf("unlock data directory %s: %w", d.path, err)
	}
	return nil
}
