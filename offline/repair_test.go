package offline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/hashicorp/raft"

	"cairn/client"
	"cairn/datadir"
	eventlog "cairn/log"
	"cairn/snapshot"
)

const testSegments = testDir + "/logs/main/gen-000001/log/"

// testPeer is a running node that others fetch from.
type testPeer struct {
	*testNode
	down  bool
	alter func(name string, b []byte) // damages what is sent
	lie   func(*client.LogFiles)
	asked []string
}

// newPeer is a node with the entries of a test's node, and more.
func newPeer(t testing.TB, entriesOf int) *testPeer {
	t.Helper()
	fs := vfs.NewMem()
	must(t, snapshot.MakeDir(fs, "/srv", 0o755))
	n, err := startNode(fs, 1000)
	must(t, err)
	t.Cleanup(func() { must(t, n.stop()) })
	_, err = n.apply(append([]*raft.Log{birth()}, entries(0, entriesOf)...))
	must(t, err)
	return &testPeer{testNode: n}
}

// LocalLog describes the files.
func (p *testPeer) LocalLog(context.Context) (client.LogFiles, error) {
	if p.down {
		return client.LogFiles{}, io.ErrClosedPipe
	}
	have, err := p.machine.LogFiles()
	files := client.LogFiles{Log: have.LogID, Position: have.Position}
	for _, s := range have.Sealed {
		files.Segments = append(files.Segments, client.SegmentFile(s))
	}
	files.Segments = append(files.Segments, client.SegmentFile{Name: have.Active, Base: have.ActiveBase, Last: have.Position, Size: have.ActiveSize})
	if p.lie != nil {
		p.lie(&files)
	}
	return files, err
}

// Segment reads a part of a file.
func (p *testPeer) Segment(_ context.Context, name string, offset, end int64) (io.ReadCloser, error) {
	p.asked = append(p.asked, name)
	f, size, err := p.machine.OpenSegment(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, min(end, size)-offset)
	_, err = f.ReadAt(b, offset)
	if p.alter != nil {
		p.alter(name, b)
	}
	return io.NopCloser(bytes.NewReader(b)), err
}

func repairNode(fs vfs.FS, peers ...Peer) (Repaired, error) {
	return Repair(context.Background(), RepairOptions{FS: fs, Dir: testDir, From: peers})
}

// stored returns the node's segments: all of them, and the one with the
// savepoint.
func stored(t testing.TB, fs vfs.FS) (names []string, last string) {
	t.Helper()
	names, err := fs.List(testSegments)
	must(t, err)
	slices.Sort(names)
	return names, names[len(names)-1]
}

// startable is what the start-up checks of a cluster ask of the log: that it can
// be opened and holds nothing that this node's Raft does not know of.
func startable(fs vfs.FS) error {
	n, err := startNode(fs, 1000)
	if err != nil {
		return err
	}
	err = n.stop()
	if tail := n.machine.TailIndex(); tail > 5+testEntries-1 {
		err = errors.Join(err, fmt.Errorf("the log goes on to index %d, Raft's ends with %d", tail, 5+testEntries-1))
	}
	return err
}

func TestRepair_DamageAnywhere(t *testing.T) {
	mem := vfs.NewCrashableMem()
	madeNode(t, mem)
	want, err := answers(clone(mem, 100, 1))
	must(t, err)
	names, last := stored(t, mem)
	if len(names) < 4 {
		t.Fatalf("only the segments %v", names)
	}
	size := func(name string) int { return len(readFile(t, mem, testSegments+name)) }
	at := func(name string, offset int) func(vfs.FS) {
		return func(fs vfs.FS) { flip(t, fs, testSegments+name, int64(offset)) }
	}
	gone := func(names ...string) func(vfs.FS) {
		return func(fs vfs.FS) {
			for _, name := range names {
				must(t, fs.Remove(testSegments+name))
			}
		}
	}
	for _, tt := range []struct {
		name  string
		spoil func(vfs.FS)
		want  []string
	}{
		{"nothing", func(vfs.FS) {}, []string{}},
		{"missing", gone(names[1]), names[1:2]},
		{"the first is missing", gone(names[0]), names[:1]},
		{"the last is missing", gone(last), []string{last}},
		{"the last two are missing", gone(last, names[len(names)-2]), names[len(names)-2:]},
		{"all are missing", gone(names...), names},
		{"header", at(names[1], 20), names[1:2]},
		{"frame", at(names[1], 70), names[1:2]},
		{"record", at(names[1], 130), names[1:2]},
		{"payload", at(names[1], 1000), names[1:2]},
		{"offsets of the footer", at(names[1], size(names[1])-150), names[1:2]},
		{"footer", at(names[1], size(names[1])-10), names[1:2]},
		{"cut short", func(fs vfs.FS) {
			b := readFile(t, fs, testSegments+names[2])
			must(t, writeFile(fs, testSegments+names[2], string(b[:len(b)/2])))
		}, names[2:3]},
		{"header of the last", at(last, 20), []string{last}},
		{"payload of the last", at(last, size(last)/2), []string{last}},
		{"the last is empty", func(fs vfs.FS) { must(t, writeFile(fs, testSegments+last, "")) }, []string{last}},
		{"two", func(fs vfs.FS) { at(names[0], 700)(fs); at(last, 90)(fs) }, []string{names[0], last}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, more := range []int{0, 5, 40} { // what the peer has beyond this node
				fs, peer := clone(mem, 100, 1), newPeer(t, testEntries+more)
				tt.spoil(fs)
				r, err := repairNode(fs, peer)
				must(t, err)
				if r.LogID != testLogID || r.Position != uint64(len(want.events)) || !slices.Equal(r.Segments, tt.want) {
					t.Errorf("repaired %+v, want %v", r, tt.want)
				}
				if c := checkNode(t, fs); len(c.Findings) > 0 {
					t.Errorf("found %+v", c.Findings)
				}
				must(t, startable(clone(fs, 100, 1)))
				got, err := answers(fs)
				if err != nil || !reflect.DeepEqual(got, want) {
					t.Errorf("it answers\n%+v, %v, want\n%+v", got, err, want)
				}
			}
		})
	}
}

