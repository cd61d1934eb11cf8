package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"

	"cairn/cluster"
	"cairn/event"
	"cairn/snapshot"
)

// messages counts what a node logs.
type messages struct {
	slog.Handler
	mu   sync.Mutex
	seen map[string]int
}

// newMessages shows what was logged if the test fails.
func newMessages(t *testing.T, id string) *messages {
	var lines bytes.Buffer
	m := &messages{Handler: slog.NewTextHandler(&lines, nil), seen: map[string]int{}}
	t.Cleanup(func() {
		if t.Failed() {
			m.mu.Lock()
			defer m.mu.Unlock()
			t.Logf("%s:\n%s", id, &lines)
		}
	})
	return m
}

func (m *messages) Enabled(context.Context, slog.Level) bool { return true }

func (m *messages) WithAttrs([]slog.Attr) slog.Handler { return m }

func (m *messages) WithGroup(string) slog.Handler { return m }

func (m *messages) Handle(ctx context.Context, r slog.Record) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seen[r.Message]++
	return m.Handler.Handle(ctx, r)
}

// count returns how often a message came since the last clear.
func (m *messages) count(message string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.seen[message]
}

func (m *messages) clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.seen)
}

// memStores keep what Raft needs in memory, where a log that is compacted is
// gone at once. raft-wal answers for what it removed until its file is full, or
// until a restart.
type memStores struct {
	files // which it leaves empty
	kept  *cluster.Stores
}

func newMemStores() memStores {
	s := raft.NewInmemStore()
	return memStores{kept: &cluster.Stores{Log: s, Stable: s}}
}

func (s memStores) Open(string) (*cluster.Stores, func() error, error) {
	return s.kept, func() error { return nil }, nil
}

// whole is a node of a test with all that outlives its restarts.
type whole struct {
	*Node
	t       *testing.T
	options Options
	log     *messages
	gossip  string
}

// newWhole starts a node that keeps next to nothing of Raft's log behind a
// snapshot. join is empty for the first one.
func newWhole(t *testing.T, id string, change func(*Options), join ...string) *whole {
	t.Helper()
	w := &whole{t: t, log: newMessages(t, id), gossip: freeAddress(t)}
	w.options = Options{
		Dir: filepath.Join(t.TempDir(), "data"), ID: id, Version: "test", Logger: slog.New(w.log), Stores: newMemStores(),
		SavepointBytes: 32 << 10, CacheBytes: 1 << 20,
		Cluster: cluster.Config{
			Raft: cluster.Endpoint{Bind: freeAddress(t)}, Gossip: cluster.Endpoint{Bind: w.gossip}, Join: join,
			SegmentSize: 16 << 10, TrailingBytes: 1,
		},
		OnFatal: func(err error) { t.Errorf("%s met a fatal error: %v", id, err) },
	}
	if len(join) == 0 {
		w.options.Cluster.Expect = 1
	}
	if change != nil {
		change(&w.options)
	}
	w.start()
	t.Cleanup(w.stop)
	return w
}

// ports hands out ports below those that the system gives to connections, each
// once: what a test has closed for a restart must not be taken meanwhile. Package
// main's tests use those from 20000 on.
var ports = struct {
	sync.Mutex
	next int
}{next: 10000 + rand.IntN(9000)}

// freeAddress returns an address on loopback that nobody uses.
func freeAddress(t *testing.T) string {
	t.Helper()
	ports.Lock()
	defer ports.Unlock()
	for range 1000 {
		ports.next++
		address := fmt.Sprintf("127.0.0.1:%d", ports.next)
		tcp, err := net.Listen("tcp", address)
		if err != nil {
			continue
		}
		udp, err := net.ListenPacket("udp", address)
		_ = tcp.Close()
		if err != nil {
			continue
		}
		_ = udp.Close()
		return address
	}
	t.Fatal("no free port on loopback")
	return ""
}

func (w *whole) start() {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	o := w.options
	o.Listener = l
	if o.Cluster.HTTP == "" {
		o.Cluster.HTTP = "http://" + l.Addr().String()
	}
	if w.Node, err = Start(w.t.Context(), o); err != nil {
		w.t.Fatal(err)
	}
}

func (w *whole) stop() {
	w.t.Helper()
	if w.Node == nil {
		return
	}
	if err := w.Node.Stop(); err != nil {
		w.t.Errorf("stop %s: %v", w.options.ID, err)
	}
	w.Node = nil
}

// append appends events of about 300 bytes in all, ten at a time, and tries until it succeeds.
func (w *whole) append(events int) {
	w.t.Helper()
	for range events / 10 {
		a := &event.Append{}
		for i := range 10 {
			a.Events = append(a.Events, event.Event{Stream: fmt.Sprintf("s-%d", i), Type: "T", ID: event.NewID(), Tags: []string{"x"},
				Data: []byte(`{"text":"` + strings.Repeat("x", 200) + `"}`)})
		}
		eventually(w.t, "an append", func() bool {
			ctx, cancel := context.WithTimeout(w.t.Context(), 2*time.Second)
			defer cancel()
			out, err := w.Cluster().Propose(ctx, a)
			return err == nil && out.OK()
		})
	}
}

