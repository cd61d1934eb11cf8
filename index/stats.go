package index

import "sync/atomic"

// counters count since Open.
type counters struct {
	commits, commitBytes, terms, merges, reads, blocks, merged atomic.Uint64
}

// Stats are figures for an operator.
type Stats struct {
	OverlayEvents uint64 // in the active overlay, as are the next two
	OverlayTerms  int
	OverlayBytes  int64
	FrozenBytes   int64 // of the frozen overlay, 0 if there is none
	OpenViews     int64

	// Since Open:
	Commits       uint64
	CommitBytes   uint64 // of batches
	TermsWritten  uint64
	HeadsMerged   uint64 // of these, written without a look at their heads
	HeadsRead     uint64 // of these, found in the store and written anew
	BlocksWritten uint64 // those merged too
	BlocksMerged  uint64 // written again with more postings
	WriteStalls   uint64 // commits that waited for a flush or a compaction
	Flushes       uint64 // memtables written to disk
	Compactions   uint64

	DiskBytes      uint64 // of tables, WAL and files not yet deleted
	MemTableBytes  uint64
	CacheBytes     int64
	CacheHits      int64
	CacheMisses    int64
	ReadAmp        int
	CompactionDebt uint64
}

// Stats returns the figures of now. It costs some 100 µs.
func (x *Index) Stats() Stats {
	s := Stats{
		OpenViews:     x.views.Load(),
		Commits:       x.counts.commits.Load(),
		CommitBytes:   x.counts.commitBytes.Load(),
		TermsWritten:  x.counts.terms.Load(),
		HeadsMerged:   x.counts.merges.Load(),
		HeadsRead:     x.counts.reads.Load(),
		BlocksWritten: x.counts.blocks.Load(),
		BlocksMerged:  x.counts.merged.Load(),
		WriteStalls:   x.store.stalls.Load(),
	}
	x.open.RLock()
	defer x.open.RUnlock()
	x.mu.RLock()
	closed := x.closed
	s.OverlayEvents, s.OverlayTerms, s.OverlayBytes = x.active.events, len(x.active.terms), x.active.bytes
	if x.frozen != nil {
		s.FrozenBytes = x.frozen.bytes
	}
	x.mu.RUnlock()
	if closed || x.store.failed() != nil { // after a failure Pebble may hold its locks for good
		return s
	}
	m := x.store.db.Metrics()
	s.DiskBytes = m.DiskSpaceUsage()
	s.MemTableBytes = m.MemTable.Size
	s.CacheBytes, s.CacheHits, s.CacheMisses = m.BlockCache.Size, m.BlockCache.Hits, m.BlockCache.Misses
	s.ReadAmp = m.ReadAmp()
	s.Flushes, s.Compactions = uint64(m.Flush.Count), uint64(m.Compact.Count)
	s.CompactionDebt = m.Compact.EstimatedDebt
	return s
}
