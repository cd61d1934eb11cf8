package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

// diskState is what a node finds when it starts.
type diskState struct {
	term     uint64
	first    uint64   // index of the first entry
	terms    []uint64 // of the entries
	snapshot uint64   // index; 0 = none
	snapTerm uint64
	durable  uint64
	tail     uint64
	held     uint64 // command index of the snapshot, if the store can tell
}

// indexedSnapshots is a snapshot store that knows the command index.
type indexedSnapshots struct {
	raft.SnapshotStore
	index uint64
}

func (s indexedSnapshots) CommandIndex(string) (uint64, error) { return s.index, nil }

func takeSnapshot(t *testing.T, s raft.SnapshotStore, index, term uint64, body string) {
	t.Helper()
	_, trans := raft.NewInmemTransport("")
	sink, err := s.Create(1, index, term, raft.Configuration{}, 1, trans)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(sink, body); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
}

// build makes stores of that state.
func (d diskState) build(t *testing.T) (*stores, *memMachine, raft.SnapshotStore, *Config) {
	t.Helper()
	mem := raft.NewInmemStore()
	cfg := Config{NodeID: "node", Expect: 1, Stores: &Stores{Log: mem, Stable: mem}, OnFatal: func(err error) { t.Error(err) }}
	cfg = cfg.withDefaults()
	s, err := openStores(&cfg, newFatal(cfg.OnFatal, cfg.Logger), newMetrics())
	if err != nil {
		t.Fatal(err)
	}
	if d.term > 0 {
		if err := mem.SetUint64(keyTerm, d.term); err != nil {
			t.Fatal(err)
		}
	}
	for i, term := range d.terms {
		l := raft.Log{Index: d.first + uint64(i), Term: term, Type: raft.LogCommand, Data: []byte(fmt.Sprint(i))}
		if err := s.log.StoreLog(&l); err != nil {
			t.Fatal(err)
		}
	}
	s.log.sizes.reset()
	var snaps raft.SnapshotStore = raft.NewInmemSnapshotStore()
	if d.snapshot > 0 {
		takeSnapshot(t, snaps, d.snapshot, d.snapTerm, fmt.Sprintf(`{"Index":%d}`, d.held))
	}
	if d.held > 0 {
		snaps = indexedSnapshots{snaps, d.held}
	}
	m := newMachine()
	m.durable, m.tail = d.durable, d.tail
	return s, m, snaps, &cfg
}

func terms(from, n int, term uint64) (list []uint64) {
	for range n {
		list = append(list, term)
	}
	return list
}

