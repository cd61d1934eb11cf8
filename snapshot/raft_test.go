package snapshot

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// machine is the least state machine that keeps to the contract: its state at
// index A is bigModel(A).
type machine struct {
	t    *testing.T
	node *node

	mu    sync.Mutex
	index uint64 // of the last command
}

func (m *machine) Apply(l *raft.Log) any {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.index = l.Index
	return nil
}

func (m *machine) applied() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.index
}

func (m *machine) Snapshot() (raft.FSMSnapshot, error) { return persist{m, m.applied()}, nil }

func (m *machine) Restore(r io.ReadCloser) error {
	manifest, err := ReadManifest(r)
	if err != nil {
		return err
	}
	if _, err := m.node.gens.Promote(manifest.Generation); err != nil {
		return err
	}
	if err := removeOld(m.node.gens); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.index = manifest.Index
	return nil
}

type persist struct {
	m     *machine
	index uint64
}

func (p persist) Persist(sink raft.SnapshotSink) error {
	at := bigModel(p.index)
	p.m.node.fill(p.m.t, at)
	p.m.node.checkpoint(p.m.t, at)
	b, err := EncodeLocal(at.draft(p.m.node.gens.Current()))
	if err != nil {
		return err
	}
	if _, err := sink.Write(b); err != nil {
		return err
	}
	return sink.Close() // Raft closes it once more
}

func (persist) Release() {}

// member is a Raft node over a store of ours.
type member struct {
	*machine
	raft   *raft.Raft
	trans  *raft.InmemTransport
	stores *raft.InmemStore
}

func (m *member) start(t *testing.T) {
	t.Helper()
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(m.trans.LocalAddr())
	c.TrailingLogs = 0
	c.SnapshotInterval = time.Hour
	c.NoSnapshotRestoreOnStart = true
	c.Logger = hclog.NewNullLogger()
	var err error
	m.raft, err = raft.NewRaft(c, m.machine, m.stores, m.stores, m.node.store, m.trans)
	must(t, err)
}

func newMember(t *testing.T, addr raft.ServerAddress) *member {
	t.Helper()
	_, trans := raft.NewInmemTransport(addr)
	m := &member{trans: trans, stores: raft.NewInmemStore(), machine: &machine{t: t, node: newNode(t, vfs.NewMem(), smallModel(0))}}
	m.start(t)
	return m
}

// Raft itself takes a snapshot, sends it to a node that lacks the entries, and
// starts again from it.
func TestRaft_SnapshotAndInstall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newMember(t, "a"), newMember(t, "b")
		a.trans.Connect("b", b.trans)
		b.trans.Connect("a", a.trans)
		must(t, a.raft.BootstrapCluster(raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "a"}}}).Error())
		for a.raft.State() != raft.Leader {
			time.Sleep(10 * time.Millisecond)
		}
		apply := func(times int) {
			for range times {
				must(t, a.raft.Apply([]byte("x"), 0).Error())
			}
		}
		apply(5)
		must(t, a.raft.Snapshot().Error())
		first := a.applied()
		apply(5)
		must(t, a.raft.Snapshot().Error())
		second := a.applied()
		if first == second {
			t.Fatal("nothing was applied")
		}
		want := bigModel(second)
		if !bytes.Equal(a.node.read(t), want.stream("gen-000001")) {
			t.Error("the snapshot differs from the model")
		}

		must(t, a.raft.AddVoter("b", "b", 0, 0).Error())
		apply(3)
		for b.applied() < a.applied() {
			time.Sleep(10 * time.Millisecond)
		}
		if got := b.node.gens.Current(); got != "gen-000002" {
			t.Errorf("b is in %s, want gen-000002", got)
		}
		tail := func(n *node) []byte { return n.read(t)[streamHead+len(encodeManifest(n.store.newest.manifest)):] }
		if !bytes.Equal(tail(a.node), tail(b.node)) {
			t.Error("the two nodes would send different files")
		}
		must(t, b.raft.Shutdown().Error())

		// After a restart Raft takes up from our snapshot.
		b.node = mustOpen(t, b.node.fs)
		meta, manifest, err := b.node.store.Newest()
		must(t, err)
		if manifest.Index != second {
			t.Errorf("snapshot of %d, want %d", manifest.Index, second)
		}
		b.start(t)
		apply(2)
		for b.applied() < a.applied() {
			time.Sleep(10 * time.Millisecond)
		}
		if got := b.raft.Stats()["last_snapshot_index"]; got != fmt.Sprint(meta.Index) {
			t.Errorf("last_snapshot_index = %s, want %d", got, meta.Index)
		}
		must(t, b.raft.Shutdown().Error())
		must(t, a.raft.Shutdown().Error())
	})
}

