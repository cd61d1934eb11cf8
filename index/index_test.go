package index

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"cairn/event"
)

// smallLimits make postings spill and blocks merge and fill up all the time.
var smallLimits = limits{spill: 4, block: 10, memTable: 8 << 10}

// machine is an index and its model, driven by random steps.
type machine struct {
	t      reporter
	fs     vfs.FS
	dir    string
	x      *Index
	model  *model
	frozen uint64            // position at the freeze that is not committed, if x.Frozen()
	held   map[string]string // extra keys as of that
	saved  Savepoint
	extra  map[string]string // as of the savepoint
}

func (m *machine) open() {
	x, sp, err := open(Options{FS: m.fs, Dir: m.dir, CacheBytes: 1 << 20}, smallLimits)
	if err != nil {
		m.t.Fatalf("open: %v", err)
	}
	if sp.Index != m.saved.Index || sp.Position != m.saved.Position || string(sp.Extra) != string(m.saved.Extra) {
		m.t.Fatalf("opened savepoint %v, want %v", sp, m.saved)
	}
	m.x = x
	m.model.cut(m.saved.Position, m.extra)
}

func (m *machine) add(n int, rng *rand.Rand) {
	var all []event.Event
	for range n {
		all = append(all, *m.model.add(rng))
	}
	m.x.AddAll(all)
	key, value := fmt.Sprintf("key-%d", rng.IntN(5)), fmt.Sprint(rng.Uint32())
	m.x.Put([]byte(key), []byte(value))
	m.model.extra[key] = value
}

func (m *machine) freeze() {
	m.x.Freeze()
	m.frozen, m.held = m.model.last(), maps.Clone(m.model.extra)
}

func (m *machine) commit() {
	sp := Savepoint{Index: m.saved.Index + 3, Position: m.frozen, Extra: fmt.Appendf(nil, "extra %d", m.frozen)}
	if err := m.x.Commit(sp); err != nil {
		m.t.Fatalf("commit: %v", err)
	}
	m.saved, m.extra = sp, m.held
}

func TestIndex_AnswersLikeTheModel(t *testing.T) {
	var s seen
	var blocks, merged, reopened uint64
	rapid.Check(t, func(t *rapid.T) {
		m := &machine{t: t, fs: vfs.NewMem(), dir: "state", model: newModel()}
		m.open()
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		count := func() {
			blocks += m.x.Stats().BlocksWritten
			merged += m.x.Stats().BlocksMerged
			if err := m.x.Close(); err != nil {
				t.Fatalf("close: %v", err)
			}
		}
		for _, step := range rapid.SliceOfN(rapid.IntRange(0, 9), 1, 30).Draw(t, "steps") {
			switch {
			case step <= 4:
				m.add(1+rng.IntN(60), rng)
			case step <= 7:
				if !m.x.Frozen() {
					m.freeze()
				} else {
					m.commit()
				}
			case step == 8:
				count()
				m.open()
				reopened++
			}
			m.checkAll(t, rng, &s)
		}
		count()
	})
	t.Logf("%+v, %d blocks written, %d merged, %d reopenings", s, blocks, merged, reopened)
	if s.exact == 0 || s.inexact == 0 || s.unindexed == 0 || s.conflicts == 0 || s.free == 0 {
		t.Errorf("some sort of answer never came up: %+v", s)
	}
	if blocks == 0 || merged == 0 || reopened == 0 {
		t.Errorf("%d blocks written, %d merged, %d reopenings: none may be zero", blocks, merged, reopened)
	}
}

// checkAll compares the index as of now and as of a random position before.
func (m *machine) checkAll(t reporter, rng *rand.Rand, s *seen) {
	for _, at := range []uint64{m.model.last(), rng.Uint64N(m.model.last() + 1)} {
		v := m.x.View(at)
		for range 4 {
			m.model.check(t, v, rng, s)
		}
		v.Close()
	}
	stream := pick(rng, streamWords)
	if got, err := m.x.Head(stream); err != nil || got != m.model.head(stream, m.model.last()) {
		t.Fatalf("Head(%q) = %v, %v", stream, got, err)
	}
	for i := range 6 {
		key := fmt.Sprintf("key-%d", i)
		if got, err := m.x.Get([]byte(key)); err != nil || string(got) != m.model.extra[key] {
			t.Fatalf("Get(%q) = %q, %v, want %q", key, got, err, m.model.extra[key])
		}
	}
}
