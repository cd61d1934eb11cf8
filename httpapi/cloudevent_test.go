package httpapi

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"cairn/event"
)

const (
	isCloudEvent = "Content-Type: application/cloudevents+json"
	isBatch      = "Content-Type: application/cloudevents-batch+json"
	asksOne      = "Accept: application/cloudevents+json"
	asksBatch    = "Accept: application/cloudevents-batch+json"
)

// ce is a CloudEvent with what every one has, and more members.
func ce(id, more string) string {
	return `{"specversion":"1.0","id":"` + id + `","source":"/shop","type":"OrderPlaced"` + more + `}`
}

// sameJSON compares two JSON values, whatever the order of their members.
func sameJSON(t *testing.T, got, want string) {
	t.Helper()
	var g, w any
	if err := json.Unmarshal([]byte(got), &g); err != nil {
		t.Fatalf("%v: %s", err, got)
	}
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatalf("%v: %s", err, want)
	}
	gb, _ := json.Marshal(g)
	wb, _ := json.Marshal(w)
	if string(gb) != string(wb) {
		t.Errorf("got  %s\nwant %s", gb, wb)
	}
}

func TestCloudEventID(t *testing.T) {
	sum := sha256.Sum256([]byte("\x05\x00\x00\x00/shop7"))
	if got, want := cloudEventID("/shop", "7"), base64.RawURLEncoding.EncodeToString(sum[:]); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := cloudEventID("/shop", "7"), "135v025WwaGX3EmTVXKkzbUIrOiBcR-djf8yPS50Tz0"; got != want {
		t.Errorf("the id of stored events has changed: %s, not %s", got, want)
	}
	if cloudEventID("/shop", "7") == cloudEventID("/sho", "p7") {
		t.Error("where source ends makes no difference")
	}
}

// What came in comes out, whatever of it there was.
func TestCloudEvent_RoundTrip(t *testing.T) {
	ts := serve(t, newFakeStore())
	for i, c := range []struct{ name, in, out string }{ // out "" = as in
		{"least", ``, ``},
		{"all attributes", `,"subject":"order 7 ü \"x\"","time":"2026-01-31T09:30:00.5+01:00","dataschema":"urn:x:1","datacontenttype":"application/json","data":{"a":[1,2.50]}`, ``},
		{"extensions", `,"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","flag":true,"off":false,"count":-2147483648,"empty":"","abcdefghijklmnopqrst":"x"`, ``},
		{"correlation", `,"correlationid":"c","causationid":"d"`, ``},
		{"JSON without its type", `,"data":"a string"`, ``},
		{"null data", `,"data":null`, ``},
		{"no data, but a type of it", `,"datacontenttype":"image/png"`, ``},
		{"bytes", `,"datacontenttype":"image/png","data_base64":"AAEC"`, ``},
		{"no bytes", `,"datacontenttype":"image/png","data_base64":""`, ``},
		{"bytes of no type", `,"data_base64":"AAEC"`, ``},
		{"text", `,"datacontenttype":"text/plain","data":"h\u00e4?"`, `,"datacontenttype":"text/plain","data_base64":"aMOkPw=="`},
		{"another JSON type", `,"datacontenttype":"application/vnd.x+json; v=1","data":[1]`, ``},
		{"JSON as bytes", `,"datacontenttype":"application/json","data_base64":"eyJhIjogMX0="`, `,"datacontenttype":"application/json","data":{"a":1}`},
		{"unset attributes", `,"subject":null,"time":null,"ext":null`, ``},
		{"another log's places", `,"cairnposition":"77","cairnversion":"8"`, ``},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := ce(c.name, c.in)
			want := map[string]any{}
			if err := json.Unmarshal([]byte(ce(c.name, cmpOr(c.out, c.in))), &want); err != nil {
				t.Fatal(err)
			}
			maps.DeleteFunc(want, func(name string, v any) bool { return v == nil && name != "data" })
			a := ts.do("POST", "/v1/streams/order-7/events", in, isCloudEvent)
			a.check(t, 201, `"duplicate":false`)
			want["cairnposition"], want["cairnversion"] = fmt.Sprint(i+2), fmt.Sprint(i+1)
			wanted, _ := json.Marshal(want)
			for _, path := range []string{fmt.Sprintf("/v1/events/%d", i+2), a.header.Get("Location")} {
				out := ts.get(path, asksOne)
				out.check(t, 200)
				out.checkHeader(t, "Content-Type", "application/cloudevents+json", "Cairn-Position", fmt.Sprint(i+2))
				sameJSON(t, out.body, string(wanted))
			}
			ts.do("POST", "/v1/streams/order-7/events", in, isCloudEvent).check(t, 200, `"duplicate":true`)
			stored, err := event.DecodeEvent([]byte(ts.get(a.header.Get("Location")).body))
			if err != nil || stored.ID != cloudEventID("/shop", c.name) || stored.Type != "OrderPlaced" {
				t.Errorf("stored as %+v (%v)", stored, err)
			}
		})
	}
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// The event as Cairn's own form shows it.
func TestCloudEvent_Stored(t *testing.T) {
	ts := serve(t, newFakeStore())
	in := ce("7", `,"zone":"b","subject":"s","correlationid":"c","causationid":"d","data":{"n" : 1},"time":"2026-01-31T09:30:00Z","count":3`)
	ts.do("POST", "/v1/streams/order-7/events", in, isCloudEvent+"; charset=UTF-8").check(t, 201)
	ts.get("/v1/events/2").check(t, 200,
		`"stream":"order-7"`, `"id":"135v025WwaGX3EmTVXKkzbUIrOiBcR-djf8yPS50Tz0"`, `"type":"OrderPlaced"`, `"correlation_id":"c"`, `"causation_id":"d"`, `"data":{"n":1}`,
		`"meta":{"cloudevent":{"count":3,"id":"7","source":"/shop","subject":"s","time":"2026-01-31T09:30:00Z","zone":"b"}}`)
	ts.do("POST", "/v1/streams/order-7/events", ce("8", ``), isCloudEvent).check(t, 201)
	ts.get("/v1/events/3").check(t, 200, `"data":null`, `"meta":{"cloudevent":{"id":"8","source":"/shop","data":false}}`)
}

