package expr

import (
	"bytes"
	"encoding/json"
	"math"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// plain returns v as encoding/json decodes its text with UseNumber.
func plain(t testing.TB, b []byte) any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("encoding/json of %s: %v", b, err)
	}
	return v
}

// anyJSON draws a value as encoding/json has it.
func anyJSON(depth int) *rapid.Generator[any] {
	return rapid.Custom(func(t *rapid.T) any {
		most := 6
		if depth == 0 {
			most = 4
		}
		switch rapid.IntRange(0, most).Draw(t, "kind") {
		case 0:
			return nil
		case 1:
			return rapid.Bool().Draw(t, "bool")
		case 2:
			return rapid.SampledFrom([]json.Number{"0", "-0", "1", "1.50", "1e3", "-2E-7", "12345678901234567890", "1e400"}).Draw(t, "number")
		case 3, 4:
			return rapid.StringOfN(rapid.SampledFrom([]rune("ab\"\\/\x00\n\u2028éß😀")), 0, 4, -1).Draw(t, "text")
		case 5:
			return rapid.SliceOfN(anyJSON(depth-1), 0, 3).Draw(t, "list")
		}
		m := map[string]any{}
		for name, v := range rapid.MapOfN(rapid.SampledFrom([]string{"a", "b", "c", "d", "", "é", "Z"}), anyJSON(depth-1), 0, 4).Draw(t, "map") {
			m[name] = v
		}
		return m
	})
}

func encoded(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// mergedPlain is RFC 7396 as the RFC writes it down.
func mergedPlain(target, patch any) any {
	changes, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	out := map[string]any{}
	if old, ok := target.(map[string]any); ok {
		for name, v := range old {
			out[name] = v
		}
	}
	for name, v := range changes {
		if v == nil {
			delete(out, name)
		} else {
			out[name] = mergedPlain(out[name], v)
		}
	}
	return out
}

func object() *rapid.Generator[any] {
	return anyJSON(3).Filter(func(v any) bool { _, ok := v.(map[string]any); return ok })
}

func TestMerge_IsRFC7396(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		state, patch := object().Draw(rt, "state"), object().Draw(rt, "patch")
		a, err := Parse(encoded(t, state))
		if err != nil {
			rt.Fatal(err)
		}
		b, err := Parse(encoded(t, patch))
		if err != nil {
			rt.Fatal(err)
		}
		merged, _, err := Merge(a, b)
		if err != nil {
			rt.Fatal(err)
		}
		got, err := merged.AppendJSON(nil, 1<<20)
		if err != nil {
			rt.Fatal(err)
		}
		if want := mergedPlain(state, patch); !reflect.DeepEqual(plain(t, got), plain(t, encoded(t, want))) {
			rt.Fatalf("%s merged into %s:\n got %s\nwant %s", encoded(t, patch), encoded(t, state), got, encoded(t, want))
		}
		checkCanonical(rt, got)
	})
}

// checkCanonical fails unless b is its own canonical form, with members in order.
func checkCanonical(t interface{ Fatalf(string, ...any) }, b []byte) {
	v, err := Parse(b)
	if err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	again, err := v.AppendJSON(nil, 1<<20)
	if err != nil || !bytes.Equal(b, again) {
		t.Fatalf("%s written again is %s, %v", b, again, err)
	}
	var ordered func(v Value) bool
	ordered = func(v Value) bool {
		return v.node == nil || slices.IsSorted(v.node.names) && !slices.ContainsFunc(v.node.values, func(e Value) bool { return !ordered(e) })
	}
	if !ordered(v) {
		t.Fatalf("%s has members out of order", b)
	}
}

func TestMerge_TooLarge(t *testing.T) {
	inner := MapOf([]string{"a", "b"}, []Value{{}, {}})
	for range 30 { // two to the thirtieth members in a few nodes
		inner = MapOf([]string{"a", "b"}, []Value{inner, inner})
	}
	if _, _, err := Merge(MapOf(nil, nil), inner); err == nil {
		t.Fatal("no error")
	}
	if _, err := inner.AppendJSON(nil, 1000); err == nil || !strings.Contains(err.Error(), "larger than 1000 bytes") {
		t.Fatal(err)
	}
}

