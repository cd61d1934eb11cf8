package schema

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"

	"cairn/event"
)

// The limits of a registration, in bytes.
const (
	MaxSchema   = 32 << 10  // the JSON Schema, in canonical form
	MaxUpcast   = 4 << 10   // the expression
	MaxBody     = 512 << 10 // all of it, as it is sent
	maxExamples = 64
)

// Registration is one schema of a type. It must not be changed.
type Registration struct {
	Type   string
	Number uint32          // from 1 on
	Schema json.RawMessage // canonical JSON: an object
	// Upcast is a CEL expression that makes data of this schema of data of the
	// one before; "" = there is none, which only the first schema may do without.
	Upcast  string
	Renamed string // the name of the type from here on; "" = as before
	// Examples show what the upcast does.
	Examples []Example
}

// Example is data before an upcast and after it, in canonical JSON.
type Example struct{ Old, New json.RawMessage }

// Parse reads a registration from JSON:
//
//	{"schema":{…},"upcast":"…","renamed":"…","examples":[{"old":…,"new":…}]}
//
// Only schema is required. Members it does not know, doubled names and what is
// over a limit are errors, each an *Error. Whether the registration makes sense
// is for With to say.
func Parse(typ string, number uint32, body []byte) (*Registration, error) {
	r := &Registration{Type: typ, Number: number}
	if err := checkType("type", typ); err != nil {
		return nil, err
	}
	if number == 0 {
		return nil, refusef("number", "must be 1 or more")
	}
	if len(body) > MaxBody {
		return nil, refusef("", "%d bytes are over the limit of %d", len(body), MaxBody)
	}
	err := event.DecodeObject(body, func(name string, d *event.Decoder) error {
		switch name {
		case "schema":
			return canonical(&r.Schema, d.Object)
		case "upcast":
			return d.Text(&r.Upcast)
		case "renamed":
			return d.Text(&r.Renamed)
		case "examples":
			return d.Array("must be an array of examples", func() error { return r.addExample(d) })
		}
		return event.ErrUnknownMember
	})
	if err != nil {
		return nil, formError(err)
	}
	if err := r.checkForm(); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *Registration) addExample(d *event.Decoder) error {
	var ex Example
	var raw []byte
	if err := d.Object(&raw); err != nil {
		return err
	}
	at := fmt.Sprintf("[%d]", len(r.Examples))
	err := event.DecodeObject(raw, func(name string, d *event.Decoder) error {
		switch name {
		case "old":
			return canonical(&ex.Old, d.Value)
		case "new":
			return canonical(&ex.New, d.Value)
		}
		return event.ErrUnknownMember
	})
	switch {
	case err != nil:
		return fmt.Errorf("%s.%w", at, err)
	case ex.Old == nil || ex.New == nil:
		return fmt.Errorf(`%s must have "old" and "new"`, at)
	}
	r.Examples = append(r.Examples, ex)
	return nil
}

// canonical takes a value and brings it to the form in which equal values are
// equal bytes: members sorted, no white space, no needless escapes. Numbers stay
// as they are written, since a schema may speak of ones that no float64 holds.
func canonical(to *json.RawMessage, take func(*[]byte) error) error {
	var raw []byte
	if err := take(&raw); err != nil {
		return err
	}
	v := jsontext.Value(raw)
	if err := v.Canonicalize(jsontext.CanonicalizeRawInts(false), jsontext.CanonicalizeRawFloats(false)); err != nil {
		return err
	}
	*to = json.RawMessage(v)
	return nil
}

func (r *Registration) checkForm() error {
	switch {
	case r.Schema == nil:
		return refusef("schema", "is missing")
	case len(r.Schema) > MaxSchema:
		return refusef("schema", "%d bytes are over the limit of %d", len(r.Schema), MaxSchema)
	case len(r.Upcast) > MaxUpcast:
		return refusef("upcast", "%d bytes are over the limit of %d", len(r.Upcast), MaxUpcast)
	case len(r.Examples) > maxExamples:
		return refusef("examples", "%d are over the limit of %d", len(r.Examples), maxExamples)
	case r.Upcast == "" && r.Renamed != "":
		return refusef("upcast", `is missing: what is renamed needs one; "data" leaves the data as it is`)
	case r.Upcast == "" && len(r.Examples) > 0:
		return refusef("upcast", "is missing: examples show what an upcast does")
	case r.Upcast == "" && r.Number > 1:
		return refusef("upcast", `is missing: it must say how data of schema %d becomes data of this one; "data" leaves it as it is`, r.Number-1)
	case r.Upcast != "" && len(r.Examples) == 0:
		return refusef("examples", "there must be at least one, to show what the upcast does")
	case r.Renamed == r.Type:
		return refusef("renamed", "is the name that the type has")
	case r.Renamed != "":
		return checkType("renamed", r.Renamed)
	}
	return nil
}

// checkType reports why no event can have a type of that name.
func checkType(path, name string) error {
	err := event.Query{Items: []event.QueryItem{{Types: []string{name}}}}.Check()
	var invalid *event.InvalidError
	var large *event.TooLargeError
	switch {
	case errors.As(err, &invalid):
		return refusef(path, "%s", invalid.Reason)
	case errors.As(err, &large):
		return refusef(path, "%d bytes are over the limit of %d", large.Size, large.Limit)
	}
	return err
}

// formError is the *Error of what event.DecodeObject found.
func formError(err error) error {
	var invalid *event.InvalidError
	if errors.As(err, &invalid) {
		return refusef(invalid.Field, "%s", invalid.Reason)
	}
	return refusef("", "%v", err)
}

// Canonical returns the registration as JSON without its type and number, as
// Parse takes it. Equal registrations give equal bytes.
func (r *Registration) Canonical() []byte {
	b := append([]byte(`{"schema":`), r.Schema...)
	if r.Upcast != "" {
		b = appendText(append(b, `,"upcast":`...), r.Upcast)
	}
	if r.Renamed != "" {
		b = appendText(append(b, `,"renamed":`...), r.Renamed)
	}
	if len(r.Examples) > 0 {
		b = append(b, `,"examples":[`...)
		for i, ex := range r.Examples {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(append(b, `{"old":`...), ex.Old...)
			b = append(append(b, `,"new":`...), ex.New...)
			b = append(b, '}')
		}
		b = append(b, ']')
	}
	return append(b, '}')
}

// appendText appends s as a JSON string.
func appendText(dst []byte, s string) []byte {
	quoted, _ := jsontext.AppendQuote(dst, s) // Parse takes only UTF-8
	return quoted
}
