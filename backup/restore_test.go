package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"

	"cairn/datadir"
	"cairn/event"
	eventlog "cairn/log"
	"cairn/offline"
	"cairn/snapshot"
)

// restoreTo restores testDir with stand-ins for Raft's files.
func restoreTo(fs vfs.FS, data string, o RestoreOptions) (*Restored, error) {
	o.FS, o.Data, o.Now, o.Raft = fs, data, testNow, "127.0.0.1:7071"
	if o.From == "" {
		o.From = testDir
	}
	o.Build = func(dir string) error {
		return errors.Join(writeFile(fs, fs.PathJoin(dir, "raft", "stable.db"), []byte("stable")),
			writeFile(fs, fs.PathJoin(dir, "raft", "wal", "wal-meta.db"), []byte("meta")))
	}
	o.SetTerm = func(path string, term uint64) error { return writeFile(fs, path, fmt.Append(nil, "term ", term)) }
	return Restore(context.Background(), o)
}

// checkFolder reads every byte of a restored folder.
func checkFolder(fs vfs.FS, data string) error {
	c, err := offline.Check(context.Background(), offline.CheckOptions{FS: fs, Dir: data})
	if err != nil {
		return err
	}
	if len(c.Findings) > 0 || len(c.Skipped) > 0 {
		return fmt.Errorf("found %+v, skipped %v", c.Findings, c.Skipped)
	}
	return nil
}

// checkRestored holds a restored folder against the node that the backup is of.
func checkRestored(t *testing.T, fs vfs.FS, data string, from []record, r *Restored) {
	t.Helper()
	must(t, checkFolder(fs, data))
	if got := string(readFile(t, fs, fs.PathJoin(data, "raft", "stable.db"))); got != "term 1" {
		t.Errorf("the stable store holds %q", got)
	}
	n, err := openData(fs, data)
	must(t, err)
	defer func() { must(t, n.close()) }()
	has, err := n.records()
	must(t, err)
	last := has[len(has)-1].event
	if got := has[:len(has)-1]; !reflect.DeepEqual(got, from[:r.Position]) {
		for i := range got {
			if !reflect.DeepEqual(got[i], from[i]) {
				t.Fatalf("position %d is %+v, want %+v", i+1, got[i], from[i])
			}
		}
		t.Fatalf("it has %d events of %d", len(got), r.Position)
	}
	var restored event.LogRestored
	must(t, json.Unmarshal(last.Data, &restored))
	if last.Type != event.TypeLogRestored || last.Stream != event.StreamLog || restored != (event.LogRestored{LogID: r.Log, From: r.From, Position: r.Position}) {
		t.Errorf("the last event is %+v: %+v", last, restored)
	}
	if r.LastTime != event.FormatTime(from[r.Position-1].event.Time) || r.Left != uint64(len(from))-r.Position {
		t.Errorf("restored %+v", r)
	}
	if n.machine.LogID() != r.Log || n.data.LogID() != r.Log || n.data.NodeID() != r.NodeID || r.Log == r.From {
		t.Errorf("node %s of log %s, whose state is of %s, want %+v", n.data.NodeID(), n.data.LogID(), n.machine.LogID(), r)
	}
	checkSnapshot(t, fs, n, r)
	// It knows what was appended before, and goes on after it.
	if r.Position > 4 {
		if o := n.apply(t, testNow(), order(1))[0]; o.Code != event.Duplicate || o.First != 2 || o.Last != 4 {
			t.Errorf("a retry of what the backup holds: %+v", o)
		}
	}
	if o := n.apply(t, testNow(), order(100000))[0]; !o.OK() || o.First != r.Position+2 {
		t.Errorf("an append: %+v", o)
	}
}

