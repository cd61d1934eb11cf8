package schema

import (
	"strings"
	"testing"

	"cairn/event"
)

func TestCheck(t *testing.T) {
	g := registered(t, item1, item2, put1, item3, `Lone 1 {"schema":{"type":"string"}}`)
	picture := stored("Lone", 1, "x")
	picture.ContentType = "image/png"
	system := stored("Lone", 0, "1")
	system.Stream = event.StreamLog
	for _, c := range []struct {
		name  string
		event event.Event
		want  string // "" = nothing is wrong
	}{
		{"no schemas", stored("Other", 0, `1`), ""},
		{"the store's own", system, ""},
		{"newest", stored("Lone", 1, `"x"`), ""},
		{"newest, not valid", stored("Lone", 1, `1`), "not valid under schema 1 of type Lone: got number, want string"},
		{"brought there", stored("ItemAdded", 1, `{"sku":"a","amount":1}`), ""},
		{"fails", stored("ItemAdded", 1, `{"sku":"a"}`), "upcast of type ItemAdded to schema 2"},
		{"older, but as it should be", stored("Lone", 0, `"x"`), ""},
		{"older, and another form", stored("Lone", 0, `1`), "is older than schema 1, which has no upcast, and not valid under schema 1 of type Lone"},
		{"older, of a type with a new name", stored("ItemAdded", 0, `{"count":1}`), "keeps the name ItemAdded"},
		{"unknown number", stored("Lone", 9, `"x"`), "has schema 9 of type Lone, of which nothing is known"},
		{"picture", picture, "is image/png"},
	} {
		err := g.Check(&c.event)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
	// The result of the upcast is not what the schema asks for, although the
	// examples are.
	g = registered(t, `T 1 {"schema":{"type":"string"},"upcast":"data.name","examples":[{"old":{"name":"a"},"new":"a"}]}`)
	e := stored("T", 0, `{"name":7}`)
	if err := g.Check(&e); err == nil || !strings.Contains(err.Error(), "got number, want string") {
		t.Errorf("got %v", err)
	}
}
