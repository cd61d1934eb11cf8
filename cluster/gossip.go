package cluster

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// gossipLabel stands before every packet and stream, so that the gossip of
// another program that uses memberlist is not taken for ours.
const gossipLabel = "cairn/1"

// profile returns what this node says of itself now.
func (m *membership) profile() profile {
	return profile{
		ID:      m.cfg.NodeID,
		Run:     m.run,
		HTTP:    m.cfg.HTTP,
		Raft:    m.raftAddress(),
		Expect:  m.expect(),
		LogID:   m.deps.sm.LogID(),
		Version: m.cfg.Version,
		Forms:   [2]uint32{oldestClusterVersion, newestClusterVersion},
	}
}

// raftAddress is where others reach our Raft.
func (m *membership) raftAddress() string {
	if m.cfg.Raft.Advertise != "" {
		return m.cfg.Raft.Advertise
	}
	return m.cfg.Raft.Bind
}

// openGossip starts memberlist. The addresses are looked up within ctx; the
// connections it makes end with lifetime.
func (m *membership) openGossip(ctx, lifetime context.Context) (*memberlist.Memberlist, error) {
	bind, err := lookup(ctx, m.cfg.Gossip.Bind, netip.IPv4Unspecified())
	if err != nil {
		return nil, fmt.Errorf("gossip address: %w", err)
	}
	conf := m.gossipConfig()
	if m.cfg.Gossip.Advertise != "" {
		advertise, err := lookup(ctx, m.cfg.Gossip.Advertise, netip.Addr{})
		if err != nil {
			return nil, fmt.Errorf("advertised gossip address: %w", err)
		}
		conf.AdvertiseAddr, conf.AdvertisePort = advertise.Addr().String(), int(advertise.Port())
	} else if bind.Addr() == netip.IPv6Unspecified() {
		return nil, errors.New("gossip on all IPv6 addresses needs an advertised address")
	}
	if len(m.cfg.Secret) > 0 {
		if conf.SecretKey, err = gossipKey(m.cfg.Secret); err != nil {
			return nil, fmt.Errorf("derive the gossip key: %w", err)
		}
	}
	if err := m.openTransport(lifetime, bind, conf); err != nil {
		return nil, fmt.Errorf("listen for gossip on %s: %w", bind, err)
	}
	list, err := memberlist.Create(conf)
	if err != nil {
		_ = conf.Transport.Shutdown() // a second one does nothing
		return nil, fmt.Errorf("start gossip: %w", err)
	}
	return list, nil
}

// openTransport opens the gossip's sockets, or takes the transport it is given,
// and notes the address in conf.
func (m *membership) openTransport(lifetime context.Context, bind netip.AddrPort, conf *memberlist.Config) error {
	conf.BindAddr, conf.BindPort = bind.Addr().String(), int(bind.Port())
	if m.cfg.GossipNet != nil {
		var err error
		conf.Transport, err = m.cfg.GossipNet()
		return err
	}
	transport, err := listenGossip(bind, conf)
	if err != nil {
		return err
	}
	conf.Transport = &gossipTransport{NetTransport: transport, lifetime: lifetime}
	conf.BindPort = transport.GetAutoBindPort()
	if conf.AdvertisePort == 0 {
		conf.AdvertisePort = conf.BindPort
	}
	return nil
}

// gossipConfig is memberlist's profile for a LAN, quicker: with some nodes on
// one network it costs nothing, and a dead node is known in about three seconds.
func (m *membership) gossipConfig() *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name = m.cfg.NodeID + "#" + m.run
	c.Label = gossipLabel
	c.AdvertisePort = 0
	c.Delegate = &gossipDelegate{m}
	c.Events = (*gossipEvents)(m.roster)
	// What matters, membership says in its own words; memberlist's lines are for
	// people who look into the gossip itself.
	c.Logger = slog.NewLogLogger(m.log.With("source", "memberlist").Handler(), slog.LevelDebug)
	c.ProbeInterval = m.tune.probeInterval
	c.ProbeTimeout = m.tune.probeTimeout
	c.GossipInterval = m.tune.gossipInterval
	c.PushPullInterval = m.tune.pushPull
	c.TCPTimeout = 5 * time.Second
	c.EnableCompression = false // the messages are small
	return c
}

