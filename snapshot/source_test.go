package snapshot

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// sender is a Source that gives the files of a model.
type sender struct {
	files map[string][]byte // by name
	// spoil, if not nil, may cut or change what is sent of a file, and end it
	// with an error.
	spoil func(name string, attempt int, b []byte) ([]byte, error)

	mu   sync.Mutex
	sent map[string]int // bytes by name
}

func newSender(m *model) *sender {
	s := &sender{files: make(map[string][]byte), sent: make(map[string]int)}
	for _, b := range slices.Concat(m.segments, m.state) {
		s.files[b.name] = b.data
	}
	if m.active.name != "" {
		s.files[m.active.name] = m.active.data[:m.activeSize]
	}
	return s
}

func (s *sender) Segment(_ context.Context, name string, offset, size int64, attempt int) (io.ReadCloser, error) {
	b := bytes.Clone(s.files[name][offset:size])
	var err error
	if s.spoil != nil {
		b, err = s.spoil(name, attempt, b)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent[name] += len(b)
	if err == nil {
		err = io.EOF
	}
	return io.NopCloser(io.MultiReader(bytes.NewReader(b), errReader{err})), nil
}

func (s *sender) State(ctx context.Context, name string, offset, size int64, attempt int) (io.ReadCloser, error) {
	return s.Segment(ctx, name, offset, size, attempt)
}

// took returns what was sent since the last call.
func (s *sender) took() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	sent := s.sent
	s.sent = make(map[string]int)
	return sent
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

// offered is the manifest that the sender of a model offers.
func offered(m *model) []byte { return encodeManifest(m.manifest("gen-000007")) }

// sealed is StoreOptions.Sealed: what the current generation has.
func (n *node) sealed() []Segment {
	names, err := list(n.fs, n.gens.LogDir())
	if err != nil {
		return nil
	}
	var own []Segment
	for _, name := range names {
		if hash, err := n.store.o.VerifySegment(n.fs.PathJoin(n.gens.LogDir(), name)); err == nil {
			own = append(own, Segment{Name: name, Hash: hash})
		}
	}
	return own
}

// openSerial opens a node that prepares, one file at a time: where the tests
// that crash it and fail its operations count on their order.
func openSerial(t testing.TB, fs vfs.FS) *node {
	t.Helper()
	n := mustOpen(t, fs)
	n.store.parallel, n.store.o.Sealed = 1, n.sealed
	return n
}

func (n *node) prepare(m *model, s Source) (*Progress, error) {
	p := &Progress{}
	return p, n.store.Prepare(context.Background(), offered(m), s, p)
}

// installPrepared does what Raft and the state machine do once all is there.
func (n *node) installPrepared(m *model) error {
	b, err := EncodePrepared(offered(m))
	if err != nil {
		return err
	}
	if err := n.receive(m, b, 1000); err != nil {
		return err
	}
	return n.restore()
}

// checkOld is check of a node with the generation and the snapshot of newNode,
// that may have an incoming folder besides.
func (n *node) checkOld(t testing.TB, old *model) error {
	t.Helper()
	name := n.fs.PathJoin(testLogs, incomingName)
	if _, err := n.fs.Stat(name); err != nil {
		return n.check(t, "gen-000001", old, false, old)
	}
	aside := n.fs.PathJoin("data", "aside")
	if err := n.fs.Rename(name, aside); err != nil {
		return err
	}
	return errors.Join(n.check(t, "gen-000001", old, false, old), n.fs.Rename(aside, name))
}
