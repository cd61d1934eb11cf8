package cluster

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"cairn/snapshot"
)

// preparer answers offers with what it is given in turn, and with the last of
// it for ever.
type preparer struct {
	mu      sync.Mutex
	answers []Preparation
	offers  []Offer
	asked   chan struct{} // gets one for each offer, if it has room
}

func (p *preparer) Offered(o Offer) Preparation {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.offers = append(p.offers, o)
	select {
	case p.asked <- struct{}{}:
	default:
	}
	answer := p.answers[0]
	if len(p.answers) > 1 {
		p.answers = p.answers[1:]
	}
	return answer
}

func (p *preparer) got() []Offer {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.offers
}

// offering is a leader and the node that it sends a snapshot to, without their
// Rafts: the transports of both.
type offering struct {
	t        *testing.T
	leader   *Node
	net      *tcpNetwork
	address  string // of the other
	received chan []byte
}

// newOffering serves a node's calls with service.
func newOffering(t *testing.T, service PeerService) *offering {
	t.Helper()
	follower := newTestNetwork(t, nil)
	follower.Serve(service)
	o := &offering{t: t, address: addrOf(follower), received: make(chan []byte, 1)}
	n := &Node{cfg: Config{NodeID: "leader"}, logger: slog.New(slog.DiscardHandler)}
	n.ending, n.end = context.WithCancel(context.Background())
	t.Cleanup(n.end)
	n.views = newViews("leader", nil, n.ending.Done())
	n.views.refresh(func() (raft.ServerAddress, raft.ServerID) { return "leader:1", "leader" })
	o.net = newTestNetwork(t, func(opts *NetworkOptions) {
		opts.Offer = n.offer
		opts.Address = func(raft.ServerID) (raft.ServerAddress, bool) { return raft.ServerAddress(o.address), true }
	})
	n.peers = &peerClient{o.net}
	o.leader = n
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case rpc := <-follower.transport.Consumer():
				b, err := io.ReadAll(rpc.Reader)
				if want := rpc.Command.(*raft.InstallSnapshotRequest).Size; err != nil || int64(len(b)) != want {
					t.Errorf("%d bytes came, %d were announced: %v", len(b), want, err)
				}
				o.received <- b
				rpc.Respond(&raft.InstallSnapshotResponse{Success: true}, nil)
			case <-stop:
				return
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-stopped })
	return o
}

// answering is a service of a node with a preparer.
func answering(p Preparer) PeerService {
	n := &Node{cfg: Config{Preparer: p}}
	server := newPeerServer()
	server.handle(callOffer, n.serveOffer)
	return server.serve
}

// snapshotStream is a stream with a manifest of that many segments, and what
// follows it.
func snapshotStream(t *testing.T, segments int, files string) (manifest, stream []byte) {
	t.Helper()
	m := &snapshot.Manifest{LogID: "log", Generation: "gen-000001", Index: 9, Position: uint64(segments), State: snapshot.StateName(9)}
	for i := range uint64(segments) {
		name := strings.Repeat("x", 230) + nodeID(int(i))
		m.Segments = append(m.Segments, snapshot.Segment{Name: name, Base: i + 1, Last: i + 1, Size: 1, Hash: strings.Repeat("0", 64)})
	}
	stream, err := snapshot.EncodeLocal(m) // the kind does not matter here
	if err != nil {
		t.Fatal(err)
	}
	manifest, _, err = snapshot.ReadHead(bytes.NewReader(stream))
	if err != nil {
		t.Fatal(err)
	}
	return manifest, append(stream, files...)
}

// install sends a stream as Raft does: as a snapshot that says which it is.
func (o *offering) install(stream []byte) error {
	meta := &raft.SnapshotMeta{ID: "7-9-1", Index: 9, Size: int64(len(stream))}
	source := &namedSnapshot{ReadCloser: io.NopCloser(bytes.NewReader(stream)), meta: meta}
	return o.send(source, meta.Size)
}

func (o *offering) send(data io.Reader, size int64) error {
	args := &raft.InstallSnapshotRequest{RPCHeader: raft.RPCHeader{Addr: []byte("x"), ID: []byte("x")}, SnapshotVersion: 1, Term: 7, LastLogIndex: 9, LastLogTerm: 7, Size: size}
	var resp raft.InstallSnapshotResponse
	err := o.net.transport.InstallSnapshot("me", "old:1", args, &resp, data)
	if err == nil && !resp.Success {
		o.t.Error("no success")
	}
	if args.Size != size {
		o.t.Errorf("the request was changed: %d bytes, not %d", args.Size, size)
	}
	return err
}

// came checks what reached the other node's Raft; nil = nothing.
func (o *offering) came(want []byte) {
	o.t.Helper()
	select {
	case got := <-o.received:
		if !bytes.Equal(got, want) {
			o.t.Errorf("%d bytes came, want %d", len(got), len(want))
		}
	default:
		if want != nil {
			o.t.Error("nothing came")
		}
	}
}

