// Package report makes a page out of a history of jepsen-lite and the verdicts
// of its checkers: one HTML file that needs nothing else, for people.
package report

import (
	"bytes"
	"cmp"
	_ "embed" // the page's template
	"fmt"
	"html/template"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"cairn/jepsen-lite/check"
	"cairn/jepsen-lite/history"
)

//go:embed page.gohtml
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// timelineName is the file in the report's directory that the page points to
// if it is there when the page is made.
const timelineName = "timeline.html"

// page is what the template shows.
type page struct {
	Valid     bool
	Verdict   string // in one line
	About     []fact
	Seed      uint64
	Command   string
	Timeline  string // name of the file with Porcupine's picture, if it is there
	Verdicts  []verdict
	Chart     chart
	Workloads []workload
	Faults    []fault
	Nodes     []string // names
	Counters  []counter
}

// fact is a thing counted, with its number as text.
type fact struct{ Name, Value string }

type verdict struct {
	check.Verdict
	Took   string
	More   int64 // problems that are not shown
	Counts []fact
}

type workload struct {
	Name                 string
	OK, Refused, Unknown int
	Median, P99          string // of those that are OK
	Codes                []fact // of refusals
}

type fault struct {
	Nemesis, What, Nodes, Start, Lasted string
	Bit                                 []fact
}

type counter struct {
	Name   string
	Values []int64 // by node
	Sum    int64
}

// Write makes index.html in dir, which it creates if need be, in place of one
// that is there.
func Write(dir string, h *history.History, verdicts []check.Verdict) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	p := newPage(h, verdicts)
	if _, err := os.Stat(filepath.Join(dir, timelineName)); err == nil {
		p.Timeline = timelineName
	}
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, p); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "index.html"), b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

func newPage(h *history.History, verdicts []check.Verdict) *page {
	p := &page{Valid: check.Valid(verdicts), Seed: h.Seed, Command: h.Command, Chart: newChart(h)}
	var against []string
	for _, v := range verdicts {
		if !v.Valid {
			against = append(against, v.Checker)
		}
		p.Verdicts = append(p.Verdicts, verdict{
			Verdict: v, Took: v.Took.Round(time.Millisecond).String(), Counts: facts(v.Counts),
			More: max(0, v.Counts["problems"]-int64(len(v.Problems))),
		})
	}
	switch {
	case p.Valid:
		p.Verdict = fmt.Sprintf("Valid: all %d checkers agree", len(verdicts))
	case len(against) == 0:
		p.Verdict = "Not valid: nothing was checked"
	default:
		p.Verdict = fmt.Sprintf("Not valid: %s (%d of %d checkers)", strings.Join(against, ", "), len(against), len(verdicts))
	}
	p.Workloads = workloads(h)
	events, done := 0, 0
	for _, n := range h.Nodes {
		events = max(events, len(n.Events))
	}
	for _, w := range p.Workloads {
		done += w.OK
	}
	p.About = []fact{
		{"with faults", h.Length.Round(time.Second).String()}, {"nodes", fmt.Sprint(len(h.Nodes))},
		{"operations", fmt.Sprint(len(h.Ops))}, {"acknowledged", fmt.Sprint(done)},
		{"events in the log", fmt.Sprint(events)}, {"faults", fmt.Sprint(len(h.Faults))},
	}
	for i := range h.Faults {
		f := &h.Faults[i]
		p.Faults = append(p.Faults, fault{
			f.Nemesis, f.What, strings.Join(f.Nodes, ", "), fmt.Sprintf("%.2f", f.Start.Seconds()),
			fmt.Sprintf("%.2f", (f.End - f.Start).Seconds()), facts(f.Bit),
		})
	}
	p.nodes(h)
	return p
}

// nodes fills the table of what each node counted.
func (p *page) nodes(h *history.History) {
	names := map[string]bool{}
	for i := range h.Nodes {
		p.Nodes = append(p.Nodes, h.Nodes[i].Name)
		for name := range h.Nodes[i].Worked {
			names[name] = true
		}
	}
	add := func(name string, value func(*history.Node) int64) {
		c := counter{Name: name}
		for i := range h.Nodes {
			n := value(&h.Nodes[i])
			c.Values = append(c.Values, n)
			c.Sum += n
		}
		p.Counters = append(p.Counters, c)
	}
	for _, name := range sorted(names) {
		add(name, func(n *history.Node) int64 { return n.Worked[name] })
	}
	add("segments in the end", func(n *history.Node) int64 { return int64(len(n.Segments)) })
	add("events in the end", func(n *history.Node) int64 { return int64(len(n.Events)) })
}

// workloads sums up the operations of each workload, by name.
func workloads(h *history.History) []workload {
	took := map[string][]time.Duration{}
	codes := map[string]map[string]int64{}
	sums := map[string]*workload{}
	for i := range h.Ops {
		op := &h.Ops[i]
		w := sums[op.Workload]
		if w == nil {
			w = &workload{Name: op.Workload}
			sums[op.Workload], codes[op.Workload] = w, map[string]int64{}
		}
		switch op.Outcome {
		case history.OK:
			w.OK++
			took[op.Workload] = append(took[op.Workload], op.End-op.Start)
		case history.Refused:
			w.Refused++
			codes[op.Workload][op.Code]++
		default:
			w.Unknown++
		}
	}
	var list []workload
	for _, name := range sorted(sums) {
		w := sums[name]
		slices.Sort(took[name])
		w.Median, w.P99 = short(quantile(took[name], 50)), short(quantile(took[name], 99))
		w.Codes = facts(codes[name])
		list = append(list, *w)
	}
	return list
}

// quantile returns the smallest of sorted that percent of them do not exceed, 0
// if there are none.
func quantile(sorted []time.Duration, percent int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[(len(sorted)*percent+99)/100-1]
}

// short writes a duration with about three digits.
func short(d time.Duration) string {
	switch {
	case d >= time.Second:
		return fmt.Sprintf("%.3g s", d.Seconds())
	case d >= time.Millisecond:
		return fmt.Sprintf("%.3g ms", float64(d)/float64(time.Millisecond))
	default:
		return fmt.Sprintf("%d µs", d.Microseconds())
	}
}

func facts(counts map[string]int64) []fact {
	var list []fact
	for _, name := range sorted(counts) {
		list = append(list, fact{name, fmt.Sprint(counts[name])})
	}
	return list
}

func sorted[K cmp.Ordered, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
