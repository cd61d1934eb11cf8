package sim

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"cairn/bug"
	"cairn/cluster"
)

// Times of Raft's messages, those of the transport over TCP.
const (
	raftTimeout    = 10 * time.Second
	installTimeout = time.Minute
)

// clusterNetwork is an endpoint as a cluster.Network.
type clusterNetwork struct{ *endpoint }

// Transport is what Raft talks through.
func (n clusterNetwork) Transport() raft.Transport { return n.endpoint.raft }

var _ cluster.Network = clusterNetwork{}

// transport is a run's raft.Transport.
type transport struct {
	end     *endpoint
	calls   chan raft.RPC
	mayVote func() bool // nil = always
	behind  sync.Map    // of bug.EarlyAck: ids whose log lacks what was acknowledged for them
}

var _ raft.WithPreVote = (*transport)(nil)

func newTransport(e *endpoint) *transport { return &transport{end: e, calls: make(chan raft.RPC)} }

func (t *transport) Consumer() <-chan raft.RPC     { return t.calls }
func (t *transport) LocalAddr() raft.ServerAddress { return raftAddress(t.end.address) }

func (t *transport) EncodePeer(_ raft.ServerID, a raft.ServerAddress) []byte { return []byte(a) }
func (t *transport) DecodePeer(b []byte) raft.ServerAddress                  { return raft.ServerAddress(b) }

// SetHeartbeatHandler does nothing, as in the transport over TCP.
func (t *transport) SetHeartbeatHandler(func(raft.RPC)) {}

func raftAddress(address string) raft.ServerAddress {
	return raft.ServerAddress(net.JoinHostPort(address, raftPort))
}

func (t *transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if bug.Is(bug.EarlyAck) && t.pretend(id, target, args, resp) {
		return nil
	}
	return call(t, id, target, copyEntries(args), resp, nil, raftTimeout)
}

func (t *transport) RequestVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return call(t, id, target, args, resp, nil, raftTimeout)
}

func (t *transport) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return call(t, id, target, args, resp, nil, raftTimeout)
}

func (t *transport) TimeoutNow(id raft.ServerID, target raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return call(t, id, target, args, resp, nil, raftTimeout)
}

func (t *transport) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	s := &stream{from: data, end: t.end}
	defer s.close() // the receiver may go on reading after we have given up
	return call(t, id, target, args, resp, s, installTimeout)
}

// pretend is bug.EarlyAck over this transport, as package cluster has it over its
// own: it answers for a follower at once and sends the entries later.
func (t *transport) pretend(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) bool {
	if len(args.Entries) == 0 {
		return false
	}
	if _, behind := t.behind.LoadAndDelete(id); behind {
		return false
	}
	go func() {
		time.Sleep(100 * time.Millisecond)
		var answer raft.AppendEntriesResponse
		if err := call(t, id, target, copyEntries(args), &answer, nil, raftTimeout); err != nil || !answer.Success {
			t.behind.Store(id, true)
		}
	}()
	*resp = raft.AppendEntriesResponse{Term: args.Term, LastLog: args.Entries[len(args.Entries)-1].Index, Success: true}
	return true
}

// copyEntries keeps two nodes from sharing what one of them may change.
func copyEntries(args *raft.AppendEntriesRequest) *raft.AppendEntriesRequest {
	c := *args
	c.Entries = make([]*raft.Log, len(args.Entries))
	for i, l := range args.Entries {
		own := *l
		c.Entries[i] = &own
	}
	return &c
}

// call sends one message and waits for its answer.
func call[T any](t *transport, id raft.ServerID, target raft.ServerAddress, args any, resp *T, data *stream, timeout time.Duration) error {
	done, stop := after(timeout)
	defer stop()
	host, _, err := net.SplitHostPort(string(target))
	if err != nil {
		return err
	}
	peer, err := t.end.send(done, t.end.shut, host)
	if err != nil {
		return fmt.Errorf("dial %s: %w", target, err)
	}
	if peer.id != string(id) {
		return fmt.Errorf("%s is at %s, not %s", peer.id, target, id)
	}
	if refused := peer.raft.refuses(args); refused != nil {
		return refused
	}
	answer := make(chan raft.RPCResponse, 1)
	rpc := raft.RPC{Command: args, RespChan: answer}
	if data != nil {
		data.to = peer
		rpc.Reader = data
	}
	select {
	case peer.raft.calls <- rpc:
	case <-peer.dead:
		return errReset
	case <-t.end.shut:
		return errReset
	case <-done:
		return errTimeout
	}
	select {
	case r := <-answer:
		if err := peer.respond(done, t.end); err != nil {
			return err
		}
		if r.Error != nil {
			return r.Error
		}
		*resp = *r.Response.(*T)
		return nil
	case <-peer.dead:
		return errReset
	case <-t.end.shut:
		return errReset
	case <-done:
		return errTimeout
	}
}

// refuses keeps a node whose disk was empty from voting, as package cluster
// asks of a network.
func (t *transport) refuses(args any) error {
	switch args.(type) {
	case *raft.RequestVoteRequest, *raft.RequestPreVoteRequest:
		if t.mayVote != nil && !t.mayVote() {
			return errors.New("this node may not vote now")
		}
	}
	return nil
}

// after returns a channel that is closed after d, unless it is stopped before.
func after(d time.Duration) (done chan struct{}, stop func() bool) {
	done = make(chan struct{})
	return done, time.AfterFunc(d, func() { close(done) }).Stop
}

// stream is a snapshot on its way to another node.
type stream struct {
	end, to *endpoint
	mu      sync.Mutex
	from    io.Reader // under mu; nil when the sender has given up
}

func (s *stream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.from = nil
}

// Read reads the next part, unless the way to the receiver is cut.
func (s *stream) Read(p []byte) (int, error) {
	n := s.end.net
	n.mu.Lock()
	broken := n.links[way{s.end.address, s.to.address}].cut || n.links[way{s.to.address, s.end.address}].cut
	n.mu.Unlock()
	if broken || s.end.killed() {
		return 0, errReset
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.from == nil {
		return 0, errReset
	}
	return s.from.Read(p)
}
