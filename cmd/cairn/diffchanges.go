package main

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// change is one place in which two JSON values differ.
type change struct {
	path     string         // JSON pointer (RFC 6901); "" = the whole value
	old, new jsontext.Value // nil = there is none
}

// changes returns the places in which two values differ: members of objects in
// the order of the old one, those that came behind them, and elements of arrays
// by their place. Nil is a value that is not there.
func changes(old, new jsontext.Value) ([]change, error) {
	return appendChanges(nil, "", old, new)
}

func appendChanges(list []change, path string, old, new jsontext.Value) ([]change, error) {
	kind := old.Kind()
	switch {
	case old == nil && new == nil, bytes.Equal(old, new):
		return list, nil
	case old == nil || new == nil || kind != new.Kind() || kind != '{' && kind != '[':
		return append(list, change{path, old, new}), nil
	}
	before, err := parts(old)
	if err != nil {
		return nil, err
	}
	after, err := parts(new)
	if err != nil {
		return nil, err
	}
	values := make(map[string]jsontext.Value, len(after))
	for _, p := range after {
		values[p.name] = p.value
	}
	for _, p := range before {
		if list, err = appendChanges(list, path+"/"+pointerToken(p.name), p.value, values[p.name]); err != nil {
			return nil, err
		}
		delete(values, p.name)
	}
	for _, p := range after {
		if _, came := values[p.name]; came {
			list = append(list, change{path + "/" + pointerToken(p.name), nil, p.value})
		}
	}
	return list, nil
}

// part is a member of an object, or an element of an array under its number.
type part struct {
	name  string
	value jsontext.Value
}

func parts(v jsontext.Value) ([]part, error) {
	dec := jsontext.NewDecoder(bytes.NewReader(v))
	open, err := dec.ReadToken()
	if err != nil {
		return nil, err
	}
	var list []part
	for dec.PeekKind() != '}' && dec.PeekKind() != ']' {
		p := part{name: strconv.Itoa(len(list))}
		if open.Kind() == '{' {
			name, err := dec.ReadToken()
			if err != nil {
				return nil, err
			}
			p.name = name.String()
		}
		value, err := dec.ReadValue()
		if err != nil {
			return nil, err
		}
		p.value = value.Clone()
		list = append(list, p)
	}
	return list, nil
}

// pointerToken is a name as it stands in a JSON pointer.
func pointerToken(name string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}

// changesText says what changed in one line.
func changesText(list []change) string {
	var b strings.Builder
	for i, c := range list {
		if i > 0 {
			b.WriteString(", ")
		}
		if c.path != "" {
			b.WriteString(c.path + " ")
		}
		switch {
		case c.old == nil:
			fmt.Fprintf(&b, "= %s", c.new)
		case c.new == nil:
			b.WriteString("taken out")
		default:
			fmt.Fprintf(&b, "%s -> %s", c.old, c.new)
		}
	}
	return b.String()
}

// writeChanges writes changes as a JSON array. A side without a value is left
// out.
func writeChanges(w io.Writer, list []change) error {
	b := []byte{'['}
	for i, c := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = quote(append(b, `{"path":`...), c.path)
		if c.old != nil {
			b = append(append(b, `,"old":`...), c.old...)
		}
		if c.new != nil {
			b = append(append(b, `,"new":`...), c.new...)
		}
		b = append(b, '}')
	}
	_, err := w.Write(append(b, ']'))
	return err
}