// Binary mode gives the same event as structured mode: one is a retry of the
// other.
func TestCloudEvent_Binary(t *testing.T) {
	ts := serve(t, newFakeStore())
	headers := []string{"ce-specversion: 1.0", "ce-id: 7", "CE-Source: /shop", "ce-type: OrderPlaced", "ce-subject: Euro%20%E2%82%AC%20%f0%9f%98%80", "ce-time: 2026-01-31T09:30:00Z",
		`ce-quoted: "a \"b\" %25"`, "ce-percent: 100% %zz %4", "ce-correlationid: c", isJSON}
	ts.do("POST", "/v1/streams/a/events", `{"n": 1}`, headers...).check(t, 201, `"duplicate":false`)
	same := ce("7", `,"subject":"Euro € 😀","time":"2026-01-31T09:30:00Z","quoted":"a \"b\" %","percent":"100% %zz %4","correlationid":"c","datacontenttype":"application/json","data":{"n":1}`)
	ts.do("POST", "/v1/streams/a/events", same, isCloudEvent).check(t, 200, `"duplicate":true`)
	out := ts.get("/v1/events/2", asksOne).body
	sameJSON(t, out, strings.TrimSuffix(same, "}")+`,"cairnposition":"2","cairnversion":"1"}`)

	some := []string{"ce-specversion: 1.0", "ce-source: /shop", "ce-type: T"}
	ts.do("POST", "/v1/streams/a/events", "\x00\xff", append(some, "ce-id: 8", "Content-Type: image/png")...).check(t, 201)
	ts.get("/v1/events/3").check(t, 200, `"content_type":"image/png","data_base64":"AP8="`)
	ts.do("POST", "/v1/streams/a/events", "x", append(some, "ce-id: 9")...).check(t, 201)
	ts.get("/v1/events/4").check(t, 200, `"content_type":"application/octet-stream","data_base64":"eA=="`)
	ts.get("/v1/events/4", asksOne).check(t, 200, `"data_base64":"eA=="`)
	ts.do("POST", "/v1/streams/a/events", "", append(some, "ce-id: 10", "Content-Type: image/png")...).check(t, 201)
	if a := ts.get("/v1/events/5", asksOne); strings.Contains(a.body, "data_base64") || !strings.Contains(a.body, `"datacontenttype":"image/png"`) {
		t.Errorf("an event without data: %s", a.body)
	}
	// Headers beside a structured event say nothing.
	ts.do("POST", "/v1/streams/a/events", ce("11", ``), isCloudEvent, "ce-specversion: 0.3", "ce-id: other").check(t, 201)
	ts.get("/v1/events/6").check(t, 200, cloudEventID("/shop", "11"))
}

