package fsm

import (
	"context"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"cairn/index"
)

func compareState(t failer, fs vfs.FS, dir string) []string {
	t.Helper()
	s, err := OpenState(fs, dir)
	if err != nil {
		t.Fatalf("open the state: %v", err)
	}
	found, err := s.Compare(context.Background(), "logs/main/gen-000001/log", func(string, uint64, uint64) {})
	if err != nil {
		t.Fatalf("compare: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	return found
}

// What Apply has made agrees with its log, wherever the savepoints fell.
func TestStateCheck_AgreesWithApply(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		logs := rafted(anyEntries(t))
		logs = append(logs, removal(t, logs[len(logs)-1].Index+1, "node-8"))
		fs := vfs.NewMem()
		m := openMachine(t, fs, func(o *Options) { o.SavepointEvents = rapid.Uint64Range(5, 100).Draw(t, "savepoint every") })
		outcomes(t, m, logs)
		if err := m.Close(); err != nil {
			t.Fatalf("close: %v", err)
		}
		if found := compareState(t, fs, "logs/main/gen-000001/state"); len(found) > 0 {
			t.Fatalf("found %q", found)
		}
	})
}

// Whatever a state knows that its log does not say is found.
func TestStateCheck_FindsDifferences(t *testing.T) {
	logs, _ := script()
	logs = append(logs, removal(t, logs[len(logs)-1].Index+1, "node-8"))
	for name, change := range map[string]func(m *Machine){
		"members":         func(m *Machine) { m.state.removed["node-9"] = struct{}{} },
		"time":            func(m *Machine) { m.state.time++ },
		"log id":          func(m *Machine) { m.state.logID = strings.Replace(testLogID, "1", "2", 1) },
		"segment size":    func(m *Machine) { m.state.segmentSize++ },
		"the entry it is": func(m *Machine) { m.state.index = 3 },
		"Merkle tree": func(m *Machine) {
			m.state.tree = newTree()
			for range m.state.position {
				if err := m.state.tree.add([32]byte{1}, func(_, _ []byte) {}); err != nil {
					t.Fatal(err)
				}
			}
		},
		"records": func(m *Machine) { m.gen.index.Put(subtreeKey(3), []byte("root")) },
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewMem()
			m := openMachine(t, fs, nil)
			outcomes(t, m, logs)
			change(m)
			m.savepoint.freeze(false)
			m.savepoint.settle()
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
			found := compareState(t, fs, "logs/main/gen-000001/state")
			if len(found) != 1 || !strings.HasPrefix(found[0], name) {
				t.Errorf("found %q, want one about %s", found, name)
			}
		})
	}
}

// An index that lacks an event, though its savepoint says otherwise.
func TestStateCheck_FindsMissingPostings(t *testing.T) {
	logs, _ := script()
	fs := vfs.NewMem()
	m := openMachine(t, fs, nil)
	outcomes(t, m, logs)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	// Another state, in which one event has another tag.
	x, _, err := index.Open(index.Options{FS: fs, Dir: "other"})
	if err != nil {
		t.Fatal(err)
	}
	m = openMachine(t, fs, nil)
	_, position := m.Applied()
	for p := uint64(1); p <= position; p++ {
		e := mustEvent(t, m, p)
		if p == 4 {
			e.Tags = []string{"z"}
		}
		x.Add(&e)
	}
	x.Freeze()
	if err := x.Commit(index.Savepoint{Index: m.state.index, Position: position, Extra: m.state.encode()}); err != nil {
		t.Fatal(err)
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if found := compareState(t, fs, "other"); len(found) != 1 || !strings.HasPrefix(found[0], "tags:") {
		t.Errorf("found %q, want one about tags", found)
	}
}
