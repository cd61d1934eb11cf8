package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"cairn/client"
	eventlog "cairn/log"
	"cairn/snapshot"
)

func TestRun_FirstAndIncremental(t *testing.T) {
	fs, n := vfs.NewMem(), newSource(t, testLogID)
	n.fill(t, 1, 30)
	first, err := runBackup(fs, n)
	must(t, err)
	total := int64(0)
	for _, s := range first.Segments {
		total += s.Size
	}
	sent, _ := n.sent()
	if len(first.Segments) < 5 || first.Position != n.last() || first.EventsBefore != 0 || first.Copied != len(first.Segments) ||
		first.CopiedBytes != total || sent != total || first.Kept != 0 || first.Log != testLogID || first.Taken != "2026-06-07T08:09:10Z" {
		t.Errorf("the first backup: %+v, %d bytes were sent", first, sent)
	}
	m, err := whole(fs, testDir)
	must(t, err)
	if m.Position != first.Position || !slices.Equal(m.Segments, first.Segments) {
		t.Errorf("the folder holds %+v", m)
	}

	again, err := runBackup(fs, n)
	must(t, err)
	if sent, pieces := n.sent(); again.Copied != 0 || again.CopiedBytes != 0 || again.Kept != len(first.Segments) || sent != 0 {
		t.Errorf("nothing is new, but it copied %+v: %v", again, pieces)
	}

	// The last segment goes on where it ended, those before it stay.
	n.fill(t, 30, 45)
	next, err := runBackup(fs, n)
	must(t, err)
	last := first.Segments[len(first.Segments)-1]
	sent, pieces := n.sent()
	want := -last.Size
	for _, s := range next.Segments[len(first.Segments)-1:] {
		want += s.Size
	}
	if sent != want || next.CopiedBytes != want || pieces[0] != fmt.Sprintf("%s@%d", last.Name, last.Size) ||
		next.Kept != len(first.Segments)-1 || next.EventsBefore != first.Position || next.Position != n.last() {
		t.Errorf("the next one copied %d bytes, want %d: %v, %+v", sent, want, pieces, next)
	}
	if _, err := whole(fs, testDir); err != nil {
		t.Error(err)
	}
	names, err := fs.List(testDir)
	must(t, err)
	if slices.Sort(names); !slices.Equal(names, []string{"BACKUP", "LOCK", "log"}) {
		t.Errorf("the folder holds %v", names)
	}
}

