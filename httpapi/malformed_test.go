package httpapi

import (
	"fmt"
	"strings"
	"testing"

	"cairn/event"
)

// Every limit and every malformed thing of the contract gets its problem, and
// nothing of it is written.
func TestRoutes_Malformed(t *testing.T) {
	store := newFakeStore()
	store.add(event.Event{Stream: "a", Type: "T"}, event.Event{Stream: "a", Type: "T"})
	ts := serve(t, store)
	before := store.count()
	for _, c := range malformed() {
		name := c.method + " " + c.path
		if len(name) > 60 {
			name = name[:60]
		}
		t.Run(name+" "+c.why, func(t *testing.T) {
			ts := *ts
			ts.t = t
			a := ts.do(c.method, c.path, c.body, c.headers...)
			if c.method == "HEAD" {
				a.check(t, c.status)
			} else {
				a.check(t, c.status, `"type":"urn:cairn:error:`+string(c.code)+`"`, fmt.Sprintf(`"status":%d`, c.status), c.detail)
			}
			a.checkHeader(t, "Content-Type", "application/problem+json", "Cairn-Node", "node-1")
			if c.status == 405 && a.header.Get("Allow") == "" {
				t.Error("a 405 must say what is allowed")
			}
		})
	}
	if store.count() != before {
		t.Errorf("%d events were written", store.count()-before)
	}
}

type bad struct {
	method, path, body string
	headers            []string
	status             int
	code               Code
	detail             string // part of the answer
	why                string
}

func malformed() []bad {
	var list []bad
	list = append(list, malformedPaths()...)
	list = append(list, malformedHeaders()...)
	list = append(list, malformedEvents()...)
	list = append(list, malformedAppends()...)
	list = append(list, malformedReads()...)
	list = append(list, malformedFollows()...)
	return append(list, malformedCluster()...)
}

func malformedPaths() []bad {
	get := func(path string, status int, code Code, detail, why string) bad {
		return bad{method: "GET", path: path, status: status, code: code, detail: detail, why: why}
	}
	long := strings.Repeat("x", event.MaxStream+1)
	var list []bad
	for _, at := range []string{"/v1/streams/%s/events", "/v1/streams/%s/events/1"} {
		list = append(list,
			get(fmt.Sprintf(at, "%2E"), 400, InvalidRequest, "stream", "dot"),
			get(fmt.Sprintf(at, "%2E%2E"), 400, InvalidRequest, "stream", "dots"),
			get(fmt.Sprintf(at, "a%00b"), 400, InvalidRequest, "stream", "control"),
			get(fmt.Sprintf(at, "a%C2%85"), 400, InvalidRequest, "stream", "C1 control"),
			get(fmt.Sprintf(at, "%FF"), 400, InvalidRequest, "UTF-8", "not UTF-8"),
			get(fmt.Sprintf(at, long), 413, TooLarge, "512", "long"),
		)
	}
	list = append(list,
		bad{method: "HEAD", path: "/v1/streams/%FF", status: 400, why: "not UTF-8"},
		bad{method: "HEAD", path: "/v1/streams/none", status: 404, why: "no such stream"},
		get("/v1/streams/none/events", 404, NotFound, "none", "no such stream"),
		get("/v1/streams/a/events/3", 404, NotFound, "", "no such version"),
		get("/v1/events/99", 404, NotFound, "", "no such position"),
		get("/v1/events/0", 400, InvalidRequest, "position", "zero"),
		get("/v1/events/01", 400, InvalidRequest, "position", "leading zero"),
		get("/v1/events/+1", 400, InvalidRequest, "position", "sign"),
		get("/v1/events/18446744073709551616", 400, InvalidRequest, "position", "too big a number"),
		get("/v1/streams/a/events/0", 400, InvalidRequest, "version", "zero"),
		get("/v1/streams/a/events/x", 400, InvalidRequest, "version", "no number"),
		get("/", 404, NotFound, "", "no route"),
		get("/v1/streams/a/b/events", 404, NotFound, "", "slash not encoded"),
		get("/v1/events/", 404, NotFound, "", "slash behind"),
		get("/v1//events", 404, NotFound, "", "two slashes"),
		get("/v1/../v1/events", 404, NotFound, "", "dots in the path"),
	)
	for _, c := range []struct{ method, path string }{
		{"PUT", "/v1/streams/a/events"}, {"GET", "/v1/append"}, {"DELETE", "/v1/events"}, {"POST", "/v1/events/1"},
		{"GET", "/v1/streams/a"}, {"GET", "/v1/query"}, {"POST", "/v1/cluster"}, {"GET", "/v1/cluster/transfer"},
		{"POST", "/v1/cluster/members/x"}, {"POST", "/healthz"}, {"OPTIONS", "/v1/append"}, {"BREW", "/v1/events"},
	} {
		list = append(list, bad{method: c.method, path: c.path, status: 405, code: MethodNotAllowed})
	}
	return list
}

