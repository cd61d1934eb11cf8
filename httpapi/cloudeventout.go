package httpapi

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"errors"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"cairn/event"
)

// original is what an event that came in as a CloudEvent was.
type original struct {
	attributes attributes
	hasData    bool
}

var errNoCloudEvent = errors.New("no CloudEvent")

// originalOf reads what is kept of a CloudEvent in the meta of e. Clients may
// write the same into meta by other ways: it counts only where the event's id
// is the one that it gives, and if it would have been taken as a CloudEvent.
func originalOf(e *event.Event) (o original, ok bool) {
	if !bytes.Contains(e.Meta, []byte(`"`+metaMember+`"`)) {
		return o, false
	}
	var kept []byte
	err := event.DecodeObject(e.Meta, func(name string, d *event.Decoder) error {
		if name == metaMember {
			return d.Value(&kept)
		}
		return d.Skip()
	})
	if err != nil {
		return o, false
	}
	o.hasData = true
	err = event.DecodeObject(kept, func(name string, d *event.Decoder) error {
		if name == noData {
			return d.Bool(&o.hasData)
		}
		raw, err := d.Raw()
		if err == nil && slices.Contains(elsewhere, name) {
			err = errNoCloudEvent
		}
		if err != nil {
			return err
		}
		return o.attributes.add(name, raw)
	})
	as := o.attributes
	source, id := as.text("source"), as.text("id")
	return o, err == nil && as.check() == nil && source != "" && id != "" && cloudEventID(source, id) == e.ID &&
		(e.ContentType != "" || !o.hasData || isJSONMedia(as.text("datacontenttype")))
}

// upcastError is the extension attribute for the member "upcast_error".
const upcastError = "cairnupcasterror"

// appendCloudEvent appends e as a CloudEvent in structured mode. Where there is
// room for e, there is for this.
func appendCloudEvent(dst []byte, e answered) []byte {
	dst = append(dst, `{"specversion":"`+specVersion+`"`...)
	dst = appendTextMember(dst, "type", e.Type)
	o, ok := originalOf(e.Event)
	if ok {
		for i := range o.attributes {
			a := &o.attributes[i]
			if e.upcast && a.name == "dataschema" { // that of the data as it came in
				continue
			}
			dst = append(append(append(append(dst, ',', '"'), a.name...), '"', ':'), a.raw...)
		}
	} else {
		o.hasData = true
		dst = appendTextMember(dst, "id", e.ID)
		dst = appendTextMember(dst, "source", "/streams/"+url.PathEscape(e.Stream))
		dst = appendTextMember(dst, "time", event.FormatTime(e.Time))
		dst = appendTextMember(dst, "datacontenttype", cmp.Or(e.ContentType, mediaJSON[0]))
	}
	if e.CorrelationID != "" {
		dst = appendTextMember(dst, "correlationid", e.CorrelationID)
	}
	if e.CausationID != "" {
		dst = appendTextMember(dst, "causationid", e.CausationID)
	}
	dst = appendTextMember(dst, "cairnposition", strconv.FormatUint(e.Position, 10)) // its integers have 32 bits
	dst = appendTextMember(dst, "cairnversion", strconv.FormatUint(e.Version, 10))
	if e.UpcastError != "" {
		dst = appendTextMember(dst, upcastError, e.UpcastError)
	}
	switch {
	case !o.hasData && !e.upcast:
	case e.ContentType == "":
		dst = append(append(dst, `,"data":`...), e.Data...)
	default:
		dst = base64.StdEncoding.AppendEncode(append(dst, `,"data_base64":"`...), e.Data)
		dst = append(dst, '"')
	}
	return append(dst, '}')
}

func appendTextMember(dst []byte, name, value string) []byte {
	dst = append(append(append(dst, ',', '"'), name...), '"', ':')
	return appendText(dst, value)
}

// batch writes the events as CloudEvents in batched mode. What a page says
// beside its events is in headers, so that it is sent only when all is known.
func (l *listing) batch(version uint64) error {
	l.part = math.MaxInt
	l.out.b = append(l.out.b, '[')
	done, err := l.run(func(a answered) {
		if l.count > 0 {
			l.out.b = append(l.out.b, ',')
		}
		l.out.b = appendCloudEvent(l.out.b, a)
	})
	if err != nil {
		return err
	}
	if err := l.out.grow(1); err != nil {
		return err
	}
	h := l.x.Header()
	if !done {
		h["Link"] = []string{"<" + l.next() + `>; rel="next"`}
	}
	if l.span.stream != "" {
		h["Etag"] = []string{etag(version)}
	}
	return l.x.answerAs(mediaBatch, http.StatusOK, append(l.out.b, ']'))
}