// The snapshot's files are those of a database that goes on being written: what
// is sent must not change with it, on either side.
func TestStore_WithPebble(t *testing.T) {
	open := func(fs vfs.FS, dir string) *pebble.DB {
		db, err := pebble.Open(dir, &pebble.Options{FS: fs, MemTableSize: 64 << 10, Logger: quiet{}, FormatMajorVersion: pebble.FormatNewest})
		must(t, err)
		return db
	}
	write := func(db *pebble.DB, round, count int) {
		for i := range count {
			must(t, db.Set(fmt.Appendf(nil, "key-%05d", i), noise(uint64(round), 100), nil))
		}
		must(t, db.Flush())
		must(t, db.Set([]byte("in the log"), fmt.Append(nil, round), pebble.Sync))
	}
	m := smallModel(10)
	m.state = nil
	sender := newNode(t, vfs.NewMem(), m)
	db := open(sender.fs, sender.gens.StateDir())
	write(db, 1, 2000)
	must(t, db.Checkpoint(sender.fs.PathJoin(sender.gens.Dir(), StateName(10)), pebble.WithFlushedWAL()))
	must(t, sender.snapshot(m))
	stream := sender.read(t)
	write(db, 2, 3000)
	must(t, db.Compact(t.Context(), []byte("a"), []byte("z"), false))
	if !bytes.Equal(sender.read(t), stream) {
		t.Error("the sender's snapshot changed with the database")
	}
	must(t, db.Close())

	receiver := newNode(t, vfs.NewMem(), smallModel(5))
	must(t, receiver.receive(m, stream, 32<<10))
	must(t, receiver.restore())
	received := receiver.read(t)
	for round := range 3 {
		db := open(receiver.fs, receiver.gens.StateDir())
		if round == 0 {
			v, closer, err := db.Get([]byte("in the log"))
			if err != nil || string(v) != "1" {
				t.Fatalf("in the log: %q, %v", v, err)
			}
			must(t, closer.Close())
		}
		write(db, 10+round, 4000)
		must(t, db.Compact(t.Context(), []byte("a"), []byte("z"), false))
		must(t, db.Close())
	}
	if !bytes.Equal(receiver.read(t), received) {
		t.Error("the receiver's snapshot changed with the database")
	}
}

type quiet struct{}

func (quiet) Infof(string, ...any)      {}
func (quiet) Errorf(string, ...any)     {}
func (quiet) Fatalf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }

// Readers, listings and snapshots at once, for the race detector; every reader
// sees one whole snapshot.
func TestStore_Concurrent(t *testing.T) {
	n := newNode(t, vfs.NewMem(), smallModel(1))
	n.checkpoint(t, smallModel(1))
	must(t, n.snapshot(smallModel(1)))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				metas, err := n.store.List()
				if err != nil || len(metas) != 1 {
					t.Errorf("List = %v, %v", metas, err)
					return
				}
				meta, r, err := n.store.Open(metas[0].ID)
				if err != nil {
					continue // superseded between the two calls
				}
				b, err := io.ReadAll(r)
				if want := smallModel(meta.Index - 2).stream("gen-000001"); err != nil || !bytes.Equal(b, want) {
					t.Errorf("snapshot %s: wrong stream, %v", meta.ID, err)
				}
				if err := r.Close(); err != nil {
					t.Error(err)
				}
				n.store.PinnedBytes()
			}
		})
	}
	for index := uint64(2); index < 40; index++ {
		m := smallModel(index)
		dir := n.fs.PathJoin(n.gens.Dir(), StateName(index))
		for _, s := range m.state {
			put(t, n.fs, n.fs.PathJoin(dir, s.name), s.data)
		}
		must(t, n.snapshot(m))
	}
	close(stop)
	wg.Wait()
	if names, _ := list(n.fs, testSnaps); len(names) != 1 || n.store.PinnedBytes() != 0 {
		t.Errorf("left on disk: %v, %d bytes pinned", names, n.store.PinnedBytes())
	}
}