func TestCloudEvent_Batch(t *testing.T) {
	ts := serve(t, newFakeStore())
	body := `[` + ce("1", ``) + ` , ` + ce("2", `,"data":2`) + `]`
	ts.do("POST", "/v1/streams/a/events", body, isBatch, "If-None-Match: *").check(t, 201, `"first_position":2,"last_position":3`)
	ts.do("POST", "/v1/streams/a/events", body, isBatch, "If-None-Match: *").check(t, 200, `"duplicate":true`)
	before := ts.store.count()
	ts.do("POST", "/v1/streams/a/events", `[`+ce("2", `,"data":2`)+`,`+ce("1", ``)+`]`, isBatch).check(t, 409, "id-reused")
	ts.do("POST", "/v1/streams/a/events", ce("2", `,"data":3`), isCloudEvent).check(t, 409, "id-reused", cloudEventID("/shop", "2"))
	ts.do("POST", "/v1/streams/a/events", ce("3", ``), isCloudEvent, `If-Match: "9"`).check(t, 412)
	ts.do("POST", "/v1/streams/a/events", `[]`, isBatch).check(t, 400, "at least one")
	ts.do("POST", "/v1/streams/a/events", `[`+ce("4", ``)+`,`+ce("4", ``)+`]`, isBatch).check(t, 400, "events[1].id: is also the id of events[0]")
	ts.do("POST", "/v1/streams/a/events", `[`+ce("4", ``)+`,`+ce("5", `,"subject":""`)+`]`, isBatch).check(t, 400, "events[1].subject: must not be empty")
	ts.do("POST", "/v1/streams/a/events", `[`+ce("4", ``)+`,`+ce("5", `,"x":"`+strings.Repeat("x", maxAttribute+1)+`"`)+`]`, isBatch).check(t, 413, "events[1].x: ")
	if ts.store.count() != before {
		t.Errorf("%d events were written", ts.store.count()-before)
	}
	// Another source or stream is another event.
	ts.do("POST", "/v1/streams/a/events", strings.Replace(ce("1", ``), "/shop", "/store", 1), isCloudEvent).check(t, 201)
	ts.do("POST", "/v1/streams/b/events", ce("1", ``), isCloudEvent).check(t, 201)
}

