package eventlog

import (
	"time"

	"cairn/event"
)

// slowRead is what a read takes that had to wait for a disk, and one from the
// cache hardly ever.
const slowRead = 50 * time.Microsecond

// Points reads single events, and notices when they come from a cold disk. One
// goroutine uses it.
type Points struct {
	Log  *Log
	slow bool
}

// Read is Log.Read.
func (p *Points) Read(position uint64) (event.Event, error) {
	if p.slow {
		return p.Log.Read(position)
	}
	begun := time.Now()
	e, err := p.Log.Read(position)
	p.slow = time.Since(begun) > slowRead
	return e, err
}

// Slow says that a read had to wait for the disk: it pays to call Prefetch with
// what will be read next.
func (p *Points) Slow() bool { return p.slow }

// prefetchMost bounds what is read ahead of one record, in bytes.
const prefetchMost = 64 << 10

// Prefetch has the system read the records at some positions into its cache, all
// at once, for one who will soon read them one by one: on a cold disk that costs
// little more than reading a single one. It is advice. What goes wrong shows when
// a record is read.
func (l *Log) Prefetch(positions []uint64) {
	for _, position := range positions {
		if base, at, sealed := l.footerEntry(position); sealed {
			l.readAhead(base, at, 2*tableEntry)
		}
	}
	for _, position := range positions {
		if x, err := l.locate(position); err == nil {
			l.readAhead(x.base, x.off, min(x.end-x.off, prefetchMost))
		}
	}
}

// footerEntry returns where the footer of a sealed segment says where the record
// of a position lies.
func (l *Log) footerEntry(position uint64) (base uint64, at int64, sealed bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	s := l.findLocked(position)
	if s == nil || !s.sealed {
		return 0, 0, false
	}
	return s.base, s.end + int64(position-s.base)*tableEntry, true
}

func (l *Log) readAhead(base uint64, at, size int64) {
	h, err := l.handles.acquire(base)
	if err != nil {
		return
	}
	defer l.handles.release(h)
	_ = h.file.Prefetch(at, size)
}
