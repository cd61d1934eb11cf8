package datadir

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	raftwal "github.com/hashicorp/raft-wal"

	"cairn/snapshot"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fakeBuild makes plain files in the place of Raft's.
func fakeBuild(fs vfs.FS) func(string) error {
	return func(dir string) error {
		return errors.Join(
			write(fs, fs.PathJoin(dir, "raft", "stable.db"), "stable"),
			write(fs, fs.PathJoin(dir, "raft", "wal", "wal-meta.db"), "meta"))
	}
}

func write(fs vfs.FS, path, data string) error {
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write([]byte(data))
	return errors.Join(err, f.Close())
}

func fake(fs vfs.FS) Options { return Options{Build: fakeBuild(fs)} }

// newDir builds a directory and closes it.
func newDir(t testing.TB, fs vfs.FS, o Options) {
	t.Helper()
	d, err := Open(fs, "/srv/data", o)
	must(t, err)
	must(t, d.Close())
}

// realBuild is what cmd does: the libraries make their files with the operating
// system.
func realBuild(dir string) error {
	stable, err := raftboltdb.NewBoltStore(filepath.Join(dir, "raft", "stable.db"))
	if err != nil {
		return err
	}
	wal, err := raftwal.Open(filepath.Join(dir, "raft", "wal"))
	if err != nil {
		return errors.Join(err, stable.Close())
	}
	return errors.Join(wal.Close(), stable.Close())
}

func TestOpen_RealFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "data")
	d, err := Open(vfs.Default, path, Options{Build: realBuild})
	must(t, err)
	id := d.NodeID()
	if !regexp.MustCompile(`^node-[0-9a-f]{8}$`).MatchString(id) || d.LogID() != "" || d.MinVersion() != 1 {
		t.Errorf("node %q, log %q, version %d", id, d.LogID(), d.MinVersion())
	}
	for _, p := range []string{d.StableDB(), d.WAL(), d.Snapshots(), d.Log(), d.Path("logs", "main", "CURRENT"), d.Path(nodeFile)} {
		if _, err := os.Stat(p); err != nil {
			t.Error(err)
		}
	}
	// The libraries take up what Build has made, and their files are found again.
	stable, err := raftboltdb.NewBoltStore(d.StableDB())
	must(t, err)
	must(t, stable.SetUint64([]byte("term"), 7))
	must(t, stable.Close())
	wal, err := raftwal.Open(d.WAL())
	must(t, err)
	must(t, wal.StoreLogs([]*raft.Log{{Index: 1, Term: 1, Data: []byte("x")}}))
	must(t, wal.DeleteRange(1, 1))
	must(t, wal.Close())
	generations, err := snapshot.OpenGenerations(vfs.Default, d.Log(), d.Snapshots())
	if err != nil || generations.Current() != "gen-000001" {
		t.Errorf("generations: %v", err)
	}
	must(t, d.SetLogID("0190b2c4-log"))
	must(t, d.Close())
	must(t, d.Close())

	d, err = Open(vfs.Default, path, Options{NodeID: id})
	must(t, err)
	if d.NodeID() != id || d.LogID() != "0190b2c4-log" {
		t.Errorf("reopened: node %q, log %q", d.NodeID(), d.LogID())
	}
	must(t, d.Close())
	for _, leftover := range []string{path + ".new", d.Path(nodeFile + ".tmp")} {
		if _, err := os.Stat(leftover); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", leftover, err)
		}
	}
}

func TestOpen_EmptyFolder(t *testing.T) {
	path := t.TempDir()
	d, err := Open(vfs.Default, path, Options{NodeID: "n1", Build: realBuild})
	must(t, err)
	defer d.Close()
	if d.NodeID() != "n1" {
		t.Errorf("node %q, want n1", d.NodeID())
	}
	if real, _ := filepath.EvalSymlinks(path); d.Path() != real {
		t.Errorf("path %s, want %s", d.Path(), real)
	}
}

// Two nodes that are given no id get two.
func TestOpen_NewIDs(t *testing.T) {
	seen := make(map[string]bool)
	for range 20 {
		fs := vfs.NewMem()
		d, err := Open(fs, "data", fake(fs))
		must(t, err)
		seen[d.NodeID()] = true
	}
	if len(seen) != 20 {
		t.Errorf("%d ids for 20 nodes", len(seen))
	}
}

