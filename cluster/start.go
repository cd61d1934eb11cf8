package cluster

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	walfs "github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/metadb"
	"go.etcd.io/bbolt"
)

// StartError says that a node must not start on what its disk holds.
type StartError struct {
	Reason string // what was found
	Remedy string // what to do
}

func (e *StartError) Error() string { return e.Reason + ": " + e.Remedy }

const (
	remedyRejoin = "stop the node, remove its data directory and start it again; it then joins under a new node id and fetches everything"
	// walSegmentSize is that of a file of Raft's log, in bytes. Two of them are on
	// the disk beyond what is kept: the oldest in part, the newest before it is
	// filled. Together with Config's bounds that makes 192 MiB.
	walSegmentSize = 32 << 20
	// lockTimeout is how long another process may hold the stable store.
	lockTimeout = time.Second
)

// SnapshotIndexer is a snapshot store that knows up to which command a snapshot
// goes. Raft's own index for it counts entries that the state machine never
// sees, so it must not be compared with an index of the state machine.
type SnapshotIndexer interface {
	// CommandIndex returns the Raft index of the last command that a snapshot
	// holds: A of its savepoint.
	CommandIndex(id string) (uint64, error)
}

// stores are Raft's open stores with the node's checks around them.
type stores struct {
	log    *logStore
	cache  *logCache // over log
	stable *stableStore
	close  func() error
}

// openStores opens Raft's files, or takes the stores it is given.
func openStores(cfg *Config, f *fatal, stats *metrics) (*stores, error) {
	given, closeAll := cfg.Stores, func() error { return nil }
	if given == nil {
		var err error
		if given, closeAll, err = openFiles(cfg); err != nil {
			return nil, err
		}
	}
	log := newLogStore(given.Log, f, cfg.StallTimeout, stats)
	return &stores{
		log: log, cache: newLogCache(log, cfg.CacheBytes),
		stable: &stableStore{under: given.Stable, fatal: f}, close: closeAll,
	}, nil
}

func openFiles(cfg *Config) (*Stores, func() error, error) {
	if err := checkParts(cfg); err != nil {
		return nil, nil, err
	}
	stable, err := raftboltdb.New(raftboltdb.Options{
		Path: cfg.StableDB, BoltOptions: &bbolt.Options{Timeout: lockTimeout},
	})
	if errors.Is(err, bbolt.ErrTimeout) {
		return nil, nil, &StartError{cfg.StableDB + " is locked", "another process uses this data directory: stop it first"}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("open Raft's stable store %s: %w", cfg.StableDB, err)
	}
	wal, err := OpenWAL(cfg.WAL, walfs.New(), &metadb.BoltMetaDB{}, walSegmentSize, cfg.Logger)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open Raft's log %s: %w", cfg.WAL, err), stable.Close())
	}
	closeAll := func() error { return errors.Join(wal.Close(), stable.Close()) }
	return &Stores{Log: wal, Stable: stable}, closeAll, nil
}

// checkParts refuses to make a part anew beside one that holds something: that
// would start silently without a term, or without a log.
func checkParts(cfg *Config) error {
	stable, err := os.Stat(cfg.StableDB)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look for Raft's stable store: %w", err)
	}
	hasStable := err == nil && stable.Size() > 0
	files, err := os.ReadDir(cfg.WAL)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) && hasStable {
			return &StartError{cfg.WAL + " is missing", remedyRejoin}
		}
		return fmt.Errorf("look for Raft's log: %w", err)
	}
	if len(files) > 0 && !hasStable {
		return &StartError{cfg.StableDB + " is missing, so that this node no longer knows whom it voted for", remedyRejoin}
	}
	return nil
}

// found is what the disk holds when a node starts.
type found struct {
	term        uint64             // of the stable store
	first, last uint64             // of Raft's log, 0 if it is empty
	snapshot    *raft.SnapshotMeta // the newest, nil if there is none
	snapIndex   uint64             // of it, by Raft's count
	snapTerm    uint64
	durable     uint64 // index A of the state machine's savepoint
	tail        uint64 // index of the event log's last intact frame beyond A, or 0
}

// prepare checks that stable store, log, snapshots and state machine belong
// together, and brings them to where Raft can start. After it the state machine
// holds all that Raft will not replay.
func prepare(cfg *Config, s *stores, sm StateMachine, snaps raft.SnapshotStore) error {
	f, err := look(s, sm, snaps)
	if err != nil {
		return err
	}
	if err := f.check(); err != nil {
		return err
	}
	if f.term == 0 && cfg.Expect == 0 && len(cfg.Join) == 0 {
		return &StartError{"this node holds no data and was told neither how many nodes form a cluster nor whom to join", "say one of the two"}
	}
	if err := f.scan(cfg, s); err != nil {
		return err
	}
	// An install first: a state that is behind its own snapshot has lost part of
	// itself, and then nothing of the log may be cut.
	if err := f.install(s, sm, snaps); err != nil {
		return err
	}
	if err := sm.Cut(); err != nil {
		return fmt.Errorf("cut the event log after its savepoint: %w", err)
	}
	return f.dropLog(cfg, s)
}

func look(s *stores, sm StateMachine, snaps raft.SnapshotStore) (*found, error) {
	f := &found{tail: sm.TailIndex()}
	f.durable, _ = sm.Durable()
	var err error
	if f.term, err = s.stable.GetUint64(keyTerm); err != nil && err.Error() != "not found" {
		return nil, fmt.Errorf("read Raft's term: %w", err)
	}
	if f.first, err = s.log.FirstIndex(); err != nil {
		return nil, fmt.Errorf("read Raft's log: %w", err)
	}
	if f.last, err = s.log.LastIndex(); err != nil {
		return nil, fmt.Errorf("read Raft's log: %w", err)
	}
	list, err := snaps.List()
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	if len(list) > 0 {
		f.snapshot, f.snapIndex, f.snapTerm = list[0], list[0].Index, list[0].Term
	}
	return f, nil
}