func TestPrepare(t *testing.T) {
	ok := terms(1, 10, 2) // entries 1 to 10 of term 2
	tests := []struct {
		name     string
		disk     diskState
		refuse   string // in the error; "" = it may start
		restored bool
		emptied  bool
	}{
		{name: "fresh", disk: diskState{}},
		{name: "log only", disk: diskState{term: 2, first: 1, terms: ok}},
		{name: "state within the log", disk: diskState{term: 2, first: 1, terms: ok, durable: 7, tail: 10}},
		{name: "term lost beside a log", disk: diskState{first: 1, terms: ok}, refuse: "knows no term"},
		{name: "term lost beside a snapshot", disk: diskState{snapshot: 5, snapTerm: 1, held: 5, durable: 5}, refuse: "knows no term"},
		{name: "term lost beside a state", disk: diskState{durable: 3}, refuse: "knows no term"},
		{name: "term behind the log", disk: diskState{term: 1, first: 1, terms: ok}, refuse: "its log at 2"},
		{name: "term behind the snapshot", disk: diskState{term: 1, snapshot: 5, snapTerm: 2, held: 5, durable: 5}, refuse: "a snapshot is of term 2"},
		{name: "log shorter than the savepoint", disk: diskState{term: 2, first: 1, terms: ok, durable: 11}, refuse: "the event log holds index 11"},
		{name: "log shorter than the event log", disk: diskState{term: 2, first: 1, terms: ok, durable: 7, tail: 12}, refuse: "the event log holds index 12"},
		{name: "log lost, snapshot older", disk: diskState{term: 2, snapshot: 6, snapTerm: 2, held: 6, durable: 8}, refuse: "the event log holds index 8"},
		{name: "log lost, nothing after the snapshot", disk: diskState{term: 2, snapshot: 8, snapTerm: 2, held: 8, durable: 8}},
		{name: "gap between snapshot and log", disk: diskState{term: 2, first: 7, terms: ok, snapshot: 5, snapTerm: 2, held: 5, durable: 5}, refuse: "begins at index 7"},
		{name: "log without its beginning", disk: diskState{term: 2, first: 7, terms: ok}, refuse: "begins at index 7"},
		{name: "log right after the snapshot", disk: diskState{term: 2, first: 6, terms: ok, snapshot: 5, snapTerm: 2, held: 5, durable: 5}},
		{name: "log around the snapshot", disk: diskState{term: 2, first: 1, terms: ok, snapshot: 5, snapTerm: 2, held: 5, durable: 5}},
		{name: "state ahead of the snapshot", disk: diskState{term: 2, first: 1, terms: ok, snapshot: 5, snapTerm: 2, held: 5, durable: 8}},
		{name: "snapshot ahead of the state", disk: diskState{term: 2, first: 1, terms: ok, snapshot: 9, snapTerm: 2, held: 9, durable: 4}, restored: true},
		{name: "only Raft's own entries after the state", disk: diskState{term: 2, first: 1, terms: ok, snapshot: 9, snapTerm: 2, held: 4, durable: 4}},
		{name: "log ends before the snapshot", disk: diskState{term: 2, first: 1, terms: ok, snapshot: 15, snapTerm: 2, held: 14, durable: 14}, emptied: true},
		{name: "log of another term at the snapshot", disk: diskState{term: 3, first: 1, terms: ok, snapshot: 9, snapTerm: 3, held: 9, durable: 9}, emptied: true},
		{name: "both", disk: diskState{term: 3, first: 1, terms: ok, snapshot: 15, snapTerm: 3, held: 15, durable: 9}, restored: true, emptied: true},
	}
	for _, tt := range tests {
		s, m, snaps, cfg := tt.disk.build(t)
		err := prepare(cfg, s, m, snaps)
		if tt.refuse != "" {
			var start *StartError
			if !errors.As(err, &start) || !strings.Contains(err.Error(), tt.refuse) || start.Remedy == "" {
				t.Errorf("%s: %v, want %q and what to do", tt.name, err, tt.refuse)
			}
			if m.cut || m.restores > 0 {
				t.Errorf("%s: refused, but touched the data", tt.name)
			}
			if last, _ := s.log.LastIndex(); len(tt.disk.terms) > 0 && last == 0 {
				t.Errorf("%s: refused, but emptied the log", tt.name)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if !m.cut {
			t.Errorf("%s: the event log was not cut", tt.name)
		}
		if got := m.restores == 1; got != tt.restored {
			t.Errorf("%s: snapshots installed %d", tt.name, m.restores)
		}
		last, _ := s.log.LastIndex()
		if got := len(tt.disk.terms) > 0 && last == 0; got != tt.emptied {
			t.Errorf("%s: the log ends at %d", tt.name, last)
		}
	}
}

// Without help from the snapshot store the log tells whether a command stands
// between the savepoint and the snapshot's index.
func TestPrepare_CommandIndexFromTheLog(t *testing.T) {
	for _, typ := range []raft.LogType{raft.LogCommand, raft.LogNoop} {
		s, m, snaps, cfg := diskState{term: 1, first: 1, terms: terms(1, 3, 1), durable: 3}.build(t)
		for i := uint64(4); i <= 6; i++ {
			if err := s.log.StoreLog(&raft.Log{Index: i, Term: 1, Type: typ}); err != nil {
				t.Fatal(err)
			}
		}
		takeSnapshot(t, snaps, 6, 1, `{"Index":6}`)
		if err := prepare(cfg, s, m, snaps); err != nil {
			t.Fatal(err)
		}
		if got, want := m.restores == 1, typ == raft.LogCommand; got != want {
			t.Errorf("entries of type %v after the savepoint: installed %v", typ, got)
		}
	}
}

// A damaged entry that is still needed stops the node with a message, instead
// of Raft with a panic. One that a snapshot covers is given up.
func TestPrepare_DamagedEntry(t *testing.T) {
	for damaged := uint64(1); damaged <= 10; damaged++ {
		mem := &faultyStore{InmemStore: raft.NewInmemStore()}
		disk := diskState{term: 1, first: 1, terms: terms(1, 10, 1), snapshot: 6, snapTerm: 1, held: 6, durable: 6}
		_, m, snaps, cfg := disk.build(t)
		cfg.Stores = &Stores{Log: mem, Stable: cfg.Stores.Stable}
		s, err := openStores(cfg, newFatal(cfg.OnFatal, cfg.Logger), newMetrics())
		if err != nil {
			t.Fatal(err)
		}
		for i := range uint64(10) {
			if err := s.log.StoreLog(&raft.Log{Index: i + 1, Term: 1, Data: []byte("x")}); err != nil {
				t.Fatal(err)
			}
		}
		mem.damage = func(l *raft.Log) {
			if l.Index == damaged {
				l.Data[0] ^= 1
			}
		}
		err = prepare(cfg, s, m, snaps)
		if damaged > 6 {
			if start := (*StartError)(nil); !errors.As(err, &start) || !strings.Contains(err.Error(), fmt.Sprintf("entry %d", damaged)) {
				t.Errorf("entry %d is damaged: %v", damaged, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("entry %d, which a snapshot covers, is damaged: %v", damaged, err)
		}
		if first, _ := mem.FirstIndex(); first != damaged+1 {
			t.Errorf("entry %d is damaged: the log begins at %d", damaged, first)
		}
	}
}

func TestStart_ParentlessNode(t *testing.T) {
	s, m, snaps, cfg := diskState{}.build(t)
	cfg.Expect = 0
	if start := (*StartError)(nil); !errors.As(prepare(cfg, s, m, snaps), &start) {
		t.Error("an empty node that is to form and to join nothing would wait for ever")
	}
}

// Files that are missing beside others are never made anew.
func TestStart_MissingParts(t *testing.T) {
	dir := t.TempDir()
	c := &testCluster{t: t, dir: dir, nodes: make([]*Node, 1), machines: []*memMachine{newMachine()},
		snaps: []raft.SnapshotStore{raft.NewInmemSnapshotStore()}, fatals: []chan error{make(chan error, 1)},
		book: &addressBook{addrs: map[raft.ServerID]raft.ServerAddress{}}}
	c.start(0)
	c.form()
	c.propose(0, "x")
	c.stop(0)
	cfg := c.config(0)
	start := func() error {
		n, err := Start(context.Background(), cfg, newMachine(), raft.NewInmemSnapshotStore())
		if err == nil {
			_ = n.Close(context.Background())
		}
		return err
	}
	var refused *StartError
	move := func(path string, try func()) {
		t.Helper()
		if err := os.Rename(path, path+".away"); err != nil {
			t.Fatal(err)
		}
		try()
		_ = os.RemoveAll(path)
		if err := os.Rename(path+".away", path); err != nil {
			t.Fatal(err)
		}
	}
	move(cfg.StableDB, func() {
		if err := start(); !errors.As(err, &refused) || !strings.Contains(err.Error(), "stable.db is missing") {
			t.Errorf("without the stable store: %v", err)
		}
		if err := os.WriteFile(cfg.StableDB, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := start(); !errors.As(err, &refused) {
			t.Errorf("with an empty stable store: %v", err)
		}
	})
	move(cfg.WAL, func() {
		if err := start(); !errors.As(err, &refused) || !strings.Contains(err.Error(), "wal is missing") {
			t.Errorf("without the log: %v", err)
		}
	})
	db, err := raftboltdb.NewBoltStore(cfg.StableDB)
	if err != nil {
		t.Fatal(err)
	}
	if err := start(); !errors.As(err, &refused) || !strings.Contains(err.Error(), "another process") {
		t.Errorf("while another process has the stable store: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := start(); err != nil {
		t.Errorf("with everything in place: %v", err)
	}
}

// A node that was stopped goes on with its log.
func TestStart_Restart(t *testing.T) {
	c := newTCPCluster(t, 1, nil)
	for i := range 20 {
		c.propose(0, fmt.Sprint(i))
	}
	for range 2 {
		c.stop(0)
		c.machines[0] = newMachine()
		c.start(0)
		if err := c.nodes[0].ReadIndex(context.Background()); err != nil {
			t.Fatal(err)
		}
		if got := c.machines[0].events(); len(got) != 20 {
			t.Errorf("after a restart the log has %d events", len(got))
		}
		if got := c.machines[0].births; got != 1 {
			t.Errorf("the log was born %d times", got)
		}
	}
}

func TestConfig_SaysAllFaultsAtOnce(t *testing.T) {
	cfg := Config{Raft: Endpoint{Bind: "0.0.0.0:1"}, Gossip: Endpoint{Bind: "x"}, Expect: 10, LeaseTimeout: 1, ElectionTimeout: 1}
	cfg = cfg.withDefaults()
	err := cfg.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		"node id", "paths", "OnFatal", "1 to 9 nodes", "all interfaces", `gossip address "x"`, "election timeout",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	good := Config{
		NodeID: "n", StableDB: filepath.Join("x", "s"), WAL: "w", OnFatal: func(error) {},
		Raft: Endpoint{Bind: "127.0.0.1:7001"}, Gossip: Endpoint{Bind: ":7002", Advertise: "host:7002"},
	}
	good = good.withDefaults()
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
}
