package snapshot

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/hashicorp/raft"
)

var smallState = map[string]int{"000004.sst": 5000, "CURRENT-1": 0, "MANIFEST-000005": 300, "000006.log": 70}

func smallModel(index uint64) *model {
	return newModel(index, []int{6000, 700}, 5000, 4500, smallState)
}

func TestStore_LocalSnapshot(t *testing.T) {
	fs, m := vfs.NewMem(), smallModel(10)
	n := newNode(t, fs, m)
	if metas, err := n.store.List(); err != nil || len(metas) != 0 {
		t.Fatalf("List of an empty store: %v, %v", metas, err)
	}
	if meta, manifest, err := n.store.Newest(); meta != nil || manifest != nil || err != nil {
		t.Fatalf("Newest of an empty store: %v, %v, %v", meta, manifest, err)
	}
	n.checkpoint(t, m)
	must(t, n.snapshot(m))
	must(t, n.check(t, "gen-000001", m, false, m))
	// The active segment grows and is sealed: the snapshot keeps its prefix.
	m.active.data = append(m.active.data, noise(5, 900)...)
	n.fill(t, m)
	must(t, n.check(t, "gen-000001", m, false, m))
	must(t, mustOpen(t, fs).check(t, "gen-000001", m, false, m))
}

func TestStore_ListAndOpen(t *testing.T) {
	fs, first := vfs.NewMem(), smallModel(10)
	n := newNode(t, fs, first)
	n.checkpoint(t, first)
	must(t, n.snapshot(first))
	_, manifest, _ := n.store.Newest()
	id := mustID(t, n)

	// The same index again, and a later one: List has the newest, Open no other.
	for _, index := range []uint64{10, 20} {
		m := smallModel(index)
		n.fill(t, m)
		n.checkpoint(t, m)
		must(t, n.snapshot(m))
		must(t, n.check(t, "gen-000001", m, false, m))
		if mustID(t, n) == id {
			t.Fatalf("id %s was used twice", id)
		}
		if _, _, err := n.store.Open(id); err == nil {
			t.Fatalf("Open(%s) of a superseded snapshot succeeded", id)
		}
		id = mustID(t, n)
	}
	if manifest.Index != 10 {
		t.Errorf("the manifest given before changed: %+v", manifest)
	}
	meta, r, err := n.store.Open(id)
	must(t, err)
	must(t, r.Close())
	must(t, r.Close())
	if _, err := r.Read(make([]byte, 1)); err == nil {
		t.Error("Read after Close succeeded")
	}
	if !reflect.DeepEqual(meta.Configuration, testServers) || meta.Version != 1 {
		t.Errorf("Open's meta = %+v", meta)
	}
	if _, err := n.store.Create(0, 1, 1, raft.Configuration{}, 0, nil); err == nil {
		t.Error("Create of version 0 succeeded")
	}
}

func mustID(t testing.TB, n *node) string {
	t.Helper()
	metas, err := n.store.List()
	must(t, err)
	if len(metas) != 1 {
		t.Fatalf("List = %v", metas)
	}
	return metas[0].ID
}

// A disk may hold two snapshots when the removal of the older one was cut short:
// the order decides, and an install is newer than what was before it.
func TestStore_TwoOnDisk(t *testing.T) {
	order := []*folder{}
	for _, o := range []struct {
		generation          string
		index, term, number uint64
	}{
		{"gen-000001", 5, 9, 1}, {"gen-000001", 6, 1, 2}, {"gen-000001", 6, 2, 1}, {"gen-000001", 6, 2, 3}, {"gen-000002", 4, 1, 1},
	} {
		order = append(order, &folder{number: o.number, manifest: &Manifest{Generation: o.generation},
			meta: raft.SnapshotMeta{Index: o.index, Term: o.term}})
	}
	if !slices.IsSortedFunc(order, (*folder).compare) || order[0].compare(order[1]) == 0 {
		t.Error("snapshots are not ordered by generation, index, term, number")
	}

	fs, first, second := vfs.NewMem(), smallModel(10), smallModel(20)
	n := newNode(t, fs, first)
	n.checkpoint(t, first)
	must(t, n.snapshot(first))
	_, r, err := n.store.Open(mustID(t, n)) // keeps the first one on disk
	must(t, err)
	defer r.Close()
	n.checkpoint(t, second)
	must(t, n.snapshot(second))
	n.fill(t, second)
	if names, _ := list(fs, testSnaps); len(names) != 2 {
		t.Fatalf("on disk: %v, want two", names)
	}
	must(t, mustOpen(t, fs).check(t, "gen-000001", second, false, second))
}

