package workload

import (
	"testing"

	"cairn/client"
	"cairn/event"
	"cairn/jepsen-lite/history"
	"cairn/projection"
	"cairn/projection/schema"
)

// fold folds events by a definition into one row.
func fold(t *testing.T, name, definition string, events ...event.Event) (state string, refused *projection.Violation, failed error) {
	t.Helper()
	d, err := projection.ParseDefinition(name, []byte(definition))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	p, err := projection.Compile(d)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	var row []byte
	for i := range events {
		in := projection.NewInput(&events[i])
		if _, ok, err := p.Key(in); err != nil || !ok || !p.Matches(&events[i]) {
			t.Fatalf("%s: an event has no row: %v", name, err)
		}
		if row, _, refused, failed = p.Step(row, in, true); refused != nil || failed != nil {
			break
		}
	}
	return string(row), refused, failed
}

func TestDefinitions(t *testing.T) {
	a := testActor(t)
	put := func(data string) event.Event {
		return event.Event{Stream: "row-g1", Version: 3, Type: "Put", ID: "x", Tags: []string{"tag:1"}, Data: []byte(data)}
	}
	for _, tt := range []struct {
		name, definition string
		events           []event.Event
		want             string // "" = a guard refuses the last one, "-" = it can't be folded
	}{
		{"bank", bankDefinition, []event.Event{a.event("bank-1", "Deposited", 5, 9), a.event("bank-1", "Withdrawn", -5, 9)}, `{"balance":0,"moves":2}`},
		{"bank", bankDefinition, []event.Event{a.event("bank-1", "Deposited", 5, 9), a.event("bank-1", "Withdrawn", -6, 9)}, ""},
		{"bank", bankDefinition, []event.Event{a.text("bank-1", "Deposited")}, "-"},
		{"row-stream", byStream, []event.Event{put(`{"amount":2}`)}, `{"id":"x","n":1,"sum":2}`},
		{"row-stream", byStream, []event.Event{a.text("row-f1", "Put")}, "-"},
		{"row-tag", byTag, []event.Event{put(`{}`)}, `{"count":1,"streams":{"row-g1":3}}`},
		{"row-group", byGroup, []event.Event{put(`{"amount":300,"group":"g"}`), put(`{"amount":200,"group":"g"}`)}, `{"n":2,"sum":500}`},
		{"row-group", byGroup, []event.Event{put(`{"amount":501,"group":"g"}`)}, ""},
		{"row-type", byType, []event.Event{put(`{}`)}, `{"at":0,"n":1}`},
		{changingName, changing(0), []event.Event{put(`{}`), put(`{}`)}, `{"n0":2,"round":0}`},
		{changingName, changing(5), []event.Event{put(`{}`)}, `{"n2":1,"round":5}`},
	} {
		state, refused, failed := fold(t, tt.name, tt.definition, tt.events...)
		switch {
		case tt.want == "" && refused == nil, tt.want == "-" && failed == nil:
			t.Errorf("%s: folded into %s", tt.name, state)
		case tt.want != "" && tt.want != "-" && state != tt.want:
			t.Errorf("%s: %s, want %s (%v, %v)", tt.name, state, tt.want, refused, failed)
		}
	}
}

// Each schema takes the form that is made for it, its upcast makes that form of
// the one before, and the projection folds all of them.
func TestSchemaChanges(t *testing.T) {
	types := schema.Empty()
	for i, change := range schemaChanges() {
		number := uint32(i + 1)
		r, err := schema.Parse(schemaType, number, []byte(change.registration))
		if err != nil {
			t.Fatal(err)
		}
		if types, err = types.With(r); err != nil {
			t.Fatal(err)
		}
		e := event.Event{Stream: "schema-1", Version: 1, Type: schemaType, ID: "x", Schema: number - 1, Data: formed(number-1, 7, 5)}
		if err := types.Validate(schemaType, number, e.Data); err == nil {
			t.Errorf("schema %d takes the form before it: %s", number, e.Data)
		}
		if err := types.Upcast(&e, number); err != nil {
			t.Fatal(err)
		}
		for _, data := range [][]byte{e.Data, formed(number, 7, 5)} {
			e.Data = data
			if err := types.Validate(schemaType, number, data); err != nil {
				t.Errorf("%s: %v", data, err)
			}
			if state, refused, failed := fold(t, "schema-sum", schemaDefinition, e); state != `{"form":`+string('0'+rune(number))+`,"n":1,"sum":5}` {
				t.Errorf("%s folds into %s, %v, %v", data, state, refused, failed)
			}
		}
	}
	for form := range uint32(5) {
		below := event.Event{Stream: "schema-1", Type: schemaType, Data: formed(form, 1, -1)}
		if _, refused, _ := fold(t, "schema-sum", schemaDefinition, below); refused == nil {
			t.Errorf("%s is not refused", below.Data)
		}
	}
}

func TestSeen(t *testing.T) {
	for stream, want := range map[string]bool{"$types": true, "bank-1": true, "row-g1": true, "schema-2": true, "append-1": false, "bankers": false} {
		e := event.Event{Stream: stream, Schema: 3, Data: []byte(`{"a":1}`)}
		seen := Seen(&e)
		e.Data[2] = 'b' // whose it is again
		if got := string(seen.Data) == `{"a":1}`; got != want || seen.Schema != 3 {
			t.Errorf("%s: %+v", stream, seen)
		}
	}
}

func TestRefusal(t *testing.T) {
	p := &client.Problem{Code: client.CodeGuardFailed, Event: 1, Projection: "p", Key: "k", Guard: "g", StatePosition: 7}
	if got := refusal(p); got == nil || *got != (history.Refusal{Event: 1, Projection: "p", Key: "k", Guard: "g", State: 7}) {
		t.Errorf("%+v", got)
	}
	if refusal(nil) != nil || refusal(&client.Problem{Code: client.CodeConditionFailed}) != nil {
		t.Error("made a refusal of something else")
	}
	row := Row(&client.Row{Key: "k", State: []byte(`{}`), Events: 2, Position: 5, Failed: &client.RowFailure{Position: 6}})
	if row != (history.Row{Key: "k", State: "{}", Events: 2, Position: 5, Failed: 6}) {
		t.Errorf("%+v", row)
	}
}
