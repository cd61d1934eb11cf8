package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Verdicts on a figure.
const (
	verdictOK     = "ok"
	verdictMisses = "misses"
)

func verdict(ok bool) string {
	if ok {
		return verdictOK
	}
	return verdictMisses
}

// line is one line of the table at one row of events.
type line struct {
	figure  string
	Name    string             `json:"name"`
	Goal    string             `json:"goal,omitempty"`
	Text    string             `json:"text"`
	Verdict string             `json:"verdict,omitempty"` // "" = there is nothing to judge
	Values  map[string]float64 `json:"values,omitempty"`
}

// row is everything that was measured at one number of events.
type row struct {
	Events   int    `json:"events"`   // of the load
	Position int64  `json:"position"` // of the last event when they were all there
	Lines    []line `json:"lines"`
}

// report is what a run has found out.
type report struct {
	Begun   time.Time `json:"begun"`
	System  string    `json:"system"`
	Cores   int       `json:"cores"`
	Nodes   int       `json:"nodes"`
	Size    int       `json:"size"`
	Rows    []row     `json:"rows"`
	Samples []sample  `json:"samples"` // of the load
	Stalls  timeline  `json:"stalls"`  // of the last row that has one
}

// write puts the three files into a folder.
func (r *report) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode report: %w", err)
	}
	put := func(name string, b []byte) error { return os.WriteFile(filepath.Join(dir, name), b, 0o644) }
	return errors.Join(put("report.json", append(text, '\n')), put("report.md", []byte(r.markdown())), put("plot.svg", r.plot()))
}

// markdown is the table: a line for each figure, a column for each row of
// events.
func (r *report) markdown() string {
	var out strings.Builder
	fmt.Fprintf(&out, "# Scale\n\n%s, %d cores, %s; %d bytes of data in an event, 3 tags, 10 events a stream, fsync on, default settings.\n\n",
		r.System, r.Cores, nodesText(r.Nodes), r.Size)
	fmt.Fprintf(&out, "Begun %s. Where a goal is missed the cell says so.\n\n| figure | goal |", r.Begun.Format(time.RFC3339))
	for _, row := range r.Rows {
		fmt.Fprintf(&out, " %s |", count(row.Events))
	}
	out.WriteString("\n|---|---|" + strings.Repeat("---|", len(r.Rows)) + "\n| position at the row | |")
	for _, row := range r.Rows {
		fmt.Fprintf(&out, " %s |", count(row.Position))
	}
	out.WriteByte('\n')
	for _, name := range r.lineNames() {
		goal, cells := "", ""
		for _, row := range r.Rows {
			l := row.line(name)
			if l.Goal != "" {
				goal = l.Goal
			}
			cells += " " + cell(l) + " |"
		}
		fmt.Fprintf(&out, "| %s | %s |%s\n", name, goal, cells)
	}
	out.WriteString("\n![append rate, memory, stalls](plot.svg)\n")
	return out.String()
}

func nodesText(n int) string {
	if n == 1 {
		return "one node"
	}
	return fmt.Sprintf("%d nodes", n)
}

func cell(l line) string {
	switch l.Verdict {
	case "":
		return l.Text
	case verdictMisses:
		return "**" + verdictMisses + "**: " + l.Text
	}
	return l.Verdict + ": " + l.Text
}

// lineNames is the names of all lines, each once, in the order of the table.
func (r *report) lineNames() []string {
	var names []string
	seen := map[string]bool{}
	for _, row := range r.Rows {
		for _, l := range row.Lines {
			if !seen[l.Name] {
				seen[l.Name] = true
				names = append(names, l.Name)
			}
		}
	}
	return names
}

// line is the row's line of a name; an empty one if it has none.
func (r *row) line(name string) line {
	for _, l := range r.Lines {
		if l.Name == name {
			return l
		}
	}
	return line{}
}
