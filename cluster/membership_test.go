package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"cairn/event"
)

// The nodes of these tests are real but for their disks and the network of
// Raft: real gossip on 127.0.0.1, the library's Raft over its in-memory
// transport, peer calls through a switchboard, and a state machine that keeps
// only what membership asks for.

// memberDeadline is how long a test waits for what must come about.
const memberDeadline = 15 * time.Second

// memberSeed returns the seed of a random test, which CAIRN_SEED can set.
func memberSeed(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	if text := os.Getenv("CAIRN_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("CAIRN_SEED: %v", err)
		}
	}
	t.Logf("CAIRN_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// switchboard carries peer calls and connects Raft's transports.
type switchboard struct {
	mu         sync.Mutex
	servers    map[string]*peerServer
	transports map[string]*raft.InmemTransport
	silent     map[string]bool // addresses that do not answer calls
}

func newSwitchboard() *switchboard {
	return &switchboard{
		servers: map[string]*peerServer{}, transports: map[string]*raft.InmemTransport{}, silent: map[string]bool{},
	}
}

func (s *switchboard) plug(addr string, server *peerServer, tr *raft.InmemTransport) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.servers[addr] = server
	if tr == nil {
		return
	}
	s.transports[addr] = tr
	for other, o := range s.transports {
		o.Connect(raft.ServerAddress(addr), tr)
		tr.Connect(raft.ServerAddress(other), o)
	}
}

func (s *switchboard) unplug(addr string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.servers, addr)
	delete(s.transports, addr)
	for _, o := range s.transports {
		o.Disconnect(raft.ServerAddress(addr))
	}
}

// mute makes an address take calls and never answer.
func (s *switchboard) mute(addr string, silent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent[addr] = silent
}

// Call is Network's.
func (s *switchboard) Call(ctx context.Context, addr, name string, body []byte) ([]byte, error) {
	s.mu.Lock()
	server, silent := s.servers[addr], s.silent[addr]
	s.mu.Unlock()
	if silent {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if server == nil {
		return nil, &notSentError{fmt.Errorf("nobody at %s", addr)}
	}
	reply, err := server.serve(ctx, name, body)
	if err != nil {
		if p := (*PeerError)(nil); errors.As(err, &p) {
			return nil, p
		}
		return nil, &PeerError{Code: codeFailed, Message: err.Error()}
	}
	return reply, nil
}

func (s *switchboard) Transport() raft.Transport { return nil }
func (s *switchboard) Serve(PeerService)         {}
func (s *switchboard) Close() error              { return nil }

// memberSM keeps the log's id, the cluster version and who was removed.
type memberSM struct {
	mu       sync.Mutex
	logID    string
	version  uint32
	removed  map[string]bool
	index    uint64
	position uint64
}

func (s *memberSM) Apply(l *raft.Log) any { return s.ApplyBatch([]*raft.Log{l})[0] }

func (s *memberSM) ApplyBatch(logs []*raft.Log) []any {
	s.mu.Lock()
	defer s.mu.Unlock()
	responses := make([]any, len(logs))
	for i, l := range logs {
		if l.Type == raft.LogCommand {
			responses[i] = s.applyLocked(l)
		}
	}
	return responses
}

func (s *memberSM) applyLocked(l *raft.Log) any {
	entry, err := event.DecodeEntry(l.Data)
	if err != nil {
		return err
	}
	s.index = l.Index
	var outcomes []event.Outcome
	for _, b := range entry.Commands {
		c, err := event.DecodeCommand(b)
		if err != nil {
			return err
		}
		for _, e := range c.Append.Events {
			s.position++
			switch e.Type {
			case event.TypeLogCreated:
				var born event.LogCreated
				if err := json.Unmarshal(e.Data, &born); err != nil {
					return err
				}
				if s.logID == "" {
					s.logID, s.version = born.LogID, born.ClusterVersion
				}
			case event.TypeMemberRemoved:
				var gone event.MemberRemoved
				if err := json.Unmarshal(e.Data, &gone); err != nil {
					return err
				}
				s.removed[gone.NodeID] = true
			}
		}
		outcomes = append(outcomes, event.Outcome{Code: event.Accepted, Last: s.position})
	}
	return outcomes
}

func (s *memberSM) Snapshot() (raft.FSMSnapshot, error) { return nil, errors.New("none") }
func (s *memberSM) Restore(io.ReadCloser) error         { return errors.New("none") }
func (s *memberSM) Durable() (uint64, uint64)           { return 0, 0 }
func (s *memberSM) TailIndex() uint64                   { return 0 }
func (s *memberSM) Cut() error                          { return nil }

func (s *memberSM) Applied() (uint64, uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.index, s.position
}
func (s *memberSM) WaitIndex(context.Context, uint64) error     { return nil }
func (s *memberSM) Check(*event.Append) (*event.Outcome, error) { return nil, nil }

func (s *memberSM) Precheck(*event.Append) (uint64, *event.Outcome, error) {
	return 0, nil, nil
}
func (s *memberSM) Overloaded() bool { return false }

func (s *memberSM) LogID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.logID
}

