package schema

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// document compiles a schema that must be a good one.
func compiled(t testing.TB, source string) *document {
	t.Helper()
	d, err := compile([]byte(source))
	if err != nil {
		t.Fatalf("%s: %v", source, err)
	}
	return d
}

func TestCompile_Refuses(t *testing.T) {
	chain := func(last string) string { // each of the definitions applies the next one twice
		defs := []string{`"d40":` + last}
		for i := range 40 {
			defs = append(defs, fmt.Sprintf(`"d%d":{"allOf":[{"$ref":"#/$defs/d%d"},{"$ref":"#/$defs/d%d"}]}`, i, i+1, i+1))
		}
		return `{"$ref":"#/$defs/d0","$defs":{` + strings.Join(defs, ",") + `}}`
	}
	for _, c := range []struct{ name, source, path, message string }{
		{"unknown type", `{"type":"strng"}`, "schema/type", "value must be one of"},
		{"in a property", `{"properties":{"a":{"minimum":"3"}}}`, "schema/properties/a/minimum", "got string, want number"},
		{"regular expression", `{"pattern":"a("}`, "schema/pattern", "not valid regex"},
		{"look-ahead", `{"pattern":"^(?=a)"}`, "schema/pattern", "not valid regex"},
		{"older draft", `{"$schema":"http://json-schema.org/draft-07/schema#"}`, "schema.$schema", "must be https://json-schema.org/draft/2020-12/schema"},
		{"older draft within", `{"properties":{"a":{"$id":"x","$schema":"http://json-schema.org/draft-07/schema#"}}}`, "schema", "another draft"},
		{"remote", `{"$ref":"https://example.com/x.json"}`, "schema", "refers to https://example.com/x.json, which is outside of itself"},
		{"file", `{"items":{"$ref":"file:///etc/passwd"}}`, "schema", "outside of itself"},
		{"dangling", `{"$ref":"#/$defs/none"}`, "schema", "#/$defs/none"},
		{"dynamic", `{"$dynamicAnchor":"n","properties":{"a":{"$dynamicRef":"#n"}}}`, "schema", "$dynamicRef"},
		{"endless", `{"allOf":[{"$ref":"#"}]}`, "schema", "without end"},
		{"endless over two", `{"anyOf":[{"$ref":"#/$defs/a"}],"$defs":{"a":{"not":{"$ref":"#"}}}}`, "schema", "without end"},
		{"endless below", `{"properties":{"a":{"$ref":"#/$defs/a"}},"$defs":{"a":{"if":{"$ref":"#/$defs/a"}}}}`, "schema", "without end"},
		{"doubled forty times", chain(`{"type":"string"}`), "schema", "too often"},
		{"huge number", `{"maximum":1e999999999}`, "schema", "1e999999999"},
		{"long number", `{"maximum":1` + strings.Repeat("0", 2000) + `}`, "schema", "longer or larger"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := compile([]byte(c.source))
			e, ok := err.(*Error)
			if !ok {
				t.Fatalf("got %v, want an *Error", err)
			}
			if e.Path != c.path || !strings.Contains(e.Message, c.message) {
				t.Errorf("got %q, %q; want %q, %q", e.Path, e.Message, c.path, c.message)
			}
		})
	}
}

