package cluster

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// newTestNetwork opens a TCP network on a free port.
func newTestNetwork(t *testing.T, change func(*NetworkOptions)) *tcpNetwork {
	t.Helper()
	o := NetworkOptions{
		NodeID: "me", Raft: Endpoint{Bind: "127.0.0.1:0"}, Secret: []byte("secret"),
		LogID:   func() string { return "log" },
		Address: func(raft.ServerID) (raft.ServerAddress, bool) { return "", false },
		Logger:  slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&o)
	}
	n, err := openTCPNetwork(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return n.(*tcpNetwork)
}

func addrOf(n *tcpNetwork) string { return string(n.transport.LocalAddr()) }

// Heartbeats take the way of all messages, though Raft asks for a short cut: it
// would change Raft's term and state beside its main goroutine.
func TestTransport_NoHeartbeatShortcut(t *testing.T) {
	server, client := newTestNetwork(t, nil), newTestNetwork(t, nil)
	var trans raft.Transport = server.Transport()
	short := make(chan struct{}, 1)
	trans.SetHeartbeatHandler(func(rpc raft.RPC) {
		short <- struct{}{}
		rpc.Respond(&raft.AppendEntriesResponse{}, nil)
	})
	done := make(chan error, 1)
	go func() {
		args := raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{Addr: []byte("x"), ID: []byte("x")}, Term: 1}
		done <- client.Transport().AppendEntries("me", raft.ServerAddress(addrOf(server)), &args, &raft.AppendEntriesResponse{})
	}()
	select {
	case <-short:
		t.Error("the heartbeat took the short cut")
	case rpc := <-trans.Consumer():
		rpc.Respond(&raft.AppendEntriesResponse{}, nil)
	case <-time.After(10 * time.Second):
		t.Fatal("the heartbeat did not arrive")
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, ok := trans.(raft.WithPreVote); !ok {
		t.Error("the transport hides pre-vote")
	}
	if _, ok := trans.(raft.WithClose); !ok {
		t.Error("the transport hides Close")
	}
}

// A server is where gossip says, at the address in Raft's list only if gossip
// does not know it.
func TestTransport_Addresses(t *testing.T) {
	book := map[raft.ServerID]raft.ServerAddress{"known": "new:1"}
	n := newTestNetwork(t, func(o *NetworkOptions) {
		o.Raft.Advertise = "advertised:7"
		o.Address = func(id raft.ServerID) (raft.ServerAddress, bool) { a, ok := book[id]; return a, ok }
	})
	for id, want := range map[raft.ServerID]string{"known": "known@new:1", "unknown": "unknown@listed:1", "a@b": "a@b@listed:1"} {
		if got := string(n.transport.at(id, "listed:1")); got != want {
			t.Errorf("%s is at %s, want %s", id, got, want)
		}
	}
	if got := string(n.transport.EncodePeer("me", n.transport.LocalAddr())); got != "advertised:7" { // votes are kept by it
		t.Errorf("own address is %s", got)
	}
}

