package httpapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// document is the OpenAPI document, decoded.
type document map[string]any

func openDocument(t *testing.T) document {
	t.Helper()
	var d document
	dec := json.NewDecoder(bytes.NewReader(openAPIDocument))
	dec.UseNumber()
	if err := dec.Decode(&d); err != nil {
		t.Fatal(err)
	}
	return d
}

// at follows names, and references on the way.
func (d document) at(from any, path ...string) any {
	from = d.resolve(from)
	for _, name := range path {
		m, ok := from.(map[string]any)
		if !ok {
			return nil
		}
		from = d.resolve(m[name])
	}
	return from
}

func (d document) resolve(v any) any {
	m, ok := v.(map[string]any)
	if !ok {
		return v
	}
	if ref, ok := m["$ref"].(string); ok {
		found := d.at(map[string]any(d), strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
		if found == nil {
			panic("dangling reference " + ref)
		}
		return found
	}
	return v
}

// validate reports how v breaks a schema. It knows the words that the document
// uses, and reports any other.
func (d document) validate(schema, v any, at string) error {
	s, ok := d.resolve(schema).(map[string]any)
	if !ok {
		return fmt.Errorf("%s: no schema", at)
	}
	for word, arg := range s {
		if err := d.word(s, word, arg, v, at); err != nil {
			return err
		}
	}
	return nil
}

func (d document) word(s map[string]any, word string, arg, v any, at string) error {
	switch word {
	case "description", "default", "examples", "format", "contentEncoding", "uniqueItems":
	case "type":
		if !isOfType(arg.(string), v) {
			return fmt.Errorf("%s: %v is no %s", at, v, arg)
		}
	case "enum":
		if !slices.ContainsFunc(arg.([]any), func(e any) bool { return fmt.Sprint(e) == fmt.Sprint(v) }) {
			return fmt.Errorf("%s: %v is not one of %v", at, v, arg)
		}
	case "pattern":
		if !regexp.MustCompile(arg.(string)).MatchString(v.(string)) {
			return fmt.Errorf("%s: %v does not match %v", at, v, arg)
		}
	case "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems":
		return bound(word, arg, v, at)
	case "required":
		for _, name := range arg.([]any) {
			if _, ok := v.(map[string]any)[name.(string)]; !ok {
				return fmt.Errorf("%s: lacks %v", at, name)
			}
		}
	case "properties", "additionalProperties":
		if word == "properties" {
			return d.members(s, v, at)
		}
	case "items":
		for i, e := range v.([]any) {
			if err := d.validate(arg, e, fmt.Sprintf("%s[%d]", at, i)); err != nil {
				return err
			}
		}
	case "oneOf":
		var errs []string
		for _, one := range arg.([]any) {
			if err := d.validate(one, v, at); err != nil {
				errs = append(errs, err.Error())
			}
		}
		if len(errs) != len(arg.([]any))-1 {
			return fmt.Errorf("%s: %d of %d forms fit: %v", at, len(arg.([]any))-len(errs), len(arg.([]any)), errs)
		}
	default:
		return fmt.Errorf("%s: schema has the word %q, which this test does not know", at, word)
	}
	return nil
}

func (d document) members(s map[string]any, v any, at string) error {
	properties := s["properties"].(map[string]any)
	for name, member := range v.(map[string]any) {
		schema, ok := properties[name]
		if !ok {
			if s["additionalProperties"] == false {
				return fmt.Errorf("%s: has %q, which is not described", at, name)
			}
			continue
		}
		if err := d.validate(schema, member, at+"."+name); err != nil {
			return err
		}
	}
	return nil
}

func isOfType(name string, v any) bool {
	switch v := v.(type) {
	case json.Number:
		_, err := v.Int64()
		return name == "number" || name == "integer" && err == nil
	case string:
		return name == "string"
	case bool:
		return name == "boolean"
	case []any:
		return name == "array"
	case map[string]any:
		return name == "object"
	}
	return false
}

func bound(word string, arg, v any, at string) error {
	limit, _ := arg.(json.Number).Int64()
	size := int64(0)
	switch v := v.(type) {
	case json.Number:
		size, _ = v.Int64()
	case string:
		size = int64(len(v))
	case []any:
		size = int64(len(v))
	}
	if strings.HasPrefix(word, "min") && size < limit || strings.HasPrefix(word, "max") && size > limit {
		return fmt.Errorf("%s: %d breaks %s %d", at, size, word, limit)
	}
	return nil
}

func TestOpenAPI_RoutesAgree(t *testing.T) {
	d := openDocument(t)
	paths := d["paths"].(map[string]any)
	for _, r := range routes {
		for _, m := range r.methods {
			if d.at(paths, r.path, strings.ToLower(m.name), "operationId") == nil {
				t.Errorf("%s %s is not described", m.name, r.path)
			}
		}
	}
	seen := map[string]bool{}
	for path, item := range paths {
		for verb, op := range item.(map[string]any) {
			if verb == "parameters" {
				continue
			}
			id := op.(map[string]any)["operationId"].(string)
			if seen[id] {
				t.Errorf("%s is there twice", id)
			}
			seen[id] = true
			if !slices.ContainsFunc(routes, func(r route) bool {
				return r.path == path && slices.ContainsFunc(r.methods, func(m method) bool { return strings.EqualFold(m.name, verb) })
			}) {
				t.Errorf("%s %s is described, but there is no such route", verb, path)
			}
		}
	}
	codes := d.at(map[string]any(d), "components", "schemas", "Problem", "properties", "type", "enum").([]any)
	for code := range problems {
		if !slices.Contains(codes, any("urn:cairn:error:"+string(code))) {
			t.Errorf("the code %s is not described", code)
		}
	}
	if len(codes) != len(problems) {
		t.Errorf("%d codes are described, there are %d", len(codes), len(problems))
	}
}

// concrete fills in the variables of a path.
func concrete(path string) string {
	return strings.NewReplacer("{stream}", "b", "{position}", "2", "{version}", "1", "{id}", "node-2", "{name}", fakeFile, "{key}", "a-1", "{type}", "T", "{number}", "1").Replace(path)
}

// A route takes the query parameters that are described, and no others.
func TestOpenAPI_ParametersAgree(t *testing.T) {
	d := openDocument(t)
	ts := serve(t, filled(20))
	all := map[string]bool{}
	documented := map[string][]string{}
	for path, item := range d["paths"].(map[string]any) {
		for method := range item.(map[string]any) {
			list, _ := d.at(item, method, "parameters").([]any)
			key := strings.ToUpper(method) + " " + path
			documented[key] = []string{}
			for _, p := range list {
				if d.at(p, "in") == "query" {
					documented[key] = append(documented[key], d.at(p, "name").(string))
					all[d.at(p, "name").(string)] = true
				}
			}
		}
	}
	free := []string{"GET /healthz", "HEAD /healthz", "GET /readyz", "HEAD /readyz", "GET /metrics"} // probes may carry anything
	for _, r := range routes {
		for _, m := range r.methods {
			key := m.name + " " + r.path
			if slices.Contains(free, key) || m.name == "HEAD" {
				continue
			}
			for name := range all {
				headers := []string{isJSON}
				if key == "POST /v1/append" {
					headers = []string{isLines}
				}
				a := ts.do(m.name, concrete(r.path)+"?"+name+"=%00", "", headers...)
				refused := strings.Contains(a.body, "is not a parameter of this route")
				if known := slices.Contains(documented[key], name); known == refused {
					t.Errorf("%s: %s is described: %v, refused: %v (%s)", key, name, known, refused, a.body)
				}
			}
		}
	}
}

// fits reports how an answer is not as it is described for an operation.
func (d document) fits(method, path string, a answer) error {
	responses := d.at(d["paths"], path, strings.ToLower(method), "responses")
	response := d.at(responses, fmt.Sprint(a.status))
	if response == nil && a.status < 400 {
		return fmt.Errorf("status %d is not described", a.status)
	}
	if response == nil {
		response = d.at(responses, "default")
	}
	if described, _ := d.at(response, "headers").(map[string]any); a.status < 300 {
		for name := range described {
			if name != "ETag" && name != "Location" && name != "Link" && a.header.Get(name) == "" {
				return fmt.Errorf("lacks the header %s", name)
			}
		}
	}
	media, _, _ := strings.Cut(a.header.Get("Content-Type"), ";")
	if method == "HEAD" || a.status == 204 || media == "text/plain" || d.at(response, "content", "application/octet-stream") != nil {
		return nil
	}
	schema := d.at(response, "content", media, "schema")
	if schema == nil {
		return fmt.Errorf("status %d of type %q is not described", a.status, media)
	}
	values := []string{a.body}
	if media == "application/x-ndjson" {
		values = strings.Split(strings.TrimSpace(a.body), "\n")
	}
	for _, value := range values {
		var v any
		dec := json.NewDecoder(strings.NewReader(value))
		dec.UseNumber()
		if err := dec.Decode(&v); err != nil {
			return fmt.Errorf("%w: %s", err, value)
		}
		if err := d.validate(schema, v, "answer"); err != nil {
			return fmt.Errorf("%w in %s", err, value)
		}
	}
	return nil
}

// What the running server answers fits the schema that is described for it.
func TestOpenAPI_AnswersFit(t *testing.T) {
	d := openDocument(t)
	ts := serve(t, filled(60), func(o *Options) {
		o.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Type", "text/plain; version=1") })
	})
	seen := map[string]bool{}
	check := func(method, path, target, body string, headers ...string) {
		t.Helper()
		seen[method+" "+path] = true
		if err := d.fits(method, path, ts.do(method, target, body, headers...)); err != nil {
			t.Errorf("%s %s: %v", method, target, err)
		}
	}
	stream, many := "/v1/streams/{stream}/events", "/v1/append"
	full := `{"type":"T","data":{"a":1},"id":"x","tags":["t"],"correlation_id":"c","causation_id":"d","compensates":"e","meta":{"m":1},"schema":1}`
	check("POST", stream, "/v1/streams/new/events", full, isJSON)
	check("POST", stream, "/v1/streams/new/events", full, isJSON)
	check("POST", stream, "/v1/streams/new/events", `{"type":"U","id":"x"}`, isJSON)
	check("POST", stream, "/v1/streams/new/events", `{"type":"T","content_type":"image/png","data_base64":"AAEC"}`, isJSON)
	check("POST", stream, "/v1/streams/new/events", `{"type":"T"}`, isJSON, `If-Match: "9"`)
	check("POST", stream, "/v1/streams/new/events", `{`, isJSON)
	check("POST", many, "/v1/append", one("a"), isJSON)
	check("POST", many, "/v1/append", `{"events":[{"stream":"y","type":"T"},{"stream":"z","type":"T"}]}`, isJSON)
	check("POST", many, "/v1/append", `{"events":[{"stream":"y","type":"T"}],"conditions":[{"query":{}}]}`, isJSON)
	check("POST", many, "/v1/append?on_error=continue", one("a")+"\n"+"x\n"+`{"events":[{"stream":"y","type":"T","id":"k"}]}`+"\n"+`{"events":[{"stream":"y","type":"T","id":"k"}]}`, isLines)
	check("GET", stream, "/v1/streams/new/events", "")
	check("GET", stream, "/v1/streams/new/events?limit=1", "")
	check("GET", stream, "/v1/streams/new/events", "", "Accept: application/x-ndjson")
	check("POST", stream, "/v1/streams/ce/events", ce("1", `,"ext":5,"data":{"a":1}`), isCloudEvent)
	check("POST", stream, "/v1/streams/ce/events", `[`+ce("2", ``)+`]`, isBatch)
	check("POST", stream, "/v1/streams/ce/events", "x", "ce-specversion: 1.0", "ce-id: 3", "ce-source: /s", "ce-type: T", "Content-Type: text/plain")
	check("GET", stream, "/v1/streams/ce/events?limit=2", "", asksBatch)
	check("GET", "/v1/events", "/v1/events", "", asksBatch)
	check("POST", "/v1/query", "/v1/query", `{"query":{"items":[{"types":["OrderPlaced"]}]}}`, isJSON, asksBatch)
	check("GET", "/v1/events/{position}", "/v1/events/2", "", asksOne)
	check("GET", "/v1/streams/{stream}/events/{version}", "/v1/streams/ce/events/1", "", asksOne)
	check("GET", stream, "/v1/streams/none/events", "")
	check("GET", "/v1/events", "/v1/events", "")
	check("GET", "/v1/events", "/v1/events?limit=3", "")
	check("GET", "/v1/events", "/v1/events?limit=3&order=desc", "")
	check("GET", "/v1/events", "/v1/events?after=1@other", "")
	check("GET", "/v1/events/{position}", "/v1/events/2", "")
	check("GET", "/v1/streams/{stream}/events/{version}", "/v1/streams/b/events/1", "")
	check("HEAD", "/v1/streams/{stream}", "/v1/streams/b", "")
	check("POST", "/v1/query", "/v1/query", `{"query":{"items":[{"types":["T1"]}]},"limit":2}`, isJSON)
	check("GET", "/v1/streams", "/v1/streams?limit=2", "")
	checkProjections(check)
	checkTypes(check)
	check("GET", "/v1/cluster", "/v1/cluster", "")
	check("POST", "/v1/cluster/transfer", "/v1/cluster/transfer", "", isJSON)
	check("DELETE", "/v1/cluster/members/{id}", "/v1/cluster/members/node-2", "")
	files, state := "/v1/segments/{name}", "/v1/snapshots/{id}/state/{name}"
	ts.store.set(func() { ts.store.file = []byte("0123456789") })
	check("GET", "/v1/segments", "/v1/segments", "")
	for path, target := range map[string]string{files: "/v1/segments/" + fakeFile, state: "/v1/snapshots/snap/state/" + fakeFile} {
		check("HEAD", path, target, "")
		check("HEAD", path, target+"x", "")
		check("GET", path, target, "")
		check("GET", path, target+"x", "")
		check("GET", path, target, "", "Range: bytes=2-3")
		check("GET", path, target, "", "Range: bytes=99-")
	}
	check("POST", "/v1/snapshots", "/v1/snapshots", "", isJSON)
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/v1/openapi.json"} {
		check("GET", path, path, "")
	}
	check("HEAD", "/healthz", "/healthz", "")
	check("HEAD", "/readyz", "/readyz", "")
	for _, r := range routes {
		for _, m := range r.methods {
			if !seen[m.name+" "+r.path] {
				t.Errorf("%s %s was not tried", m.name, r.path)
			}
		}
	}
	ts.store.set(func() { ts.store.readErr = damagedError{} })
	check("GET", "/v1/events/{position}", "/v1/events/2", "")
	ts.store.set(func() { ts.store.indexed = errFakeNoLeader })
	check("GET", "/v1/events", "/v1/events", "")
}
