package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"cairn/event"
	"cairn/projection/schema"
)

// routeTypes adds the routes of types. What is registered is an event of
// '$types', as in a cluster.
func (f *fakeNode) routeTypes(routes *http.ServeMux) {
	registry := func() *schema.Registry {
		g := schema.Empty()
		for _, e := range f.events {
			if e.Type == event.TypeSchemaRegistered {
				g = registered(g, e.Data)
			}
		}
		return g
	}
	routes.HandleFunc("PUT /v1/types/{type}/schemas/{number}", func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		body, _ := io.ReadAll(r.Body)
		number, _ := strconv.Atoi(r.PathValue("number"))
		parsed, err := schema.Parse(r.PathValue("type"), uint32(number), body)
		if err == nil {
			_, err = registry().With(parsed)
		}
		switch err := err.(type) {
		case nil:
			data, _ := json.Marshal(event.SchemaRegistered{Type: parsed.Type, Number: parsed.Number, Body: parsed.Canonical()})
			f.addLocked(event.Event{Stream: event.StreamTypes, Type: event.TypeSchemaRegistered, ID: string(data), Data: data})
			w.WriteHeader(201)
			fmt.Fprintf(w, `{"type":%q,"number":%d,"created":true}`, parsed.Type, parsed.Number)
		case *schema.NumberError:
			fail(w, 409, "schema-conflict", err.Error(), `,"newest":`+strconv.Itoa(int(err.Newest)))
		case *schema.Error:
			fail(w, 422, "bad-definition", err.Error(), "")
		}
	})
	routes.HandleFunc("GET /v1/types/{type}/schemas/{number}", func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		number, _ := strconv.Atoi(r.PathValue("number"))
		if found := registry().Registration(r.PathValue("type"), uint32(number)); found != nil {
			_, _ = w.Write(found.Canonical())
			return
		}
		fail(w, 404, "not-found", "no such schema", "")
	})
	routes.HandleFunc("GET /v1/types", func(w http.ResponseWriter, _ *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		var list []string
		g := registry()
		for _, typ := range g.Types() {
			renamed, _ := g.Renamed(typ)
			item := `{"type":"` + typ + `","newest":` + strconv.Itoa(int(g.Newest(typ)))
			if renamed != "" {
				item += `,"renamed":"` + renamed + `"`
			}
			list = append(list, item+"}")
		}
		_, _ = io.WriteString(w, `{"types":[`+strings.Join(list, ",")+`]}`)
	})
}

func registered(g *schema.Registry, data []byte) *schema.Registry {
	var form event.SchemaRegistered
	err := json.Unmarshal(data, &form)
	if err == nil {
		var r *schema.Registration
		if r, err = schema.Parse(form.Type, form.Number, form.Body); err == nil {
			g, err = g.With(r)
		}
	}
	if err != nil {
		panic(err)
	}
	return g
}

const (
	itemFile1 = `{"schema":{"type":"object","required":["sku","amount"]}}`
	itemFile2 = `
schema:
  type: object
  required: [sku, price]
  properties:
    price: {required: [amount, currency], properties: {amount: {type: number}}}
upcast: |
  {'sku': data.sku, 'price': {'amount': data.amount, 'currency': 'EUR'}}
examples:
- old: {sku: a, amount: 3}
  new: {sku: a, price: {amount: 3, currency: EUR}}
`
	itemFile3 = `
schema: {required: [count]}
renamed: ItemPut
upcast: "{'sku': data.sku, 'count': data.count}"
examples:
- {old: {sku: a, price: {amount: 1, currency: EUR}, count: 2}, new: {sku: a, count: 2}}
`
)

// files writes files into a folder that is gone after the test.
func files(t *testing.T, contents ...string) (names []string) {
	t.Helper()
	for i, content := range contents {
		name := filepath.Join(t.TempDir(), "item-"+strconv.Itoa(i+1))
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	return names
}

func TestSchema_PutListGet(t *testing.T) {
	f := newFakeNode(t)
	file := files(t, itemFile1, itemFile2, itemFile3)
	if code, _, errs := f.run(t, "", "schema", "get", "ItemAdded"); code != 1 || !strings.Contains(errs, `type "ItemAdded" has no schema`) {
		t.Errorf("get of none: %d, %s", code, errs)
	}
	if got := f.ok(t, "", "schema", "put", "ItemAdded", "1", "-f", file[0], "-o", "text"); got != "schema 1 of ItemAdded is registered\n" {
		t.Errorf("put: %q", got)
	}
	if got := f.ok(t, itemFile2, "schema", "put", "ItemAdded", "2", "-f", "-"); got != `{"type":"ItemAdded","number":2,"changed":true}`+"\n" {
		t.Errorf("put of stdin: %q", got)
	}
	if got := f.ok(t, "", "schema", "get", "ItemAdded", "1"); got != `{"schema":{"required":["sku","amount"],"type":"object"}}`+"\n" {
		t.Errorf("get: %q", got)
	}
	if got := f.ok(t, "", "schema", "get", "ItemAdded", "-o", "text"); !strings.HasPrefix(got, "{\n  \"schema\": {") || !strings.Contains(got, "EUR") {
		t.Errorf("get for people: %s", got)
	}
	f.ok(t, "", "schema", "put", "ItemAdded", "3", "-f", file[2])
	if got := f.ok(t, "", "schema", "list"); got != `{"type":"ItemAdded","newest":3,"schemas":[],"renamed":"ItemPut"}`+"\n" {
		t.Errorf("list: %q", got)
	}
	if got := f.ok(t, "", "schema", "list", "-o", "text"); !strings.Contains(got, "ItemAdded       3  ItemPut") {
		t.Errorf("list for people: %s", got)
	}
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"a taken number", []string{"put", "ItemAdded", "1", "-f", file[1]}, 1, "was renamed to ItemPut by its schema 3, its last"},
		{"a bad upcast", []string{"put", "T", "1", "-f", files(t, `{"schema":{},"upcast":"data.\n a b","examples":[{"old":1,"new":1}]}`)[0]}, 1, "upcast, line 2, column"},
		{"two documents", []string{"put", "T", "1", "-f", files(t, "{}\n{}")[0]}, 1, "must hold one schema, not 2 documents"},
		{"no file", []string{"put", "T", "1"}, 2, "--file"},
		{"no number", []string{"put", "T", "x", "-f", file[0]}, 2, "1 or more"},
		{"unknown number", []string{"get", "ItemAdded", "9"}, 1, "there is no schema 9"},
	} {
		if code, _, errs := f.run(t, "", append([]string{"schema"}, c.args...)...); code != c.code || !strings.Contains(errs, c.want) {
			t.Errorf("%s: exit %d, %s", c.name, code, errs)
		}
	}
}

