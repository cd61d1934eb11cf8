package schema

import (
	"bytes"
	"errors"
	"testing"
	"time"
)

// Whatever is registered and appended, Validate answers, and soon.
func FuzzValidate(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"type":"object","required":["a"],"properties":{"a":{"$ref":"#/$defs/b"}},"$defs":{"b":{"minimum":1,"multipleOf":0.01}}}`,
		`{"anyOf":[{"items":{"$ref":"#"}},{"const":1e3},{"enum":["a",null]}],"unevaluatedItems":false,"unevaluatedProperties":{"type":"null"}}`,
		`{"contains":{"pattern":"^a"},"minContains":2,"uniqueItems":true,"propertyNames":{"maxLength":2},"dependentSchemas":{"a":{"not":{}}}}`,
		`{"if":{"prefixItems":[{"type":"integer"}]},"then":{"items":false},"else":{"$ref":"#/$defs/x"},"$defs":{"x":{"patternProperties":{"x":{"$ref":"#/$defs/x"}}}}}`,
		`{"$id":"a","$anchor":"b","items":{"$ref":"#b"},"format":"date","contentMediaType":"application/json"}`,
	} {
		for _, data := range []string{`{"a":1}`, `[1,"a",[1e3,{"a":null}],{}]`, `1e99999`, `"\ud800"`, `{"x":{"x":{}}}`, `-0`, ``} {
			f.Add([]byte(s), []byte(data))
		}
	}
	f.Fuzz(func(t *testing.T, source, data []byte) {
		begin := time.Now()
		r, err := Parse("T", 1, bytes.Join([][]byte{[]byte(`{"schema":`), source, []byte(`}`)}, nil))
		if err != nil {
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		g, err := Empty().With(r)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		err = g.Validate("T", 1, data)
		var v *Violation
		if err != nil && (!errors.As(err, &v) || len(v.Errors) == 0 || len(v.Errors) > maxViolations) {
			t.Fatalf("%T: %v", err, err)
		}
		if again := g.Validate("T", 1, data); (again == nil) != (err == nil) {
			t.Fatalf("first %v, then %v", err, again)
		}
		if took := time.Since(begin); took > 5*time.Second {
			t.Fatalf("took %s", took)
		}
	})
}

// What Parse takes, it takes again in canonical form, and that form stays.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"schema":{"a":[1.0,"\u00e9"]},"upcast":"data","renamed":"U","examples":[{"old":1,"new":{"b":1,"a":2}}]}`))
	f.Add([]byte(`{"schema":{}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := Parse("T", 1, body)
		if err != nil {
			return
		}
		first := r.Canonical()
		again, err := Parse("T", 1, first)
		if err != nil {
			t.Fatalf("%s: %v", first, err)
		}
		if second := again.Canonical(); !bytes.Equal(first, second) {
			t.Fatalf("%s became %s", first, second)
		}
	})
}
