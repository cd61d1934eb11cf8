package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// newCluster is a lab of three real nodes, started.
func newCluster(t *testing.T) *Lab {
	t.Helper()
	inside(t)
	if testing.Short() {
		t.Skip("builds cairn-node")
	}
	dir := t.TempDir()
	binary := filepath.Join(dir, "cairn-node")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", binary, "cairn/cmd/node").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	l, err := New(Options{
		Nodes: 3, Binary: binary, Dir: dir,
		Args:   func(int) []string { return []string{"-segment-size", "64KiB", "-savepoint-bytes", "64KiB"} },
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			logNodes(t, l)
		}
	})
	startAll(t, l)
	return l
}

func startAll(t *testing.T, l *Lab) {
	t.Helper()
	for _, n := range l.Nodes() {
		if err := n.Start(); err != nil {
			t.Fatal(err)
		}
	}
}

// A real cluster forms, gets another leader when the first one is cut off from
// the others, has the old one back when the cut is healed, and comes up again
// after all were killed at once.
func TestCluster_LeaderCutOff(t *testing.T) {
	l := newCluster(t)
	formed := time.Now()
	eventually(t, func() error { return appendOne(l.Node(1)) })
	t.Logf("first append %v after the start", time.Since(formed))

	old, err := leader(l.Node(1))
	if err != nil {
		t.Fatal(err)
	}
	others := make([]int, 0, 2)
	for _, n := range l.Nodes() {
		if n.Number() != old {
			others = append(others, n.Number())
		}
	}
	cut := Between([]int{old}, others)
	begin := time.Now()
	l.Cut(cut...)
	eventually(t, func() error {
		next, err := leader(l.Node(others[0]))
		if err == nil && next == old {
			err = errors.New("it is still the old leader")
		}
		return err
	})
	t.Logf("another leader after %v, %+v", time.Since(begin), l.Traffic(cut...))
	eventually(t, func() error { return appendOne(l.Node(others[1])) })
	if l.Traffic(cut...).Cut == 0 {
		t.Error("the cut dropped nothing")
	}
	if err := get(l.Node(old).URL() + "/healthz"); err != nil {
		t.Errorf("the client does not reach the old leader: %v", err)
	}
	l.HealAll()
	eventually(t, func() error { return appendOne(l.Node(old)) })

	if err := l.Kill(1, 2, 3); err != nil {
		t.Fatal(err)
	}
	startAll(t, l)
	eventually(t, func() error { return appendOne(l.Node(2)) })
	for _, e := range l.Exits() {
		if !e.Asked {
			t.Errorf("a node ended by itself: %+v", e)
		}
	}
}

func appendOne(n *Node) error {
	answer, err := newClient(2*time.Second).Post(n.URL()+"/v1/streams/s/events", "application/json", strings.NewReader(`{"type":"T"}`))
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusCreated {
		return fmt.Errorf("append to %d: %s", n.Number(), answer.Status)
	}
	return nil
}

// leader is the number of the one that n takes for the leader.
func leader(n *Node) (int, error) {
	answer, err := newClient(2 * time.Second).Get(n.URL() + "/v1/cluster")
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	var cluster struct{ Leader string }
	if err := json.NewDecoder(answer.Body).Decode(&cluster); err != nil {
		return 0, err
	}
	var number int
	if _, err := fmt.Sscanf(cluster.Leader, "n%d", &number); err != nil {
		return 0, fmt.Errorf("leader %q: %w", cluster.Leader, err)
	}
	return number, nil
}

func logNodes(t *testing.T, l *Lab) {
	for _, n := range l.Nodes() {
		text, _ := os.ReadFile(n.LogFile())
		t.Logf("log of %d:\n%s", n.Number(), text)
	}
}
