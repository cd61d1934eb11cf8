//go:build linux

package disk

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

// model is what a disk should hold, the simplest way: contents as byte slices,
// directories as maps, and for each what the last sync covered.
type model struct {
	files map[uint64]*modelFile // by inode
	dirs  map[string]*modelDir
}

type modelFile struct {
	data, synced []byte
	touched      []bool // bytes that are not what was synced for sure, by offset
}

// modelDir has what was visible after each step since the last sync, oldest
// first: a power loss leaves one of these.
type modelDir struct{ states []map[string]uint64 }

func (d *modelDir) now() map[string]uint64 { return d.states[len(d.states)-1] }

func (d *modelDir) step(change func(map[string]uint64)) {
	next := maps.Clone(d.now())
	change(next)
	d.states = append(d.states, next)
}

func (f *modelFile) touch(from, to int) {
	for len(f.touched) < to {
		f.touched = append(f.touched, false)
	}
	for i := from; i < to; i++ {
		f.touched[i] = true
	}
}

func (f *modelFile) write(b []byte, off int) {
	if grow := off + len(b) - len(f.data); grow > 0 {
		f.touch(len(f.data), off)
		f.data = append(f.data, make([]byte, grow)...)
	}
	copy(f.data[off:], b)
	f.touch(off, off+len(b))
}

func (f *modelFile) truncate(size int) {
	f.touch(min(size, len(f.data)), max(size, len(f.data), len(f.synced)))
	f.data = append(bytes.Clone(f.data[:min(size, len(f.data))]), make([]byte, max(0, size-len(f.data)))...)
}

func (f *modelFile) sync() { f.synced, f.touched = bytes.Clone(f.data), nil }

// TestModel does random things on a disk and on the model, cuts the power, and
// compares.
func TestModel(t *testing.T) {
	const seed = 1
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 2))
	d, root := mount(t)
	m := &model{files: map[uint64]*modelFile{}, dirs: map[string]*modelDir{}}
	for _, name := range []string{"x", "y"} {
		must(t, os.Mkdir(filepath.Join(root, name), 0o755))
		m.dirs[name] = &modelDir{states: []map[string]uint64{{}}}
	}
	syncDir(t, root)
	for round := range 40 {
		for range 40 {
			m.act(t, root, rng)
		}
		keep := []float64{0, 0.5, 1, 0.8}[round%4]
		_, err := d.PowerLoss(rng, keep)
		must(t, err)
		m.compare(t, root, keep)
		if t.Failed() {
			t.Fatalf("round %d, keep %v", round, keep)
		}
	}
}

func (m *model) act(t *testing.T, root string, rng *rand.Rand) {
	dir, name := []string{"x", "y"}[rng.IntN(2)], fmt.Sprint(rng.IntN(6))
	toDir, toName := []string{"x", "y"}[rng.IntN(2)], fmt.Sprint(rng.IntN(6))
	from, to := filepath.Join(root, dir, name), filepath.Join(root, toDir, toName)
	id, there := m.dirs[dir].now()[name]
	other := m.dirs[toDir].now()[toName]
	switch what := rng.IntN(12); {
	case what == 0:
		syncDir(t, filepath.Join(root, dir))
		m.dirs[dir].states = m.dirs[dir].states[len(m.dirs[dir].states)-1:]
	case !there:
		f, err := os.Create(from)
		must(t, err)
		id = inode(t, f)
		must(t, f.Close())
		m.files[id] = &modelFile{}
		m.dirs[dir].step(func(s map[string]uint64) { s[name] = id })
	case what == 1:
		must(t, os.Remove(from))
		m.dirs[dir].step(func(s map[string]uint64) { delete(s, name) })
	case what == 2 && id != other:
		must(t, os.Rename(from, to))
		if dir == toDir {
			m.dirs[dir].step(func(s map[string]uint64) { delete(s, name); s[toName] = id })
			break
		}
		m.dirs[toDir].step(func(s map[string]uint64) { s[toName] = id })
		m.dirs[dir].step(func(s map[string]uint64) { delete(s, name) })
	case what == 3 && other == 0:
		must(t, os.Link(from, to))
		m.dirs[toDir].step(func(s map[string]uint64) { s[toName] = id })
	default:
		m.actOn(t, from, m.files[id], what, rng)
	}
}