func malformedHeaders() []bad {
	post := func(status int, code Code, detail, why string, headers ...string) bad {
		return bad{"POST", "/v1/streams/a/events", `{"type":"T"}`, headers, status, code, detail, why}
	}
	long := strings.Repeat("k", maxIdempotencyKey+1)
	list := []bad{
		post(415, UnsupportedMedia, "Content-Type", "none"),
		post(415, UnsupportedMedia, "", "form", "Content-Type: application/x-www-form-urlencoded"),
		post(415, UnsupportedMedia, "", "multipart", "Content-Type: multipart/form-data; boundary=x"),
		post(415, UnsupportedMedia, "", "plain", "Content-Type: text/plain"),
		post(415, UnsupportedMedia, "", "charset", "Content-Type: application/json; charset=latin1"),
		post(415, UnsupportedMedia, "", "two", isJSON, isJSON),
		post(415, UnsupportedMedia, "", "malformed", "Content-Type: application/json; ="),
		post(415, UnsupportedMedia, "Content-Encoding", "compressed", isJSON, "Content-Encoding: gzip"),
		post(400, InvalidRequest, "Idempotency-Key", "empty key", isJSON, "Idempotency-Key: "),
		post(413, TooLarge, "Idempotency-Key", "long key", isJSON, "Idempotency-Key: "+long),
		post(400, InvalidRequest, "Idempotency-Key", "two keys", isJSON, "Idempotency-Key: a", "Idempotency-Key: b"),
		post(400, InvalidRequest, "Idempotency-Key", "not UTF-8", isJSON, "Idempotency-Key: \xff"),
		post(400, InvalidRequest, "If-None-Match", "not *", isJSON, `If-None-Match: "7"`),
		post(403, Forbidden, "Host", "name of another", isJSON, "Host: evil.example"),
		post(403, Forbidden, "Origin", "another origin", isJSON, "Origin: http://evil.example"),
		post(403, Forbidden, "Origin", "no origin", isJSON, "Origin: null"),
	}
	for _, etag := range []string{`7`, `"7`, `""`, `"x"`, `"-1"`, `"+1"`, `"01"`, `W/"7"`, `"7", "8"`, `"18446744073709551616"`, `'7'`, ``} {
		list = append(list, post(400, InvalidRequest, "If-Match", etag, isJSON, "If-Match: "+etag))
	}
	return append(list,
		bad{"POST", "/v1/append", `{"events":[{"stream":"a","type":"T"}]}`, []string{isJSON, `If-Match: "2"`}, 400, InvalidRequest, "conditions", "header condition"},
		bad{"POST", "/v1/append", "", []string{"Content-Type: application/x-ndjson", "Idempotency-Key: k"}, 400, InvalidRequest, "Idempotency-Key", "key for lines"},
		bad{"GET", "/v1/events", "", []string{"Host: evil.example"}, 403, Forbidden, "Host", "name of another"},
	)
}

