package cluster

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

// crashingStable stops writing after some number of writes, as a crash does.
type crashingStable struct {
	raft.StableStore
	left int
}

var errCrash = errors.New("crash")

func (s *crashingStable) write() error {
	if s.left--; s.left < 0 {
		return errCrash
	}
	return nil
}

func (s *crashingStable) Set(k, v []byte) error {
	if err := s.write(); err != nil {
		return err
	}
	return s.StableStore.Set(k, v)
}

func (s *crashingStable) SetUint64(k []byte, v uint64) error {
	if err := s.write(); err != nil {
		return err
	}
	return s.StableStore.SetUint64(k, v)
}

// A crash in the middle of a vote never leaves the new term beside the candidate
// of an older vote, for whom Raft would then vote without comparing logs.
func TestStableStore_TornVote(t *testing.T) {
	const writes = 1 // a vote takes
	for crashAfter := range writes + 1 {
		db, err := raftboltdb.NewBoltStore(filepath.Join(t.TempDir(), "stable.db"))
		if err != nil {
			t.Fatal(err)
		}
		vote := func(s raft.StableStore, term uint64, candidate string) {
			// As Raft's persistVote.
			if s.SetUint64(keyVoteTerm, term) == nil {
				_ = s.Set(keyVoteGiven, []byte(candidate))
			}
		}
		vote(&stableStore{under: db, fatal: newRecorded().fatal}, 1, "old")
		vote(&stableStore{under: &crashingStable{db, crashAfter}, fatal: newRecorded().fatal}, 2, "new")
		s := &stableStore{under: db, fatal: newRecorded().fatal}
		term, err := s.GetUint64(keyVoteTerm)
		if err != nil {
			t.Fatal(err)
		}
		given, err := s.Get(keyVoteGiven)
		if err != nil {
			t.Fatal(err)
		}
		if want := [][2]any{{uint64(1), "old"}, {uint64(2), "new"}}[crashAfter]; want != [2]any{term, string(given)} {
			t.Errorf("after %d writes: a vote for %q in term %d", crashAfter, given, term)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStableStore_ErrorsEndTheNode(t *testing.T) {
	f := newRecorded()
	s := &stableStore{under: &crashingStable{StableStore: raft.NewInmemStore()}, fatal: f.fatal}
	if err := s.SetUint64(keyTerm, 1); !errors.Is(err, errCrash) {
		t.Errorf("error %v", err)
	}
	if err := s.Set(keyVoteGiven, []byte("x")); !errors.Is(err, errEnded) {
		t.Errorf("a write after a failed one: %v", err)
	}
	if len(f.errs()) != 1 {
		t.Errorf("fatal errors: %v", f.errs())
	}
}

func TestStableStore_MissReadsNotFound(t *testing.T) {
	db, err := raftboltdb.NewBoltStore(filepath.Join(t.TempDir(), "stable.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s := &stableStore{under: db, fatal: newRecorded().fatal}
	if _, err := s.GetUint64(keyTerm); err == nil || err.Error() != "not found" {
		t.Errorf("a miss reads %q: Raft compares the text", err)
	}
	if _, err := s.GetUint64(keyVoteTerm); err == nil || err.Error() != "not found" {
		t.Errorf("a miss reads %q: Raft compares the text", err)
	}
	if _, err := s.Get(keyVoteGiven); err == nil || err.Error() != "not found" {
		t.Errorf("a miss reads %q: Raft compares the text", err)
	}
}
