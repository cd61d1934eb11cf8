package snapshot

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestGenerations_Open(t *testing.T) {
	fs := vfs.NewMem()
	if _, err := OpenGenerations(fs, testLogs, testSnaps); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a folder: %v", err)
	}
	must(t, fs.MkdirAll(testLogs, 0o755))
	if _, err := OpenGenerations(fs, testLogs, testSnaps); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without CURRENT, which must never be a fresh start: %v", err)
	}
	must(t, CreateGenerations(fs, testLogs))
	g, err := OpenGenerations(fs, testLogs, testSnaps)
	must(t, err)
	dir := fs.PathJoin(testLogs, "gen-000001")
	if g.Current() != "gen-000001" || g.Dir() != dir || g.LogDir() != dir+"/log" || g.StateDir() != dir+"/state" {
		t.Errorf("%s: %s, %s, %s", g.Current(), g.Dir(), g.LogDir(), g.StateDir())
	}
	if _, _, err := ReadSavepoint(fs, g.Dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a savepoint in a fresh generation: %v", err)
	}
	must(t, WriteSavepoint(fs, g.Dir(), 5, 6))
	if i, p, err := ReadSavepoint(fs, g.Dir()); i != 5 || p != 6 || err != nil {
		t.Errorf("savepoint = %d, %d, %v", i, p, err)
	}
	flip(t, fs, fs.PathJoin(dir, savepointName), 100)
	var corrupt *CorruptError
	if _, _, err := ReadSavepoint(fs, g.Dir()); !errors.As(err, &corrupt) || corrupt.File != dir+"/SAVEPOINT" {
		t.Errorf("a damaged savepoint: %v", err)
	}
}

// What start-up does with what it finds: the table of DESIGN.md.
func TestGenerations_Settle(t *testing.T) {
	old, sent := smallModel(10), bigModel(30)
	received := func(t *testing.T, n *node) { must(t, n.receive(sent, sent.stream("gen-000005"), 1000)) }
	promoted := func(t *testing.T, n *node) { received(t, n); must(t, n.restore()) }
	gen2 := testLogs + "/gen-000002/"
	for name, c := range map[string]struct {
		prepare func(t *testing.T, n *node)
		want    string // the generation, or part of the error
	}{
		"nothing staged": {func(*testing.T, *node) {}, "gen-000001"},
		"staged without manifest": {func(t *testing.T, n *node) {
			s := n.create(t, sent)
			_, err := s.Write(sent.stream("gen-000005")[:9000])
			must(t, err)
		}, "gen-000001"},
		"staged with manifest, no snapshot": {func(t *testing.T, n *node) {
			received(t, n)
			must(t, n.fs.Rename(testSnaps+"/7-32-2", testSnaps+"/7-32-2.tmp"))
			n.checkpoint(t, old)
			n.gens.current = "gen-000001"
		}, "gen-000001"},
		"staged and its snapshot": {received, "gen-000002"},
		"promoted, old not removed": {func(t *testing.T, n *node) {
			received(t, n)
			_, err := n.gens.Promote("gen-000002")
			must(t, err)
		}, "gen-000002"},
		"promoted": {promoted, "gen-000002"},
		"snapshot, but staged incomplete": {func(t *testing.T, n *node) {
			received(t, n)
			must(t, n.fs.Remove(gen2+manifestName))
		}, "gen-000002 is damaged: it is not complete"},
		"snapshot, but a segment is gone": {func(t *testing.T, n *node) {
			received(t, n)
			must(t, n.fs.Remove(gen2+"log/"+segmentName(21)))
		}, segmentName(21)},
		"snapshot, but a state file is short": {func(t *testing.T, n *node) {
			received(t, n)
			put(t, n.fs, gen2+"state/000012.blob", nil)
		}, "000012.blob is damaged: it has 0 bytes, its snapshot says 10"},
		"snapshot, another manifest staged": {func(t *testing.T, n *node) {
			received(t, n)
			put(t, n.fs, gen2+manifestName, encodeManifest(bigModel(31).manifest("gen-000002")))
		}, "it differs from the manifest of the snapshot"},
		"snapshot of an older generation": {func(t *testing.T, n *node) {
			received(t, n)
			must(t, n.restore())
			must(t, n.fs.MkdirAll(testLogs+"/gen-000003/log", 0o755))
			put(t, n.fs, testLogs+"/CURRENT", encodeCurrent("gen-000003"))
		}, "it is a snapshot of gen-000002, which gen-000003 has replaced"},
		"current is missing": {func(t *testing.T, n *node) {
			must(t, n.fs.RemoveAll(testSnaps))
			must(t, n.fs.RemoveAll(testLogs+"/gen-000001"))
		}, "CURRENT is damaged: it names gen-000001, which is missing"},
		"CURRENT flipped": {func(t *testing.T, n *node) { flip(t, n.fs, testLogs+"/CURRENT", 73) }, "CURRENT is damaged"},
		"META flipped":    {func(t *testing.T, n *node) { flip(t, n.fs, testSnaps+"/7-12-1/META", 300) }, "META is damaged"},
		"META gone":       {func(t *testing.T, n *node) { must(t, n.fs.Remove(testSnaps+"/7-12-1/META")) }, "7-12-1 is damaged: it has no META"},
		"MANIFEST gone":   {func(t *testing.T, n *node) { must(t, n.fs.Remove(testSnaps+"/7-12-1/MANIFEST")) }, "it has no MANIFEST"},
		"another's META":  {func(t *testing.T, n *node) { must(t, n.fs.Rename(testSnaps+"/7-12-1", testSnaps+"/7-13-1")) }, "it is that of snapshot 7-12-1"},
	} {
		t.Run(name, func(t *testing.T) {
			mem, _ := oldNode(t)
			c.prepare(t, mustOpen(t, mem))
			for range 2 { // what start-up decided it decides again
				n, err := openNode(mem)
				if !strings.HasPrefix(c.want, "gen-00000") || strings.Contains(c.want, " ") {
					if err == nil || !strings.Contains(err.Error(), c.want) {
						t.Fatalf("error %v, want %q", err, c.want)
					}
					continue
				}
				must(t, err)
				if name == "staged with manifest, no snapshot" {
					// Its preparation removed the old snapshot: only the generation counts.
					must(t, n.check(t, c.want, old, false, nil))
				} else if c.want == "gen-000001" {
					must(t, n.check(t, c.want, old, false, old))
				} else {
					must(t, n.check(t, c.want, sent, true, sent))
				}
			}
		})
	}
}

