package main

import (
	"fmt"
	"strings"
	"testing"
)

func TestTable(t *testing.T) {
	var b strings.Builder
	table := newTable(&b, column{"NAME", false}, column{"N", true}, column{"LAST", false})
	table.colour, table.limit = true, 30
	for _, row := range [][]cell{
		{{"ä", cyan}, {"1", plain}, {"x", plain}},
		{{"longer", cyan}, {"1,000", plain}, {strings.Repeat("y", 40), bold}},
		{{"\x1b[2J", plain}, {"", plain}, {"", plain}},
	} {
		if err := table.row(row...); err != nil {
			t.Fatal(err)
		}
	}
	if err := table.flush(); err != nil {
		t.Fatal(err)
	}
	want := "\x1b[2mNAME\x1b[0m           \x1b[2mN\x1b[0m  \x1b[2mLAST\x1b[0m\n" +
		"\x1b[36mä\x1b[0m              1  x\n" +
		"\x1b[36mlonger\x1b[0m     1,000  \x1b[1myyyyyyyyyyyyyyyyyyy…\x1b[0m\n" +
		"\\u001b[2J\n"
	if b.String() != want {
		t.Errorf("got\n%q\nwant\n%q", b.String(), want)
	}
}

// A long table comes out while it is written, and widens when it must.
func TestTable_Streams(t *testing.T) {
	var b strings.Builder
	table := newTable(&b, column{"NAME", false}, column{"N", false})
	for i := range 2 * tableRows {
		if err := table.row(cell{strings.Repeat("n", i/tableRows*10+1), plain}, cell{fmt.Sprint(i), plain}); err != nil {
			t.Fatal(err)
		}
	}
	if err := table.flush(); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(b.String(), "\n")
	if len(lines) != 2*tableRows+2 || lines[1] != "n     0" || lines[tableRows+1] != "nnnnnnnnnnn  50" {
		t.Errorf("%d lines, %q, %q", len(lines), lines[1], lines[tableRows+1])
	}
}

func TestThousands(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := thousands(n); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
