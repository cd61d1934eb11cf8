package schema

import (
	"errors"
	"fmt"
	"regexp/syntax"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"cairn/projection/expr"
)

// The limits of the patterns of one schema.
const (
	maxPattern  = 512                  // bytes of each
	maxPatterns = 64                   // different ones
	maxWeight   = 4 * expr.MaxPatterns // of all together
)

// patterns compiles the patterns of one schema, and refuses too many of them
// before more are compiled.
type patterns struct {
	known  map[string]*expr.Pattern
	weight int
	fault  *Error // why they are refused, nil = they are not, or not by this package
	bad    string // the pattern that fault is about, "" = all
}

// compile is the regular expression engine of the schema's compiler.
func (p *patterns) compile(source string) (jsonschema.Regexp, error) {
	if p.fault != nil && p.bad == "" {
		return nil, p.fault
	}
	if known := p.known[source]; known != nil {
		return known, nil
	}
	if len(p.known) == maxPatterns {
		return p.refuse("has more than %d different patterns", maxPatterns)
	}
	re, err := expr.CompilePattern(source, maxPattern)
	if err != nil {
		// Of what is no pattern at all the schema's compiler says the place. It
		// comes here in any order: the first by its text is told.
		var syntaxError *syntax.Error
		if !errors.As(err, &syntaxError) && (p.bad == "" || source < p.bad) {
			p.bad, p.fault = source, refusef("schema", "has the pattern %q: %v", clip(source), err)
		}
		return nil, err
	}
	if p.weight += re.Weight(); p.weight > maxWeight {
		return p.refuse("has patterns that are too complex together: their bytes times the copies that their repeats make are over %d", maxWeight)
	}
	p.known[source] = re
	return re, nil
}

func (p *patterns) refuse(format string, args ...any) (jsonschema.Regexp, error) {
	p.fault, p.bad = refusef("schema", format, args...), ""
	return nil, p.fault
}

// maxMatching bounds what one Validate spends on patterns: bytes of text times
// the weight of the pattern.
const maxMatching = 3e7

// matching adds up what the patterns of a schema cost with some data, before any
// is matched. It goes the ways that a validation may go, and some more; how
// many there are is known to be bounded.
type matching struct{ left float64 }

func (m *matching) affords(s *jsonschema.Schema, v any) bool {
	if m.left < 0 || s.Bool != nil {
		return m.left >= 0
	}
	for _, one := range inPlace(s) {
		if !m.affords(one, v) {
			return false
		}
	}
	switch v := v.(type) {
	case string:
		if s.Pattern != nil {
			m.match(s.Pattern, v)
		}
	case map[string]any:
		for name, member := range v {
			if !m.member(s, name, member) {
				return false
			}
		}
	case []any:
		for i, element := range v {
			var all []*jsonschema.Schema
			if i < len(s.PrefixItems) {
				all = append(all, s.PrefixItems[i])
			}
			for _, one := range append(all, s.Items2020, s.Contains, s.UnevaluatedItems) {
				if one != nil && !m.affords(one, element) {
					return false
				}
			}
		}
	}
	return m.left >= 0
}

// member is affords for one member of an object.
func (m *matching) member(s *jsonschema.Schema, name string, member any) bool {
	if s.PropertyNames != nil && !m.affords(s.PropertyNames, name) {
		return false
	}
	additional, _ := s.AdditionalProperties.(*jsonschema.Schema)
	all := []*jsonschema.Schema{s.Properties[name], additional, s.UnevaluatedProperties}
	for re, one := range s.PatternProperties {
		m.match(re, name)
		all = append(all, one)
	}
	for _, one := range all {
		if one != nil && !m.affords(one, member) {
			return false
		}
	}
	return m.left >= 0
}

func (m *matching) match(re jsonschema.Regexp, text string) {
	p, ok := re.(*expr.Pattern)
	if !ok {
		panic(fmt.Sprintf("schema: a pattern of another engine: %T", re))
	}
	m.left -= float64(len(text)+1) * float64(p.Weight())
}
