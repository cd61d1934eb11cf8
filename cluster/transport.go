package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"cairn/bug"
)

const (
	helloTimeout = 3 * time.Second  // of one side, from the first byte on
	dialTimeout  = 2 * time.Second  // of the TCP connection
	raftTimeout  = 10 * time.Second // of one Raft message, its write to disk included
	raftPool     = 3                // idle Raft connections kept to each peer
	maxHellos    = 128              // connections that may be opening at a time
)

// tcpNetwork is the Network between real nodes: one listener, whose connections
// say in their hello whether they are for Raft or for peer calls.
type tcpNetwork struct {
	opts      NetworkOptions
	listener  net.Listener
	advertise tcpAddr
	raftConns *connQueue
	peerConns *connQueue
	transport *raftTransport
	calls     *callServer
	client    *callClient
	hellos    chan struct{} // one token for each connection that is opening
	closed    chan struct{}
	running   sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]struct{} // under mu; all that are open, nil after Close
}

var _ Network = (*tcpNetwork)(nil)

// tcpAddr is an advertised address, which need not be an IP address.
type tcpAddr string

func (tcpAddr) Network() string  { return "tcp" }
func (a tcpAddr) String() string { return string(a) }

// listenTCP opens the listener of a node. An advertised address that was left
// out is the one listened on.
func listenTCP(e Endpoint) (net.Listener, tcpAddr, error) {
	l, err := net.Listen("tcp", e.Bind)
	if err != nil {
		return nil, "", fmt.Errorf("listen for other nodes: %w", err)
	}
	if e.Advertise != "" {
		return l, tcpAddr(e.Advertise), nil
	}
	addr, ok := l.Addr().(*net.TCPAddr)
	if !ok || addr.IP.IsUnspecified() {
		return nil, "", errors.Join(
			fmt.Errorf("listen for other nodes on %s: an address to advertise is needed", e.Bind), l.Close())
	}
	return l, tcpAddr(addr.String()), nil
}

// openTCPNetwork listens on a node's Raft endpoint.
func openTCPNetwork(o NetworkOptions) (Network, error) {
	l, advertise, err := listenTCP(o.Raft)
	if err != nil {
		return nil, err
	}
	n := &tcpNetwork{
		opts:      o,
		listener:  l,
		advertise: advertise,
		hellos:    make(chan struct{}, maxHellos),
		closed:    make(chan struct{}),
		conns:     make(map[net.Conn]struct{}),
	}
	n.raftConns, n.peerConns = newConnQueue(advertise), newConnQueue(advertise)
	n.transport = &raftTransport{NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Logger:          newRaftLogger(o.Logger, "raft-net"),
		Stream:          raftStream{n.raftConns, n},
		MaxPool:         raftPool,
		MaxRPCsInFlight: 2,
		Timeout:         raftTimeout,
	}), address: o.Address, offer: o.Offer}
	n.transport.calls = n.transport.NetworkTransport.Consumer()
	if o.MayVote != nil {
		guarded := make(chan raft.RPC)
		in := n.transport.calls
		n.transport.calls = guarded
		n.running.Go(func() { guardVotes(in, guarded, o.MayVote, n.closed) })
	}
	n.client = newCallClient(n.dialPeer)
	n.running.Go(n.accept)
	return n, nil
}

// raftTransport keeps Raft from handling heartbeats beside its main goroutine,
// where they change term and state under its feet (hashicorp/raft#695). And it
// sends each message to where gossip has the server now, with the server's id in
// the address, so that any other node there refuses the connection. The concrete
// transport is embedded so that Close stays visible.
type raftTransport struct {
	*raft.NetworkTransport
	address func(raft.ServerID) (raft.ServerAddress, bool)
	offer   func(id raft.ServerID, addr, snapshot string, manifest []byte) (ready bool, err error)
	calls   <-chan raft.RPC // what Raft is to answer
	behind  sync.Map        // of bug.EarlyAck: servers that a message did not reach
}

// Consumer returns the calls of other nodes.
func (t *raftTransport) Consumer() <-chan raft.RPC { return t.calls }

var errMayNotVote = errors.New("this node has an empty disk and does not vote until it has entries")

