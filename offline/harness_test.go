package offline

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"

	"cairn/datadir"
	"cairn/event"
	"cairn/fsm"
	eventlog "cairn/log"
	"cairn/snapshot"
)

const (
	testDir   = "/srv/data"
	testLogID = "0190a5b6-7c00-7000-8000-000000000001"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// testNode is a node without Raft: its folder, its snapshots and its machine.
type testNode struct {
	fs      vfs.FS
	dir     *datadir.Dir
	gens    *snapshot.Generations
	store   *snapshot.Store
	machine *fsm.Machine
}

// startNode opens a node's folder as a start does, and builds it if it is not
// there.
func startNode(fs vfs.FS, every uint64) (*testNode, error) {
	n := &testNode{fs: fs}
	var err error
	if n.dir, err = datadir.Open(fs, testDir, datadir.Options{Build: func(dir string) error {
		return errors.Join(writeFile(fs, fs.PathJoin(dir, "raft", "stable.db"), "stable"),
			writeFile(fs, fs.PathJoin(dir, "raft", "wal", "wal-meta.db"), "meta"))
	}}); err != nil {
		return nil, err
	}
	if err = n.open(every); err != nil {
		return nil, errors.Join(err, n.dir.Close())
	}
	return n, nil
}

func (n *testNode) open(every uint64) (err error) {
	if n.gens, err = snapshot.OpenGenerations(n.fs, n.dir.Log(), n.dir.Snapshots()); err != nil {
		return err
	}
	n.store, err = snapshot.NewStore(snapshot.StoreOptions{FS: n.fs, Dir: n.dir.Snapshots(), Generations: n.gens,
		VerifySegment: func(path string) (string, error) {
			info, err := eventlog.VerifySegment(n.fs, path)
			return fmt.Sprintf("%x", info.Hash), err
		}})
	if err != nil {
		return err
	}
	n.machine, err = fsm.Open(fsm.Options{FS: n.fs, Generations: n.gens, SavepointEvents: every, CacheBytes: 1 << 20,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), OnBirth: n.dir.SetLogID, RaiseVersion: n.dir.RaiseMinVersion})
	if err != nil {
		return err
	}
	if err := n.machine.Cut(); err != nil {
		return errors.Join(err, n.machine.Close())
	}
	return nil
}

// apply applies entries, and returns what was decided.
func (n *testNode) apply(logs []*raft.Log) ([]event.Outcome, error) {
	var all []event.Outcome
	for _, answer := range n.machine.ApplyBatch(logs) {
		switch answer := answer.(type) {
		case []event.Outcome:
			all = append(all, answer...)
		case error:
			return all, answer
		}
	}
	return all, nil
}

// take makes a snapshot as Raft does.
func (n *testNode) take() error {
	snap, err := n.machine.Snapshot()
	if err != nil {
		return err
	}
	defer snap.Release()
	index, _ := n.machine.Applied()
	sink, err := n.store.Create(1, index, 3, raft.Configuration{}, 1, nil)
	if err != nil {
		return err
	}
	return errors.Join(snap.Persist(sink), sink.Close())
}

func (n *testNode) stop() error { return errors.Join(n.machine.Close(), n.dir.Close()) }

// events reads all that the node has.
func (n *testNode) events() ([]event.Event, error) {
	v := n.machine.View(0)
	defer v.Close()
	c, err := v.Select(fsm.Selection{})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var all []event.Event
	for c.Next() {
		all = append(all, *c.Event())
		e := &all[len(all)-1]
		e.Data, e.Meta, e.Tags = append([]byte(nil), e.Data...), append([]byte(nil), e.Meta...), append([]string(nil), e.Tags...)
	}
	return all, c.Err()
}

func writeFile(fs vfs.FS, path, data string) error {
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write([]byte(data))
	return errors.Join(err, f.Sync(), f.Close())
}

func readFile(t testing.TB, fs vfs.FS, path string) []byte {
	t.Helper()
	f, err := fs.Open(path)
	must(t, err)
	defer f.Close()
	b, err := io.ReadAll(f)
	must(t, err)
	return b
}

// birth is the entry a log begins with.
func birth() *raft.Log {
	c, err := event.SystemCommand(event.StreamLog, event.TypeLogCreated,
		event.LogCreated{LogID: testLogID, SegmentSize: 4096, ClusterVersion: 1})
	if err != nil {
		panic(err)
	}
	c.Seed, c.Append.Events[0].ID = [16]byte{}, "birth"
	return &raft.Log{Index: 2, Term: 1, Data: event.EncodeEntry(nil, 1, [][]byte{event.EncodeCommand(nil, &c)})}
}

// entry is the i-th entry after the birth: an append with a chosen id, tags and
// a correlation, one without, and a try again of an earlier one.
func entry(i int) *raft.Log {
	chosen := func(i int) event.Append {
		return event.Append{Events: []event.Event{
			{Stream: fmt.Sprintf("account-%d", i%5), Type: "Deposited", ID: fmt.Sprintf("id %d", i), IDChosen: true,
				Tags: []string{"bank:1", fmt.Sprintf("owner:%d", i%3)}, CorrelationID: fmt.Sprintf("c-%d", i%4),
				Data: fmt.Appendf(nil, `{"amount":%d,"note":"%040d"}`, i, 0)},
			{Stream: "audit", Type: "Noted", ID: fmt.Sprintf("note %d", i), IDChosen: true, CausationID: fmt.Sprintf("id %d", i),
				Data: []byte("text"), ContentType: "text/plain", Meta: []byte(`{"by":"me"}`)},
		}}
	}
	plain := event.Append{
		Events:     []event.Event{{Stream: fmt.Sprintf("order-%d", i), Type: "Placed", ID: fmt.Sprintf("made %d", i), Data: []byte(`{}`)}},
		Conditions: []event.Condition{{Kind: event.StreamMissing, Stream: fmt.Sprintf("order-%d", i)}},
	}
	var commands [][]byte
	for j, a := range []event.Append{chosen(i), plain, chosen(i - i%3)} {
		c := event.Command{Kind: event.KindAppend, Append: a, Seed: [16]byte{byte(i), byte(j), 9}}
		commands = append(commands, event.EncodeCommand(nil, &c))
	}
	return &raft.Log{Index: 5 + uint64(i), Term: 3, Data: event.EncodeEntry(nil, int64(1000*i), commands)}
}

func entries(from, to int) (logs []*raft.Log) {
	for i := from; i < to; i++ {
		logs = append(logs, entry(i))
	}
	return logs
}

const testEntries = 40

// madeNode leaves the folder of a stopped node that has several segments,
// savepoints, tables of state and a snapshot.
func madeNode(t testing.TB, fs vfs.FS) {
	t.Helper()
	must(t, snapshot.MakeDir(fs, "/srv", 0o755))
	n, err := startNode(fs, 20)
	must(t, err)
	_, err = n.apply(append([]*raft.Log{birth()}, entries(0, testEntries/4)...))
	must(t, err)
	must(t, n.stop())
	n, err = startNode(fs, 20) // the state's store makes tables then
	must(t, err)
	_, err = n.apply(entries(testEntries/4, testEntries/2))
	must(t, err)
	for err = n.take(); errors.Is(err, fsm.ErrSavepointBusy); err = n.take() {
	}
	must(t, err)
	_, err = n.apply(entries(testEntries/2, testEntries))
	must(t, err)
	must(t, n.stop())
}