func TestStore_ReaderPins(t *testing.T) {
	fs, first, second := vfs.NewMem(), smallModel(10), smallModel(20)
	n := newNode(t, fs, first)
	n.checkpoint(t, first)
	must(t, n.snapshot(first))
	id := mustID(t, n)
	var readers []io.ReadCloser
	for range 2 {
		_, r, err := n.store.Open(id)
		must(t, err)
		readers = append(readers, r)
	}
	if got := n.store.PinnedBytes(); got != 0 {
		t.Errorf("PinnedBytes of the newest = %d, want 0", got)
	}
	half := make([]byte, 3000)
	_, err := io.ReadFull(readers[0], half)
	must(t, err)

	n.checkpoint(t, second)
	must(t, n.snapshot(second))
	if got := n.store.PinnedBytes(); got != 5370 {
		t.Errorf("PinnedBytes = %d, want 5370", got)
	}
	must(t, readers[1].Close())
	must(t, readers[1].Close()) // once more must not count
	rest, err := io.ReadAll(readers[0])
	must(t, err)
	if !bytes.Equal(append(half, rest...), first.stream("gen-000001")) {
		t.Error("the stream of the superseded snapshot changed")
	}
	must(t, readers[0].Close())
	if got := n.store.PinnedBytes(); got != 0 {
		t.Errorf("PinnedBytes after the last Close = %d, want 0", got)
	}
	n.fill(t, second)
	must(t, n.check(t, "gen-000001", second, false, second))
}

// A file that is shorter than the manifest says is found when the snapshot is
// opened, one that shrinks later when it is read.
func TestStore_ShortFile(t *testing.T) {
	for _, name := range []string{"log/" + segmentName(1), "log/" + segmentName(21), "state/000004.sst"} {
		t.Run(name, func(t *testing.T) {
			fs, m := vfs.NewMem(), smallModel(10)
			n := newNode(t, fs, m)
			n.checkpoint(t, m)
			must(t, n.snapshot(m))
			id := mustID(t, n)
			path := fs.PathJoin(n.gens.Dir(), name)
			if strings.HasPrefix(name, "state/") {
				path = fs.PathJoin(testSnaps, id, name)
			}
			_, r, err := n.store.Open(id)
			must(t, err)
			put(t, fs, path, noise(1, 100))
			var corrupt *CorruptError
			if _, err := io.ReadAll(r); !errors.As(err, &corrupt) || corrupt.File != path {
				t.Errorf("read: %v, want %s damaged", err, path)
			}
			must(t, r.Close())
			if _, _, err := n.store.Open(id); !errors.As(err, &corrupt) || corrupt.File != path {
				t.Errorf("open: %v, want %s damaged", err, path)
			}
			must(t, fs.Remove(path))
			if _, _, err := n.store.Open(id); err == nil {
				t.Error("open succeeded without the file")
			}
		})
	}
}

// A snapshot hashes and syncs what the one before did not have, and no more.
func TestStore_LocalCostsWhatIsNew(t *testing.T) {
	var opened []string
	mem := vfs.NewMem()
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpOpen && strings.Contains(op.Path, checkpointPrefix) {
			opened = append(opened, mem.PathBase(op.Path))
		}
		return nil
	}))
	m := smallModel(10)
	n := newNode(t, fs, m)
	n.checkpoint(t, m)
	must(t, n.snapshot(m))
	if len(opened) != 4 {
		t.Errorf("the first snapshot opened %v, want 4 files", opened)
	}
	m.index, opened = 20, nil
	m.state = slices.Insert(m.state, 2, blob{"000009.sst", noise(3, 77)}) // in the order of names
	n.fill(t, m)
	n.checkpoint(t, m)
	opened = nil
	must(t, n.snapshot(m))
	slices.Sort(opened)
	if want := []string{"000006.log", "000009.sst", "CURRENT-1", "MANIFEST-000005"}; !slices.Equal(opened, want) {
		t.Errorf("the second snapshot opened %v, want %v", opened, want)
	}
	must(t, n.check(t, "gen-000001", m, false, m))

	// Another file of the same name and size, in a state that was built anew, is
	// hashed anew.
	m.index = 30
	m.state[0].data = noise(99, 5000) // 000004.sst
	n.fill(t, m)
	n.checkpoint(t, m)
	must(t, n.snapshot(m))
	must(t, n.check(t, "gen-000001", m, false, m))
}

