package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/mattn/go-isatty"
)

func isTerminal(v any) bool {
	f, ok := v.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

// The looks of a cell, as the escape sequences that colour it.
const (
	plain  = ""
	bold   = "\x1b[1m"
	dim    = "\x1b[2m"
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	cyan   = "\x1b[36m"
	reset  = "\x1b[0m"
)

// cell is a text of a table.
type cell struct {
	text string
	look string
}

// column is how a table shows a column.
type column struct {
	title string
	right bool // flush right, for numbers
}

// table writes rows in aligned columns. It holds back the first rows to learn
// how wide the columns are; a wider one later only widens what follows.
type table struct {
	w       *bufio.Writer
	columns []column
	widths  []int
	colour  bool
	limit   int // columns of the terminal, to which the last cell is cut; 0 = no cut
	held    [][]cell
	started bool
}

// tableRows is how many rows a table holds back.
const tableRows = 50

func newTable(w io.Writer, columns ...column) *table {
	t := &table{w: bufio.NewWriter(w), columns: columns, widths: make([]int, len(columns))}
	if f, ok := w.(*os.File); ok && isTerminal(f) {
		t.colour = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
		t.limit = windowWidth(f)
	}
	for i, c := range columns {
		t.widths[i] = len(c.title)
	}
	return t
}

// row adds a row.
func (t *table) row(cells ...cell) error {
	for i := range cells {
		cells[i].text = printable(cells[i].text)
		t.widths[i] = max(t.widths[i], utf8.RuneCountInString(cells[i].text))
	}
	if !t.started {
		t.held = append(t.held, cells)
		if len(t.held) < tableRows {
			return nil
		}
		return t.start()
	}
	return t.write(cells)
}

// start writes the titles and what was held back.
func (t *table) start() error {
	t.started = true
	titles := make([]cell, len(t.columns))
	for i, c := range t.columns {
		titles[i] = cell{c.title, dim}
	}
	if err := t.write(titles); err != nil {
		return err
	}
	for _, cells := range t.held {
		if err := t.write(cells); err != nil {
			return err
		}
	}
	t.held = nil
	return nil
}

// flush writes everything out. A table without rows has no titles either.
func (t *table) flush() error {
	if !t.started && len(t.held) > 0 {
		if err := t.start(); err != nil {
			return err
		}
	}
	return t.w.Flush()
}

func (t *table) write(cells []cell) error {
	var b strings.Builder
	at := 0 // columns of the terminal used
	for i, c := range cells {
		last := i == len(cells)-1
		if i > 0 {
			b.WriteString("  ")
			at += 2
		}
		if last && t.limit > 0 {
			c.text = cut(c.text, max(t.limit-at, 20))
		}
		pad := t.widths[i] - utf8.RuneCountInString(c.text)
		at += t.widths[i]
		if pad > 0 && t.columns[i].right {
			b.WriteString(strings.Repeat(" ", pad))
		}
		if t.colour && c.look != plain {
			b.WriteString(c.look + c.text + reset)
		} else {
			b.WriteString(c.text)
		}
		if pad > 0 && !t.columns[i].right && !last {
			b.WriteString(strings.Repeat(" ", pad))
		}
	}
	_, err := fmt.Fprintln(t.w, strings.TrimRight(b.String(), " "))
	return err
}

// cut shortens s to n runes.
func cut(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}

// printable replaces what a terminal would obey instead of show.
func printable(s string) string {
	unsafe := func(r rune) bool {
		return r < 0x20 || 0x7f <= r && r < 0xa0 || r == 0x2028 || r == 0x2029 || 0x202a <= r && r <= 0x202e || 0x2066 <= r && r <= 0x2069
	}
	if strings.IndexFunc(s, unsafe) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unsafe(r) {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// thousands writes n with separators: 12,345.
func thousands[N int | int64 | uint64](n N) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// counted writes a number and what it counts: "1 event", "2,000 events".
func counted[N int | int64 | uint64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return thousands(n) + " " + noun + "s"
}

// bytesText writes a number of bytes in the unit that fits: "312 B", "4.0 MiB".
func bytesText(n int64) string {
	units := []string{"KiB", "MiB", "GiB", "TiB"}
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	v := float64(n) / (1 << 10)
	i := 0
	for v >= 1024 && i < len(units)-1 {
		v /= 1024
		i++
	}
	return fmt.Sprintf("%.1f %s", v, units[i])
}
