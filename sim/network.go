package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"cairn/cluster"
)

// Ports of a node on its address, as cairn-node has them by default.
const (
	raftPort   = "7071"
	gossipPort = 7072
)

var (
	errReset   = errors.New("connection reset")
	errRefused = errors.New("connection refused")
	errTimeout = errors.New("i/o timeout")
)

// network carries what the nodes send each other. A message that takes the way
// of a connection (Raft's, a peer call) waits while its link is cut, as TCP
// sends again, until its sender loses patience; a packet of the gossip is lost.
type network struct {
	mu      sync.Mutex
	rng     *rand.Rand           // under mu
	ends    map[string]*endpoint // by address: who listens there; under mu
	links   map[way]quality      // under mu
	changed chan struct{}        // closed and replaced when links change; under mu

	held, lost, slowed atomic.Int64 // messages that waited at a cut, packets that vanished, what came later than usual
}

// way is the one direction from one address to another.
type way struct{ from, to string }

// quality is how a way is disturbed.
type quality struct {
	cut   bool
	delay time.Duration // added to the usual one, at most
	loss  int           // percent of the packets
}

func newNetwork(rng *rand.Rand) *network {
	return &network{rng: rng, ends: map[string]*endpoint{}, links: map[way]quality{}, changed: make(chan struct{})}
}

// set replaces all disturbances.
func (n *network) set(links map[way]quality) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.links = links
	close(n.changed)
	n.changed = make(chan struct{})
}

// endpoint is the end of one run of a node. Once it is dead nothing that its
// node sends arrives any more.
type endpoint struct {
	net     *network
	address string
	id      string
	dead    chan struct{} // closed by kill
	shut    chan struct{} // closed by Close: the node has stopped cleanly, and sends nothing more
	once    sync.Once     // guards shut

	raft    *transport
	packets chan *packet
	streams chan net.Conn

	mu      sync.Mutex
	service cluster.PeerService // under mu; nil before Serve
}

// listen makes a run's endpoint and puts it in the place of the one before.
func (n *network) listen(address, id string) *endpoint {
	e := &endpoint{
		net: n, address: address, id: id, dead: make(chan struct{}), shut: make(chan struct{}),
		packets: make(chan *packet, 64), streams: make(chan net.Conn),
	}
	e.raft = newTransport(e)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ends[address] = e
	return e
}

// kill ends a run as far as the others can tell. When it returns, nothing of
// what the run does from now on can be seen.
func (e *endpoint) kill() {
	e.net.mu.Lock()
	defer e.net.mu.Unlock()
	close(e.dead)
	if e.net.ends[e.address] == e {
		delete(e.net.ends, e.address)
	}
}

func (e *endpoint) killed() bool {
	select {
	case <-e.dead:
		return true
	default:
		return false
	}
}

// send takes a message to an address, as over a connection, and returns who
// listens there when it arrives. Whose connection it is gives up when done is
// closed, and has ended it when shut is.
func (e *endpoint) send(done, shut <-chan struct{}, to string) (*endpoint, error) {
	n := e.net
	for first := true; ; first = false {
		n.mu.Lock()
		q, changed, delay := n.links[way{e.address, to}], n.changed, n.delayLocked(way{e.address, to})
		n.mu.Unlock()
		switch {
		case e.killed():
			return nil, errReset
		case q.cut:
			if first {
				n.held.Add(1)
			}
			select {
			case <-changed:
				continue
			case <-done:
				return nil, errTimeout
			case <-e.dead:
				return nil, errReset
			case <-shut:
				return nil, errReset
			}
		}
		time.Sleep(delay)
		n.mu.Lock()
		peer := n.ends[to]
		n.mu.Unlock()
		if peer == nil {
			return nil, errRefused
		}
		return peer, nil
	}
}

// delayLocked is how long a message travels: a tenth to one millisecond, more
// on a disturbed way, and a lost part of a connection is sent again.
func (n *network) delayLocked(w way) time.Duration {
	q := n.links[w]
	if q.delay > 0 {
		n.slowed.Add(1)
	}
	d := 100*time.Microsecond + time.Duration(n.rng.Int64N(int64(900*time.Microsecond)))
	if q.delay > 0 {
		d += time.Duration(n.rng.Int64N(int64(q.delay)))
	}
	for q.loss > 0 && n.rng.IntN(100) < q.loss {
		d += 200 * time.Millisecond
	}
	return d
}

// respond takes an answer back over the connection that the question came by.
func (e *endpoint) respond(done <-chan struct{}, to *endpoint) error {
	if e.killed() {
		return errReset
	}
	back, err := e.send(done, to.shut, to.address)
	if err == nil && back != to {
		err = errReset
	}
	return err
}

// The methods below make an endpoint a cluster.Network.

// Serve starts to answer the calls of peers.
func (e *endpoint) Serve(s cluster.PeerService) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.service = s
}

// Call runs a call on the node at a Raft address.
func (e *endpoint) Call(ctx context.Context, addr, name string, body []byte) ([]byte, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, cluster.NotSent(err)
	}
	peer, err := e.send(ctx.Done(), e.shut, host)
	if err != nil {
		return nil, cluster.NotSent(fmt.Errorf("dial %s: %w", addr, err))
	}
	peer.mu.Lock()
	service := peer.service
	peer.mu.Unlock()
	if service == nil {
		return nil, cluster.NotSent(fmt.Errorf("dial %s: %w", addr, errRefused))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type reply struct {
		body []byte
		err  error
	}
	got := make(chan reply, 1)
	go func() {
		body, err := service(ctx, name, append([]byte(nil), body...))
		got <- reply{body, err}
	}()
	select {
	case r := <-got:
		if err := peer.respond(ctx.Done(), e); err != nil {
			return nil, fmt.Errorf("call %s at %s: %w", name, addr, err)
		}
		if r.err != nil {
			return nil, cluster.Answered(r.err)
		}
		return r.body, nil
	case <-peer.dead:
	case <-e.dead:
	case <-e.shut:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return nil, fmt.Errorf("call %s at %s: %w", name, addr, errReset)
}

// Close ends what waits for an answer. The run that owns the endpoint kills it.
func (e *endpoint) Close() error {
	e.once.Do(func() { close(e.shut) })
	return nil
}