func (s *memberSM) ClusterVersion() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.version
}

func (s *memberSM) Removed(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.removed[id]
}

// memberLog keeps what was logged, for tests that look for a line.
type memberLog struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *memberLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *memberLog) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

// disk is what survives a node's stop.
type disk struct {
	logs   *raft.InmemStore
	stable *raft.InmemStore
	snaps  *raft.InmemSnapshotStore
	folder string // of the pledge
}

func newDisk(t *testing.T) *disk {
	return &disk{raft.NewInmemStore(), raft.NewInmemStore(), raft.NewInmemSnapshotStore(), t.TempDir()}
}

// member is one node of a test.
type member struct {
	*membership
	id, raftAddr string
	disk         *disk
	board        *switchboard
	rf           *raft.Raft
	tr           *raft.InmemTransport
	state        *memberSM
	lines        *memberLog
	fatals       chan error

	mu     sync.Mutex
	unbind context.CancelFunc
	bound  sync.WaitGroup
}

// memberOptions is what differs between the nodes of a test.
type memberOptions struct {
	id       string
	raftAddr string // "" = id
	expect   int
	join     []string
	disk     *disk // nil = an empty one
	secret   string
	gossip   string // "" = a free port of 127.0.0.1
	late     bool   // others reach it only after start
	deaf     bool   // others never reach its Raft
	tune     func(*tuning)
}

func memberTuning() tuning {
	tune := defaultTuning()
	tune.leaderTick, tune.busyTick, tune.idleTick = 50*time.Millisecond, 20*time.Millisecond, 100*time.Millisecond
	tune.formTick, tune.selfTick, tune.leave = 20*time.Millisecond, 10*time.Millisecond, 300*time.Millisecond
	tune.joinMin, tune.joinMax = 20*time.Millisecond, 100*time.Millisecond
	tune.call = 500 * time.Millisecond
	tune.gossipInterval, tune.pushPull = 20*time.Millisecond, 300*time.Millisecond
	tune.probeInterval, tune.probeTimeout = 200*time.Millisecond, 100*time.Millisecond
	return tune
}

