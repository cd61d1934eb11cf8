package schema

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestPatterns_Limits(t *testing.T) {
	many := func(n int, pattern string) string {
		all := make([]string, n)
		for i := range all {
			all[i] = fmt.Sprintf(`"p%d":{"pattern":"%s%d"}`, i, pattern, i)
		}
		return `{"properties":{` + strings.Join(all, ",") + `}}`
	}
	for _, c := range []struct{ name, source, want string }{
		{"many", many(maxPatterns, "^a+"), ""},
		{"too many", many(maxPatterns+1, "^a+"), "schema: has more than 64 different patterns"},
		{"the same again", strings.ReplaceAll(many(200, "^a+"), `"`+`pattern":"^a+`, `"title":"x","pattern":"^a+$","$comment":"`), ""},
		{"complex", many(5, "a{999}"), ""},
		{"too complex", many(12, "a{999}"), "schema: has patterns that are too complex together: their bytes times the copies that their repeats make are over 65536"},
		{"long", `{"pattern":"` + strings.Repeat("a", 512) + `"}`, ""},
		{"too long", `{"pattern":"` + strings.Repeat("a", 513) + `"}`, "the pattern has 513 bytes, the most is 512"},
		{"bad ones", `{"patternProperties":{"(?i)é":true,"\\pL":true},"pattern":"(?i)É"}`, `schema: has the pattern "(?i)É": a pattern ignores case`},
		{"too many names", strings.ReplaceAll(many(maxPatterns+1, "^a+"), `"properties":{"`, `"patternProperties":{"x`), "more than 64"},
		{"names", `{"patternProperties":{"a{1000}":{"patternProperties":{"[0-9a-f]{900}x{9}":true,"y{900}[0-9]{900}":true,"z{900}[0-9]{900}":true,"w{900}[0-9]{900}":true,"v{900}[0-9]{900}":true}}}}`, "too complex"},
		{"cases", `{"patternProperties":{"(?i)é":true}}`, "ignores case"},
		{"a class of Unicode", `{"pattern":"^\\p{L}$"}`, `no \p classes`},
	} {
		_, err := compile([]byte(c.source))
		got := ""
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, c.want) || (got == "") != (c.want == "") {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

// What patterns may cost is known before any is matched: by the text that they
// are for, not by all there is.
func TestPatterns_Matching(t *testing.T) {
	const mail = `"^[^@]{1,64}@[^@]{1,255}$"`
	address := strings.Repeat("a", 20) + "@example.com"
	for _, c := range []struct {
		name, schema, data string
		refused            bool
	}{
		{"a few addresses", `{"items":{"pattern":` + mail + `}}`, `["` + strings.Repeat(address+`","`, 99) + address + `"]`, false},
		{"text beside them", `{"properties":{"mail":{"pattern":` + mail + `},"text":{"type":"string"}}}`, `{"mail":"` + address + `","text":"` + strings.Repeat("x", 500_000) + `"}`, false},
		{"a long one", `{"pattern":` + mail + `}`, `"` + strings.Repeat("a", 100_000) + `@x"`, true},
		{"by reference", `{"$defs":{"m":{"pattern":` + mail + `}},"properties":{"l":{"items":{"anyOf":[{"$ref":"#/$defs/m"}]}}}}`, `{"l":["` + strings.Repeat("a", 100_000) + `@x"]}`, true},
		{"long names", `{"patternProperties":{` + mail + `:true}}`, `{"` + strings.Repeat("a", 100_000) + `@x":1}`, true},
		{"names of names", `{"propertyNames":{"pattern":` + mail + `}}`, `{"` + strings.Repeat("a", 100_000) + `@x":1}`, true},
		{"members of patterns", `{"patternProperties":{"^x":{"pattern":` + mail + `}}}`, `{"x":"` + strings.Repeat("a", 100_000) + `@x"}`, true},
		{"the others", `{"additionalProperties":{"pattern":` + mail + `}}`, `{"x":"` + strings.Repeat("a", 100_000) + `@x"}`, true},
		{"elements by place", `{"prefixItems":[true,{"pattern":` + mail + `}]}`, `["",` + `"` + strings.Repeat("a", 100_000) + `@x"]`, true},
		{"at another place", `{"prefixItems":[true,{"pattern":` + mail + `}]}`, `[` + `"` + strings.Repeat("a", 100_000) + `@x","a@x"]`, false},
		{"short and simple", `{"items":{"pattern":"^[a-z]+$"}}`, `["` + strings.Repeat(`abcdefgh","`, 50_000) + `a"]`, false},
	} {
		d := compiled(t, c.schema)
		start := time.Now()
		found := d.validate([]byte(c.data))
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("%s took %v", c.name, took)
		}
		got := ""
		if len(found) > 0 {
			got = found[0].Message
		}
		if refused := got == "has too much text for the patterns of this schema"; refused != c.refused || got != "" && !refused {
			t.Errorf("%s: %q, refused should be %v", c.name, got, c.refused)
		}
	}
}

func TestUpcast_Members(t *testing.T) {
	_, err := compileUpcast("{'at': event.tiem}", compiled(t, `{}`))
	if err == nil || !strings.HasPrefix(err.Error(), `upcast, line 1, column 13: event has no member "tiem"; it has causation_id, `) {
		t.Error(err)
	}
	if _, err := compileUpcast("{'at': event.time, 'more': has(event.meta.x)}", compiled(t, `{}`)); err != nil {
		t.Error(err)
	}
}
