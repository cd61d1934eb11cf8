package event

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"pgregory.net/rapid"
)

// quoted is s as a JSON string, as the library writes it.
func quoted(s string) string {
	b, err := jsontext.AppendQuote(nil, s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// plainly is AppendJSON without its short cuts.
func plainly(e *Event) string {
	var members []string
	add := func(name, value string) { members = append(members, fmt.Sprintf("%q:%s", name, value)) }
	text := func(name, value string) {
		if value != "" {
			add(name, quoted(value))
		}
	}
	add("position", fmt.Sprint(e.Position))
	add("stream", quoted(e.Stream))
	add("version", fmt.Sprint(e.Version))
	add("time", `"`+time.Unix(0, e.Time).UTC().Format(timeForm)+`"`)
	text("id", e.ID)
	text("type", e.Type)
	if e.Schema != 0 {
		add("schema", fmt.Sprint(e.Schema))
	}
	var tags []string
	for _, tag := range e.Tags {
		tags = append(tags, quoted(tag))
	}
	if len(tags) > 0 {
		add("tags", "["+strings.Join(tags, ",")+"]")
	}
	text("correlation_id", e.CorrelationID)
	text("causation_id", e.CausationID)
	text("compensates", e.Compensates)
	if e.ContentType == "" {
		add("data", string(e.Data))
	} else {
		text("content_type", e.ContentType)
		add("data_base64", `"`+base64.StdEncoding.EncodeToString(e.Data)+`"`)
	}
	if len(e.Meta) > 0 {
		add("meta", string(e.Meta))
	}
	return "{" + strings.Join(members, ",") + "}"
}

// texts draws names with and without what needs an escape, at every place of
// the words that isPlain looks at.
func texts() *rapid.Generator[string] {
	plain := rapid.StringMatching(`[ -!#-\[\]-~]{0,40}`)
	odd := rapid.SampledFrom([]string{`"`, `\`, "\x00", "\x1f", "\n", "\x7f", "ü", "\u2028", "<", "\U0001f600", "\ufffd"})
	return rapid.OneOf(plain, rapid.String(), rapid.Custom(func(t *rapid.T) string {
		return plain.Draw(t, "before") + odd.Draw(t, "odd") + plain.Draw(t, "after")
	}))
}

func TestAppendJSON_SameBytes(t *testing.T) {
	text := texts()
	rapid.Check(t, func(t *rapid.T) {
		e := Event{
			Position: rapid.Uint64().Draw(t, "position"), Version: rapid.Uint64().Draw(t, "version"),
			Time: rapid.Int64().Draw(t, "time"), Schema: rapid.Uint32().Draw(t, "schema"),
			Stream: text.Draw(t, "stream"), Type: text.Draw(t, "type"), ID: text.Draw(t, "id"),
			Tags:          rapid.SliceOfN(text, 0, 4).Draw(t, "tags"),
			CorrelationID: text.Draw(t, "correlation"), CausationID: text.Draw(t, "causation"), Compensates: text.Draw(t, "compensates"),
		}
		if rapid.Bool().Draw(t, "binary") {
			e.ContentType, e.Data = "image/png", rapid.SliceOf(rapid.Byte()).Draw(t, "data")
		} else {
			e.Data = []byte(quoted(text.Draw(t, "data")))
		}
		if rapid.Bool().Draw(t, "meta") {
			e.Meta = []byte(`{"actor":` + quoted(text.Draw(t, "actor")) + `}`)
		}
		got := AppendJSON([]byte("before"), &e)
		if want := "before" + plainly(&e); string(got) != want {
			t.Fatalf("got  %s\nwant %s", got, want)
		}
		if !json.Valid(bytes.TrimPrefix(got, []byte("before"))) {
			t.Fatalf("not JSON: %s", got)
		}
	})
}

// Every byte, at every place of a text of some length.
func TestIsPlain(t *testing.T) {
	for size := 1; size <= 20; size++ {
		for at := range size {
			b := bytes.Repeat([]byte{'a'}, size)
			for c := range 256 {
				b[at] = byte(c)
				want := c >= 0x20 && c < 0x80 && c != '"' && c != '\\'
				if isPlain(b) != want {
					t.Fatalf("isPlain(%q) = %v", b, !want)
				}
			}
		}
	}
}

func TestFormatTime_SameAsLibrary(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ns := rapid.Int64().Draw(t, "time")
		if got, want := FormatTime(ns), time.Unix(0, ns).UTC().Format(timeForm); got != want {
			t.Fatalf("FormatTime(%d) = %s, want %s", ns, got, want)
		}
	})
}