// checkSnapshot looks at what Raft will start from: a cluster of one.
func checkSnapshot(t *testing.T, fs vfs.FS, n *source, r *Restored) {
	t.Helper()
	store, err := snapshot.NewStore(snapshot.StoreOptions{FS: fs, Dir: n.data.Snapshots(), Generations: n.gens,
		VerifySegment: func(string) (string, error) { return "", errors.New("not here") }})
	must(t, err)
	meta, m, err := store.Newest()
	must(t, err)
	index, position := n.machine.Durable()
	want := raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: raft.ServerID(r.NodeID), Address: "127.0.0.1:7071"}}}
	if meta == nil || meta.Index != index || meta.Term != 1 || m.Position != position || position != r.Position+1 || m.LogID != r.Log || !reflect.DeepEqual(meta.Configuration, want) {
		t.Errorf("snapshot %+v of %+v, durable are %d and %d", meta, m, index, position)
	}
}

// backedUpNode makes a backup of 30 entries, the i-th with the positions
// 4i-2 to 4i+1: an append of three events and one of one.
func backedUpNode(t *testing.T, fs vfs.FS) (*source, []record) {
	t.Helper()
	n := newSource(t, testLogID)
	n.fill(t, 1, 30)
	_, err := runBackup(fs, n)
	must(t, err)
	records, err := n.records()
	must(t, err)
	return n, records
}

func TestRestore_Whole(t *testing.T) {
	fs := vfs.NewMem()
	n, records := backedUpNode(t, fs)
	steps := map[string]bool{}
	r, err := restoreTo(fs, testData, RestoreOptions{NodeID: "phoenix", Progress: func(step string, position, last uint64) {
		steps[step] = true
		if position > last {
			t.Errorf("%s: %d of %d", step, position, last)
		}
	}})
	must(t, err)
	if r.Position != n.last() || r.Left != 0 || r.NodeID != "phoenix" || r.From != testLogID || !steps["verify"] {
		t.Errorf("restored %+v, told of %v", r, steps)
	}
	checkRestored(t, fs, testData, records, r)
	names, err := fs.List("/srv")
	must(t, err)
	if len(names) != 1 {
		t.Errorf("beside the folder stand %v", names)
	}
	if _, err := whole(fs, testDir); err != nil {
		t.Errorf("the backup afterwards: %v", err)
	}
}

func TestRestore_UpTo(t *testing.T) {
	fs := vfs.NewMem()
	_, records := backedUpNode(t, fs)
	for i, tt := range []struct {
		name string
		o    RestoreOptions
		want uint64
	}{
		{"the end of an entry", RestoreOptions{Position: 41}, 41},
		{"the end of an append in the middle of an entry", RestoreOptions{Position: 44}, 44},
		{"the first event of an append", RestoreOptions{Position: 42}, 41},
		{"the middle of an append", RestoreOptions{Position: 43}, 41},
		{"the birth", RestoreOptions{Position: 1}, 1},
		{"beyond the end", RestoreOptions{Position: 1000}, 117},
		{"a time at which events were appended", RestoreOptions{Time: entryTime(10)}, 41},
		{"just before it", RestoreOptions{Time: entryTime(10).Add(-1)}, 37},
		{"a time after all", RestoreOptions{Time: testNow()}, 117},
		{"the position is first", RestoreOptions{Position: 12, Time: entryTime(10)}, 12},
		{"the time is first", RestoreOptions{Position: 60, Time: entryTime(10)}, 41},
	} {
		t.Run(tt.name, func(t *testing.T) {
			data := fmt.Sprint("/srv/", i)
			r, err := restoreTo(fs, data, tt.o)
			must(t, err)
			if r.Position != tt.want {
				t.Errorf("restored up to %d, want %d", r.Position, tt.want)
			}
			checkRestored(t, fs, data, records, r)
		})
	}
	if _, err := restoreTo(fs, testData, RestoreOptions{Time: entryTime(0).Add(-time.Second)}); err == nil || !strings.Contains(err.Error(), "no event of the backup is that old") {
		t.Errorf("got %v", err)
	}
	if _, err := fs.Stat(testData); err == nil {
		t.Error("the folder is there")
	}
}

