// Package event holds Cairn's values and their rules: Event, Append,
// Condition, Query, Filter and Outcome, the limits they keep to, their JSON
// form on the wire and their binary form in a Raft entry.
//
// Values are plain data. A function here never blocks, keeps no state and may
// be called from any goroutine; a value that is shared must not be changed.
package event

import "strings"

// Event is one immutable fact. Before it is accepted, Position, Version, Time,
// AppendSize and AppendPlace are zero.
type Event struct {
	Position uint64 // place in the whole log: 1, 2, 3, … without gaps
	Version  uint64 // place in its stream: 1, 2, 3, … without gaps
	Time     int64  // nanoseconds since 1970-01-01 UTC; never less than that of the event before

	Stream string
	Type   string
	// ID is unique in its stream. IDChosen says that the client chose it, so
	// that it is kept for ever and finds a retry.
	ID       string
	IDChosen bool
	Schema   uint32 // number of the type's schema it was checked against; 0 = none
	Tags     []string

	CorrelationID string // "" = none; likewise the next two
	CausationID   string
	Compensates   string // id of an event of the same stream

	// ContentType is "" for JSON, else the media type of the bytes in Data.
	ContentType string
	Data        []byte // JSON without insignificant white space, or bytes of ContentType
	Meta        []byte // a JSON object, or nil

	// UpcastError says, of an event that was read, why it could not be brought to
	// the newest schema of its type and is as it is stored. It is not stored.
	UpcastError string

	AppendSize  uint32 // number of events in its append
	AppendPlace uint32 // its place among them, from 0
}

// Append is one atomic request to add events: all of them or none.
type Append struct {
	Events     []Event
	Conditions []Condition // all must hold
}

// Category returns what stands before the first '-' of a stream's name, or the
// whole name if it has none.
func Category(stream string) string {
	if i := strings.IndexByte(stream, '-'); i >= 0 {
		return stream[:i]
	}
	return stream
}

// IsSystem reports whether a stream is one of the store's own. Its name begins
// with '$'; clients read it but never append to it, and no query matches it.
func IsSystem(stream string) bool { return strings.HasPrefix(stream, "$") }