// compact takes a snapshot, behind which Raft's log goes.
func (w *whole) compact() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	if err := w.Cluster().Snapshot(ctx); err != nil {
		w.t.Fatal(err)
	}
}

// await waits until a node has what another one has.
func (w *whole) await(other *whole) {
	w.t.Helper()
	_, want := other.Machine().Applied()
	eventually(w.t, fmt.Sprintf("%s to have position %d", w.options.ID, want), func() bool {
		_, have := w.Machine().Applied()
		return have >= want && w.Cluster().Ready() == nil
	})
}

// same compares the logs of two nodes, file by file.
func (w *whole) same(other *whole) {
	w.t.Helper()
	got, err := w.Machine().LogFiles()
	want, err2 := other.Machine().LogFiles()
	if err != nil || err2 != nil || !reflect.DeepEqual(got, want) || len(want.Sealed) == 0 {
		w.t.Errorf("%s has\n%+v, %v\nnot\n%+v, %v", w.options.ID, got, err, want, err2)
	}
	for _, sealed := range want.Sealed {
		if !bytes.Equal(w.read(sealed.Name), other.read(sealed.Name)) {
			w.t.Errorf("%s: %s has other bytes", w.options.ID, sealed.Name)
		}
	}
}

// read returns the contents of a file of the log.
func (w *whole) read(name string) []byte {
	w.t.Helper()
	b, err := os.ReadFile(w.path(name))
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

func (w *whole) path(name string) string {
	w.t.Helper()
	found, err := filepath.Glob(filepath.Join(w.options.Dir, "logs", "main", "gen-*", "log", name))
	if err != nil || len(found) == 0 {
		w.t.Fatalf("%s: %s stands at %v, %v", w.options.ID, name, found, err)
	}
	return found[len(found)-1] // the generation before may be there still
}

// overwrite puts bytes over those of a file of the log, behind the node's back.
func (w *whole) overwrite(name string, b []byte) {
	w.t.Helper()
	f, err := os.OpenFile(w.path(name), os.O_WRONLY, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	_, err = f.WriteAt(b, 0)
	if err := errors.Join(err, f.Close()); err != nil {
		w.t.Fatal(err)
	}
}

// expect checks how often a message came.
func (w *whole) expect(message string, want int) {
	w.t.Helper()
	if got := w.log.count(message); got != want {
		w.t.Errorf("%s: %q came %d times, want %d", w.options.ID, message, got, want)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long for %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// A node that joins when Raft's log no longer goes back to the beginning fetches
// segments and state, and Raft sends a manifest alone. One that comes back after
// the log was compacted fetches what is new and folds its state.
func TestCatchUp_JoinAndReturn(t *testing.T) {
	first := newWhole(t, "n1", nil)
	first.append(400)
	first.compact()

	second := newWhole(t, "n2", nil, first.gossip)
	second.await(first)
	second.expect("snapshot fetched", 1)
	second.expect("state folded ahead", 0)
	first.expect("snapshot prepared", 1)
	first.expect("snapshot not fetched", 0)
	second.same(first)

	// The third asks the second first, whose disk has lost a bit.
	files, err := second.Machine().LogFiles()
	if err != nil {
		t.Fatal(err)
	}
	name := files.Sealed[1].Name
	sound := first.read(name)
	damaged := bytes.Clone(sound)
	damaged[len(damaged)/2] ^= 1
	second.overwrite(name, damaged)
	third := newWhole(t, "n3", nil, first.gossip)
	third.await(first)
	if !bytes.Equal(third.read(name), sound) {
		t.Error("the third has what the second lost")
	}
	second.overwrite(name, sound)
	third.expect("snapshot fetched", 1)
	third.same(first)
	third.append(10)
	second.await(third)

	eventually(t, "three voters", func() bool {
		voters := 0
		for _, m := range first.Cluster().Status(t.Context()).Members {
			if m.Role != cluster.RoleNonVoter && m.Alive {
				voters++
			}
		}
		return voters == 3
	})
	third.stop()
	third.log.clear()
	first.append(100)
	second.await(first)
	first.compact()
	second.compact()
	third.start()
	third.await(first)
	third.expect("snapshot fetched", 1)
	third.expect("state folded ahead", 1)
	third.expect("state not folded, it is fetched", 0)
	third.same(first)
	third.append(10)
	first.await(third)
	if _, err := os.Stat(filepath.Join(third.options.Dir, "logs", "main", "incoming")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder of what was fetched: %v", err)
	}
}

// Where the leader's URL leads nowhere, the third fetch that fails has Raft send
// all of it.
func TestCatchUp_StreamInstead(t *testing.T) {
	nowhere := freeAddress(t)
	first := newWhole(t, "n1", func(o *Options) { o.Cluster.HTTP = "http://" + nowhere })
	first.append(100)
	first.compact()
	second := newWhole(t, "n2", nil, first.gossip)
	second.await(first)
	second.expect("snapshot not fetched", maxFailed)
	second.expect("snapshot fetched", 0)
	first.expect("snapshot prepared", 0)
	second.same(first)
	eventually(t, "what was begun to be removed", func() bool {
		_, err := os.Stat(filepath.Join(second.options.Dir, "logs", "main", "incoming"))
		return errors.Is(err, os.ErrNotExist)
	})
}

// A leader whose URL is not known yet is waited for, but not for ever; nor is
// anything begun by a node that stops.
func TestCatchUp_UnknownLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCatchUp(nil, func() map[string]string { return nil }, slog.New(slog.DiscardHandler))
		o := cluster.Offer{Leader: "n1", Snapshot: "1-2-3"}
		for range 2 {
			if p := c.Offered(o); p != (cluster.Preparation{}) {
				t.Errorf("Offered = %+v", p)
			}
			time.Sleep(maxWait)
		}
		if p := c.Offered(o); p != (cluster.Preparation{Stream: true}) {
			t.Errorf("after %s: Offered = %+v", 2*maxWait, p)
		}
		c.close()
		if p := c.Offered(o); p.Error == "" || p.Stream {
			t.Errorf("after close: Offered = %+v", p)
		}
	})
}

// An offer that is repeated tells how far it is; another one ends it; one that
// fails is told once, and begun anew by the next; the third that fails in a row
// asks for the stream, and then the count begins anew.
func TestCatchUp_Offers(t *testing.T) {
	asked, hang := make(chan string, 100), make(chan struct{})
	peer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Path
		select {
		case <-hang:
			w.WriteHeader(http.StatusServiceUnavailable)
		case <-r.Context().Done():
		}
	}))
	defer peer.Close()
	store := emptyStore(t)
	c := newCatchUp(store, func() map[string]string { return map[string]string{"n1": peer.URL} }, slog.New(slog.DiscardHandler))
	defer c.close()
	offer := func(id string) cluster.Offer {
		return cluster.Offer{Leader: "n1", Snapshot: id, Manifest: oneSegment(t)}
	}
	pending := func(p cluster.Preparation) bool { return !p.Stream && !p.Ready && p.Error == "" }

	for range 3 {
		if p := c.Offered(offer("1-1-1")); !pending(p) {
			t.Fatalf("Offered = %+v", p)
		}
	}
	<-asked
	eventually(t, "the total to be known", func() bool { return c.Offered(offer("1-1-1")).Total == 100 })
	if fetched, total := c.bytes(); fetched != 0 || total != 100 {
		t.Errorf("%d of %d bytes", fetched, total)
	}
	if len(asked) > 0 {
		t.Errorf("%d more requests", len(asked))
	}
	for len(asked) == 0 { // another one: it ends the first, then it begins
		if p := c.Offered(offer("1-2-2")); !pending(p) {
			t.Fatalf("Offered = %+v", p)
		}
		time.Sleep(time.Millisecond)
	}
	close(hang)
	for range 2 {
		for i := range maxFailed {
			var p cluster.Preparation
			eventually(t, "a fetch to fail", func() bool { p = c.Offered(offer("1-2-2")); return !pending(p) })
			if p.Error == "" {
				t.Fatalf("try %d: Offered = %+v", i, p)
			}
		}
		if p := c.Offered(offer("1-2-2")); p != (cluster.Preparation{Stream: true}) {
			t.Fatalf("after %d failures: Offered = %+v", maxFailed, p)
		}
	}
	c.forget()
	if fetched, total := c.bytes(); fetched != 0 || total != 0 {
		t.Errorf("%d of %d bytes", fetched, total)
	}
}