func TestCloudEvent_Refuses(t *testing.T) {
	ts := serve(t, newFakeStore())
	long := func(n int) string { return strings.Repeat("x", n) }
	for _, c := range []struct {
		body   string
		status int
		part   string
	}{
		{`{"id":"1","source":"/s","type":"T"}`, 400, "specversion: is missing"},
		{`{"specversion":"0.3","id":"1","source":"/s","type":"T","schemaurl":"x"}`, 400, "specversion: must be"},
		{`{"specversion":1.0,"id":"1","source":"/s","type":"T"}`, 400, "specversion: must be an integer"},
		{`{"specversion":"1.0","source":"/s","type":"T"}`, 400, "id: is missing"},
		{`{"specversion":"1.0","id":null,"source":"/s","type":"T"}`, 400, "id: is missing"},
		{`{"specversion":"1.0","id":"1","type":"T"}`, 400, "source: is missing"},
		{`{"specversion":"1.0","id":"1","source":"/s"}`, 400, "type: is missing"},
		{`{"specversion":"1.0","id":"","source":"/s","type":"T"}`, 400, "id: must not be empty"},
		{`{"specversion":"1.0","id":7,"source":"/s","type":"T"}`, 400, "id: must be a string"},
		{`{"specversion":"1.0","id":"7","source":"%zz","type":"T"}`, 400, "source: must be a URI-reference"},
		{`{"specversion":"1.0","id":"7","source":"/s","type":"` + long(event.MaxType+1) + `"}`, 413, "type: "},
		{ce("1", `,"time":"yesterday"`), 400, "time: must be a time"},
		{ce("1", `,"dataschema":"x"`), 400, "dataschema: must be a URI"},
		{ce("1", `,"datacontenttype":"json"`), 400, "datacontenttype: must be a media type"},
		{ce("1", `,"correlationid":5`), 400, "correlationid: must be a string"},
		{ce("1", `,"causationid":"`+long(event.MaxID+1)+`"`), 413, "causationid: "},
		{ce("1", `,"traceParent":"x"`), 400, "traceParent: is no name"},
		{ce("1", `,"trace_parent":null`), 400, "trace_parent: is no name"},
		{ce("1", `,"":"x"`), 400, "is no name"},
		{ce("1", `,"`+long(21)+`":"x"`), 400, long(21) + ": is no name"},
		{ce("1", `,"ext":{}`), 400, "ext: must be a string, a boolean or an integer"},
		{ce("1", `,"ext":1.5`), 400, "ext: must be an integer"},
		{ce("1", `,"ext":2147483648`), 400, "ext: must be an integer"},
		{ce("1", `,"ext":"a\u0007"`), 400, "ext: must not contain control"},
		{ce("1", `,"ext":"\uffff"`), 400, "ext: must not contain control"},
		{ce("1", `,"ext":"`+long(maxAttribute+1)+`"`), 413, "ext: "},
		{ce("1", fmt.Sprintf(`,"a":%[1]q,"b":%[1]q,"c":%[1]q,"d":%[1]q`, long(maxAttribute))), 413, "attributes: "},
		{ce("1", `,"ext":1,"ext":2`), 400, "body: "},
		{ce("1", `,"data":1,"data_base64":"AA=="`), 400, "data_base64: stands beside"},
		{ce("1", `,"data_base64":"AA==","data":null`), 400, "data_base64: stands beside"},
		{ce("1", `,"data_base64":"A"`), 400, "data_base64: must be base64"},
		{ce("1", `,"datacontenttype":"application/json","data_base64":"eyJhIjox"`), 400, "data: is not the JSON"},
		{ce("1", `,"datacontenttype":"text/plain","data":5`), 400, "data: must be a string"},
		{ce("1", `,"data":"`+long(event.MaxData)+`"`), 413, "data: "},
		{ce("1", ``) + `x`, 400, "body: "},
		{`[]`, 400, "body: must be a JSON object"},
		{``, 400, "body: "},
	} {
		a := ts.do("POST", "/v1/streams/a/events", c.body, isCloudEvent)
		a.check(t, c.status, c.part)
	}
	binary := func(more ...string) []string {
		h := []string{"ce-specversion: 1.0", "ce-id: 1", "ce-source: /s", "ce-type: T"}
		return slices.DeleteFunc(append(h, more...), func(s string) bool { return slices.Contains(more, "no "+s) || strings.HasPrefix(s, "no ") })
	}
	for _, c := range []struct {
		headers []string
		body    string
		status  int
		part    string
	}{
		{binary("no ce-specversion: 1.0", isJSON), `1`, 400, "specversion: is missing"},
		{binary("no ce-id: 1", isJSON), `1`, 400, "id: is missing"},
		{binary("ce-id: 2"), `1`, 400, "id: must be there only once"},
		{binary("ce-datacontenttype: a/b"), `1`, 400, "datacontenttype: is the header Content-Type"},
		{binary("ce-data: x"), `1`, 400, "data: is no name"},
		{binary("ce-a-b: x"), `1`, 400, "a-b: is no name"},
		{binary("ce-subject: "), `1`, 400, "subject: must not be empty"},
		{binary("ce-subject: %C0%A0"), `1`, 400, "subject: must be UTF-8"},
		{binary("ce-subject: %00"), `1`, 400, "subject: must not contain control"},
		{binary(isJSON), `{"a":1,"a":2}`, 400, "data: is not the JSON"},
		{binary(isJSON), strings.Repeat("[", event.MaxDepth) + strings.Repeat("]", event.MaxDepth), 400, "data: nests deeper"},
		{binary("Content-Type: nonsense"), `1`, 400, "datacontenttype: must be a media type"},
		{binary("Content-Type: a/b", "Content-Type: a/c"), `1`, 400, "datacontenttype: "},
		{binary(isJSON, "Content-Encoding: gzip"), `1`, 415, "Content-Encoding"},
		{[]string{"Content-Type: application/cloudevents+avro"}, `1`, 415, "application/cloudevents-batch+json"},
		{binary("Content-Type: application/cloudevents+avro"), `1`, 415, "Content-Type"},
	} {
		ts.do("POST", "/v1/streams/a/events", c.body, c.headers...).check(t, c.status, c.part)
	}
	ts.do("POST", "/v1/append", ce("1", ``), isCloudEvent).check(t, 415)
	if n := ts.store.count(); n != 1 {
		t.Errorf("%d events were written", n-1)
	}
}

