package schema

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"cairn/event"
)

// registered returns the registry of registrations, each "Type number body".
func registered(t testing.TB, registrations ...string) *Registry {
	t.Helper()
	g := Empty()
	for _, text := range registrations {
		r, err := parsed(text)
		if err == nil {
			g, err = g.With(r)
		}
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	return g
}

func parsed(text string) (*Registration, error) {
	var typ string
	var number uint32
	if _, err := fmt.Sscan(text, &typ, &number); err != nil {
		return nil, err
	}
	return Parse(typ, number, []byte(text[strings.IndexByte(text, '{'):]))
}

// A cart item whose shape changed twice: its amount became a price object, and
// then the type got another name.
const (
	item1 = `ItemAdded 1 {"schema":{"type":"object","required":["sku","amount"],"properties":{"sku":{"type":"string"},"amount":{"type":"number"}}}}`
	item2 = `ItemAdded 2 {"schema":{"type":"object","required":["sku","price"],"properties":{"price":{"required":["amount","currency"]}}},
		"upcast":"{'sku': data.sku, 'price': {'amount': data.amount, 'currency': 'EUR'}}",
		"examples":[{"old":{"sku":"a","amount":3},"new":{"sku":"a","price":{"currency":"EUR","amount":3.0}}}]}`
	put1 = `ItemPut 1 {"schema":{"required":["sku","price","count"]}}`
	put2 = `ItemPut 2 {"schema":{"required":["sku","price","count","at"]},
		"upcast":"{'sku': data.sku, 'price': data.price, 'count': data.count, 'at': event.time}",
		"examples":[{"old":{"sku":"a","price":1,"count":1},"new":{"sku":"a","price":1,"count":1,"at":"1970-01-01T00:00:00.000000000Z"}}]}`
	item3 = `ItemAdded 3 {"schema":{"required":["count"]},"renamed":"ItemPut",
		"upcast":"{'sku': data.sku, 'price': data.price, 'count': 1}",
		"examples":[{"old":{"sku":"a","price":{"amount":1,"currency":"EUR"}},"new":{"sku":"a","price":{"amount":1,"currency":"EUR"},"count":1}}]}`
)

func TestWith_Refuses(t *testing.T) {
	base := []string{item1, item2}
	ok := `"examples":[{"old":{"sku":"a","price":{"amount":1,"currency":"EUR"}},"new":1}]`
	for _, c := range []struct {
		name         string
		before       []string
		registration string
		path, want   string
	}{
		{"no schema", nil, `T 1 {}`, "schema", "is missing"},
		{"a schema that is no object", nil, `T 1 {"schema":true}`, "schema", "must be an object"},
		{"unknown member", nil, `T 1 {"schema":{},"upcasts":""}`, "upcasts", "is not a known member"},
		{"number 0", nil, `T 0 {"schema":{}}`, "number", "1 or more"},
		{"large schema", nil, `T 1 {"schema":{"title":"` + strings.Repeat("x", MaxSchema) + `"}}`, "schema", "limit"},
		{"no upcast", base, `ItemAdded 3 {"schema":{}}`, "upcast", "how data of schema 2 becomes data of this one"},
		{"no example", base, `ItemAdded 3 {"schema":{},"upcast":"data"}`, "examples", "at least one"},
		{"example without upcast", nil, `T 1 {"schema":{},"examples":[{"old":1,"new":1}]}`, "upcast", "is missing"},
		{"half an example", nil, `T 1 {"schema":{},"upcast":"data","examples":[{"old":1}]}`, "examples", `[0] must have "old" and "new"`},
		{"renamed without upcast", nil, `T 1 {"schema":{},"renamed":"U"}`, "upcast", "is missing"},
		{"renamed to itself", nil, `T 1 {"schema":{},"renamed":"T","upcast":"data","examples":[{"old":1,"new":1}]}`, "renamed", "the name that the type has"},
		{"renamed in a circle", []string{`U 1 {"schema":{},"renamed":"T","upcast":"data","examples":[{"old":1,"new":1}]}`},
			`T 1 {"schema":{},"renamed":"U","upcast":"data","examples":[{"old":1,"new":1}]}`, "renamed", "U was renamed itself: give the name T"},
		{"renamed to a name that is gone", []string{`U 1 {"schema":{},"renamed":"V","upcast":"data","examples":[{"old":1,"new":1}]}`},
			`T 1 {"schema":{},"renamed":"U","upcast":"data","examples":[{"old":1,"new":1}]}`, "renamed", "give the name V"},
		{"upcast does not compile", base, `ItemAdded 3 {"schema":{},"upcast":"data.\n +",` + ok + `}`, "upcast", ""},
		{"upcast of another type", base, `ItemAdded 3 {"schema":{"type":["object","null"]},"upcast":"1 + 2",` + ok + `}`, "upcast", "never one of the types"},
		{"old is not valid", base, `ItemAdded 3 {"schema":{},"upcast":"data","examples":[{"old":{"sku":"a"},"new":{"sku":"a"}}]}`,
			"examples[0].old", "is not valid under schema 2 of type ItemAdded: missing property 'price'"},
		{"upcast fails", nil, `T 1 {"schema":{},"upcast":"data.none","examples":[{"old":{},"new":1}]}`, "examples[0].old", "the upcast fails"},
		{"upcast gives something else", nil, `T 1 {"schema":{},"upcast":"data","examples":[{"old":[1],"new":[2]}]}`, "examples[0].new", "which is [1]"},
		{"new is not valid", nil, `T 1 {"schema":{"type":"string"},"upcast":"data","examples":[{"old":"a","new":"a"},{"old":1,"new":1}]}`,
			"examples[1].new", "is not valid under schema 1 of type T: got number, want string"},
		{"new is not valid under the new name", []string{put1}, `T 1 {"schema":{},"renamed":"ItemPut","upcast":"data","examples":[{"old":{},"new":{}}]}`,
			"examples[0].new", "is not valid under schema 1 of type ItemPut"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := registered(t, c.before...)
			r, err := parsed(c.registration)
			if err == nil {
				_, err = g.With(r)
			}
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("got %v, want an *Error", err)
			}
			if e.Path != c.path || !strings.Contains(e.Message, c.want) {
				t.Errorf("got %q, %q; want %q, %q", e.Path, e.Message, c.path, c.want)
			}
		})
	}
}