func TestParse_Refuses(t *testing.T) {
	for _, text := range []string{
		``, ` `, `{`, `[`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":1,}`, `[1,]`, `[1 2]`, `{"a" 1}`, `{a:1}`, `{"a":1,"b":2,"a":3}`,
		`01`, `-`, `1.`, `.5`, `1e`, `1e+`, `+1`, `NaN`, `nul`, `truex`, `1 2`, `"`, `"\`, `"\x"`, `"\u12"`, `"\u123g"`, `"\ud800"`, `"\udc00\ud800"`,
		`"\ud800\u0041"`, "\"\n\"", "\"\xff\"", "\"\\n\xff\"", "\"\xed\xa0\x80\"", "\ufeff1", strings.Repeat("[", 129) + strings.Repeat("]", 129),
	} {
		if v, err := Parse([]byte(text)); err == nil {
			t.Errorf("%q is read as %v", text, v)
		}
	}
	deep := strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth)
	v, err := Parse([]byte(deep))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := v.AppendJSON(nil, 1000); err != nil || string(b) != deep {
		t.Fatal(string(b), err)
	}
	if _, err := ListOf(v).AppendJSON(nil, 1000); err == nil {
		t.Error("a value that nests deeper than can be read is written")
	}
}

func TestAppendJSON_Limit(t *testing.T) {
	for _, v := range []Value{TextOf("abc"), ListOf(NumberOf(1), NumberOf(2))} {
		if b, err := v.AppendJSON([]byte("x"), 5); err != nil || len(b) != 6 {
			t.Errorf("%s, %v", b, err)
		}
		if b, err := v.AppendJSON([]byte("x"), 4); err == nil || string(b) != "x" {
			t.Errorf("%s, %v", b, err)
		}
	}
}

// FuzzParse compares with encoding/json, which takes more: doubled names, text
// that is not UTF-8, half surrogates.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{`{"a":[1,-2.5e3,"x\n\u00e9",true,false,null],"b":{}}`, ` [ ] `, `"\ud83d\ude00"`, `{"a":1,"a":2}`, `-0.0`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := Parse(b)
		if err != nil {
			if json.Valid(b) && utf8.Valid(b) && !bytes.Contains(b, []byte(`\u`)) && !doubled(b) && bytes.Count(b, []byte("["))+bytes.Count(b, []byte("{")) <= MaxDepth {
				t.Fatalf("%q: %v", b, err)
			}
			return
		}
		if !json.Valid(b) {
			t.Fatalf("%q is read, but is not JSON", b)
		}
		out, err := v.AppendJSON(nil, 8*len(b)+8)
		if err != nil {
			t.Fatal(err)
		}
		checkCanonical(t, out)
		if !reflect.DeepEqual(plain(t, b), plain(t, out)) {
			t.Fatalf("%q became %q", b, out)
		}
	})
}

// doubled reports whether an object of b may name a member twice.
func doubled(b []byte) bool {
	d := json.NewDecoder(bytes.NewReader(b))
	var v any
	_ = d.Decode(&v)
	var members func(v any) int
	members = func(v any) (n int) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				n += members(e)
			}
		case map[string]any:
			for _, e := range v {
				n += 1 + members(e)
			}
		}
		return n
	}
	return bytes.Count(b, []byte(":")) > members(v)
}

// TestNumbers_Exact compares sums, differences and products with arithmetic of
// any size: a whole result is right or refused.
func TestNumbers_Exact(t *testing.T) {
	near := rapid.OneOf(rapid.Int64Range(-1<<53, 1<<53), rapid.Int64Range(1<<53-4, 1<<53), rapid.Int64Range(-100, 100), rapid.Int64Range(94906260, 94906270))
	limit := big.NewInt(maxInteger)
	rapid.Check(t, func(t *rapid.T) {
		x, y := near.Draw(t, "x"), near.Draw(t, "y")
		for sign, op := range map[string]struct {
			got  func(x, y float64) (float64, error)
			want func(z, x, y *big.Int) *big.Int
		}{"+": {plus, (*big.Int).Add}, "-": {minus, (*big.Int).Sub}, "*": {multiply, (*big.Int).Mul}} {
			want := op.want(new(big.Int), big.NewInt(x), big.NewInt(y))
			got, err := op.got(float64(x), float64(y))
			if fits := want.CmpAbs(limit) <= 0; fits != (err == nil) || fits && int64(got) != want.Int64() {
				t.Fatalf("%d %s %d = %v, %v; want %s", x, sign, y, got, err, want)
			}
		}
	})
}

func TestAppendNumber_ReadsBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.Float64().Filter(func(f float64) bool { return !math.IsInf(f, 0) && !math.IsNaN(f) }).Draw(t, "number") + 0
		b := appendNumber(nil, f)
		v, err := Parse(b)
		if err != nil {
			t.Fatalf("%v is written as %s: %v", f, b, err)
		}
		if back, err := v.number(); err != nil || back != f {
			t.Fatalf("%v is written as %s, read as %v, %v", f, b, back, err)
		}
	})
}
