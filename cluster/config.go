package cluster

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
)

// Endpoint is a TCP address of this node.
type Endpoint struct {
	Bind      string // host:port to listen on; port 0 picks a free one
	Advertise string // host:port that others dial; "" = the address listened on
}

// Config is what a node is built from.
type Config struct {
	NodeID  string // unique for ever: a wiped disk gets a new one
	Version string // of this program, shown to people

	StableDB string // file of Raft's term and vote
	WAL      string // folder of Raft's entries

	HTTP   string   // URL of this node's HTTP interface that others may be given
	Raft   Endpoint // Raft and the calls between nodes
	Gossip Endpoint // membership, TCP and UDP

	Expect int      // how many nodes form a new cluster; 0 = only ever join one
	Join   []string // gossip addresses of some others; may include this node's own
	Secret []byte   // shared by all nodes of a cluster; empty = none

	SegmentSize int64 // bytes of a segment of the event log, if this node gives birth to it; 0 = 64 MiB

	HeartbeatTimeout time.Duration // a follower that hears nothing for so long calls an election; 0 = 500 ms
	ElectionTimeout  time.Duration // of a candidate; 0 = 500 ms
	LeaseTimeout     time.Duration // a leader that hears no majority for so long steps down; 0 = four fifths of HeartbeatTimeout
	CommitTimeout    time.Duration // after which idle followers learn the commit index; 0 = 5 ms
	StallTimeout     time.Duration // a write of Raft's log that takes longer ends the node; 0 = 15 s
	ProposeTimeout   time.Duration // of Propose when its context has no deadline; 0 = 10 s

	SnapshotBytes int64 // entries written between two snapshots; 0 = 64 MiB
	TrailingBytes int64 // entries kept behind a snapshot for live followers that lack them, a quarter of it always; 0 = 64 MiB
	CacheBytes    int64 // newest entries kept in memory; 0 = 32 MiB
	QueueAppends  int   // appends that may wait to be proposed or forwarded; 0 = 16,384
	QueueBytes    int64 // the same in bytes; 0 = 64 MiB
	InFlight      int   // entries proposed but not yet applied; 0 = 1

	Preparer Preparer // fetches snapshots before they are installed; nil = Raft carries them

	Logger     *slog.Logger
	OnFatal    func(error)           // called once, when the process must end at once: see doc.go
	Registerer prometheus.Registerer // nil = no metrics

	// What a simulation puts in the place of TCP, UDP, files and the wall clock;
	// nil = the real ones.
	Network     func(NetworkOptions) (Network, error)
	GossipNet   func() (memberlist.NodeAwareTransport, error)
	Stores      *Stores
	ClockOffset func() time.Duration // how far this node's wall clock is off

	// members replaces the membership half in tests.
	members func(*Config, membershipDeps) (memberships, error)
}

// withDefaults fills in what was left out.
func (c Config) withDefaults() Config {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&c.HeartbeatTimeout, 500*time.Millisecond)
	def(&c.ElectionTimeout, c.HeartbeatTimeout)
	def(&c.LeaseTimeout, c.HeartbeatTimeout*4/5)
	def(&c.CommitTimeout, 5*time.Millisecond)
	def(&c.StallTimeout, 15*time.Second)
	def(&c.ProposeTimeout, 10*time.Second)
	size := func(d *int64, v int64) {
		if *d == 0 {
			*d = v
		}
	}
	size(&c.SegmentSize, 64<<20)
	size(&c.SnapshotBytes, 64<<20)
	size(&c.TrailingBytes, 64<<20)
	size(&c.CacheBytes, 32<<20)
	size(&c.QueueBytes, 64<<20)
	c.QueueAppends = cmp.Or(c.QueueAppends, 16<<10)
	c.InFlight = cmp.Or(c.InFlight, 1)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.members == nil {
		c.members = func(cfg *Config, deps membershipDeps) (memberships, error) {
			m, err := newMembership(cfg, deps)
			if err == nil {
				err = m.replaceParts()
			}
			if err != nil {
				return nil, err // a nil of the interface, which a nil *membership is not
			}
			return m, nil
		}
	}
	return c
}