func TestWith_Numbers(t *testing.T) {
	g := registered(t, item1, item2)
	again, _ := parsed(strings.ReplaceAll(item2, `"EUR"},"sku"`, `"EUR"}, "sku"`))
	if same, err := g.With(again); err != ErrUnchanged || same != g {
		t.Errorf("the same again: %v", err)
	}
	other, _ := parsed(`ItemAdded 1 {"schema":{}}`)
	far, _ := parsed(`ItemAdded 4 {"schema":{},"upcast":"data","examples":[{"old":1,"new":1}]}`)
	first, _ := parsed(`Fresh 2 {"schema":{},"upcast":"data","examples":[{"old":1,"new":1}]}`)
	for _, c := range []struct {
		r    *Registration
		want NumberError
	}{
		{other, NumberError{Type: "ItemAdded", Number: 1, Newest: 2}},
		{far, NumberError{Type: "ItemAdded", Number: 4, Newest: 2}},
		{first, NumberError{Type: "Fresh", Number: 2, Newest: 0}},
	} {
		_, err := g.With(c.r)
		var e *NumberError
		if !errors.As(err, &e) || *e != c.want {
			t.Errorf("got %v, want %v", err, c.want)
		}
	}
	g = registered(t, item1, item2, put1, item3)
	fourth, _ := parsed(`ItemAdded 4 {"schema":{},"upcast":"data","examples":[{"old":1,"new":1}]}`)
	var e *NumberError
	if _, err := g.With(fourth); !errors.As(err, &e) || e.Renamed != "ItemPut" {
		t.Errorf("after a new name: %v", err)
	}
}

