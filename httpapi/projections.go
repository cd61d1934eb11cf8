package httpapi

import (
	"context"

	"github.com/go-json-experiment/json/jsontext"
)

// Projections defines projections and reads what they make of the log. Of all
// of it, a projection, a row or a stream that does not exist is not-found to
// Options.Classify; a definition that can't be one is bad-definition; what is
// asked of a projection whose first generation is not live is
// projection-building.
type Projections interface {
	Definitions
	States
}

// Definitions are the projections there are.
type Definitions interface {
	// Define returns when the definition is in the log for good and visible to
	// reads of this node. Body is the definition as it was sent, not checked.
	// An error that Options.Classify does not call no-leader, overloaded or
	// timeout leaves open whether it was written; to define the same again is
	// always safe.
	Define(ctx context.Context, name string, body []byte) (Defined, error)
	// Delete returns when it is in the log for good that the projection is no
	// more.
	Delete(ctx context.Context, name string) error
	// Statuses returns all projections in the order of their names, as this
	// node has them, and Status one; without failures it need not look for them.
	Statuses(ctx context.Context) ([]ProjectionStatus, error)
	Status(ctx context.Context, name string, failures bool) (ProjectionStatus, error)
}

// States are the rows of projections and the merged states of streams.
//
// Least is a position this node has applied: an answer takes in at least what
// is up to there, for which the method waits until ctx is done. At a Moment
// with a Position, least is that position.
type States interface {
	// Row returns a row as of a moment. A row that no event was folded into by
	// then is not-found. A Version that the projection can't know, because its
	// key is not the stream, is invalid-request to Options.Classify.
	Row(ctx context.Context, name, key string, at Moment, least uint64) (RowState, error)
	// Rows returns rows in the order of the bytes of their keys.
	Rows(ctx context.Context, name string, q RowsQuery, least uint64) (RowsPage, error)
	// History returns the row after each of its events, in their order.
	History(ctx context.Context, name, key string, q HistoryQuery, least uint64) (HistoryPage, error)
	// StreamState returns the data of a stream's events, merged.
	StreamState(ctx context.Context, stream string, at Moment, least uint64) (StreamState, error)
}

// Defined is what became of a definition.
type Defined struct {
	Generation uint64 // that has this definition: the position of its event
	Changed    bool   // false = the projection was defined so before
	State      string // of that generation, as in ProjectionStatus
}

// The states of a generation.
const (
	StateBuilding = "building"
	StateLive     = "live"
)

// ProjectionStatus is a generation of a projection, as this node has it: the
// live one, or the first one while that is built.
type ProjectionStatus struct {
	Name       string         `json:"name"`
	Generation uint64         `json:"generation"`
	State      string         `json:"state"` // StateBuilding or StateLive
	Guarding   bool           `json:"guarding"`
	Since      uint64         `json:"since,omitzero"`    // the position from which it is live
	Position   uint64         `json:"position"`          // folded up to here on this node
	Head       uint64         `json:"head"`              // applied up to here on this node
	Progress   float64        `json:"progress"`          // 0 to 1
	Rows       *RowCounts     `json:"rows,omitzero"`     // nil = they were not looked for
	Failures   []RowFailure   `json:"failures,omitzero"` // some of the failed rows, at most 10
	Definition jsontext.Value `json:"definition"`
	// Next is the generation that is built beside this one, to replace it.
	Next *ProjectionStatus `json:"next,omitzero"`
}

// RowCounts count the rows of a projection.
type RowCounts struct {
	Failed uint64 `json:"failed"`
}

// RowFailure is a row that stopped, with the event it could not fold.
type RowFailure struct {
	Key      string `json:"key"`
	Position uint64 `json:"position"`
	Reason   string `json:"reason"`
}

// Moment says as of when a state is asked for: at most one of its fields is not
// zero. The zero value is now.
type Moment struct {
	Version  uint64 // of the stream
	Position uint64
	Time     int64 // nanoseconds: after all events up to that time
}

// Row is a row of a projection.
type Row struct {
	Key      string
	State    []byte   // JSON
	Events   uint64   // that are folded into it
	Position uint64   // of the last of them
	Failed   *Failure // nil = it goes on
}

// Failure says why a row stopped.
type Failure struct {
	Position uint64 // of the event that could not be folded
	Reason   string
}

// RowState is a row as of a moment.
type RowState struct {
	Row
	Replayed   uint64 // events that were folded for this answer
	Final      bool   // no later event can belong to that moment
	AsOf       uint64 // the position up to which it takes in all events; as of a position, that one
	Generation uint64
}

// RowsQuery chooses rows.
type RowsQuery struct {
	Prefix string // of their keys
	After  string // only keys behind it
	Limit  int    // at most that many
	Bytes  int    // of states; a page with that many ends, but has one row at least
	At     Moment // without Version
}

// RowsPage is a part of the rows that were asked for.
type RowsPage struct {
	Rows       []Row
	More       bool // there are rows behind the last one
	AsOf       uint64
	Generation uint64
}

// HistoryQuery chooses a part of a row's history.
type HistoryQuery struct {
	After uint64 // only events at higher positions
	Limit int
	Bytes int // of states; a page with that many ends, but has one entry at least
}

// HistoryPage is a part of a row's history.
type HistoryPage struct {
	Entries    []HistoryEntry
	More       bool // there are entries behind the last one
	AsOf       uint64
	Generation uint64
}

// HistoryEntry is an event and the row after it.
type HistoryEntry struct {
	Position uint64
	Version  uint64
	Type     string
	Stream   string
	Time     int64  // nanoseconds
	State    []byte // JSON
}

// StreamState is the merged data of a stream's events as of a moment.
type StreamState struct {
	State    []byte // JSON
	Version  uint64 // of the stream then
	Events   uint64 // that were merged
	Position uint64 // of the last of them
	Replayed uint64
	Final    bool
	AsOf     uint64
}
