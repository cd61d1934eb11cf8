package cluster

import (
	"slices"
	"sync"

	"cairn/event"
)

// proposal is one append on its way. All but state belongs to whoever made it
// until it is put into a queue, then to the queue until it is done or gone.
type proposal struct {
	command []byte
	outcome event.Outcome
	err     error // *UnknownError, retryError, or nil
	state   proposalState
	ticket  *ticket
}

// proposalState is under the queue's mutex.
type proposalState uint8

const (
	waiting proposalState = iota // in the queue: nothing of it has left
	sent                         // on its way
	gone                         // given up while it waited
)

// ticket is a group of proposals that are put together and waited for
// together. They keep their order, and go in one batch if they fit into one: then
// all are written or none.
type ticket struct {
	proposals []proposal
	bytes     int           // of their commands
	left      int           // under the queue's mutex; not yet done
	done      chan struct{} // closed when left is 0
}

func newTicket(commands [][]byte) *ticket {
	t := &ticket{proposals: make([]proposal, len(commands)), left: len(commands), done: make(chan struct{})}
	for i, c := range commands {
		t.proposals[i] = proposal{command: c, ticket: t}
		t.bytes += len(c)
	}
	return t
}

// retryError says that a proposal was not written, and that it may succeed once
// another node leads or this one is ready.
type retryError struct{ cause error }

func (e *retryError) Error() string { return e.cause.Error() }
func (e *retryError) Unwrap() error { return e.cause }

// goneKept is how many proposals that were given up may stay in the queue.
const goneKept = 1024

// queue gathers proposals into batches. There is no timer: while the batches
// under way are as many as they may be, the next one fills. It is bounded, by
// count and by bytes.
type queue struct {
	maxCount  int
	maxBytes  int64
	maxFlying int // batches under way
	batch     int // bytes of a batch, unless one proposal is larger

	mu      sync.Mutex
	closed  bool        // under mu
	waiting []*proposal // under mu; oldest first, some of them gone
	count   int         // under mu; of those waiting, the ones not gone
	bytes   int64       // under mu; of the same
	flying  int         // under mu
}

// put adds a ticket. If it returns start, the caller must see to it that take
// is called: a batch more is under way now. An error means that the ticket was
// not added.
func (q *queue) put(t *ticket) (start bool, err error) {
	bytes := int64(t.bytes)
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		return false, &retryError{ErrNoLeader}
	case q.count > 0 && (q.count+len(t.proposals) > q.maxCount || q.bytes+bytes > q.maxBytes):
		return false, ErrOverloaded
	}
	for i := range t.proposals {
		q.waiting = append(q.waiting, &t.proposals[i])
	}
	q.count += len(t.proposals)
	q.bytes += bytes
	if q.flying < q.maxFlying {
		q.flying++
		return true, nil
	}
	return false, nil
}

// take removes the next batch from the queue. It returns none, and one batch
// less is under way, if nothing waits.
func (q *queue) take() []*proposal {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, size := 0, 0
	var batch []*proposal
	for _, p := range q.waiting {
		if p.state == waiting {
			if len(batch) > 0 && size+q.unit(p) > q.batch {
				break
			}
			if batch == nil {
				batch = make([]*proposal, 0, min(q.count, 1024))
			}
			size += len(p.command)
			p.state = sent
			batch = append(batch, p)
		}
		n++
	}
	clear(q.waiting[:n])
	if q.waiting = q.waiting[n:]; len(q.waiting) == 0 {
		q.waiting = nil
	}
	q.count -= len(batch)
	q.bytes -= int64(size)
	if batch == nil {
		q.flying--
	}
	return batch
}

// unit is how much room a batch must have for p. The first of a ticket that fits
// into a batch brings the others with it.
func (q *queue) unit(p *proposal) int {
	if t := p.ticket; p == &t.proposals[0] && t.bytes <= q.batch {
		return t.bytes
	}
	return len(p.command)
}

// finish says that a batch's outcomes and errors are set, and wakes those whose
// ticket is complete.
func (q *queue) finish(batch []*proposal) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, p := range batch {
		q.doneLocked(p.ticket)
	}
}

func (q *queue) doneLocked(t *ticket) {
	if t.left--; t.left == 0 {
		close(t.done)
	}
}

// abandon gives up a ticket whose time is up. It returns for each of its
// proposals whether it had been sent; the others have left the queue for good.
func (q *queue) abandon(t *ticket) (wasSent []bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	wasSent = make([]bool, len(t.proposals))
	for i := range t.proposals {
		p := &t.proposals[i]
		if p.state == waiting {
			p.state = gone
			q.count--
			q.bytes -= int64(len(p.command))
			p.command = nil
		}
		wasSent[i] = p.state == sent
	}
	// Nothing may be taken for long, while clients come and give up.
	if len(q.waiting) > 2*q.count+goneKept {
		q.waiting = slices.DeleteFunc(q.waiting, func(p *proposal) bool { return p.state == gone })
	}
	return wasSent
}

// shut refuses more tickets until reopen and returns those waiting as not
// written. Batches under way are not touched.
func (q *queue) shut() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	for _, p := range q.waiting {
		if p.state == waiting {
			p.state, p.err = gone, &retryError{ErrNoLeader}
			q.doneLocked(p.ticket)
		}
	}
	q.waiting, q.count, q.bytes = nil, 0, 0
}

// reopen takes tickets again.
func (q *queue) reopen() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = false
}

// idle reports whether no batch is under way.
func (q *queue) idle() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.flying == 0
}

// depth returns what waits.
func (q *queue) depth() (count int, bytes int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.count, q.bytes
}
