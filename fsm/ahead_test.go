package fsm

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"cairn/snapshot"
)

const mainGeneration = "logs/main/gen-000001"

// copyDir copies a folder from one file system to another.
func copyDir(t failer, from, to vfs.FS, source, target string) {
	t.Helper()
	if err := errors.Join(to.RemoveAll(target), to.MkdirAll(to.PathDir(target), 0o755)); err != nil {
		t.Fatalf("make room for %s: %v", target, err)
	}
	if ok, err := vfs.Clone(from, to, source, target); err != nil || !ok {
		t.Fatalf("copy %s: %v, %v", source, ok, err)
	}
}

// applyAll leaves what a machine makes of a Raft log, and says what it is as of.
func applyAll(t failer, logs []*raft.Log, edit func(*Options)) (*vfs.MemFS, *snapshot.Manifest) {
	t.Helper()
	fs := vfs.NewMem()
	m := openMachine(t, fs, edit)
	outcomes(t, m, logs)
	if err := m.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	index, position := m.Durable()
	return fs, &snapshot.Manifest{Version: 1, LogID: testLogID, Index: index, Position: position}
}

// ahead has a machine fold the log of another one, which it is given.
func ahead(t failer, m *Machine, from vfs.FS, man *snapshot.Manifest) (bool, error) {
	t.Helper()
	fs := m.opts.FS
	copyDir(t, from, fs, mainGeneration+"/log", "incoming/log")
	if err := fs.RemoveAll("incoming/state"); err != nil {
		t.Fatalf("remove: %v", err)
	}
	return m.FoldAhead(context.Background(), man, "incoming/log", "incoming/state")
}

// TestFoldAhead_IsWhatApplyWouldHaveMade folds what a machine lacks of random
// logs, while it stands still and while it applies and saves, and opens a
// machine on the result.
func TestFoldAhead_IsWhatApplyWouldHaveMade(t *testing.T) {
	folds, refusals, beside := 0, 0, 0
	rapid.Check(t, func(t *rapid.T) {
		entries := anyEntries(t)
		logs := rafted(entries)
		logs = append(logs, removal(t, logs[len(logs)-1].Index+1, "node-8"))
		small := func(o *Options) { o.SavepointEvents = rapid.Uint64Range(1, 20).Draw(t, "savepoint every") }
		full, man := applyAll(t, logs, small)

		fs := vfs.NewMem()
		m := openMachine(t, fs, small)
		cut := rapid.IntRange(len(logs)/2, len(logs)).Draw(t, "entries that it has")
		outcomes(t, m, logs[:cut])
		m.savepoint.settle()
		_, own := m.Durable()
		want := own > 0 && man.Position-own <= man.Position/foldShare
		var applying sync.WaitGroup
		goesOn := rapid.Bool().Draw(t, "goes on")
		if goesOn {
			applying.Go(func() { m.ApplyBatch(logs[cut:]) })
		}
		folded, err := ahead(t, m, full, man)
		applying.Wait()
		if err != nil || want && !folded || !want && !goesOn && folded {
			t.Fatalf("from %d to %d: %v, %v", own, man.Position, folded, err)
		}
		if err := m.Close(); err != nil {
			t.Fatalf("close: %v", err)
		}
		if !folded {
			refusals++
			return
		}
		folds++
		if goesOn {
			beside++
		}

		// A second machine gets the fetched log and the folded state.
		other := vfs.NewMem()
		if err := openMachine(t, other, small).Close(); err != nil {
			t.Fatalf("close: %v", err)
		}
		copyDir(t, fs, other, "incoming/log", mainGeneration+"/log")
		copyDir(t, fs, other, "incoming/state", mainGeneration+"/state")
		if err := snapshot.WriteSavepoint(other, mainGeneration, man.Index, man.Position); err != nil {
			t.Fatalf("savepoint: %v", err)
		}
		applied, twin := openMachine(t, full, small), openMachine(t, other, small)
		if !twin.Removed("node-8") {
			t.Fatalf("a member's removal is lost")
		}
		more := rafted(append(slices.Clone(entries), anyEntries(t)...))[1:]
		for i, l := range more {
			l.Index = man.Index + uint64(i) + 1
		}
		expectSame(t, twin, applied, more)
		if err := errors.Join(applied.Close(), twin.Close()); err != nil {
			t.Fatalf("close: %v", err)
		}
	})
	t.Logf("%d folds, %d of them beside Apply, %d refusals", folds, beside, refusals)
}

func TestFoldAhead_Refuses(t *testing.T) {
	logs, _ := script()
	full, man := applyAll(t, logs, nil)
	behind := func(t *testing.T, logs []*raft.Log) *Machine {
		t.Helper()
		m := openMachine(t, vfs.NewMem(), nil)
		t.Cleanup(func() { _ = m.Close() })
		outcomes(t, m, logs)
		if err := m.savepoint.last(); err != nil {
			t.Fatal(err)
		}
		return m
	}
	refused := func(t *testing.T, m *Machine, man *snapshot.Manifest) {
		t.Helper()
		if folded, err := ahead(t, m, full, man); folded || err != nil {
			t.Errorf("FoldAhead = %v, %v", folded, err)
		}
		if _, err := m.opts.FS.Stat("incoming/state"); err == nil {
			t.Error("it has left a state")
		}
	}
	t.Run("nothing yet", func(t *testing.T) { refused(t, behind(t, nil), man) })
	t.Run("too far behind", func(t *testing.T) { refused(t, behind(t, logs[:16]), man) })
	t.Run("beyond", func(t *testing.T) {
		refused(t, behind(t, logs), &snapshot.Manifest{Version: 1, LogID: testLogID, Index: man.Index - 1, Position: man.Position - 2})
	})
	t.Run("another history", func(t *testing.T) {
		again, _ := script() // with other ids
		refused(t, behind(t, append(slices.Clone(logs[:20]), again[20])), man)
	})
	t.Run("damage", func(t *testing.T) {
		m := behind(t, logs[:23])
		fs := vfs.NewMem()
		copyDir(t, full, fs, mainGeneration+"/log", mainGeneration+"/log")
		names, err := fs.List(mainGeneration + "/log")
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(names)
		last := fs.PathJoin(mainGeneration+"/log", names[len(names)-1])
		f, err := fs.OpenReadWrite(last, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		st, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte{0xff, 0xff}, st.Size()-20); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		if folded, err := ahead(t, m, fs, man); folded || err == nil {
			t.Errorf("FoldAhead = %v, %v", folded, err)
		}
		// It is in order once the log is.
		if folded, err := ahead(t, m, full, man); !folded || err != nil {
			t.Errorf("FoldAhead = %v, %v", folded, err)
		}
	})
}
