package lab

import (
	"container/heap"
	"slices"
	"sync"
	"time"
)

// maxHeld is how many bytes may be under way on slow links together; what comes
// beyond is lost.
const maxHeld = 256 << 20

// heldFrame is a frame that waits for its time.
type heldFrame struct {
	link  *link
	due   time.Time
	order uint64 // of frames with the same time
	frame []byte
}

// delayLine holds frames back and hands each to its link when it is due. One
// goroutine does that, so frames of a link keep the order of their times.
type delayLine struct {
	mu     sync.Mutex
	held   frameHeap
	bytes  int
	count  uint64
	closed bool

	earlier chan struct{} // there is a new first frame, or the end
	done    chan struct{} // the goroutine has ended
}

func newDelayLine() *delayLine {
	d := &delayLine{earlier: make(chan struct{}, 1), done: make(chan struct{})}
	go d.run()
	return d
}

// hold takes a copy of frame. It returns false if there is no room. The link's
// mutex may be held: the line never takes it while it holds its own.
func (d *delayLine) hold(l *link, due time.Time, frame []byte) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.bytes+len(frame) > maxHeld {
		return false
	}
	d.bytes += len(frame)
	d.count++
	heap.Push(&d.held, heldFrame{l, due, d.count, slices.Clone(frame)})
	if d.held[0].order == d.count {
		d.wake()
	}
	return true
}

func (d *delayLine) wake() {
	select {
	case d.earlier <- struct{}{}:
	default:
	}
}

// next returns a frame that is due, or how long to wait for the first one.
func (d *delayLine) next() (f heldFrame, wait time.Duration, closed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || len(d.held) == 0 {
		return heldFrame{}, time.Hour, d.closed
	}
	if wait = time.Until(d.held[0].due); wait > 0 {
		return heldFrame{}, wait, false
	}
	f = heap.Pop(&d.held).(heldFrame)
	d.bytes -= len(f.frame)
	return f, 0, false
}

func (d *delayLine) run() {
	defer close(d.done)
	for {
		f, wait, closed := d.next()
		switch {
		case closed:
			return
		case wait == 0:
			f.link.arrive(f.frame)
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-d.earlier:
			timer.Stop()
		}
	}
}

// close ends the goroutine. Frames that still wait are gone.
func (d *delayLine) close() {
	d.mu.Lock()
	d.closed = true
	d.held = nil
	d.mu.Unlock()
	d.wake()
	<-d.done
}

// frameHeap is a heap of frames, the one that is due first on top.
type frameHeap []heldFrame

func (h frameHeap) Len() int { return len(h) }

func (h frameHeap) Less(i, j int) bool {
	if !h[i].due.Equal(h[j].due) {
		return h[i].due.Before(h[j].due)
	}
	return h[i].order < h[j].order
}

func (h frameHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

func (h *frameHeap) Push(x any) { *h = append(*h, x.(heldFrame)) }

func (h *frameHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}
