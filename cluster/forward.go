package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"cairn/event"
)

// A follower sends appends to the leader in batches:
//
//	request  ┌────────────┬───────────┬─────────────────────────────┐
//	         │ version u8 │ n uvarint │ n × (length uvarint, command)│
//	         └────────────┴───────────┴─────────────────────────────┘
//	answer   ┌────────────┬───────────┬──────────────────────────────────────────┐
//	         │ version u8 │ n uvarint │ n × (status u8, length uvarint, outcome   │
//	         └────────────┴───────────┴────────── or text of an error) ───────────┘
//
// An answer with an error status of its own (HTTP) means that nothing of the
// batch was proposed.
const (
	callForward    = "forward"
	forwardVersion = 1
	forwardFlying  = 4 // batches under way to one leader
)

// forwardStatus says what became of one append.
type forwardStatus byte

const (
	forwardDecided    forwardStatus = 0 // an outcome follows
	forwardRetry      forwardStatus = 1 // not written; try again
	forwardUnknown    forwardStatus = 2
	forwardOverloaded forwardStatus = 3 // not written
	forwardTimeout    forwardStatus = 4 // not written
	forwardFailed     forwardStatus = 5 // not written; trying again will not help
)

var errForwardForm = errors.New("malformed forward message")

// forwarder sends a follower's appends to one leader. When another node leads,
// it is shut and another forwarder takes its place; what it has under way runs
// to its end, so that a leader that hangs holds up nothing that goes to the
// next one.
type forwarder struct {
	queue   *queue
	ctx     context.Context // of the calls; cancel ends it
	cancel  context.CancelFunc
	peers   *peerClient
	addr    func() string
	timeout time.Duration
	stopped <-chan struct{} // the node's: nothing is waited for any more
	running *sync.WaitGroup // the node's
	stats   *metrics
}

// submit puts a ticket and waits for it, as proposer.submit does.
func (f *forwarder) submit(ctx context.Context, t *ticket) ([]error, error) {
	start, err := f.queue.put(t)
	if err != nil {
		return nil, err
	}
	if start {
		f.running.Go(f.run)
	}
	return f.queue.wait(ctx, t, f.stopped), nil
}

// shut returns what waits as not sent, and lets what is under way run.
func (f *forwarder) shut() { f.queue.shut() }

// abandonAfter is how long a leader that handed over has for its last answers.
const abandonAfter = 300 * time.Millisecond

// abandon gives up what is under way, in a moment: another node leads, and the
// fate of what this one was sent can be learned by a retry alone. A leader that
// stands still would otherwise hold up clients until their time is over.
func (f *forwarder) abandon() { time.AfterFunc(abandonAfter, f.cancel) }

// run sends batches until nothing waits.
func (f *forwarder) run() {
	for batch := f.queue.take(); batch != nil; batch = f.queue.take() {
		f.send(batch)
		f.queue.finish(batch)
	}
}

func (f *forwarder) send(batch []*proposal) {
	ctx, cancel := context.WithTimeout(f.ctx, f.timeout)
	defer cancel()
	answer, err := f.peers.call(ctx, f.addr(), callForward, encodeForward(batch))
	f.stats.forwarded(len(batch), err)
	if err == nil {
		err = decodeForwarded(answer, batch)
	}
	if err == nil {
		return
	}
	// Nothing left this node, or the leader refused the batch as a whole.
	peer, unsent := (*PeerError)(nil), (*notSentError)(nil)
	if errors.As(err, &unsent) || errors.As(err, &peer) {
		err = &retryError{err}
	} else {
		err = &UnknownError{err}
	}
	for _, p := range batch {
		p.err = err
	}
}

// forwardable reports whether a command may come from another node: appends, and
// what defines projections and schemas. All else is for the leader to say.
func forwardable(c *event.Command) bool {
	return c.Kind == event.KindAppend || c.Kind == event.KindSystem && len(c.Append.Events) == 1 && event.IsDefinition(&c.Append.Events[0])
}

func encodeForward(batch []*proposal) []byte {
	size := 16
	for _, p := range batch {
		size += len(p.command) + 4
	}
	b := append(make([]byte, 0, size), forwardVersion)
	b = binary.AppendUvarint(b, uint64(len(batch)))
	for _, p := range batch {
		b = binary.AppendUvarint(b, uint64(len(p.command)))
		b = append(b, p.command...)
	}
	return b
}

// cutForward reads version and count of a message.
func cutForward(b []byte) (n uint64, rest []byte, err error) {
	if len(b) < 2 || b[0] != forwardVersion {
		return 0, nil, errForwardForm
	}
	n, w := binary.Uvarint(b[1:])
	if w <= 0 || n > uint64(len(b)) {
		return 0, nil, errForwardForm
	}
	return n, b[1+w:], nil
}

