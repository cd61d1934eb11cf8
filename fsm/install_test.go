package fsm

import (
	"encoding/hex"
	"errors"
	"io"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"

	eventlog "cairn/log"
	"cairn/snapshot"
)

// openStore opens the snapshot store beside a machine.
func openStore(t *testing.T, fs vfs.FS, m *Machine) *snapshot.Store {
	t.Helper()
	s, err := snapshot.NewStore(snapshot.StoreOptions{
		FS: fs, Dir: "raft/snapshots", Generations: m.opts.Generations,
		VerifySegment: func(path string) (string, error) {
			info, err := eventlog.VerifySegment(fs, path)
			return hex.EncodeToString(info.Hash[:]), err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// take makes a snapshot as Raft does.
func take(t *testing.T, m *Machine, s *snapshot.Store) {
	t.Helper()
	snap, err := m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Release()
	index, _ := m.Applied()
	sink, err := s.Create(1, index, 3, raft.Configuration{}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(snap.Persist(sink), sink.Close()); err != nil {
		t.Fatal(err)
	}
}

// send gives the newest snapshot of one store to another, as Raft does, and
// returns what Raft then gives to Restore.
func send(t *testing.T, from, to *snapshot.Store) io.ReadCloser {
	t.Helper()
	metas, err := from.List()
	if err != nil || len(metas) == 0 {
		t.Fatalf("list: %v, %v", metas, err)
	}
	meta, r, err := from.Open(metas[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	sink, err := to.Create(1, meta.Index, meta.Term, meta.Configuration, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(sink, r)
	if err := errors.Join(err, sink.Close()); err != nil || n != meta.Size {
		t.Fatalf("%d of %d bytes, %v", n, meta.Size, err)
	}
	_, installed, err := to.Open(sink.ID())
	if err != nil {
		t.Fatal(err)
	}
	return installed
}

// restore installs the newest snapshot of another machine's store.
func restore(t *testing.T, from, to *snapshot.Store, m *Machine) {
	t.Helper()
	if err := m.Restore(send(t, from, to)); err != nil {
		t.Fatal(err)
	}
}

func TestMachine_InstallsSnapshotOfAnother(t *testing.T) {
	logs, mod := script()
	fs1, fs2 := vfs.NewMem(), vfs.NewMem()
	small := func(o *Options) { o.SavepointEvents = 7 }
	m1, m2 := openMachine(t, fs1, small), openMachine(t, fs2, small)
	s1, s2 := openStore(t, fs1, m1), openStore(t, fs2, m2)
	outcomes(t, m1, logs[:18])
	outcomes(t, m2, logs[:6])
	m1.savepoint.settle()
	take(t, m1, s1)

	before := m2.View(0) // stays readable while the generation under it is replaced
	restore(t, s1, s2, m2)
	expectEvents(t, m2, mod.events[:1+2*17])
	if e, err := before.Event(3); err != nil || e.Position != 3 {
		t.Errorf("an open view after the install: %+v, %v", e, err)
	}
	// Another install must not take away what it reads either.
	outcomes(t, m1, logs[18:20])
	m1.savepoint.settle()
	take(t, m1, s1)
	restore(t, s1, s2, m2)
	if e, err := before.Event(2); err != nil || e.Position != 2 {
		t.Errorf("an open view after the second install: %+v, %v", e, err)
	}
	before.Close()

	// Both go on, and the one that was installed can be given to others too.
	outcomes(t, m1, logs[20:])
	outcomes(t, m2, logs[10:])
	expectEvents(t, m2, mod.events)
	expectFilters(t, m2, mod.events)
	if got, want := logBytes(t, fs2, m2), logBytes(t, fs1, m1); got != want {
		t.Errorf("log\n%s, want\n%s", got, want)
	}
	m2.savepoint.settle()
	take(t, m2, s2)
	fs3 := vfs.NewMem()
	m3 := openMachine(t, fs3, small)
	restore(t, s2, openStore(t, fs3, m3), m3)
	expectEvents(t, m3, mod.events)
	for _, m := range []*Machine{m1, m2, m3} {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
	again := openMachine(t, fs2, small)
	defer again.Close()
	expectEvents(t, again, mod.events)
}

func TestMachine_DropsCheckpointOfUnusedSnapshot(t *testing.T) {
	logs, _ := script()
	fs := vfs.NewMem()
	m := openMachine(t, fs, nil)
	defer m.Close()
	outcomes(t, m, logs)
	snap, err := m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	m.savepoint.settle()
	index, _ := m.Applied()
	dir := fs.PathJoin(m.gen.dir, snapshot.StateName(index))
	if _, err := fs.Stat(dir); err != nil {
		t.Fatalf("no checkpoint: %v", err)
	}
	snap.Release()
	if _, err := fs.Stat(dir); err == nil {
		t.Error("the checkpoint is still there")
	}
}

func TestMachine_RefusesSnapshotWhileReplaying(t *testing.T) {
	logs, _ := script()
	fs := vfs.NewMem()
	m := openMachine(t, fs, nil)
	outcomes(t, m, logs)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m = openMachine(t, fs, nil)
	defer m.Close()
	outcomes(t, m, logs[:5])
	if _, err := m.Snapshot(); !errors.Is(err, ErrReplaying) {
		t.Errorf("snapshot in the middle of a replay: %v, want %v", err, ErrReplaying)
	}
	outcomes(t, m, logs[5:])
	if _, err := m.Snapshot(); err != nil {
		t.Errorf("snapshot after the replay: %v", err)
	}
}

func TestMachine_RefusesOlderSnapshot(t *testing.T) {
	logs, _ := script()
	fs1, fs2 := vfs.NewMem(), vfs.NewMem()
	var fatal error
	m1, m2 := openMachine(t, fs1, nil), openMachine(t, fs2, func(o *Options) { o.OnFatal = func(err error) { fatal = err } })
	defer m1.Close()
	defer m2.Close()
	s1, s2 := openStore(t, fs1, m1), openStore(t, fs2, m2)
	outcomes(t, m1, logs[:8])
	outcomes(t, m2, logs)
	take(t, m1, s1)
	if err := m2.Restore(send(t, s1, s2)); err == nil || fatal == nil {
		t.Errorf("Restore = %v, fatal = %v; want the node to stop", err, fatal)
	}
}

// TestMachine_LostStateIsRefused takes the state away below a savepoint: the
// node must not start afresh.
func TestMachine_LostStateIsRefused(t *testing.T) {
	logs, _ := script()
	fs := vfs.NewMem()
	m := openMachine(t, fs, nil)
	outcomes(t, m, logs)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if err := fs.RemoveAll("logs/main/gen-000001/state"); err != nil {
		t.Fatal(err)
	}
	if m, err := tryOpen(fs, nil); err == nil {
		t.Errorf("opened at %v", fmtApplied(m))
	}
}

func fmtApplied(m *Machine) (at [2]uint64) {
	at[0], at[1] = m.Applied()
	return at
}
