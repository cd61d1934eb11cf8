package fsm

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/errors/oserror"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"

	"cairn/event"
	"cairn/snapshot"
)

const (
	testLogID       = "0190a5b6-7c00-7000-8000-000000000001"
	testSegmentSize = 2048
)

// failer is what tests and property checks have in common.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// openMachine opens a machine in a file system and makes it ready for entries.
func openMachine(t failer, fs vfs.FS, edit func(*Options)) *Machine {
	t.Helper()
	m, err := tryOpen(fs, edit)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return m
}

func tryOpen(fs vfs.FS, edit func(*Options)) (*Machine, error) {
	if _, err := fs.Stat("logs/main/CURRENT"); oserror.IsNotExist(err) {
		if err := errors.Join(snapshot.MakeDir(fs, "logs", 0o755), snapshot.CreateGenerations(fs, "logs/main"), snapshot.SyncDir(fs, "logs")); err != nil {
			return nil, err
		}
	}
	gens, err := snapshot.OpenGenerations(fs, "logs/main", "raft/snapshots")
	if err != nil {
		return nil, err
	}
	o := Options{FS: fs, Generations: gens, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), CacheBytes: 1 << 20}
	if edit != nil {
		edit(&o)
	}
	m, err := Open(o)
	if err != nil {
		return nil, err
	}
	return m, m.Cut()
}

// entry is one Raft entry as tests write it down.
type entry struct {
	time    int64
	appends []event.Append
}

// birthIndex is the Raft index of the log's birth; the i-th entry of a test
// follows at firstIndex + i. Raft's own entries lie between.
const (
	birthIndex = 2
	firstIndex = 5
)

// rafted turns entries into a Raft log that begins with the birth of the log.
// Seeds are a function of the place, so that it can be made again.
func rafted(entries []entry) []*raft.Log {
	logs := []*raft.Log{birth(testSegmentSize)}
	for i, e := range entries {
		var commands [][]byte
		for j, a := range e.appends {
			c := event.Command{Kind: event.KindAppend, Append: a, Seed: [16]byte{byte(i), byte(j), 7}}
			commands = append(commands, event.EncodeCommand(nil, &c))
		}
		logs = append(logs, &raft.Log{Index: firstIndex + uint64(i), Term: 3, Data: event.EncodeEntry(nil, e.time, commands)})
	}
	return logs
}

func birth(segmentSize int64) *raft.Log {
	created, err := event.SystemCommand(event.StreamLog, event.TypeLogCreated,
		event.LogCreated{LogID: testLogID, SegmentSize: segmentSize, ClusterVersion: 1})
	if err != nil {
		panic(err)
	}
	created.Seed, created.Append.Events[0].ID = [16]byte{}, "birth"
	return &raft.Log{Index: birthIndex, Term: 1, Data: event.EncodeEntry(nil, 1, [][]byte{event.EncodeCommand(nil, &created)})}
}

// born is the model of a log that has nothing but its birth.
func born() *model {
	data := fmt.Sprintf(`{"log_id":%q,"segment_size":%d,"cluster_version":1}`, testLogID, testSegmentSize)
	return &model{time: 1, events: []event.Event{{
		Position: 1, Version: 1, Time: 1, Stream: event.StreamLog, Type: event.TypeLogCreated, ID: "birth",
		Data: []byte(data), AppendSize: 1,
	}}}
}

// one is an append of one event to a stream.
func one(stream, typ string, edit ...func(*event.Event)) event.Append {
	e := event.Event{Stream: stream, Type: typ, ID: event.NewID(), Data: []byte(`{"n":1}`)}
	for _, f := range edit {
		f(&e)
	}
	return event.Append{Events: []event.Event{e}}
}

func withID(id string) func(*event.Event) {
	return func(e *event.Event) { e.ID, e.IDChosen = id, true }
}

// outcomes applies a Raft log and returns what was decided about each command.
func outcomes(t failer, m *Machine, logs []*raft.Log) []event.Outcome {
	t.Helper()
	var all []event.Outcome
	for i, answer := range m.ApplyBatch(logs) {
		switch answer := answer.(type) {
		case nil:
		case []event.Outcome:
			all = append(all, answer...)
		default:
			t.Fatalf("entry %d: %v", logs[i].Index, answer)
		}
	}
	return all
}

// logBytes returns the log's files, name and contents.
func logBytes(t failer, fs vfs.FS, m *Machine) string {
	t.Helper()
	dir := m.opts.Generations.LogDir()
	names, err := fs.List(dir)
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	slices.Sort(names)
	var all strings.Builder
	for _, name := range names {
		f, err := fs.Open(fs.PathJoin(dir, name))
		if err != nil {
			t.Fatalf("open: %v", err)
		}
		b, err := io.ReadAll(f)
		if err != nil {
			t.Fatalf("read: %v", err)
		}
		_ = f.Close()
		fmt.Fprintf(&all, "%s %x\n", name, b)
	}
	return all.String()
}

// expectEvents holds what a machine answers against the model.
func expectEvents(t failer, m *Machine, want []event.Event) {
	t.Helper()
	v := m.View(0)
	defer v.Close()
	if v.Position() != uint64(len(want)) {
		t.Fatalf("position %d, want %d", v.Position(), len(want))
	}
	for _, backward := range []bool{false, true} {
		c, err := v.Select(Selection{Backward: backward})
		if err != nil {
			t.Fatalf("select: %v", err)
		}
		n := 0
		for ; c.Next(); n++ {
			at := n
			if backward {
				at = len(want) - 1 - n
			}
			if got, want := fmt.Sprintf("%+v", *c.Event()), fmt.Sprintf("%+v", want[at]); got != want {
				t.Fatalf("backward %v: event %d is\n%s, want\n%s", backward, n, got, want)
			}
		}
		if c.Err() != nil || n != len(want) {
			t.Fatalf("backward %v: %d events, %v; want %d", backward, n, c.Err(), len(want))
		}
		c.Close()
	}
}

// expectFilters holds filtered reads against the model.
func expectFilters(t failer, m *Machine, want []event.Event) {
	t.Helper()
	v := m.View(0)
	defer v.Close()
	for _, f := range []event.Filter{
		{Query: event.Query{Items: []event.QueryItem{{Types: []string{"T"}}}}},
		{Query: event.Query{Items: []event.QueryItem{{Types: []string{"T", "U"}, Tags: []string{"x"}}, {Tags: []string{"y", "z"}}}}},
		{Category: "b"}, {Stream: "a-1"}, {StreamPrefix: "b-"}, {StreamPrefix: "$"}, {FromTime: 40, ToTime: 70},
		{Category: "a", FromTime: 20, Query: event.Query{Items: []event.QueryItem{{Tags: []string{"x"}}}}},
	} {
		for _, s := range []Selection{{Filter: f}, {Filter: f, Backward: true}, {Filter: f, After: 9, Before: 30}, {Filter: f, After: 9, Before: 30, Backward: true}} {
			var expected, got []uint64
			for i := range want {
				if e := &want[i]; f.Matches(e) && e.Position > s.After && (s.Before == 0 || e.Position < s.Before) {
					expected = append(expected, e.Position)
				}
			}
			if s.Backward {
				slices.Reverse(expected)
			}
			c, err := v.Select(s)
			if err != nil {
				t.Fatalf("select %+v: %v", s, err)
			}
			for c.Next() {
				got = append(got, c.Event().Position)
			}
			if c.Err() != nil || !slices.Equal(got, expected) {
				t.Fatalf("select %+v: %v, %v; want %v", s, got, c.Err(), expected)
			}
			c.Close()
		}
	}
}

var _ failer = (*testing.T)(nil)
