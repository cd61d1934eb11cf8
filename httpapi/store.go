package httpapi

import (
	"context"

	"cairn/event"
)

// Appender decides appends.
type Appender interface {
	// Propose returns the decision about a, which must have passed its Check.
	// When the outcome is OK its events are durable on a majority and visible
	// to reads that wait for their positions; any other outcome left nothing in
	// the log. An error that Options.Classify calls no-leader, overloaded or
	// timeout promises that nothing was written; any other leaves that open.
	// a is not used after Propose has returned.
	Propose(ctx context.Context, a *event.Append) (event.Outcome, error)
	// ProposeAll has appends without conditions decided in their order, each by
	// itself, and returns as many decisions. They are written together or not at
	// all: an error is that of them all. Their events may be 1,024 and have
	// 128 KiB as JSON.
	ProposeAll(ctx context.Context, appends []*event.Append) ([]event.Outcome, error)
}

// Reads gives readings of what this node has applied.
type Reads interface {
	// View opens a reading as of the lesser of at and the applied position; 0
	// means the applied position. It must be closed, soon: it may hold on to
	// what a savepoint or an install wants to let go.
	View(at uint64) View
	// LogID returns the identity of the log, "" before its birth is applied.
	LogID() string
}

// View is a consistent reading as of one position. One goroutine uses it.
type View interface {
	Lookups
	Scans
	// Position is what the view is as of.
	Position() uint64
	Close()
}

// Lookups find one thing.
type Lookups interface {
	// Version returns the version of a stream, 0 if it has no event.
	Version(stream string) (uint64, error)
	// Event returns the event at a position. The error of one that does not
	// exist, as of the view, is not-found to Options.Classify.
	Event(position uint64) (event.Event, error)
	// EventAt returns a version of a stream, with the same error.
	EventAt(stream string, version uint64) (event.Event, error)
}

// Scans find many things.
type Scans interface {
	// Streams returns up to limit streams with that prefix, in the order of
	// their names, from the first name behind after on.
	Streams(prefix, after string, limit int) ([]event.StreamVersion, error)
	// Select returns a cursor over the events that s chooses.
	Select(s Selection) (Cursor, error)
	// Stream returns a cursor over the events of a stream from that version on,
	// upwards or downwards. A stream without such events has none to give.
	Stream(name string, from uint64, backward bool) (Cursor, error)
}

// Selection says which events of the whole log a cursor gives, in which order.
type Selection struct {
	Filter   event.Filter
	After    uint64 // only positions above it, whatever the order
	Before   uint64 // only positions below it, whatever the order; 0 = no bound
	Backward bool   // newest first
}

// Cursor walks over events. One goroutine uses it.
type Cursor interface {
	// Next moves to the next event, or returns false at the end or on an error.
	Next() bool
	// Event returns the event moved to. It is valid until the next Next.
	Event() *event.Event
	// Err returns the error that ended the walk, if one did.
	Err() error
	Close()
}

// Waiter tells how far this node has applied the log.
type Waiter interface {
	// Applied returns the last position that reads can see.
	Applied() uint64
	// WaitPosition returns nil once reads can see that position, or the error
	// of ctx.
	WaitPosition(ctx context.Context, position uint64) error
	// Changed returns a channel that is closed when more has been applied than
	// at the time of the call.
	Changed() <-chan struct{}
}

// Cluster is what this node knows of, and asks of, the others.
type Cluster interface {
	// ReadIndex returns nil when this node has applied everything that was
	// committed before the call.
	ReadIndex(ctx context.Context) error
	// Ready returns nil when the node has applied what was committed when it
	// started, and knows a leader; else what is missing.
	Ready() error
	// Leader returns the leader this node knows of, "" if none.
	Leader() (id, url string)
	Status(ctx context.Context) ClusterStatus
	// Transfer returns nil when another node, the one given if it is not "",
	// leads.
	Transfer(ctx context.Context, to string) error
	// Remove returns nil when a member is out of the cluster for good. An
	// unknown one is not-found to Options.Classify.
	Remove(ctx context.Context, id string) error
}

// ClusterStatus is the answer of GET /v1/cluster.
type ClusterStatus struct {
	Log     string   `json:"log"`
	Leader  string   `json:"leader"`
	Term    uint64   `json:"term"`
	Members []Member `json:"members"`
}

// Member is one node of the cluster, as the answering node sees it.
type Member struct {
	ID      string `json:"id"`
	HTTP    string `json:"http"`
	Role    string `json:"role"` // leader, voter or non-voter
	Alive   bool   `json:"alive"`
	Applied uint64 `json:"applied"` // position
	Lag     uint64 `json:"lag"`     // positions behind the leader
	Version string `json:"version"`
}
