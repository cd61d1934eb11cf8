package schema

import (
	"errors"
	"fmt"
	"strings"
)

// ErrUnchanged is the error of registering again what is registered already.
var ErrUnchanged = errors.New("is registered already, the same")

// Error says why a registration is refused.
type Error struct {
	Path         string // of the member, as in schema, upcast or examples[0].new
	Line, Column int    // in the upcast, from 1; 0 = not about a place in it
	Message      string
}

func (e *Error) Error() string {
	switch {
	case e.Path == "":
		return e.Message
	case e.Line > 0:
		return fmt.Sprintf("%s, line %d, column %d: %s", e.Path, e.Line, e.Column, e.Message)
	}
	return e.Path + ": " + e.Message
}

func refusef(path, format string, args ...any) *Error {
	return &Error{Path: path, Message: fmt.Sprintf(format, args...)}
}

// NumberError says that a registration has another number than the one that may
// be registered next.
type NumberError struct {
	Type    string
	Number  uint32
	Newest  uint32 // 0 = the type has no schema
	Renamed string // not "" = the type was renamed to this by its newest schema, which is its last
}

func (e *NumberError) Error() string {
	switch {
	case e.Renamed != "":
		return fmt.Sprintf("type %s was renamed to %s by its schema %d, its last: register schemas of %s", e.Type, e.Renamed, e.Newest, e.Renamed)
	case e.Number <= e.Newest:
		return fmt.Sprintf("schema %d of type %s is registered with another content, and what is registered never changes: the next number is %d",
			e.Number, e.Type, e.Newest+1)
	}
	return fmt.Sprintf("the next schema of type %s is number %d, not %d", e.Type, e.Newest+1, e.Number)
}

// maxViolations is how many places a Violation names.
const maxViolations = 20

// Violation says what of some data is against a schema.
type Violation struct {
	Type   string
	Schema uint32
	Errors []ViolationError // at least one, at most 20, in the order of their paths
}

// ViolationError is one place in the data.
type ViolationError struct {
	Path    string `json:"path"` // JSON pointer (RFC 6901); "" = the whole
	Message string `json:"message"`
}

func (v *Violation) Error() string {
	texts := make([]string, len(v.Errors))
	for i, e := range v.Errors {
		if texts[i] = e.Message; e.Path != "" {
			texts[i] = e.Path + ": " + e.Message
		}
	}
	return fmt.Sprintf("not valid under schema %d of type %s: %s", v.Schema, v.Type, strings.Join(texts, "; "))
}
