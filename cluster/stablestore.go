package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/hashicorp/raft"
)

// Keys under which Raft keeps its term and vote.
var (
	keyTerm      = []byte("CurrentTerm")
	keyVoteTerm  = []byte("LastVoteTerm")
	keyVoteGiven = []byte("LastVoteCand")
)

// keyVote is where we keep the vote: its term, u64 little-endian, and the
// address of the candidate.
var keyVote = []byte("Vote")

// stableStore is the node's view of the store of Raft's term and vote. It ends
// the node when a write fails.
//
// Raft writes a vote in two steps, first its term, then whom it went to. After
// a crash between the two it would find the new term beside the candidate of
// an older vote, and would vote for that one again without comparing logs. So
// the two are kept as one value, written when the second one comes; this also
// spares a write in each election.
type stableStore struct {
	under raft.StableStore
	fatal *fatal

	mu      sync.Mutex
	pending uint64 // under mu; term of a vote whose candidate is still to come
}

var _ raft.StableStore = (*stableStore)(nil)

// Set writes a value durably.
func (s *stableStore) Set(key, value []byte) error {
	if bytes.Equal(key, keyVoteGiven) {
		s.mu.Lock()
		defer s.mu.Unlock()
		vote := binary.LittleEndian.AppendUint64(nil, s.pending)
		return s.write(keyVote, func() error { return s.under.Set(keyVote, append(vote, value...)) })
	}
	return s.write(key, func() error { return s.under.Set(key, value) })
}

// Get returns a value; a miss is an error that reads "not found".
func (s *stableStore) Get(key []byte) ([]byte, error) {
	if bytes.Equal(key, keyVoteGiven) {
		_, candidate, err := s.vote()
		return candidate, err
	}
	return s.under.Get(key)
}

// SetUint64 writes a number durably, but for the term of a vote, which waits for
// its candidate.
func (s *stableStore) SetUint64(key []byte, value uint64) error {
	if bytes.Equal(key, keyVoteTerm) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.pending = value
		return s.fatal.check()
	}
	return s.write(key, func() error { return s.under.SetUint64(key, value) })
}

// GetUint64 returns a number; a miss is an error that reads "not found".
func (s *stableStore) GetUint64(key []byte) (uint64, error) {
	if bytes.Equal(key, keyVoteTerm) {
		term, _, err := s.vote()
		return term, err
	}
	return s.under.GetUint64(key)
}

func (s *stableStore) vote() (term uint64, candidate []byte, err error) {
	vote, err := s.under.Get(keyVote)
	if err != nil {
		return 0, nil, err
	}
	if len(vote) < 8 {
		return 0, nil, errors.New("the vote in Raft's stable store is damaged")
	}
	return binary.LittleEndian.Uint64(vote), vote[8:], nil
}

func (s *stableStore) write(key []byte, write func() error) error {
	if err := s.fatal.check(); err != nil {
		return err
	}
	if err := write(); err != nil {
		return s.fatal.fail(fmt.Errorf("write %s to Raft's stable store: %w", key, err))
	}
	return nil
}