func TestRestore_RefusesTheFolder(t *testing.T) {
	fs := vfs.NewMem()
	backedUpNode(t, fs)
	must(t, snapshot.MakeDir(fs, testData, 0o755))
	must(t, writeFile(fs, testData+"/thesis.txt", []byte("years")))
	if _, err := restoreTo(fs, testData, RestoreOptions{}); err == nil || !strings.Contains(err.Error(), "is not empty") {
		t.Errorf("got %v", err)
	}
	if _, err := restoreTo(fs, testData+"/thesis.txt", RestoreOptions{}); err == nil {
		t.Error("a file was taken for an empty folder")
	}
	if got := string(readFile(t, fs, testData+"/thesis.txt")); got != "years" {
		t.Errorf("the file holds %q", got)
	}
	must(t, fs.Remove(testData+"/thesis.txt")) // an empty one makes way
	_, err := restoreTo(fs, testData, RestoreOptions{})
	must(t, err)
	if _, err := restoreTo(fs, testData, RestoreOptions{}); err == nil || !strings.Contains(err.Error(), "is not empty") {
		t.Errorf("over what was restored: %v", err)
	}
	must(t, checkFolder(fs, testData))
}

func TestRestore_TwoAtOnce(t *testing.T) {
	fs := vfs.NewMem()
	_, records := backedUpNode(t, fs)
	var second error
	r, err := restoreTo(fs, testData, RestoreOptions{Progress: func(string, uint64, uint64) {
		if second == nil {
			_, second = restoreTo(fs, testData, RestoreOptions{})
		}
	}})
	must(t, err)
	if second == nil || !strings.Contains(second.Error(), "is in use by another") {
		t.Errorf("a second one at once: %v", second)
	}
	checkRestored(t, fs, testData, records, r)
}

func TestRestore_DamagedBackup(t *testing.T) {
	fs := vfs.NewCrashableMem()
	n, _ := backedUpNode(t, fs)
	files, err := n.Log(t.Context())
	must(t, err)
	last := len(files.Segments) - 1
	for _, tt := range []struct {
		name  string
		spoil func(fs vfs.FS, log string)
		want  string
	}{
		{"a byte", func(fs vfs.FS, log string) { flip(t, fs, log+files.Segments[2].Name, 999) }, "the backup is damaged: "},
		{"a byte of the last one", func(fs vfs.FS, log string) { flip(t, fs, log+files.Segments[last].Name, 999) }, "the backup is damaged: "},
		{"a missing segment", func(fs vfs.FS, log string) { must(t, fs.Remove(log+files.Segments[1].Name)) }, files.Segments[1].Name},
		{"a short last one", func(fs vfs.FS, log string) {
			b := readFile(t, fs, log+files.Segments[last].Name)
			must(t, writeFile(fs, log+files.Segments[last].Name, b[:len(b)-1]))
		}, "the backup is damaged: "},
		{"a newer segment", func(fs vfs.FS, log string) {
			b := readFile(t, fs, log+files.Segments[0].Name)
			b[8]++ // the version in its header
			must(t, writeFile(fs, log+files.Segments[0].Name, b))
		}, files.Segments[0].Name},
		{"the name of another log", func(fs vfs.FS, log string) {
			m := strings.Replace(string(readFile(t, fs, testDir+"/BACKUP")), testLogID, otherLog, 1)
			must(t, writeFile(fs, testDir+"/BACKUP", []byte(m)))
		}, "its segments are of log " + testLogID},
		{"no manifest", func(fs vfs.FS, log string) { must(t, fs.Remove(testDir+"/BACKUP")) }, ErrNone.Error()},
		{"a newer manifest", func(fs vfs.FS, log string) {
			must(t, writeFile(fs, testDir+"/BACKUP", []byte(`{"format":2,"future":{}}`)))
		}, "use a newer cairn"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fs := clone(fs)
			tt.spoil(fs, testDir+"/log/")
			_, err := restoreTo(fs, testData, RestoreOptions{})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			for _, left := range []string{testData, testData + ".restoring"} {
				if _, err := fs.Stat(left); err == nil {
					t.Errorf("%s is there", left)
				}
			}
		})
	}
	var damage *eventlog.CorruptError
	flip(t, fs, testDir+"/log/"+files.Segments[0].Name, 999)
	if _, err := restoreTo(fs, testData, RestoreOptions{}); !errors.As(err, &damage) || damage.Offset == 0 {
		t.Errorf("got %v, want file and offset", err)
	}
}

