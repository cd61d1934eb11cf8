package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/types"
)

// The check of an entry travels with it in raft.Log.Extensions, through the
// log, the wire and the log of every other node:
//
//	┌───────────┬──────────────────────────────────────────────────┐
//	│ format u8 │ CRC-32C u32 over index, term u64, type u8, data  │
//	└───────────┴──────────────────────────────────────────────────┘
//
// Little-endian. It is bound to the index, so that an entry which stands in the
// wrong place does not pass. raft-wal checks nothing when it reads an entry.
const (
	checkFormat = 1
	checkSize   = 1 + 4
	// logOverhead is what an entry takes beside its data, about.
	logOverhead = 48
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errCheck says that an entry is not what was stored or sent.
var errCheck = errors.New("its check does not match: the entry is damaged")

func checksum(l *raft.Log) uint32 {
	var head [17]byte
	binary.LittleEndian.PutUint64(head[:], l.Index)
	binary.LittleEndian.PutUint64(head[8:], l.Term)
	head[16] = byte(l.Type)
	return crc32.Update(crc32.Update(0, castagnoli, head[:]), castagnoli, l.Data)
}

// sealLog puts the check into an entry that has none.
func sealLog(l *raft.Log) {
	ext := make([]byte, checkSize)
	ext[0] = checkFormat
	binary.LittleEndian.PutUint32(ext[1:], checksum(l))
	l.Extensions = ext
}

// verifyLog reports whether an entry is the one that was sealed.
func verifyLog(l *raft.Log) error {
	ext := l.Extensions
	if len(ext) != checkSize || ext[0] != checkFormat || binary.LittleEndian.Uint32(ext[1:]) != checksum(l) {
		return fmt.Errorf("entry %d of term %d: %w", l.Index, l.Term, errCheck)
	}
	return nil
}

// VerifyEntry reports whether an entry of Raft's log is the one that was stored,
// for those who read the log of a node that is stopped.
func VerifyEntry(l *raft.Log) error { return verifyLog(l) }

func logSize(l *raft.Log) int64 { return int64(len(l.Data) + logOverhead) }

// logStore is the node's view of the store of Raft's entries. It seals entries
// on their way in and verifies them on their way out, counts what is written,
// and ends the node when a write fails or stalls: a failed write is never
// tried again, since after a failed fsync nobody knows what the disk holds.
//
// Writes come from Raft's main goroutine, deletions also from its snapshot
// goroutine, reads from any.
type logStore struct {
	under raft.LogStore
	fatal *fatal
	stall time.Duration
	stats *metrics

	stores atomic.Uint64 // writes that succeeded
	sizes  logSizes

	mu    sync.Mutex  // one write at a time
	timer *time.Timer // under mu; runs while a write does
}

var (
	_ raft.LogStore          = (*logStore)(nil)
	_ raft.MonotonicLogStore = (*logStore)(nil)
)

func newLogStore(under raft.LogStore, f *fatal, stall time.Duration, stats *metrics) *logStore {
	s := &logStore{under: under, fatal: f, stall: stall, stats: stats}
	s.sizes.full = make(chan struct{}, 1)
	s.timer = time.AfterFunc(time.Hour, func() {
		_ = f.fail(fmt.Errorf("writing Raft's log has taken more than %s: the disk stalls", stall))
	})
	s.timer.Stop()
	return s
}

// FirstIndex returns the index of the first entry, 0 if there is none.
func (s *logStore) FirstIndex() (uint64, error) { return s.under.FirstIndex() }

// LastIndex returns the index of the last entry, 0 if there is none.
func (s *logStore) LastIndex() (uint64, error) { return s.under.LastIndex() }

// IsMonotonic says whether the store refuses gaps; Raft must know, or it
// leaves entries behind after an install that no later write can follow.
func (s *logStore) IsMonotonic() bool {
	m, ok := s.under.(raft.MonotonicLogStore)
	return ok && m.IsMonotonic()
}

// GetLog reads a verified entry. An entry that is not there is
// raft.ErrLogNotFound itself, since Raft compares with ==.
func (s *logStore) GetLog(index uint64, l *raft.Log) error {
	if err := s.under.GetLog(index, l); err != nil {
		if errors.Is(err, raft.ErrLogNotFound) {
			return raft.ErrLogNotFound
		}
		return fmt.Errorf("read entry %d of Raft's log: %w", index, err)
	}
	if l.Index != index {
		return fmt.Errorf("read entry %d of Raft's log: found entry %d: %w", index, l.Index, errCheck)
	}
	if err := verifyLog(l); err != nil {
		return fmt.Errorf("read Raft's log: %w", err)
	}
	return nil
}

// StoreLog writes one entry durably.
func (s *logStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs writes entries durably. Entries made here get their check now,
// those of a leader are verified.
func (s *logStore) StoreLogs(logs []*raft.Log) error {
	if err := s.fatal.check(); err != nil {
		return err
	}
	var bytes int64
	for _, l := range logs {
		if len(l.Extensions) == 0 {
			sealLog(l)
		} else if err := verifyLog(l); err != nil {
			return s.fatal.fail(fmt.Errorf("write Raft's log: received %w", err))
		}
		bytes += logSize(l)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	start := time.Now()
	s.timer.Reset(s.stall)
	err := s.under.StoreLogs(logs)
	s.timer.Stop()
	if errors.Is(err, types.ErrSealed) {
		// raft-wal says no more than that to whoever writes next.
		err = fmt.Errorf("%w: no next file could be made, most often because the disk is full: make space and start the node again, what was acknowledged is intact", err)
	}
	if err != nil {
		return s.fatal.fail(fmt.Errorf("write Raft's log: %w", err))
	}
	s.stats.stored(len(logs), bytes, time.Since(start))
	s.stores.Add(1)
	for _, l := range logs {
		s.sizes.add(l.Index, logSize(l))
	}
	return nil
}

// DeleteRange removes entries from either end.
func (s *logStore) DeleteRange(first, last uint64) error {
	if err := s.fatal.check(); err != nil {
		return err
	}
	if err := s.under.DeleteRange(first, last); err != nil {
		return s.fatal.fail(fmt.Errorf("remove entries %d to %d of Raft's log: %w", first, last, err))
	}
	return nil
}

// markBytes is how finely logSizes knows where in the log how many bytes are.
const markBytes = 256 << 10

// logSizes knows how many bytes were written to the log since a given index,
// which Raft itself does not: it counts entries only.
type logSizes struct {
	full chan struct{} // gets a token when fresh reaches limit

	mu    sync.Mutex
	limit int64  // under mu; 0 = never
	fresh int64  // under mu; written since the last snapshot was begun
	total int64  // under mu; written since the start
	last  uint64 // under mu; index of the newest entry
	marks []mark // under mu, ascending; one each markBytes
}

// mark says that total bytes had been written when the entry before index was.
type mark struct {
	index uint64
	total int64
}

// add notes that an entry was written. A rewritten end of the log counts again,
// which only makes the next snapshot come sooner.
func (s *logSizes) add(index uint64, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := len(s.marks); n > 0 && s.marks[n-1].index >= index; n-- {
		s.marks = s.marks[:n-1]
	}
	if n := len(s.marks); n == 0 || s.total-s.marks[n-1].total >= markBytes {
		s.marks = append(s.marks, mark{index, s.total})
	}
	s.total += bytes
	s.fresh += bytes
	s.last = index
	if s.limit > 0 && s.fresh >= s.limit {
		select {
		case s.full <- struct{}{}:
		default:
		}
	}
}

// trailing returns how many of the newest entries to keep: those from index
// needed on, if that is not 0, as far as they weigh at most so many bytes, and a
// quarter of that in any case. It rounds down and forgets what is older.
func (s *logSizes) trailing(most int64, needed uint64) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	drop := 0
	for drop < len(s.marks) && s.total-s.marks[drop].total > most {
		drop++
	}
	s.marks = append(s.marks[:0], s.marks[drop:]...)
	keep := 0
	for keep < len(s.marks) && s.total-s.marks[keep].total > most/4 && !(needed > 0 && keep+1 < len(s.marks) && s.marks[keep+1].index > needed) {
		keep++
	}
	if keep == len(s.marks) {
		return 0
	}
	return s.last - s.marks[keep].index + 1
}

// begin starts to count anew and returns what was counted, for put.
func (s *logSizes) begin() (fresh int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fresh, s.fresh = s.fresh, 0
	return fresh
}

// put adds to the count what a snapshot that came to nothing did not cover.
func (s *logSizes) put(fresh int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fresh += fresh
}

// setLimit says when full gets a token.
func (s *logSizes) setLimit(bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit = bytes
}

// pending returns the bytes written since the last snapshot was begun.
func (s *logSizes) pending() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fresh
}

// reset forgets everything, when the log was emptied.
func (s *logSizes) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fresh, s.total, s.last, s.marks = 0, 0, 0, nil
}
