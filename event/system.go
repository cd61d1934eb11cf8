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

	StreamProjections     = "$projections"
	TypeProjectionDefined = "projection-defined"
	TypeProjectionLive    = "projection-live"
	TypeProjectionDeleted = "projection-deleted"

	StreamTypes          = "$types"
	TypeSchemaRegistered = "schema-registered"
	TypeSchemaLive       = "schema-live"
)

// Cluster versions: of the forms of commands, records, frames and footers, and
// of the system events that a program must know.
const (
	ClusterVersionFirst = 1
	// ClusterVersionProjections has the events of '$projections' and '$types',
	// and heads of the index that were merged rather than written anew.
	ClusterVersionProjections = 2
	// ClusterVersionNewest is what a log is born with.
	ClusterVersionNewest = ClusterVersionProjections
)

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

// ProjectionDefined begins a generation of a projection. Its name is the
// position of this event.
type ProjectionDefined struct {
	Name       string          `json:"name"`
	Definition json.RawMessage `json:"definition"` // in canonical form, defaults filled in
	Engine     int             `json:"engine"`     // number of the expression engine it is for
	// Schemas are the numbers of the schemas, by type, to which events are
	// brought before they are folded: the newest ones where the event stands in
	// the log. Types that had none are left out.
	Schemas map[string]uint32 `json:"schemas,omitempty"`
}

// ProjectionLive puts a generation in force: from here on it is what readers
// see, and its guards hold.
type ProjectionLive struct {
	Name       string `json:"name"`
	Generation uint64 `json:"generation"` // position of its ProjectionDefined
	// Built is a position up to which every voter that could be asked had folded
	// the generation. It bounds what Apply has to fold at once.
	Built uint64 `json:"built"`
}

// ProjectionDeleted ends a projection with all its generations.
type ProjectionDeleted struct {
	Name string `json:"name"`
}

// SchemaRegistered adds the next schema of a type. It is in force at once, unless
// projections fold events of the type and it has an upcast. Body is the
// registration in its canonical form, as package schema reads it.
type SchemaRegistered struct {
	Type   string          `json:"type"`
	Number uint32          `json:"number"`
	Engine int             `json:"engine"` // number of what compiles schemas and upcasts
	Body   json.RawMessage `json:"body"`
}

// SchemaLive puts a schema in force that had to wait for the projections that
// fold its type, and with it those generations of theirs that are made for it.
type SchemaLive struct {
	Type   string `json:"type"`
	Number uint32 `json:"number"`
	Built  uint64 `json:"built"` // as in ProjectionLive, of all those generations
}

// IsDefinition reports whether an event is one of those that define projections
// and schemas.
func IsDefinition(e *Event) bool {
	switch e.Stream {
	case StreamProjections:
		return e.Type == TypeProjectionDefined || e.Type == TypeProjectionLive || e.Type == TypeProjectionDeleted
	case StreamTypes:
		return e.Type == TypeSchemaRegistered || e.Type == TypeSchemaLive
	}
	return false
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
