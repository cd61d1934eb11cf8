package event

import (
	"encoding/binary"
	"fmt"
)

// OutcomeCode says what the state machine decided about an append. Its numbers
// travel between nodes.
type OutcomeCode uint8

const (
	// Accepted means that the events are in the log for good.
	Accepted OutcomeCode = 1
	// Duplicate means that this append was accepted before: the outcome is the
	// first one.
	Duplicate OutcomeCode = 2
	// ConditionFailed means that a condition did not hold.
	ConditionFailed OutcomeCode = 3
	// IDReused means that an id is known, but of another append.
	IDReused OutcomeCode = 4
	// Refused means that the command broke a rule which the state machine
	// checks itself; Reason says which.
	Refused OutcomeCode = 5
	// GuardFailed means that a guard of a projection would not hold.
	GuardFailed OutcomeCode = 6
	// FoldFailed means that a guarding projection could not fold an event.
	FoldFailed OutcomeCode = 7
	// SchemaViolation means that an event's data does not conform to a schema of
	// its type.
	SchemaViolation OutcomeCode = 8
	// SchemaChanged means that the schemas known where the append came in are not
	// those in force: it is checked again and proposed anew.
	SchemaChanged OutcomeCode = 9
)

// TryAgain begins the Reason of a refusal that does not last.
const TryAgain = "try again: "

// Outcome is the decision about one append. Only Accepted and Duplicate have
// positions; a refused append left nothing in the log.
type Outcome struct {
	Code     OutcomeCode
	First    uint64          // position of its first event
	Last     uint64          // position of its last event
	Time     int64           // of its events, nanoseconds
	Versions []StreamVersion // of each stream it touched, after it, in order of first appearance

	Conflict *Conflict // of ConditionFailed
	Reused   []IDAt    // of IDReused
	Reason   string    // of Refused

	Guard     *GuardFailure // of GuardFailed and FoldFailed
	Violation *Violation    // of SchemaViolation
}

// GuardFailure says which projection refused an event of an append, and why.
type GuardFailure struct {
	Event         int    // place among the append's events, from 0
	Projection    string // its name
	Key           string // of the row
	Guard         int    // place among the guards of the type, from 0; 0 for a fold that failed
	Rule          string // the guard's expression; "" for a fold that failed
	Message       string // for people
	StatePosition uint64 // of the last event in the row that the guard saw; 0 = there was no row
}

// Violation says what of an event's data is against a schema.
type Violation struct {
	Event  int    // place among the append's events, from 0
	Type   string // of the event
	Schema uint32 // number of the schema
	Errors []ViolationError
}

// ViolationError is one place in the data.
type ViolationError struct {
	Path    string // JSON pointer (RFC 6901); "" = the whole
	Message string
}

// StreamVersion is a stream and a version of it.
type StreamVersion struct {
	Stream  string
	Version uint64
}

// Conflict says which condition failed and what stood in the way.
type Conflict struct {
	Condition int           // place among the append's conditions, from 0
	Kind      ConditionKind // what it asked for
	Stream    string        // for the kinds about a stream, as are Expected and Actual
	Expected  uint64        // the version asked for (StreamAtVersion)
	Actual    uint64        // the version it has
	Position  uint64        // for NoMatch: where the first conflicting event stands
}

// IDAt is an event's id and where the event with it stands; Position 0 means
// that no such event is known.
type IDAt struct {
	ID       string
	Stream   string
	Position uint64
}

// OK reports whether the events of the append are in the log.
func (o *Outcome) OK() bool { return o.Code == Accepted || o.Code == Duplicate }

// String describes a conflict for people.
func (c *Conflict) String() string {
	switch c.Kind {
	case StreamAtVersion:
		return fmt.Sprintf("stream %q is at version %d, not %d", c.Stream, c.Actual, c.Expected)
	case StreamExists:
		return fmt.Sprintf("stream %q does not exist", c.Stream)
	case StreamMissing:
		return fmt.Sprintf("stream %q exists already, at version %d", c.Stream, c.Actual)
	default:
		return fmt.Sprintf("an event that the query matches stands at position %d", c.Position)
	}
}