// startMember starts a node; it is stopped with the test.
func startMember(t *testing.T, board *switchboard, o memberOptions) *member {
	t.Helper()
	n := &member{id: o.id, raftAddr: o.raftAddr, disk: o.disk, board: board, fatals: make(chan error, 8), lines: &memberLog{}}
	if n.raftAddr == "" {
		n.raftAddr = "raft-" + o.id
	}
	if n.disk == nil {
		n.disk = newDisk(t)
	}
	if o.gossip == "" {
		o.gossip = "127.0.0.1:0"
	}
	n.state = &memberSM{removed: map[string]bool{}}
	server := newPeerServer()
	cfg := &Config{
		NodeID: o.id, Version: "test", StableDB: n.disk.folder + "/stable.db", HTTP: "http://" + o.id,
		Raft: Endpoint{Advertise: n.raftAddr}, Gossip: Endpoint{Bind: o.gossip},
		Expect: o.expect, Join: o.join, Secret: []byte(o.secret),
		Logger:  slog.New(slog.NewTextHandler(n.lines, nil)),
		OnFatal: func(err error) { n.fatals <- err },
	}
	m, err := newMembership(cfg, membershipDeps{
		raft: func() *raft.Raft { return n.rf }, sm: n.state, peers: &peerClient{board}, server: server,
		proposeSystem: n.propose, handover: n.handover, expel: newFatal(cfg.OnFatal, cfg.Logger).expel,
	})
	if err != nil {
		t.Fatalf("newMembership: %v", err)
	}
	m.tune = memberTuning()
	if o.tune != nil {
		o.tune(&m.tune)
	}
	n.membership = m
	notices := n.startRaft(t)
	plug := func() { board.plug(n.raftAddr, server, n.tr) }
	if o.deaf {
		plug = func() { board.plug(n.raftAddr, server, nil) }
	}
	if !o.late {
		plug()
	}
	if err := m.start(t.Context()); err != nil {
		t.Fatalf("start %s: %v", o.id, err)
	}
	if o.late {
		plug()
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.unbind = cancel
	n.bound.Go(func() { n.lead(ctx, notices) })
	t.Cleanup(func() { n.stop(t, true) })
	return n
}

func (n *member) startRaft(t *testing.T) <-chan bool {
	_, n.tr = raft.NewInmemTransportWithTimeout(raft.ServerAddress(n.raftAddr), 200*time.Millisecond)
	notices := make(chan bool, 32)
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(n.id)
	conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout = 300*time.Millisecond, 300*time.Millisecond, 250*time.Millisecond
	conf.CommitTimeout, conf.NotifyCh = 5*time.Millisecond, notices
	conf.Logger = newRaftLogger(slog.New(slog.DiscardHandler), "raft")
	r, err := raft.NewRaft(conf, n.state, n.disk.logs, n.disk.stable, n.disk.snaps, n.tr)
	if err != nil {
		t.Fatalf("NewRaft: %v", err)
	}
	n.rf = r
	return notices
}

// lead runs leaderLoop while this node leads, as Node does.
func (n *member) lead(ctx context.Context, notices <-chan bool) {
	var loop sync.WaitGroup
	stop := func() {}
	for {
		select {
		case leads := <-notices:
			stop()
			loop.Wait()
			if !leads {
				continue
			}
			leading, cancel := context.WithCancel(ctx)
			stop = cancel
			loop.Go(func() {
				if n.rf.Barrier(time.Second).Error() == nil && n.birth(leading) == nil {
					n.leaderLoop(leading)
				}
			})
		case <-ctx.Done():
			stop()
			loop.Wait()
			return
		}
	}
}

func (n *member) birth(ctx context.Context) error {
	if n.state.LogID() != "" {
		return nil
	}
	c, err := event.SystemCommand(event.StreamLog, event.TypeLogCreated, event.LogCreated{LogID: event.NewID(), ClusterVersion: newestClusterVersion})
	if err != nil {
		return err
	}
	_, err = n.propose(ctx, c)
	return err
}

func (n *member) propose(ctx context.Context, c event.Command) (event.Outcome, error) {
	if n.rf.State() != raft.Leader {
		return event.Outcome{}, ErrNoLeader
	}
	entry := event.EncodeEntry(nil, n.clockStamp(), [][]byte{event.EncodeCommand(nil, &c)})
	f, err := raftWait(ctx, func() raft.ApplyFuture { return n.rf.Apply(entry, time.Second) })
	if err != nil {
		return event.Outcome{}, &UnknownError{err}
	}
	outcomes, ok := f.Response().([]event.Outcome)
	if !ok {
		return event.Outcome{}, fmt.Errorf("response %v", f.Response())
	}
	return outcomes[0], nil
}

func (n *member) handover(ctx context.Context) error {
	_, err := raftWait(ctx, func() raft.Future { return n.rf.LeadershipTransfer() })
	return err
}

// stop ends a node: with a farewell in gossip, or without one as a crash does.
func (n *member) stop(t *testing.T, farewell bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.unbind == nil {
		return
	}
	n.unbind()
	n.unbind = nil
	if farewell {
		if err := n.membership.close(); err != nil {
			t.Errorf("close %s: %v", n.id, err)
		}
	} else {
		n.cancel()
		n.loops.Wait()
		if err := n.list.Shutdown(); err != nil {
			t.Errorf("shutdown %s: %v", n.id, err)
		}
	}
	n.board.unplug(n.raftAddr)
	if err := n.rf.Shutdown().Error(); err != nil {
		t.Errorf("raft of %s: %v", n.id, err)
	}
	_ = n.tr.Close()
	n.bound.Wait()
}

func (n *member) seeds() []string { return []string{n.gossipAddress()} }

// awaitSilence waits until a leader has noticed that a node does not answer.
// Only then may its address change: while a pipeline to it is breaking, the
// library reads the address without the lock that it changes it under.
func awaitSilence(t *testing.T, nodes []*member, id string) {
	t.Helper()
	failed := make(chan raft.Observation, 1)
	o := raft.NewObserver(failed, false, func(o *raft.Observation) bool {
		f, ok := o.Data.(raft.FailedHeartbeatObservation)
		return ok && f.PeerID == raft.ServerID(id)
	})
	for _, n := range nodes {
		n.rf.RegisterObserver(o)
		defer n.rf.DeregisterObserver(o)
	}
	select {
	case <-failed:
	case <-time.After(memberDeadline):
		t.Fatalf("no leader misses %s", id)
	}
}

// formed says that this node wrote the first list of servers in this run.
func (n *member) formed() bool {
	n.former.mu.Lock()
	defer n.former.mu.Unlock()
	return n.former.done
}

// role returns what a node is on Raft's list as n has it, "" if it is not there.
func (n *member) role(id string) string {
	s, ok := findServer(servers(n.rf), id)
	if !ok {
		return ""
	}
	return strings.ToLower(s.Suffrage.String())
}

// formThree starts three nodes and waits until they are one cluster.
func formThree(t *testing.T, board *switchboard) []*member {
	t.Helper()
	var nodes []*member
	var join []string
	for _, id := range []string{"a", "b", "c"} {
		n := startMember(t, board, memberOptions{id: id, expect: 3, join: join})
		join = append(join, n.seeds()...)
		nodes = append(nodes, n)
	}
	eventually(t, "one cluster", func() bool { return oneCluster(nodes) })
	return nodes
}

// oneCluster says that all nodes hold one log and list one another as voters.
func oneCluster(nodes []*member) bool {
	for _, n := range nodes {
		id := n.state.LogID()
		if id == "" || id != nodes[0].state.LogID() || leaderOf(nodes) == nil {
			return false
		}
		for _, other := range nodes {
			if n.role(other.id) != "voter" {
				return false
			}
		}
	}
	return true
}

// leaderOf returns the node that leads and runs its loop, nil if none does.
func leaderOf(nodes []*member) *member {
	at := slices.IndexFunc(nodes, func(n *member) bool { return n.rf.State() == raft.Leader && n.leading.Load() })
	if at < 0 {
		return nil
	}
	return nodes[at]
}

func awaitLeader(t *testing.T, nodes []*member) *member {
	t.Helper()
	var leader *member
	eventually(t, "a leader", func() bool { leader = leaderOf(nodes); return leader != nil })
	return leader
}

func followerOf(t *testing.T, nodes []*member) *member {
	t.Helper()
	leader := awaitLeader(t, nodes)
	return nodes[slices.IndexFunc(nodes, func(n *member) bool { return n != leader })]
}

// declare puts a removal into the log through whoever leads. The leader may
// change meanwhile; twice is as good as once.
func declare(t *testing.T, nodes []*member, id string) {
	t.Helper()
	eventually(t, "the removal in the log", func() bool {
		return awaitLeader(t, nodes).declareRemoved(t.Context(), id) == nil
	})
}

// firstList returns the entry at index 1 of a node, nil if there is none.
func firstList(t *testing.T, d *disk) []byte {
	t.Helper()
	var l raft.Log
	if err := d.logs.GetLog(1, &l); err != nil {
		return nil
	}
	if l.Type != raft.LogConfiguration || l.Term != 1 {
		t.Fatalf("first entry is %v of term %d", l.Type, l.Term)
	}
	return l.Data
}

func expectFatal(t *testing.T, n *member, want error) {
	t.Helper()
	select {
	case err := <-n.fatals:
		if !errors.Is(err, want) {
			t.Fatalf("%s ended with %v, want %v", n.id, err, want)
		}
	case <-time.After(memberDeadline):
		t.Fatalf("%s did not end with %v", n.id, want)
	}
}

func TestMembership_CloseBeforeStart(t *testing.T) {
	m := bareMembership(t, &memberSM{}, &Config{NodeID: "a"})
	if err := m.close(); err != nil {
		t.Fatal(err)
	}
	if addr, ok := m.address("b"); ok {
		t.Fatalf("address of an unknown node: %s", addr)
	}
	if url := m.httpURL("b"); url != "" {
		t.Fatalf("URL of an unknown node: %s", url)
	}
	if _, err := m.serveStatus(t.Context(), []byte("{}")); err == nil {
		t.Fatal("serveStatus worked without Raft")
	}
}
