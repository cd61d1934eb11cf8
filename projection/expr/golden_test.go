package expr

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what the expressions yield into the golden corpus")

// TestGolden holds every result to what it was: a different one on a node with
// a newer cel-go, Go or engine would make its rows differ from the others'.
// testdata/golden.txt has an expression a paragraph, its lines behind "> ",
// then its result as JSON ("= "), the error of its evaluation ("! ") or why it
// does not compile ("? "). A line "state " sets the variable state from there on.
func TestGolden(t *testing.T) {
	const file = "testdata/golden.txt"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	var source []string
	state, cases := "null", 0
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		switch mark, rest, _ := strings.Cut(line, " "); mark {
		case ">":
			source = append(source, rest)
		case "state":
			state = rest
		case "=", "!", "?":
			cases++
			got := golden(strings.Join(source, "\n"), state)
			if got != line && !*update {
				t.Errorf("%s:%d: %s\n got %s\nwant %s", file, n, strings.Join(source, "\n"), got, line)
			}
			line, source = got, nil
		}
		fmt.Fprintln(&out, line)
	}
	if cases < 80 {
		t.Errorf("%d cases are left of the corpus", cases)
	}
	if *update {
		if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func golden(source, state string) string {
	event := `{"data":{"amount":12.50,"id":12345678901234567890,"tags":["a","b"],"note":null},"stream":"account-1"}`
	p, err := Compile(source, "event", "state")
	if err != nil {
		return "? " + err.Error()
	}
	e, err := Parse([]byte(event))
	if err != nil {
		return err.Error()
	}
	e.node.names = append(e.node.names, "time")
	e.node.values = append(e.node.values, TimeOf(1767225600_123456789))
	s, err := Parse([]byte(state))
	if err != nil {
		return err.Error()
	}
	v, err := p.Eval(e, s)
	if err != nil {
		return "! " + err.Error()
	}
	b, err := v.AppendJSON(nil, 64<<10)
	if err != nil {
		return "! " + err.Error()
	}
	return "= " + string(b)
}
