package cluster

import (
	"context"

	"github.com/hashicorp/raft"

	"cairn/event"
)

// StateMachine is what a node needs of the state machine it replicates.
type StateMachine interface {
	// BatchingFSM: the response to an entry is []event.Outcome, one for each of
	// its commands, or an error, after which the node ends.
	raft.BatchingFSM

	// Durable returns Raft index A and position P of the last savepoint.
	Durable() (index, position uint64)
	// TailIndex returns the Raft index of the last intact frame of the event log
	// beyond the savepoint, 0 if there is none. Only meaningful before Cut.
	TailIndex() uint64
	// Cut removes, durably, what the event log holds beyond the savepoint. It is
	// called once, before the first entry.
	Cut() error

	// Applied returns index and last position of the last *command* that was
	// applied; other kinds of entries do not count.
	Applied() (index, position uint64)
	// WaitIndex returns nil when a command with this or a greater index has been
	// applied and reads see it, or the error of ctx.
	WaitIndex(ctx context.Context, index uint64) error

	// Check refuses, on any node, an append whose data does not conform to the
	// schemas of its types, or else stamps the numbers of those it was held against.
	Check(a *event.Append) (refused *event.Outcome, err error)
	// Precheck decides, on the leader and as of what is applied, whether an
	// append must be refused now. Else Apply may take the append's query
	// conditions for checked up to verifiedTo.
	Precheck(a *event.Append) (verifiedTo uint64, refused *event.Outcome, err error)
	// Overloaded says that the leader must not take more appends for now.
	Overloaded() bool

	// LogID returns the identity of the log, "" before its birth.
	LogID() string
	// ClusterVersion returns the version of the forms in force, 0 before the
	// log's birth.
	ClusterVersion() uint32
	// Removed says that the log has the node down as removed for good.
	Removed(nodeID string) bool
}
