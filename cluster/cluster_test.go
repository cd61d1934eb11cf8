package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// fixedMembers is a membership that knows everybody beforehand. The first node
// of its list forms the cluster.
type fixedMembers struct {
	cfg  *Config
	deps membershipDeps
	list *addressBook
}

// addressBook is where the nodes of a test are; all its fixedMembers share it.
type addressBook struct {
	mu    sync.Mutex
	addrs map[raft.ServerID]raft.ServerAddress
}

func (b *addressBook) get(id raft.ServerID) (raft.ServerAddress, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a, ok := b.addrs[id]
	return a, ok
}

func (b *addressBook) set(id raft.ServerID, addr raft.ServerAddress) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.addrs[id] = addr
}

func (m *fixedMembers) start(context.Context) error {
	m.list.set(raft.ServerID(m.cfg.NodeID), raft.ServerAddress(m.cfg.Raft.Advertise))
	return nil
}
func (m *fixedMembers) address(id raft.ServerID) (raft.ServerAddress, bool) { return m.list.get(id) }
func (m *fixedMembers) tookPart() bool                                      { return true }
func (m *fixedMembers) slowest() uint64                                     { return 0 }
func (m *fixedMembers) peers() map[string]string                            { return nil }
func (m *fixedMembers) httpURL(id string) string                            { return "http://" + id }
func (m *fixedMembers) clockStamp() int64                                   { return time.Now().UnixNano() }
func (m *fixedMembers) leaderLoop(ctx context.Context)                      { <-ctx.Done() }
func (m *fixedMembers) status(context.Context) Status                       { return Status{} }
func (m *fixedMembers) remove(context.Context, string) error                { return ErrUnknownMember }
func (m *fixedMembers) close() error                                        { return nil }

// testCluster is a cluster of nodes in this process.
type testCluster struct {
	t        testing.TB
	dir      string
	book     *addressBook
	nodes    []*Node
	machines []*memMachine
	snaps    []raft.SnapshotStore
	fatals   []chan error
	change   func(*Config) // applied to each node's config
}

// newTCPCluster starts nodes over loopback TCP, with real files, and waits until
// one leads.
func newTCPCluster(t testing.TB, size int, change func(*Config)) *testCluster {
	t.Helper()
	c := &testCluster{t: t, dir: t.TempDir(), book: &addressBook{addrs: map[raft.ServerID]raft.ServerAddress{}}, change: change}
	t.Cleanup(c.closeAll)
	for i := range size {
		c.nodes = append(c.nodes, nil)
		c.machines = append(c.machines, newMachine())
		c.snaps = append(c.snaps, raft.NewInmemSnapshotStore())
		c.fatals = append(c.fatals, make(chan error, 16))
		c.start(i)
	}
	c.form()
	return c
}

// config is that of node i.
func (c *testCluster) config(i int) Config {
	dir := filepath.Join(c.dir, nodeID(i))
	if err := os.MkdirAll(filepath.Join(dir, "wal"), 0o755); err != nil {
		c.t.Fatal(err)
	}
	cfg := Config{
		NodeID: nodeID(i), StableDB: filepath.Join(dir, "stable.db"), WAL: filepath.Join(dir, "wal"),
		HTTP: "http://" + nodeID(i), Raft: Endpoint{Bind: "127.0.0.1:0"}, Gossip: Endpoint{Bind: "127.0.0.1:0"},
		Expect: len(c.nodes), Secret: []byte("test"),
		HeartbeatTimeout: 150 * time.Millisecond,
		Logger:           testLogger(c.t, nodeID(i)),
		OnFatal: func(err error) {
			c.fatals[i] <- err
		},
	}
	cfg.members = func(cfg *Config, deps membershipDeps) (memberships, error) {
		return &fixedMembers{cfg: cfg, deps: deps, list: c.book}, nil
	}
	if c.change != nil {
		c.change(&cfg)
	}
	return cfg
}

func (c *testCluster) start(i int) {
	c.t.Helper()
	n, err := Start(context.Background(), c.config(i), c.machines[i], c.snaps[i])
	if err != nil {
		c.t.Fatalf("start %s: %v", nodeID(i), err)
	}
	c.nodes[i] = n
}

func nodeID(i int) string { return fmt.Sprintf("node-%d", i+1) }

// form makes the nodes one cluster.
func (c *testCluster) form() {
	c.t.Helper()
	var servers []raft.Server
	for i := range c.nodes {
		addr, _ := c.book.get(raft.ServerID(nodeID(i)))
		servers = append(servers, raft.Server{Suffrage: raft.Voter, ID: raft.ServerID(nodeID(i)), Address: addr})
	}
	if err := c.nodes[0].raft.BootstrapCluster(raft.Configuration{Servers: servers}).Error(); err != nil {
		c.t.Fatalf("form the cluster: %v", err)
	}
	c.leader()
}

// leader waits until one node takes appends and all that run know it.
func (c *testCluster) leader() int {
	c.t.Helper()
	var found int
	eventually(c.t, "a leader", func() bool {
		found = -1
		for i, n := range c.nodes {
			if n != nil && n.views.load().open() {
				found = i
			}
		}
		if found < 0 {
			return false
		}
		for i, n := range c.nodes {
			if v := func() *view { return n.views.load() }; n != nil && i != found && v().leader != raft.ServerID(nodeID(found)) {
				return false
			}
		}
		return true
	})
	return found
}

func (c *testCluster) stop(i int) {
	c.t.Helper()
	n := c.nodes[i]
	c.nodes[i] = nil
	if err := n.Close(context.Background()); err != nil {
		c.t.Errorf("close %s: %v", nodeID(i), err)
	}
}

func (c *testCluster) closeAll() {
	for i, n := range c.nodes {
		if n != nil {
			c.stop(i)
		}
	}
	for i, f := range c.fatals {
		select {
		case err := <-f:
			c.t.Errorf("%s met a fatal error: %v", nodeID(i), err)
		default:
		}
	}
}

// propose appends one event through a node.
func (c *testCluster) propose(i int, id string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := c.nodes[i].Propose(ctx, one(id))
	if err != nil || !out.OK() {
		c.t.Fatalf("propose %s through %s: %+v, %v", id, nodeID(i), out, err)
	}
}

// eventually waits for a condition that other goroutines bring about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long for %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// testLogger logs to the test's output if CAIRN_TEST_LOG is set.
func testLogger(t testing.TB, node string) *slog.Logger {
	if os.Getenv("CAIRN_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", node)
}
