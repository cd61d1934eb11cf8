package httpapi

import (
	"bytes"
	"cmp"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"cairn/event"
)

// binaryPrefix begins the header of an attribute in binary mode.
const binaryPrefix = "Ce-"

// isBinaryCloudEvent reports whether headers say that the body is the data of a
// CloudEvent. One without a version is one too, and refused for that.
func isBinaryCloudEvent(h http.Header) bool {
	return (len(h["Ce-Specversion"]) > 0 || len(h["Ce-Id"]) > 0) && !isCloudEventMedia(h.Get("Content-Type"))
}

// isCloudEventMedia reports whether a whole CloudEvent, or several, are in the
// body, in whatever format. Headers about it then say nothing.
func isCloudEventMedia(s string) bool {
	const prefix = "application/cloudevents"
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

// cloudEvent is a CloudEvent as it came in.
type cloudEvent struct {
	attributes attributes
	data       content
}

// content is the data of a CloudEvent: JSON, or bytes of its media type, or
// text of it that is quoted as JSON is.
type content struct {
	there  bool
	binary bool
	value  []byte
}

// decodeBatch reads CloudEvents in batched mode.
func decodeBatch(body []byte) ([]event.Event, error) {
	if err := event.CheckDepth(body); err != nil {
		return nil, err
	}
	var events []event.Event
	err := elements("events", body, func(_ int, raw []byte) error { return appendEvent(&events, raw, decodeCloudEvent) })
	return events, err
}

// decodeCloudEvent reads a CloudEvent in structured mode.
func decodeCloudEvent(raw []byte) (event.Event, error) {
	var c cloudEvent
	both := false
	err := event.DecodeObject(raw, func(name string, d *event.Decoder) error {
		switch name {
		case "data", "data_base64":
			both = c.data.there
			c.data.there, c.data.binary = true, name != "data"
			if c.data.binary {
				return d.Base64(&c.data.value)
			}
			return d.Value(&c.data.value)
		}
		value, err := d.Raw()
		if err != nil {
			return err
		}
		return c.attributes.add(name, value)
	})
	if err == nil && both {
		err = &event.InvalidError{Field: "data_base64", Reason: `stands beside "data"; send one of them`}
	}
	if err != nil {
		return event.Event{}, err
	}
	return c.event()
}

// decodeBinary reads a CloudEvent in binary mode: its attributes are headers,
// its data is the body.
func decodeBinary(h http.Header, body []byte) (event.Event, error) {
	var c cloudEvent
	for name, values := range h {
		if !strings.HasPrefix(name, binaryPrefix) {
			continue
		}
		name = strings.ToLower(name[len(binaryPrefix):])
		if err := c.addHeader(name, values); err != nil {
			return event.Event{}, &event.InvalidError{Field: clip(name), Reason: err.Error()}
		}
	}
	if media := h["Content-Type"]; len(media) > 1 {
		return event.Event{}, &event.InvalidError{Field: "datacontenttype", Reason: "Content-Type must be there only once"}
	} else if len(media) == 1 {
		if err := c.attributes.addText("datacontenttype", media[0]); err != nil {
			return event.Event{}, &event.InvalidError{Field: "datacontenttype", Reason: err.Error()}
		}
	}
	slices.SortFunc(c.attributes, byName) // so that the same request has the same fault
	c.data = content{there: len(body) > 0, binary: true, value: slices.Clone(body)}
	return c.event()
}

func (c *cloudEvent) addHeader(name string, values []string) error {
	if name == "datacontenttype" {
		return errors.New("is the header Content-Type in binary mode")
	}
	if len(values) > 1 {
		return errors.New("must be there only once")
	}
	return c.attributes.addText(name, headerText(values[0]))
}

// headerText undoes what a sender does to put any text in a header: first
// quotes, which older senders use, then percent-encoding. A percent sign that
// encodes nothing stands for itself: many senders do not encode.
func headerText(s string) string {
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		b := make([]byte, 0, len(s))
		for i := 1; i < len(s)-1; i++ {
			if s[i] == '\\' && i+1 < len(s)-1 {
				i++
			}
			b = append(b, s[i])
		}
		s = string(b)
	}
	if !strings.Contains(s, "%") {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '%' && i+2 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				c, i = byte(n), i+2
			}
		}
		b = append(b, c)
	}
	return string(b)
}

func byName(a, b attribute) int { return cmp.Compare(a.name, b.name) }

// event checks c and returns the event that it becomes.
func (c *cloudEvent) event() (event.Event, error) {
	as := c.attributes
	if v := as.text("specversion"); v != "" && v != specVersion { // whose names and rules are not these
		return event.Event{}, &event.InvalidError{Field: "specversion", Reason: `must be "1.0"`}
	}
	if err := as.check(); err != nil {
		return event.Event{}, err
	}
	for _, name := range [...]string{"specversion", "id", "source", "type"} {
		if as.text(name) == "" {
			return event.Event{}, &event.InvalidError{Field: name, Reason: "is missing"}
		}
	}
	e := event.Event{
		Type: as.text("type"), ID: cloudEventID(as.text("source"), as.text("id")), IDChosen: true,
		CorrelationID: as.text("correlationid"), CausationID: as.text("causationid"),
	}
	var err error
	if e.ContentType, e.Data, err = c.data.settle(as.text("datacontenttype")); err != nil {
		return event.Event{}, err
	}
	e.Meta = as.appendMeta(nil, c.data.there)
	if len(e.Meta) > event.MaxMeta {
		return event.Event{}, &event.TooLargeError{Field: "attributes", Size: len(e.Meta), Limit: event.MaxMeta}
	}
	return e, nil
}

// settle returns the data of an event, and its media type, "" for JSON.
func (d *content) settle(media string) (contentType string, data []byte, err error) {
	switch isJSON := isJSONMedia(media); {
	case !d.there:
		return "", []byte("null"), nil
	case d.binary && media == "": // bytes that nothing is said of
		return opaqueContent, d.value, nil
	case d.binary && isJSON:
		v := jsontext.Value(d.value)
		if event.CheckDepth(slices.Concat([]byte{'{'}, v)) != nil { // within the event it nests one deeper
			return "", nil, &event.InvalidError{Field: "data", Reason: "nests deeper than " + strconv.Itoa(event.MaxDepth-1)}
		}
		if !v.IsValid() {
			return "", nil, &event.InvalidError{Field: "data", Reason: "is not the JSON that datacontenttype says it is"}
		}
		return "", v, v.Compact(jsontext.PreserveRawStrings(true))
	case d.binary:
		return media, d.value, nil
	case isJSON:
		return "", d.value, nil
	case d.value[0] != '"':
		return "", nil, &event.InvalidError{Field: "data", Reason: "must be a string, or data_base64 be there instead, since datacontenttype is not JSON"}
	}
	data, err = jsontext.AppendUnquote(nil, d.value)
	return media, data, err
}

// appendMeta appends what is kept of a CloudEvent in meta, the same bytes in
// whatever order its attributes came.
func (as attributes) appendMeta(dst []byte, hasData bool) []byte {
	kept := slices.SortedFunc(slices.Values(as), byName)
	dst = append(dst, `{"`+metaMember+`":{`...)
	for i := range kept {
		if a := &kept[i]; !slices.Contains(elsewhere, a.name) {
			dst = append(append(appendText(dst, a.name), ':'), a.raw...)
			dst = append(dst, ',')
		}
	}
	if !hasData {
		return append(dst, `"`+noData+`":false}}`...)
	}
	return append(bytes.TrimSuffix(dst, []byte{','}), '}', '}')
}
