package httpapi

import (
	"bytes"
	"errors"
	"fmt"

	"cairn/event"
)

// eventDecoder returns what reads the body of an append to one stream, by the
// request's headers.
func (x *exchange) eventDecoder() (func(body []byte) ([]event.Event, error), error) {
	if isBinaryCloudEvent(x.r.Header) {
		return func(body []byte) ([]event.Event, error) { return only(decodeBinary(x.r.Header, body)) }, x.plainEncoding()
	}
	media, err := x.mediaType(mediaJSON[0], mediaLines[0], mediaCloudEvent[0], mediaBatch[0])
	switch media {
	case mediaCloudEvent[0]:
		return func(body []byte) ([]event.Event, error) { return only(decodeCloudEvent(body)) }, err
	case mediaBatch[0]:
		return decodeBatch, err
	}
	return func(body []byte) ([]event.Event, error) { return decodeEvents(body, media == mediaLines[0]) }, err
}

// only makes one event a list.
func only(e event.Event, err error) ([]event.Event, error) { return []event.Event{e}, err }

// decodeEvents reads the body of an append to one stream: an event, an array of
// events, or lines of one event each.
func decodeEvents(body []byte, lines bool) ([]event.Event, error) {
	if lines {
		return decodeEventLines(body)
	}
	switch first := bytes.TrimLeft(body, jsonSpace); {
	case len(first) > 0 && first[0] == '{':
		return only(event.DecodeNew(body))
	case len(first) > 0 && first[0] == '[':
		if err := event.CheckDepth(body); err != nil {
			return nil, err
		}
		return decodeEventArray(body)
	}
	return nil, &event.InvalidError{Field: "body", Reason: "must be an event or an array of events"}
}

func decodeEventLines(body []byte) ([]event.Event, error) {
	var events []event.Event
	for line := range bytes.SplitSeq(body, []byte{'\n'}) {
		if line = bytes.Trim(line, jsonSpace); len(line) == 0 {
			continue
		}
		if err := appendEvent(&events, line, event.DecodeNew); err != nil {
			return nil, err
		}
	}
	return events, nil
}

func decodeEventArray(array []byte) ([]event.Event, error) {
	var events []event.Event
	err := elements("events", array, func(_ int, raw []byte) error { return appendEvent(&events, raw, event.DecodeNew) })
	return events, err
}

func appendEvent(events *[]event.Event, raw []byte, decode func([]byte) (event.Event, error)) error {
	n := len(*events)
	if n == event.MaxAppendEvents {
		return &event.TooLargeError{Field: "events", Size: n + 1, Limit: n}
	}
	e, err := decode(raw)
	if err != nil {
		return within(fmt.Sprintf("events[%d]", n), err)
	}
	*events = append(*events, e)
	return nil
}

// decodeAppend reads the body of an append to several streams.
func decodeAppend(body []byte) (event.Append, error) {
	var a event.Append
	if err := event.CheckDepth(body); err != nil {
		return a, err
	}
	var seen struct{ events, conditions bool }
	err := members(body, func(name string, raw []byte) (err error) {
		switch name {
		case "events":
			if seen.events {
				return errTwice(name)
			}
			seen.events = true
			a.Events, err = decodeEventArray(raw)
			return err
		case "conditions":
			if seen.conditions {
				return errTwice(name)
			}
			seen.conditions = true
			return elements(name, raw, func(i int, raw []byte) error {
				if i == event.MaxConditions {
					return &event.TooLargeError{Field: name, Size: i + 1, Limit: i}
				}
				c, err := decodeCondition(raw)
				a.Conditions = append(a.Conditions, c)
				return within(fmt.Sprintf("conditions[%d]", i), err)
			})
		}
		return &event.InvalidError{Field: "body", Reason: fmt.Sprintf("%q is not a known member; they are events and conditions", clip(name))}
	})
	return a, err
}

func errTwice(name string) error { return &event.InvalidError{Field: name, Reason: "is there twice"} }

// decodeCondition reads one of the three forms of a condition.
func decodeCondition(raw []byte) (event.Condition, error) {
	var c event.Condition
	var exists bool
	var has struct{ stream, version, exists, query, after bool }
	err := event.DecodeObject(raw, func(name string, d *event.Decoder) (err error) {
		switch name {
		case "stream":
			has.stream = true
			return d.Text(&c.Stream)
		case "version":
			has.version = true
			return d.Uint64(&c.Version)
		case "exists":
			has.exists = true
			return d.Bool(&exists)
		case "query":
			has.query = true
			c.Query, err = decodeQuery(d)
			return err
		case "after":
			has.after = true
			return d.Uint64(&c.After)
		}
		return event.ErrUnknownMember
	})
	if err != nil {
		return c, err
	}
	switch {
	case has.stream && has.version && !has.exists && !has.query && !has.after:
		c.Kind = event.StreamAtVersion
	case has.stream && has.exists && !has.version && !has.query && !has.after:
		c.Kind = event.StreamMissing
		if exists {
			c.Kind = event.StreamExists
		}
	case has.query && !has.stream && !has.version && !has.exists:
		c.Kind = event.NoMatch
	default:
		return c, &event.InvalidError{Field: "body", Reason: "must be stream and version, or stream and exists, or query and after"}
	}
	return c, nil
}

// decodeQuery takes a query off d.
func decodeQuery(d *event.Decoder) (event.Query, error) {
	var q event.Query
	raw, err := d.Raw()
	if err != nil {
		return q, err
	}
	err = event.DecodeObject(raw, func(name string, d *event.Decoder) error {
		if name != "items" {
			return event.ErrUnknownMember
		}
		return d.Array("must be an array", func() error {
			raw, err := d.Raw()
			if err != nil {
				return err
			}
			item, err := decodeQueryItem(raw)
			q.Items = append(q.Items, item)
			return err
		})
	})
	return q, nested(err)
}

func decodeQueryItem(raw []byte) (event.QueryItem, error) {
	var item event.QueryItem
	err := event.DecodeObject(raw, func(name string, d *event.Decoder) error {
		switch name {
		case "types":
			return d.Texts(&item.Types)
		case "tags":
			return d.Texts(&item.Tags)
		}
		return event.ErrUnknownMember
	})
	return item, nested(err)
}

// nested makes the error of a value into one that DecodeObject can put the name
// of its member before.
func nested(err error) error {
	var invalid *event.InvalidError
	if errors.As(err, &invalid) && invalid.Field == "body" {
		return errors.New(invalid.Reason)
	}
	return err
}

// within says in which part of the body a fault is.
func within(part string, err error) error {
	var invalid *event.InvalidError
	var large *event.TooLargeError
	if errors.As(err, &large) {
		return &event.TooLargeError{Field: part + "." + large.Field, Size: large.Size, Limit: large.Limit}
	}
	if !errors.As(err, &invalid) {
		return err
	}
	if invalid.Field == "body" {
		return &event.InvalidError{Field: part, Reason: invalid.Reason}
	}
	return &event.InvalidError{Field: part + "." + invalid.Field, Reason: invalid.Reason}
}

// clip shortens what a client sent for a message to people.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}
