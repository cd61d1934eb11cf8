package event

import (
	"bytes"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestDecodeNew_KeepsDataAsSent(t *testing.T) {
	e, err := DecodeNew([]byte(` {"type":"T", "data": {"a" : 1.0e1, "b":"\u0041 \/ b", "n":12345678901234567890} , "tags":["x:1"],"meta":{ }} `))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(e.Data), `{"a":1.0e1,"b":"\u0041 \/ b","n":12345678901234567890}`; got != want {
		t.Errorf("data = %s, want %s", got, want)
	}
	if got, want := string(e.Meta), `{}`; got != want {
		t.Errorf("meta = %s, want %s", got, want)
	}
}

func TestDecodeNew_Refuses(t *testing.T) {
	deep := strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth)
	for _, tt := range []struct{ name, body, field string }{
		{"no object", `[]`, "body"},
		{"empty", ``, "body"},
		{"cut short", `{"type":"T"`, "body"},
		{"trailing data", `{"type":"T"} x`, "body"},
		{"two values", `{"type":"T"}{}`, "body"},
		{"unknown member", `{"type":"T","typ":"U"}`, "typ"},
		{"doubled member", `{"type":"T","type":"U"}`, "body"},
		{"doubled key in data", `{"type":"T","data":{"a":[{"b":1,"b":2}]}}`, "body"},
		{"nesting", `{"type":"T","data":` + deep + `}`, "body"},
		{"invalid UTF-8", "{\"type\":\"T\xff\"}", "body"},
		{"lone surrogate", `{"type":"T","data":"\ud800"}`, "body"},
		{"type is a number", `{"type":1}`, "type"},
		{"tags is a string", `{"type":"T","tags":"a"}`, "tags"},
		{"tag is null", `{"type":"T","tags":[null]}`, "tags"},
		{"meta is an array", `{"type":"T","meta":[]}`, "meta"},
		{"schema is negative", `{"type":"T","schema":-1}`, "schema"},
		{"schema is too large", `{"type":"T","schema":4294967296}`, "schema"},
		{"base64 without type", `{"type":"T","data_base64":"AA=="}`, "content_type"},
		{"bad base64", `{"type":"T","content_type":"a/b","data_base64":"A"}`, "data_base64"},
		{"both contents", `{"type":"T","content_type":"a/b","data_base64":"AA==","data":1}`, "data_base64"},
		{"content without base64", `{"type":"T","content_type":"a/b","data":1}`, "data_base64"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := DecodeNew([]byte(tt.body))
			invalid, ok := err.(*InvalidError)
			if !ok || invalid.Field != tt.field {
				t.Errorf("DecodeNew(%s) = %v, want an InvalidError of %q", tt.body, err, tt.field)
			}
		})
	}
}

