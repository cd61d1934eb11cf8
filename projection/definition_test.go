package projection

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"cairn/event"
)

func TestParseDefinition_Defaults(t *testing.T) {
	d, err := ParseDefinition("account", []byte(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"guards":{},"init":{},"key":"event.stream","match":{},"name":"account","when":{"*":"event.data"}}`
	if got := string(d.Canonical()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if d.Guarding() {
		t.Error("it guards")
	}
}

// TestCanonical_OneForm has definitions that mean the same give the same bytes,
// and their canonical form read back as itself.
func TestCanonical_OneForm(t *testing.T) {
	var first string
	for _, text := range []string{
		`{"name":"account","match":{"types":["B","A"],"tags":["y","x"],"streams":["s-2","s-1"]},"init":{"b":1.50,"a":"é"},"guards":{"A":[{"rule":"true","message":"m"}]},"when":{"A":"{}","B":"event.data"}}`,
		`{"guards":{"A":[{"message":"m","rule":"true"}]},"when":{"B":"event.data","A":"{}"},"key":"event.stream","match":{"streams":["s-1","s-2","s-1"],"tags":["x","y"],"types":["A","B","A"],"category":""}, "init":{"a":"\u00e9", "b":1.50}}`,
	} {
		d, err := ParseDefinition("account", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		got := string(d.Canonical())
		if first == "" {
			first = got
		}
		if got != first {
			t.Errorf("got  %s\nwant %s", got, first)
		}
		again, err := ParseDefinition("account", []byte(got))
		if err != nil || string(again.Canonical()) != got {
			t.Errorf("%s read back: %v, %v", got, again, err)
		}
	}
}

func TestDefinition_Refused(t *testing.T) {
	long := strings.Repeat("x", MaxDefinition)
	for _, c := range []struct{ text, want string }{
		{`{`, "definition: ends before"},
		{`[]`, "definition: must be a JSON object"},
		{`{"nme":"a"}`, "nme: is not a known member"},
		{`{"name":"other"}`, `name: is "other", but the projection is called "account"`},
		{`{"match":{"typ":[]}}`, "match.typ: is not a known member"},
		{`{"match":{"types":[]}}`, "match.types: is empty"},
		{`{"match":{"types":[""]}}`, "match.types[0]: must have"},
		{`{"match":{"types":"A"}}`, "match.types: must be an array"},
		{`{"match":{"streams":["$log"]}}`, "match.streams[0]: \"$log\" is one of the store's own"},
		{`{"match":{"category":"$types"}}`, "match: streams that begin with '$'"},
		{`{"init":[]}`, "init: must be an object"},
		{`{"init":{"a":"` + strings.Repeat("x", 60<<10) + `","b":"` + strings.Repeat("é", 3<<10) + `"}}`, "definition: "},
		{`{"key":1}`, "key: must be a string"},
		{`{"key":"event.strem"}`, `key, line 1, column 6: event has no member "strem"`},
		{`{"key":"state.a"}`, "key, line 1, column 1: state is not known; there is event"},
		{`{"key":"1"}`, "key, line 1, column 1: must yield a string"},
		{`{"when":{"A":"{'a': \n 1 + }"}}`, "when.A, line 2, column 6: mismatched input"},
		{`{"when":{"A":"'x'"}}`, "when.A, line 1, column 1: must yield a map"},
		{`{"when":{"A":1}}`, "when.A: must be a string"},
		{`{"when":{"":"{}"}}`, "when: the name of a type must not be empty"},
		{`{"when":{"A":"{}","A":"{}"}}`, "definition: is not the JSON it should be"},
		{`{"match":{"types":["A"]},"when":{"B":"{}"}}`, "when.B: match.types does not name this type"},
		{`{"guards":{"A":[]}}`, "guards.A: there must be 1 to 64 guards"},
		{`{"guards":{"A":[{"message":"m"}]}}`, "guards.A[0].rule: must not be empty"},
		{`{"guards":{"A":[{"rule":"true"},{"rule":"state.a + 1"}]}}`, "guards.A[1].rule, line 1, column 1: must yield true or false"},
		{`{"guards":{"A":[{"rule":"true","if":"x"}]}}`, "guards.A.if: is not a known member"},
		{`{"when":{"A":"` + long + `"}}`, "definition: "},
	} {
		d, err := ParseDefinition("account", []byte(c.text))
		if err == nil {
			_, err = Compile(d)
		}
		var refused *Error
		if !errors.As(err, &refused) || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%.80s: %v, want %s", c.text, err, c.want)
		}
	}
	for _, name := range []string{"", "A", "-a", ".", "a b", "a/b", "$a", strings.Repeat("a", 65), "é"} {
		if _, err := ParseDefinition(name, []byte(`{}`)); err == nil {
			t.Errorf("the name %q is taken", name)
		}
	}
}

// TestFilter_FindsWhatMatches compares Matches with what its words say, and
// holds that Filter misses nothing.
func TestFilter_FindsWhatMatches(t *testing.T) {
	var events []event.Event
	for _, stream := range []string{"a-1", "a-2", "b-1", "a", "$log"} {
		for _, typ := range []string{"A", "B", "C"} {
			for _, tags := range [][]string{nil, {"x"}, {"y", "x"}} {
				events = append(events, event.Event{Stream: stream, Type: typ, Tags: tags})
			}
		}
	}
	for _, m := range []Match{
		{}, {Streams: []string{"a-2"}}, {Streams: []string{"b-1", "a-1"}}, {StreamPrefix: "a-"}, {Category: "a"}, {Types: []string{"C", "A"}},
		{Tags: []string{"x"}}, {Tags: []string{"x", "y"}}, {Category: "a", Types: []string{"B"}, Tags: []string{"x"}, StreamPrefix: "a-", Streams: []string{"a-1", "b-1"}},
	} {
		d := Definition{Name: "account", Match: m, Key: "event.stream", Init: []byte("{}"), When: map[string]string{"*": "{}"}}
		p := mustCompile(t, string(d.Canonical()))
		f := p.Filter()
		for _, e := range events {
			want := !event.IsSystem(e.Stream) && (m.Streams == nil || slices.Contains(m.Streams, e.Stream)) &&
				strings.HasPrefix(e.Stream, m.StreamPrefix) && (m.Category == "" || event.Category(e.Stream) == m.Category) &&
				(m.Types == nil || slices.Contains(m.Types, e.Type)) &&
				!slices.ContainsFunc(m.Tags, func(tag string) bool { return !slices.Contains(e.Tags, tag) })
			if got := p.Matches(&e); got != want {
				t.Errorf("%+v matches %v, want %v: %+v", m, got, want, e)
			}
			if want && !f.Matches(&e) {
				t.Errorf("the filter of %+v misses %+v", m, e)
			}
		}
	}
}

func TestDefinition_Rules(t *testing.T) {
	d, err := ParseDefinition("p", []byte(`{"when":{"A":"null","*":"null"},"guards":{"B":[{"rule":"true"}],"*":[{"rule":"true"}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	for typ, want := range map[string]bool{"A": true, "B": true, "C": false, "*": false, "": false} {
		if got := d.Rules(typ); got != want {
			t.Errorf("%q: %v, want %v", typ, got, want)
		}
	}
}

func TestDefinition_Bounds(t *testing.T) {
	many := func(n int, rule func(i int) string) string {
		rules := make([]string, n)
		for i := range rules {
			rules[i] = fmt.Sprintf("%q:%q", fmt.Sprint("T", i), rule(i))
		}
		return `{"when":{` + strings.Join(rules, ",") + `}}`
	}
	plain := func(int) string { return "null" }
	pattern := func(int) string { return "'a'.matches('a{999}b{999}') ? null : {}" }
	for _, c := range []struct{ name, definition, want string }{
		{"expressions", many(maxRules-1, plain), ""},
		{"too many expressions", many(maxRules, plain), "definition: 257 expressions are over the limit of 256"},
		{"patterns", many(4, pattern), ""},
		{"too many patterns", many(8, pattern), "definition: the patterns of all matches() are too complex together: " +
			"their bytes times the copies that their repeats make are 95904, the most is 65536"},
		{"long when canonical", `{"init":{"a":"` + strings.Repeat("<", 32<<10) + `"},"match":{"stream_prefix":"` + strings.Repeat("x", 32<<10-100) + `"}}`,
			"definition: 65552 bytes in canonical form are over the limit of 65536"},
	} {
		d, err := ParseDefinition("p", []byte(c.definition))
		if err == nil {
			_, err = Compile(d)
		}
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}
