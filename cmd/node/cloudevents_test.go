package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
)

// sample is a CloudEvent with all that one may have; data of another type than
// JSON if media is not "".
func sample(t *testing.T, id, media string) cloudevents.Event {
	t.Helper()
	e := cloudevents.NewEvent()
	e.SetID(id)
	e.SetSource("https://shop.example/orders?a=b")
	e.SetType("com.example.order.placed")
	e.SetSubject("order/7")
	e.SetTime(time.Date(2026, 1, 31, 9, 30, 0, 500_000_000, time.UTC))
	e.SetDataSchema("https://shop.example/order.json")
	e.SetExtension("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	e.SetExtension("correlationid", "corr-7")
	e.SetExtension("causationid", "cause-7")
	var err error
	if media == "" {
		err = e.SetData(cloudevents.ApplicationJSON, map[string]any{"total": 12.5, "lines": []string{"ü", "b"}})
	} else {
		err = e.SetData(media, []byte{0, 1, 0xff, '"'})
	}
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// fetch asks for CloudEvents.
func (p *process) fetch(path, accept string) *http.Response {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, "http://"+p.http+path, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Accept", accept)
	resp, err := httpClient.Do(req)
	if err != nil || resp.StatusCode != http.StatusOK {
		p.t.Fatalf("%s: %v, %v", path, resp, err)
	}
	p.t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// sameEvent compares what was sent with what came back, which must say where it
// stands too.
func sameEvent(t *testing.T, got, sent cloudevents.Event, position, version int) {
	t.Helper()
	if err := got.Validate(); err != nil {
		t.Errorf("not valid: %v", err)
	}
	sent = sent.Clone()
	sent.SetExtension("cairnposition", fmt.Sprint(position))
	sent.SetExtension("cairnversion", fmt.Sprint(version))
	var forms [2]string
	for i, e := range []cloudevents.Event{got, sent} {
		e.DataBase64 = false // the form in which data travels is not part of it
		b, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		var members map[string]any
		if err := json.Unmarshal(b, &members); err != nil {
			t.Fatal(err)
		}
		b, _ = json.Marshal(members)
		forms[i] = string(b)
	}
	if forms[0] != forms[1] || string(got.Data()) != string(sent.Data()) {
		t.Errorf("got  %s\nwant %s", forms[0], forms[1])
	}
}

// status is that of the answer to an event that was sent.
func status(result error) int {
	var r *cehttp.Result
	if !errors.As(result, &r) {
		return 0
	}
	return r.StatusCode
}

// The official Go SDK as the client of a real node: what it sends in each mode
// it gets back, and a retry is one.
func TestCloudEvents_SDK(t *testing.T) {
	c := newCluster(t, 1)
	c.up()
	p := c.nodes[0]
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	target := "http://" + p.http + "/v1/streams/order-7/events"
	client, err := cloudevents.NewClientHTTP(cehttp.WithTarget(target))
	if err != nil {
		t.Fatal(err)
	}
	base, version := int(p.head()), 0
	for _, mode := range []struct {
		name string
		with func(context.Context) context.Context
	}{{"binary", cloudevents.WithEncodingBinary}, {"structured", cloudevents.WithEncodingStructured}} {
		for _, media := range []string{"", "image/png"} {
			sent := sample(t, mode.name+media, media)
			if mode.name == "structured" { // headers have no types
				sent.SetExtension("count", int32(3))
				sent.SetExtension("flag", true)
			}
			version++
			for _, want := range []int{201, 200} { // the second is a retry
				result := client.Send(mode.with(ctx), sent)
				if !cloudevents.IsACK(result) || status(result) != want {
					t.Fatalf("%s, %q: %v, want %d", mode.name, media, result, want)
				}
			}
			changed, moved := sent.Clone(), sent.Clone()
			if err := changed.SetData(cloudevents.ApplicationJSON, "other"); err != nil {
				t.Fatal(err)
			}
			moved.SetSubject("another")
			for _, other := range []cloudevents.Event{changed, moved} {
				if result := client.Send(mode.with(ctx), other); status(result) != 409 {
					t.Errorf("%s, %q: the same id for another event: %v", mode.name, media, result)
				}
			}
			got, err := cehttp.NewEventFromHTTPResponse(p.fetch(fmt.Sprintf("/v1/events/%d", base+version), "application/cloudevents+json"))
			if err != nil {
				t.Fatal(err)
			}
			sameEvent(t, *got, sent, base+version, version)
		}
	}
	batch := []cloudevents.Event{sample(t, "b1", ""), sample(t, "b2", "text/plain"), sample(t, "b3", "")}
	for _, want := range []int{201, 200} {
		req, err := cehttp.NewHTTPRequestFromEvents(ctx, target, batch)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := httpClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Fatalf("batch: status %d, want %d", resp.StatusCode, want)
		}
	}
	if a, err := p.request(ctx, "POST", "/v1/streams/order-7/events", `{"type":"Native","id":"n","data":{"x":1}}`); err != nil || a.status != 201 {
		t.Fatalf("%v, %v", a, err)
	}
	resp := p.fetch(fmt.Sprintf("/v1/streams/order-7/events?from=%d", version+1), "application/cloudevents-batch+json")
	if resp.Header.Get("ETag") != `"8"` || resp.Header.Get("Link") != "" {
		t.Errorf("ETag %s, Link %q", resp.Header.Get("ETag"), resp.Header.Get("Link"))
	}
	got, err := cehttp.NewEventsFromHTTPResponse(resp)
	if err != nil || len(got) != 4 {
		t.Fatalf("%d events, %v", len(got), err)
	}
	for i, sent := range batch {
		version++
		sameEvent(t, got[i], sent, base+version, version)
	}
	native := got[3]
	if err := native.Validate(); err != nil || native.Source() != "/streams/order-7" || native.ID() != "n" || string(native.Data()) != `{"x":1}` {
		t.Errorf("%v (%v)", native, err)
	}
}