// While a later run is at work, or was broken off, the backup before is restored.
func TestRestore_BesideABrokenOffRun(t *testing.T) {
	fs := vfs.NewMem()
	n, records := backedUpNode(t, fs)
	n.fill(t, 30, 60)
	sent := 0
	n.alter = func(_ string, _ int64, b []byte) ([]byte, error) {
		if sent++; sent > 4 {
			return nil, errDown
		}
		return b, nil
	}
	if _, err := runBackup(fs, n); !errors.Is(err, errDown) {
		t.Fatalf("got %v", err)
	}
	r, err := restoreTo(fs, testData, RestoreOptions{})
	must(t, err)
	checkRestored(t, fs, testData, records, r)
}

// A restored log can be backed up and restored again.
func TestRestore_OfARestoredLog(t *testing.T) {
	fs := vfs.NewMem()
	backedUpNode(t, fs)
	first, err := restoreTo(fs, testData, RestoreOptions{Position: 50})
	must(t, err)
	n, err := openData(fs, testData)
	must(t, err)
	n.fill(t, 200, 210)
	if _, err := runBackup(fs, n); err == nil || !strings.Contains(err.Error(), "back up into another folder") {
		t.Errorf("into the folder of the log before: %v", err)
	}
	_, err = Run(t.Context(), Options{FS: fs, Dir: "/mnt/second", Nodes: []Node{n}, Now: testNow})
	must(t, err)
	records, err := n.records()
	must(t, err)
	must(t, n.close())
	for i, o := range []RestoreOptions{{From: "/mnt/second"}, {From: "/mnt/second", Position: 60}, {From: "/mnt/second", Position: first.Position + 1}, {From: "/mnt/second", Position: 20}} {
		data := fmt.Sprint("/srv/second-", i)
		r, err := restoreTo(fs, data, o)
		must(t, err)
		if r.From != first.Log {
			t.Errorf("restored %+v, want from %s", r, first.Log)
		}
		checkRestored(t, fs, data, records, r)
	}
}

// A node that the log has down as removed for good would end at its start.
func TestRestore_RemovedNode(t *testing.T) {
	fs, n := vfs.NewMem(), newSource(t, testLogID)
	n.fill(t, 1, 5)
	removal, err := event.SystemCommand(event.StreamMembers, event.TypeMemberRemoved, event.MemberRemoved{NodeID: "n3"})
	must(t, err)
	n.apply(t, entryTime(5), removal)
	_, err = runBackup(fs, n)
	must(t, err)
	if _, err := restoreTo(fs, testData, RestoreOptions{NodeID: "n3"}); err == nil || !strings.Contains(err.Error(), "was removed") {
		t.Errorf("got %v", err)
	}
	_, err = restoreTo(fs, testData, RestoreOptions{NodeID: "n3", Position: 17}) // before that
	must(t, err)
}

func TestRestore_Cancelled(t *testing.T) {
	fs := vfs.NewMem()
	backedUpNode(t, fs)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Restore(ctx, RestoreOptions{FS: fs, From: testDir, Data: testData, Now: testNow}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := restoreTo(fs, testData, RestoreOptions{NodeID: "not a name"}); err == nil || !strings.Contains(err.Error(), "node id") {
		t.Errorf("got %v", err)
	}
	if _, err := fs.Stat(testData); err == nil {
		t.Error("the folder is there")
	}
	var missing *datadir.MissingPartError
	o := RestoreOptions{FS: fs, From: testDir, Data: testData, Now: testNow, Build: func(string) error { return nil }, SetTerm: func(string, uint64) error { return nil }}
	if _, err := Restore(t.Context(), o); !errors.As(err, &missing) {
		t.Errorf("without Raft's parts: %v", err)
	}
}