func TestRun_Refuses(t *testing.T) {
	fs, n := vfs.NewMem(), newSource(t, testLogID)
	n.fill(t, 1, 20)
	before, err := runBackup(fs, n)
	must(t, err)
	other := newSource(t, otherLog)
	other.fill(t, 1, 30)
	shorter := newSource(t, testLogID)
	shorter.fill(t, 1, 10)
	gap := newSource(t, testLogID)
	gap.fill(t, 1, 30)
	gap.lie = func(f *client.LogFiles) { f.Segments = slices.Delete(f.Segments, 2, 3) }
	outside := newSource(t, testLogID)
	outside.fill(t, 1, 30)
	outside.lie = func(f *client.LogFiles) { f.Segments[0].Name = "../../etc/passwd" }
	empty := newSource(t, testLogID)
	empty.lie = func(f *client.LogFiles) { *f = client.LogFiles{Log: testLogID} }
	for want, n := range map[string]*source{
		"has log " + otherLog:           other,
		"the cluster has only":          shorter,
		"does not follow the one":       gap,
		"is not the segment of":         outside,
		"there is nothing to back up":   empty,
		"no node answered: connection ": {down: true},
	} {
		if _, err := runBackup(fs, n); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if m, err := whole(fs, testDir); err != nil || m.Position != before.Position {
		t.Errorf("the folder holds %+v, %v", m, err)
	}
	bad := newSource(t, testLogID)
	bad.lie = func(f *client.LogFiles) { f.Log = "../.." }
	if _, err := runBackup(vfs.NewMem(), bad); err == nil || !strings.Contains(err.Error(), "is not the id of a log") {
		t.Errorf("got %v", err)
	}
	if _, err := runBackup(vfs.NewMem()); err == nil || !strings.Contains(err.Error(), "no node to copy from") {
		t.Errorf("got %v", err)
	}
}

// A run that is broken off has put some segments in place and begun another one;
// the next run asks for the rest only.
func TestRun_BrokenOffAndResumed(t *testing.T) {
	fs, n := vfs.NewMem(), newSource(t, testLogID)
	n.fill(t, 1, 40)
	files, err := n.Log(t.Context())
	must(t, err)
	total := int64(0)
	for _, s := range files.Segments {
		total += s.Size
	}
	broken := files.Segments[3].Name
	n.alter = func(name string, offset int64, b []byte) ([]byte, error) {
		switch {
		case name != broken:
			return b, nil
		case offset == 0:
			return b[:1000], io.ErrUnexpectedEOF
		}
		return nil, errDown
	}
	if _, err := runBackup(fs, n); !errors.Is(err, errDown) {
		t.Fatalf("got %v", err)
	}
	if _, err := Read(fs, testDir); !errors.Is(err, ErrNone) {
		t.Errorf("there is a backup: %v", err)
	}
	first, _ := n.sent()
	n.alter = nil
	s, err := runBackup(fs, n)
	must(t, err)
	second, pieces := n.sent()
	if first+second != total || s.CopiedBytes != second || s.Kept < 3 || s.Copied+s.Kept != len(files.Segments) || !slices.Contains(pieces, broken+"@1000") {
		t.Errorf("%d and then %d bytes were sent for %d: %v, %+v", first, second, total, pieces, s)
	}
	if _, err := whole(fs, testDir); err != nil {
		t.Error(err)
	}
}

// What an earlier run left of another log is not mixed with this one's, even
// where lengths and positions are the same.
func TestRun_LeftoversOfAnotherLog(t *testing.T) {
	for _, at := range []string{"arriving", "in place"} {
		fs, n, other := vfs.NewMem(), newSource(t, testLogID), newSource(t, otherLog)
		n.fill(t, 1, 3)
		other.fill(t, 1, 3)
		files, err := other.Log(t.Context())
		must(t, err)
		path := fs.PathJoin(testDir, logName, files.Segments[0].Name)
		if at == "arriving" {
			path = fs.PathJoin(testDir, incomingName, otherLog, files.Segments[0].Name+partSuffix)
		}
		body, err := other.Segment(t.Context(), files.Segments[0].Name, 0, files.Segments[0].Size)
		must(t, err)
		b, err := io.ReadAll(body)
		must(t, err)
		must(t, snapshot.MakeDir(fs, fs.PathDir(path), 0o755))
		must(t, writeFile(fs, path, b))
		s, err := runBackup(fs, n)
		must(t, err)
		if mine, _ := n.sent(); mine != s.Segments[0].Size {
			t.Errorf("%s: %d bytes of %d came from the node", at, mine, s.Segments[0].Size)
		}
		if _, err := restoreTo(fs, testData, RestoreOptions{}); err != nil {
			t.Errorf("%s: %v", at, err)
		}
	}
}

// One node sends damaged bytes, or ends in the middle; the other one helps out.
func TestRun_AnotherNodeHelps(t *testing.T) {
	for name, alter := range map[string]func(string, int64, []byte) ([]byte, error){
		"damaged": func(_ string, _ int64, b []byte) ([]byte, error) {
			b[len(b)/2] ^= 1
			return b, nil
		},
		"ends":      func(_ string, _ int64, b []byte) ([]byte, error) { return b[:len(b)/3], nil },
		"falls off": func(_ string, _ int64, b []byte) ([]byte, error) { return b[:len(b)/3], errDown },
	} {
		t.Run(name, func(t *testing.T) {
			fs, bad, good := vfs.NewMem(), newSource(t, testLogID), newSource(t, testLogID)
			bad.fill(t, 1, 30)
			good.fill(t, 1, 30)
			bad.alter = alter
			s, err := runBackup(fs, bad, good)
			must(t, err)
			if sent, _ := good.sent(); sent == 0 || s.Position != good.last() {
				t.Errorf("%d bytes came from the good node, %+v", sent, s)
			}
			if _, err := whole(fs, testDir); err != nil {
				t.Error(err)
			}
			if name != "damaged" {
				return
			}
			var damage *eventlog.CorruptError
			if _, err := runBackup(vfs.NewMem(), bad); !errors.As(err, &damage) {
				t.Errorf("with the bad node alone: %v", err)
			}
		})
	}
}

// The node that lists the files dies; another one sends them.
func TestRun_NodeDies(t *testing.T) {
	fs, a, b := vfs.NewMem(), newSource(t, testLogID), newSource(t, testLogID)
	a.fill(t, 1, 30)
	b.fill(t, 1, 30)
	a.lie = func(*client.LogFiles) { a.down = true }
	s, err := runBackup(fs, a, b)
	must(t, err)
	if sent, _ := b.sent(); sent != s.CopiedBytes {
		t.Errorf("%d of %d bytes came from the one that lives", sent, s.CopiedBytes)
	}
	if _, err := runBackup(fs, a, b); err != nil {
		t.Errorf("the first of two nodes is down: %v", err)
	}
}

func TestRun_TwoAtOnce(t *testing.T) {
	fs, n := vfs.NewMem(), newSource(t, testLogID)
	n.fill(t, 1, 10)
	var second error
	n.lie = func(*client.LogFiles) {
		n.lie = nil
		_, second = runBackup(fs, n)
	}
	_, err := runBackup(fs, n)
	must(t, err)
	if second == nil || !strings.Contains(second.Error(), "is in use by another") {
		t.Errorf("a second run at once: %v", second)
	}
	_, err = runBackup(fs, n) // the lock is free again
	must(t, err)
}

// A backup's segment that was lost or damaged comes again when it is missed.
func TestRun_LostSegmentComesAgain(t *testing.T) {
	fs, n := vfs.NewMem(), newSource(t, testLogID)
	n.fill(t, 1, 30)
	s, err := runBackup(fs, n)
	must(t, err)
	n.sent()
	must(t, fs.Remove(fs.PathJoin(testDir, logName, s.Segments[1].Name)))
	// What is not sealed yet is damaged: the next run begins with it, and finds out.
	last := fs.PathJoin(testDir, logName, s.Segments[len(s.Segments)-1].Name)
	flip(t, fs, last, int(s.Segments[len(s.Segments)-1].Size)/2)
	n.fill(t, 30, 31)
	_, err = runBackup(fs, n)
	must(t, err)
	if _, pieces := n.sent(); !slices.Contains(pieces, s.Segments[1].Name+"@0") {
		t.Errorf("asked for %v", pieces)
	}
	if _, err := whole(fs, testDir); err != nil {
		t.Error(err)
	}
}

func TestRun_Parallel(t *testing.T) {
	fs, n := vfs.NewMem(), newSource(t, testLogID)
	n.fill(t, 1, 40)
	var p snapshot.Progress
	s, err := Run(t.Context(), Options{FS: fs, Dir: testDir, Nodes: []Node{n}, Now: testNow, Progress: &p})
	must(t, err)
	if p.Fetched.Load() != s.CopiedBytes || p.Total.Load() != s.CopiedBytes {
		t.Errorf("progress says %d of %d, %d were copied", p.Fetched.Load(), p.Total.Load(), s.CopiedBytes)
	}
	if _, err := whole(fs, testDir); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, Options{FS: vfs.NewMem(), Dir: testDir, Nodes: []Node{n}, Now: testNow}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that it was cancelled", err)
	}
}