// gossipKey makes memberlist's AES-256 key of the cluster secret.
func gossipKey(secret []byte) ([]byte, error) {
	return hkdf.Key(sha256.New, secret, nil, "cairn gossip key v1", 32)
}

// lookup turns host:port into an address; an empty host is whatever empty says.
func lookup(ctx context.Context, hostPort string, empty netip.Addr) (netip.AddrPort, error) {
	all, err := lookupAll(ctx, hostPort, empty)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return all[0], nil
}

// lookupAll is lookup for a name with several addresses; there is at least one.
func lookupAll(ctx context.Context, hostPort string, empty netip.Addr) ([]netip.AddrPort, error) {
	host, portText, err := net.SplitHostPort(hostPort)
	if err != nil {
		return nil, fmt.Errorf("%q is not host:port: %w", hostPort, err)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("port of %q: %w", hostPort, err)
	}
	addrs := []netip.Addr{empty}
	if host != "" || !empty.IsValid() {
		if addrs, err = net.DefaultResolver.LookupNetIP(ctx, "ip", host); err != nil {
			return nil, fmt.Errorf("look up %q: %w", host, err)
		}
	}
	list := make([]netip.AddrPort, len(addrs))
	for i, a := range addrs {
		list[i] = netip.AddrPortFrom(a.Unmap(), uint16(port))
	}
	return list, nil
}

// listenGossip opens TCP and UDP on one port. When the port is left to the
// system, the one it gives for TCP may be taken for UDP: then it tries again.
func listenGossip(bind netip.AddrPort, conf *memberlist.Config) (*memberlist.NetTransport, error) {
	for tries := 10; ; tries-- {
		t, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{
			BindAddrs: []string{bind.Addr().String()},
			BindPort:  int(bind.Port()),
			Logger:    conf.Logger,
		})
		// memberlist does not wrap the cause.
		if err == nil || bind.Port() != 0 || tries == 0 || !strings.Contains(err.Error(), "address already in use") {
			return t, err
		}
	}
}

// gossipTransport is memberlist's transport with connections that end with the
// node: memberlist knows no contexts, and a seed that does not answer would
// otherwise hold up close.
type gossipTransport struct {
	*memberlist.NetTransport
	lifetime context.Context
}

// DialTimeout connects to a gossip address.
func (t *gossipTransport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout connects to a node's gossip address.
func (t *gossipTransport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(t.lifetime, timeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", a.Addr)
	if err != nil {
		return nil, err
	}
	return &boundConn{Conn: conn, release: context.AfterFunc(t.lifetime, func() { _ = conn.Close() })}, nil
}

// boundConn is closed when the lifetime of its transport ends.
type boundConn struct {
	net.Conn
	once    sync.Once
	release func() bool
}

// Close closes the connection and forgets it.
func (c *boundConn) Close() error {
	c.once.Do(func() { c.release() })
	return c.Conn.Close()
}

// gossipEvents takes memberlist's news into the roster. memberlist calls it with
// its own lock held: it must not block nor call memberlist, and it copies,
// because memberlist changes the node later.
type gossipEvents roster

// NotifyJoin is called when a node appears.
func (e *gossipEvents) NotifyJoin(n *memberlist.Node) { e.NotifyUpdate(n) }

// NotifyUpdate is called when a node's profile changes.
func (e *gossipEvents) NotifyUpdate(n *memberlist.Node) {
	(*roster)(e).seen(n.Name, n.Address(), bytes.Clone(n.Meta))
}

// NotifyLeave is called when a node dies or leaves.
func (e *gossipEvents) NotifyLeave(n *memberlist.Node) { (*roster)(e).gone(n.Name) }

// gossipDelegate tells memberlist our profile; we send nothing else by gossip.
type gossipDelegate struct{ m *membership }

// NodeMeta returns the profile; newMembership made sure that it fits.
func (d *gossipDelegate) NodeMeta(int) []byte {
	p := d.m.profile()
	return p.encode()
}

// NotifyMsg does nothing, like the rest of them.
func (d *gossipDelegate) NotifyMsg([]byte) {}

// GetBroadcasts returns nothing.
func (d *gossipDelegate) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState returns nothing.
func (d *gossipDelegate) LocalState(bool) []byte { return nil }

// MergeRemoteState ignores what it gets.
func (d *gossipDelegate) MergeRemoteState([]byte, bool) {}