// Where the state is one savepoint ahead of the file that notes it, the log must
// reach as far as the state.
func TestRepair_StateAheadOfSavepoint(t *testing.T) {
	mem := vfs.NewCrashableMem()
	madeNode(t, mem)
	want, err := answers(clone(mem, 100, 1))
	must(t, err)
	must(t, snapshot.WriteSavepoint(mem, testDir+"/logs/main/gen-000001", 5+testEntries-4, 1+3*(testEntries-3)))
	_, last := stored(t, mem)
	must(t, mem.Remove(testSegments+last))
	_, err = repairNode(mem, newPeer(t, testEntries+9))
	must(t, err)
	if got, err := answers(mem); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("it answers\n%+v, %v, want\n%+v", got, err, want)
	}
}

func TestRepair_Peers(t *testing.T) {
	mem := vfs.NewCrashableMem()
	madeNode(t, mem)
	names, _ := stored(t, mem)
	must(t, mem.Remove(testSegments+names[1]))
	must(t, snapshot.SyncDir(mem, testSegments))
	other := newPeer(t, testEntries)
	other.lie = func(f *client.LogFiles) { f.Log = "0190a5b6-7c00-7000-8000-000000000009" }
	liar := newPeer(t, testEntries)
	liar.lie = func(f *client.LogFiles) { f.Segments[1].Name = "../../" + f.Segments[1].Name }
	damaged := newPeer(t, testEntries)
	damaged.alter = func(_ string, b []byte) { b[len(b)/2] ^= 1 }
	wrong := newPeer(t, testEntries)
	wrong.lie = func(f *client.LogFiles) { f.Segments[1].Hash = strings.Repeat("00", 32) }
	behind, down := newPeer(t, testEntries/2), newPeer(t, 0)
	down.down = true
	for _, tt := range []struct {
		name  string
		peers []Peer
		want  string
	}{
		{"none", nil, "no node to fetch from"},
		{"of another log", []Peer{other}, "can't help: this one is of log"},
		{"behind", []Peer{behind}, "this one must reach"},
		{"down", []Peer{down}, io.ErrClosedPipe.Error()},
		{"lists other files", []Peer{liar}, `lists "../../`},
		{"damaged too", []Peer{damaged}, "is damaged"},
		{"with another segment", []Peer{wrong}, "it does not have the hash"},
		{"down and behind", []Peer{down, behind}, "this one must reach"},
		{"another one helps", []Peer{other, behind, down, damaged, newPeer(t, testEntries+3)}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fs := clone(mem, 100, 1)
			_, err := repairNode(fs, tt.peers...)
			if tt.want == "" {
				must(t, err)
				must(t, startable(fs))
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if got, _ := stored(t, fs); len(got) != len(names)-1 {
				t.Errorf("the log holds %v", got)
			}
		})
	}
}

// A segment that is whole is never replaced by another one, whoever has it.
func TestRepair_AnotherHistory(t *testing.T) {
	fs := vfs.NewMem()
	madeNode(t, fs)
	names, _ := stored(t, fs)
	before := readFile(t, fs, testSegments+names[0])
	peer := newPeer(t, testEntries)
	peer.lie = func(files *client.LogFiles) { files.Segments[0].Hash = strings.Repeat("ab", 32) }
	if r, err := repairNode(fs, peer); err == nil || !strings.Contains(err.Error(), "another history") {
		t.Errorf("Repair = %+v, %v", r, err)
	}
	if !bytes.Equal(readFile(t, fs, testSegments+names[0]), before) || len(peer.asked) > 0 {
		t.Errorf("%s was touched; %q were asked for", names[0], peer.asked)
	}
}

