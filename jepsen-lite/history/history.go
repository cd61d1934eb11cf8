// Package history is what a run of jepsen-lite leaves behind: every operation
// of its clients and what they learned of it, every event a follower was given,
// every fault, and in the end what each node has. The checkers of package check
// judge from this alone, so that a history can be judged again, by others too.
//
// A Recorder may be used by any number of goroutines. A History is plain data.
package history

import (
	"encoding/json"
	"time"
)

// Outcome is what a client knows of its operation.
type Outcome string

const (
	// OK means that it happened, and the answer says how.
	OK Outcome = "ok"
	// Refused means that it did not happen and never will.
	Refused Outcome = "refused"
	// Unknown means that it may have happened, or may yet happen.
	Unknown Outcome = "unknown"
)

// Op is one operation of a client: an append or a read, sent once to one node.
// Times count from the beginning of the run, on one monotonic clock.
type Op struct {
	ID       int           `json:"id"` // 1, 2, 3, … in the order of Start
	Client   int           `json:"client"`
	Workload string        `json:"workload"`
	Node     string        `json:"node"` // the one asked
	Start    time.Duration `json:"start"`
	End      time.Duration `json:"end"`
	Outcome  Outcome       `json:"outcome"`
	Code     string        `json:"code,omitempty"`   // of a refusal: condition-failed, no-leader, …
	Detail   string        `json:"detail,omitempty"` // for people

	Append  *Append    `json:"append,omitempty"`
	Read    *Read      `json:"read,omitempty"`
	State   *StateRead `json:"state,omitempty"`
	Define  *Define    `json:"define,omitempty"`
	Refusal *Refusal   `json:"refusal,omitempty"`
}

// Append is an append and, if its outcome is OK, its answer. An append that is
// tried again is a new Op with the same event ids.
type Append struct {
	Events     []Event     `json:"events"` // Stream, Type, ID, Tags and Sum are set
	Conditions []Condition `json:"conditions,omitempty"`

	First     uint64            `json:"first,omitempty"` // position of the first event
	Last      uint64            `json:"last,omitempty"`
	Versions  map[string]uint64 `json:"versions,omitempty"` // of each stream, after the append
	Duplicate bool              `json:"duplicate,omitempty"`
}

// Condition is a precondition of an append: that Stream is at Version, or, with
// Tag, that no event with that tag stands after position After.
type Condition struct {
	Stream  string `json:"stream,omitempty"`
	Version uint64 `json:"version"`
	Tag     string `json:"tag,omitempty"`
	After   uint64 `json:"after,omitempty"`
}

// Read is a read and, if its outcome is OK, its answer. A read of a stream that
// does not exist is OK, with Version 0 and no events.
type Read struct {
	Stream      string `json:"stream,omitempty"` // "" = the whole log
	After       uint64 `json:"after,omitempty"`  // position, or version if Stream is set, after which it begins
	Limit       int    `json:"limit,omitempty"`  // 0 = none
	Local       bool   `json:"local,omitempty"`  // consistency=local instead of linearizable
	MinPosition uint64 `json:"min_position,omitempty"`
	Raw         bool   `json:"raw,omitempty"` // events as they are stored, not in the form of their newest schema

	Position uint64  `json:"position,omitempty"` // what the answer is as of
	Version  uint64  `json:"version,omitempty"`  // of the stream, as of Position
	Events   []Event `json:"events,omitempty"`
}

// Event is an event as a client sends or sees it. Sum is the first half of the
// SHA-256 of its data, in hex.
type Event struct {
	Position uint64   `json:"position,omitempty"`
	Version  uint64   `json:"version,omitempty"`
	Time     int64    `json:"time,omitempty"` // nanoseconds since 1970
	Stream   string   `json:"stream,omitempty"`
	Type     string   `json:"type,omitempty"`
	ID       string   `json:"id"`
	Tags     []string `json:"tags,omitempty"`
	Sum      string   `json:"sum,omitempty"`
	Amount   int64    `json:"amount,omitempty"` // what the event adds to its stream, where that is money
	Schema   uint32   `json:"schema,omitempty"` // that its data is of; 0 = none
	// Data is kept of the events of '$' streams and of the workloads with
	// projections: the checkers fold them.
	Data json.RawMessage `json:"data,omitempty"`
}