func TestSchema_Check(t *testing.T) {
	f := newFakeNode(t)
	file := files(t, itemFile1, itemFile2, itemFile3)
	if code, _, errs := f.run(t, "", "schema", "check"); code != 1 || !strings.Contains(errs, "no type has a schema") {
		t.Errorf("without schemas: %d, %s", code, errs)
	}
	f.ok(t, "", "schema", "put", "ItemAdded", "1", "-f", file[0])
	f.add(event.Event{Stream: event.StreamTypes, Type: event.TypeSchemaLive, ID: "live", Data: []byte(`{"type":"ItemAdded","number":1,"built":1}`)})
	for _, data := range []string{`{"sku":"a","amount":1}`, `{"sku":"b","amount":"2"}`, `{"sku":"c","amount":3,"count":1}`} {
		f.add(event.Event{Stream: "cart-1", Type: "ItemAdded", Schema: 1, Data: []byte(data)})
	}
	f.add(event.Event{Stream: "cart-2", Type: "Other", Data: []byte(`1`)})
	if got := f.ok(t, "", "schema", "check", "-o", "text"); got != "3 events looked at, all can be read as the newest schema says\n" {
		t.Errorf("all is well: %q", got)
	}
	if f.query.Get("raw") != "true" {
		t.Error("it looks at events that were upcast")
	}
	// Before it is registered: one event is not what the second schema asks for.
	code, out, errs := f.run(t, "", "schema", "check", "ItemAdded", "-f", file[1])
	want := `{"position":4,"stream":"cart-1","version":2,"type":"ItemAdded","schema":1,"why":"not valid under schema 2 of type ItemAdded: /price/amount: got string, want number"}` + "\n"
	if code != 1 || out != want || !strings.Contains(errs, "1 of 3 events can't be read") {
		t.Errorf("second schema: exit %d, %s, %s", code, out, errs)
	}
	f.ok(t, "", "schema", "put", "ItemAdded", "2", "-f", file[1])
	if code, again, _ := f.run(t, "", "schema", "check", "ItemAdded", "-f", file[1]); code != 1 || again != out {
		t.Errorf("once it is registered: exit %d, %s", code, again)
	}
	// The third renames; events of the old name count for the new one.
	f.ok(t, "", "schema", "put", "ItemAdded", "3", "-f", file[2])
	code, out, errs = f.run(t, "", "schema", "check", "ItemPut", "-f", files(t, `{"schema":{"required":["count"]}}`)[0], "-o", "text")
	if code != 1 || !strings.Contains(out, "upcast of type ItemAdded to schema 3") || !strings.Contains(errs, "3 of 3 events") {
		t.Errorf("third schema: exit %d, %s, %s", code, out, errs)
	}
	code, _, errs = f.run(t, "", "schema", "check", "ItemAdded", "-f", file[1])
	if code != 1 || !strings.Contains(errs, "was renamed to ItemPut by its schema 3") {
		t.Errorf("after a new name: exit %d, %s", code, errs)
	}
}

func TestRaw(t *testing.T) {
	f := newFakeNode(t)
	f.add(event.Event{Stream: "a", Type: "T", ID: "1"}, event.Event{Stream: "a", Type: "T", ID: "2"})
	for _, args := range [][]string{{"read", "a", "--raw"}, {"read", "--all", "--raw"}, {"read", "--position", "2", "--raw"}, {"export"}, {"export", "a"}} {
		f.ok(t, "", args...)
		if f.query.Get("raw") != "true" {
			t.Errorf("%q does not ask for events as they are stored", args)
		}
	}
	f.ok(t, "", "read", "a")
	if f.query.Has("raw") {
		t.Error("read asks for events as they are stored")
	}
}

// The registrations of the documentation can be registered, one after the other.
func TestSchema_Docs(t *testing.T) {
	rest, err := os.ReadFile("../../docs/schemas.md")
	if err != nil {
		t.Fatal(err)
	}
	types := schema.Empty()
	for i, fence := range []string{"```json\n", "```yaml\n"} {
		_, after, begun := bytes.Cut(rest, []byte(fence))
		document, after, ended := bytes.Cut(after, []byte("```"))
		rest = after
		documents, err := splitDocuments(document)
		if !begun || !ended || err != nil || len(documents) != 1 {
			t.Fatalf("document %d: got %d, %v", i+1, len(documents), err)
		}
		r, err := schema.Parse("ItemAdded", uint32(i+1), documents[0])
		if err == nil {
			types, err = types.With(r)
		}
		if err != nil {
			t.Fatalf("document %d: %v", i+1, err)
		}
	}
	if bytes.Contains(rest, []byte("```yaml")) || bytes.Contains(rest, []byte("```json")) {
		t.Error("there are documents that nobody tried")
	}
}
