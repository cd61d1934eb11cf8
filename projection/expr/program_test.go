package expr

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// run evaluates source over a state.
func run(t testing.TB, source, state string) (string, error) {
	t.Helper()
	p, err := Compile(source, "state")
	if err != nil {
		t.Fatalf("%s: %v", source, err)
	}
	s, err := Parse([]byte(state))
	if err != nil {
		t.Fatal(err)
	}
	v, err := p.Eval(s)
	if err != nil {
		return "", err
	}
	b, err := v.AppendJSON(nil, 1<<20)
	return string(b), err
}

// TestEval_SameEachTime repeats what would depend on the order in which Go
// walks a map: members of data and of literals, inside each other, and which of
// several errors is told.
func TestEval_SameEachTime(t *testing.T) {
	var members []string
	for i := range 40 {
		members = append(members, fmt.Sprintf(`"k%d":{"b%d":%d,"a":{"x":%d,"w":1}}`, i*7%40, i, i, i))
	}
	state := "{" + strings.Join(members, ",") + "}"
	literal := "{" + strings.ReplaceAll(strings.Join(members, ","), `"`, `'`) + "}"
	for _, source := range []string{
		"state",
		"state.map(k, k)",
		"state.map(k, state[k].map(j, j))",
		"state.transformList(k, v, v.a)",
		"state.transformMap(k, v, v.a.transformList(j, w, j))",
		literal,
		literal + ".map(k, k)",
		literal + ".transformList(k, v, v.map(j, j))",
		literal + " == state",
		literal + ".exists(k, k > 'k2')",
		"state.all(k, v, v.nothing == k)",
		"state.map(k, k == 'k9' ? 1 / 0 : state[k].q)",
		literal + ".transformMap(k, v, v + k)",
		"{'b': 1 / 0, 'a': state.q}",
		"{'b': state.q, 'a': 1 / 0}",
		"[1 / 0, state.q]",
		"state.q == 1 / 0",
	} {
		if len(source) > MaxSource {
			t.Fatal("the literal is too long")
		}
		var first string
		for i := range 200 {
			got, err := run(t, source, state)
			got = fmt.Sprint(got, err)
			if i == 0 {
				first = got
			} else if got != first {
				t.Fatalf("%.60s…\nfirst %s\nthen  %s", source, first, got)
			}
			if i == 20 && len(source) > 200 {
				break // compiling is what takes the time
			}
		}
	}
}

