package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/hashicorp/raft"

	"cairn/client"
	"cairn/datadir"
	"cairn/event"
	"cairn/fsm"
	eventlog "cairn/log"
	"cairn/snapshot"
)

const (
	testLogID = "0190a5b6-7c00-7000-8000-0000000000b1"
	otherLog  = "0190a5b6-7c00-7000-8000-0000000000b2"
	testDir   = "/mnt/backup"
	testData  = "/srv/restored"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// testNow is the clock of whoever takes backups and restores them.
func testNow() time.Time { return time.Date(2026, 6, 7, 8, 9, 10, 0, time.UTC) }

// entryTime is when the i-th entry of a source was appended.
func entryTime(i int) time.Time { return time.Date(2026, 1, 1, 0, 0, i, 0, time.UTC) }

// source is a node without Raft: a state machine over a log in memory. It gives
// its files as a real node does.
type source struct {
	machine *fsm.Machine
	fs      vfs.FS
	gens    *snapshot.Generations
	data    *datadir.Dir // nil unless it was opened from a data folder
	index   uint64

	// Tests set them before a call.
	down  bool
	alter func(name string, offset int64, data []byte) (sent []byte, err error) // err comes after what was sent
	lie   func(*client.LogFiles)

	mu     sync.Mutex
	bytes  int64    // sent
	pieces []string // asked for: name@offset
}

// newSource makes a node with a log of this id that has nothing but its birth.
func newSource(t testing.TB, logID string) *source {
	t.Helper()
	fs := vfs.NewMem()
	must(t, snapshot.MakeDir(fs, "/node/logs", 0o755))
	must(t, snapshot.CreateGenerations(fs, "/node/logs/main"))
	gens, err := snapshot.OpenGenerations(fs, "/node/logs/main", "/node/snapshots")
	must(t, err)
	s := &source{fs: fs, gens: gens, index: 3}
	s.machine, err = fsm.Open(fsm.Options{FS: fs, Generations: gens, CacheBytes: 1 << 20, Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	must(t, s.machine.Cut())
	t.Cleanup(func() { must(t, s.machine.Close()) })
	birth, err := event.SystemCommand(event.StreamLog, event.TypeLogCreated, event.LogCreated{LogID: logID, SegmentSize: 4096, ClusterVersion: 1})
	must(t, err)
	birth.Seed, birth.Append.Events[0].ID = [16]byte{}, "birth" // all nodes of a log have the same
	s.apply(t, entryTime(0), birth)
	return s
}

// openData opens the data folder of a node that was restored. Close ends it.
func openData(fs vfs.FS, dir string) (*source, error) {
	d, err := datadir.Open(fs, dir, datadir.Options{})
	if err != nil {
		return nil, err
	}
	s := &source{fs: fs, data: d}
	s.gens, err = snapshot.OpenGenerations(fs, d.Log(), d.Snapshots())
	if err == nil {
		s.machine, err = fsm.Open(fsm.Options{
			FS: fs, Generations: s.gens, CacheBytes: 1 << 20, Logger: slog.New(slog.DiscardHandler), OnBirth: d.SetLogID, RaiseVersion: d.RaiseMinVersion,
		})
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	s.index, _ = s.machine.Durable()
	return s, s.machine.Cut()
}

func (s *source) close() error { return errors.Join(s.machine.Close(), s.data.Close()) }

// apply applies one entry with some commands.
func (s *source) apply(t testing.TB, at time.Time, commands ...event.Command) []event.Outcome {
	t.Helper()
	var encoded [][]byte
	for i := range commands {
		commands[i].Seed[15] = byte(i)
		encoded = append(encoded, event.EncodeCommand(nil, &commands[i]))
	}
	s.index++
	outcomes, ok := s.machine.Apply(&raft.Log{Index: s.index, Term: 4, Data: event.EncodeEntry(nil, at.UnixNano(), encoded)}).([]event.Outcome)
	if !ok {
		t.Fatalf("entry %d was not applied", s.index)
	}
	return outcomes
}

// order is an append of three events with ids that the client chose.
func order(i int) event.Command {
	c := event.Command{Kind: event.KindAppend, Seed: [16]byte{byte(i), byte(i >> 8), 5}}
	for j, typ := range []string{"Placed", "Paid", "Sent"} {
		c.Append.Events = append(c.Append.Events, event.Event{
			Stream: fmt.Sprintf("order-%d", i), Type: typ, ID: fmt.Sprintf("order %d/%d", i, j), IDChosen: true, CorrelationID: "batch",
			Tags: []string{fmt.Sprintf("customer:%d", i%7)}, Data: fmt.Appendf(nil, `{"n":%d,"text":"%040d"}`, i, j),
		})
	}
	return c
}

// visit is an append of one event.
func visit(i int) event.Command {
	c := event.Command{Kind: event.KindAppend, Seed: [16]byte{byte(i), byte(i >> 8), 6}}
	c.Append.Events = []event.Event{{Stream: "visits", Type: "Seen", ID: fmt.Sprintf("visit %d", i), Data: []byte("text"), ContentType: "text/plain", Meta: []byte(`{"by":"me"}`)}}
	return c
}

// fill applies entries of two appends each, the i-th at entryTime(i).
func (s *source) fill(t testing.TB, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		for _, o := range s.apply(t, entryTime(i), order(i), visit(i)) {
			if !o.OK() {
				t.Fatalf("entry of %d: %+v", i, o)
			}
		}
	}
}

func (s *source) last() uint64 {
	_, position := s.machine.Applied()
	return position
}

// record is an event and the leaf that it is in the tree.
type record struct {
	event event.Event
	leaf  [32]byte
}

// records reads the log.
func (s *source) records() ([]record, error) {
	log, err := eventlog.Open(eventlog.Options{FS: s.fs, Dir: s.gens.LogDir(), Through: s.last()})
	if err != nil {
		return nil, err
	}
	defer log.Close()
	scan := log.ScanFrames(1)
	defer scan.Close()
	var all []record
	for scan.Next() {
		e := *scan.Event()
		e.Data, e.Meta, e.Tags = bytes.Clone(e.Data), bytes.Clone(e.Meta), slices.Clone(e.Tags)
		all = append(all, record{e, eventlog.Leaf(scan.Header())})
	}
	return all, scan.Err()
}

// Log describes the files.
func (s *source) Log(context.Context) (client.LogFiles, error) {
	if s.down {
		return client.LogFiles{}, errDown
	}
	have, err := s.machine.LogFiles()
	if err != nil {
		return client.LogFiles{}, err
	}
	files := client.LogFiles{Log: have.LogID, Position: have.Position}
	for _, f := range have.Sealed {
		files.Segments = append(files.Segments, client.SegmentFile(f))
	}
	if have.Active != "" {
		files.Segments = append(files.Segments, client.SegmentFile{Name: have.Active, Base: have.ActiveBase, Last: have.Position, Size: have.ActiveSize})
	}
	if s.lie != nil {
		s.lie(&files)
	}
	return files, nil
}

var errDown = errors.New("connection refused")

// Segment reads a part of a file.
func (s *source) Segment(_ context.Context, name string, offset, end int64) (io.ReadCloser, error) {
	if s.down {
		return nil, errDown
	}
	f, size, err := s.machine.OpenSegment(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, min(end, size)-offset)
	if _, err := f.ReadAt(b, offset); err != nil {
		return nil, err
	}
	if s.alter != nil {
		b, err = s.alter(name, offset, b)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes += int64(len(b))
	s.pieces = append(s.pieces, fmt.Sprintf("%s@%d", name, offset))
	return io.NopCloser(io.MultiReader(bytes.NewReader(b), failing{err})), nil
}

// failing is the end of a stream: with an error, or without.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) {
	if f.err == nil {
		return 0, io.EOF
	}
	return 0, f.err
}

// sent returns what was sent since the last call.
func (s *source) sent() (bytes int64, pieces []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	bytes, pieces = s.bytes, s.pieces
	s.bytes, s.pieces = 0, nil
	return bytes, pieces
}

func runBackup(fs vfs.FS, nodes ...Node) (*Summary, error) {
	return Run(context.Background(), Options{FS: fs, Dir: testDir, Nodes: nodes, Now: testNow, parallel: 1})
}

// whole reads a backup and checks every segment of it.
func whole(fs vfs.FS, dir string) (*Manifest, error) {
	m, err := Read(fs, dir)
	if err != nil {
		return nil, err
	}
	for _, s := range m.Segments {
		if err := verify(fs, fs.PathJoin(dir, logName, s.Name), s); err != nil {
			return m, err
		}
	}
	return m, nil
}

func readFile(t testing.TB, fs vfs.FS, path string) []byte {
	t.Helper()
	f, err := fs.Open(path)
	must(t, err)
	defer f.Close()
	b, err := io.ReadAll(f)
	must(t, err)
	return b
}

func writeFile(fs vfs.FS, path string, data []byte) error {
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(bytes.Clone(data))
	return errors.Join(err, f.Sync(), f.Close())
}

func flip(t testing.TB, fs vfs.FS, path string, at int) {
	t.Helper()
	b := readFile(t, fs, path)
	b[at] ^= 1
	must(t, writeFile(fs, path, b))
}

// testSeed seeds what a crash keeps; CAIRN_TEST_SEED repeats a run.
func testSeed(t testing.TB) uint64 {
	seed := uint64(1)
	if s := os.Getenv("CAIRN_TEST_SEED"); s != "" {
		var err error
		seed, err = strconv.ParseUint(s, 10, 64)
		must(t, err)
	}
	t.Logf("CAIRN_TEST_SEED=%d", seed)
	return seed
}

// clone returns a copy of a file system.
func clone(mem *vfs.MemFS) *vfs.MemFS {
	return mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
}

// crashEverywhere runs do, and check on what a crash before each operation that
// changes something, and after the last, may leave.
func crashEverywhere(t testing.TB, mem *vfs.MemFS, percents []int, do func(vfs.FS), check func(crashed *vfs.MemFS, percent int, at string)) {
	seed, crashes := testSeed(t), uint64(0)
	var mu sync.Mutex
	crash := func(at string) {
		mu.Lock()
		defer mu.Unlock()
		for _, percent := range percents {
			crashes++
			crashed := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(seed, crashes))})
			check(crashed, percent, fmt.Sprintf("crash before %s, %d%% kept", at, percent))
		}
	}
	do(errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			crash(fmt.Sprintf("kind %d on %s", op.Kind, op.Path))
		}
		return nil
	})))
	crash("the end")
	t.Logf("%d crashes", crashes)
}

// failEverywhere runs do again and again, with another operation failing each
// time, until it comes to its end without. do gets a file system and the one
// below it.
func failEverywhere(t testing.TB, start *vfs.MemFS, do func(fs vfs.FS, below *vfs.MemFS, at string) error) {
	for k := 1; ; k++ {
		below, at := clone(start), ""
		n := 0
		var mu sync.Mutex
		fs := errorfs.Wrap(below, errorfs.InjectorFunc(func(op errorfs.Op) error {
			mu.Lock()
			defer mu.Unlock()
			if n++; n != k {
				return nil
			}
			at = fmt.Sprintf("operation %d (kind %d on %s) failed", k, op.Kind, op.Path)
			return errorfs.ErrInjected
		}))
		err := do(fs, below, fmt.Sprintf("operation %d failed", k))
		if at == "" {
			must(t, err)
			t.Logf("%d operations", k-1)
			return
		}
		if err != nil && !errors.Is(err, errorfs.ErrInjected) && !strings.Contains(err.Error(), errorfs.ErrInjected.Error()) {
			t.Errorf("%s: %v", at, err)
		}
	}
}
