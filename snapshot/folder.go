package snapshot

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
)

// A snapshot lies in a folder of its own, <term>-<index>-<number>, with three
// things in it: META, what Raft wants to know; MANIFEST; and state/, the
// checkpoint. The log's segments stay where they are, in the manifest's
// generation. A folder whose name ends in .tmp is being made or being removed.
const (
	metaName   = "META"
	metaFormat = 1
	maxMeta    = 16 << 20
)

// folder is a complete snapshot on disk; it never changes.
type folder struct {
	id       string
	path     string
	number   uint64
	meta     raft.SnapshotMeta
	manifest *Manifest
	encoded  []byte // the manifest as sent
}

// snapshotMeta is the JSON of META: raft.SnapshotMeta under names of our own, so
// that the library may change its struct. Size follows from the manifest.
type snapshotMeta struct {
	Version            int      `json:"version"`
	ID                 string   `json:"id"`
	Index              uint64   `json:"index"`
	Term               uint64   `json:"term"`
	Servers            []server `json:"servers"`
	ConfigurationIndex uint64   `json:"configuration_index"`
}

type server struct {
	ID       string `json:"id"`
	Address  string `json:"address"`
	Suffrage int    `json:"suffrage"`
}

func encodeMeta(m *raft.SnapshotMeta) []byte {
	servers := make([]server, 0, len(m.Configuration.Servers))
	for _, s := range m.Configuration.Servers {
		servers = append(servers, server{string(s.ID), string(s.Address), int(s.Suffrage)})
	}
	return encodeEnvelope("meta", metaFormat, &snapshotMeta{
		Version: int(m.Version), ID: m.ID, Index: m.Index, Term: m.Term,
		Servers: servers, ConfigurationIndex: m.ConfigurationIndex,
	})
}

func decodeMeta(b []byte) (raft.SnapshotMeta, error) {
	var j snapshotMeta
	if err := decodeEnvelope(b, "meta", metaFormat, &j); err != nil {
		return raft.SnapshotMeta{}, err
	}
	m := raft.SnapshotMeta{
		Version: raft.SnapshotVersion(j.Version), ID: j.ID, Index: j.Index, Term: j.Term,
		ConfigurationIndex: j.ConfigurationIndex,
	}
	for _, s := range j.Servers {
		m.Configuration.Servers = append(m.Configuration.Servers, raft.Server{
			ID: raft.ServerID(s.ID), Address: raft.ServerAddress(s.Address), Suffrage: raft.ServerSuffrage(s.Suffrage),
		})
	}
	return m, nil
}

func folderName(term, index, number uint64) string {
	return fmt.Sprintf("%d-%d-%d", term, index, number)
}

// folderNumber returns the last part of a folder's name, which tells snapshots
// of the same index apart; ok is false for any other name.
func folderNumber(name string) (number uint64, ok bool) {
	parts := strings.Split(name, "-")
	if len(parts) != 3 {
		return 0, false
	}
	var n [3]uint64
	for i, p := range parts {
		var err error
		if n[i], err = strconv.ParseUint(p, 10, 64); err != nil {
			return 0, false
		}
	}
	return n[2], folderName(n[0], n[1], n[2]) == name
}

// scanFolders returns the complete snapshots in dir, newest first, and the
// names of unfinished ones. A damaged one is an error: Raft may have removed
// entries that only this snapshot still stands for.
func scanFolders(fs vfs.FS, dir string) (complete []*folder, unfinished []string, err error) {
	names, err := listIfAny(fs, dir)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range names {
		if strings.HasSuffix(name, tmpSuffix) {
			unfinished = append(unfinished, name)
			continue
		}
		if _, ok := folderNumber(name); !ok {
			continue
		}
		f, err := openFolder(fs, fs.PathJoin(dir, name))
		if err != nil {
			return nil, nil, err
		}
		complete = append(complete, f)
	}
	slices.SortFunc(complete, func(a, b *folder) int { return b.compare(a) })
	return complete, unfinished, nil
}

// newestFolder returns nil when there is none.
func newestFolder(fs vfs.FS, dir string) (*folder, error) {
	complete, _, err := scanFolders(fs, dir)
	if err != nil || len(complete) == 0 {
		return nil, err
	}
	return complete[0], nil
}

