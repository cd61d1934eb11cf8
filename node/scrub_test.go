package node

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/time/rate"

	"cairn/fsm"
)

// scrubOf starts another scrubber of a running node, one that does not wait
// between two passes.
func scrubOf(t *testing.T, w *whole, log *messages, fs vfs.FS, peers func() map[string]string) *scrubber {
	t.Helper()
	s := startScrubber(&scrubber{
		machine: w.Machine(), fs: fs, dir: w.dir.Path("logs", "main", "test-repair.tmp"), peers: peers, logger: slog.New(log), every: time.Millisecond,
	}, 1<<40)
	t.Cleanup(s.close)
	return s
}

// durable waits until a savepoint covers some sealed segments, and returns the
// name of one.
func (w *whole) durable() string {
	w.t.Helper()
	eventually(w.t, "durable segments", func() bool { return len(w.Machine().DurableSegments()) > 3 })
	return w.Machine().DurableSegments()[1].Name
}

// Damage, a file that is gone, and one that can't be read are found in a running
// node, fetched from the other one, and counted; readers notice nothing.
func TestScrub_RepairsFromAnotherNode(t *testing.T) {
	first := newWhole(t, "n1", nil)
	first.append(300)
	second := newWhole(t, "n2", nil, first.gossip)
	first.compact()
	second.await(first)
	second.compact()
	name := second.durable()
	sound := second.read(name)
	log, unreadable := newMessages(t, "node"), new(brokenFS)
	unreadable.FS = vfs.Default
	s := scrubOf(t, second, log, unreadable, second.peers)
	eventually(t, "a pass", func() bool { return s.passes.Load() > 0 })
	if s.damaged.Load() != 0 || s.bytes.Load() < uint64(len(sound)) {
		t.Errorf("%d damaged segments found in %d bytes of a whole log", s.damaged.Load(), s.bytes.Load())
	}
	for i, spoil := range []func(){
		func() {
			b := bytes.Clone(sound)
			b[len(b)/2] ^= 1
			second.overwrite(name, b)
		},
		func() {
			if err := os.Remove(second.path(name)); err != nil {
				t.Fatal(err)
			}
		},
		func() { path := second.path(name); unreadable.path.Store(&path) },
	} {
		spoil()
		eventually(t, fmt.Sprint("repair ", i), func() bool { return s.repaired.Load() == uint64(i+1) })
		if got := second.read(name); !bytes.Equal(got, sound) {
			t.Errorf("repair %d: the segment is not what it was", i)
		}
		if damaged := s.damaged.Load(); damaged != uint64(i+1) {
			t.Errorf("repair %d: %d damaged segments were counted", i, damaged)
		}
	}
	if log.count("segment is damaged") != 3 || log.count("segment repaired") != 3 || log.count("segment not repaired: the node ends when it is read") != 0 {
		t.Errorf("told %v", log.seen)
	}
	s.close()
	if _, err := os.Stat(s.dir); err == nil {
		t.Error("the folder where it arrived is left")
	}
	v := second.Machine().View(0)
	defer v.Close()
	c, err := v.Select(fsm.Selection{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	n := 0
	for c.Next() {
		n++
	}
	if c.Err() != nil || n < 300 {
		t.Errorf("a reader met %d events, %v", n, c.Err())
	}
}

// brokenFS has one file that the disk can't read, until it is replaced.
type brokenFS struct {
	vfs.FS
	path atomic.Pointer[string]
}

func (f *brokenFS) Open(name string, o ...vfs.OpenOption) (vfs.File, error) {
	file, err := f.FS.Open(name, o...)
	if path := f.path.Load(); err == nil && path != nil && *path == name {
		f.path.Store(nil)
		return brokenFile{file}, nil
	}
	return file, err
}

type brokenFile struct{ vfs.File }

func (f brokenFile) ReadAt(_ []byte, off int64) (int, error) {
	return 0, &os.PathError{Op: "read", Path: "segment", Err: syscall.EIO}
}

// A damaged segment that nobody can send stays, is told of and counted; so is
// one for which another node sends something else.
func TestScrub_CannotRepair(t *testing.T) {
	w := newWhole(t, "n1", nil)
	w.append(200)
	w.compact()
	name := w.durable()
	sound := w.read(name)
	damaged := bytes.Clone(sound)
	damaged[len(damaged)/2] ^= 1
	w.overwrite(name, damaged)
	var sends atomic.Pointer[[]byte]
	peer := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if b := sends.Load(); b != nil && r.URL.Path == "/v1/segments/"+name {
			http.ServeContent(rw, r, name, time.Time{}, bytes.NewReader(*b))
			return
		}
		rw.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer peer.Close()
	for _, tt := range []struct {
		name  string
		peers map[string]string
		sends []byte
	}{
		{"alone", nil, nil},
		{"the other one can't", map[string]string{"n2": peer.URL}, nil},
		{"the other one has the same damage", map[string]string{"n2": peer.URL}, damaged},
		{"the other one sends another segment", map[string]string{"n2": peer.URL}, w.read(w.Machine().DurableSegments()[2].Name)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if sends.Store(nil); tt.sends != nil {
				sends.Store(&tt.sends)
			}
			log := newMessages(t, "node")
			s := scrubOf(t, w, log, vfs.Default, func() map[string]string { return tt.peers })
			eventually(t, "two passes", func() bool { return s.passes.Load() >= 2 })
			s.close()
			told := log.count("segment not repaired: the node ends when it is read")
			if s.damaged.Load() < 2 || s.repaired.Load() != 0 || told < 2 {
				t.Errorf("%d damaged, %d repaired, told %d times", s.damaged.Load(), s.repaired.Load(), told)
			}
			if !bytes.Equal(w.read(name), damaged) {
				t.Error("the segment was changed")
			}
		})
	}
	sends.Store(&sound)
	s := scrubOf(t, w, newMessages(t, "node"), vfs.Default, func() map[string]string { return map[string]string{"n2": peer.URL} })
	eventually(t, "a repair", func() bool { return s.repaired.Load() == 1 })
	if !bytes.Equal(w.read(name), sound) {
		t.Error("the segment is not what it was")
	}
}

// A pass at one byte a second would take days; close ends it at once.
func TestScrub_CloseEndsAPass(t *testing.T) {
	w := newWhole(t, "n1", nil)
	w.append(200)
	w.compact()
	w.durable()
	log := newMessages(t, "node")
	s := startScrubber(&scrubber{machine: w.Machine(), fs: vfs.Default, peers: w.peers, logger: slog.New(log), every: time.Microsecond}, 1)
	eventually(t, "it to wait", func() bool { return s.bytes.Load() > scrubPiece }) // so much is read at once
	s.close()
	if s.damaged.Load() != 0 || len(log.seen) != 0 {
		t.Errorf("%d damaged segments, told %v", s.damaged.Load(), log.seen)
	}
}

// The rate is that of the bytes read, however they are asked for.
func TestScrub_Rate(t *testing.T) {
	const perSecond, size = 1 << 20, 5<<20 + scrubPiece
	fs := vfs.NewMem()
	f, err := fs.Create("file", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	for name, read := range map[string]func(f vfs.File, p []byte) error{
		"one read": func(f vfs.File, p []byte) error {
			_, err := f.ReadAt(p, 0)
			return err
		},
		"many reads": func(f vfs.File, p []byte) error {
			for n := 0; n < len(p); {
				m, err := f.Read(p[n:])
				if n += m; err != nil {
					return err
				}
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &scrubber{ctx: t.Context(), limit: rate.NewLimiter(perSecond, scrubPiece)}
				f, err := slowFS{fs, s}.Open("file")
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				begun := time.Now()
				if err := read(f, make([]byte, size)); err != nil {
					t.Fatal(err)
				}
				// The first piece comes at once.
				if took := time.Since(begun); took < 4990*time.Millisecond || took > 5010*time.Millisecond || s.bytes.Load() != size {
					t.Errorf("%d bytes took %s, want 5s", s.bytes.Load(), took)
				}
			})
		})
	}
}
