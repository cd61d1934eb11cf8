package projection

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"cairn/projection/expr"
)

func merged(t *testing.T, data ...string) (string, error) {
	t.Helper()
	var s MergedState
	for _, d := range data {
		if _, err := s.Add([]byte(d)); err != nil {
			return "", err
		}
	}
	b, err := s.JSON()
	return string(b), err
}

func TestMergedState(t *testing.T) {
	for _, c := range []struct {
		data []string
		want string
	}{
		{nil, `{}`},
		{[]string{`null`, `[1]`, `"x"`}, `{}`},
		{[]string{` {"b":1,"a":{"x":1.0}}`}, `{"a":{"x":1.0},"b":1}`},
		{[]string{`{"b":1,"a":{"x":1.0}}`, `[1]`, `{"a":{"y":2},"b":null}`}, `{"a":{"x":1.0,"y":2}}`},
		{[]string{`{"a":{"b":null}}`}, `{"a":{}}`},
		{[]string{`{"a":{"b":1}}`, `{"a":[null]}`, `{"a":{"c":1}}`}, `{"a":{"c":1}}`},
	} {
		if got, err := merged(t, c.data...); got != c.want || err != nil {
			t.Errorf("%q: %s, %v; want %s", c.data, got, err, c.want)
		}
	}
	if _, err := merged(t, `{`); err == nil || errors.Is(err, ErrStateTooLarge) {
		t.Errorf("what is no JSON: %v", err)
	}
}

// A state may be as large as it likes in between only up to the bound, and what
// was taken out counts no more.
func TestMergedState_Bound(t *testing.T) {
	large := `"` + strings.Repeat("x", 600<<10) + `"`
	if _, err := merged(t, `{"a":`+large+`}`, `{"b":`+large+`}`); !errors.Is(err, ErrStateTooLarge) {
		t.Errorf("two large members: %v", err)
	}
	if _, err := merged(t, `{"a":{"x":{"y":`+large+`}}}`, `{"a":{"x":1}}`, `{"b":`+large+`}`, `{"b":null}`, `{"a":`+large+`}`); err != nil {
		t.Errorf("one at a time: %v", err)
	}
	if _, err := merged(t, `{"a":"`+strings.Repeat(`\u0001`, 400<<10)+`"}`); !errors.Is(err, ErrStateTooLarge) {
		t.Errorf("what grows by escapes: %v", err)
	}
}

// It is the fold of Merge, and its size is that of its JSON.
func TestMergedState_EqualsMerge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s MergedState
		want := expr.MapOf(nil, nil)
		for range rapid.IntRange(0, 8).Draw(t, "patches") {
			data := anyObject(t, 3)
			if _, err := s.Add([]byte(data)); err != nil {
				t.Fatalf("%s: %v", data, err)
			}
			patch, err := expr.Parse([]byte(data))
			if err == nil {
				want, _, err = expr.Merge(want, patch)
			}
			if err != nil {
				t.Fatalf("%s: %v", data, err)
			}
		}
		expected, err := want.AppendJSON(nil, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.JSON()
		if err != nil || string(got) != string(expected) {
			t.Fatalf("%s, %v; want %s", got, err, expected)
		}
		if empty := strings.Count(string(got), "{}"); s.size < len(got)-2 || s.size > len(got)+empty+strings.Count(string(got), "{") {
			t.Fatalf("%d bytes noted of %s, which has %d", s.size, got, len(got))
		}
	})
}

// anyObject draws the JSON of an object.
func anyObject(t *rapid.T, depth int) string {
	var members []string
	for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d"}), 0, 4, rapid.ID).Draw(t, "names") {
		value := rapid.SampledFrom([]string{"null", "1.50", "[null,1]", `"x"`, "{}", "{"}).Draw(t, "value")
		if value == "{" && depth > 0 {
			value = anyObject(t, depth-1)
		} else if value == "{" {
			value = "true"
		}
		members = append(members, fmt.Sprintf("%q:%s", name, value))
	}
	return "{" + strings.Join(members, ",") + "}"
}