// malformedEvents are faults of one event, which every route must find.
func malformedEvents() []bad {
	deep := strings.Repeat("[", event.MaxDepth) + strings.Repeat("]", event.MaxDepth)
	long := strings.Repeat("x", event.MaxID+1)
	tags := strings.Repeat(`"t",`, event.MaxTags) + `"t"`
	var list []bad
	for _, c := range []struct {
		members string // of an event, behind its type
		status  int
		code    Code
		detail  string
	}{
		{`,"unknown":1`, 400, InvalidEvent, "unknown"},
		{`,"type":"T"`, 400, InvalidRequest, "duplicate"},
		{`,"data":{"a":1,"a":2}`, 400, InvalidRequest, "duplicate"},
		{`,"data":{"a":[{"b":1,"\u0062":2}]}`, 400, InvalidRequest, "duplicate"},
		{`,"data":` + deep, 400, InvalidRequest, "128"},
		{",\"data\":\"\xff\"", 400, InvalidRequest, "UTF-8"},
		{`,"data":"\ud800"`, 400, InvalidRequest, ""},
		{`,"data":01`, 400, InvalidRequest, ""},
		{`,"data":{},`, 400, InvalidRequest, ""},
		{`,"data":"` + strings.Repeat("x", event.MaxData) + `"`, 413, TooLarge, "data"},
		{`,"data":1,"data_base64":"AA=="`, 400, InvalidEvent, "data_base64"},
		{`,"content_type":"image/png"`, 400, InvalidEvent, "data_base64"},
		{`,"content_type":"image/png","data_base64":"A"`, 400, InvalidEvent, "base64"},
		{`,"meta":[]`, 400, InvalidEvent, "meta"},
		{`,"meta":{"a":"` + strings.Repeat("x", event.MaxMeta) + `"}`, 413, TooLarge, "meta"},
		{`,"id":""`, 400, InvalidEvent, "id"},
		{`,"id":7`, 400, InvalidEvent, "id"},
		{`,"id":null`, 400, InvalidEvent, "id"},
		{`,"id":"` + long + `"`, 413, TooLarge, "id"},
		{`,"correlation_id":"` + long + `"`, 413, TooLarge, "correlation_id"},
		{`,"causation_id":"` + long + `"`, 413, TooLarge, "causation_id"},
		{`,"compensates":"` + long + `"`, 413, TooLarge, "compensates"},
		{`,"tags":"x"`, 400, InvalidEvent, "tags"},
		{`,"tags":["x","x"]`, 400, InvalidEvent, "tags[1]"},
		{`,"tags":["a\u0007"]`, 400, InvalidEvent, "tags[0]"},
		{`,"tags":["` + long + `"]`, 413, TooLarge, "tags[0]"},
		{`,"tags":[` + tags + `]`, 413, TooLarge, "tags"},
		{`,"schema":-1`, 400, InvalidEvent, "schema"},
		{`,"schema":1.5`, 400, InvalidEvent, "schema"},
		{`,"position":1`, 400, InvalidEvent, "position"},
	} {
		name := c.members[:min(len(c.members), 30)]
		one := `{"type":"T"` + c.members + `}`
		many := `{"stream":"a","type":"T"` + c.members + `}`
		list = append(list,
			bad{"POST", "/v1/streams/a/events", one, []string{isJSON}, c.status, c.code, c.detail, name},
			bad{"POST", "/v1/streams/a/events", `[{"type":"T"},` + one + `]`, []string{isJSON}, c.status, c.code, c.detail, "second of " + name},
			bad{"POST", "/v1/streams/a/events", "{\"type\":\"T\"}\n" + one + "\n", []string{"Content-Type: application/x-ndjson"}, c.status, c.code, c.detail, "line " + name},
			bad{"POST", "/v1/append", `{"events":[{"stream":"b","type":"T"},` + many + `]}`, []string{isJSON}, c.status, c.code, c.detail, name},
		)
	}
	return list
}

