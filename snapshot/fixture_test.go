package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
)

const (
	testLogs  = "data/logs/main"
	testSnaps = "data/raft/snapshots"
	sealMark  = "|sealed"
)

// model is what a generation must hold: the oracle of every test here.
type model struct {
	index, position uint64
	segments        []blob
	active          blob // as on disk
	activeSize      int64
	state           []blob
}

type blob struct {
	name string
	data []byte
}

func noise(seed uint64, size int) []byte {
	r := rand.New(rand.NewPCG(seed, uint64(size)))
	var b []byte
	for len(b) < size {
		b = binary.LittleEndian.AppendUint64(b, r.Uint64())
	}
	return b[:size:size]
}

func segmentName(base uint64) string { return fmt.Sprintf("%020d.seg", base) }

// newModel makes one of the given file sizes. Segments with the same place have
// the same contents in every model.
func newModel(index uint64, segments []int, active, activeSize int, state map[string]int) *model {
	m := &model{index: index, activeSize: int64(activeSize)}
	for i, size := range segments {
		data := append(noise(uint64(i), size), sealMark...)
		m.segments = append(m.segments, blob{segmentName(m.position + 1), data})
		m.position += 10
	}
	if active > 0 {
		m.active = blob{segmentName(m.position + 1), noise(1000+uint64(len(segments)), active)}
		m.position += 3
	}
	for _, name := range slices.Sorted(maps.Keys(state)) {
		seed := index
		if immutable(name) {
			seed = 0 // the same file for ever
		}
		m.state = append(m.state, blob{name, noise(seed+uint64(len(name)), state[name])})
	}
	return m
}

func hashOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// draft is what the state machine would write in Persist.
func (m *model) draft(generation string) *Manifest {
	d := &Manifest{LogID: "log-1", Generation: generation, Index: m.index, Position: m.position, State: StateName(m.index)}
	base := uint64(1)
	for _, s := range m.segments {
		d.Segments = append(d.Segments, Segment{Name: s.name, Base: base, Last: base + 9, Size: int64(len(s.data)), Hash: hashOf(s.data)})
		base += 10
	}
	if m.active.name != "" {
		d.Active = File{Name: m.active.name, Size: m.activeSize}
	}
	return d
}

func (m *model) manifest(generation string) *Manifest {
	d := m.draft(generation)
	if d.Active.Name != "" {
		d.Active.Hash = hashOf(m.active.data[:m.activeSize])
	}
	for _, s := range m.state {
		d.StateFiles = append(d.StateFiles, File{Name: s.name, Size: int64(len(s.data)), Hash: hashOf(s.data)})
	}
	return d
}

// stream is the full stream that a node with this model in generation sends.
func (m *model) stream(generation string) []byte {
	b, err := appendStreamHead(nil, kindFull, encodeManifest(m.manifest(generation)))
	if err != nil {
		panic(err)
	}
	for _, s := range m.segments {
		b = append(b, s.data...)
	}
	b = append(b, m.active.data[:m.activeSize]...)
	for _, s := range m.state {
		b = append(b, s.data...)
	}
	return b
}

// files returns what the folder of a generation holds: as it was written here,
// or as an install makes it.
func (m *model) files(installed bool) map[string]string {
	f := map[string]string{savepointName: string(EncodeSavepoint(m.index, m.position))}
	for _, s := range m.segments {
		f["log/"+s.name] = string(s.data)
	}
	if m.active.name != "" {
		f["log/"+m.active.name] = string(m.active.data)
		if installed {
			f["log/"+m.active.name] = string(m.active.data[:m.activeSize])
		}
	}
	for _, s := range m.state {
		f["state/"+s.name] = string(s.data)
	}
	return f
}

// verifier is a VerifySegment for the plain files of these tests.
func verifier(fs vfs.FS) func(string) (string, error) {
	return func(path string) (string, error) {
		b, err := readFile(fs, path, 1<<30)
		if err != nil {
			return "", err
		}
		if !bytes.HasSuffix(b, []byte(sealMark)) {
			return "", errors.New(path + " is not sealed")
		}
		return hashOf(b), nil
	}
}