// emptyStore is the snapshot store of a node that has nothing.
func emptyStore(t *testing.T) *snapshot.Store {
	t.Helper()
	fs := vfs.NewMem()
	if err := errors.Join(fs.MkdirAll("main", 0o755), snapshot.CreateGenerations(fs, "main")); err != nil {
		t.Fatal(err)
	}
	generations, err := snapshot.OpenGenerations(fs, "main", "snapshots")
	if err != nil {
		t.Fatal(err)
	}
	store, err := snapshot.NewStore(snapshot.StoreOptions{
		FS: fs, Dir: "snapshots", Generations: generations, VerifySegment: func(string) (string, error) { return "", errors.New("none is whole") },
	})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// oneSegment is the manifest of a snapshot with one segment of 100 bytes.
func oneSegment(t *testing.T) []byte {
	t.Helper()
	stream, err := snapshot.EncodeLocal(&snapshot.Manifest{
		LogID: "log", Generation: "gen-000001", Index: 9, Position: 5, State: snapshot.StateName(9),
		Segments: []snapshot.Segment{{Name: "x.seg", Base: 1, Last: 5, Size: 100, Hash: strings.Repeat("0", 64)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	manifest, _, err := snapshot.ReadHead(bytes.NewReader(stream))
	if err != nil {
		t.Fatal(err)
	}
	return manifest
}
