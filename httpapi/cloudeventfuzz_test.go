package httpapi

import (
	"net/http"
	"testing"

	"cairn/event"
)

// comesBack fails the test if an event that was made of a CloudEvent does not
// come out as one that makes the same event again.
func comesBack(t *testing.T, e event.Event) {
	t.Helper()
	e.Stream = "s"
	if err := (&event.Append{Events: []event.Event{e}}).Check(); err != nil {
		if !ofForm(err) {
			t.Fatal(err)
		}
		return
	}
	e.Position, e.Version = 7, 3
	out := appendCloudEvent(nil, answered{Event: &e})
	if len(out) > roomFor(&e) {
		t.Fatalf("%d bytes, but room for %d", len(out), roomFor(&e))
	}
	if !strict(out) {
		t.Fatalf("comes out as what is not JSON: %q", out)
	}
	again, err := decodeCloudEvent(out)
	if err != nil {
		t.Fatalf("%q is refused: %v", out, err)
	}
	again.Stream, again.Position, again.Version = e.Stream, e.Position, e.Version
	if got, want := event.AppendJSON(nil, &again), event.AppendJSON(nil, &e); string(got) != string(want) {
		t.Fatalf("came back as %s, not %s", got, want)
	}
}

func FuzzDecodeCloudEvent(f *testing.F) {
	for _, seed := range []string{
		ce("1", ``), ce("1", `,"data":{"a":[1, 2]},"subject":"x","time":"2026-01-31T09:30:00Z","flag":true,"n":-5,"no":null`),
		ce("1", `,"datacontenttype":"text/plain","data":"\u00e4\""`), ce("1", `,"datacontenttype":"a/x+json","data_base64":"e30="`), ce("1", `,"data_base64":""`),
		ce("1", `,"cairnposition":"9","correlationid":"c","dataschema":"urn:x","datacontenttype":"image/png"`), `{"specversion":"0.3"}`, ce("1", `,"data":1,"data":2`), ce("1", `,"ext":1e3}`),
	} {
		f.Add([]byte(seed), false)
		f.Add([]byte(`[`+seed+` , `+ce("2", ``)+`]`), true)
	}
	f.Fuzz(func(t *testing.T, body []byte, batch bool) {
		var events []event.Event
		var err error
		if batch {
			events, err = decodeBatch(body)
		} else {
			events, err = only(decodeCloudEvent(body))
		}
		if err != nil {
			if !ofForm(err) {
				t.Fatalf("%v is not an error of form", err)
			}
			return
		}
		if !strict(body) {
			t.Fatalf("accepted what is not strict JSON: %q", body)
		}
		for _, e := range events {
			comesBack(t, e)
		}
	})
}

func FuzzDecodeBinary(f *testing.F) {
	f.Add("1", "/s", "T", "Ce-Ext", "v", "application/json", []byte(`{"a": 1}`))
	f.Add(`"a\"b"`, "urn:%41", "T%20U", "Ce-Subject", "%e4", "image/png", []byte{0, 255})
	f.Add("1", "/s", "T", "Ce-Time", "2026-01-31T09:30:00Z", "", []byte(`x`))
	f.Add("1", "/s", "T", "Ce-Specversion", "1.0", "a/b;c=d", []byte{})
	f.Fuzz(func(t *testing.T, id, source, typ, name, value, media string, body []byte) {
		h := http.Header{"Ce-Specversion": {"1.0"}, "Ce-Id": {id}, "Ce-Source": {source}, "Ce-Type": {typ}}
		h.Add(name, value)
		if media != "" {
			h["Content-Type"] = []string{media}
		}
		e, err := decodeBinary(h, body)
		if err == nil {
			comesBack(t, e)
		} else if !ofForm(err) {
			t.Fatalf("%v is not an error of form", err)
		}
	})
}

// Whatever is in meta, an event comes out as a CloudEvent.
func FuzzAppendCloudEvent(f *testing.F) {
	f.Add("1", "/s", []byte(`{"cloudevent":{"id":"1","source":"/s","x":1}}`), []byte(`1`), "")
	f.Add("1", "/s", []byte(`{"cloudevent":{"id":"1","source":"/s","data":false,"datacontenttype":"a/b"}}`), []byte(`null`), "")
	f.Add("", "", []byte(`{"cloudevent":[]}`), []byte{1}, "a/b")
	f.Fuzz(func(t *testing.T, id, source string, meta, data []byte, media string) {
		e := event.Event{Stream: "s/ü", Type: "T", ID: cloudEventID(source, id), Data: data, ContentType: media, Meta: meta}
		if !strict(meta) || media == "" && !strict(data) {
			return
		}
		out := appendCloudEvent(nil, answered{Event: &e})
		if len(out) > roomFor(&e) || !strict(out) {
			t.Fatalf("%d bytes with room for %d: %q", len(out), roomFor(&e), out)
		}
	})
}