// Events that did not come as CloudEvents come out as such too.
func TestCloudEvent_Native(t *testing.T) {
	ts := serve(t, newFakeStore())
	ts.post("/v1/streams/a%2Fb%20%C3%BC/events", `[{"type":"T","id":"mine","data":{"a":1},"tags":["x"],"correlation_id":"c","causation_id":"d","meta":{"actor":"z"}},`+
		`{"type":"T","id":"two","content_type":"image/png","data_base64":"AAEC"},{"type":"T","id":"three"}]`).check(t, 201)
	out := ts.get("/v1/streams/a%2Fb%20%C3%BC/events", asksBatch)
	out.check(t, 200)
	out.checkHeader(t, "Content-Type", "application/cloudevents-batch+json", "ETag", `"3"`, "Cairn-Position", "4", "Link", "")
	const common = `"specversion":"1.0","source":"/streams/a%2Fb%20%C3%BC","type":"T","time":"2027-01-15T08:00:00.000000000Z"`
	sameJSON(t, out.body, `[{`+common+`,"id":"mine","datacontenttype":"application/json","correlationid":"c","causationid":"d","cairnposition":"2","cairnversion":"1","data":{"a":1}},`+
		`{`+common+`,"id":"two","datacontenttype":"image/png","cairnposition":"3","cairnversion":"2","data_base64":"AAEC"},`+
		`{`+common+`,"id":"three","datacontenttype":"application/json","cairnposition":"4","cairnversion":"3","data":null}]`)
}

// Meta that a client wrote by itself is believed only if a CloudEvent could
// have left it.
func TestCloudEvent_ForeignMeta(t *testing.T) {
	ts := serve(t, newFakeStore())
	id := cloudEventID("/s", "1")
	for i, c := range []struct {
		id, meta string
		believed bool
	}{
		{id, `{"cloudevent":{"id":"1","source":"/s","more":true},"actor":"x"}`, true},
		{"other", `{"cloudevent":{"id":"1","source":"/s"}}`, false},
		{id, `{"cloudevent":{"id":"1"}}`, false},
		{id, `{"cloudevent":"id"}`, false},
		{id, `{"x":{"cloudevent":{"id":"1","source":"/s"}}}`, false},
		{id, `{"cloudevent":{"id":"1","source":"/s","cairnposition":"5"}}`, false},
		{id, `{"cloudevent":{"id":"1","source":"/s","type":"U"}}`, false},
		{id, `{"cloudevent":{"id":"1","source":"/s","data":5}}`, false},
		{id, `{"cloudevent":{"id":"1","source":"/s","EXT":"a"}}`, false},
		{id, `{"cloudevent":{"id":"1","source":"/s","time":"noon"}}`, false},
		{id, `{"cloudevent":{"id":"1","source":"/s","datacontenttype":"image/png"}}`, false},
	} {
		stream := fmt.Sprintf("/v1/streams/s%d/events", i)
		ts.post(stream, `{"type":"T","id":"`+c.id+`","meta":`+c.meta+`}`).check(t, 201)
		source := fmt.Sprintf(`"source":"/streams/s%d"`, i)
		if c.believed {
			source = `"source":"/s"`
		}
		ts.get(stream+"/1", asksOne).check(t, 200, source, `"type":"T"`, fmt.Sprintf(`"cairnposition":"%d"`, i+2))
	}
}

