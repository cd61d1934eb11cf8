package sim

import (
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// packet is what gossip sends by UDP.
type packet = memberlist.Packet

// gossip is a run's memberlist.NodeAwareTransport.
type gossip struct {
	end *endpoint

	mu    sync.Mutex
	conns []net.Conn // both ends of those it has dialled; under mu
}

var _ memberlist.NodeAwareTransport = (*gossip)(nil)

func gossipAddress(address string) string {
	return net.JoinHostPort(address, strconv.Itoa(gossipPort))
}

func (g *gossip) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return net.ParseIP(g.end.address), gossipPort, nil
}

func (g *gossip) PacketCh() <-chan *packet  { return g.end.packets }
func (g *gossip) StreamCh() <-chan net.Conn { return g.end.streams }

func (g *gossip) WriteTo(b []byte, addr string) (time.Time, error) {
	return g.WriteToAddress(b, memberlist.Address{Addr: addr})
}

func (g *gossip) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	host, _, err := net.SplitHostPort(a.Addr)
	if err != nil {
		return time.Time{}, err
	}
	e, n, now := g.end, g.end.net, time.Now()
	w := way{e.address, host}
	n.mu.Lock()
	defer n.mu.Unlock()
	if q := n.links[w]; q.cut || n.ends[host] == nil || q.loss > 0 && n.rng.IntN(100) < q.loss {
		n.lost.Add(1)
		return now, nil
	}
	p := &packet{Buf: append([]byte(nil), b...), From: &net.UDPAddr{IP: net.ParseIP(e.address), Port: gossipPort}}
	time.AfterFunc(n.delayLocked(w), func() { n.deliver(host, p) })
	return now, nil
}

// deliver gives a packet to who listens at an address now, or drops it.
func (n *network) deliver(host string, p *packet) {
	n.mu.Lock()
	e := n.ends[host]
	n.mu.Unlock()
	p.Timestamp = time.Now()
	if e == nil {
		return
	}
	select {
	case e.packets <- p:
	default: // its socket's buffer is full
	}
}

func (g *gossip) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return g.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

func (g *gossip) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	host, _, err := net.SplitHostPort(a.Addr)
	if err != nil {
		return nil, err
	}
	done, stop := after(timeout)
	defer stop()
	peer, err := g.end.send(done, g.end.shut, host)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", a.Addr, err)
	}
	ours, theirs := net.Pipe()
	select {
	case peer.streams <- theirs:
	case <-peer.dead:
		return nil, errReset
	case <-done:
		return nil, errTimeout
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.conns = append(g.conns, ours, theirs)
	return ours, nil
}

// Shutdown ends the connections this run has dialled.
func (g *gossip) Shutdown() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.conns {
		_ = c.Close()
	}
	g.conns = nil
	return nil
}