// guardVotes passes calls on, but refuses those for votes while mayVote says no.
func guardVotes(in <-chan raft.RPC, out chan<- raft.RPC, mayVote func() bool, closed <-chan struct{}) {
	for {
		var rpc raft.RPC
		select {
		case rpc = <-in:
		case <-closed:
			return
		}
		switch rpc.Command.(type) {
		case *raft.RequestVoteRequest:
			if !mayVote() {
				rpc.Respond(&raft.RequestVoteResponse{}, errMayNotVote)
				continue
			}
		case *raft.RequestPreVoteRequest:
			if !mayVote() {
				rpc.Respond(&raft.RequestPreVoteResponse{}, errMayNotVote)
				continue
			}
		}
		select {
		case out <- rpc:
		case <-closed:
			return
		}
	}
}

// SetHeartbeatHandler does nothing: heartbeats go the way of all messages.
func (*raftTransport) SetHeartbeatHandler(func(raft.RPC)) {}

// at returns a server's id and address in the form that raftStream dials.
func (t *raftTransport) at(id raft.ServerID, listed raft.ServerAddress) raft.ServerAddress {
	if addr, ok := t.address(id); ok {
		listed = addr
	}
	return raft.ServerAddress(string(id) + "@" + string(listed))
}

// AppendEntriesPipeline opens a pipeline to a server, as the methods below send
// it one message.
func (t *raftTransport) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	if bug.Is(bug.EarlyAck) {
		return nil, raft.ErrPipelineReplicationNotSupported
	}
	p, err := t.NetworkTransport.AppendEntriesPipeline(id, t.at(id, target))
	if err != nil {
		return nil, err
	}
	return newPipeline(p), nil
}

// AppendEntries sends entries or a heartbeat.
func (t *raftTransport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if bug.Is(bug.EarlyAck) && len(args.Entries) > 0 {
		return t.pretend(id, target, args, resp)
	}
	return t.NetworkTransport.AppendEntries(id, t.at(id, target), args, resp)
}

// RequestVote asks for a vote.
func (t *raftTransport) RequestVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return t.NetworkTransport.RequestVote(id, t.at(id, target), args, resp)
}

// RequestPreVote asks whether it would be given.
func (t *raftTransport) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return t.NetworkTransport.RequestPreVote(id, t.at(id, target), args, resp)
}

// TimeoutNow tells a server to call an election.
func (t *raftTransport) TimeoutNow(id raft.ServerID, target raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return t.NetworkTransport.TimeoutNow(id, t.at(id, target), args, resp)
}

// raftStream gives the library's transport its connections.
type raftStream struct {
	*connQueue
	net *tcpNetwork
}

// Dial connects to the server of an id@host:port.
func (s raftStream) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	cut := strings.LastIndexByte(string(addr), '@')
	if cut < 0 {
		return nil, fmt.Errorf("address %s does not say whose it is", addr)
	}
	return s.net.dial(context.Background(), string(addr[cut+1:]), string(addr[:cut]), connRaft, min(timeout, dialTimeout))
}

// Transport is what Raft talks through.
func (n *tcpNetwork) Transport() raft.Transport { return n.transport }

// Serve starts to answer the calls of peers.
func (n *tcpNetwork) Serve(s PeerService) {
	n.calls = newCallServer(s)
	n.running.Go(func() {
		if err := n.calls.http.Serve(n.peerConns); !errors.Is(err, http.ErrServerClosed) {
			n.opts.Logger.Error("peer calls are no longer served", "error", err)
		}
	})
}

// Call runs a call on another node.
func (n *tcpNetwork) Call(ctx context.Context, addr, name string, body []byte) ([]byte, error) {
	return n.client.call(ctx, addr, name, body)
}

// Close ends every connection and joins every goroutine of this network. Those
// of the library's transport end with their connections.
func (n *tcpNetwork) Close() error {
	close(n.closed)
	err := n.listener.Close()
	err = errors.Join(err, n.transport.Close(), n.raftConns.Close(), n.peerConns.Close())
	if n.calls != nil {
		err = errors.Join(err, n.calls.http.Close())
	}
	n.client.close()
	n.mu.Lock()
	conns := n.conns
	n.conns = nil
	n.mu.Unlock()
	for c := range conns {
		_ = c.Close() // its owner learns of it
	}
	n.running.Wait()
	return err
}