func TestRegistration_Canonical(t *testing.T) {
	r, err := parsed(`T 1 { "examples" : [ {"new":{"b":1.0,"a":"A"}, "old": 1e2} ], "upcast":"data", "renamed":"U", "schema": {"type":"object", "maximum": 12345678901234567890 } }`)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"schema":{"maximum":12345678901234567890,"type":"object"},"upcast":"data","renamed":"U","examples":[{"old":1e2,"new":{"a":"A","b":1.0}}]}`
	if got := string(r.Canonical()); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	again, err := Parse("T", 1, r.Canonical())
	if err != nil || string(again.Canonical()) != want {
		t.Errorf("read again: %s, %v", again.Canonical(), err)
	}
}

func TestRegistry_Validate(t *testing.T) {
	g := registered(t, item1, item2, put1, item3)
	for _, c := range []struct {
		typ    string
		number uint32
		data   string
		want   string // "" = valid
	}{
		{"Other", 0, `1`, ""},
		{"Other", 7, `1`, ""},
		{"ItemAdded", 1, `{"sku":"a","amount":1}`, ""},
		{"ItemAdded", 1, `{"sku":"a","amount":"1"}`, "not valid under schema 1 of type ItemAdded: /amount: got string, want number"},
		{"ItemAdded", 2, `{"sku":"a","amount":1}`, "missing property 'price'"},
		{"ItemAdded", 0, `{"count":1}`, "the type is called ItemPut from this schema on"},
		{"ItemAdded", 4, `{}`, "there is no such schema; the newest is 3"},
		{"ItemPut", 0, `{"sku":"a","price":1,"count":1}`, ""},
		{"ItemPut", 0, `{}`, "missing properties 'sku', 'price', 'count'"},
	} {
		err := g.Validate(c.typ, c.number, []byte(c.data))
		if c.want == "" {
			if err != nil {
				t.Errorf("%s %d %s: %v", c.typ, c.number, c.data, err)
			}
			continue
		}
		var v *Violation
		if !errors.As(err, &v) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %d %s: got %v, want %q", c.typ, c.number, c.data, err, c.want)
		}
	}
}

func TestRegistry_Nil(t *testing.T) {
	var g *Registry
	e := event.Event{Type: "T", Data: []byte("1")}
	if g.Any() || g.NeedsUpcast("T", 0) || g.Upcasting() || g.Newest("T") != 0 || g.Types() != nil || g.Registration("T", 1) != nil {
		t.Error("a nil registry has something")
	}
	if err := errors.Join(g.Upcast(&e, 0), g.UpcastTo(&e, nil), g.Validate("T", 3, nil)); err != nil {
		t.Error(err)
	}
}

func TestRegistry_Lists(t *testing.T) {
	g := registered(t, put1, item1, item2, item3)
	if got := fmt.Sprint(g.Types()); got != "[ItemAdded ItemPut]" {
		t.Errorf("types %s", got)
	}
	if name, number := g.Renamed("ItemAdded"); name != "ItemPut" || number != 1 {
		t.Errorf("renamed to %s, schema %d", name, number)
	}
	if r := g.Registration("ItemAdded", 2); r == nil || r.Number != 2 || r.Upcast == "" {
		t.Errorf("registration %v", r)
	}
	for _, number := range []uint32{0, 4} {
		if r := g.Registration("ItemAdded", number); r != nil {
			t.Errorf("there is a schema %d", number)
		}
	}
	if before := registered(t, item1); before.Upcasting() {
		t.Error("one schema without an upcast needs none")
	}
}

// One registry serves all requests of a node.
func TestRegistry_Concurrent(t *testing.T) {
	g := registered(t, item1, item2, put1, item3, put2)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 50 {
				if err := g.Validate("ItemAdded", 1, []byte(`{"sku":1}`)); err == nil {
					t.Error("not refused")
				}
				e := stored("ItemAdded", 1, `{"sku":"a","amount":3}`)
				if err := g.Upcast(&e, 0); err != nil || e.Type != "ItemPut" {
					t.Errorf("%s, %v", describe(&e), err)
				}
			}
		})
	}
	all.Wait()
}
