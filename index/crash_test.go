package index

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"cairn/event"
)

// script is a fixed run of appends and commits, and what must be there after
// each of them.
type script struct {
	limits limits
	rounds [][]event.Event
	all    *model
	extras []map[string]string // by number of commits
}

const (
	scriptRounds = 8
	perRound     = 25
)

func newScript(seed uint64) *script {
	rng := rand.New(rand.NewPCG(seed, 2))
	s := &script{limits: smallLimits, all: newModel(), extras: []map[string]string{{}}}
	for r := range scriptRounds {
		for range perRound {
			s.all.add(rng)
		}
		s.rounds = append(s.rounds, s.all.events[r*perRound:])
		extra := maps.Clone(s.extras[r])
		extra["same"] = fmt.Sprint(r)
		extra[fmt.Sprintf("root-%d", r)] = fmt.Sprint(r)
		s.extras = append(s.extras, extra)
	}
	return s
}

func (s *script) savepoint(commits int) Savepoint {
	if commits == 0 {
		return Savepoint{}
	}
	return Savepoint{Index: uint64(10 * commits), Position: uint64(perRound * commits), Extra: fmt.Append(nil, "extra ", commits)}
}

// pairs are those of the append that ends a round, counted from 1: one row has
// the round's number, one is there in every second round.
func (s *script) pairs(round int) []Pair {
	odd := []byte(nil)
	if round%2 == 1 {
		odd = []byte("yes")
	}
	return []Pair{{[]byte("in/round"), fmt.Append(nil, round)}, {[]byte("in/odd"), odd}}
}

// writesPerRound is how often writeRows writes.
const writesPerRound = 3

// writeRows writes rows past the overlay: each time the same two with the
// number of the writing, and after every other one of a kind that DropRows takes
// away again.
func (s *script) writeRows(x *Index, round int) error {
	for i := range writesPerRound {
		n := fmt.Append(nil, writesPerRound*round+i+1)
		if err := x.WriteRows([]Pair{{[]byte("out/a"), n}, {[]byte("out/b"), n}}); err != nil {
			return err
		}
	}
	if err := x.WriteRows([]Pair{{fmt.Append(nil, "dropped/", round), []byte("x")}}); err != nil {
		return err
	}
	return x.DropRows([]byte("dropped/"))
}

// checkRows checks the rows of an index that was opened at a commit.
func (s *script) checkRows(t *testing.T, x *Index, commits int, what string) {
	t.Helper()
	want := map[string]string{}
	if commits > 0 {
		for _, p := range s.pairs(commits) {
			if p.Value != nil {
				want[string(p.Key)] = string(p.Value)
			}
		}
	}
	pairs, _, _, err := x.Rows(nil, nil, 100, nil)
	if err != nil {
		t.Fatalf("%s: rows: %v", what, err)
	}
	got, written, dropped := map[string]string{}, map[string]int{}, 0
	for _, p := range pairs {
		switch key := string(p.Key); {
		case strings.HasPrefix(key, "in/"):
			got[key] = string(p.Value)
		case strings.HasPrefix(key, "out/"):
			written[key], _ = strconv.Atoi(string(p.Value))
		default:
			dropped++
		}
	}
	if !maps.Equal(got, want) {
		t.Fatalf("%s: the committed rows are %v, want %v", what, got, want)
	}
	n := written["out/a"]
	if n != written["out/b"] || n < writesPerRound*commits || n > writesPerRound*(commits+1) {
		t.Fatalf("%s: rows were written %v times in %d rounds", what, written, commits)
	}
	if dropped > 1 || dropped == 1 && n%writesPerRound != 0 {
		t.Fatalf("%s: %q after commit %d", what, pairs, commits)
	}
}

// run plays the script, until the end or the first error: half-way it closes
// the index and opens it again. It tells before and after each Commit which of
// them are certain and which may be there.
func (s *script) run(o Options, committed func(certain, possible int)) (x *Index, err error) {
	if x, _, err = open(o, s.limits); err != nil {
		return nil, err
	}
	for r := range scriptRounds {
		if r == scriptRounds/2 {
			if err := x.Close(); err != nil {
				return x, err
			}
			if x, _, err = open(o, s.limits); err != nil {
				return nil, err
			}
		}
		x.AllowMerges()
		x.AddAll(s.rounds[r][:perRound-1])
		x.AddAppend(s.rounds[r][perRound-1:perRound], s.pairs(r+1))
		for key, value := range s.extras[r+1] {
			if s.extras[r][key] != value {
				x.Put([]byte(key), []byte(value))
			}
		}
		x.Freeze()
		if err := s.writeRows(x, r); err != nil {
			return x, err
		}
		committed(r, r+1)
		if err := x.Commit(s.savepoint(r + 1)); err != nil {
			return x, err
		}
		committed(r+1, r+1)
	}
	return x, nil
}

