package index

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"cairn/event"
)

// smallLimits make postings spill and blocks merge and fill up all the time.
var smallLimits = limits{spill: 4, block: 10, look: 8, memTable: 8 << 10}

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
	merges bool              // from the next opening on
}

func (m *machine) open() {
	x, sp, err := open(Options{FS: m.fs, Dir: m.dir, CacheBytes: 1 << 20}, smallLimits)
	if err != nil {
		m.t.Fatalf("open: %v", err)
	}
	if sp.Index != m.saved.Index || sp.Position != m.saved.Position || string(sp.Extra) != string(m.saved.Extra) {
		m.t.Fatalf("opened savepoint %v, want %v", sp, m.saved)
	}
	if m.merges {
		x.AllowMerges()
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

// tally counts what the steps of machines led to.
type tally struct {
	answers                          seen
	blocks, merged, unread, reopened uint64
}

// run drives a new index and its model through steps, each 0 to 9, and
// compares them after each. Every third index is one without MERGE records, as
// older programs write it, until it is opened again.
func run(t reporter, steps []int, seed uint64, n *tally) {
	m := &machine{t: t, fs: vfs.NewMem(), dir: "state", model: newModel(), merges: seed%3 > 0}
	m.open()
	rng := rand.New(rand.NewPCG(seed, 1))
	shut := func() {
		n.blocks += m.x.Stats().BlocksWritten
		n.merged += m.x.Stats().BlocksMerged
		n.unread += m.x.Stats().HeadsMerged
		checkBlocks(t, m.x)
		if err := m.x.Close(); err != nil {
			t.Fatalf("close: %v", err)
		}
	}
	for _, step := range steps {
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
			shut()
			m.merges = true
			m.open()
			n.reopened++
		}
		m.checkAll(t, rng, &n.answers)
	}
	shut()
}

func TestIndex_AnswersLikeTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		run(t, rapid.SliceOfN(rapid.IntRange(0, 9), 1, 30).Draw(t, "steps"), seed, &tally{})
	})
}

// What the property test draws differs from run to run; these steps do not, and
// lead to every sort of answer and every path of a commit.
func TestIndex_EverySortOfAnswerComesUp(t *testing.T) {
	var n tally
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 2))
		steps := make([]int, 20)
		for i := range steps {
			steps[i] = rng.IntN(10)
		}
		run(t, steps, seed, &n)
	}
	t.Logf("%+v", n)
	if s := n.answers; s.exact == 0 || s.inexact == 0 || s.unindexed == 0 || s.conflicts == 0 || s.free == 0 {
		t.Errorf("some sort of answer never came up: %+v", s)
	}
	if n.blocks == 0 || n.merged == 0 || n.unread == 0 || n.reopened == 0 {
		t.Errorf("%d blocks written, %d merged, %d heads not read, %d reopenings: none may be zero", n.blocks, n.merged, n.unread, n.reopened)
	}
}

// checkBlocks reads the whole store: each list's blocks are full but for the
// last, their ordinals follow one another, and the head says what they hold.
func checkBlocks(t reporter, x *Index) {
	it, err := x.gen.snap.NewIter(&pebble.IterOptions{LowerBound: []byte{prefixHead}, UpperBound: []byte{prefixHead + 1}})
	if err != nil {
		t.Fatalf("iterate: %v", err)
	}
	defer it.Close()
	for valid := it.First(); valid; valid = it.Next() {
		term := it.Key()[1:]
		h, err := decodeHead(it.Key(), it.Value(), nil)
		// A term other than a stream has a short tail in all likelihood only.
		if err != nil || kind(term[0]) == kindStream && uint64(len(h.tail)) >= 2*smallLimits.spill {
			t.Fatalf("head of %q: %v, a tail of %d", term, err, len(h.tail))
		}
		blocks, err := x.gen.snap.NewIter(&pebble.IterOptions{LowerBound: blockKey(nil, term, 0), UpperBound: blockKey(nil, term, math.MaxUint64)})
		if err != nil {
			t.Fatalf("iterate: %v", err)
		}
		var before blockHead
		for valid := blocks.First(); valid; valid = blocks.Next() {
			b, postings, err := decodeBlock(blocks.Key(), blocks.Value(), nil)
			if err != nil || b.ordinal != before.ordinal+before.count || b.first <= before.last ||
				before.count > 0 && before.count != smallLimits.block || b.count > smallLimits.block {
				t.Fatalf("block of %q: %+v after %+v, %v", term, b, before, err)
			}
			if b.ordinal == 0 && h.first != postings[0] {
				t.Fatalf("%q begins at %d, its head says %d", term, postings[0], h.first)
			}
			before = b
		}
		if before != h.block || h.count != before.ordinal+before.count+uint64(len(h.tail)) {
			t.Fatalf("head of %q: %+v, its last block is %+v", term, h, before)
		}
		if err := blocks.Close(); err != nil {
			t.Fatalf("iterate: %v", err)
		}
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
