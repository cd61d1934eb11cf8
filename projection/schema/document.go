package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"cairn/event"
	"cairn/projection/expr"
)

// document is a compiled JSON Schema.
type document struct {
	schema *jsonschema.Schema
	// cost is how often schemas are applied, at most, on the way from the whole
	// of some data to one place in it, by the depth of that place.
	cost    [event.MaxDepth + 1]float64
	matches bool // there are patterns
}

// baseURL is what a document without an "$id" is called.
const baseURL = "cairn://schema/"

// maxCost bounds how often one Validate applies a schema, by what can be said
// before: a schema that applies itself twice to the same value costs twice as
// much with each level of nesting.
const maxCost = 2e7

// closed loads nothing: a schema means the same for ever, whatever the network
// says.
type closed struct{}

var errOutside = errors.New("refers to something outside of itself")

func (closed) Load(string) (any, error) { return nil, errOutside }

// compile makes a document of a schema in canonical form. The error is an *Error.
func compile(source json.RawMessage) (*document, error) {
	const at = "schema"
	doc, m, err := decode(source)
	if err != nil {
		return nil, refusef(at, "%v", err)
	}
	if m.number != "" {
		return nil, refusef(at, "has a number that is longer or larger than a schema may have: %s", clip(m.number))
	}
	if named, ok := doc.(map[string]any)["$schema"]; ok && strings.TrimSuffix(fmt.Sprint(named), "#") != jsonschema.Draft2020.String() {
		return nil, refusef(at+".$schema", "must be %s", jsonschema.Draft2020)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.UseLoader(closed{})
	p := &patterns{known: map[string]*expr.Pattern{}}
	c.UseRegexpEngine(p.compile)
	if err := c.AddResource(baseURL, doc); err != nil {
		return nil, refusef(at, "%v", err)
	}
	s, err := c.Compile(baseURL)
	if p.fault != nil {
		return nil, p.fault
	}
	if err != nil {
		return nil, compileError(err)
	}
	d := &document{schema: s, matches: len(p.known) > 0}
	if err := d.weigh(); err != nil {
		return nil, err
	}
	return d, nil
}

// compileError says in our words why a schema does not compile.
func compileError(err error) *Error {
	var outside *jsonschema.LoadURLError
	var form *jsonschema.SchemaValidationError
	var invalid *jsonschema.ValidationError
	switch {
	case errors.As(err, &outside):
		return refusef("schema", "refers to %s, which is outside of itself", clip(outside.URL))
	case errors.As(err, &form) && errors.As(form.Err, &invalid):
		if found := flatten(invalid); len(found) > 0 {
			var texts []string // of a choice, what is against each of its branches
			for _, f := range found {
				if f.Path == found[0].Path {
					texts = append(texts, f.Message)
				}
			}
			return refusef("schema"+found[0].Path, "%s", strings.Join(texts, ", or "))
		}
	}
	return refusef("schema", "%s", clip(strings.ReplaceAll(err.Error(), baseURL, "")))
}

// measure is what is known of a JSON value before it is validated.
type measure struct {
	values int    // it and all within it
	depth  int    // of the deepest of them, from 0
	number string // one that is too long or large to calculate with, "" = none
	path   []string
}

// The limits of numbers that are looked at: each is made a fraction of whole
// numbers, which have as many digits as the exponent says.
const (
	maxDigits   = 1000
	maxExponent = 1000
)

// decode reads JSON without loss and measures it.
func decode(data []byte) (any, *measure, error) {
	if err := event.CheckDepth(data); err != nil {
		return nil, nil, err
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		return nil, nil, fmt.Errorf("is not JSON: %w", err)
	}
	m := new(measure)
	m.look(v, nil)
	return v, m, nil
}

func (m *measure) look(v any, path []string) {
	m.values++
	m.depth = max(m.depth, len(path))
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			m.look(member, append(path, name))
		}
	case []any:
		for i, element := range v {
			m.look(element, append(path, strconv.Itoa(i)))
		}
	case json.Number:
		if !countable(v.String()) && m.number == "" {
			m.number, m.path = v.String(), append([]string(nil), path...)
		}
	}
}

// countable reports whether a number is within the limits.
func countable(n string) bool {
	digits, exponent := n, "0"
	if i := strings.IndexAny(n, "eE"); i >= 0 {
		digits, exponent = n[:i], n[i+1:]
	}
	e, err := strconv.Atoi(exponent)
	return err == nil && len(digits) <= maxDigits && -maxExponent <= e && e <= maxExponent
}

// validate returns what of data is against the schema; nil = nothing is.
func (d *document) validate(data []byte) []ViolationError {
	v, m, err := decode(data)
	switch {
	case err != nil:
		return []ViolationError{{Message: clip(err.Error())}}
	case m.number != "":
		return []ViolationError{{pointer(m.path), "the number " + clip(m.number) + " is longer or larger than a schema can be applied to"}}
	case float64(m.values)*d.cost[min(m.depth, event.MaxDepth)] > maxCost:
		return []ViolationError{{Message: fmt.Sprintf("has %d values, nested up to %d deep: too much for this schema, which applies itself more than once to the same value",
			m.values, m.depth)}}
	}
	if work := (matching{maxMatching}); d.matches && !work.affords(d.schema, v) {
		return []ViolationError{{Message: "has too much text for the patterns of this schema"}}
	}
	var invalid *jsonschema.ValidationError
	if errors.As(d.schema.Validate(v), &invalid) {
		return flatten(invalid)
	}
	return nil
}

// clip shortens what comes from data for a message.
func clip(s string) string {
	const limit = 200
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "…"
}
