package event

import (
	"crypto/rand"
	"encoding/json"
	"fmt"

	"github.com/google/uuid"
)

// The store's own streams and the types of the events in them. Everything that
// decides anything about the log is such an event, so that it has a position
// and every node learns it in the same order.
const (
	StreamLog          = "$log"
	TypeLogCreated     = "log-created"
	TypeClusterVersion = "cluster-version"
	TypeLogRestored    = "log-restored"

	StreamMembers     = "$members"
	TypeMemberRemoved = "member-removed"
)

// ClusterVersionFirst is the version of the forms a log is born with.
const ClusterVersionFirst = 1

// LogCreated is the birth of a log, at position 1. A second one is a no-op.
// Its encoding never changes.
type LogCreated struct {
	LogID          string `json:"log_id"`       // a UUID
	SegmentSize    int64  `json:"segment_size"` // bytes
	ClusterVersion uint32 `json:"cluster_version"`
}

// LogRestored begins a history of its own: what stands before it was restored
// from a backup of another log. Position and events up to it are the same there.
type LogRestored struct {
	LogID    string `json:"log_id"`   // a UUID; the id of the log from here on
	From     string `json:"from"`     // id of the log that the backup is of
	Position uint64 `json:"position"` // the last one that was restored
}

// ClusterVersion raises the version of the forms of commands, records, frames
// and footers, from this event on. Its encoding never changes.
type ClusterVersion struct {
	Version uint32 `json:"version"`
}

// MemberRemoved bars a node from the cluster for good.
type MemberRemoved struct {
	NodeID string `json:"node_id"`
}

// SystemCommand makes the command that appends one event to a '$' stream.
func SystemCommand(stream, typ string, body any) (Command, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return Command{}, fmt.Errorf("encode %s: %w", typ, err)
	}
	c := Command{Kind: KindSystem, Seed: NewSeed()}
	c.Append.Events = []Event{{Stream: stream, Type: typ, ID: NewID(), Data: data}}
	return c, nil
}

// NewID makes a UUIDv7 (RFC 9562), the id of an event whose client chose none.
func NewID() string { return uuid.Must(uuid.NewV7()).String() }

// NewSeed makes the seed of a command's salts.
func NewSeed() (seed [16]byte) {
	_, _ = rand.Read(seed[:]) // never fails: crypto/rand ends the process instead
	return seed
}
