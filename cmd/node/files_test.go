package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// logFolder is where the node's current data generation keeps the event log.
func (p *process) logFolder() string {
	p.t.Helper()
	current, err := os.ReadFile(filepath.Join(p.dir, "logs", "main", "CURRENT"))
	if err != nil {
		p.t.Fatal(err)
	}
	generation, _, _ := strings.Cut(strings.TrimSpace(string(current)), " ")
	return filepath.Join(p.dir, "logs", "main", generation, "log")
}

// segments are the names of the segment files in order.
func segments(t *testing.T, folder string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(folder, "*.seg"))
	if err != nil || len(names) == 0 {
		t.Fatalf("segments of %s: %q, %v", folder, names, err)
	}
	for i := range names {
		names[i] = filepath.Base(names[i])
	}
	slices.Sort(names)
	return names
}

// sameLogs checks that stopped nodes hold the same record bytes: the same
// files, all but the last byte-equal, the last up to the length of the shorter.
// It returns the number of segments.
func sameLogs(t *testing.T, nodes []*process) int {
	t.Helper()
	first := nodes[0].logFolder()
	names := segments(t, first)
	for _, p := range nodes[1:] {
		folder := p.logFolder()
		if got := segments(t, folder); !slices.Equal(got, names) {
			t.Fatalf("%s has segments %q, %s has %q", nodes[0].name, names, p.name, got)
		}
		for i, name := range names {
			a, err := os.ReadFile(filepath.Join(first, name))
			if err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(filepath.Join(folder, name))
			if err != nil {
				t.Fatal(err)
			}
			if i == len(names)-1 {
				n := min(len(a), len(b))
				a, b = a[:n], b[:n]
			}
			if len(a) == 0 || !bytes.Equal(a, b) {
				t.Fatalf("segment %s differs between %s (%d bytes) and %s (%d bytes)", name, nodes[0].name, len(a), p.name, len(b))
			}
		}
	}
	return len(names)
}