func malformedAppends() []bad {
	var list []bad
	add := func(path, body string, status int, code Code, detail string) {
		list = append(list, bad{"POST", path, body, []string{isJSON}, status, code, detail, body[:min(len(body), 40)]})
	}
	one := "/v1/streams/a/events"
	for _, body := range []string{``, ` `, `7`, `"x"`, `null`, `{`, `[`, `[{"type":"T"}`, `[{"type":"T"},]`, `[{"type":"T"}]]`, `{"type":"T"}{}`, `{"type":"T"} x`,
		"\ufeff{\"type\":\"T\"}", `[{"type":"T"} {"type":"T"}]`, `[{"type":"T"}x{"type":"T"}]`, `[,]`, `[}`, `[{"type":"T"}:]`, `{type:"T"}`, `{'type':'T'}`} {
		add(one, body, 400, InvalidRequest, "")
	}
	add(one, `[]`, 400, InvalidRequest, "events")
	add(one, `{}`, 400, InvalidEvent, "type")
	add(one, `{"type":""}`, 400, InvalidEvent, "type")
	add(one, `[7]`, 400, InvalidRequest, "events[0]")
	add(one, `{"type":"`+strings.Repeat("x", event.MaxType+1)+`"}`, 413, TooLarge, "type")
	add(one, `{"type":"T","stream":"a"}`, 400, InvalidEvent, "stream")
	add(one, `[{"type":"T","id":"x"},{"type":"T","id":"x"}]`, 400, InvalidEvent, "events[1].id")
	add(one, `[`+strings.Repeat(`{"type":"T"},`, event.MaxAppendEvents)+`{"type":"T"}]`, 413, TooLarge, "events")
	big := `{"type":"T","data":"` + strings.Repeat("x", 900<<10) + `"}`
	add(one, `[`+big+`,`+big+`,`+big+`]`, 413, TooLarge, "2097152")
	add(one, strings.Repeat(" ", maxBody+1), 413, TooLarge, "body")
	add("/v1/streams/$log/events", `{"type":"T"}`, 400, InvalidRequest, "'$'")
	add("/v1/streams/a/events?on_error=continue", `{"type":"T"}`, 400, InvalidRequest, "on_error")
	add("/v1/append?x=1", `{}`, 400, InvalidRequest, "x")

	many := "/v1/append"
	for _, body := range []string{``, `[]`, `{`, `{}}`, `{} x`, `{"events":[{"stream":"a","type":"T"}],}`, `{"events":{}}`, `{"events":[]}`, `{}`, `{"events"}`, `{"events":}`,
		`{"events":[{"stream":"a","type":"T"}],"events":[]}`, `{"events":[{"stream":"a","type":"T"}],"more":1}`, `{"events":[{"stream":"a","type":"T"}],"conditions":{}}`,
		`{"events":[{"stream":"a","type":"T"}],"conditions":null}`, `{"\ud800":1}`, `{"conditions":[]x"events":[{"stream":"a","type":"T"}]}`, `{"events"x[{"stream":"a","type":"T"}]}`, `{"\u0065vents":[],"events":[]}`} {
		add(many, body, 400, InvalidRequest, "")
	}
	add(many, `{"events":[{"type":"T"}]}`, 400, InvalidEvent, "stream")
	add(many, `{"events":[{"stream":"$log","type":"T"}]}`, 400, InvalidEvent, "'$'")
	add(many, `{"events":[{"stream":"..","type":"T"}]}`, 400, InvalidEvent, "stream")
	for _, c := range []string{`7`, `{}`, `{"stream":"a"}`, `{"version":1}`, `{"stream":"a","version":1,"exists":true}`, `{"stream":"a","version":-1}`, `{"stream":"a","version":"1"}`,
		`{"stream":"a","version":1,"after":2}`, `{"stream":"a","exists":1}`, `{"stream":7,"version":1}`, `{"stream":"","version":1}`, `{"query":{}, "stream":"a"}`, `{"query":[]}`, `{"query":{"items":{}}}`,
		`{"query":{"items":[7]}}`, `{"query":{"items":[{"types":"T"}]}}`, `{"query":{"items":[{"types":[""]}]}}`, `{"query":{"items":[{"kinds":["T"]}]}}`, `{"query":{"items":[]},"after":-1}`,
		`{"query":{"items":[],"items":[]}}`, `{"after":1}`, `{"stream":"a","version":1,"version":1}`} {
		list = append(list, bad{"POST", many, `{"events":[{"stream":"a","type":"T"}],"conditions":[` + c + `]}`, []string{isJSON}, 400, InvalidRequest, "conditions[0]", c})
	}
	add(many, `{"events":[{"stream":"a","type":"T"}],"conditions":[`+strings.Repeat(`{"stream":"a","exists":true},`, event.MaxConditions)+`{"stream":"a","exists":true}]}`, 413, TooLarge, "conditions")
	add(many, `{"events":[{"stream":"a","type":"T"}],"conditions":[{"query":{"items":[{"types":[`+strings.Repeat(`"T",`, event.MaxQueryTerms)+`"T"]}]}}]}`, 413, TooLarge, "items")
	return list
}

