package history

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// A saved history is a directory with
//
//	run.json         the run, its followers, its nodes without their logs
//	history.ndjson   a line for each operation, delivery and fault
//	<node>.ndjson    a line for each event of that node's log
const (
	runName   = "run.json"
	linesName = "history.ndjson"
)

// line is one of history.ndjson. It has one member.
type line struct {
	Op       *Op       `json:"op,omitempty"`
	Delivery *Delivery `json:"delivery,omitempty"`
	Fault    *Fault    `json:"fault,omitempty"`
}

// run is what run.json holds.
type run struct {
	History
	Followers []Follower `json:"followers"`
	Nodes     []Node     `json:"nodes"`
}

// Save writes the history into dir, which must exist, in place of one that is
// there.
func (h *History) Save(dir string) error {
	err := saveLines(filepath.Join(dir, linesName), func(write func(any) error) error {
		for i := range h.Ops {
			if err := write(line{Op: &h.Ops[i]}); err != nil {
				return err
			}
		}
		for i := range h.Deliveries {
			if err := write(line{Delivery: &h.Deliveries[i]}); err != nil {
				return err
			}
		}
		for i := range h.Faults {
			if err := write(line{Fault: &h.Faults[i]}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i := range h.Nodes {
		n := &h.Nodes[i]
		name, err := logName(n.Name)
		if err != nil {
			return err
		}
		err = saveLines(filepath.Join(dir, name), func(write func(any) error) error {
			for i := range n.Events {
				if err := write(&n.Events[i]); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	b, err := json.MarshalIndent(run{*h, h.Followers, h.Nodes}, "", "  ")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, runName), append(b, '\n'), 0o644)
	}
	if err != nil {
		return fmt.Errorf("history: save run: %w", err)
	}
	return nil
}

// Load reads a saved history.
func Load(dir string) (*History, error) {
	b, err := os.ReadFile(filepath.Join(dir, runName))
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	var r run
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("history: %s: %w", runName, err)
	}
	h := &r.History
	h.Followers, h.Nodes = r.Followers, r.Nodes
	err = loadLines(filepath.Join(dir, linesName), func(l line) {
		switch {
		case l.Op != nil:
			h.Ops = append(h.Ops, *l.Op)
		case l.Delivery != nil:
			h.Deliveries = append(h.Deliveries, *l.Delivery)
		case l.Fault != nil:
			h.Faults = append(h.Faults, *l.Fault)
		}
	})
	if err != nil {
		return nil, err
	}
	for i := range h.Nodes {
		n := &h.Nodes[i]
		name, err := logName(n.Name)
		if err != nil {
			return nil, err
		}
		err = loadLines(filepath.Join(dir, name), func(e Event) { n.Events = append(n.Events, e) })
		if err != nil {
			return nil, err
		}
	}
	h.order()
	return h, nil
}

// logName is the name of the file with a node's log.
func logName(node string) (string, error) {
	name := node + ".ndjson"
	if node == "" || name == linesName || strings.ContainsAny(node, `/\`) {
		return "", fmt.Errorf("history: no file can be named after node %q", node)
	}
	return name, nil
}

func saveLines(path string, lines func(write func(any) error) error) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("history: %w", err)
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<16)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	err = lines(enc.Encode)
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return fmt.Errorf("history: write %s: %w", path, err)
	}
	return nil
}

func loadLines[T any](path string, add func(T)) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("history: %w", err)
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<30) // a read of a whole log is one line
	for n := 1; s.Scan(); n++ {
		if len(bytes.TrimSpace(s.Bytes())) == 0 {
			continue
		}
		var t T
		if err := json.Unmarshal(s.Bytes(), &t); err != nil {
			return fmt.Errorf("history: %s, line %d: %w", path, n, err)
		}
		add(t)
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("history: read %s: %w", path, err)
	}
	return nil
}
