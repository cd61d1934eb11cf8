package schema

import (
	"cmp"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

var english = message.NewPrinter(language.English)

// flatten returns the places that a validation found, at most maxViolations: the
// first in the order of their paths. It walks over maps, so that what it finds
// comes in any order. There may be as many as there are values, so that only
// those that may be among the first are put into words.
func flatten(e *jsonschema.ValidationError) []ViolationError {
	first := make([]ViolationError, 0, maxViolations+1) // sorted
	walkErrors(e, func(e *jsonschema.ValidationError) {
		v := ViolationError{Path: pointer(e.InstanceLocation)}
		if len(first) == maxViolations && v.Path > first[maxViolations-1].Path {
			return
		}
		if k, ok := e.ErrorKind.(*kind.AdditionalProperties); ok {
			slices.Sort(k.Properties)
		}
		v.Message = clip(e.ErrorKind.LocalizedString(english))
		at, known := slices.BinarySearchFunc(first, v, func(a, b ViolationError) int {
			return cmp.Or(strings.Compare(a.Path, b.Path), strings.Compare(a.Message, b.Message))
		})
		if !known {
			first = slices.Insert(first, at, v)
			first = first[:min(len(first), maxViolations)]
		}
	})
	return first
}

// walkErrors calls each with the errors that say by themselves what is wrong: the
// leaves. Those of names and of what an array should contain are leaves too:
// what is below them speaks of other places.
func walkErrors(e *jsonschema.ValidationError, each func(*jsonschema.ValidationError)) {
	leaf := len(e.Causes) == 0
	switch e.ErrorKind.(type) {
	case nil:
		return
	case *kind.Contains, *kind.MinContains, *kind.PropertyNames:
		leaf = true
	}
	if leaf {
		each(e)
		return
	}
	for _, cause := range e.Causes {
		walkErrors(cause, each)
	}
}

var pointerEscapes = strings.NewReplacer("~", "~0", "/", "~1")

// pointer writes a path as a JSON pointer.
func pointer(path []string) string {
	var b strings.Builder
	for _, name := range path {
		b.WriteByte('/')
		_, _ = pointerEscapes.WriteString(&b, name)
	}
	return b.String()
}
