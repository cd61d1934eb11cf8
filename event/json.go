package event

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// AppendJSON appends the form in which an event is read (api.md) to dst.
func AppendJSON(dst []byte, e *Event) []byte {
	dst = append(dst, `{"position":`...)
	dst = strconv.AppendUint(dst, e.Position, 10)
	dst = append(dst, `,"stream":`...)
	dst = appendQuoted(dst, e.Stream)
	dst = append(dst, `,"version":`...)
	dst = strconv.AppendUint(dst, e.Version, 10)
	dst = append(dst, `,"time":"`...)
	dst = appendTime(dst, e.Time)
	dst = append(dst, '"')
	dst = appendMember(dst, "id", e.ID)
	dst = appendMember(dst, "type", e.Type)
	if e.Schema != 0 {
		dst = append(dst, `,"schema":`...)
		dst = strconv.AppendUint(dst, uint64(e.Schema), 10)
	}
	if len(e.Tags) > 0 {
		dst = append(dst, `,"tags":[`...)
		for i, tag := range e.Tags {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendQuoted(dst, tag)
		}
		dst = append(dst, ']')
	}
	dst = appendMember(dst, "correlation_id", e.CorrelationID)
	dst = appendMember(dst, "causation_id", e.CausationID)
	dst = appendMember(dst, "compensates", e.Compensates)
	if e.ContentType == "" {
		dst = append(dst, `,"data":`...)
		dst = append(dst, e.Data...)
	} else {
		dst = appendMember(dst, "content_type", e.ContentType)
		dst = append(dst, `,"data_base64":"`...)
		dst = base64.StdEncoding.AppendEncode(dst, e.Data)
		dst = append(dst, '"')
	}
	if len(e.Meta) > 0 {
		dst = append(dst, `,"meta":`...)
		dst = append(dst, e.Meta...)
	}
	dst = appendMember(dst, "upcast_error", e.UpcastError)
	return append(dst, '}')
}

// appendMember appends a member that is left out when it has no value.
func appendMember(dst []byte, name, value string) []byte {
	if value == "" {
		return dst
	}
	dst = append(dst, ',', '"')
	dst = append(dst, name...)
	dst = append(dst, '"', ':')
	return appendQuoted(dst, value)
}