// TestEval_Concurrent has one program evaluated by many goroutines.
func TestEval_Concurrent(t *testing.T) {
	p, err := Compile("state.l.map(x, x * math.abs(state.n)).sum()", "state")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			s, _ := Parse(fmt.Appendf(nil, `{"l":[1,2,3],"n":-%d}`, g))
			for range 500 {
				v, err := p.Eval(s)
				if f, _ := v.number(); err != nil || f != float64(6*g) {
					t.Errorf("%v, %v", f, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestLimits has what would otherwise take all memory or time end soon, by an
// error.
func TestLimits(t *testing.T) {
	list := "[" + strings.Repeat("1,", 99_999) + "1]"
	long := `"` + strings.Repeat("a", 500_000) + `"`
	word := `"` + strings.Repeat("a", 2000) + `"`
	empty := "[" + strings.Repeat("{},", 9999) + "{}]"
	doubling := strings.Repeat("cel.bind(x, x + x, ", 40) + "size(x)" + strings.Repeat(")", 40)
	for _, c := range []struct{ source, state, want string }{
		{"cel.bind(x, [1], " + doubling + ")", `{}`, "more than 524288 steps"},
		{"cel.bind(x, 'a', " + doubling + ")", `{}`, "the most is 262144"},
		{"state.l.map(x, state.l.map(y, x))", `{"l":` + list + `}`, "more than 524288 steps"},
		{"state.l.exists(x, state.l.exists(y, x != y))", `{"l":` + list + `}`, "more than 524288 steps"},
		{"state.l.filter(x, x + 1 in state.l)", `{"l":` + list + `}`, "more than 524288 steps"},
		{"state.l.map(x, state.t.contains('ab'))", `{"l":` + list + `,"t":` + long + `}`, "more than 524288 steps"},
		{"state.l.exists(x, state.t.matches('(a|aa)+b'))", `{"l":` + list + `,"t":` + long + `}`, "more than 524288 steps"},
		// What a loop's body costs counts for every element, failures that all()
		// and || go on after too, and reading the text of a number.
		{"state.l.all(x, " + strings.Repeat("x.a || ", 500) + "x.a)", `{"l":` + empty + `}`, "more than 524288 steps"},
		{"state.l.all(x, " + strings.Repeat("!", 200) + "(x == 1))", `{"l":` + list + `}`, "more than 524288 steps"},
		{"state.l.map(x, cel.bind(a, x, cel.bind(b, a, cel.bind(c, b, c ? a : b))))", `{"l":` + strings.ReplaceAll(list, "1", "true") + `}`, "more than 524288 steps"},
		{"state.l.all(x, x.a)", `{"l":` + strings.ReplaceAll(list, "1", "{}") + `}`, "more than 524288 steps"},
		{"state.l.map(x, -x)", `{"l":` + strings.ReplaceAll(list[:20_001]+"1]", "1", "1.234567800000000111771958e-300") + `}`, "more than 524288 steps"},
		{"state.l.sort()", `{"l":` + strings.ReplaceAll(list[:20_001]+"1]", "1", "1.234567800000000111771958e-300") + `}`, "more than 524288 steps"},
		{"state.l.all(x, timestamp(state.t) == x)", `{"l":` + list + `,"t":` + long + `}`, "more than 524288 steps"},
		{"state.l.all(x, duration(state.t) != x)", `{"l":` + list + `,"t":"` + strings.Repeat("1h", 1<<17) + `"}`, "more than 524288 steps"},
		{"state.l.all(x, double(state.t) == x)", `{"l":` + list + `,"t":` + long + `}`, "more than 524288 steps"},
		{"state.l.all(x, state[state.t] == x)", `{"l":` + list + `,"t":` + long + `}`, "more than 524288 steps"},
		{"state.l.all(x, {state.t: 1} != {state.t: 2})", `{"l":` + list + `,"t":` + long + `}`, "more than 524288 steps"},
		{"state.l.map(x, state.l)", `{"l":` + list + `}`, "larger than"},
		{"state.l.distinct().size() + state.l.map(x, state.l.distinct()).size()", `{"l":` + list + `}`, "more than 524288 steps"},
		{"state.t.replace('', state.t)", `{"t":` + word + `}`, "the most is 262144"},
		{"state.t.split('').join(state.t)", `{"t":` + word + `}`, "the most is 262144"},
		{"state.t + 'x'", `{"t":` + long + `}`, "the most is 262144"},
		{"state.n + 1", `{"n":0.` + strings.Repeat("1", 40) + `}`, "more than 40 digits"},
		{"cel.bind(x, [1], " + strings.ReplaceAll(doubling, "x + x", "[x, x]") + ") == 2 && " +
			"cel.bind(x, [1], " + strings.ReplaceAll(strings.ReplaceAll(doubling, "x + x", "[x, x]"), "size(x)", "x == [x[0], x[0]]") + ")", `{}`, "more than 524288 steps"},
	} {
		start := time.Now()
		_, err := run(t, c.source, c.state)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.60s: %v, want %q", c.source, err, c.want)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("%.60s took %v", c.source, took)
		}
	}
}

func TestCompile_Limits(t *testing.T) {
	for _, source := range []string{
		"'" + strings.Repeat("a", MaxSource) + "'",
		strings.Repeat("(", 500) + "1" + strings.Repeat(")", 500),
		strings.Repeat("[", 1500) + strings.Repeat("]", 1500),
		"'a\xff'",
		"'a'.matches('" + strings.Repeat("a{900}", 4) + "')",
		"'a'.matches('" + strings.Repeat("a", 257) + "')",
		"['a'.matches('a{1,1000}'), 'b'.matches('b{1,1000}')]",
	} {
		if _, err := Compile(source); err == nil {
			t.Errorf("%.40s…: no error", source)
		} else if e, ok := err.(*Error); !ok || e.Line < 1 || e.Column < 1 {
			t.Errorf("%.40s…: %#v", source, err)
		}
	}
}

func TestProgram_Reads(t *testing.T) {
	for _, c := range []struct {
		source     string
		data, meta bool
	}{
		{"event.data.amount", true, false},
		{"event['meta'].user", false, true},
		{"has(event.meta) && event.?data.hasValue()", true, true},
		{"event", true, true},
		{"[event]", true, true},
		{"event.type == 'a'", false, false},
		{"cel.bind(e, event, e.type)", true, true},
		{"[1].map(event, event)", false, false},
		{"event[event.type]", true, true},
		{"1", false, false},
	} {
		p, err := Compile(c.source, "event")
		if err != nil {
			t.Fatal(err)
		}
		if d, m := p.Reads("event", "data"), p.Reads("event", "meta"); d != c.data || m != c.meta {
			t.Errorf("%s: data %v, meta %v", c.source, d, m)
		}
	}
	p, err := Compile("event.type + event.x +\n event.a", "event")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.CheckMembers("event", []string{"type"}); err == nil || err.Error() != `column 19: event has no member "x"; it has type` {
		t.Error(err)
	}
	if err := p.CheckMembers("event", []string{"a", "type", "x"}); err != nil {
		t.Error(err)
	}
}

// TestCompile_Random evaluates random trees of what the language has: whatever
// comes out, it comes out twice.
func TestCompile_Random(t *testing.T) {
	var source func(depth int) *rapid.Generator[string]
	source = func(depth int) *rapid.Generator[string] {
		return rapid.Custom(func(t *rapid.T) string {
			leaves := []string{"1", "0", "2.5", "'a'", "''", "true", "null", "state", "state.n", "state.l", "state.m", "state.m.x", "[]", "{}", "duration('1s')"}
			if depth == 0 {
				return rapid.SampledFrom(leaves).Draw(t, "leaf")
			}
			form := rapid.SampledFrom([]string{
				"%s + %s", "%s - %s", "%s * %s", "%s / %s", "%s %% %s", "%s == %s", "%s < %s", "%s && %s", "%s || %s", "%s in %s", "(%s) ? (%s) : 1",
				"[%s, %s]", "{'b': %s, 'a': %s}", "(%s).map(x, %s)", "(%s).filter(x, %s)", "(%s).all(x, %s)", "(%s)[?%s].orValue(1)", "cel.bind(y, %s, %s)",
				"(%s)[%s]", "string(%s) + string(%s)", "size(%s) + size(%s)", "!(%s) || %s", "-(%s) + %s", "(%s).transformList(k, v, %s)",
			}).Draw(t, "form")
			return fmt.Sprintf("("+form+")", source(depth-1).Draw(t, "left"), source(depth-1).Draw(t, "right"))
		})
	}
	state, err := Parse([]byte(`{"n":3,"l":[1,"b",3.50],"m":{"x":1,"a":"é"}}`))
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		text := source(rapid.IntRange(0, 3).Draw(t, "depth")).Draw(t, "source")
		p, err := Compile(text, "state")
		if err != nil {
			if e, ok := err.(*Error); !ok || e.Line < 1 || e.Column < 1 {
				t.Fatalf("%s: %#v", text, err)
			}
			return
		}
		outcome := func() string {
			v, err := p.Eval(state)
			if err != nil {
				return err.Error()
			}
			b, err := v.AppendJSON(nil, 1<<20)
			if err == nil {
				checkCanonical(t, b)
			}
			return fmt.Sprint(string(b), err)
		}
		if a, b := outcome(), outcome(); a != b {
			t.Fatalf("%s: %s, then %s", text, a, b)
		}
	})
}

func FuzzCompile(f *testing.F) {
	for _, seed := range []string{"state.n + 1", "{'a': [1, ?state.?x]}", "state.l.map(x, x > 1, -x)", "has(state.a) ? 'x' : r'\\'", "cel.bind(a, 1u, a)", "a.`b-c`[?1]", "b'\\x00' + \"\"\"\n\"\"\"", "Foo{a: 1}.b"} {
		f.Add(seed, `{"n":1,"l":[1,2]}`)
	}
	f.Fuzz(func(t *testing.T, source, state string) {
		p, err := Compile(source, "state")
		if err != nil {
			return
		}
		s, err := Parse([]byte(state))
		if err != nil {
			return
		}
		if v, err := p.Eval(s); err == nil {
			if b, err := v.AppendJSON(nil, 1<<16); err == nil {
				checkCanonical(t, b)
			}
		}
	})
}