// cutBytes reads a length and that many bytes.
func cutBytes(b []byte) (v, rest []byte, err error) {
	n, w := binary.Uvarint(b)
	if w <= 0 || n > uint64(len(b)-w) {
		return nil, nil, errForwardForm
	}
	end := w + int(n)
	return b[w:end:end], b[end:], nil
}

func decodeForward(b []byte) ([][]byte, error) {
	n, b, err := cutForward(b)
	if err != nil {
		return nil, err
	}
	commands := make([][]byte, n)
	for i := range commands {
		if commands[i], b, err = cutBytes(b); err != nil {
			return nil, err
		}
	}
	if len(b) != 0 {
		return nil, errForwardForm
	}
	return commands, nil
}

// decodeForwarded gives each proposal of a batch what the leader answered. After
// an error none may be trusted.
func decodeForwarded(b []byte, batch []*proposal) error {
	n, b, err := cutForward(b)
	if err != nil || n != uint64(len(batch)) {
		return errForwardForm
	}
	for _, p := range batch {
		if len(b) == 0 {
			return errForwardForm
		}
		status := forwardStatus(b[0])
		var body []byte
		if body, b, err = cutBytes(b[1:]); err != nil {
			return err
		}
		if status != forwardDecided {
			p.err = status.err(string(body))
			continue
		}
		outcome, used, err := event.DecodeOutcome(body)
		if err != nil || used != len(body) {
			return errForwardForm
		}
		p.outcome = outcome
	}
	if len(b) != 0 {
		return errForwardForm
	}
	return nil
}

func (s forwardStatus) err(text string) error {
	switch s {
	case forwardRetry:
		return &retryError{errors.New(text)}
	case forwardOverloaded:
		return ErrOverloaded
	case forwardTimeout:
		return ErrTimeout
	case forwardFailed:
		return &PeerError{Code: codeFailed, Message: text}
	default:
		return &UnknownError{errors.New(text)}
	}
}

func statusOf(err error) forwardStatus {
	retry, unknown := (*retryError)(nil), (*UnknownError)(nil)
	switch {
	case errors.As(err, &unknown):
		return forwardUnknown
	case errors.As(err, &retry):
		return forwardRetry
	case errors.Is(err, ErrOverloaded):
		return forwardOverloaded
	case errors.Is(err, ErrTimeout):
		return forwardTimeout
	default:
		return forwardFailed
	}
}

func encodeForwarded(results []Result) []byte {
	b := append(make([]byte, 0, 64*len(results)+16), forwardVersion)
	b = binary.AppendUvarint(b, uint64(len(results)))
	var body []byte
	for i := range results {
		status := forwardDecided
		if err := results[i].Err; err != nil {
			status = statusOf(err)
			if unknown := (*UnknownError)(nil); errors.As(err, &unknown) {
				err = unknown.Cause // the other side says itself that it is unknown
			}
			body = append(body[:0], err.Error()...)
		} else {
			body = event.EncodeOutcome(body[:0], &results[i].Outcome)
		}
		b = append(b, byte(status))
		b = binary.AppendUvarint(b, uint64(len(body)))
		b = append(b, body...)
	}
	return b
}

// serveForward answers a follower. It never passes a batch on: if this node
// does not lead, the follower is told so and looks again.
func (n *Node) serveForward(ctx context.Context, body []byte) ([]byte, error) {
	commands, err := decodeForward(body)
	if err != nil {
		return nil, err
	}
	if !n.views.load().open() {
		return nil, ErrNoLeader
	}
	results := make([]Result, len(commands))
	pending := make([]int, 0, len(commands))
	for i, b := range commands {
		// What does not decode must not get into an entry: every node would end
		// when it comes to apply it.
		c, err := event.DecodeCommand(b)
		if err == nil && !forwardable(&c) {
			err = fmt.Errorf("a command of kind %d: %w", c.Kind, event.ErrMalformed)
		}
		if err != nil {
			results[i].Err = err
			continue
		}
		if n.precheck(ctx, &c.Append, b, &results[i]) {
			pending = append(pending, i)
		}
	}
	n.proposeLocal(ctx, commands, pending, results)
	return encodeForwarded(results), nil
}

// newForwarder makes the forwarder to a new leader.
func (n *Node) newForwarder(addr raft.ServerAddress, id raft.ServerID) *forwarder {
	ctx, cancel := context.WithCancel(context.Background())
	return &forwarder{
		ctx: ctx, cancel: cancel,
		queue: &queue{
			maxCount: n.cfg.QueueAppends, maxBytes: n.cfg.QueueBytes, maxFlying: forwardFlying, batch: entryBytes,
		},
		peers:   n.peers,
		addr:    func() string { return n.peerAddress(id, addr) },
		timeout: n.cfg.ProposeTimeout,
		stopped: n.stopped,
		running: &n.running,
		stats:   n.stats,
	}
}
