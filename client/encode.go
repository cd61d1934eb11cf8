package client

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"cairn/event"
)

// EncodeEvent appends the form in which an event is appended to several
// streams: a line that `cairn import` takes. Position, version and time are
// left out.
func EncodeEvent(dst []byte, e *event.Event) ([]byte, error) {
	w := encoder{b: dst}
	w.event(e, true)
	return w.b, w.err
}

// encoder builds JSON. The first text that can't be encoded is kept as err.
type encoder struct {
	b   []byte
	err error
}

func (w *encoder) raw(s string) { w.b = append(w.b, s...) }

func (w *encoder) text(s string) {
	b, err := jsontext.AppendQuote(w.b, s)
	if err != nil && w.err == nil {
		w.err = fmt.Errorf("%q: %w", s, err)
	}
	w.b = b
}

func (w *encoder) number(n uint64) { w.b = strconv.AppendUint(w.b, n, 10) }

// member appends a member with a text, led by a comma, unless the text is "".
func (w *encoder) member(name, value string) {
	if value == "" {
		return
	}
	w.raw(`,"`)
	w.raw(name)
	w.raw(`":`)
	w.text(value)
}

func (w *encoder) texts(list []string) {
	w.raw("[")
	for i, s := range list {
		if i > 0 {
			w.raw(",")
		}
		w.text(s)
	}
	w.raw("]")
}

// event appends the form in which an event is appended, with its stream if
// that is not named otherwise.
func (w *encoder) event(e *event.Event, stream bool) {
	w.raw(`{"type":`)
	w.text(e.Type)
	if stream {
		w.raw(`,"stream":`)
		w.text(e.Stream)
	}
	w.member("id", e.ID)
	if len(e.Tags) > 0 {
		w.raw(`,"tags":`)
		w.texts(e.Tags)
	}
	w.member("correlation_id", e.CorrelationID)
	w.member("causation_id", e.CausationID)
	w.member("compensates", e.Compensates)
	if e.Schema != 0 {
		w.raw(`,"schema":`)
		w.number(uint64(e.Schema))
	}
	if e.ContentType != "" {
		w.member("content_type", e.ContentType)
		w.raw(`,"data_base64":"`)
		w.b = base64.StdEncoding.AppendEncode(w.b, e.Data)
		w.raw(`"`)
	} else if len(e.Data) > 0 {
		w.raw(`,"data":`)
		w.b = append(w.b, e.Data...)
	}
	if len(e.Meta) > 0 {
		w.raw(`,"meta":`)
		w.b = append(w.b, e.Meta...)
	}
	w.raw("}")
}

func (w *encoder) events(events []event.Event, stream bool) {
	w.raw("[")
	for i := range events {
		if i > 0 {
			w.raw(",")
		}
		w.event(&events[i], stream)
	}
	w.raw("]")
}

// request appends the body of POST /v1/append.
func (w *encoder) request(a *event.Append) {
	w.raw(`{"events":`)
	w.events(a.Events, true)
	if len(a.Conditions) > 0 {
		w.raw(`,"conditions":[`)
		for i := range a.Conditions {
			if i > 0 {
				w.raw(",")
			}
			w.condition(&a.Conditions[i])
		}
		w.raw("]")
	}
	w.raw("}")
}

func (w *encoder) condition(c *event.Condition) {
	if c.Kind == event.NoMatch {
		w.raw(`{"query":`)
		w.query(c.Query)
		w.raw(`,"after":`)
		w.number(c.After)
		w.raw("}")
		return
	}
	w.raw(`{"stream":`)
	w.text(c.Stream)
	switch c.Kind {
	case event.StreamAtVersion:
		w.raw(`,"version":`)
		w.number(c.Version)
	case event.StreamExists:
		w.raw(`,"exists":true`)
	case event.StreamMissing:
		w.raw(`,"exists":false`)
	default:
		if w.err == nil {
			w.err = fmt.Errorf("condition of unknown kind %d", c.Kind)
		}
	}
	w.raw("}")
}

func (w *encoder) query(q event.Query) {
	w.raw(`{"items":[`)
	for i, item := range q.Items {
		if i > 0 {
			w.raw(",")
		}
		w.raw("{")
		if len(item.Types) > 0 {
			w.raw(`"types":`)
			w.texts(item.Types)
		}
		if len(item.Tags) > 0 {
			if len(item.Types) > 0 {
				w.raw(",")
			}
			w.raw(`"tags":`)
			w.texts(item.Tags)
		}
		w.raw("}")
	}
	w.raw("]}")
}

// filterParameters writes a filter as the parameters of GET /v1/events. A
// filter's stream is not among them: it is part of the path.
func filterParameters(f *event.Filter, to url.Values) error {
	switch len(f.Query.Items) {
	case 0:
	case 1:
		for _, typ := range f.Query.Items[0].Types {
			to.Add("type", typ)
		}
		for _, tag := range f.Query.Items[0].Tags {
			to.Add("tag", tag)
		}
	default:
		return fmt.Errorf("a filter can have one query item, not %d; use Query for several", len(f.Query.Items))
	}
	set := func(name, value string) {
		if value != "" {
			to.Set(name, value)
		}
	}
	set("category", f.Category)
	set("stream_prefix", f.StreamPrefix)
	set("correlation_id", f.CorrelationID)
	set("causation_id", f.CausationID)
	if f.FromTime != 0 {
		to.Set("from_time", event.FormatTime(f.FromTime))
	}
	if f.ToTime != 0 {
		to.Set("to_time", event.FormatTime(f.ToTime))
	}
	return nil
}
