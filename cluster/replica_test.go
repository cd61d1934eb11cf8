package cluster

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

func newTestReplica(stores *uint64) (*replica, *memMachine, *recorded) {
	m, f := newMachine(), newRecorded()
	return &replica{StateMachine: m, fatal: f.fatal, stores: func() uint64 { return *stores }, stats: newMetrics()}, m, f
}

// An entry whose check does not hold is not applied, nor is any after it.
func TestReplica_Checks(t *testing.T) {
	stores := uint64(0)
	r, m, f := newTestReplica(&stores)
	good := raft.Log{Index: 1, Term: 1, Type: raft.LogNoop, Data: []byte("x")}
	sealLog(&good)
	if r.ApplyBatch([]*raft.Log{&good}); m.applied != 1 {
		t.Fatal("a good entry was not applied")
	}
	bad := good
	bad.Data = []byte("y")
	responses := r.ApplyBatch([]*raft.Log{&good, &bad})
	for i, response := range responses {
		if err, ok := response.(error); !ok || !errors.Is(err, errCheck) {
			t.Errorf("response %d: %v", i, response)
		}
	}
	if len(responses) != 2 || m.applied != 1 || len(f.errs()) != 1 {
		t.Errorf("%d responses, %d batches applied, fatal errors %v", len(responses), m.applied, f.errs())
	}
	r.Apply(&good)
	if m.applied != 1 {
		t.Error("an entry was applied after a fatal error")
	}
}

// A state machine that can't apply an entry ends the node: it must not skip
// what the others have applied.
func TestReplica_ApplyError(t *testing.T) {
	stores := uint64(0)
	r, m, f := newTestReplica(&stores)
	m.onApply = func([]*raft.Log) error { return errors.New("unknown entry format") }
	l := raft.Log{Index: 9, Type: raft.LogCommand}
	sealLog(&l)
	r.Apply(&l)
	if errs := f.errs(); len(errs) != 1 || !strings.Contains(errs[0].Error(), "entry 9: unknown entry format") {
		t.Errorf("fatal errors %v", errs)
	}
	if err := r.Restore(io.NopCloser(strings.NewReader("{}"))); !errors.Is(err, errEnded) {
		t.Errorf("installs a snapshot after a fatal error: %v", err)
	}
}

// wrapped is as Raft hands an open snapshot to Restore.
type wrapped struct{ io.ReadCloser }

func (w wrapped) WrappedReadCloser() io.ReadCloser { return w.ReadCloser }

// The same snapshot may come again, since answers get lost, but not for ever.
func TestReplica_SameSnapshotAgain(t *testing.T) {
	stores := uint64(5)
	r, _, f := newTestReplica(&stores)
	snaps := namedSnapshots{raft.NewInmemSnapshotStore()}
	install := func(index uint64) error {
		takeSnapshot(t, snaps, index, 2, "{}")
		list, err := snaps.List()
		if err != nil {
			t.Fatal(err)
		}
		_, source, err := snaps.Open(list[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		return r.Restore(wrapped{source})
	}
	for i, index := range []uint64{10, 20, 10} {
		if err := install(index); err != nil {
			t.Fatalf("install %d: %v", i, err)
		}
	}
	stores++ // an entry was written: the log went on
	if err := install(10); err != nil {
		t.Fatalf("again, after an entry: %v", err)
	}
	for i := range maxAgain {
		if err := install(10); err != nil {
			t.Fatalf("again, time %d: %v", i+1, err)
		}
	}
	if err := install(10); err == nil || !strings.Contains(err.Error(), "5 times in a row") || len(f.errs()) != 1 {
		t.Errorf("once more: %v, fatal errors %v", err, f.errs())
	}
}