// check refuses what only a loss can explain. Raft writes the term before any
// entry of it, the log before any frame, and a snapshot before it drops the
// entries it covers.
func (f *found) check() error {
	refuse := func(format string, args ...any) error {
		return &StartError{"this node has lost part of what it had promised: " + fmt.Sprintf(format, args...), remedyRejoin}
	}
	end, held := max(f.last, f.snapIndex), max(f.durable, f.tail)
	switch {
	case f.term == 0 && max(end, held) > 0:
		return refuse("Raft's stable store knows no term, but there is data up to index %d", max(end, held))
	case f.term < f.snapTerm:
		return refuse("Raft's stable store is at term %d, a snapshot is of term %d", f.term, f.snapTerm)
	case held > end:
		return refuse("Raft's log and snapshots end at index %d, the event log holds index %d", end, held)
	case f.first > f.snapIndex+1:
		return refuse("Raft's log begins at index %d, the newest snapshot ends at %d", f.first, f.snapIndex)
	}
	return nil
}

// scan reads the whole log once: Raft would panic on an entry that it can't
// read. A damaged entry that a snapshot covers is dropped with all before it; it
// was only kept for slow followers.
func (f *found) scan(cfg *Config, s *stores) error {
	var l raft.Log
	for i := f.first; f.last > 0 && i <= f.last; i++ {
		err := s.log.GetLog(i, &l)
		switch {
		case err == nil && l.Term > f.term:
			return &StartError{
				fmt.Sprintf("this node has lost part of what it had promised: Raft's stable store is at term %d, its log at %d", f.term, l.Term),
				remedyRejoin,
			}
		case err == nil:
			s.log.sizes.add(i, logSize(&l))
			if i <= f.snapIndex {
				s.log.sizes.begin() // covered by the snapshot
			}
		case i > f.snapIndex:
			return &StartError{fmt.Sprintf("Raft's log %s is damaged: %v", cfg.WAL, err), remedyRejoin}
		default:
			cfg.Logger.Warn("dropping damaged entries that a snapshot covers", "first", f.first, "last", i, "error", err)
			if err := s.cache.DeleteRange(f.first, i); err != nil {
				return err
			}
			if f.first = i + 1; i == f.last {
				f.first, f.last = 0, 0
			}
		}
	}
	return nil
}

// install brings the state machine up to the newest snapshot, if it is behind:
// Raft is told not to restore snapshots when it starts and would skip the gap
// without a word.
func (f *found) install(s *stores, sm StateMachine, snaps raft.SnapshotStore) error {
	if f.snapshot == nil {
		return nil
	}
	held, err := f.commandIndex(s, snaps)
	if err != nil {
		return fmt.Errorf("read snapshot %s: %w", f.snapshot.ID, err)
	}
	if f.durable >= held {
		return nil
	}
	_, source, err := snaps.Open(f.snapshot.ID)
	if err != nil {
		return fmt.Errorf("open snapshot %s: %w", f.snapshot.ID, err)
	}
	err = sm.Restore(source)
	if cerr := source.Close(); cerr != nil && !errors.Is(cerr, fs.ErrClosed) && !errors.Is(cerr, io.ErrClosedPipe) {
		err = errors.Join(err, cerr)
	}
	if err != nil {
		return fmt.Errorf("install snapshot %s: %w", f.snapshot.ID, err)
	}
	if f.durable, _ = sm.Durable(); f.durable < held {
		return &StartError{
			fmt.Sprintf("the state is at index %d and snapshot %s, of index %d, did not bring it further", f.durable, f.snapshot.ID, held),
			remedyRejoin,
		}
	}
	return nil
}

// commandIndex returns the last command that the newest snapshot holds. A store
// that can't tell is helped by the log: no command lies between a snapshot's
// last command and Raft's index for it.
func (f *found) commandIndex(s *stores, snaps raft.SnapshotStore) (uint64, error) {
	if x, ok := snaps.(SnapshotIndexer); ok {
		return x.CommandIndex(f.snapshot.ID)
	}
	if f.last < f.snapIndex || f.first > f.durable+1 {
		return f.snapIndex, nil // the log does not show what came after the savepoint
	}
	var l raft.Log
	for i := f.snapIndex; i > f.durable; i-- {
		if err := s.log.GetLog(i, &l); err != nil {
			return 0, err
		}
		if l.Type == raft.LogCommand {
			return i, nil
		}
	}
	return f.durable, nil
}

// dropLog empties a log that can't follow the newest snapshot: one that ends
// before it, after which every write would leave a gap, and one that has
// another term at its index, which the leader would answer with the same
// snapshot for ever (hashicorp/raft#697).
func (f *found) dropLog(cfg *Config, s *stores) error {
	if f.snapshot == nil || f.last == 0 {
		return nil
	}
	why := ""
	var l raft.Log
	switch {
	case f.last < f.snapIndex:
		why = "it ends before the snapshot"
	case f.first <= f.snapIndex:
		if err := s.log.GetLog(f.snapIndex, &l); err != nil {
			return err
		}
		if l.Term != f.snapTerm {
			why = "it is of another term than the snapshot"
		}
	}
	if why == "" {
		return nil
	}
	cfg.Logger.Warn("emptying raft's log", "reason", why, "first", f.first, "last", f.last, "snapshot_index", f.snapIndex)
	if err := s.cache.DeleteRange(f.first, f.last); err != nil {
		return err
	}
	s.log.sizes.reset()
	return nil
}
