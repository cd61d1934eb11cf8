package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// bench is one run. Its figures are taken one after another by one goroutine,
// which owns all that is not atomic.
type bench struct {
	s      *settings
	c      *cluster
	g      *generator
	watch  *watcher
	report *report

	batches  atomic.Int64 // of the load that were sent
	tagBytes atomic.Int64 // in those
	row      int          // index of the row that is being taken
	mark     int          // counts marks of events that figures append
	memory   []int64      // most that each node has held at this row
	loaded   []int64      // what each held when the row was reached
}

// figure is something that is measured at each row and gives lines of the table.
type figure struct {
	name string
	take func(*bench, context.Context) ([]line, error)
}

// figures is all of them, in the order in which they are taken: first what must
// see the node as the load has left it, last what loads more. In the table they
// stand in the order of tableOrder.
var figures = []figure{
	{"append", (*bench).measureAppends},
	{"restart", (*bench).measureRestart},
	{"disk", (*bench).measureDisk},
	{"stream", (*bench).measureStreamRead},
	{"tags", (*bench).measureTagQueries},
	{"condition", (*bench).measureCondition},
	{"fresh", (*bench).measureFreshStreams},
	{"scan", (*bench).measureScan},
	{"follow", (*bench).measureFollowers},
	{"stalls", (*bench).measureStalls},
	{"snapshot", (*bench).measureSnapshots},
	{"memory", (*bench).measureMemory},
}

// tableOrder is the order of the lines in the report.
var tableOrder = []string{
	"append", "stalls", "memory", "restart", "snapshot", "disk", "stream", "tags", "condition", "fresh", "scan", "follow",
}

// figureNames are those that can be left out.
func figureNames() []string {
	return slices.DeleteFunc(slices.Clone(tableOrder), func(name string) bool { return always(name) })
}

func always(name string) bool { return name == "append" || name == "memory" }

// measure takes all rows. The report has those that were complete when it
// failed.
func measure(ctx context.Context, s *settings, progress io.Writer) (*report, error) {
	b := &bench{s: s, g: newGenerator(s.rows, s.size)}
	b.report = &report{
		Begun: time.Now().UTC().Truncate(time.Second), System: system(), Cores: runtime.NumCPU(),
		Nodes: s.nodes, Size: s.size,
	}
	var err error
	if b.c, err = newCluster(s); err != nil {
		return b.report, err
	}
	defer b.c.end(syscall.SIGKILL)
	if err := b.c.start(ctx); err != nil {
		return b.report, err
	}
	b.watch = newWatcher(b, progress)
	defer b.watch.stop()
	var failed error
	for b.row = range s.rows {
		if err := b.takeRow(ctx); err != nil {
			failed = errors.Join(failed, fmt.Errorf("row of %s events: %w", count(s.rows[b.row]), err))
		}
		if ctx.Err() != nil || b.c.check() != nil || b.sent() < s.rows[b.row] {
			break
		}
	}
	b.watch.say("done")
	return b.report, failed
}

// takeRow takes the figures of one row. The row stands in the report even if
// some of them failed.
func (b *bench) takeRow(ctx context.Context) (failed error) {
	r := row{Events: b.s.rows[b.row]}
	b.memory = make([]int64, len(b.c.nodes))
	for _, f := range figures {
		if !always(f.name) && len(b.s.figures) > 0 && !slices.Contains(b.s.figures, f.name) {
			continue
		}
		b.watch.begin(f.name)
		lines, err := f.take(b, ctx)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", f.name, err))
			lines = []line{{Name: f.name, Text: "failed: " + strings.ReplaceAll(err.Error(), "\n", "; "), Verdict: verdictMisses}}
		}
		for _, l := range lines {
			l.figure = f.name
			r.Lines = append(r.Lines, l)
			b.watch.say("  %s: %s %s", l.Name, l.Text, l.Verdict)
		}
		down := b.c.check()
		failed = errors.Join(failed, down)
		if down != nil || err != nil && (f.name == "append" || ctx.Err() != nil) {
			break
		}
		if f.name == "append" {
			position, err := b.position(ctx)
			if err != nil {
				return err
			}
			r.Position = int64(position)
		}
	}
	slices.SortStableFunc(r.Lines, func(x, y line) int {
		return slices.Index(tableOrder, x.figure) - slices.Index(tableOrder, y.figure)
	})
	b.report.Rows = append(b.report.Rows, r)
	b.report.Samples = b.watch.taken()
	return failed
}

// atFirstRow returns a value that the first row has in a line of this name, and
// false at the first row itself.
func (b *bench) atFirstRow(name, value string) (float64, bool) {
	if len(b.report.Rows) == 0 {
		return 0, false
	}
	for _, l := range b.report.Rows[0].Lines {
		if l.Name == name {
			v, ok := l.Values[value]
			return v, ok
		}
	}
	return 0, false
}

// room is how many more events of the load a figure may send that wants so
// many. What is missing to the next row, but for those over which its rate is
// taken, is shared with so many figures in all. At the last row there is room.
func (b *bench) room(want, figures int) int {
	if b.row+1 < len(b.s.rows) {
		row, next := b.s.rows[b.row], b.s.rows[b.row+1]
		free := next - min(lastEvents, (next-row)/2) - b.sent()
		want = min(want, free/figures)
	}
	return max(want/batchEvents, 1) * batchEvents
}

// sent is how many events of the load are in the log.
func (b *bench) sent() int { return int(b.batches.Load()) * batchEvents }