// Raft's messages to a server reach nobody else at its address.
func TestTransport_OtherNodeAtTheAddress(t *testing.T) {
	server, client := newTestNetwork(t, nil), newTestNetwork(t, nil)
	target := raft.ServerAddress(addrOf(server))
	tr := client.Transport().(*raftTransport)
	_, pipeline := tr.AppendEntriesPipeline("x", target)
	for name, err := range map[string]error{
		"pipeline": pipeline,
		"entries":  tr.AppendEntries("x", target, &raft.AppendEntriesRequest{}, &raft.AppendEntriesResponse{}),
		"vote":     tr.RequestVote("x", target, &raft.RequestVoteRequest{}, &raft.RequestVoteResponse{}),
		"pre-vote": tr.RequestPreVote("x", target, &raft.RequestPreVoteRequest{}, &raft.RequestPreVoteResponse{}),
		"snapshot": tr.InstallSnapshot("x", target, &raft.InstallSnapshotRequest{}, &raft.InstallSnapshotResponse{}, strings.NewReader("")),
		"timeout":  tr.TimeoutNow("x", target, &raft.TimeoutNowRequest{}, &raft.TimeoutNowResponse{}),
	} {
		if err == nil || !strings.Contains(err.Error(), "it is node me, you mean x") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCall(t *testing.T) {
	server, client := newTestNetwork(t, nil), newTestNetwork(t, nil)
	handlers := newPeerServer()
	handlers.handle("echo", func(_ context.Context, body []byte) ([]byte, error) { return body, nil })
	handlers.handle("fail", func(context.Context, []byte) ([]byte, error) { return nil, errors.New("no way") })
	handlers.handle("coded", func(context.Context, []byte) ([]byte, error) {
		return nil, &PeerError{Code: "my-code", Message: "of mine"}
	})
	handlers.handle("hang", func(ctx context.Context, _ []byte) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() })
	handlers.seal()
	server.Serve(handlers.serve)
	peers := &peerClient{client}
	ctx := context.Background()
	for _, size := range []int{0, 1, 100_000, 4 << 20} {
		body := strings.Repeat("x", size)
		if got, err := peers.call(ctx, addrOf(server), "echo", []byte(body)); err != nil || string(got) != body {
			t.Errorf("echo of %d bytes: %d bytes, %v", size, len(got), err)
		}
	}
	var peer *PeerError
	for name, want := range map[string]PeerError{
		"fail":    {codeFailed, "no way"},
		"coded":   {"my-code", "of mine"},
		"nothing": {codeNoHandler, `unknown call "nothing"`},
	} {
		if _, err := peers.call(ctx, addrOf(server), name, nil); !errors.As(err, &peer) || *peer != want {
			t.Errorf("%s: %v, want %v", name, err, &want)
		}
	}
	if _, err := peers.call(ctx, addrOf(server), "echo", make([]byte, maxCallBody+1)); err == nil {
		t.Error("a body over the limit was taken")
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	var unsent *notSentError
	if _, err := peers.call(short, addrOf(server), "hang", nil); err == nil || errors.As(err, &unsent) {
		t.Errorf("a call that timed out at the peer: %v; it was sent", err)
	}
}

// What never left this node is told from what may have happened: the first is
// tried again, the second is an unknown outcome.
func TestCall_NotSent(t *testing.T) {
	client := newTestNetwork(t, nil)
	peers := &peerClient{client}
	other := newTestNetwork(t, func(o *NetworkOptions) { o.Secret = []byte("other") })
	other.Serve(newPeerServer().serve)
	elsewhere := newTestNetwork(t, func(o *NetworkOptions) { o.LogID = func() string { return "elsewhere" } })
	elsewhere.Serve(newPeerServer().serve)
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = gone.Close()
	for name, addr := range map[string]string{
		"nobody there": gone.Addr().String(), "no address": "", "other secret": addrOf(other), "other log": addrOf(elsewhere),
	} {
		var unsent *notSentError
		if _, err := peers.call(context.Background(), addr, "echo", []byte("x")); !errors.As(err, &unsent) {
			t.Errorf("%s: %v, want an error that nothing was sent", name, err)
		}
	}
	// A peer that dies in the middle of a call.
	dying := newTestNetwork(t, nil)
	handlers := newPeerServer()
	inside := make(chan struct{})
	handlers.handle("die", func(context.Context, []byte) ([]byte, error) {
		close(inside)
		dying.mu.Lock()
		conns := dying.conns
		dying.mu.Unlock()
		for c := range conns {
			_ = c.(*trackedConn).Conn.Close()
		}
		return nil, nil
	})
	dying.Serve(handlers.serve)
	_, err = peers.call(context.Background(), addrOf(dying), "die", []byte("x"))
	<-inside
	var unsent *notSentError
	if err == nil || errors.As(err, &unsent) {
		t.Errorf("the peer died after it had the call: %v", err)
	}
}

// Strangers and silent connections are dropped and hold up nobody.
func TestNetwork_Strangers(t *testing.T) {
	n := newTestNetwork(t, nil)
	handlers := newPeerServer()
	handlers.handle("echo", func(_ context.Context, body []byte) ([]byte, error) { return body, nil })
	n.Serve(handlers.serve)
	var silent []net.Conn
	for range maxHellos - 1 {
		c, err := net.Dial("tcp", addrOf(n))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		silent = append(silent, c)
	}
	stranger, err := net.Dial("tcp", addrOf(n))
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	if _, err := io.WriteString(stranger, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	_ = stranger.SetReadDeadline(time.Now().Add(10 * time.Second))
	if got, err := io.ReadAll(stranger); len(got) != 0 {
		t.Errorf("a stranger was answered %q, %v", got, err)
	}
	client := newTestNetwork(t, nil)
	if _, err := (&peerClient{client}).call(context.Background(), addrOf(n), "echo", nil); err != nil {
		t.Errorf("a peer among %d silent connections: %v", len(silent), err)
	}
}

func TestListenTCP_NeedsAnAddressToAdvertise(t *testing.T) {
	if _, _, err := listenTCP(Endpoint{Bind: "0.0.0.0:0"}); err == nil {
		t.Error("listens on all interfaces without an address to advertise")
	}
	used := newTestNetwork(t, nil)
	if _, _, err := listenTCP(Endpoint{Bind: addrOf(used)}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a port that is taken: %v", err)
	}
}
