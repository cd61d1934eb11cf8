package history

import "encoding/json"

// StateRead is a read of one row of a projection or, without Key, of the first
// Limit rows that begin with Prefix; and, if its outcome is OK, its answer. A
// read of a row that does not exist is OK, without rows.
type StateRead struct {
	Projection  string `json:"projection"`
	Key         string `json:"key,omitempty"`
	Prefix      string `json:"prefix,omitempty"`
	Limit       int    `json:"limit,omitempty"`
	AtPosition  uint64 `json:"at_position,omitempty"` // as of when; 0 = now
	Local       bool   `json:"local,omitempty"`
	MinPosition uint64 `json:"min_position,omitempty"`

	// AsOf is what the answer is as of, or at the least as of where no row is in
	// it; 0 = it does not say. Of a read with AtPosition it says only how far the
	// node was.
	AsOf       uint64 `json:"as_of,omitempty"`
	Generation uint64 `json:"generation,omitempty"` // 0 = the answer does not say
	Rows       []Row  `json:"rows,omitempty"`
}

// Row is a row of a projection.
type Row struct {
	Key      string `json:"key"`
	State    string `json:"state"` // its JSON, as it came
	Events   uint64 `json:"events"`
	Position uint64 `json:"position"`         // of the last event in it
	Failed   uint64 `json:"failed,omitempty"` // position of the event that stopped it; 0 = none
}

// Table is all rows of a projection on one node.
type Table struct {
	Projection string `json:"projection"`
	Generation uint64 `json:"generation"`
	AtPosition uint64 `json:"at_position"`    // as of when
	Past       bool   `json:"past,omitempty"` // it was asked for as of that position; else it is what the node had
	Rows       []Row  `json:"rows"`
}

// Define is a change of what the log says of projections and types: the
// definition of a projection, or a schema of a type.
type Define struct {
	Projection string          `json:"projection,omitempty"`
	Type       string          `json:"type,omitempty"` // of which Body is schema Number
	Number     uint32          `json:"number,omitempty"`
	Body       json.RawMessage `json:"body"`

	Generation uint64 `json:"generation,omitempty"` // of a projection: the answer
}

// Refusal is what an answer says of why an append was refused by a guard, a
// projection that can't fold it, or a schema.
type Refusal struct {
	Event      int    `json:"event"` // its place in the append, from 0
	Projection string `json:"projection,omitempty"`
	Key        string `json:"key,omitempty"`
	Guard      string `json:"guard,omitempty"`          // the rule
	State      uint64 `json:"state_position,omitempty"` // of the last event that the guard had seen; 0 = none
	Schema     uint32 `json:"schema,omitempty"`
}