// EncodeOutcome appends the binary form of o to dst, for another node.
func EncodeOutcome(dst []byte, o *Outcome) []byte {
	dst = append(dst, byte(o.Code))
	switch o.Code {
	case Accepted, Duplicate:
		dst = binary.AppendUvarint(dst, o.First)
		dst = binary.AppendUvarint(dst, o.Last)
		dst = binary.LittleEndian.AppendUint64(dst, uint64(o.Time))
		dst = binary.AppendUvarint(dst, uint64(len(o.Versions)))
		for _, v := range o.Versions {
			dst = appendText(dst, v.Stream)
			dst = binary.AppendUvarint(dst, v.Version)
		}
	case ConditionFailed:
		c := o.Conflict
		dst = binary.AppendUvarint(dst, uint64(c.Condition))
		dst = append(dst, byte(c.Kind))
		dst = appendText(dst, c.Stream)
		dst = binary.AppendUvarint(dst, c.Expected)
		dst = binary.AppendUvarint(dst, c.Actual)
		dst = binary.AppendUvarint(dst, c.Position)
	case IDReused:
		dst = binary.AppendUvarint(dst, uint64(len(o.Reused)))
		for _, id := range o.Reused {
			dst = appendText(dst, id.ID)
			dst = appendText(dst, id.Stream)
			dst = binary.AppendUvarint(dst, id.Position)
		}
	case GuardFailed, FoldFailed:
		g := o.Guard
		dst = binary.AppendUvarint(dst, uint64(g.Event))
		dst = appendText(dst, g.Projection)
		dst = appendText(dst, g.Key)
		dst = binary.AppendUvarint(dst, uint64(g.Guard))
		dst = appendText(dst, g.Rule)
		dst = appendText(dst, g.Message)
		dst = binary.AppendUvarint(dst, g.StatePosition)
	case SchemaViolation:
		v := o.Violation
		dst = binary.AppendUvarint(dst, uint64(v.Event))
		dst = appendText(dst, v.Type)
		dst = binary.AppendUvarint(dst, uint64(v.Schema))
		dst = binary.AppendUvarint(dst, uint64(len(v.Errors)))
		for _, e := range v.Errors {
			dst = appendText(dst, e.Path)
			dst = appendText(dst, e.Message)
		}
	case SchemaChanged:
	default:
		dst = appendText(dst, o.Reason)
	}
	return dst
}

// DecodeOutcome reads one outcome off the front of b and says how many bytes
// it took.
func DecodeOutcome(b []byte) (Outcome, int, error) {
	r := reader{b: b}
	o := Outcome{Code: OutcomeCode(r.byte())}
	switch o.Code {
	case Accepted, Duplicate:
		o.First, o.Last, o.Time = r.uvarint(), r.uvarint(), int64(r.fixed64())
		o.Versions = make([]StreamVersion, r.count(2))
		for i := range o.Versions {
			o.Versions[i] = StreamVersion{Stream: r.text(), Version: r.uvarint()}
		}
	case ConditionFailed:
		o.Conflict = &Conflict{
			Condition: int(r.uvarint()), Kind: ConditionKind(r.byte()), Stream: r.text(),
			Expected: r.uvarint(), Actual: r.uvarint(), Position: r.uvarint(),
		}
	case IDReused:
		o.Reused = make([]IDAt, r.count(3))
		for i := range o.Reused {
			o.Reused[i] = IDAt{ID: r.text(), Stream: r.text(), Position: r.uvarint()}
		}
	case Refused:
		o.Reason = r.text()
	case GuardFailed, FoldFailed:
		o.Guard = &GuardFailure{
			Event: int(r.uvarint()), Projection: r.text(), Key: r.text(), Guard: int(r.uvarint()),
			Rule: r.text(), Message: r.text(), StatePosition: r.uvarint(),
		}
	case SchemaViolation:
		o.Violation = &Violation{Event: int(r.uvarint()), Type: r.text(), Schema: uint32(r.uvarint())}
		o.Violation.Errors = make([]ViolationError, r.count(2))
		for i := range o.Violation.Errors {
			o.Violation.Errors[i] = ViolationError{Path: r.text(), Message: r.text()}
		}
	case SchemaChanged:
	default:
		r.bad = true
	}
	if r.bad {
		return Outcome{}, 0, fmt.Errorf("outcome, near byte %d: %w", r.at, ErrMalformed)
	}
	return o, r.at, nil
}