func TestAppendCheck_Limits(t *testing.T) {
	text := func(n int) string { return strings.Repeat("x", n) }
	good := func() Event { return Event{Stream: "s", Type: "T", ID: "i", IDChosen: true, Data: []byte("1")} }
	for _, tt := range []struct {
		name string
		edit func(*Append)
		ok   bool
	}{
		{"good", func(a *Append) {}, true},
		{"no events", func(a *Append) { a.Events = nil }, false},
		{"longest stream", func(a *Append) { a.Events[0].Stream = text(MaxStream) }, true},
		{"stream too long", func(a *Append) { a.Events[0].Stream = text(MaxStream + 1) }, false},
		{"stream empty", func(a *Append) { a.Events[0].Stream = "" }, false},
		{"stream .", func(a *Append) { a.Events[0].Stream = "." }, false},
		{"stream ..", func(a *Append) { a.Events[0].Stream = ".." }, false},
		{"stream of the store", func(a *Append) { a.Events[0].Stream = "$log" }, false},
		{"stream with a control character", func(a *Append) { a.Events[0].Stream = "a\u0085b" }, false},
		{"stream not UTF-8", func(a *Append) { a.Events[0].Stream = "a\xff" }, false},
		{"longest type", func(a *Append) { a.Events[0].Type = text(MaxType) }, true},
		{"type too long", func(a *Append) { a.Events[0].Type = text(MaxType + 1) }, false},
		{"type empty", func(a *Append) { a.Events[0].Type = "" }, false},
		{"id empty", func(a *Append) { a.Events[0].ID = "" }, false},
		{"id too long", func(a *Append) { a.Events[0].ID = text(MaxID + 1) }, false},
		{"id twice", func(a *Append) { a.Events = append(a.Events, a.Events[0]) }, false},
		{"id twice, other stream", func(a *Append) {
			a.Events = append(a.Events, a.Events[0])
			a.Events[1].Stream = "other"
		}, true},
		{"tag twice", func(a *Append) { a.Events[0].Tags = []string{"a", "a"} }, false},
		{"tag too long", func(a *Append) { a.Events[0].Tags = []string{text(MaxTag + 1)} }, false},
		{"too many tags", func(a *Append) { a.Events[0].Tags = make([]string, MaxTags+1) }, false},
		{"largest data", func(a *Append) { a.Events[0].Data = make([]byte, MaxData) }, true},
		{"data too large", func(a *Append) { a.Events[0].Data = make([]byte, MaxData+1) }, false},
		{"meta too large", func(a *Append) { a.Events[0].Meta = make([]byte, MaxMeta+1) }, false},
		{"append too large", func(a *Append) {
			for i := range 3 {
				e := good()
				e.Data, e.ID = make([]byte, MaxData), text(i+2)
				a.Events = append(a.Events, e)
			}
		}, false},
		{"too many events", func(a *Append) { a.Events = make([]Event, MaxAppendEvents+1) }, false},
		{"too many conditions", func(a *Append) { a.Conditions = make([]Condition, MaxConditions+1) }, false},
		{"unknown condition", func(a *Append) { a.Conditions = []Condition{{Kind: 9, Stream: "s"}} }, false},
		{"condition on a bad stream", func(a *Append) { a.Conditions = []Condition{{Kind: StreamExists}} }, false},
		{"condition on a stream of the store", func(a *Append) { a.Conditions = []Condition{{Kind: StreamExists, Stream: "$log"}} }, true},
		{"query with an empty tag", func(a *Append) {
			a.Conditions = []Condition{{Kind: NoMatch, Query: Query{Items: []QueryItem{{Tags: []string{""}}}}}}
		}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := Append{Events: []Event{good()}}
			tt.edit(&a)
			if err := a.Check(); (err == nil) != tt.ok {
				t.Errorf("Check() = %v, want ok = %v", err, tt.ok)
			}
		})
	}
}

// anyEvent draws an event of the form in which it is appended.
func anyEvent(t *rapid.T) Event {
	text := rapid.StringN(1, 12, -1)
	e := Event{
		Stream: text.Draw(t, "stream"), Type: text.Draw(t, "type"), ID: text.Draw(t, "id"), IDChosen: rapid.Bool().Draw(t, "chosen"),
		Schema: rapid.Uint32().Draw(t, "schema"), Tags: rapid.SliceOfNDistinct(text, 0, 3, rapid.ID).Draw(t, "tags"),
		CorrelationID: rapid.StringN(0, 5, -1).Draw(t, "correlation"), Compensates: rapid.StringN(0, 5, -1).Draw(t, "compensates"),
		Data: []byte(rapid.SampledFrom([]string{`null`, `1`, `"a b"`, `{"a":[1,2]}`}).Draw(t, "data")),
	}
	if rapid.Bool().Draw(t, "meta") {
		e.Meta = []byte(`{"actor":"x"}`)
	}
	if len(e.Tags) == 0 {
		e.Tags = nil
	}
	return e
}

func TestCommand_RoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := Command{Kind: KindAppend, Seed: NewSeed()}
		c.Append.Events = rapid.SliceOfN(rapid.Custom(anyEvent), 0, 4).Draw(t, "events")
		c.Append.Conditions = []Condition{
			{Kind: StreamAtVersion, Stream: "s", Version: rapid.Uint64().Draw(t, "version")},
			{Kind: NoMatch, After: 7, Query: Query{Items: []QueryItem{{Types: []string{"T"}}, {Tags: []string{"a", "b"}}}}},
		}
		b := EncodeCommand(nil, &c)
		at := rapid.Uint64().Draw(t, "verified")
		SetVerifiedTo(b, at)
		got, err := DecodeCommand(b)
		if err != nil {
			t.Fatal(err)
		}
		if got.VerifiedTo != at {
			t.Fatalf("verified to %d, want %d", got.VerifiedTo, at)
		}
		if again := EncodeCommand(nil, &got); !bytes.Equal(again, b) {
			t.Fatalf("encoded again: %x, want %x", again, b)
		}
		for n := range len(b) {
			if _, err := DecodeCommand(b[:n]); err == nil {
				t.Fatalf("%d of %d bytes were taken for a whole command", n, len(b))
			}
		}
	})
}

func TestEntry_RoundTrip(t *testing.T) {
	commands := [][]byte{[]byte("one"), {}, []byte("three")}
	b := EncodeEntry(nil, -5, commands)
	e, err := DecodeEntry(b)
	if err != nil || e.Time != -5 || len(e.Commands) != 3 || string(e.Commands[2]) != "three" {
		t.Fatalf("DecodeEntry = %+v, %v", e, err)
	}
	b[0] = EntryFormat + 1
	if _, err := DecodeEntry(b); err == nil {
		t.Error("an entry of an unknown format was taken")
	}
}

