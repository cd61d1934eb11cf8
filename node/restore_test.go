package node

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"cairn/backup"
	"cairn/client"
	"cairn/event"
)

// url is where a node serves clients.
func (w *whole) url() string { return "http://" + w.Node.options.Listener.Addr().String() }

// get asks a node, from a position on if that is not empty.
func (w *whole) get(path, after string) (status int, body string) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.url()+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	if after != "" {
		req.Header.Set("Last-Event-ID", after)
		req.Header.Set("Accept", "text/event-stream")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		w.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// A backup of a running node becomes a node on real files: it starts alone, at
// another address than it was given, and serves; who followed the old log is
// told; a second, empty node joins it.
func TestRestore_StartsServesAndIsJoined(t *testing.T) {
	old := newWhole(t, "n1", nil)
	old.append(300)
	dir := t.TempDir()
	files, err := client.NewFiles(old.url(), nil)
	if err != nil {
		t.Fatal(err)
	}
	saved, err := backup.Run(t.Context(), backup.Options{FS: vfs.Default, Dir: filepath.Join(dir, "backup"), Nodes: []backup.Node{files}, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	_, position := old.Machine().Applied()
	if saved.Position != position || len(saved.Segments) < 3 || saved.Log != old.Machine().LogID() {
		t.Errorf("backed up %+v, the node is at %d", saved, position)
	}
	old.stop()

	data := filepath.Join(dir, "data")
	made, err := backup.Restore(t.Context(), backup.RestoreOptions{
		FS: vfs.Default, From: filepath.Join(dir, "backup"), Data: data, NodeID: "r1", Raft: "127.0.0.1:7071", Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	first := newWhole(t, "r1", func(o *Options) { o.Dir, o.Stores = data, nil })
	eventually(t, "it to lead", func() bool { return first.Cluster().Ready() == nil })
	if _, applied := first.Machine().Applied(); applied != position+1 || first.Machine().LogID() != made.Log {
		t.Errorf("it is at position %d of log %s, want %d of %s", applied, first.Machine().LogID(), position+1, made.Log)
	}
	if status, body := first.get("/v1/streams/s-3/events?limit=1", ""); status != 200 || !strings.Contains(body, `"version":1`) {
		t.Errorf("a read: %d %s", status, body)
	}
	if status, body := first.get("/v1/streams/$log/events", ""); status != 200 || !strings.Contains(body, event.TypeLogRestored) || !strings.Contains(body, saved.Log) {
		t.Errorf("the log's own events: %d %s", status, body)
	}
	if status, body := first.get("/v1/events", fmt.Sprintf("5@%s", saved.Log)); status != 409 || !strings.Contains(body, "log-changed") || !strings.Contains(body, made.Log) {
		t.Errorf("one who followed the old log: %d %s", status, body)
	}

	second := newWhole(t, "r2", nil, first.gossip)
	second.await(first)
	first.append(50)
	second.await(first)
	second.same(first)
	eventually(t, "two voters", func() bool { return len(first.Cluster().Status(t.Context()).Members) == 2 })
	first.stop()
	first.start()
	first.await(second)
}