// verify opens what a crash left and checks that it is exactly the state of one
// savepoint, which it returns.
func (s *script) verify(t *testing.T, fs vfs.FS, certain, possible int, what string) {
	t.Helper()
	x, sp, err := open(Options{FS: fs, Dir: "gen/state", CacheBytes: 1 << 20}, s.limits)
	if err != nil {
		t.Fatalf("%s: open: %v", what, err)
	}
	defer func() {
		if err := x.Close(); err != nil {
			t.Errorf("%s: close: %v", what, err)
		}
	}()
	commits := int(sp.Index / 10)
	want := s.savepoint(commits)
	if sp.Position != want.Position || string(sp.Extra) != string(want.Extra) {
		t.Fatalf("%s: opened %v, want %v", what, sp, want)
	}
	if commits < certain || commits > possible {
		t.Fatalf("%s: opened commit %d, want %d to %d", what, commits, certain, possible)
	}
	m := newModel()
	m.events = s.all.events[:sp.Position]
	v := x.View(sp.Position)
	defer v.Close()
	m.checkEverything(t, v)
	s.checkRows(t, x, commits, what)
	for key, value := range s.extras[scriptRounds] {
		if want := s.extras[commits][key]; want != value {
			value = want
		}
		if got, err := v.Get([]byte(key)); err != nil || string(got) != value {
			t.Fatalf("%s: Get(%q) = %q, %v, want %q", what, key, got, err, value)
		}
	}
}

// checkEverything compares all terms, streams and ids.
func (m *model) checkEverything(t *testing.T, v *View) {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 1))
	at := v.Position()
	got, err := v.Streams("", "", 1000)
	if want := m.streams("", "", 1000, at); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("Streams = %v, %v, want %v", got, err, want)
	}
	for _, name := range streamWords {
		compare(t, v.Stream(name, 0, false), m.stream(name, at), false, rng, name)
	}
	for k, words := range map[kind][]string{kindCategory: streamWords, kindType: typeWords, kindTag: tagWords,
		kindCorrelation: idWords, kindCausation: idWords, kindCompensates: idWords, kindSystem: {""}} {
		for _, word := range words {
			if word == "" && k != kindTag && k != kindSystem {
				continue
			}
			p := plan{v: v}
			compare(t, p.iter(p.term(k, word).source, 0), m.where(at, func(e *event.Event) bool { return hasTerm(e, k, word) }),
				false, rng, fmt.Sprintf("kind %d, %q", k, word))
		}
	}
	for i := range m.events {
		e := &m.events[i]
		if !e.IDChosen {
			continue
		}
		if p, ok, err := v.Lookup(e.ID, e.Stream); err != nil || !ok || p != e.Position {
			t.Fatalf("Lookup(%q, %q) = %d, %t, %v, want %d", e.ID, e.Stream, p, ok, err, e.Position)
		}
	}
}

func hasTerm(e *event.Event, k kind, text string) bool {
	system := event.IsSystem(e.Stream)
	switch k {
	case kindCategory:
		return event.Category(e.Stream) == text
	case kindType:
		return !system && e.Type == text
	case kindTag:
		for _, tag := range e.Tags {
			if !system && tag == text {
				return true
			}
		}
		return false
	case kindCorrelation:
		return e.CorrelationID == text
	case kindCausation:
		return e.CausationID == text
	case kindCompensates:
		return e.Compensates == text
	default:
		return system
	}
}

// noReuse is a MemFS that creates a file instead of reusing one: MemFS locks
// itself twice for that, and hangs if a CrashClone comes in between.
type noReuse struct{ *vfs.MemFS }

func (fs noReuse) ReuseForWrite(oldName, newName string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := fs.Remove(oldName); err != nil {
		return nil, err
	}
	return fs.Create(newName, category)
}

// crash is what the disk may hold after a power failure.
type crash struct {
	fs                *vfs.MemFS
	certain, possible int
	what              string
}

// recorder is a file system that notes, before each operation that changes
// something, what a crash at this moment may leave.
type recorder struct {
	vfs.FS
	mu                sync.Mutex // Pebble writes from several goroutines
	ops               int
	crashes           []crash
	certain, possible int
}

func newRecorder(mem *vfs.MemFS) *recorder {
	r := &recorder{}
	r.FS = errorfs.Wrap(noReuse{mem}, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsRead {
			return nil
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.ops++
		percents := []int{0, 10, 50, 100}
		if op.Kind == errorfs.OpFileSync && op.Path == "gen/state" { // names that came and went, in any order
			percents = append(percents, 20, 30, 40, 45, 55, 60, 70, 80)
		}
		for _, percent := range percents {
			r.crashes = append(r.crashes, crash{
				fs:      crashClone(mem, percent, uint64(r.ops)),
				certain: r.certain, possible: r.possible,
				what: fmt.Sprintf("%d%% of unsynced kept before operation %d (%d on %s)", percent, r.ops, op.Kind, op.Path),
			})
		}
		return nil
	}))
	return r
}