// compare orders snapshots by age. An install supersedes what there was before
// it, whatever the indexes.
func (f *folder) compare(other *folder) int {
	return cmp.Or(
		cmp.Compare(generationNumber(f.manifest.Generation), generationNumber(other.manifest.Generation)),
		cmp.Compare(f.meta.Index, other.meta.Index),
		cmp.Compare(f.meta.Term, other.meta.Term),
		cmp.Compare(f.number, other.number),
	)
}

func openFolder(fs vfs.FS, path string) (*folder, error) {
	f := &folder{id: fs.PathBase(path), path: path}
	f.number, _ = folderNumber(f.id)
	metaPath := fs.PathJoin(path, metaName)
	b, err := readFile(fs, metaPath, maxMeta)
	if errors.Is(err, os.ErrNotExist) {
		return nil, &CorruptError{path, "it has no " + metaName}
	}
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", f.id, err)
	}
	if f.meta, err = decodeMeta(b); err != nil {
		return nil, inFile(err, metaPath)
	}
	if f.meta.ID != f.id || folderName(f.meta.Term, f.meta.Index, f.number) != f.id {
		return nil, &CorruptError{metaPath, fmt.Sprintf("it is that of snapshot %s", f.meta.ID)}
	}
	f.manifest, err = readManifest(fs, fs.PathJoin(path, manifestName))
	if errors.Is(err, os.ErrNotExist) {
		return nil, &CorruptError{path, "it has no " + manifestName}
	}
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", f.id, err)
	}
	f.encoded = encodeManifest(f.manifest)
	f.meta.Size = f.streamSize()
	return f, nil
}

// streamSize is the exact length of the full stream.
func (f *folder) streamSize() int64 {
	return streamHead + int64(len(f.encoded)) + f.manifest.contentSize()
}

func (f *folder) stateSize() int64 {
	var n int64
	for _, s := range f.manifest.StateFiles {
		n += s.Size
	}
	return n
}

// write makes the folder complete and durable under path but for the path's own
// entry in its parent; state/ is there already.
func (f *folder) write(fs vfs.FS, path string) error {
	if err := writeFile(fs, fs.PathJoin(path, manifestName), f.encoded); err != nil {
		return err
	}
	if err := writeFile(fs, fs.PathJoin(path, metaName), encodeMeta(&f.meta)); err != nil {
		return err
	}
	return SyncDir(fs, path)
}

func readManifest(fs vfs.FS, path string) (*Manifest, error) {
	b, err := readFile(fs, path, MaxManifest)
	if err != nil {
		return nil, err
	}
	m, err := decodeFullManifest(b)
	if err != nil {
		return nil, inFile(err, path)
	}
	return m, nil
}

// inFile puts the path into a CorruptError of a decoder.
func inFile(err error, path string) error {
	var c *CorruptError
	if errors.As(err, &c) {
		c.File = path
	}
	return err
}

// part is one file of the stream.
type part struct {
	kind partKind
	path string
	size int64
	hash string
}

type partKind uint8

const (
	segmentPart partKind = 1
	activePart  partKind = 2
	statePart   partKind = 3
)

// files lists the parts in stream order, given where log and state lie.
func (m *Manifest) files(fs vfs.FS, logDir, stateDir string) []part {
	parts := make([]part, 0, len(m.Segments)+1+len(m.StateFiles))
	for _, s := range m.Segments {
		parts = append(parts, part{kind: segmentPart, path: fs.PathJoin(logDir, s.Name), size: s.Size, hash: s.Hash})
	}
	if m.Active.Name != "" {
		parts = append(parts, part{kind: activePart, path: fs.PathJoin(logDir, m.Active.Name), size: m.Active.Size, hash: m.Active.Hash})
	}
	for _, s := range m.StateFiles {
		parts = append(parts, part{kind: statePart, path: fs.PathJoin(stateDir, s.Name), size: s.Size, hash: s.Hash})
	}
	return parts
}

// checkSize checks that a file is as long as the manifest says; the unsealed
// segment may have grown since.
func checkSize(fs vfs.FS, p part) error {
	st, err := fs.Stat(p.path)
	if err != nil {
		return fmt.Errorf("stat %s: %w", p.path, err)
	}
	if st.IsDir() || st.Size() < p.size || st.Size() > p.size && p.kind != activePart {
		return &CorruptError{p.path, fmt.Sprintf("it has %d bytes, its snapshot says %d", st.Size(), p.size)}
	}
	return nil
}
