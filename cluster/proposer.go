package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"cairn/event"
)

const (
	// entryBytes is what an entry is filled up to; a single larger append makes
	// an entry of its own. Nothing caps the bytes of one Raft message, so this
	// and MaxAppendEntries do.
	entryBytes = 512 << 10
	// enqueueTimeout bounds the wait for a place in Raft's own queue, which has
	// more places than entries may be under way.
	enqueueTimeout = 5 * time.Second
)

// applier is what a proposer needs of Raft.
type applier interface {
	ApplyLog(l raft.Log, timeout time.Duration) raft.ApplyFuture
}

// proposer turns appends into entries on the leader. Whoever finds that one
// more entry may be under way makes it, on the spot; the goroutine that learns
// that an entry is applied makes the next one of what has gathered meanwhile.
// Entries are proposed in the order in which appends were put.
type proposer struct {
	queue *queue
	raft  applier
	stamp func() int64
	stats *metrics

	sending sync.Mutex // keeps the order of entries; taken before the queue's
	flights chan flight
	stopped chan struct{} // closed when outcomes are no longer waited for
	done    chan struct{} // closed when the goroutine has ended
}

// flight is an entry that was handed to Raft.
type flight struct {
	future raft.ApplyFuture
	batch  []*proposal
	begun  time.Time
}

func newProposer(q *queue, r applier, stamp func() int64, stats *metrics) *proposer {
	p := &proposer{
		queue: q, raft: r, stamp: stamp, stats: stats,
		flights: make(chan flight, q.maxFlying),
		stopped: make(chan struct{}),
		done:    make(chan struct{}),
	}
	go p.land() // joined by close
	return p
}

// submit puts a ticket and waits for it. It returns nil when every proposal has
// its outcome or its error, else one error for each proposal.
func (p *proposer) submit(ctx context.Context, t *ticket) ([]error, error) {
	start, err := p.queue.put(t)
	if err != nil {
		return nil, err
	}
	if start {
		p.send()
	}
	return p.queue.wait(ctx, t, p.stopped), nil
}

// send proposes what waits as one entry, or notes that nothing does. The caller
// owns one of the batches that may be under way.
func (p *proposer) send() {
	p.sending.Lock()
	defer p.sending.Unlock()
	batch := p.queue.take()
	if batch == nil {
		return
	}
	commands, size := make([][]byte, len(batch)), 0
	for i, b := range batch {
		commands[i] = b.command
		size += len(b.command) + 4
	}
	// A new slice each time: Raft keeps it, even after the future has returned.
	entry := event.EncodeEntry(make([]byte, 0, size+32), p.stamp(), commands)
	f := flight{batch: batch, begun: time.Now()}
	f.future = p.raft.ApplyLog(raft.Log{Data: entry}, enqueueTimeout)
	p.stats.proposed(len(batch), len(entry))
	p.flights <- f // never blocks: it has room for all that may be under way
}

// land waits for entries, in order, until close. The future of an entry that
// Raft had not finished when it was shut down never returns; close does not
// wait for it then.
func (p *proposer) land() {
	defer close(p.done)
	for f := range p.flights {
		err := f.future.Error()
		settle(f, err)
		p.stats.landed(time.Since(f.begun), err)
		p.send()
		p.queue.finish(f.batch)
	}
}

// settle gives each proposal of an entry what became of it.
func settle(f flight, err error) {
	if err == nil {
		switch response := f.future.Response().(type) {
		case []event.Outcome:
			if len(response) == len(f.batch) {
				for i, p := range f.batch {
					p.outcome = response[i]
				}
				return
			}
			err = fmt.Errorf("%d outcomes for %d commands", len(response), len(f.batch))
		case error:
			err = response
		default:
			err = fmt.Errorf("a response of type %T", response)
		}
	}
	err = proposeError(err)
	for _, p := range f.batch {
		p.err = err
	}
}

// proposeError says what an error of Raft means for what was proposed. These
// three are only ever given before the entry is written; all others may come
// after, and an entry that was written may yet be committed by another leader.
func proposeError(err error) error {
	if errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrLeadershipTransferInProgress) ||
		errors.Is(err, raft.ErrEnqueueTimeout) {
		return &retryError{err}
	}
	return &UnknownError{err}
}

// drain waits until no entry is under way. No ticket may be put meanwhile.
func (p *proposer) drain(ctx context.Context) error {
	for !p.queue.idle() {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// close refuses further tickets and waits, as long as ctx allows, for the
// entries under way. Those who still wait after that learn that their outcome
// is unknown. Raft must still run.
func (p *proposer) close(ctx context.Context) error {
	p.queue.shut()
	if err := p.drain(ctx); err != nil {
		close(p.stopped)
		return fmt.Errorf("wait for entries under way: %w", err)
	}
	close(p.flights)
	<-p.done // all who waited have their outcomes
	close(p.stopped)
	return nil
}

// wait returns nil when a ticket is done. If ctx or stop ends first, the ticket
// is given up and the result has an error for each proposal.
func (q *queue) wait(ctx context.Context, t *ticket, stop <-chan struct{}) []error {
	var cause error
	select {
	case <-t.done:
		return nil
	case <-ctx.Done():
		cause = ctx.Err()
	case <-stop:
		cause = ErrClosed
	}
	errs := make([]error, len(t.proposals))
	for i, wasSent := range q.abandon(t) {
		if wasSent {
			errs[i] = &UnknownError{cause}
		} else {
			errs[i] = fmt.Errorf("%w: %w", ErrTimeout, cause)
		}
	}
	return errs
}
