package cluster

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// memHub is a network in memory for nodes that run in a synctest bubble. A node
// can be cut off, so that nothing reaches or leaves it, or frozen, so that what
// is sent to it hangs.
type memHub struct {
	mu     sync.Mutex
	nodes  map[string]*memNetwork
	cut    map[string]bool
	frozen map[string]chan struct{} // closed when it thaws
	calls  map[string]int           // peer calls by name
}

func newMemHub() *memHub {
	return &memHub{
		nodes: map[string]*memNetwork{}, cut: map[string]bool{}, frozen: map[string]chan struct{}{}, calls: map[string]int{},
	}
}

// memNetwork is a node's end of it.
type memNetwork struct {
	hub   *memHub
	addr  string
	trans *memTransport

	dead chan struct{} // closed when its process dies

	mu      sync.Mutex
	service PeerService
}

// memTransport is Raft's transport, which hangs where the hub says so.
type memTransport struct {
	*raft.InmemTransport
	hub *memHub
}

func (t *memTransport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	t.hub.thawed(string(target))
	return t.InmemTransport.AppendEntries(id, target, args, resp)
}

func (t *memTransport) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// thawed waits while a node is frozen.
func (h *memHub) thawed(addr string) {
	h.mu.Lock()
	ch := h.frozen[addr]
	h.mu.Unlock()
	if ch != nil {
		<-ch
	}
}

func (h *memHub) freeze(addr string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.frozen[addr] = make(chan struct{})
}

func (h *memHub) thaw(addr string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.frozen[addr])
	delete(h.frozen, addr)
}

// join adds a node and connects it to the others.
func (h *memHub) join(addr string) *memNetwork {
	_, inner := raft.NewInmemTransportWithTimeout(raft.ServerAddress(addr), 500*time.Millisecond)
	n := &memNetwork{hub: h, addr: addr, trans: &memTransport{inner, h}, dead: make(chan struct{})}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.nodes[addr] = n
	h.connectLocked()
	return n
}

func (h *memHub) connectLocked() {
	for a, na := range h.nodes {
		for b, nb := range h.nodes {
			if h.cut[a] || h.cut[b] {
				na.trans.Disconnect(raft.ServerAddress(b))
			} else if a != b {
				na.trans.Connect(raft.ServerAddress(b), nb.trans.InmemTransport)
			}
		}
	}
}

// kill ends a node's process, as far as the others can tell: its connections
// break and its address refuses new ones.
func (h *memHub) kill(addr string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cut[addr] = true
	h.connectLocked()
	close(h.nodes[addr].dead)
	delete(h.nodes, addr)
}

// setCut cuts a node off or lets it back.
func (h *memHub) setCut(addr string, cut bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cut[addr] = cut
	h.connectLocked()
}

func (n *memNetwork) Transport() raft.Transport { return n.trans }

func (n *memNetwork) Serve(s PeerService) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.service = s
}

func (n *memNetwork) Call(ctx context.Context, addr, name string, body []byte) ([]byte, error) {
	h := n.hub
	h.mu.Lock()
	peer, cut := h.nodes[addr], h.cut[addr] || h.cut[n.addr]
	h.calls[name]++
	h.mu.Unlock()
	if peer == nil {
		return nil, &notSentError{syscall.ECONNREFUSED}
	}
	if cut {
		return nil, &notSentError{errors.New("unreachable")}
	}
	peer.mu.Lock()
	service := peer.service
	peer.mu.Unlock()
	if service == nil {
		return nil, &notSentError{syscall.ECONNREFUSED}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-peer.dead:
			cancel(errors.New("connection reset"))
		case <-ctx.Done():
		}
	}()
	answer, err := service(ctx, name, body)
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause
	}
	if p := (*PeerError)(nil); err != nil && !errors.As(err, &p) {
		err = &PeerError{Code: codeFailed, Message: err.Error()}
	}
	return answer, err
}

func (n *memNetwork) Close() error {
	n.hub.mu.Lock()
	defer n.hub.mu.Unlock()
	if n.hub.nodes[n.addr] == n {
		delete(n.hub.nodes, n.addr)
	}
	return nil
}

// memCluster is a testCluster in memory.
type memCluster struct {
	*testCluster
	hub  *memHub
	disk []*raft.InmemStore
}

// newMemCluster starts nodes in memory and waits until one leads. It must be
// called in a synctest bubble, and closed there.
func newMemCluster(t *testing.T, size int, change func(i int, c *Config)) *memCluster {
	t.Helper()
	m := &memCluster{hub: newMemHub()}
	m.testCluster = &testCluster{t: t, dir: t.TempDir(), book: &addressBook{addrs: map[raft.ServerID]raft.ServerAddress{}}}
	next := 0
	m.change = func(cfg *Config) {
		for i := range m.nodes {
			if cfg.NodeID == nodeID(i) {
				next = i
			}
		}
		cfg.Network = func(o NetworkOptions) (Network, error) { return m.hub.join(o.NodeID), nil }
		cfg.Stores = &Stores{Log: m.disk[next], Stable: m.disk[next]}
		cfg.StableDB, cfg.WAL = "", ""
		if change != nil {
			change(next, cfg)
		}
	}
	for i := range size {
		m.nodes = append(m.nodes, nil)
		m.machines = append(m.machines, newMachine())
		m.snaps = append(m.snaps, raft.NewInmemSnapshotStore())
		m.fatals = append(m.fatals, make(chan error, 16))
		m.disk = append(m.disk, raft.NewInmemStore())
		m.start(i)
	}
	m.form()
	return m
}

// closeAll stops the nodes and lets Raft's last messages time out, so that the
// bubble can end.
func (m *memCluster) closeAll() {
	m.testCluster.closeAll()
	time.Sleep(time.Minute)
}