func TestOutcome_RoundTrip(t *testing.T) {
	for _, o := range []Outcome{
		{Code: Accepted, First: 1, Last: 300, Time: -1, Versions: []StreamVersion{{"a", 1}, {"b", 2}}},
		{Code: Duplicate, First: 1, Last: 1, Versions: []StreamVersion{{"a", 1}}},
		{Code: ConditionFailed, Conflict: &Conflict{Condition: 3, Kind: NoMatch, Position: 9}},
		{Code: IDReused, Reused: []IDAt{{"id", "s", 4}, {"other", "s", 0}}},
		{Code: Refused, Reason: "why"},
	} {
		b := EncodeOutcome(nil, &o)
		got, n, err := DecodeOutcome(append(b, 1, 2, 3))
		if err != nil || n != len(b) {
			t.Fatalf("DecodeOutcome(%+v) took %d of %d bytes, %v", o, n, len(b), err)
		}
		if again := EncodeOutcome(nil, &got); !bytes.Equal(again, b) {
			t.Errorf("encoded again: %x, want %x", again, b)
		}
	}
}

func TestJSON_RoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := anyEvent(t)
		e.Position, e.Version, e.Time = 7, 3, rapid.Int64Range(0, 1<<62).Draw(t, "time")
		e.IDChosen = false // is not part of the form
		b := AppendJSON(nil, &e)
		got, err := DecodeEvent(b)
		if err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		if again := AppendJSON(nil, &got); !bytes.Equal(again, b) {
			t.Fatalf("written again: %s, want %s", again, b)
		}
	})
}

func TestFilter_Matches(t *testing.T) {
	e := &Event{Stream: "account-1", Type: "T", Tags: []string{"a", "b"}, CorrelationID: "c", Time: 10}
	system := &Event{Stream: "$log", Type: "T", Tags: []string{"a"}}
	for _, tt := range []struct {
		name string
		f    Filter
		e    *Event
		want bool
	}{
		{"zero", Filter{}, e, true},
		{"zero, event of the store", Filter{}, system, true},
		{"type", Filter{Query: Query{Items: []QueryItem{{Types: []string{"S", "T"}}}}}, e, true},
		{"type, event of the store", Filter{Query: Query{Items: []QueryItem{{Types: []string{"T"}}}}}, system, false},
		{"all tags", Filter{Query: Query{Items: []QueryItem{{Tags: []string{"b", "a"}}}}}, e, true},
		{"a tag too many", Filter{Query: Query{Items: []QueryItem{{Tags: []string{"b", "c"}}}}}, e, false},
		{"second item", Filter{Query: Query{Items: []QueryItem{{Tags: []string{"c"}}, {Types: []string{"T"}}}}}, e, true},
		{"category", Filter{Category: "account"}, e, true},
		{"other category", Filter{Category: "acc"}, e, false},
		{"prefix", Filter{StreamPrefix: "acc"}, e, true},
		{"correlation", Filter{CorrelationID: "d"}, e, false},
		{"from", Filter{FromTime: 10}, e, true},
		{"after", Filter{FromTime: 11}, e, false},
		{"to is not included", Filter{ToTime: 10}, e, false},
	} {
		if got := tt.f.Matches(tt.e); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func FuzzDecodeCommand(f *testing.F) {
	f.Add(EncodeCommand(nil, &Command{Kind: KindAppend, Append: Append{Events: []Event{{Stream: "s", Type: "T", ID: "i", Data: []byte("1")}}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := DecodeCommand(b)
		if err != nil {
			return
		}
		if again := EncodeCommand(nil, &c); !bytes.Equal(again, b) {
			t.Errorf("%x was read as %x", b, again)
		}
	})
}

func FuzzDecodeNew(f *testing.F) {
	f.Add([]byte(`{"type":"T","data":{"a":[1,"b"]},"tags":["x"],"meta":{}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := DecodeNew(b)
		if err != nil {
			return
		}
		e.Stream, e.Type, e.ID = "s", "T", "i"
		if e.acceptable() {
			if _, err := DecodeEvent(AppendJSON(nil, &e)); err != nil {
				t.Errorf("%q was accepted, but read back: %v", b, err)
			}
		}
	})
}

// acceptable reports whether e is an append that may be proposed.
func (e Event) acceptable() bool {
	a := Append{Events: []Event{e}}
	return a.Check() == nil
}
