package node

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"cairn/cluster"
	"cairn/datadir"
	"cairn/event"
)

func options(t *testing.T, dir string) Options {
	return Options{
		Dir: dir, ID: "n1", Version: "test", Logger: slog.New(slog.DiscardHandler),
		Cluster: cluster.Config{
			HTTP: "http://n1", Raft: cluster.Endpoint{Bind: "127.0.0.1:0"}, Gossip: cluster.Endpoint{Bind: "127.0.0.1:0"}, Expect: 1,
		},
		OnFatal: func(err error) { t.Errorf("fatal: %v", err) },
	}
}

// A node without HTTP, on real files: it takes an append, and has it after a
// clean stop. A second one on the same folder is refused and harms nothing.
func TestNode_StartStop(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	n, err := Start(ctx, options(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	out, err := n.Cluster().Propose(ctx, &event.Append{Events: []event.Event{{Stream: "s", Type: "T", ID: "1", Data: []byte(`{}`)}}})
	if err != nil || !out.OK() {
		t.Fatalf("append: %+v, %v", out, err)
	}
	if _, err := Start(ctx, options(t, dir)); !errors.Is(err, datadir.ErrInUse) {
		t.Errorf("a second node on the same folder: %v", err)
	}
	if err := n.Stop(); err != nil {
		t.Fatalf("stop: %v", err)
	}
	if n, err = Start(ctx, options(t, dir)); err != nil {
		t.Fatalf("start again: %v", err)
	}
	if _, position := n.Machine().Durable(); position != out.Last || n.ID() != "n1" {
		t.Errorf("%s is durable up to %d, want %d", n.ID(), position, out.Last)
	}
	if err := n.Stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// A start that fails late leaves nothing open behind.
func TestStart_ClosesWhatItOpened(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	o := options(t, dir)
	o.Cluster.Raft.Bind = "nowhere"
	if _, err := Start(t.Context(), o); err == nil {
		t.Fatal("started on no address")
	}
	n, err := Start(t.Context(), options(t, dir))
	if err != nil {
		t.Fatalf("after a start that failed: %v", err)
	}
	if err := n.Stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}