// A server that has the files gets the manifest alone.
func TestOffer_Prepared(t *testing.T) {
	t.Parallel()
	p := &preparer{answers: []Preparation{{}, {Fetched: 5, Total: 9}, {Ready: true, Total: 9}}}
	o := newOffering(t, answering(p))
	manifest, stream := snapshotStream(t, 3, "files")
	if err := o.install(stream); err != nil {
		t.Fatal(err)
	}
	want, err := snapshot.EncodePrepared(manifest)
	if err != nil {
		t.Fatal(err)
	}
	o.came(want)
	offers := p.got()
	if len(offers) != 3 {
		t.Errorf("%d offers", len(offers))
	}
	for _, got := range offers {
		if got.Leader != "leader" || got.Snapshot != "7-9-1" || !bytes.Equal(got.Manifest, manifest) {
			t.Errorf("offer of %s, %s, %d bytes", got.Leader, got.Snapshot, len(got.Manifest))
		}
	}
}

// All of it goes to a server that wants it, one that knows no offers, and one
// whose manifest would be too large for an offer.
func TestOffer_Stream(t *testing.T) {
	t.Parallel()
	_, small := snapshotStream(t, 3, "files")
	huge, large := snapshotStream(t, 25_000, "files")
	if len(huge) <= maxOffer {
		t.Fatalf("a manifest of %d bytes is not too large", len(huge))
	}
	asks := &preparer{answers: []Preparation{{Fetched: 1}, {Stream: true}}}
	never := &preparer{answers: []Preparation{{Ready: true}}}
	for name, c := range map[string]struct {
		service PeerService
		stream  []byte
	}{
		"it asks for it":         {answering(asks), small},
		"it has no preparer":     {answering(nil), small},
		"it knows no offers":     {newPeerServer().serve, small},
		"the manifest is so big": {answering(never), large},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOffering(t, c.service)
			if err := o.install(c.stream); err != nil {
				t.Fatal(err)
			}
			o.came(c.stream)
		})
	}
	if n := len(never.got()); n > 0 {
		t.Errorf("it was offered %d times", n)
	}
	t.Run("it is none of the store's", func(t *testing.T) {
		o := newOffering(t, answering(never))
		if err := o.send(strings.NewReader("anything"), 8); err != nil {
			t.Fatal(err)
		}
		o.came([]byte("anything"))
	})
}

// Nothing goes to Raft when the offer fails: the next try makes it again.
func TestOffer_Fails(t *testing.T) {
	t.Parallel()
	_, stream := snapshotStream(t, 3, "files")
	t.Run("it could not fetch", func(t *testing.T) {
		o := newOffering(t, answering(&preparer{answers: []Preparation{{Fetched: 1}, {Error: "disk full"}}}))
		if err := o.install(stream); err == nil || !strings.Contains(err.Error(), "disk full") {
			t.Errorf("install = %v", err)
		}
		o.came(nil)
	})
	t.Run("nobody is there", func(t *testing.T) {
		o := newOffering(t, answering(&preparer{answers: []Preparation{{Ready: true}}}))
		o.address = "127.0.0.1:1"
		if err := o.install(stream); err == nil {
			t.Error("it was installed")
		}
		o.came(nil)
	})
	t.Run("its answer is none", func(t *testing.T) {
		o := newOffering(t, func(context.Context, string, []byte) ([]byte, error) { return []byte("{"), nil })
		if err := o.install(stream); err == nil {
			t.Error("it was installed")
		}
		o.came(nil)
	})
	t.Run("the stream has no head", func(t *testing.T) {
		o := newOffering(t, answering(&preparer{answers: []Preparation{{Ready: true}}}))
		if err := o.install([]byte("what is this, a snapshot?")); err == nil {
			t.Error("it was installed")
		}
		o.came(nil)
	})
}

// A node that no longer leads, or ends, gives up: the server may fetch for hours.
func TestOffer_GivesUp(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		end  func(n *Node)
		want error
	}{
		"another leads": {func(n *Node) {
			n.views.current.Store(&view{leader: "other", changed: make(chan struct{})})
		}, ErrNoLeader},
		"nobody leads": {func(n *Node) { n.views.current.Store(&view{changed: make(chan struct{})}) }, ErrNoLeader},
		"it ends":      {func(n *Node) { n.end() }, ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &preparer{answers: []Preparation{{Fetched: 1, Total: 2}}, asked: make(chan struct{}, 1)}
			o := newOffering(t, answering(p))
			_, stream := snapshotStream(t, 3, "files")
			done := make(chan error)
			go func() { done <- o.install(stream) }()
			<-p.asked
			c.end(o.leader)
			select {
			case err := <-done:
				if !errors.Is(err, c.want) {
					t.Errorf("install = %v, want %v", err, c.want)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("it waits on")
			}
			o.came(nil)
		})
	}
}

// An offer that can't be read is refused, and harms nothing.
func TestOffer_ServesOnlyOffers(t *testing.T) {
	p := &preparer{answers: []Preparation{{Ready: true}}}
	for _, body := range []string{"", "{", "[]", `{"leader":7}`} {
		if answer, err := answering(p)(t.Context(), callOffer, []byte(body)); err == nil {
			t.Errorf("%q was answered %s", body, answer)
		}
	}
	if n := len(p.got()); n > 0 {
		t.Errorf("%d offers came through", n)
	}
}
