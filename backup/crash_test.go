package backup

import (
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"cairn/snapshot"
)

var percents = []int{0, 10, 50, 100}

// oldBackup is a durable backup, and the node that has more by now.
func oldBackup(t *testing.T) (*vfs.MemFS, *source, Manifest) {
	t.Helper()
	mem, n := vfs.NewCrashableMem(), newSource(t, testLogID)
	must(t, snapshot.MakeDir(mem, "/mnt", 0o755))
	n.fill(t, 1, 8)
	s, err := runBackup(mem, n)
	must(t, err)
	n.fill(t, 8, 18)
	return mem, n, s.Manifest
}

// A crash during the first backup leaves none or all of it, one during the next
// the one before or the new one; and the next run goes through.
func TestCrash_Run(t *testing.T) {
	for _, first := range []bool{true, false} {
		mem, n, old := oldBackup(t)
		if first {
			mem = vfs.NewCrashableMem()
		}
		done, seenOld, seenNew := false, false, false
		crashEverywhere(t, mem, percents, func(fs vfs.FS) {
			_, err := runBackup(fs, n)
			must(t, err)
			done = true
		}, func(crashed *vfs.MemFS, _ int, at string) {
			m, err := whole(crashed, testDir)
			switch {
			case err == nil && m.Position == n.last():
				seenNew = true
			case done:
				t.Fatalf("%s: the new backup is not there: %+v, %v", at, m, err)
			case first && errors.Is(err, ErrNone), !first && err == nil && m.Position == old.Position && slices.Equal(m.Segments, old.Segments):
				seenOld = true
			default:
				t.Fatalf("%s: %+v, %v", at, m, err)
			}
			if _, err := runBackup(crashed, n); err != nil {
				t.Fatalf("%s: the next run: %v", at, err)
			}
			again := crashed.CrashClone(vfs.CrashCloneCfg{})
			if m, err := whole(again, testDir); err != nil || m.Position != n.last() {
				t.Fatalf("%s: after the next run: %+v, %v", at, m, err)
			}
		})
		if !seenOld || !seenNew {
			t.Errorf("seen the one before: %v, the new one: %v", seenOld, seenNew)
		}
	}
}

// With any one operation failing a run says so or has done its work; the backup
// before or the new one holds, and the next run goes through.
func TestError_Run(t *testing.T) {
	mem, n, old := oldBackup(t)
	failEverywhere(t, mem, func(fs vfs.FS, below *vfs.MemFS, at string) error {
		_, err := runBackup(fs, n)
		m, werr := whole(below, testDir)
		if werr != nil || m.Position != n.last() && (err == nil || m.Position != old.Position) {
			t.Fatalf("%s: run says %v, the folder holds %+v, %v", at, err, m, werr)
		}
		if _, err := runBackup(below, n); err != nil {
			t.Fatalf("%s: the next run: %v", at, err)
		}
		if m, err := whole(below, testDir); err != nil || m.Position != n.last() {
			t.Fatalf("%s: after the next run: %+v, %v", at, m, err)
		}
		return err
	})
}

// tellRestored returns nil if a folder is not there, or is whole.
func tellRestored(fs vfs.FS, position uint64) (there bool, err error) {
	if _, err := fs.Stat(testData); errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err := checkFolder(fs, testData); err != nil {
		return true, err
	}
	n, err := openData(fs, testData)
	if err != nil {
		return true, err
	}
	if n.last() != position+1 {
		err = errors.New("it has not all events")
	}
	return true, errors.Join(err, n.close())
}

func smallBackup(t *testing.T) (*vfs.MemFS, uint64) {
	t.Helper()
	mem, n := vfs.NewCrashableMem(), newSource(t, testLogID)
	must(t, snapshot.MakeDir(mem, "/srv", 0o755))
	n.fill(t, 1, 8)
	_, err := runBackup(mem, n)
	must(t, err)
	return mem, n.last()
}

// A crash during a restore leaves no folder, and it can be done again, or all of
// it.
func TestCrash_Restore(t *testing.T) {
	mem, position := smallBackup(t)
	done, absent, present := false, false, false
	crashEverywhere(t, mem, percents, func(fs vfs.FS) {
		_, err := restoreTo(fs, testData, RestoreOptions{})
		must(t, err)
		done = true
	}, func(crashed *vfs.MemFS, percent int, at string) {
		there, err := tellRestored(crashed, position)
		if err != nil || done && !there {
			t.Fatalf("%s: there: %v, %v", at, there, err)
		}
		if there {
			present = true
			return
		}
		absent = true
		if percent != 50 { // what another try finds differs little
			return
		}
		if _, err := restoreTo(crashed, testData, RestoreOptions{}); err != nil {
			t.Fatalf("%s: again: %v", at, err)
		}
		if there, err := tellRestored(crashed.CrashClone(vfs.CrashCloneCfg{}), position); !there || err != nil {
			t.Fatalf("%s: again: there: %v, %v", at, there, err)
		}
	})
	if !absent || !present {
		t.Errorf("seen without the folder: %v, with it: %v", absent, present)
	}
}