func malformedReads() []bad {
	var list []bad
	get := func(path, detail string) {
		list = append(list, bad{method: "GET", path: path, status: 400, code: InvalidRequest, detail: detail})
	}
	for _, path := range []string{"/v1/events", "/v1/streams/a/events", "/v1/streams"} {
		get(path+"?unknown=1", "unknown")
		get(path+"?limit=0", "limit")
		get(path+"?limit=10001", "limit")
		get(path+"?limit=x", "limit")
		get(path+"?limit=", "limit")
		get(path+"?limit=1&limit=2", "limit")
		get(path+"?at_position=0", "at_position")
		get(path+"?a;b", "query")
		get(path+"?%zz=1", "query")
	}
	for _, path := range []string{"/v1/events", "/v1/streams/a/events", "/v1/streams", "/v1/events/1", "/v1/streams/a/events/1"} {
		get(path+"?consistency=maybe", "consistency")
		get(path+"?min_position=x", "min_position")
		get(path+"?min_position=1@", "min_position")
		get(path+"?timeout=0s", "timeout")
		get(path+"?timeout=61s", "timeout")
		get(path+"?timeout=5", "timeout")
		get(path+"?timeout=-1s", "timeout")
		list = append(list, bad{method: "GET", path: path + "?min_position=1@other", status: 409, code: LogChanged, detail: `"log":"` + testLog + `"`})
		list = append(list, bad{method: "GET", path: path + "?min_position=99&timeout=10ms", status: 503, code: Timeout})
	}
	for _, path := range []string{"/v1/events", "/v1/streams/a/events"} {
		get(path+"?order=up", "order")
		get(path+"?follow=maybe", "follow")
		get(path+"?follow=true&limit=1", "limit")
		get(path+"?follow=true&order=desc", "order")
		get(path+"?follow=true&at_position=1", "at_position")
	}
	get("/v1/events?after=-1", "after")
	get("/v1/events?after=1.0", "after")
	get("/v1/events?before=2", "before")
	get("/v1/events?from=1", "from")
	get("/v1/events?type=", "type")
	get("/v1/events?type=a%07", "type")
	get("/v1/events?tag=%FF", "tag")
	get("/v1/events?category=a%00", "category")
	get("/v1/events?stream_prefix=%FF", "stream_prefix")
	get("/v1/events?from_time=yesterday", "from_time")
	get("/v1/events?to_time=1234", "to_time")
	get("/v1/streams/a/events?from=0", "from")
	get("/v1/streams/a/events?after=1", "after")
	get("/v1/streams/a/events?type=T", "type")
	get("/v1/streams?prefix=%00", "prefix")
	get("/v1/events/1?at_position=1", "at_position")
	get("/v1/openapi.json?x=1", "x")
	long := strings.Repeat("x", event.MaxID+1)
	for _, name := range []string{"type", "tag", "correlation_id", "causation_id"} {
		list = append(list, bad{method: "GET", path: "/v1/events?" + name + "=" + long, status: 413, code: TooLarge, detail: name})
	}
	for _, body := range []string{``, `[]`, `{}`, `{"query":7}`, `{"query":{"items":[{"x":1}]}}`, `{"query":{"items":[]},"limit":0}`, `{"query":{"items":[]},"limit":10001}`, `{"query":{"items":[]},"after":"1"}`,
		`{"query":{"items":[]},"more":1}`, `{"query":{"items":[]}} x`, `{"query":{"items":[]},"query":{"items":[]}}`} {
		list = append(list, bad{"POST", "/v1/query", body, []string{isJSON}, 400, InvalidRequest, "", body})
	}
	return append(list, bad{method: "POST", path: "/v1/query", body: `{}`, status: 415, code: UnsupportedMedia},
		bad{"POST", "/v1/query?follow=true", `{"query":{"items":[]}}`, []string{isJSON}, 400, InvalidRequest, "follow", ""})
}

func malformedFollows() []bad {
	var list []bad
	for _, as := range []string{"Accept: text/event-stream", "X: y"} {
		for _, path := range []string{"/v1/events", "/v1/streams/a/events"} {
			list = append(list,
				bad{method: "GET", path: path + "?follow=true", headers: []string{as, "Last-Event-ID: 1@other"}, status: 409, code: LogChanged, detail: `"log":"` + testLog + `"`},
				bad{method: "GET", path: path + "?follow=true", headers: []string{as, "Last-Event-ID: x"}, status: 400, code: InvalidRequest, detail: "Last-Event-ID"},
				bad{method: "GET", path: path + "?follow=true", headers: []string{as, "Last-Event-ID: 1@"}, status: 400, code: InvalidRequest, detail: "Last-Event-ID"},
			)
		}
	}
	return append(list, bad{method: "GET", path: "/v1/events?follow=true&after=1@other", status: 409, code: LogChanged})
}

func malformedCluster() []bad {
	return []bad{
		{method: "POST", path: "/v1/cluster/transfer", status: 415, code: UnsupportedMedia, why: "no type"},
		{"POST", "/v1/cluster/transfer", "x", []string{"Content-Type: text/plain"}, 415, UnsupportedMedia, "", "plain"},
		{"POST", "/v1/cluster/transfer", `{"to":7}`, []string{isJSON}, 400, InvalidRequest, "to", "no text"},
		{"POST", "/v1/cluster/transfer", `{"whom":"x"}`, []string{isJSON}, 400, InvalidRequest, "whom", "unknown"},
		{"POST", "/v1/cluster/transfer", `{"to":"node-7"}`, []string{isJSON}, 404, NotFound, "node-7", "no member"},
		{"POST", "/v1/cluster/transfer", strings.Repeat(" ", freeBytes+1), []string{isJSON}, 413, TooLarge, "body", "large"},
		{method: "DELETE", path: "/v1/cluster/members/node-7", status: 404, code: NotFound, detail: "node-7"},
		{method: "DELETE", path: "/v1/cluster/members/node-2", headers: []string{"Origin: http://evil.example"}, status: 403, code: Forbidden},
		{method: "GET", path: "/v1/cluster?x=1", status: 400, code: InvalidRequest, detail: "x"},
	}
}
