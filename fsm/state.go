package fsm

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/google/uuid"

	"cairn/projection"
)

// state is what the machine knows beside the log and its index. It is owned by
// the goroutine that applies, and becomes durable as part of a savepoint.
type state struct {
	index    uint64 // of the last applied command: A
	position uint64 // of the last event: P
	time     int64  // of the last event, nanoseconds

	logID       string
	segmentSize int64
	version     uint32              // the cluster version in force
	removed     map[string]struct{} // nodes removed for good
	tree        tree
	catalog     *projection.Catalog // folded from its events, no part of what is saved
}

// savedState is the form of a state's rest within a savepoint. Nobody but this
// node reads it.
type savedState struct {
	Format      int      `json:"format"`
	Time        int64    `json:"time"`
	LogID       string   `json:"log_id"`
	SegmentSize int64    `json:"segment_size"`
	Version     uint32   `json:"cluster_version"`
	Removed     []string `json:"removed,omitempty"`
	Frontier    [][]byte `json:"tree_frontier,omitempty"`
}

const savedStateFormat = 1

func newState() state {
	return state{removed: make(map[string]struct{}), tree: newTree(), catalog: projection.NewCatalog()}
}

func (s *state) encode() []byte {
	b, err := json.Marshal(savedState{
		Format: savedStateFormat, Time: s.time, LogID: s.logID, SegmentSize: s.segmentSize, Version: s.version,
		Removed: sortedKeys(s.removed), Frontier: s.tree.frontier(),
	})
	if err != nil {
		panic(fmt.Sprintf("encode the state: %v", err)) // it has no value that can't be encoded
	}
	return b
}

func decodeState(index, position uint64, b []byte) (state, error) {
	s := newState()
	s.index, s.position = index, position
	if index == 0 && len(b) == 0 {
		return s, nil // nothing was saved yet
	}
	var saved savedState
	if err := json.Unmarshal(b, &saved); err != nil {
		return state{}, fmt.Errorf("decode the saved state: %w", err)
	}
	if saved.Format != savedStateFormat {
		return state{}, fmt.Errorf("the saved state has format %d, this program knows %d: start a newer cairn-node", saved.Format, savedStateFormat)
	}
	s.time, s.logID, s.segmentSize, s.version = saved.Time, saved.LogID, saved.SegmentSize, saved.Version
	for _, id := range saved.Removed {
		s.removed[id] = struct{}{}
	}
	var err error
	s.tree, err = loadTree(position, saved.Frontier)
	return s, err
}

func sortedKeys(m map[string]struct{}) []string { return slices.Sorted(maps.Keys(m)) }

func (s *state) membership() *membership {
	return &membership{version: s.version, removed: maps.Clone(s.removed)}
}

func parseUUID(s string) (uuid.UUID, error) { return uuid.Parse(s) }
