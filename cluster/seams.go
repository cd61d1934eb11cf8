package cluster

import (
	"context"

	"github.com/hashicorp/raft"

	"cairn/event"
)

// memberships is what the Raft half of a node needs of the membership half;
// *membership provides it. Every method but start and close may be called from
// any goroutine, and none may block on Raft's main goroutine unless it says so.
type memberships interface {
	// start joins the gossip and starts the loops that find the others, form
	// the cluster once and keep addresses current. Raft runs already. It
	// returns without waiting for a cluster; an error means that this node
	// cannot take part.
	start(ctx context.Context) error
	// address returns where a member's Raft listener is, as gossip knows it. It
	// is called for every message to a peer and must neither block nor allocate
	// much.
	address(id raft.ServerID) (raft.ServerAddress, bool)
	// tookPart says that this node agreed to form a cluster, so that it may be a
	// voter although its log is empty.
	tookPart() bool
	// httpURL returns a member's advertised HTTP address, "" if unknown.
	httpURL(id string) string
	// peers returns the HTTP addresses of the other live members by id.
	peers() map[string]string
	// slowest returns the index of the first entry that some live follower lacks,
	// on a leader that has heard of them lately; else 0.
	slowest() uint64
	// clockStamp returns the leader's time in nanoseconds, at most 1 s above the
	// median of the voters' clocks. It is called once an entry.
	clockStamp() int64
	// leaderLoop runs while this node leads, after its barrier, and returns when
	// ctx ends, which is when leadership is lost. It keeps Raft's list of
	// servers in step with the members.
	leaderLoop(ctx context.Context)
	// status describes the cluster as this node sees it.
	status(ctx context.Context) Status
	// remove takes a member out for good; any node may be asked.
	remove(ctx context.Context, id string) error
	// close leaves the gossip and ends every goroutine of start. Raft and the
	// peer calls still work while it runs.
	close() error
}

// membershipDeps is what the membership half may use of the Raft half.
type membershipDeps struct {
	// raft returns the node's Raft; nil until it runs, which is before start.
	raft func() *raft.Raft
	sm   StateMachine
	// peers calls other nodes at their Raft address; server takes handlers for
	// such calls, which must be registered in newMembership.
	peers  *peerClient
	server *peerServer
	// proposeSystem proposes a command to one of the store's own streams. It
	// works on the leader only (ErrNoLeader elsewhere) and returns when the
	// command is applied here.
	proposeSystem func(ctx context.Context, c event.Command) (event.Outcome, error)
	// handover gives leadership to another voter, if this node has it, and
	// returns when it is gone.
	handover func(ctx context.Context) error
	// expel ends the node, which has no place in the cluster.
	expel func(error)
}
