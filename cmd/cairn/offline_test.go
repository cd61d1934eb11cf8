package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cairn/cluster"
	"cairn/event"
	"cairn/node"
	"cairn/offline"
)

// nodeData leaves the data of a node with several segments, stopped. It returns
// the data folder and the first segment.
func nodeData(t *testing.T) (dir, segment string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "data")
	n, err := node.Start(t.Context(), node.Options{
		Dir: dir, ID: "n1", Logger: slog.New(slog.DiscardHandler), OnFatal: func(err error) { t.Error(err) },
		Cluster: cluster.Config{
			HTTP: "http://n1", Raft: cluster.Endpoint{Bind: "127.0.0.1:0"}, Gossip: cluster.Endpoint{Bind: "127.0.0.1:0"}, Expect: 1, SegmentSize: 4096,
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 30 {
		a := event.Append{Events: []event.Event{{Stream: "account-42", Type: "FundsDeposited", ID: fmt.Sprint(i), IDChosen: true,
			Tags: []string{"x:1"}, Meta: []byte(`{"by":"me"}`), Data: fmt.Appendf(nil, `{"amount":%d,"note":"%0200d"}`, i, 0)}}}
		if out, err := n.Cluster().Propose(t.Context(), &a); err != nil || !out.OK() {
			t.Fatalf("append: %+v, %v", out, err)
		}
	}
	if err := n.Stop(); err != nil {
		t.Fatal(err)
	}
	return dir, filepath.Join(dir, "logs", "main", "gen-000001", "log", "00000000000000000001.seg")
}

// offlineRun runs a command line that talks to no node.
func offlineRun(ctx context.Context, args ...string) (code int, out, errs string) {
	var stdout, stderr bytes.Buffer
	code = report(run(ctx, args, strings.NewReader(""), &stdout, &stderr), &stderr)
	return code, stdout.String(), stderr.String()
}

// A whole node is checked, its state is lost and rebuilt, and it is whole again;
// a damaged segment is found, shown and not rebuilt from.
func TestOffline_CheckRebuildDump(t *testing.T) {
	dir, segment := nodeData(t)
	code, out, errs := offlineRun(t.Context(), "check", "--data", dir, "-o", "text")
	if code != 0 || !strings.HasPrefix(out, "node n1 is whole: log ") || !strings.Contains(out, " up to position 31, ") || errs != "" {
		t.Fatalf("exit %d\n%s%s", code, out, errs)
	}

	if err := os.RemoveAll(filepath.Join(dir, "logs", "main", "gen-000001", "state")); err != nil {
		t.Fatal(err)
	}
	code, out, _ = offlineRun(t.Context(), "check", "--data", dir, "-o", "text")
	if code != 1 || !strings.Contains(out, "1 finding, up to position 31. What to do, in this order:\n  make the state again from the log: cairn rebuild\n") {
		t.Errorf("exit %d\n%s", code, out)
	}
	code, out, errs = offlineRun(t.Context(), "rebuild", "--data", dir, "-o", "text")
	if code != 0 || !strings.HasPrefix(out, "the state is rebuilt up to position 31 of log ") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	var checked offline.Checked
	code, out, _ = offlineRun(t.Context(), "check", "--data", dir)
	if err := json.Unmarshal([]byte(out), &checked); code != 0 || err != nil || len(checked.Findings) > 0 || checked.Position != 31 || checked.NodeID != "n1" {
		t.Errorf("exit %d, %v\n%s", code, err, out)
	}

	code, out, errs = offlineRun(t.Context(), "dump", segment, "-o", "text", "--from", "3")
	for _, want := range []string{
		"         0 segment of log ", "frame entry ", " account-42 version 2 FundsDeposited id 1 (chosen) 1/1 {\"amount\":1,", "#x:1 meta={\"by\":\"me\"} digest ", "footer positions 1 to ",
	} {
		if code != 0 || !strings.Contains(out, want) || strings.Contains(out, "version 1 FundsDeposited") {
			t.Errorf("exit %d: no %q in\n%s%s", code, want, out, errs)
		}
	}

	b, err := os.ReadFile(segment)
	if err != nil {
		t.Fatal(err)
	}
	b[900] ^= 1
	if err := os.WriteFile(segment, b, 0o644); err != nil {
		t.Fatal(err)
	}
	code, out, _ = offlineRun(t.Context(), "check", "--data", dir)
	if err := json.Unmarshal([]byte(out), &checked); code != 1 || err != nil || len(checked.Findings) != 1 || checked.Findings[0].File != segment || checked.Findings[0].Offset == 0 {
		t.Errorf("exit %d, %v\n%s", code, err, out)
	}
	code, _, errs = offlineRun(t.Context(), "rebuild", "--data", dir)
	if code != 1 || !strings.Contains(errs, "is damaged at offset") || !strings.Contains(errs, "cairn repair --from URL") {
		t.Errorf("exit %d\n%s", code, errs)
	}
	code, out, errs = offlineRun(t.Context(), "dump", segment)
	if code != 1 || !strings.Contains(out, `"damage":"`) || !strings.Contains(out, `"part":"footer"`) || errs != "cairn: the file is damaged; 'cairn check' says what to do\n" {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
}

// head returns the beginning of a file; Raft's log is mostly empty behind that.
func head(t *testing.T, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// setHead overwrites the beginning of a file. A small file ends there.
func setHead(t *testing.T, path string, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(b, 0)
	if info, serr := f.Stat(); err == nil && serr == nil && info.Size() <= 64<<10 {
		err = f.Truncate(int64(len(b)))
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// Raft's own files are checked too, and left as they are.
func TestOffline_CheckRaftLog(t *testing.T) {
	dir, _ := nodeData(t)
	wal, err := filepath.Glob(filepath.Join(dir, "raft", "wal", "*.wal"))
	if err != nil || len(wal) != 1 {
		t.Fatalf("raft's log: %v, %v", wal, err)
	}
	files := []string{wal[0], filepath.Join(dir, "raft", "wal", "wal-meta.db"), filepath.Join(dir, "raft", "stable.db")}
	for _, test := range []struct {
		name  string
		file  int
		at    int
		spoil func(b []byte) []byte
		want  string
	}{
		{"an entry", 0, 2000, nil, "its check does not match"},
		{"the header", 0, 3, nil, "raft/wal"},
		{"the list of segments", 1, 0, func(b []byte) []byte { return make([]byte, len(b)) }, "wal-meta.db"},
		{"a shorter list of segments", 1, 0, func(b []byte) []byte { return b[:8192] }, "wal-meta.db"},
		{"the vote", 2, 0, func(b []byte) []byte { return make([]byte, len(b)) }, "stable.db"},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := head(t, files[test.file])
			spoiled := bytes.Clone(before)
			if test.spoil != nil {
				spoiled = test.spoil(spoiled)
			} else {
				spoiled[test.at] ^= 1
			}
			setHead(t, files[test.file], spoiled)
			code, out, _ := offlineRun(t.Context(), "check", "--data", dir, "-o", "text")
			if code != 1 || !strings.Contains(out, test.want) || !strings.Contains(out, "under a new id") {
				t.Errorf("exit %d, no %q in\n%s", code, test.want, out)
			}
			if !bytes.Equal(head(t, files[test.file]), spoiled) {
				t.Error("the file was changed")
			}
			setHead(t, files[test.file], before)
		})
	}
	if code, out, errs := offlineRun(t.Context(), "check", "--data", dir); code != 0 {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
}

func TestOffline_CannotLook(t *testing.T) {
	dir := t.TempDir()
	code, _, errs := offlineRun(t.Context(), "check", "--data", filepath.Join(dir, "none"))
	if code != 2 || !strings.Contains(errs, "does not exist") {
		t.Errorf("exit %d, %s", code, errs)
	}
	if code, _, errs = offlineRun(t.Context(), "rebuild", "--data", filepath.Join(dir, "none")); code != 1 || !strings.Contains(errs, "does not exist") {
		t.Errorf("exit %d, %s", code, errs)
	}
	if code, _, errs = offlineRun(t.Context(), "dump", filepath.Join(dir, "none")); code != 1 || !strings.Contains(errs, "no such file") {
		t.Errorf("exit %d, %s", code, errs)
	}
	if code, _, errs = offlineRun(t.Context(), "dump"); code != 2 || !strings.Contains(errs, "dump takes one segment file, not 0; see 'cairn dump --help'") {
		t.Errorf("exit %d, %s", code, errs)
	}
}
