package offline

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"cairn/datadir"
	"cairn/snapshot"
)

func checkNode(t testing.TB, fs vfs.FS) Checked {
	t.Helper()
	c, err := Check(context.Background(), CheckOptions{FS: fs, Dir: testDir})
	must(t, err)
	return c
}

// filesBelow lists the files in a folder and in those below it.
func filesBelow(t testing.TB, fs vfs.FS, dir string) (files []string) {
	t.Helper()
	names, err := fs.List(dir)
	must(t, err)
	for _, name := range names {
		path := fs.PathJoin(dir, name)
		st, err := fs.Stat(path)
		must(t, err)
		if st.IsDir() {
			files = append(files, filesBelow(t, fs, path)...)
		} else {
			files = append(files, path)
		}
	}
	return files
}

func TestCheck_WholeNodeIsReadOnly(t *testing.T) {
	mem := vfs.NewMem()
	madeNode(t, mem)
	stages := map[string]bool{}
	c, err := Check(context.Background(), CheckOptions{
		FS: errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && !strings.HasSuffix(strings.ToLower(op.Path), "lock") {
				t.Errorf("operation %d on %s writes", op.Kind, op.Path)
			}
			return nil
		})),
		Dir: testDir, Progress: func(p Progress) { stages[p.Stage] = true },
	})
	must(t, err)
	if len(c.Findings) > 0 || len(c.Skipped) > 0 {
		t.Errorf("found %+v, skipped %v in a whole folder", c.Findings, c.Skipped)
	}
	if c.LogID != testLogID || c.Index != 5+testEntries-1 || c.Position < testEntries || c.Bytes < 4096 {
		t.Errorf("checked %+v", c)
	}
	if len(stages) < 3 {
		t.Errorf("told of %v", stages)
	}
	n, err := startNode(mem, 10)
	must(t, err)
	must(t, n.stop())
}

func TestCheck_NewNode(t *testing.T) {
	fs := vfs.NewMem()
	must(t, snapshot.MakeDir(fs, "/srv", 0o755))
	d, err := datadir.Open(fs, testDir, datadir.Options{Build: func(dir string) error {
		return errors.Join(writeFile(fs, dir+"/raft/stable.db", "stable"), writeFile(fs, dir+"/raft/wal/wal-meta.db", "meta"))
	}})
	must(t, err)
	must(t, d.Close())
	if c := checkNode(t, fs); len(c.Findings) > 0 { // never started
		t.Errorf("found %+v", c.Findings)
	}
	n, err := startNode(fs, 10)
	must(t, err)
	must(t, n.stop())
	if c := checkNode(t, fs); len(c.Findings) > 0 { // started, without a log yet
		t.Errorf("found %+v", c.Findings)
	}
}

// Each file of a node is damaged, here and there, and each is removed. Pebble has
// bytes that mean nothing to anyone, such as end marks and notes of its options:
// where nothing is found in the state, the node must start and answer rightly.
func TestCheck_FindsDamageAnywhere(t *testing.T) {
	mem := vfs.NewCrashableMem()
	madeNode(t, mem)
	want, err := answers(clone(mem, 100, 1))
	must(t, err)
	kinds, harmless := map[string]int{}, 0
	for _, path := range filesBelow(t, mem, testDir) {
		kind, do := expectedRemedy(path)
		if kind == "" {
			continue
		}
		size := len(readFile(t, mem, path))
		for _, at := range []int{-1, 0, 1, size / 3, size / 2, size - 20, size - 1} {
			if at >= size || at < 0 && at != -1 {
				continue
			}
			if strings.HasSuffix(path, ".sst") {
				kinds["table"]++
			}
			kinds[kind]++
			fs := clone(mem, 100, 1)
			what := "removed"
			if at < 0 {
				must(t, fs.Remove(path))
			} else {
				what = fmt.Sprintf("byte %d of %d changed", at, size)
				flip(t, fs, path, int64(at))
			}
			c := checkNode(t, fs)
			if len(c.Findings) == 0 && kind == "state" {
				harmless++
				if got, err := answers(fs); err != nil || !reflect.DeepEqual(got, want) {
					t.Errorf("%s: %s: nothing found, but the node answers\n%+v, %v", path, what, got, err)
				}
				continue
			}
			if len(c.Findings) == 0 {
				t.Errorf("%s: %s: nothing found", path, what)
				continue
			}
			if f := c.Findings[0]; f.Do != do || f.What == "" || !strings.HasPrefix(f.File, testDir) {
				t.Errorf("%s: %s: found %+v, want to be told: %s", path, what, f, do)
			}
		}
	}
	t.Log(kinds, "harmless:", harmless)
	for _, kind := range []string{"segment", "state", "snapshot", "manifest", "savepoint", "node", "table"} {
		if kinds[kind] == 0 {
			t.Errorf("nothing of kind %s was damaged", kind)
		}
	}
}

// expectedRemedy says what kind of file it is, "" for those without a check of
// their own, and what a person is told to do about it.
func expectedRemedy(path string) (kind, do string) {
	base := path[strings.LastIndex(path, "/")+1:]
	switch {
	case strings.HasSuffix(strings.ToLower(base), "lock"), strings.HasPrefix(base, "stable.db"), strings.HasPrefix(base, "wal-meta.db"):
		return "", ""
	case strings.HasSuffix(base, ".seg"):
		return "segment", doRepair
	case base == "MANIFEST" || base == "META":
		return "manifest", doRejoin
	case strings.Contains(path, "/raft/snapshots/"):
		return "snapshot", doNext
	case strings.Contains(path, "/state/"):
		return "state", doRebuild
	case base == "SAVEPOINT" || base == "CURRENT":
		return "savepoint", doRejoin
	case base == "node.json":
		return "node", doRejoin
	}
	return path, "?"
}

func TestCheck_CannotLook(t *testing.T) {
	mem := vfs.NewMem()
	madeNode(t, mem)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Check(ctx, CheckOptions{FS: mem, Dir: testDir}); !errors.Is(err, context.Canceled) {
		t.Errorf("Check = %v, want that it was cancelled", err)
	}
	if _, err := Check(context.Background(), CheckOptions{FS: mem, Dir: "/nowhere"}); !errors.Is(err, datadir.ErrMissing) {
		t.Errorf("Check = %v, want %v", err, datadir.ErrMissing)
	}
	n, err := startNode(mem, 10)
	must(t, err)
	if _, err := Check(context.Background(), CheckOptions{FS: mem, Dir: testDir}); !errors.Is(err, datadir.ErrInUse) {
		t.Errorf("Check = %v, want %v", err, datadir.ErrInUse)
	}
	must(t, n.stop())
}

// A rebuild that has come to a complete state and not to its place is no damage:
// the next start puts it there.
func TestCheck_UnfinishedRebuild(t *testing.T) {
	mem := vfs.NewMem()
	madeNode(t, mem)
	must(t, mem.Rename(testState, testState+".rebuilt"))
	if c := checkNode(t, mem); len(c.Findings) > 0 {
		t.Errorf("found %+v", c.Findings)
	}
	if _, err := answers(mem); err != nil {
		t.Error(err)
	}
}
