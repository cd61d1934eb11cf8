package eventlog

import (
	"fmt"
	"sync"
)

// flusher syncs the segments in the background, every so many bytes.
type flusher struct {
	log   *Log
	every int64
	bytes int64 // written since it was last woken; of the appending goroutine
	wake  chan struct{}
	quit  chan struct{}
	done  sync.WaitGroup
}

// startFlusher starts the goroutine; stop joins it.
func startFlusher(l *Log) *flusher {
	f := &flusher{log: l, every: l.options.Flush, wake: make(chan struct{}, 1), quit: make(chan struct{})}
	if f.every == 0 {
		f.every = defaultFlush
	}
	if f.every > 0 {
		f.done.Go(f.run)
	}
	return f
}

func (f *flusher) stop() {
	close(f.quit)
	f.done.Wait()
}

// wrote counts what Append has written and wakes the goroutine.
func (f *flusher) wrote(n int64) {
	if f.every < 0 {
		return
	}
	if f.bytes += n; f.bytes < f.every {
		return
	}
	f.bytes = 0
	select {
	case f.wake <- struct{}{}:
	default: // it is at it
	}
}

func (f *flusher) run() {
	for {
		select {
		case <-f.quit:
			return
		case <-f.wake:
		}
		if err := f.flush(); err != nil {
			if f.log.options.OnError != nil {
				f.log.options.OnError(err)
			}
			return
		}
	}
}

func (f *flusher) flush() error {
	l := f.log
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	if l.writable() != nil {
		return nil // whoever poisoned it has reported it
	}
	if err := l.syncSegmentsLocked(l.Last()); err != nil {
		return l.poison(fmt.Errorf("flush: %w", err))
	}
	return nil
}