func TestGenerations_Promote(t *testing.T) {
	n := newNode(t, vfs.NewMem(), smallModel(10))
	dir, err := n.gens.Promote("gen-000001")
	if err != nil || dir != n.gens.Dir() {
		t.Errorf("of the current one: %s, %v", dir, err)
	}
	for _, generation := range []string{"gen-000002", "gen-000000", "", "x"} {
		if _, err := n.gens.Promote(generation); err == nil {
			t.Errorf("Promote(%q) succeeded", generation)
		}
	}
	generation, err := n.gens.Stage()
	if err != nil || generation != "gen-000002" {
		t.Fatalf("Stage = %s, %v", generation, err)
	}
	if _, err := n.gens.Stage(); err == nil {
		t.Error("two generations were staged")
	}
	must(t, removeOld(n.gens))
	if _, err := n.fs.Stat(n.gens.Path(generation)); err != nil {
		t.Errorf("removeOld removed what is being staged: %v", err)
	}
	if err := n.gens.Discard("gen-000001"); err == nil {
		t.Error("the current generation was discarded")
	}
	must(t, n.gens.Discard(generation))
	if _, err := n.fs.Stat(n.gens.Path(generation)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Discard: %v", err)
	}
}

func TestMakeDir(t *testing.T) {
	mem := vfs.NewCrashableMem()
	for range 2 {
		must(t, MakeDir(mem, "/a/b/c", 0o755))
		crashed := mem.CrashClone(vfs.CrashCloneCfg{})
		if _, err := crashed.Stat("/a/b/c"); err != nil {
			t.Error(err)
		}
	}
	must(t, MakeDir(mem, "x/y", 0o755))
	crashed := mem.CrashClone(vfs.CrashCloneCfg{})
	if _, err := crashed.Stat("x/y"); err != nil {
		t.Error(err)
	}
	put(t, mem, "file", []byte("x"))
	if err := MakeDir(mem, "file/y", 0o755); err == nil {
		t.Error("a folder was made in a file")
	}
}