func (r *recorder) committed(certain, possible int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.certain, r.possible = certain, possible
}

func crashClone(mem *vfs.MemFS, percent int, seed uint64) *vfs.MemFS {
	return mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(seed, uint64(percent)))})
}

// Memtables that are smaller than a commit flush each one, which syncs it too;
// in large ones it is in the WAL alone.
func TestCommit_CrashAfterEveryOperation(t *testing.T) {
	for _, memTable := range []uint64{smallLimits.memTable, 1 << 20} {
		what := fmt.Sprintf("memtables of %d bytes", memTable)
		s := newScript(7)
		s.limits.memTable = memTable
		rec := newRecorder(vfs.NewCrashableMem())
		x, err := s.run(Options{FS: rec, Dir: "gen/state", CacheBytes: 1 << 20}, rec.committed)
		if err != nil {
			t.Fatal(err)
		}
		stats := x.Stats()
		if err := x.Close(); err != nil {
			t.Fatal(err)
		}
		for _, c := range rec.crashes {
			s.verify(t, c.fs, c.certain, c.possible, what+": "+c.what)
		}
		t.Logf("%s: %d operations, %d crashes, %d blocks written, %d merged, %d heads merged", what, rec.ops, len(rec.crashes),
			stats.BlocksWritten, stats.BlocksMerged, stats.HeadsMerged)
		if rec.ops < 5*scriptRounds || stats.BlocksWritten == 0 || stats.BlocksMerged == 0 || stats.HeadsMerged == 0 {
			t.Errorf("%s: %d operations, %+v: too few to mean anything", what, rec.ops, stats)
		}
	}
}

// A crash while what an earlier crash left is being opened.
func TestOpen_CrashAfterEveryOperation(t *testing.T) {
	s := newScript(9)
	mem := vfs.NewCrashableMem()
	x, err := s.run(Options{FS: noReuse{mem}, Dir: "gen/state", CacheBytes: 1 << 20}, func(int, int) {})
	if err != nil {
		t.Fatal(err)
	}
	left := crashClone(mem, 50, 1) // of an index that is not closed
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	rec := newRecorder(left)
	rec.committed(scriptRounds, scriptRounds)
	s.verify(t, rec, scriptRounds, scriptRounds, "after the first crash")
	for _, c := range rec.crashes {
		s.verify(t, c.fs, c.certain, c.possible, c.what)
	}
	t.Logf("%d operations, %d crashes", rec.ops, len(rec.crashes))
	if rec.ops < 10 {
		t.Errorf("%d operations: too few to mean anything", rec.ops)
	}
}

func TestCommit_EveryOperationFailsOnce(t *testing.T) {
	s := newScript(8)
	failures, refused := 0, 0
	for n := int64(0); ; n++ {
		var left atomic.Int64
		var failed atomic.Pointer[errorfs.Op]
		left.Store(n)
		inject := errorfs.InjectorFunc(func(op errorfs.Op) error {
			if left.Add(-1) != -1 {
				return nil
			}
			failed.Store(&op)
			return errorfs.ErrInjected
		})
		mem := vfs.NewCrashableMem()
		var told []error
		var mu sync.Mutex
		certain, possible := 0, 0
		x, err := s.run(Options{FS: errorfs.Wrap(noReuse{mem}, inject), Dir: "gen/state", CacheBytes: 1 << 20,
			OnError: func(err error) { mu.Lock(); defer mu.Unlock(); told = append(told, err) }},
			func(c, p int) { certain, possible = c, p })
		mu.Lock()
		if len(told) > 2 { // by two indexes, one after the other
			t.Fatalf("operation %d: told of %d errors: %v", n, len(told), told)
		}
		if err != nil && len(told) == 0 && !errors.Is(err, errorfs.ErrInjected) {
			t.Fatalf("operation %d: an error without a cause: %v", n, err)
		}
		if err == nil && x.store.failed() != nil && x.Commit(s.savepoint(scriptRounds)) == nil {
			t.Fatalf("operation %d: a commit succeeded after %v", n, told)
		}
		mu.Unlock()
		if err != nil {
			refused++
		}
		for _, percent := range []int{0, 100} {
			s.verify(t, crashClone(mem, percent, uint64(n)), certain, possible, fmt.Sprintf("operation %d failed (%+v): %v, %d%% kept", n, failed.Load(), err, percent))
		}
		if x != nil {
			_ = x.Close()
		}
		if left.Load() >= 0 { // not reached: the script has fewer operations
			break
		}
		failures++
	}
	t.Logf("%d operations failed, %d times the script ended", failures, refused)
	if failures < 20 || refused == 0 {
		t.Errorf("%d operations failed, %d times the script ended: too few to mean anything", failures, refused)
	}
}