func (n *tcpNetwork) identity(node string) identity {
	return identity{logID: n.opts.LogID(), secret: n.opts.Secret, node: node}
}

func (n *tcpNetwork) dialPeer(ctx context.Context, addr string) (net.Conn, error) {
	return n.dial(ctx, addr, "", connPeer, dialTimeout)
}

// dial opens a connection to the node of an id, "" = to whoever is there.
func (n *tcpNetwork) dial(ctx context.Context, addr, node string, kind connKind, timeout time.Duration) (net.Conn, error) {
	d := net.Dialer{Timeout: timeout}
	raw, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	conn, err := n.track(raw)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(helloTimeout)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if err := dialHello(conn, kind, n.identity(node)); err != nil {
		n.opts.Logger.Debug("hello refused", "address", addr, "error", err)
		return nil, errors.Join(fmt.Errorf("dial %s: %w", addr, err), conn.Close())
	}
	return conn, conn.SetDeadline(time.Time{})
}

// accept hands connections to Raft and to the peer calls, each when its hello
// is done.
func (n *tcpNetwork) accept() {
	for {
		raw, err := n.listener.Accept()
		if err != nil {
			select {
			case <-n.closed:
				return
			case <-time.After(10 * time.Millisecond): // out of files, say
				n.opts.Logger.Warn("accept a connection", "error", err)
				continue
			}
		}
		select {
		case n.hellos <- struct{}{}:
			n.running.Go(func() { n.welcome(raw) })
		default:
			_ = raw.Close() // too many are opening: a flood or an attack
		}
	}
}

// welcome does the hello of a connection, whose place among the opening ones it
// gives back before the other side can learn how it ended.
func (n *tcpNetwork) welcome(raw net.Conn) {
	conn, err := n.track(raw)
	if err != nil {
		<-n.hellos
		return
	}
	kind, err := n.acceptHello(conn)
	<-n.hellos
	if err != nil {
		n.opts.Logger.Debug("connection refused", "from", raw.RemoteAddr().String(), "error", err)
		_ = conn.Close()
		return
	}
	queue := n.peerConns
	if kind == connRaft {
		queue = n.raftConns
	}
	queue.put(conn)
}

func (n *tcpNetwork) acceptHello(conn net.Conn) (connKind, error) {
	if err := conn.SetDeadline(time.Now().Add(helloTimeout)); err != nil {
		return 0, err
	}
	kind, err := acceptHello(conn, n.identity(n.opts.NodeID))
	if err != nil {
		return 0, err
	}
	return kind, conn.SetDeadline(time.Time{})
}

// trackedConn leaves the network's list when it is closed.
type trackedConn struct {
	net.Conn
	net *tcpNetwork
}

func (c *trackedConn) Close() error {
	c.net.mu.Lock()
	delete(c.net.conns, c)
	c.net.mu.Unlock()
	return c.Conn.Close()
}

func (n *tcpNetwork) track(raw net.Conn) (net.Conn, error) {
	c := &trackedConn{raw, n}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.conns == nil {
		return nil, errors.Join(net.ErrClosed, raw.Close())
	}
	n.conns[c] = struct{}{}
	return c, nil
}

// connQueue is a net.Listener that yields connections accepted elsewhere.
type connQueue struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newConnQueue(addr net.Addr) *connQueue {
	return &connQueue{addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (q *connQueue) put(c net.Conn) {
	select {
	case q.conns <- c:
	case <-q.closed:
		_ = c.Close()
	}
}

func (q *connQueue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.closed:
		return nil, net.ErrClosed
	}
}

func (q *connQueue) Close() error {
	q.once.Do(func() { close(q.closed) })
	return nil
}

func (q *connQueue) Addr() net.Addr { return q.addr }

var _ raft.StreamLayer = raftStream{}
var _ raft.WithPreVote = (*raftTransport)(nil)
var _ raft.WithClose = (*raftTransport)(nil)
