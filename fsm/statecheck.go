package fsm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"

	"cairn/index"
	eventlog "cairn/log"
)

// StateCheck is a state of a machine that is not running, opened to be held
// against its log. Nothing is written. One goroutine uses it.
type StateCheck struct {
	fs    vfs.FS
	index *index.Index
	state state
}

// OpenState opens the state in a folder as of its savepoint.
func OpenState(fs vfs.FS, dir string) (*StateCheck, error) {
	x, saved, err := index.Open(index.Options{FS: fs, Dir: dir, ReadOnly: true})
	if err != nil {
		return nil, fmt.Errorf("open the state in %s: %w", dir, err)
	}
	st, err := decodeState(saved.Index, saved.Position, saved.Extra)
	if err == nil && st.logID != "" {
		err = supports(st.version)
	}
	if err != nil {
		return nil, errors.Join(err, x.Close())
	}
	return &StateCheck{fs: fs, index: x, state: st}, nil
}

// Savepoint returns (A, P), what the state is as of.
func (s *StateCheck) Savepoint() (index, position uint64) { return s.state.index, s.state.position }

// LogID returns the id of the log that the state is of, "" before its birth.
func (s *StateCheck) LogID() string { return s.state.logID }

// Close closes the state.
func (s *StateCheck) Close() error { return s.index.Close() }

// Compare folds the log from its beginning to P and returns how the state
// differs from what comes out: in what the machine knows (members, version,
// time, tree), and in every record of its index but the rows of projections,
// which are not looked at: what makes them anew is a rebuild. No difference means
// that all other answers are those that the log gives. It takes little memory, whatever the
// length of the log: the log is read once and the index is read once, each in
// its own order, and fingerprints of both are compared (index.Digest).
//
// A log that does not reach P, or is damaged, is an error.
func (s *StateCheck) Compare(ctx context.Context, logDir string, progress func(stage string, done, total uint64)) ([]string, error) {
	log, err := eventlog.Open(eventlog.Options{FS: s.fs, Dir: logDir, Through: s.state.position})
	if err != nil {
		return nil, err
	}
	want, digest := newState(), index.NewDigest()
	err = foldFrames(ctx, log, &want, digest, nil, func(position uint64) { progress("reading the log", position, s.state.position) },
		func() error { return nil })
	if err == nil && want.position == s.state.position && s.state.position > 0 {
		err = checkIdentity(logDir, log, &want)
	}
	if err = errors.Join(err, log.Close()); err != nil {
		return nil, err
	}
	differences := s.differences(&want)
	found, err := s.index.Compare(ctx, digest, func(n uint64) { progress("reading the state", n, 0) })
	return append(differences, found...), err
}

// differences holds what the machine knows beside its index against what the
// log says.
func (s *StateCheck) differences(want *state) (found []string) {
	differ := func(what string, got, want any) {
		found = append(found, fmt.Sprintf("%s: %v, the log says %v", what, got, want))
	}
	got := &s.state
	if want.index > got.index {
		differ("the entry it is as of", got.index, want.index)
	}
	for _, field := range []struct {
		what      string
		got, want any
	}{
		{"position", got.position, want.position}, {"time of the last event", got.time, want.time},
		{"log id", got.logID, want.logID}, {"segment size", got.segmentSize, want.segmentSize}, {"cluster version", got.version, want.version},
	} {
		if field.got != field.want {
			differ(field.what, field.got, field.want)
		}
	}
	if g, w := sortedKeys(got.removed), sortedKeys(want.removed); !slices.Equal(g, w) {
		differ("members that were removed", g, w)
	}
	if !slices.EqualFunc(got.tree.frontier(), want.tree.frontier(), bytes.Equal) {
		found = append(found, "Merkle tree: its roots are not those of the log")
	}
	return found
}

var _ sink = (*index.Digest)(nil)
