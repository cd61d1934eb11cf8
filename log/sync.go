package eventlog

import "fmt"

// Sync makes all events up to position through durable, and the names of their
// files. It may run while Append does; it then makes durable at least what was
// appended before the call. Any error is the end of writing: a sync that went
// wrong is never tried again, for the system may have forgotten what it could
// not write.
func (l *Log) Sync(through uint64) error {
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	if err := l.writable(); err != nil {
		return err
	}
	// Counted before the files are synced: what is created later belongs to
	// later positions.
	created := l.created.Load()
	if err := l.syncSegmentsLocked(through); err != nil {
		return l.poison(err)
	}
	if created > l.dirSynced {
		if err := l.dir.sync(); err != nil {
			return l.poison(err)
		}
		l.dirSynced = created
	}
	return nil
}

// syncSegmentsLocked syncs every segment with events up to through that has
// bytes not known to be durable. l.syncMu is held.
func (l *Log) syncSegmentsLocked(through uint64) error {
	for _, s := range l.unsyncedSegments(through) {
		l.mu.RLock()
		size, sealed := s.size, s.sealed
		l.mu.RUnlock()
		if err := s.pin.file.SyncData(); err != nil {
			return fmt.Errorf("sync %s: %w", SegmentName(s.base), err)
		}
		l.mu.Lock()
		n := size - s.synced
		s.synced = size
		l.mu.Unlock()
		l.unsynced.Add(-n)
		l.syncs.Add(1)
		if sealed {
			l.unpin(s)
		}
	}
	return nil
}

func (l *Log) unsyncedSegments(through uint64) []*segment {
	l.mu.RLock()
	defer l.mu.RUnlock()
	i := len(l.segments)
	for i > 0 && l.segments[i-1].synced < l.segments[i-1].size {
		i--
	}
	var found []*segment
	for _, s := range l.segments[i:] {
		if s.base <= through {
			found = append(found, s)
		}
	}
	return found
}
