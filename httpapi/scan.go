package httpapi

import (
	"bytes"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"

	"cairn/event"
)

// Appends are read in one pass: elements and members only find where values
// begin and end, and each value then goes to a strict decoder of package
// event. What they let through between values is exactly what JSON allows
// there, so that the whole is strict when each value is.

const jsonSpace = " \t\r\n"

// elements calls each with the text of every element of the array that b must be.
func elements(field string, b []byte, each func(i int, raw []byte) error) error {
	at := skipSpace(b, 0)
	if at == len(b) || b[at] != '[' {
		return &event.InvalidError{Field: field, Reason: "must be an array"}
	}
	if at = skipSpace(b, at+1); at < len(b) && b[at] == ']' {
		return endOf(b, at+1)
	}
	for i := 0; ; i++ {
		end := valueEnd(b, at)
		if end < 0 {
			return errCutShort
		}
		if err := each(i, b[at:end]); err != nil {
			return err
		}
		at = skipSpace(b, end)
		switch {
		case at == len(b):
			return errCutShort
		case b[at] == ']':
			return endOf(b, at+1)
		case b[at] != ',':
			return errNotJSON(at, "a comma or the end of the array")
		}
		at = skipSpace(b, at+1)
	}
}

// members calls each with the name and the text of every member of the object
// that b must be.
func members(b []byte, each func(name string, raw []byte) error) error {
	at := skipSpace(b, 0)
	if at == len(b) || b[at] != '{' {
		return &event.InvalidError{Field: "body", Reason: "must be a JSON object"}
	}
	if at = skipSpace(b, at+1); at < len(b) && b[at] == '}' {
		return endOf(b, at+1)
	}
	for {
		end := valueEnd(b, at)
		if end < 0 {
			return errCutShort
		}
		name, err := jsontext.AppendUnquote(nil, b[at:end])
		if err != nil {
			return errNotJSON(at, "the name of a member")
		}
		if at = skipSpace(b, end); at == len(b) || b[at] != ':' {
			return errNotJSON(at, "a colon")
		}
		at = skipSpace(b, at+1)
		if end = valueEnd(b, at); end < 0 {
			return errCutShort
		}
		if err := each(string(name), b[at:end]); err != nil {
			return err
		}
		at = skipSpace(b, end)
		switch {
		case at == len(b):
			return errCutShort
		case b[at] == '}':
			return endOf(b, at+1)
		case b[at] != ',':
			return errNotJSON(at, "a comma or the end of the object")
		}
		at = skipSpace(b, at+1)
	}
}

var errCutShort = &event.InvalidError{Field: "body", Reason: "ends before its JSON does"}

func errNotJSON(at int, want string) error {
	return &event.InvalidError{Field: "body", Reason: fmt.Sprintf("is not JSON: at byte %d there should be %s", at, want)}
}

func endOf(b []byte, at int) error {
	if skipSpace(b, at) != len(b) {
		return &event.InvalidError{Field: "body", Reason: "has something behind its end"}
	}
	return nil
}

func skipSpace(b []byte, at int) int {
	for at < len(b) && (b[at] == ' ' || b[at] == '\n' || b[at] == '\r' || b[at] == '\t') {
		at++
	}
	return at
}

// valueEnd returns where the value that begins at a byte ends, if it is a valid
// one; -1 if b ends before, or at once.
func valueEnd(b []byte, at int) int {
	depth := 0
	for i := at; i < len(b); {
		switch c := b[i]; c {
		case '"':
			if i = textEnd(b, i); i < 0 {
				return -1
			}
		case '{', '[':
			depth++
			i++
		case '}', ']':
			depth--
			i++
		case ',', ':', ' ', '\n', '\r', '\t':
			if depth == 0 {
				return i // right where it began: an empty value, which no decoder takes
			}
			i++
			continue
		default:
			i++
			if depth == 0 && !isWord(b, i) {
				return i
			}
			continue
		}
		if depth <= 0 {
			return i
		}
	}
	return -1
}

// isWord reports whether a number, true, false or null may go on at a byte.
func isWord(b []byte, at int) bool {
	return at < len(b) && !bytes.ContainsRune([]byte("{}[],: \n\r\t\""), rune(b[at]))
}

// textEnd returns where the string that begins at a byte ends, or -1.
func textEnd(b []byte, at int) int {
	for i := at + 1; ; {
		next := bytes.IndexByte(b[i:], '"')
		if next < 0 {
			return -1
		}
		end := i + next
		escapes := 0
		for j := end - 1; j > at && b[j] == '\\'; j-- {
			escapes++
		}
		if i = end + 1; escapes%2 == 0 {
			return i
		}
	}
}