// Validate reports everything that is wrong with a Config, at once. Start fills
// in the defaults before.
func (c *Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.NodeID == "" || len(c.NodeID) > 255 {
		bad("the node id must have 1 to 255 bytes")
	}
	if c.Stores == nil && (c.StableDB == "" || c.WAL == "") {
		bad("the paths of Raft's stable store and log are needed")
	}
	if c.OnFatal == nil {
		bad("OnFatal is needed: a node that must not live on has to end the process")
	}
	if c.Expect < 0 || c.Expect > maxExpect {
		bad("a new cluster may have 1 to %d nodes, not %d", maxExpect, c.Expect)
	}
	if c.Network == nil {
		c.Raft.validate("raft", bad)
		c.Gossip.validate("gossip", bad)
	}
	c.validateTimes(bad)
	for name, v := range map[string]int64{
		"segment size": c.SegmentSize, "snapshot bytes": c.SnapshotBytes, "trailing bytes": c.TrailingBytes,
		"cache bytes": c.CacheBytes, "queue bytes": c.QueueBytes, "queued appends": int64(c.QueueAppends),
	} {
		if v < 0 {
			bad("%s must not be negative", name)
		}
	}
	if c.InFlight < 1 || c.InFlight > maxAppendEntries {
		bad("1 to %d entries may be in flight, not %d", maxAppendEntries, c.InFlight)
	}
	if len(errs) == 0 {
		return nil
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return fmt.Errorf("configuration: %w", errors.Join(errs...))
}

// maxExpect bounds how many nodes form a cluster; more may join it.
const maxExpect = 9

func (c *Config) validateTimes(bad func(string, ...any)) {
	switch {
	case c.HeartbeatTimeout < 20*time.Millisecond:
		bad("the heartbeat timeout must be at least 20ms, and more than the worst stall of an fsync")
	case c.ElectionTimeout < c.HeartbeatTimeout:
		bad("the election timeout (%s) must not be less than the heartbeat timeout (%s)", c.ElectionTimeout, c.HeartbeatTimeout)
	case c.LeaseTimeout > c.HeartbeatTimeout || c.LeaseTimeout < 5*time.Millisecond:
		bad("the leader's lease (%s) must be from 5ms to the heartbeat timeout (%s)", c.LeaseTimeout, c.HeartbeatTimeout)
	}
	if c.CommitTimeout < time.Millisecond || c.StallTimeout < time.Second || c.ProposeTimeout < time.Millisecond {
		bad("commit timeout (%s), stall timeout (%s) or propose timeout (%s) is too short", c.CommitTimeout, c.StallTimeout, c.ProposeTimeout)
	}
}

func (e Endpoint) validate(name string, bad func(string, ...any)) {
	host, _, err := net.SplitHostPort(e.Bind)
	if err != nil {
		bad("%s address %q: want host:port", name, e.Bind)
		return
	}
	if e.Advertise != "" {
		if host, port, err := net.SplitHostPort(e.Advertise); err != nil || host == "" || port == "" || port == "0" {
			bad("advertised %s address %q: want host:port", name, e.Advertise)
		}
		return
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		bad("%s address %q listens on all interfaces: say which address to advertise", name, e.Bind)
	}
}

// NetworkOptions is what a Network is built from.
type NetworkOptions struct {
	NodeID string
	Raft   Endpoint
	Secret []byte
	// LogID returns the identity of this node's log, "" before its birth.
	LogID func() string
	// MayVote says whether this node may answer a call for votes now; nil = always.
	MayVote func() bool
	// Address returns where a member is now.
	Address func(id raft.ServerID) (raft.ServerAddress, bool)
	// Offer has the server at an address fetch the files of a snapshot, whose
	// manifest it is given, and returns true when it has them, false if it wants
	// the whole stream. Nil = always the stream.
	Offer  func(id raft.ServerID, addr, snapshot string, manifest []byte) (ready bool, err error)
	Logger *slog.Logger
}

// Stores are what a node keeps beside the log of events. A node that is given
// them never closes them.
type Stores struct {
	Log    raft.LogStore
	Stable raft.StableStore
	Pledge PledgeStore // nil = in memory
}

// replaceParts puts what a simulation gives in the place of the real thing. No
// loop runs yet.
func (m *membership) replaceParts() error {
	if offset := m.cfg.ClockOffset; offset != nil {
		m.clock.now = func() time.Time { return time.Now().Add(offset()) }
	}
	if m.cfg.Stores == nil || m.cfg.Stores.Pledge == nil {
		return nil
	}
	store := storedPledge{m.cfg.Stores.Pledge}
	held, err := store.load()
	m.former = &former{store: store, held: held}
	return err
}