// Whatever is missing, the error names it, and nothing is changed or made anew.
func TestOpen_MissingPart(t *testing.T) {
	for _, part := range []string{"node.json", "raft", "raft/stable.db", "raft/wal", "raft/wal/wal-meta.db", "raft/snapshots", "logs", "logs/main", "logs/main/CURRENT"} {
		t.Run(part, func(t *testing.T) {
			fs := vfs.NewMem()
			newDir(t, fs, fake(fs))
			must(t, fs.RemoveAll("/srv/data/"+part))
			want := part
			if part == "logs" {
				want = "logs/main"
			}
			for range 2 {
				var missing *MissingPartError
				_, err := Open(fs, "/srv/data", fake(fs))
				if !errors.As(err, &missing) || missing.Part != want || missing.Dir != "/srv/data" {
					t.Fatalf("Open = %v, want that %s is missing", err, want)
				}
				oneLine(t, err, "/srv/data", want, "put it back")
			}
		})
	}
}

// oneLine checks that a message for people is one line that says what and what
// to do.
func oneLine(t testing.TB, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	text := err.Error()
	if strings.Contains(text, "\n") {
		t.Errorf("more than one line: %s", text)
	}
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q does not say %q", text, p)
		}
	}
}

func TestOpen_PartOfAnotherKind(t *testing.T) {
	fs := vfs.NewMem()
	newDir(t, fs, fake(fs))
	must(t, fs.RemoveAll("/srv/data/raft/snapshots"))
	must(t, write(fs, "/srv/data/raft/snapshots", "x"))
	var missing *MissingPartError
	if _, err := Open(fs, "/srv/data", Options{}); !errors.As(err, &missing) || missing.Part != "raft/snapshots" {
		t.Errorf("Open = %v", err)
	}
}

func TestOpen_Refused(t *testing.T) {
	future := func(change func(*node)) func(t *testing.T, fs vfs.FS) {
		return func(t *testing.T, fs vfs.FS) {
			n := node{Format: nodeFormat, NodeID: "n1", MinVersion: 1}
			change(&n)
			must(t, write(fs, "/srv/data/node.json", string(encodeNode(n))))
		}
	}
	for name, c := range map[string]struct {
		prepare func(t *testing.T, fs vfs.FS)
		o       Options
		want    []string
	}{
		"format from the future":  {future(func(n *node) { n.Format = 2 }), Options{}, []string{"format 2", "up to 1", "start the newer cairn-node"}},
		"version from the future": {future(func(n *node) { n.MinVersion = 5 }), Options{Version: 4}, []string{"cluster version 5", "up to 4", "start the newer cairn-node"}},
		"default version":         {future(func(n *node) { n.MinVersion = 2 }), Options{}, []string{"cluster version 2", "up to 1"}},
		"future format, other parts": {func(t *testing.T, fs vfs.FS) {
			must(t, fs.RemoveAll("/srv/data/raft"))
			future(func(n *node) { n.Format = 9 })(t, fs)
		}, Options{}, []string{"format 9"}},
		"another node":    {future(func(*node) {}), Options{NodeID: "n2"}, []string{`"n1"`, `"n2"`, "use the directory of"}},
		"bad id":          {future(func(*node) {}), Options{NodeID: "a b"}, []string{`"a b"`, "allowed"}},
		"long id":         {future(func(*node) {}), Options{NodeID: strings.Repeat("a", 65)}, []string{"allowed"}},
		"id with a slash": {future(func(*node) {}), Options{NodeID: "../x"}, []string{"allowed"}},
		"damaged":         {func(t *testing.T, fs vfs.FS) { must(t, write(fs, "/srv/data/node.json", "{}\n")) }, Options{}, []string{"/srv/data/node.json is damaged"}},
		"large": {func(t *testing.T, fs vfs.FS) {
			must(t, write(fs, "/srv/data/node.json", strings.Repeat(" ", maxNode+1)))
		}, Options{}, []string{"is damaged"}},
		"absent, not to be built": {func(t *testing.T, fs vfs.FS) { must(t, fs.RemoveAll("/srv/data")) }, Options{}, []string{"/srv/data does not exist"}},
		"something else": {func(t *testing.T, fs vfs.FS) {
			must(t, fs.RemoveAll("/srv/data"))
			must(t, fs.MkdirAll("/srv/data/photos", 0o755))
		}, fake(vfs.NewMem()), []string{"/srv/data is not a Cairn data directory: it holds photos", "another"}},
		"a file": {func(t *testing.T, fs vfs.FS) {
			must(t, fs.RemoveAll("/srv/data"))
			must(t, write(fs, "/srv/data", "x"))
		}, fake(vfs.NewMem()), []string{"it is a file"}},
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewMem()
			newDir(t, fs, fake(fs))
			c.prepare(t, fs)
			_, err := Open(fs, "/srv/data", c.o)
			oneLine(t, err, c.want...)
			if _, err := fs.Stat("/srv/data/photos"); strings.Contains(name, "else") && err != nil {
				t.Error("what was there is gone")
			}
			// The refusal has let go of the lock.
			if lock, err := fs.Lock("/srv/data/lock"); err == nil {
				must(t, lock.Close())
			} else if !strings.Contains(name, "file") && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("still locked: %v", err)
			}
		})
	}
}