func (m *model) actOn(t *testing.T, path string, f *modelFile, what int, rng *rand.Rand) {
	o, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer o.Close()
	switch {
	case what <= 5:
		must(t, o.Sync())
		f.sync()
	case what == 6:
		size := rng.IntN(30_000)
		must(t, o.Truncate(int64(size)))
		f.truncate(size)
	default:
		b := bytes.Repeat([]byte{byte(1 + rng.IntN(255))}, 1+rng.IntN(10_000))
		off := rng.IntN(len(f.data) + 1000)
		_, err := o.WriteAt(b, int64(off))
		must(t, err)
		f.write(b, off)
	}
	got, err := io.ReadAll(o)
	if err != nil || !bytes.Equal(got, f.data) {
		t.Fatalf("%s before a loss: %d bytes, %v; want %d", path, len(got), err, len(f.data))
	}
}

// compare checks what is there after a loss and takes it over.
func (m *model) compare(t *testing.T, root string, keep float64) {
	found, links := map[uint64][]byte{}, map[uint64]int{}
	for name, dir := range m.dirs {
		list, err := os.ReadDir(filepath.Join(root, name))
		must(t, err)
		state := map[string]uint64{}
		for _, e := range list {
			f, err := os.Open(filepath.Join(root, name, e.Name()))
			must(t, err)
			id := inode(t, f)
			state[e.Name()] = id
			links[id]++
			found[id], err = io.ReadAll(f)
			must(t, err)
			must(t, f.Close())
		}
		possible := dir.states
		switch keep {
		case 0:
			possible = possible[:1]
		case 1:
			possible = possible[len(possible)-1:]
		}
		if !slices.ContainsFunc(possible, func(s map[string]uint64) bool { return maps.Equal(s, state) }) {
			t.Errorf("%s has %v, want one of %v", name, state, possible)
		}
		dir.states = []map[string]uint64{state}
	}
	for name, dir := range m.dirs {
		for file, id := range dir.now() {
			s, err := os.Stat(filepath.Join(root, name, file))
			must(t, err)
			if got := int(s.Sys().(*syscall.Stat_t).Nlink); got != links[id] {
				t.Errorf("%s/%s has %d links, want %d", name, file, got, links[id])
			}
		}
	}
	for id, got := range found {
		m.files[id].compare(t, id, got, keep)
		m.files[id] = &modelFile{data: got, synced: bytes.Clone(got)}
	}
}

func (f *modelFile) compare(t *testing.T, id uint64, got []byte, keep float64) {
	switch {
	case keep == 0 && !bytes.Equal(got, f.synced):
		t.Errorf("file %d is not what was synced: %d bytes, want %d", id, len(got), len(f.synced))
	case keep == 1 && !bytes.Equal(got, f.data):
		t.Errorf("file %d is not what was written: %d bytes, want %d", id, len(got), len(f.data))
	}
	at := func(b []byte, i int) byte {
		if i < len(b) {
			return b[i]
		}
		return 0
	}
	for i := range max(len(got), len(f.synced)) {
		touched := i < len(f.touched) && f.touched[i]
		if !touched && (i >= len(got) || got[i] != at(f.synced, i)) {
			t.Errorf("file %d: byte %d was synced and is lost", id, i)
			return
		}
		if b := at(got, i); b != 0 && b != at(f.synced, i) && b != at(f.data, i) {
			t.Errorf("file %d: byte %d was never there", id, i)
			return
		}
	}
}

func inode(t *testing.T, f *os.File) uint64 {
	t.Helper()
	s, err := f.Stat()
	must(t, err)
	return s.Sys().(*syscall.Stat_t).Ino
}