// put writes a file and makes it durable.
func put(t testing.TB, fs vfs.FS, path string, data []byte) {
	t.Helper()
	must(t, MakeDir(fs, fs.PathDir(path), 0o755))
	must(t, ReplaceFile(fs, path, bytes.Clone(data)))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// node is a store with its generations over one file system.
type node struct {
	fs     vfs.FS
	gens   *Generations
	store  *Store
	errors []error // what OnError got
}

func openNode(fs vfs.FS) (*node, error) {
	n := &node{fs: fs}
	var err error
	if n.gens, err = OpenGenerations(fs, testLogs, testSnaps); err != nil {
		return nil, err
	}
	n.store, err = NewStore(StoreOptions{
		FS: fs, Dir: testSnaps, Generations: n.gens, VerifySegment: verifier(fs),
		OnError: func(err error) { n.errors = append(n.errors, err) },
	})
	return n, err
}

func mustOpen(t testing.TB, fs vfs.FS) *node {
	t.Helper()
	n, err := openNode(fs)
	must(t, err)
	return n
}

// newNode makes a durable first generation with the files of m.
func newNode(t testing.TB, fs vfs.FS, m *model) *node {
	t.Helper()
	must(t, MakeDir(fs, testLogs, 0o755))
	must(t, MakeDir(fs, testSnaps, 0o755))
	must(t, CreateGenerations(fs, testLogs))
	n := mustOpen(t, fs)
	n.fill(t, m)
	return n
}

func (n *node) fill(t testing.TB, m *model) {
	t.Helper()
	have := tree(t, n.fs, n.gens.Dir())
	for name, data := range m.files(false) {
		if got, ok := have[name]; ok && got == data {
			continue
		}
		put(t, n.fs, n.fs.PathJoin(n.gens.Dir(), name), []byte(data))
	}
}

// checkpoint does what the state machine does before Persist writes: links to
// what never changes, copies of the rest.
func (n *node) checkpoint(t testing.TB, m *model) {
	t.Helper()
	dir := n.fs.PathJoin(n.gens.Dir(), StateName(m.index))
	must(t, MakeDir(n.fs, dir, 0o755))
	for _, s := range m.state {
		path := n.fs.PathJoin(dir, s.name)
		if !immutable(s.name) || n.fs.Link(n.fs.PathJoin(n.gens.StateDir(), s.name), path) != nil {
			put(t, n.fs, path, s.data)
		}
	}
	must(t, SyncDir(n.fs, dir))
}

var testServers = raft.Configuration{Servers: []raft.Server{
	{Suffrage: raft.Voter, ID: "node-1", Address: "127.0.0.1:7011"},
	{Suffrage: raft.Nonvoter, ID: "node-2", Address: "127.0.0.1:7021"},
}}

func (n *node) create(t testing.TB, m *model) *sink {
	t.Helper()
	s, err := n.store.Create(1, m.index+2, 7, testServers, 3, nil)
	must(t, err)
	return s.(*sink)
}

// snapshot takes a local snapshot, as Raft and the state machine do together.
func (n *node) snapshot(m *model) error {
	raw, err := n.store.Create(1, m.index+2, 7, testServers, 3, nil)
	if err != nil {
		return err
	}
	b, err := EncodeLocal(m.draft(n.gens.Current()))
	if err != nil {
		return err
	}
	if _, err := raw.Write(b); err != nil {
		return errors.Join(err, raw.Cancel())
	}
	return raw.Close()
}

// receive installs a stream up to, not including, Restore.
func (n *node) receive(m *model, stream []byte, chunk int) error {
	s, err := n.store.Create(1, m.index+2, 7, testServers, 3, nil)
	if err != nil {
		return err
	}
	for b := bytes.Clone(stream); len(b) > 0; {
		k, err := s.Write(b[:min(chunk, len(b))])
		if err != nil {
			return errors.Join(err, s.Cancel())
		}
		b = b[k:]
	}
	return s.Close()
}

// restore does what the state machine does in Restore.
func (n *node) restore() error {
	metas, err := n.store.List()
	if err != nil {
		return err
	}
	_, r, err := n.store.Open(metas[0].ID)
	if err != nil {
		return err
	}
	defer r.Close()
	m, err := ReadManifest(r)
	if err != nil {
		return err
	}
	if _, err := n.gens.Promote(m.Generation); err != nil {
		return err
	}
	return removeOld(n.gens)
}

// read returns the stream of the newest snapshot, nil if there is none.
func (n *node) read(t testing.TB) []byte {
	t.Helper()
	metas, err := n.store.List()
	must(t, err)
	if len(metas) == 0 {
		return nil
	}
	meta, r, err := n.store.Open(metas[0].ID)
	must(t, err)
	defer r.Close()
	b, err := io.ReadAll(r)
	must(t, err)
	if int64(len(b)) != meta.Size {
		t.Fatalf("stream of %d bytes, meta says %d", len(b), meta.Size)
	}
	return b
}

// tree returns every file below dir with its contents; folders end in a slash.
func tree(t testing.TB, fs vfs.FS, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	var walk func(prefix, dir string)
	walk = func(prefix, dir string) {
		names, err := fs.List(dir)
		if errors.Is(err, os.ErrNotExist) {
			return
		}
		must(t, err)
		for _, name := range names {
			path := fs.PathJoin(dir, name)
			st, err := fs.Stat(path)
			must(t, err)
			if st.IsDir() {
				files[prefix+name+"/"] = ""
				walk(prefix+name+"/", path)
				continue
			}
			b, err := readFile(fs, path, 1<<30)
			must(t, err)
			files[prefix+name] = string(b)
		}
	}
	walk("", dir)
	return files
}

// sameTree compares two results of tree; folders count only if want has some.
func sameTree(got, want map[string]string) error {
	var diff []string
	for name, data := range want {
		if g, ok := got[name]; !ok {
			diff = append(diff, "missing "+name)
		} else if g != data {
			diff = append(diff, fmt.Sprintf("%s differs (%d bytes, want %d)", name, len(g), len(data)))
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok && !strings.HasSuffix(name, "/") {
			diff = append(diff, "left over "+name)
		}
	}
	if diff == nil {
		return nil
	}
	slices.Sort(diff)
	return errors.New(strings.Join(diff, "; "))
}

// check compares everything on the node's disk with a model: the current
// generation, the newest snapshot as it would be sent, and that there is
// nothing else. snap is nil where there is no snapshot.
func (n *node) check(t testing.TB, generation string, m *model, installed bool, snap *model) error {
	t.Helper()
	if got := n.gens.Current(); got != generation {
		return fmt.Errorf("current is %s, not %s", got, generation)
	}
	got := tree(t, n.fs, n.gens.Dir())
	delete(got, manifestName)
	if err := sameTree(got, m.files(installed)); err != nil {
		return fmt.Errorf("%s: %w", generation, err)
	}
	names, err := list(n.fs, testLogs)
	must(t, err)
	if !slices.Equal(names, []string{currentName, generation}) {
		return fmt.Errorf("%s holds %v", testLogs, names)
	}
	names, err = list(n.fs, testSnaps)
	must(t, err)
	if snap == nil {
		if len(names) > 0 {
			return fmt.Errorf("%s holds %v", testSnaps, names)
		}
		return nil
	}
	if len(names) != 1 {
		return fmt.Errorf("%s holds %v", testSnaps, names)
	}
	if !bytes.Equal(n.read(t), snap.stream(generation)) {
		return errors.New("the snapshot's stream differs from the model")
	}
	meta, manifest, err := n.store.Newest()
	must(t, err)
	if meta.Index != snap.index+2 || meta.Term != 7 || meta.ConfigurationIndex != 3 || len(meta.Configuration.Servers) != 2 ||
		manifest.Index != snap.index || manifest.Position != snap.position {
		return fmt.Errorf("newest is %+v of %+v", meta, manifest)
	}
	return nil
}

// removeOld removes every generation before the current one, as a state machine
// does that has none of them open.
func removeOld(g *Generations) error {
	names, err := list(g.fs, g.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if n := generationNumber(name); n > 0 && n < generationNumber(g.Current()) {
			if err := g.Remove(name); err != nil {
				return err
			}
		}
	}
	return nil
}