func TestStore_LocalRefused(t *testing.T) {
	for name, spoil := range map[string]func(n *node, m *model){
		"no checkpoint":   func(n *node, m *model) { n.fs.RemoveAll(n.fs.PathJoin(n.gens.Dir(), StateName(m.index))) },
		"segment missing": func(n *node, m *model) { n.fs.Remove(n.fs.PathJoin(n.gens.LogDir(), m.segments[0].name)) },
		"active short":    func(n *node, m *model) { m.activeSize = int64(len(m.active.data)) + 1 },
		"folder in checkpoint": func(n *node, m *model) {
			n.fs.MkdirAll(n.fs.PathJoin(n.gens.Dir(), StateName(m.index), "sub"), 0o755)
		},
	} {
		t.Run(name, func(t *testing.T) {
			fs, first, m := vfs.NewMem(), smallModel(10), smallModel(20)
			n := newNode(t, fs, first)
			n.checkpoint(t, first)
			must(t, n.snapshot(first))
			n.checkpoint(t, m)
			spoil(n, m)
			if err := n.snapshot(m); err == nil {
				t.Fatal("the snapshot was taken")
			}
			if names, _ := list(fs, n.gens.Dir()); slices.Contains(names, StateName(m.index)) {
				t.Error("the checkpoint is still there")
			}
			if names, _ := list(fs, testSnaps); len(names) != 1 {
				t.Errorf("on disk: %v", names)
			}
			if meta, _, _ := n.store.Newest(); meta.Index != first.index+2 || len(n.errors) > 0 {
				t.Errorf("newest is %+v, errors %v", meta, n.errors)
			}
		})
	}
}

// A snapshot of this node's own that an install overtakes ends with
// ErrSuperseded, however far the install is, and is no reason to exit.
func TestStore_InstallOvertakesLocal(t *testing.T) {
	for _, after := range []string{"close", "promote", "remove"} {
		t.Run(after, func(t *testing.T) {
			fs, own, sent := vfs.NewMem(), smallModel(10), bigModel(30)
			n := newNode(t, fs, own)
			n.checkpoint(t, own)
			local := n.create(t, own)
			b, err := EncodeLocal(own.draft("gen-000001"))
			must(t, err)
			_, err = local.Write(b)
			must(t, err)

			must(t, n.receive(sent, sent.stream("gen-000009"), 1000))
			if after != "close" {
				_, err := n.gens.Promote("gen-000002")
				must(t, err)
			}
			if after == "remove" {
				must(t, removeOld(n.gens))
			}
			if err := local.Close(); !errors.Is(err, ErrSuperseded) {
				t.Errorf("Close = %v, want ErrSuperseded", err)
			}
			if err := local.Close(); !errors.Is(err, ErrSuperseded) {
				t.Errorf("second Close = %v, want ErrSuperseded", err)
			}
			must(t, n.restore())
			must(t, n.check(t, "gen-000002", sent, true, sent))
			if len(n.errors) > 0 {
				t.Errorf("OnError: %v", n.errors)
			}
		})
	}
}

func TestStore_Options(t *testing.T) {
	if _, err := NewStore(StoreOptions{FS: vfs.NewMem(), Dir: testSnaps}); err == nil {
		t.Error("NewStore without Generations succeeded")
	}
}

// The same at every operation of the snapshot's Close, up to the rename that
// puts it in place.
func TestStore_InstallDuringClose(t *testing.T) {
	own, sent := smallModel(10), bigModel(30)
	stream := sent.stream("gen-000009")
	for k := 1; ; k++ {
		var n *node
		at, armed, last := 0, false, false
		fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
			if !armed {
				return nil
			}
			if op.Kind == errorfs.OpRename && strings.HasPrefix(op.Path, testSnaps) {
				armed, last = false, true // under the store's lock, and too late
				return nil
			}
			if at++; at == k {
				armed = false
				must(t, n.receive(sent, stream, 1000))
				must(t, n.restore())
			}
			return nil
		}))
		n = newNode(t, fs, own)
		n.checkpoint(t, own)
		armed = true
		err := n.snapshot(own)
		if last {
			must(t, err)
			if k < 20 {
				t.Errorf("only %d operations", k-1)
			}
			return
		}
		if !errors.Is(err, ErrSuperseded) {
			t.Fatalf("operation %d: Close = %v, want ErrSuperseded", k, err)
		}
		if len(n.errors) > 0 {
			t.Fatalf("operation %d: OnError: %v", k, n.errors)
		}
		if err := mustOpen(t, fs).check(t, "gen-000002", sent, true, sent); err != nil {
			t.Fatalf("operation %d: %v", k, err)
		}
	}
}