func TestOpen_HalfBuilt(t *testing.T) {
	fs := vfs.NewMem()
	must(t, fs.MkdirAll("/srv/data.new/raft/wal", 0o755))
	must(t, write(fs, "/srv/data.new/raft/wal/wal-meta.db", "of an earlier try"))
	must(t, write(fs, "/srv/data.new/raft/wal/00001.wal", "of an earlier try"))
	must(t, write(fs, "/srv/data.new/node.json", "half"))
	must(t, write(fs, "/srv/data.new/lock", ""))
	newDir(t, fs, fake(fs))
	b, err := readFile(fs, "/srv/data/raft/wal/wal-meta.db", 100)
	if err != nil || string(b) != "meta" {
		t.Errorf("wal-meta.db = %q, %v", b, err)
	}
	if _, err := fs.Stat("/srv/data/raft/wal/00001.wal"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file of the earlier try: %v", err)
	}
	// One beside a whole directory goes.
	must(t, fs.MkdirAll("/srv/data.new/raft", 0o755))
	newDir(t, fs, Options{})
	if _, err := fs.Stat("/srv/data.new"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("data.new: %v", err)
	}
}

func TestOpen_BuildFails(t *testing.T) {
	fs := vfs.NewMem()
	cause := errors.New("no")
	_, err := Open(fs, "/srv/data", Options{Build: func(string) error { return cause }})
	if !errors.Is(err, cause) {
		t.Errorf("Open = %v", err)
	}
	_, err = Open(fs, "/srv/data", Options{Build: func(string) error { return nil }})
	oneLine(t, err, "raft/stable.db")
	if _, err := fs.Stat("/srv/data"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("data: %v", err)
	}
	newDir(t, fs, fake(fs))
}

func TestOpen_InUse(t *testing.T) {
	fs := vfs.NewMem()
	d, err := Open(fs, "/srv/data", fake(fs))
	must(t, err)
	_, err = Open(fs, "/srv/data", fake(fs))
	if !errors.Is(err, ErrInUse) {
		t.Fatalf("Open = %v, want ErrInUse", err)
	}
	oneLine(t, err, "/srv/data", "in use", "stop that one first")
	must(t, d.Close())
	newDir(t, fs, Options{})

	// One that is being built by another process.
	fs = vfs.NewMem()
	must(t, fs.MkdirAll("/srv/data.new", 0o755))
	lock, err := fs.Lock("/srv/data.new/lock")
	must(t, err)
	if _, err := Open(fs, "/srv/data", fake(fs)); !errors.Is(err, ErrInUse) {
		t.Errorf("Open = %v, want ErrInUse", err)
	}
	must(t, lock.Close())
	newDir(t, fs, fake(fs))
}

