package cluster

import (
	"bytes"
	"fmt"

	"github.com/hashicorp/raft"
)

// Keys under which Raft keeps its term and vote.
var (
	keyTerm      = []byte("CurrentTerm")
	keyVoteTerm  = []byte("LastVoteTerm")
	keyVoteGiven = []byte("LastVoteCand")
)

// stableStore is the node's view of the store of Raft's term and vote. It ends
// the node when a write fails.
//
// Raft writes a vote in two steps, first its term, then whom it went to. After
// a crash between the two it would find the new term beside the candidate of
// an older vote, and would vote for that one again without comparing logs. So
// the old candidate is removed before the new term is written; a vote without
// a candidate counts as not given.
type stableStore struct {
	under raft.StableStore
	fatal *fatal
}

var _ raft.StableStore = (*stableStore)(nil)

// Set writes a value durably.
func (s *stableStore) Set(key, value []byte) error {
	if err := s.fatal.check(); err != nil {
		return err
	}
	if err := s.under.Set(key, value); err != nil {
		return s.fatal.fail(fmt.Errorf("write %s to Raft's stable store: %w", key, err))
	}
	return nil
}

// Get returns a value; a miss is an error that reads "not found". An empty
// value comes back as nil, which Raft takes for a vote that was not given.
func (s *stableStore) Get(key []byte) ([]byte, error) {
	value, err := s.under.Get(key)
	if len(value) == 0 {
		value = nil
	}
	return value, err
}

// SetUint64 writes a number durably.
func (s *stableStore) SetUint64(key []byte, value uint64) error {
	if bytes.Equal(key, keyVoteTerm) {
		if err := s.Set(keyVoteGiven, nil); err != nil {
			return err
		}
	}
	if err := s.fatal.check(); err != nil {
		return err
	}
	if err := s.under.SetUint64(key, value); err != nil {
		return s.fatal.fail(fmt.Errorf("write %s to Raft's stable store: %w", key, err))
	}
	return nil
}

// GetUint64 returns a number; a miss is an error that reads "not found".
func (s *stableStore) GetUint64(key []byte) (uint64, error) { return s.under.GetUint64(key) }
