package httpapi

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"mime"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"cairn/event"
)

// CloudEvents 1.0 (https://cloudevents.io) go in and come out; docs/cloudevents.md
// has the mapping. What an Event has no field for is kept in its meta:
//
//	{"cloudevent":{"id":…,"source":…,"subject":…,…}}
//
// names in order, each value a string, a boolean or an integer, and "data":false
// if the CloudEvent had no data, which is not the same as null.

var (
	mediaCloudEvent = []string{"application/cloudevents+json"}
	mediaBatch      = []string{"application/cloudevents-batch+json"}
)

const (
	// maxAttribute bounds the value of an attribute that has no other limit.
	maxAttribute     = 16 << 10
	maxAttributeName = 20

	specVersion   = "1.0"
	metaMember    = "cloudevent"
	noData        = "data" // false in meta: no attribute may have this name
	opaqueContent = "application/octet-stream"
)

// attribute is one context attribute of a CloudEvent.
type attribute struct {
	name   string
	raw    []byte // its value as JSON, in the one form that we write
	text   string
	isText bool
}

type attributes []attribute

// elsewhere are attributes that are not kept in meta: those of an Event's own,
// and those that say where in a log an event stands, be it another log, and in
// which form it was read.
var elsewhere = []string{"specversion", "type", "correlationid", "causationid", "cairnposition", "cairnversion", upcastError}

// attributeRules holds for attributes that we know. They must be strings that
// are not empty.
var attributeRules = map[string]struct {
	limit int                       // bytes
	fault func(value string) string // "" = none; nil = anything goes
}{
	"specversion":     {limit: maxAttribute},
	"id":              {limit: maxAttribute},
	"source":          {limit: maxAttribute, fault: faultOfReference},
	"type":            {limit: event.MaxType},
	"subject":         {limit: maxAttribute},
	"time":            {limit: maxAttribute, fault: faultOfTime},
	"dataschema":      {limit: maxAttribute, fault: faultOfURI},
	"datacontenttype": {limit: event.MaxContentType, fault: faultOfMedia},
	"correlationid":   {limit: event.MaxID},
	"causationid":     {limit: event.MaxID},
}

func faultOfReference(s string) string {
	if _, err := url.Parse(s); err != nil {
		return "must be a URI-reference (RFC 3986)"
	}
	return ""
}

func faultOfURI(s string) string {
	if u, err := url.Parse(s); err != nil || !u.IsAbs() {
		return "must be a URI with a scheme (RFC 3986)"
	}
	return ""
}

func faultOfTime(s string) string {
	if new(time.Time).UnmarshalText([]byte(s)) != nil {
		return "must be a time such as 2026-01-31T09:30:00Z (RFC 3339)"
	}
	return ""
}

func faultOfMedia(s string) string {
	if media, _, err := mime.ParseMediaType(s); err != nil || !strings.Contains(media, "/") {
		return "must be a media type such as image/png"
	}
	return ""
}

// isJSONMedia reports whether a media type, whatever its parameters, is one of
// JSON. None at all stands for JSON.
func isJSONMedia(s string) bool {
	if s == "" {
		return true
	}
	media, _, err := mime.ParseMediaType(s)
	_, subtype, _ := strings.Cut(media, "/")
	return err == nil && (subtype == "json" || strings.HasSuffix(subtype, "+json"))
}

// add takes an attribute from its JSON, raw, which it does not keep. A null is
// the same as no attribute. Its errors do not name the attribute.
func (as *attributes) add(name string, raw []byte) error {
	switch raw[0] {
	case 'n':
		return checkAttributeName(name)
	case '"':
		text, err := jsontext.AppendUnquote(nil, raw)
		if err != nil {
			return err
		}
		return as.addText(name, string(text))
	case 't', 'f':
		return as.put(attribute{name: name, raw: slices.Clone(raw)})
	case '[', '{':
		return errors.New("must be a string, a boolean or an integer")
	}
	n, err := strconv.ParseInt(string(raw), 10, 32)
	if err != nil {
		return errors.New("must be an integer of 32 bits; send other numbers as strings")
	}
	return as.put(attribute{name: name, raw: strconv.AppendInt(nil, n, 10)})
}

func (as *attributes) addText(name, text string) error {
	if !utf8.ValidString(text) {
		return errors.New("must be UTF-8")
	}
	if strings.ContainsFunc(text, isNoText) {
		return errors.New("must not contain control characters or noncharacters of Unicode")
	}
	return as.put(attribute{name: name, raw: appendText(nil, text), text: text, isText: true})
}

func (as *attributes) put(a attribute) error {
	*as = append(*as, a)
	return checkAttributeName(a.name)
}

func checkAttributeName(name string) error {
	odd := func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') }
	if name == "" || len(name) > maxAttributeName || strings.ContainsFunc(name, odd) || name == noData {
		return fmt.Errorf("is no name of an attribute: 1 to %d characters a-z and 0-9, and not %q", maxAttributeName, noData)
	}
	return nil
}

// isNoText reports what the strings of CloudEvents may not contain.
func isNoText(r rune) bool {
	return r < 0x20 || 0x7f <= r && r < 0xa0 || 0xfdd0 <= r && r <= 0xfdef || r&0xfffe == 0xfffe
}

// check reports the first attribute whose value breaks a rule.
func (as attributes) check() error {
	for i := range as {
		a := &as[i]
		rule, known := attributeRules[a.name]
		switch {
		case !known:
			rule.limit = maxAttribute
		case !a.isText:
			return &event.InvalidError{Field: a.name, Reason: "must be a string"}
		case a.text == "":
			return &event.InvalidError{Field: a.name, Reason: "must not be empty"}
		}
		if len(a.text) > rule.limit {
			return &event.TooLargeError{Field: a.name, Size: len(a.text), Limit: rule.limit}
		}
		if rule.fault != nil {
			if fault := rule.fault(a.text); fault != "" {
				return &event.InvalidError{Field: a.name, Reason: fault}
			}
		}
	}
	return nil
}

// text returns the value of an attribute that is a string, "" if it is not there.
func (as attributes) text(name string) string {
	for i := range as {
		if as[i].name == name {
			return as[i].text
		}
	}
	return ""
}

// cloudEventID is the id under which a CloudEvent is stored, so that sending it
// again finds it: source and id together are its identity. It is the base64url,
// without padding, of SHA-256 over the length of source in four bytes, the
// least first, source, and id.
func cloudEventID(source, id string) string {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(source)))
	sum := sha256.Sum256(append(append(b, source...), id...))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