// The lock holds in one process however the directory is spelled, and between
// two.
func TestOpen_InUseReal(t *testing.T) {
	if dir := os.Getenv("CAIRN_TEST_OPEN"); dir != "" {
		_, err := Open(vfs.Default, dir, Options{})
		fmt.Printf("child: %v\n", err)
		return
	}
	base := t.TempDir()
	path := filepath.Join(base, "data")
	d, err := Open(vfs.Default, path, Options{Build: realBuild})
	must(t, err)
	link := filepath.Join(base, "link")
	must(t, os.Symlink(path, link))
	t.Chdir(base)
	for _, spelling := range []string{path, "data", "./data/", link, "../" + filepath.Base(base) + "/data"} {
		if _, err := Open(vfs.Default, spelling, Options{}); !errors.Is(err, ErrInUse) {
			t.Errorf("Open(%s) = %v, want ErrInUse", spelling, err)
		}
	}
	child := func() string {
		exe, err := os.Executable()
		must(t, err)
		cmd := exec.Command(exe, "-test.run=^TestOpen_InUseReal$")
		cmd.Env = append(os.Environ(), "CAIRN_TEST_OPEN="+path)
		out, err := cmd.Output()
		must(t, err)
		line, _ := bufio.NewReader(strings.NewReader(string(out))).ReadString('\n')
		return line
	}
	if got := child(); !strings.Contains(got, "is in use by another process") {
		t.Errorf("another process: %s", got)
	}
	must(t, d.Close())
	if got := child(); got != "child: <nil>\n" {
		t.Errorf("another process, after Close: %s", got)
	}
}

func TestDir_LogAndVersion(t *testing.T) {
	mem := vfs.NewCrashableMem()
	d, err := Open(mem, "/srv/data", Options{Version: 3, Build: fakeBuild(mem)})
	must(t, err)
	must(t, d.SetLogID("log-1"))
	must(t, d.SetLogID("log-1"))
	var other *IdentityError
	if err := d.SetLogID("log-2"); !errors.As(err, &other) || other.Has != "log-1" || other.What != "log" {
		t.Errorf("another log: %v", err)
	}
	for _, id := range []string{"", "a b", "ä", "a\n", strings.Repeat("x", 129)} {
		if err := d.SetLogID(id); err == nil {
			t.Errorf("SetLogID(%q) succeeded", id)
		}
	}
	must(t, d.RaiseMinVersion(3))
	must(t, d.RaiseMinVersion(2))
	var version *VersionError
	if err := d.RaiseMinVersion(4); !errors.As(err, &version) {
		t.Errorf("RaiseMinVersion beyond what is supported: %v", err)
	}
	if d.MinVersion() != 3 || d.LogID() != "log-1" {
		t.Errorf("version %d, log %q", d.MinVersion(), d.LogID())
	}
	crashed := mem.CrashClone(vfs.CrashCloneCfg{})
	again, err := Open(crashed, "/srv/data", Options{Version: 3})
	must(t, err)
	if again.MinVersion() != 3 || again.LogID() != "log-1" || again.NodeID() != d.NodeID() {
		t.Errorf("after a crash: %+v", again.node)
	}
	must(t, d.Close())
	if err := d.RaiseMinVersion(3); err != nil {
		t.Errorf("what holds already: %v", err)
	}
	d.version = 9
	if err := d.RaiseMinVersion(9); err == nil {
		t.Error("RaiseMinVersion after Close succeeded")
	}
}

func TestNode_Golden(t *testing.T) {
	const golden = "{\n  \"format\": 1,\n  \"node_id\": \"node-5f3a01bc\",\n  \"log_id\": \"log-1\",\n  \"min_version\": 2,\n  \"sum\": \"crc32c b1186394\"\n}\n"
	n := node{Format: 1, NodeID: "node-5f3a01bc", LogID: "log-1", MinVersion: 2}
	if got := string(encodeNode(n)); got != golden {
		t.Errorf("node.json changed:\n%s\nwant\n%s", got, golden)
	}
	got, err := decodeNode([]byte(golden))
	if err != nil || got != n {
		t.Errorf("decoded %+v, %v", got, err)
	}
	for bit := range 8 * len(golden) {
		b := []byte(golden)
		b[bit/8] ^= 1 << (bit % 8)
		var format errFormat
		if _, err := decodeNode(b); err == nil || errors.As(err, &format) {
			t.Fatalf("bit %d flipped: %v", bit, err)
		}
	}
	for cut := range len(golden) {
		if _, err := decodeNode([]byte(golden[:cut])); err == nil {
			t.Fatalf("cut at %d: accepted", cut)
		}
	}
}

func FuzzDecodeNode(f *testing.F) {
	f.Add(encodeNode(node{Format: 1, NodeID: "n1", LogID: "l", MinVersion: 1}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := decodeNode(b); err == nil && string(encodeNode(n)) != string(b) {
			t.Error("two encodings")
		}
	})
}
