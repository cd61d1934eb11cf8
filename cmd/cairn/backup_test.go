package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/uuid"

	"cairn/backup"
	"cairn/client"
	eventlog "cairn/log"
	"cairn/offline"
)

// logPosition is where the log of nodeData ends.
const logPosition = 31

// segments lists the files of the log of nodeData.
func (f *fakeNode) segments(w http.ResponseWriter, r *http.Request) {
	if f.leaderless && r.FormValue("consistency") != "local" {
		fail(w, 503, "no-leader", "the cluster has no leader", "")
		return
	}
	log, err := eventlog.Open(eventlog.Options{FS: vfs.Default, Dir: f.files, Through: logPosition})
	if err != nil {
		panic(err)
	}
	defer log.Close()
	id, _, _ := log.Identity()
	files := client.LogFiles{Log: uuid.UUID(id).String(), Position: logPosition}
	base := uint64(1)
	for _, s := range log.Sealed(logPosition) {
		files.Segments = append(files.Segments, client.SegmentFile{Name: s.Name, Base: s.Base, Last: s.Last, Size: s.Size, Hash: fmt.Sprintf("%x", s.Hash)})
		base = s.Last + 1
	}
	name, size, err := log.ActiveAt(logPosition)
	if err != nil {
		panic(err)
	}
	files.Segments = append(files.Segments, client.SegmentFile{Name: name, Base: base, Last: logPosition, Size: size})
	_ = json.NewEncoder(w).Encode(files)
}

func (f *fakeNode) segment(w http.ResponseWriter, r *http.Request) {
	http.ServeFile(w, r, filepath.Join(f.files, r.PathValue("name")))
}

// A backup is taken, and again; it becomes a node's data, whole or in part, that
// stands every check.
func TestBackup_AndRestore(t *testing.T) {
	f := newFakeNode(t)
	data, segment := nodeData(t)
	f.files = filepath.Dir(segment)
	dir := t.TempDir()
	folder := filepath.Join(dir, "backup")
	out := f.ok(t, "", "backup", folder, "-o", "text")
	if !regexp.MustCompile(`^` + regexp.QuoteMeta(folder) + ` holds log [0-9a-f-]{36} up to position 31: 31 events new, [0-9.]+ KiB copied in [0-9.]+ s\nrestore it with 'cairn restore ` +
		regexp.QuoteMeta(folder) + ` --data FOLDER'\n$`).MatchString(out) {
		t.Errorf("got %s", out)
	}
	var again backedUp
	if err := json.Unmarshal([]byte(f.ok(t, "", "backup", folder, "--pin")), &again); err != nil || again.New != 0 || again.CopiedBytes != 0 || again.Copied != 0 || again.Segments < 2 || again.Position != logPosition {
		t.Errorf("again: %+v, %v", again, err)
	}

	restored := filepath.Join(dir, "whole")
	code, out, errs := offlineRun(t.Context(), "restore", folder, "--data", restored, "--id", "phoenix", "-o", "text")
	if code != 0 || !strings.HasPrefix(out, restored+" is node phoenix of the new log ") || !strings.Contains(out, ", with all events up to position 31 (") ||
		!strings.HasSuffix(out, "start it with 'cairn-node -data "+restored+"', then others, with empty folders, with -join\n") || strings.Contains(out, "left out") || errs != "" {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	if code, out, errs = offlineRun(t.Context(), "check", "--data", restored, "-o", "text"); code != 0 || !strings.HasPrefix(out, "node phoenix is whole: ") || !strings.Contains(out, "up to position 32") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	part := filepath.Join(dir, "part")
	if code, out, errs = offlineRun(t.Context(), "restore", folder, "--data", part, "--at-position", "21", "-o", "text"); code != 0 || !strings.Contains(out, "\n10 events of the backup are later and were left out\n") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	var r backup.Restored
	code, out, errs = offlineRun(t.Context(), "restore", folder, "--data", filepath.Join(dir, "all"), "--at", "2260-01-01T00:00:00Z")
	if err := json.Unmarshal([]byte(out), &r); code != 0 || err != nil || r.Position != logPosition || r.Left != 0 || r.From != again.Log || r.Log == r.From {
		t.Errorf("exit %d: %+v, %v %s", code, r, err, errs)
	}

	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"restore", folder, "--data", restored}, restored + " is not empty: a restore makes a new node, give it a folder of its own"},
		{[]string{"restore", dir, "--data", filepath.Join(dir, "x")}, dir + ": there is no complete backup"},
		{[]string{"restore", folder, "--data", filepath.Join(dir, "x"), "--at", "2000-01-01T00:00:00Z"}, "restore " + folder + ": no event of the backup is that old: nothing would be restored"},
		{[]string{"backup", folder, "--node", "127.0.0.1:1"}, "no node answers at 127.0.0.1:1"},
	} {
		if code, out, errs := offlineRun(t.Context(), tt.args...); code == 0 || out != "" || !strings.HasPrefix(errs, "cairn: "+tt.want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%q: exit %d\n%s%s", tt.args, code, out, errs)
		}
	}
	if err := os.WriteFile(filepath.Join(folder, "log", filepath.Base(segment)), []byte("nothing"), 0o644); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := offlineRun(t.Context(), "restore", folder, "--data", filepath.Join(dir, "x")); code != 1 || !strings.HasPrefix(errs, "cairn: the backup is damaged: ") {
		t.Errorf("exit %d, %s", code, errs)
	}

	other := newFakeNode(t)
	_, segment = nodeData(t)
	other.files = filepath.Dir(segment)
	if code, _, errs := other.run(t, "", "backup", folder); code != 1 || !strings.Contains(errs, "back up into another folder") {
		t.Errorf("exit %d, %s", code, errs)
	}
	if code, _, errs := offlineRun(t.Context(), "repair", "--data", data, "--from", other.url); code != 1 || !strings.Contains(errs, "can't help: this one is of log") {
		t.Errorf("exit %d, %s", code, errs)
	}
}

