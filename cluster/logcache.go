package cluster

import (
	"sync"

	"github.com/hashicorp/raft"
)

// logCache keeps the newest entries in memory, so that those being replicated
// and applied are not read back from disk. It is bounded by bytes: the library's
// own cache counts entries, and ours differ in size by a factor of ten thousand.
//
// It holds one unbroken run of indexes that ends with the newest entry, and
// only entries that the store under it has written. The entries are shared with
// Raft: nobody changes one after it was stored.
type logCache struct {
	under raft.LogStore
	limit int64

	mu    sync.RWMutex
	logs  []*raft.Log // under mu; logs[0] has index first
	first uint64      // under mu
	bytes int64       // under mu
}

var (
	_ raft.LogStore          = (*logCache)(nil)
	_ raft.MonotonicLogStore = (*logCache)(nil)
)

func newLogCache(under raft.LogStore, limit int64) *logCache {
	return &logCache{under: under, limit: limit}
}

// FirstIndex returns the index of the first entry of the store.
func (c *logCache) FirstIndex() (uint64, error) { return c.under.FirstIndex() }

// LastIndex returns the index of the last entry of the store.
func (c *logCache) LastIndex() (uint64, error) { return c.under.LastIndex() }

// IsMonotonic passes on what the store says.
func (c *logCache) IsMonotonic() bool {
	m, ok := c.under.(raft.MonotonicLogStore)
	return ok && m.IsMonotonic()
}

// GetLog returns an entry from memory or from the store.
func (c *logCache) GetLog(index uint64, l *raft.Log) error {
	c.mu.RLock()
	if index >= c.first && index-c.first < uint64(len(c.logs)) {
		*l = *c.logs[index-c.first]
		c.mu.RUnlock()
		return nil
	}
	c.mu.RUnlock()
	return c.under.GetLog(index, l)
}

// StoreLog writes one entry.
func (c *logCache) StoreLog(l *raft.Log) error { return c.StoreLogs([]*raft.Log{l}) }

// StoreLogs writes entries and then keeps them.
func (c *logCache) StoreLogs(logs []*raft.Log) error {
	if err := c.under.StoreLogs(logs); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range logs {
		c.addLocked(l)
	}
	return nil
}

func (c *logCache) addLocked(l *raft.Log) {
	if len(c.logs) > 0 && l.Index != c.first+uint64(len(c.logs)) {
		c.clearLocked()
	}
	if len(c.logs) == 0 {
		c.first = l.Index
	}
	c.logs = append(c.logs, l)
	c.bytes += logSize(l)
	drop := 0
	for excess := c.bytes - c.limit; excess > 0; drop++ {
		excess -= logSize(c.logs[drop])
	}
	c.dropLocked(drop)
}

// dropLocked forgets the n oldest entries. Their places are cleared at once, and
// append moves the rest when it runs out of room.
func (c *logCache) dropLocked(n int) {
	for i := range n {
		c.bytes -= logSize(c.logs[i])
		c.logs[i] = nil
	}
	c.logs = c.logs[n:]
	c.first += uint64(n)
}

func (c *logCache) clearLocked() { c.logs, c.first, c.bytes = nil, 0, 0 }

// DeleteRange removes entries from either end of the store and from memory.
func (c *logCache) DeleteRange(first, last uint64) error {
	// The cache goes first: a reader in between finds the entry in the store or
	// nowhere, never one here that the store no longer has.
	c.mu.Lock()
	c.forgetLocked(first, last)
	c.mu.Unlock()
	return c.under.DeleteRange(first, last)
}

func (c *logCache) forgetLocked(first, last uint64) {
	if len(c.logs) == 0 || last < first {
		return
	}
	newest := c.first + uint64(len(c.logs)) - 1
	switch {
	case last < c.first || first > newest:
	case first <= c.first && last >= newest:
		c.clearLocked()
	case first <= c.first:
		c.dropLocked(int(last - c.first + 1))
	default: // the end; whatever would be left behind a hole goes too
		keep := int(first - c.first)
		for i := keep; i < len(c.logs); i++ {
			c.bytes -= logSize(c.logs[i])
			c.logs[i] = nil
		}
		c.logs = c.logs[:keep]
	}
}

// size returns the bytes held.
func (c *logCache) size() int64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.bytes
}