// A file that is there is not read either.
func TestCompile_LoadsNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.json")
	if err := os.WriteFile(file, []byte(`{"type":"string"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := compile([]byte(`{"$ref":"file://` + file + `"}`)); err == nil || !strings.Contains(err.Error(), "outside of itself") {
		t.Errorf("got %v", err)
	}
}

func TestDocument_Validate(t *testing.T) {
	order := compiled(t, `{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","required":["total","lines"],
		"properties":{"total":{"type":"number","minimum":0},"email":{"format":"email"},"lines":{"type":"array","items":{"$ref":"#/$defs/line"}}},
		"$defs":{"line":{"type":"object","required":["sku"],"properties":{"sku":{"type":"string"}},"additionalProperties":false}}}`)
	for _, c := range []struct{ data, want string }{
		{`{"total":1,"lines":[]}`, ""},
		{`{"total":1.5e300,"lines":[{"sku":"a"}],"more":[null]}`, ""},
		{`{"total":1,"lines":[],"email":"not one"}`, ""}, // formats are not asserted
		{`[]`, ": got array, want object"},
		{`{"lines":1}`, ": missing property 'total'; /lines: got number, want array"},
		{`{"total":-1,"lines":[{"sku":"a"},{"sku":1,"b":2,"a":1}]}`,
			"/lines/1: additional properties 'a', 'b' not allowed; /lines/1/sku: got number, want string; /total: minimum: got -1, want 0"},
		{`{"total":1e999999999,"lines":[]}`, "/total: the number 1e999999999 is longer or larger than a schema can be applied to"},
		{`{"total":`, ": is not JSON: unexpected EOF"},
		{strings.Repeat("[", 200), ": body: nests deeper than 128"},
	} {
		var got []string
		for _, e := range order.validate([]byte(c.data)) {
			got = append(got, e.Path+": "+e.Message)
		}
		if all := strings.Join(got, "; "); all != c.want {
			t.Errorf("%s:\n got %q\nwant %q", c.data, all, c.want)
		}
	}
}

func TestDocument_ViolationsAreFew(t *testing.T) {
	d := compiled(t, `{"items":{"type":"string"}}`)
	found := d.validate([]byte("[" + strings.Repeat("1,", 5000) + `1]`))
	if len(found) != maxViolations || found[0].Path != "/0" || found[2].Path != "/10" || found[3].Path != "/100" {
		t.Errorf("%d violations, want %d: %v", len(found), maxViolations, found)
	}
	long := compiled(t, `{"items":{"enum":["`+strings.Repeat("é", 2000)+`"]}}`)
	if found := long.validate([]byte(`[1]`)); len(found) != 1 || len(found[0].Message) > 300 {
		t.Errorf("got %v", found)
	}
}

// A schema of trees that applies two others to the same value costs twice as
// much with every level. It is good for data that is not deep, and refuses the
// rest at once.
func TestDocument_DoublingSchema(t *testing.T) {
	d := compiled(t, `{"anyOf":[{"properties":{"op":{"const":"add"},"left":{"$ref":"#"}}},{"properties":{"op":{"const":"sub"},"left":{"$ref":"#"}}}]}`)
	nested := func(depth int) []byte {
		return []byte(strings.Repeat(`{"op":"sub","left":`, depth) + `{}` + strings.Repeat(`}`, depth))
	}
	if found := d.validate(nested(6)); found != nil {
		t.Errorf("six levels: %v", found)
	}
	if found := d.validate(nested(100)); len(found) != 1 || !strings.Contains(found[0].Message, "too much for this schema") {
		t.Errorf("a hundred levels: %v", found)
	}
	tree := compiled(t, `{"type":"object","properties":{"children":{"items":{"$ref":"#"}}}}`)
	deep := []byte(strings.Repeat(`{"children":[`, 60) + strings.Repeat(`]}`, 60))
	if found := tree.validate(deep); found != nil {
		t.Errorf("a plain tree: %v", found)
	}
	if tree.cost[128] > 300 {
		t.Errorf("a plain tree costs %v", tree.cost[128])
	}
}

func TestCountable(t *testing.T) {
	for number, want := range map[string]bool{
		"0": true, "-1.5": true, "1e1000": true, "1E-1000": true, "1e+7": true, "1e1001": false, "1e-1001": false,
		"1e99999999999999999999": false, strings.Repeat("9", maxDigits): true, strings.Repeat("9", maxDigits+1): false,
	} {
		if got := countable(number); got != want {
			t.Errorf("%.30s: %v, want %v", number, got, want)
		}
	}
}