// Follower is one that ran through the whole run, reconnecting wherever its
// connection ended. It matches the events of the streams that begin with Prefix
// whose types are among Types, if there are any, behind position After.
type Follower struct {
	ID     int      `json:"id"`
	Form   string   `json:"form"` // "sse" or "ndjson"
	Prefix string   `json:"prefix,omitempty"`
	Types  []string `json:"types,omitempty"`
	After  uint64   `json:"after,omitempty"`
	// Done says that it was told, in the end and by caught_up or a delivery, that
	// it had been given everything up to position Through.
	Done    bool   `json:"done"`
	Through uint64 `json:"through"`
	// Faults are what it was sent that is no part of a stream of events: first few.
	Faults []string `json:"faults,omitempty"`
}

// Delivery is an event that a follower was given.
type Delivery struct {
	Follower   int           `json:"follower"`
	Connection int           `json:"connection"` // 1, 2, 3, …: it reconnected in between
	Node       string        `json:"node"`
	At         time.Duration `json:"at"`
	Event      Event         `json:"event"`
}

// Fault is something the nemesis did, from Start until it was healed at End.
type Fault struct {
	Nemesis string        `json:"nemesis"` // kill, pause, partition, …
	What    string        `json:"what"`    // for people: "kill -9 of n2, the leader"
	Nodes   []string      `json:"nodes,omitempty"`
	Leader  bool          `json:"leader,omitempty"` // it took the leader out
	Start   time.Duration `json:"start"`
	End     time.Duration `json:"end"`
	// Bit counts what shows that it took effect: processes ended, packets
	// dropped, bytes lost, leaders changed. A fault of which nothing shows did
	// not bite.
	Bit map[string]int64 `json:"bit,omitempty"`
}

// Node is what a node has in the end, when all is healed.
type Node struct {
	Name     string    `json:"name"`
	LogID    string    `json:"log_id"`
	Events   []Event   `json:"-"` // its whole log, in order
	Segments []Segment `json:"segments"`
	Tables   []Table   `json:"tables,omitempty"` // of its projections
	Panics   int       `json:"panics,omitempty"` // of request handlers, by its log
	// Worked counts what the node did in the run: rolls, savepoints, snapshots,
	// installs, index flushes, compactions, write stalls.
	Worked map[string]int64 `json:"worked,omitempty"`
}

// Segment is a file of a node's log. The size of the last one is that of its
// whole frames.
type Segment struct {
	Name string `json:"name"`
	Size int64  `json:"size"`
	Sum  string `json:"sum"` // SHA-256, hex
}

// History is a whole run.
type History struct {
	Seed    uint64        `json:"seed"`
	Command string        `json:"command"` // what to type to run it again
	Length  time.Duration `json:"length"`  // of the part with faults
	Healed  time.Duration `json:"healed"`  // when the last fault was healed
	// NoOverdraft is a promise of the workloads with money: after an append no stream
	// that it touched has a negative sum of amounts.
	NoOverdraft bool       `json:"no_overdraft,omitempty"`
	Ops         []Op       `json:"-"`
	Followers   []Follower `json:"-"`
	Deliveries  []Delivery `json:"-"`
	Faults      []Fault    `json:"-"`
	Nodes       []Node     `json:"-"`
	// What was asked for, by name.
	Workloads []string `json:"workloads,omitempty"`
	Nemeses   []string `json:"nemeses"`
	// Finds are promises that the harness itself saw broken: a node that did not
	// come back, or that went on where it had to end.
	Finds []string `json:"finds,omitempty"`
	Exits []Exit   `json:"exits,omitempty"`
}

// How a process came to end.
const (
	Killed  = "killed"
	Stopped = "stopped" // asked to, which a sound one answers with status 0
	Itself  = "by itself"
)

// Exit is the end of a process of a node.
type Exit struct {
	Node     string        `json:"node"`
	At       time.Duration `json:"at"`
	How      string        `json:"how"` // Killed, Stopped or Itself
	Code     int           `json:"code"`
	Status   string        `json:"status"`    // for people
	LastLine string        `json:"last_line"` // that it wrote
}
