package schema

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"cairn/event"
)

func stored(typ string, schema uint32, data string) event.Event {
	return event.Event{Position: 9, Version: 3, Time: 1_700_000_000_500_000_000, Stream: "cart-1", Type: typ, ID: "x", Schema: schema, Data: []byte(data)}
}

func TestUpcast(t *testing.T) {
	g := registered(t, item1, item2, put1, item3, put2)
	late := `{"sku":"a","price":{"amount":3,"currency":"EUR"},"count":1`
	for _, c := range []struct {
		name  string
		event event.Event
		to    uint32
		want  string // type schema data
	}{
		{"to the newest", stored("ItemAdded", 1, `{"sku":"a","amount":3}`), 0,
			`ItemPut 2 {"at":"2023-11-14T22:13:20.500000000Z","count":1,"price":{"amount":3,"currency":"EUR"},"sku":"a"}`},
		{"one step", stored("ItemAdded", 1, `{"sku":"a","amount":3}`), 2, `ItemAdded 2 {"price":{"amount":3,"currency":"EUR"},"sku":"a"}`},
		{"to the new name", stored("ItemAdded", 1, `{"sku":"a","amount":3}`), 3,
			`ItemPut 1 {"count":1,"price":{"amount":3,"currency":"EUR"},"sku":"a"}`},
		{"from the new name on", stored("ItemPut", 1, late+`}`), 0,
			`ItemPut 2 {"at":"2023-11-14T22:13:20.500000000Z","count":1,"price":{"amount":3,"currency":"EUR"},"sku":"a"}`},
		{"newest already", stored("ItemPut", 2, late+`,"at":"x"}`), 0, `ItemPut 2 ` + late + `,"at":"x"}`},
		{"not back", stored("ItemAdded", 2, `{"sku":"a"}`), 1, `ItemAdded 2 {"sku":"a"}`},
		{"older than the first", stored("ItemAdded", 0, `7`), 0, `ItemAdded 0 7`},
		{"without schemas", stored("Other", 4, `7`), 0, `Other 4 7`},
		{"numbers keep their text", stored("ItemAdded", 1, `{"sku":"a","amount":3.10}`), 2, `ItemAdded 2 {"price":{"amount":3.10,"currency":"EUR"},"sku":"a"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := c.event
			if err := g.Upcast(&e, c.to); err != nil {
				t.Fatal(err)
			}
			if got := describe(&e); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			needs := g.NeedsUpcast(c.event.Type, c.event.Schema)
			if changed := describe(&e) != describe(&c.event); c.to == 0 && needs != changed {
				t.Errorf("NeedsUpcast says %v", needs)
			}
			e.Type, e.Schema, e.Data = c.event.Type, c.event.Schema, c.event.Data
			if fmt.Sprint(e) != fmt.Sprint(c.event) {
				t.Errorf("more of the event changed: %v", e)
			}
		})
	}
}

func describe(e *event.Event) string { return fmt.Sprintf("%s %d %s", e.Type, e.Schema, e.Data) }

func TestUpcast_LeftAlone(t *testing.T) {
	g := registered(t, `T 1 {"schema":{},"upcast":"'new'","examples":[{"old":1,"new":"new"}]}`)
	picture := stored("T", 0, "\x89PNG")
	picture.ContentType = "image/png"
	system := stored("T", 0, `{}`)
	system.Stream = event.StreamLog
	for _, e := range []event.Event{picture, system} {
		before := describe(&e)
		if err := g.Upcast(&e, 0); err != nil || describe(&e) != before {
			t.Errorf("%s became %s, %v", before, describe(&e), err)
		}
	}
	old := stored("T", 0, `1`)
	if err := g.Upcast(&old, 0); err != nil || describe(&old) != `T 1 "new"` {
		t.Errorf("older than the first: %s, %v", describe(&old), err)
	}
}

func TestUpcast_Fails(t *testing.T) {
	g := registered(t, item1, item2, item3)
	e := stored("ItemAdded", 1, `{"sku":"a"}`)
	err := g.Upcast(&e, 0)
	if err == nil || !strings.Contains(err.Error(), "upcast of type ItemAdded to schema 2: ") {
		t.Errorf("got %v", err)
	}
	if describe(&e) != `ItemAdded 1 {"sku":"a"}` {
		t.Errorf("the event became %s", describe(&e))
	}
	// A later step fails: what the first made must not show.
	g = registered(t, item1, item2, `ItemAdded 3 {"schema":{},"upcast":"data.colour","examples":[{"old":{"sku":"a","price":{"amount":1,"currency":"EUR"},"colour":1},"new":1}]}`)
	e = stored("ItemAdded", 1, `{"sku":"a","amount":1}`)
	if err := g.Upcast(&e, 0); err == nil || describe(&e) != `ItemAdded 1 {"sku":"a","amount":1}` {
		t.Errorf("%s, %v", describe(&e), err)
	}
}

func TestUpcast_SeesTheEvent(t *testing.T) {
	g := registered(t, `T 1 {"schema":{},"upcast":"[event.type, event.stream, event.id, event.version, event.position, event.tags, event.meta, event.data, event.correlation_id, event.causation_id, event.compensates, string(event.time)]",
		"examples":[{"old":5,"new":["T","example-1","example",1,1,[],{},5,"","","","1970-01-01T00:00:00.000000000Z"]}]}`)
	e := stored("T", 0, `{"a":1}`)
	e.Tags, e.Meta, e.CorrelationID, e.CausationID, e.Compensates = []string{"x:1"}, []byte(`{"actor":"me"}`), "c", "d", "f"
	if err := g.Upcast(&e, 0); err != nil {
		t.Fatal(err)
	}
	want := `T 1 ["T","cart-1","x",3,9,["x:1"],{"actor":"me"},{"a":1},"c","d","f","2023-11-14T22:13:20.500000000Z"]`
	if got := describe(&e); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestUpcastTo(t *testing.T) {
	g := registered(t, item1, item2, put1, item3, put2)
	for _, c := range []struct {
		numbers map[string]uint32
		want    string
	}{
		{nil, `ItemAdded 1 `},
		{map[string]uint32{"ItemAdded": 2, "ItemPut": 2}, `ItemAdded 2 `},
		{map[string]uint32{"ItemAdded": 3}, `ItemPut 1 `},
		{map[string]uint32{"ItemAdded": 3, "ItemPut": 2}, `ItemPut 2 `},
		{map[string]uint32{"ItemAdded": 9, "ItemPut": 9}, `ItemPut 2 `},
	} {
		e := stored("ItemAdded", 1, `{"sku":"a","amount":3}`)
		if err := g.UpcastTo(&e, c.numbers); err != nil || !strings.HasPrefix(describe(&e), c.want) {
			t.Errorf("%v: got %s, %v; want %s", c.numbers, describe(&e), err, c.want)
		}
	}
}

// Any number of steps one by one give what one call over all of them gives,
// over new names too.
func TestUpcast_StepsCompose(t *testing.T) {
	upcasts := []string{
		"data", "{'n': data, 'm': 1}", "[data, data]", "{'was': data, 'at': event.time}", "string(type(data) == map)", "data == null ? 0 : data",
		"type(data) == map ? data : {'v': data}", "[event.type, data]",
	}
	rapid.Check(t, func(t *rapid.T) {
		g, data := Empty(), rapid.SampledFrom([]string{`1`, `{"a":1.50}`, `"x"`, `[null]`, `12345678901234567890`}).Draw(t, "data")
		typ, number := "T0", uint32(0)
		e := stored(typ, number, data)
		for i := range rapid.IntRange(1, 6).Draw(t, "steps") {
			number++
			probe := stored(typ, number-1, data)
			up, err := compileUpcast(rapid.SampledFrom(upcasts).Draw(t, "upcast"), compiledAny(t))
			if err != nil {
				t.Fatal(err)
			}
			example, err := up.run(specimen(typ, number-1, probe.Data))
			if err != nil {
				t.Fatal(err)
			}
			r := &Registration{Type: typ, Number: number, Schema: []byte(`{}`), Upcast: up.program.Source(), Examples: []Example{{probe.Data, example}}}
			if rapid.IntRange(0, 3).Draw(t, "renamed") == 0 {
				r.Renamed = fmt.Sprint("T", i+1)
			}
			if g, err = g.With(r); err != nil {
				t.Fatalf("%s: %v", r.Canonical(), err)
			}
			if r.Renamed != "" {
				typ, number = r.Renamed, 0
			}
		}
		whole := e
		if err := g.Upcast(&whole, 0); err != nil {
			t.Fatal(err)
		}
		steps := 0
		for g.NeedsUpcast(e.Type, e.Schema) {
			if err := g.Upcast(&e, e.Schema+1); err != nil {
				t.Fatal(err)
			}
			if steps++; steps > 6 {
				t.Fatalf("never there: %s", describe(&e))
			}
		}
		if describe(&e) != describe(&whole) {
			t.Fatalf("step by step %s\nat once      %s", describe(&e), describe(&whole))
		}
		if e.Type != typ || e.Schema != number {
			t.Fatalf("ended at %s %d, want %s %d", e.Type, e.Schema, typ, number)
		}
	})
}

func compiledAny(t interface{ Fatal(...any) }) *document {
	d, err := compile([]byte(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// What most reads meet: a registry, but not of this type.
func BenchmarkNeedsUpcast(b *testing.B) {
	g := registered(b, item1, item2, put1, item3, put2)
	for b.Loop() {
		if g.NeedsUpcast("OrderPlaced", 0) {
			b.Fatal()
		}
	}
}