// appendQuoted appends s as a JSON string. Nearly all names need no escape.
func appendQuoted(dst []byte, s string) []byte {
	if !isPlain([]byte(s)) {
		quoted, err := jsontext.AppendQuote(dst, s)
		if err != nil { // s was checked to be UTF-8 before it was stored
			panic(fmt.Sprintf("quote %q: %v", s, err))
		}
		return quoted
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}

// isPlain reports whether b is ASCII and stands in a JSON string as it is. It
// looks at eight bytes at once, the last time at the last eight: where all are
// below 0x80, subtracting sets the top bit of one that is less than what is
// subtracted, and none below it.
func isPlain(b []byte) bool {
	const each, top = 0x0101010101010101, 0x8080808080808080
	for len(b) >= 8 {
		w := binary.LittleEndian.Uint64(b)
		control, quote, escape := w-each*0x20, (w^each*'"')-each, (w^each*'\\')-each
		if (w|control|quote|escape)&top != 0 {
			return false
		}
		if len(b) == 8 {
			return true
		}
		b = b[min(8, len(b)-8):]
	}
	for _, c := range b {
		if c < 0x20 || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// timeForm is RFC 3339 in UTC, always with nine digits of nanoseconds, so that
// times compare as text.
const timeForm = "2006-01-02T15:04:05.000000000Z"

// appendTime appends nanoseconds since 1970 in timeForm: what AppendFormat
// writes, in a third of the time.
func appendTime(dst []byte, ns int64) []byte {
	t := time.Unix(0, ns).UTC()
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	dst = append(dst, timeForm...)
	b := dst[len(dst)-len(timeForm):]
	put2(b[0:], year/100)
	put2(b[2:], year%100)
	put2(b[5:], int(month))
	put2(b[8:], day)
	put2(b[11:], hour)
	put2(b[14:], minute)
	put2(b[17:], second)
	n := t.Nanosecond()
	put2(b[20:], n/1e7)
	put2(b[22:], n/1e5%100)
	put2(b[24:], n/1e3%100)
	put2(b[26:], n/10%100)
	b[28] = byte('0' + n%10)
	return dst
}

// put2 writes n, of two digits, to the first two bytes of b.
func put2(b []byte, n int) { b[0], b[1] = byte('0'+n/10), byte('0'+n%10) }

// FormatTime writes nanoseconds since 1970 as Cairn does everywhere.
func FormatTime(ns int64) string { return string(appendTime(nil, ns)) }

// ParseTime reads an RFC 3339 time of any zone and precision up to nanoseconds.
func ParseTime(s string) (int64, error) {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a time such as 2026-01-31T09:30:00Z (RFC 3339)", s)
	}
	if y := t.Year(); y < 1970 || y > 2261 {
		return 0, fmt.Errorf("%q is not between the years 1970 and 2261", s)
	}
	return t.UnixNano(), nil
}

// DecodeNew reads one event in the form in which it is appended (api.md). It
// is strict: an unknown or doubled member, nesting over MaxDepth, text that is
// not UTF-8 or anything behind the value is an *InvalidError. It checks no
// lengths and makes up no id; Append.Check and the caller do. "stream" is
// accepted, for appends to several streams.
func DecodeNew(b []byte) (Event, error) {
	var e Event
	var kind struct{ data, base64 bool }
	err := DecodeObject(b, func(name string, d *Decoder) error {
		switch name {
		case "type":
			return d.Text(&e.Type)
		case "stream":
			return d.Text(&e.Stream)
		case "id":
			e.IDChosen = true
			return d.Text(&e.ID)
		case "data":
			kind.data = true
			return d.Value(&e.Data)
		case "data_base64":
			kind.base64 = true
			return d.Base64(&e.Data)
		case "content_type":
			return d.Text(&e.ContentType)
		case "tags":
			return d.Texts(&e.Tags)
		case "correlation_id":
			return d.Text(&e.CorrelationID)
		case "causation_id":
			return d.Text(&e.CausationID)
		case "compensates":
			return d.Text(&e.Compensates)
		case "schema":
			return d.Uint32(&e.Schema)
		case "meta":
			return d.Object(&e.Meta)
		}
		return ErrUnknownMember
	})
	if err != nil {
		return Event{}, err
	}
	return e, e.settleContent(kind.data, kind.base64)
}

// settleContent brings the two forms of content into one: ContentType is ""
// for JSON, which is null when there is none.
func (e *Event) settleContent(hasData, hasBase64 bool) error {
	isJSON := e.ContentType == "" || e.ContentType == "application/json"
	switch {
	case hasData && hasBase64:
		return &InvalidError{"data_base64", `stands beside "data"; send one of them`}
	case hasBase64 && isJSON:
		return &InvalidError{"content_type", `names what "data_base64" holds, such as image/png; JSON goes into "data"`}
	case !hasBase64 && !isJSON:
		return &InvalidError{"data_base64", fmt.Sprintf("must hold the content of type %q, in base64", e.ContentType)}
	}
	if isJSON {
		e.ContentType = ""
		if !hasData {
			e.Data = []byte("null")
		}
	}
	return nil
}

// DecodeEvent reads an event in the form in which it is read. It passes over
// members it does not know: a newer server may send more.
func DecodeEvent(b []byte) (Event, error) {
	var e Event
	err := DecodeObject(b, func(name string, d *Decoder) (err error) {
		var text string
		switch name {
		case "position":
			return d.Uint64(&e.Position)
		case "version":
			return d.Uint64(&e.Version)
		case "time":
			if err = d.Text(&text); err == nil {
				e.Time, err = ParseTime(text)
			}
			return err
		case "stream":
			return d.Text(&e.Stream)
		case "id":
			return d.Text(&e.ID)
		case "type":
			return d.Text(&e.Type)
		case "schema":
			return d.Uint32(&e.Schema)
		case "tags":
			return d.Texts(&e.Tags)
		case "correlation_id":
			return d.Text(&e.CorrelationID)
		case "causation_id":
			return d.Text(&e.CausationID)
		case "compensates":
			return d.Text(&e.Compensates)
		case "content_type":
			return d.Text(&e.ContentType)
		case "data":
			return d.Value(&e.Data)
		case "data_base64":
			return d.Base64(&e.Data)
		case "meta":
			return d.Object(&e.Meta)
		case "upcast_error":
			return d.Text(&e.UpcastError)
		}
		return d.Skip()
	})
	return e, err
}

// ErrUnknownMember is what the function given to DecodeObject returns for a
// name it does not know.
var ErrUnknownMember = errors.New("is not a known member")

// Decoder reads the value of one member. Its methods set what they are given,
// or return an error without the member's name, which DecodeObject adds.
type Decoder struct {
	buf bytes.Buffer
	dec *jsontext.Decoder
}

var decoders = sync.Pool{New: func() any {
	d := new(Decoder)
	d.dec = jsontext.NewDecoder(&d.buf)
	return d
}}

// DecodeObject reads the one JSON object that b must be and calls member for
// each of its members, which must take its value off d by exactly one call.
// Doubled names at any depth, nesting over MaxDepth, invalid UTF-8 and
// trailing data are errors. All errors are *InvalidError.
func DecodeObject(b []byte, member func(name string, d *Decoder) error) error {
	if err := CheckDepth(b); err != nil {
		return err
	}
	d := decoders.Get().(*Decoder)
	defer func() {
		d.buf = bytes.Buffer{} // a pooled decoder must not keep a request's memory
		decoders.Put(d)
	}()
	d.buf = *bytes.NewBuffer(b)
	d.dec.Reset(&d.buf)
	if tok, err := d.dec.ReadToken(); err != nil {
		return syntaxError(err)
	} else if tok.Kind() != '{' {
		return &InvalidError{"body", "must be a JSON object"}
	}
	for d.dec.PeekKind() != '}' {
		tok, err := d.dec.ReadToken()
		if err != nil {
			return syntaxError(err)
		}
		name := tok.String()
		if err := member(name, d); err != nil {
			return memberError(name, err)
		}
	}
	if _, err := d.dec.ReadToken(); err != nil {
		return syntaxError(err)
	}
	if _, err := d.dec.ReadToken(); err != io.EOF {
		return &InvalidError{"body", "has something behind its end"}
	}
	return nil
}

func memberError(name string, err error) error {
	var syntax *jsontext.SyntacticError
	var inner *InvalidError
	switch {
	case errors.As(err, &syntax), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return syntaxError(err)
	case errors.As(err, &inner):
		return &InvalidError{name + "." + inner.Field, inner.Reason}
	}
	return &InvalidError{name, err.Error()}
}

func syntaxError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &InvalidError{"body", "ends before its JSON does"}
	}
	return &InvalidError{"body", "is not the JSON it should be: " + err.Error()}
}

// CheckDepth reports an *InvalidError when arrays and objects in b nest deeper
// than MaxDepth. b need not be valid JSON.
func CheckDepth(b []byte) error {
	if bytes.Count(b, []byte("{"))+bytes.Count(b, []byte("[")) <= MaxDepth {
		return nil // nearly always, and at the speed of memory
	}
	depth, inText := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			inText = !inText
		case inText:
			if c == '\\' {
				i++
			}
		case c == '{' || c == '[':
			if depth++; depth > MaxDepth {
				return &InvalidError{"body", fmt.Sprintf("nests deeper than %d", MaxDepth)}
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return nil
}