func TestRead_Refuses(t *testing.T) {
	const one = `{"format":1,"log":"` + testLogID + `","position":5,"taken":"","segments":[{"name":"00000000000000000001.seg","base":1,"last":5,"size":9,"hash":""}]}`
	fs := vfs.NewMem()
	must(t, fs.MkdirAll(testDir, 0o755))
	must(t, writeFile(fs, testDir+"/BACKUP", []byte(one)))
	_, err := Read(fs, testDir)
	must(t, err)
	for want, b := range map[string]string{
		"has format 2, this program knows 1: use a newer cairn": `{"format":2,"pieces":[]}`,
		"has format 0":                         `{}`,
		"unexpected end":                       one[:40],
		"unknown field":                        strings.Replace(one, "taken", "token", 1),
		"is not the id of a log":               strings.Replace(one, testLogID, "x", 1),
		"is not the segment of position 1":     strings.Replace(one, "01.seg", "02.seg", 1),
		"does not follow":                      strings.Replace(one, `"size":9`, `"size":0`, 1),
		"its segments end at position 5":       strings.Replace(one, `"position":5`, `"position":6`, 1),
		"is not sealed and not the last":       strings.Replace(one, `]}`, `,{"name":"00000000000000000006.seg","base":6,"last":7,"size":9,"hash":""}]}`, 1),
		"its segments end at position 0, not ": `{"format":1,"log":"` + testLogID + `","position":0,"taken":"","segments":[]}`,
	} {
		must(t, writeFile(fs, testDir+"/BACKUP", []byte(b)))
		if _, err := Read(fs, testDir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