// A damaged segment and a missing one come from the other node; check is content
// then.
func TestRepair(t *testing.T) {
	f := newFakeNode(t)
	f.leaderless = true // it may be the last one that runs
	data, segment := nodeData(t)
	f.files = filepath.Join(t.TempDir(), "log")
	if err := os.CopyFS(f.files, os.DirFS(filepath.Dir(segment))); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := offlineRun(t.Context(), "repair", "--data", data, "--from", f.url); code != 0 || !strings.Contains(out, `"position":31,"segments":[]}`) {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	b := head(t, segment)
	b[900] ^= 1
	setHead(t, segment, b)
	names, err := filepath.Glob(filepath.Join(filepath.Dir(segment), "*.seg"))
	if err != nil || len(names) < 3 {
		t.Fatalf("segments %v, %v", names, err)
	}
	last := names[len(names)-1]
	if err := os.Remove(last); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := offlineRun(t.Context(), "repair", "--data", data, "--from", "127.0.0.1:1"); code != 1 || !strings.Contains(errs, "refused") {
		t.Errorf("exit %d, %s", code, errs)
	}
	code, out, errs := offlineRun(t.Context(), "repair", "--data", data, "--from", "127.0.0.1:1,"+f.url, "-o", "text")
	want := fmt.Sprintf("fetched %s\nfetched %s\nthe log is whole up to position 31: 2 segments repaired; 'cairn check' looks at the rest\n", filepath.Base(segment), filepath.Base(last))
	if code != 0 || out != want || errs != "" {
		t.Errorf("exit %d\n%swant\n%s%s", code, out, want, errs)
	}
	var checked offline.Checked
	code, out, errs = offlineRun(t.Context(), "check", "--data", data)
	if err := json.Unmarshal([]byte(out), &checked); code != 0 || err != nil || len(checked.Findings) > 0 {
		t.Errorf("exit %d, %v\n%s%s", code, err, out, errs)
	}
	if code, _, errs = offlineRun(t.Context(), "repair", "--data", filepath.Join(data, "none"), "--from", f.url); code != 1 || !strings.Contains(errs, "does not exist") {
		t.Errorf("exit %d, %s", code, errs)
	}
}