func TestCloudEvent_Pages(t *testing.T) {
	ts := serve(t, filled(60))
	path, ids := "/v1/events?limit=7", []string{}
	for path != "" {
		a := ts.get(path, asksBatch)
		a.check(t, 200)
		a.checkHeader(t, "ETag", "", "Cairn-Position", fmt.Sprint(ts.store.count()))
		var batch []struct{ CairnPosition string }
		if err := json.Unmarshal([]byte(a.body), &batch); err != nil {
			t.Fatalf("%v: %s", err, a.body)
		}
		for _, e := range batch {
			ids = append(ids, e.CairnPosition)
		}
		link := a.header.Get("Link")
		path = strings.TrimSuffix(strings.TrimPrefix(link, "<"), `>; rel="next"`)
		if (path == "") != (link == "") || len(batch) > 7 {
			t.Fatalf("%d events, Link %q", len(batch), link)
		}
	}
	if len(ids) != ts.store.count() || ids[0] != "1" || ids[len(ids)-1] != fmt.Sprint(len(ids)) {
		t.Errorf("read %v of %d", ids, ts.store.count())
	}
	ts.get("/v1/events?after=999", asksBatch).check(t, 200, "[]")
	ts.get("/v1/streams/none/events", asksBatch).check(t, 404)
	ts.get("/v1/events?follow=true", asksBatch).check(t, 400, "follow: ")
	ts.do("POST", "/v1/query", `{"query":{"items":[{"types":["T1"]}]},"limit":2}`, isJSON, asksBatch).check(t, 200, `[{"specversion"`)
	for _, accept := range []string{asksOne, "Accept: text/html, application/json", "Accept: application/cloudevents-batch+json;q=0"} {
		ts.get("/v1/events?limit=1", accept).checkHeader(t, "Content-Type", "application/json")
	}
	ts.get("/v1/events/2", asksBatch).checkHeader(t, "Content-Type", "application/json")
}

// A batch larger than what is otherwise sent in parts is whole, with its headers.
func TestCloudEvent_LargePage(t *testing.T) {
	store := newFakeStore()
	for range 12 {
		store.add(event.Event{Stream: "a", Type: "T", ID: "i", Data: []byte(`"` + strings.Repeat("x", 500_000) + `"`)})
	}
	ts := serve(t, store)
	a := ts.get("/v1/streams/a/events", asksBatch)
	a.check(t, 200)
	var batch []json.RawMessage
	if err := json.Unmarshal([]byte(a.body), &batch); err != nil || len(batch) < 2 || len(batch) > 9 {
		t.Fatalf("%d events (%v)", len(batch), err)
	}
	if link := a.header.Get("Link"); !strings.Contains(link, fmt.Sprintf("from=%d", len(batch)+1)) {
		t.Errorf("Link is %q after %d events", link, len(batch))
	}
	small := serve(t, store, func(o *Options) { o.MaxHeldBytes = 4 * maxBody })
	held := small.budget.hold()
	if err := held.grow(4*maxBody - 1<<20); err != nil {
		t.Fatal(err)
	}
	small.get("/v1/streams/a/events", asksBatch).check(t, http.StatusServiceUnavailable, "overloaded")
	held.release()
}
