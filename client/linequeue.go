package client

import (
	"io"
	"iter"
	"net/http"
	"sync"
	"time"

	"cairn/event"
)

// lineQueue holds the lines of an AppendStream that are not answered yet,
// oldest first. One goroutine feeds it, one connection at a time takes bytes
// from it (a lineBody), and the receiver pops what was answered.
type lineQueue struct {
	maxLines, maxBytes int

	mu      sync.Mutex
	changed sync.Cond // of mu; any of what follows has changed
	lines   []queuedLine
	bytes   int       // of lines
	next    int       // the line that the current connection takes next
	offset  int       // how many of its bytes it has taken
	touched int       // how many of lines any connection has taken, in part at least
	ended   bool      // no line will be added
	stopped bool      // everything is given up
	current *lineBody // the connection's
	moved   time.Time // when the oldest line became the oldest, or was sent anew
}

// queuedLine is an append, encoded, with its newline.
type queuedLine struct {
	b   []byte
	ids []string
	err error // it can't be encoded; it is never sent
}

func newLineQueue(maxLines, maxBytes int) *lineQueue {
	q := &lineQueue{maxLines: maxLines, maxBytes: maxBytes}
	q.changed.L = &q.mu
	return q
}

// feed takes lines until there are no more, or the queue is stopped.
func (q *lineQueue) feed(lines iter.Seq[event.Append]) {
	for a := range lines {
		var w encoder
		var line queuedLine
		a.Events, line.ids = withIDs(a.Events)
		w.request(&a)
		w.raw("\n")
		line.b, line.err = w.b, w.err
		if !q.push(line) {
			break
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
	q.changed.Broadcast()
}

// push waits for room. It returns false when the queue is stopped.
func (q *lineQueue) push(line queuedLine) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.stopped && len(q.lines) > 0 && (len(q.lines) >= q.maxLines || q.bytes+len(line.b) > q.maxBytes) {
		q.changed.Wait()
	}
	if q.stopped {
		return false
	}
	if len(q.lines) == 0 {
		q.moved = time.Now()
	}
	q.lines = append(q.lines, line)
	q.bytes += len(line.b)
	q.changed.Broadcast()
	return true
}

func (q *lineQueue) stop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stopped = true
	q.changed.Broadcast()
}

// wait returns true when a line is there, and false when none will come.
func (q *lineQueue) wait() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.stopped && !q.ended && len(q.lines) == 0 {
		q.changed.Wait()
	}
	return !q.stopped && len(q.lines) > 0
}

// done reports whether every line there was or will be is answered.
func (q *lineQueue) done() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.ended && len(q.lines) == 0
}

// empty reports whether every line there is so far is answered.
func (q *lineQueue) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.lines) == 0
}

// waiting returns for how long the oldest line has been unanswered.
func (q *lineQueue) waiting() time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.lines) == 0 {
		return 0
	}
	return time.Since(q.moved)
}

// open returns the ids of everything that may have been sent and is not
// answered.
func (q *lineQueue) open() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	var ids []string
	for _, line := range q.lines[:q.touched] {
		ids = append(ids, line.ids...)
	}
	return ids
}

// pop removes the oldest line; it returns false if that was not sent whole.
func (q *lineQueue) pop() (queuedLine, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.next == 0 {
		return queuedLine{}, false
	}
	return q.popLocked(), true
}

// popUnsendable removes the oldest line if it can't be sent.
func (q *lineQueue) popUnsendable() (queuedLine, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.lines) == 0 || q.lines[0].err == nil {
		return queuedLine{}, false
	}
	return q.popLocked(), true
}

func (q *lineQueue) popLocked() queuedLine {
	line := q.lines[0]
	q.lines[0] = queuedLine{}
	q.lines = q.lines[1:]
	q.next, q.touched = max(q.next-1, 0), max(q.touched-1, 0)
	q.bytes -= len(line.b)
	q.moved = time.Now()
	q.changed.Broadcast()
	return line
}

// rewind begins a new connection, to which every unanswered line is sent anew.
// The body of the one before takes nothing more.
func (q *lineQueue) rewind() *lineBody {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.next, q.offset, q.moved = 0, 0, time.Now()
	q.current = &lineBody{q: q}
	q.changed.Broadcast()
	return q.current
}

// lineBody is the body of one connection's request. Reads wait for lines.
type lineBody struct {
	q *lineQueue
}

// Read takes as many bytes of lines as fit.
func (b *lineBody) Read(to []byte) (int, error) {
	q := b.q
	q.mu.Lock()
	defer q.mu.Unlock()
	n := 0
	for n == 0 {
		if q.stopped || q.current != b {
			return 0, http.ErrBodyReadAfterClose
		}
		for q.next < len(q.lines) && n < len(to) {
			line := &q.lines[q.next]
			if line.err == nil {
				taken := copy(to[n:], line.b[q.offset:])
				n += taken
				q.offset += taken
				q.touched = max(q.touched, q.next+1)
				if q.offset < len(line.b) {
					break
				}
			}
			q.next, q.offset = q.next+1, 0
		}
		if n == 0 {
			if q.ended && q.next == len(q.lines) {
				return 0, io.EOF
			}
			q.changed.Wait()
		}
	}
	return n, nil
}

// Close ends the reads of this connection.
func (b *lineBody) Close() error {
	b.q.mu.Lock()
	defer b.q.mu.Unlock()
	if b.q.current == b {
		b.q.current = nil
	}
	b.q.changed.Broadcast()
	return nil
}