func TestRepair_CannotHelp(t *testing.T) {
	peer := newPeer(t, testEntries)
	fs := vfs.NewMem()
	if _, err := repairNode(fs, peer); !errors.Is(err, datadir.ErrMissing) {
		t.Errorf("without a folder: %v", err)
	}
	must(t, snapshot.MakeDir(fs, "/srv", 0o755))
	n, err := startNode(fs, 10)
	must(t, err)
	if _, err := repairNode(fs, peer); !errors.Is(err, datadir.ErrInUse) {
		t.Errorf("of a running node: %v", err)
	}
	must(t, n.stop())
	if _, err := repairNode(fs, peer); err == nil || !strings.Contains(err.Error(), "no savepoint yet") {
		t.Errorf("of a new node: %v", err)
	}
	mem := vfs.NewMem()
	madeNode(t, mem)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Repair(ctx, RepairOptions{FS: mem, Dir: testDir, From: []Peer{peer}}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that it was cancelled", err)
	}
	// A newer program has written here: nothing to fetch helps.
	names, _ := stored(t, mem)
	b := readFile(t, mem, testSegments+names[0])
	newer := append([]byte(nil), b...)
	newer[8]++
	must(t, writeFile(mem, testSegments+names[0], string(newer)))
	if r, err := repairNode(mem, peer); err == nil {
		if c := checkNode(t, mem); len(c.Findings) > 0 {
			t.Errorf("repaired %+v, but found %+v", r, c.Findings)
		}
	}
}

// A crash leaves each segment as it was or whole; a node starts on the log or is
// told of the damage, and another repair goes through.
func TestCrash_Repair(t *testing.T) {
	base := vfs.NewCrashableMem()
	madeNode(t, base)
	want, err := answers(clone(base, 100, 1))
	must(t, err)
	names, last := stored(t, base)
	must(t, base.Remove(testSegments+names[1]))
	flip(t, base, testSegments+last, 300)
	must(t, snapshot.SyncTree(base, "/"))
	mem, peer := clone(base, 0, 1), newPeer(t, testEntries+40)
	before, after, done := 0, 0, false
	var seed uint64
	crash := func(at string) {
		for _, percent := range []int{0, 10, 50, 100} {
			seed++
			at := fmt.Sprintf("crash before %s, %d%% kept", at, percent)
			crashed := clone(mem, percent, seed)
			err := startable(crashed)
			var damage *eventlog.CorruptError
			switch {
			case err == nil:
				after++
			case done || !errors.As(err, &damage):
				t.Fatalf("%s: %v", at, err)
			default:
				before++
				if _, err := repairNode(crashed, peer); err != nil {
					t.Fatalf("%s: again: %v", at, err)
				}
				crashed = clone(crashed, 0, seed)
				if err := startable(crashed); err != nil {
					t.Fatalf("%s: again: %v", at, err)
				}
			}
			if percent != 50 {
				continue
			}
			if c := checkNode(t, crashed); len(c.Findings) > 0 {
				t.Fatalf("%s: found %+v", at, c.Findings)
			}
			if got, err := answers(crashed); err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("%s: it answers\n%+v, %v", at, got, err)
			}
		}
	}
	_, err = repairNode(errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			crash(fmt.Sprintf("kind %d on %s", op.Kind, op.Path))
		}
		return nil
	})), peer)
	must(t, err)
	done = true
	crash("the end")
	t.Logf("%d crashes: %d before it was whole, %d after", seed, before, after)
	if before == 0 || after == 0 {
		t.Error("the test tested nothing")
	}
}

// With any one operation failing, a repair says so or has done its work, and
// another one goes through.
func TestError_Repair(t *testing.T) {
	base := vfs.NewCrashableMem()
	madeNode(t, base)
	names, last := stored(t, base)
	must(t, base.Remove(testSegments+names[1]))
	flip(t, base, testSegments+last, 300)
	must(t, snapshot.SyncDir(base, testSegments))
	peer := newPeer(t, testEntries+40)
	for at := 1; ; at++ {
		mem, n := clone(base, 100, 1), 0
		_, err := repairNode(errorfs.Wrap(mem, errorfs.InjectorFunc(func(errorfs.Op) error {
			if n++; n == at {
				return errorfs.ErrInjected
			}
			return nil
		})), peer)
		left := clone(mem, 100, uint64(at)) // without the locks of a process that is gone
		if err == nil {
			must(t, startable(left))
		} else if _, err := repairNode(left, peer); err != nil {
			t.Fatalf("operation %d failed, then: %v", at, err)
		} else if err := startable(left); err != nil {
			t.Fatalf("operation %d failed, then: %v", at, err)
		}
		if n < at {
			t.Logf("%d operations", n)
			return
		}
	}
}
