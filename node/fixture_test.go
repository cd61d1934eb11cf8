package node

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"cairn/cluster"
	"cairn/event"
	"cairn/fsm"
	"cairn/offline"
)

// A fixture is the data folder of a node as a released version has left it, in
// testdata/NAME.tar.gz, and the events in it as they were read, in NAME.ndjson.
// Fixtures are made once and never again: every later version must open them.
var newFixture = flag.String("new-fixture", "", "write a fixture of this name")

// TestFixture_New makes a fixture with this version, when it is asked for. The
// node is not stopped: the folder is what a kill would leave, with events that
// no savepoint covers yet.
func TestFixture_New(t *testing.T) {
	if *newFixture == "" {
		t.Skip("no -new-fixture")
	}
	archive := filepath.Join("testdata", *newFixture+".tar.gz")
	if _, err := os.Stat(archive); err == nil {
		t.Fatalf("%s is there already; a fixture never changes", archive)
	}
	dir := filepath.Join(t.TempDir(), "data")
	n := startFixture(t, dir)
	for i := range 40 {
		fixtureAppends(t, n, i)
		switch i {
		case 10, 20:
			if err := n.Stop(); err != nil {
				t.Fatal(err)
			}
			n = startFixture(t, dir)
		case 30:
			if err := n.Cluster().Snapshot(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	golden := readEvents(t, n)
	if err := errors.Join(os.MkdirAll("testdata", 0o755), pack(dir, archive),
		os.WriteFile(strings.TrimSuffix(archive, ".tar.gz")+".ndjson", golden, 0o644), n.Stop()); err != nil {
		t.Fatal(err)
	}
}

// startFixture starts a node whose segments and savepoints are small.
func startFixture(t *testing.T, dir string) *Node {
	t.Helper()
	o := options(t, dir)
	o.SavepointBytes, o.Cluster.SegmentSize = 16<<10, 4<<10
	n, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// fixtureAppends appends the i-th part of a fixture: chosen ids and one that is
// tried again, tags, all optional fields, text, and conditions that hold and
// that do not.
func fixtureAppends(t *testing.T, n *Node, i int) {
	t.Helper()
	chosen := fixtureChosen(i)
	order := event.Append{
		Events:     []event.Event{{Stream: fmt.Sprintf("order-%d", i), Type: "Placed", ID: event.NewID(), Compensates: "nothing", Data: fmt.Appendf(nil, `{"n":%d}`, i)}},
		Conditions: []event.Condition{{Kind: event.StreamMissing, Stream: fmt.Sprintf("order-%d", i)}, {Kind: event.NoMatch, After: uint64(i), Query: event.Query{Items: []event.QueryItem{{Tags: []string{"bank:2"}}}}}},
	}
	late := event.Append{
		Events:     []event.Event{{Stream: "order-0", Type: "Placed", ID: event.NewID(), Data: []byte(`{}`)}},
		Conditions: []event.Condition{{Kind: event.StreamAtVersion, Stream: "order-0", Version: 9}},
	}
	again := fixtureChosen(i)
	for _, step := range []struct {
		append *event.Append
		want   event.OutcomeCode
	}{{&chosen, event.Accepted}, {&order, event.Accepted}, {&again, event.Duplicate}, {&late, event.ConditionFailed}} {
		got, err := n.Cluster().Propose(t.Context(), step.append)
		if err != nil || got.Code != step.want {
			t.Fatalf("part %d: %+v, %v; want code %v", i, got, err, step.want)
		}
	}
}

// fixtureChosen is the append of the i-th part whose ids a client chose. It
// stays as it is: it is a retry to whoever opens a fixture.
func fixtureChosen(i int) event.Append {
	account := fmt.Sprintf("account-%d", i%7)
	return event.Append{Events: []event.Event{
		{Stream: account, Type: "Deposited", ID: fmt.Sprintf("deposit %d", i), IDChosen: true, Tags: []string{"bank:1", fmt.Sprintf("owner:%d", i%3)},
			Data: fmt.Appendf(nil, `{"amount":%d}`, i), Meta: []byte(`{"by":"fixture"}`), CorrelationID: fmt.Sprintf("c-%d", i%4)},
		{Stream: "notes", Type: "Noted", ID: fmt.Sprintf("0190a5b6-7c00-7000-8000-%012d", i), IDChosen: true, ContentType: "text/plain",
			Data: []byte("a note"), CausationID: fmt.Sprintf("deposit %d", i), Schema: 2},
	}}
}

// readEvents reads everything a node has, as it goes over HTTP.
func readEvents(t *testing.T, n *Node) []byte {
	t.Helper()
	v := n.Machine().View(0)
	defer v.Close()
	c, err := v.Select(fsm.Selection{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var all []byte
	for c.Next() {
		all = append(event.AppendJSON(all, c.Event()), '\n')
	}
	if c.Err() != nil {
		t.Fatal(c.Err())
	}
	return all
}

// TestFixture_Opens opens what every version before has left: all events are
// read as they were, old ids are known, streams go on at their versions, and
// nothing is damaged, before and after. Once the state is rebuilt from the old
// log, all of that holds again.
func TestFixture_Opens(t *testing.T) {
	archives, err := filepath.Glob("testdata/*.tar.gz")
	if err != nil || len(archives) == 0 {
		t.Fatalf("no fixtures: %v", err)
	}
	for _, archive := range archives {
		name := strings.TrimSuffix(archive, ".tar.gz")
		golden, err := os.ReadFile(name + ".ndjson")
		if err != nil {
			t.Fatal(err)
		}
		for _, rebuilt := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/rebuilt %v", filepath.Base(name), rebuilt), func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "data")
				if err := unpack(archive, dir); err != nil {
					t.Fatal(err)
				}
				wantWhole(t, dir)
				if rebuilt {
					if _, err := offline.Rebuild(t.Context(), offline.RebuildOptions{FS: vfs.Default, Dir: dir}); err != nil {
						t.Fatal(err)
					}
				}
				openFixture(t, dir, golden)
				wantWhole(t, dir)
			})
		}
	}
}

// wantWhole checks a folder whose node is stopped.
func wantWhole(t *testing.T, dir string) {
	t.Helper()
	c, err := offline.Check(t.Context(), offline.CheckOptions{FS: vfs.Default, Dir: dir, VerifyEntry: cluster.VerifyEntry})
	if err != nil || len(c.Findings) > 0 {
		t.Fatalf("check: %+v, %v", c, err)
	}
}

// openFixture starts a node on a fixture, compares, appends to it and stops it.
func openFixture(t *testing.T, dir string, golden []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	n := startFixture(t, dir)
	count := uint64(bytes.Count(golden, []byte("\n")))
	if err := n.Machine().WaitPosition(ctx, count); err != nil {
		t.Fatal(err)
	}
	if got := readEvents(t, n); !bytes.Equal(got, golden) {
		t.Errorf("events\n%s, want\n%s", got, golden)
	}
	v := n.Machine().View(0)
	head, err := v.Head("account-3")
	v.Close()
	if err != nil || head.Version == 0 {
		t.Fatalf("head %+v, %v", head, err)
	}
	for _, step := range []struct {
		what   string
		append event.Append
		want   event.OutcomeCode
	}{
		{"a retry from before the snapshot", fixtureChosen(3), event.Duplicate},
		{"a retry from after it", fixtureChosen(39), event.Duplicate},
		{"a known id", event.Append{Events: []event.Event{{Stream: "account-3", Type: "Other", ID: "deposit 3", IDChosen: true}}}, event.IDReused},
		{"an old version", event.Append{Events: []event.Event{{Stream: "account-3", Type: "Deposited", ID: event.NewID()}},
			Conditions: []event.Condition{{Kind: event.StreamAtVersion, Stream: "account-3", Version: head.Version - 1}}}, event.ConditionFailed},
		{"a tag that is there", event.Append{Events: []event.Event{{Stream: "account-3", Type: "Deposited", ID: event.NewID()}},
			Conditions: []event.Condition{{Kind: event.NoMatch, Query: event.Query{Items: []event.QueryItem{{Tags: []string{"owner:2"}}}}}}}, event.ConditionFailed},
		{"one more", event.Append{Events: []event.Event{{Stream: "account-3", Type: "Deposited", ID: event.NewID(), Data: []byte(`{}`)}},
			Conditions: []event.Condition{{Kind: event.StreamAtVersion, Stream: "account-3", Version: head.Version}}}, event.Accepted},
	} {
		got, err := n.Cluster().Propose(ctx, &step.append)
		if err != nil || got.Code != step.want {
			t.Errorf("%s: %+v, %v; want code %v", step.what, got, err, step.want)
		}
		if step.want == event.Accepted && got.Last <= count {
			t.Errorf("%s stands at position %d of %d", step.what, got.Last, count)
		}
	}
	if err := n.Stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// pack writes a folder to a compressed archive, without the lock.
func pack(dir, archive string) (err error) {
	f, err := os.Create(archive)
	if err != nil {
		return err
	}
	zip, err := gzip.NewWriterLevel(f, gzip.BestCompression)
	if err != nil {
		return err
	}
	w := tar.NewWriter(zip)
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() == "lock" {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil || name == "." {
			return err
		}
		if d.IsDir() {
			return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755})
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(b))}); err != nil {
			return err
		}
		_, err = w.Write(b)
		return err
	})
	return errors.Join(err, w.Close(), zip.Close(), f.Close())
}

// unpack is the reverse of pack. Zeros are left out of the files: Raft's log is
// mostly those.
func unpack(archive, dir string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	zip, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	for r := tar.NewReader(zip); ; {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err == nil && !filepath.IsLocal(h.Name) {
			err = fmt.Errorf("%s: bad name %q", archive, h.Name)
		}
		path := filepath.Join(dir, h.Name)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(path), 0o755)
		}
		switch {
		case err != nil:
			return err
		case h.Typeflag == tar.TypeDir:
			err = os.MkdirAll(path, 0o755)
		default:
			err = unpackFile(path, r, h.Size)
		}
		if err != nil {
			return err
		}
	}
}

func unpackFile(path string, r io.Reader, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	buf, zero := make([]byte, 64<<10), make([]byte, 64<<10)
	for at := int64(0); at < size; {
		n, err := io.ReadFull(r, buf[:min(int64(len(buf)), size-at)])
		if err == nil && !bytes.Equal(buf[:n], zero[:n]) {
			_, err = f.WriteAt(buf[:n], at)
		}
		if err != nil {
			return errors.Join(err, f.Close())
		}
		at += int64(n)
	}
	return errors.Join(f.Truncate(size), f.Close())
}
