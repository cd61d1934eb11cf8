package expr

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxDepth is how deep lists and maps may nest in JSON.
const MaxDepth = 128

// Parse reads one JSON value (RFC 8259). Doubled names, text that is not
// UTF-8, half surrogates, nesting over MaxDepth and anything behind the value
// are errors. Numbers keep their text until an expression computes with them.
func Parse(b []byte) (Value, error) {
	r := readers.Get().(*reader)
	r.text = string(b)
	v, err := r.whole()
	clear(r.names) // a pooled reader must not keep an event's memory; take cleared the rest
	clear(r.values)
	*r = reader{names: r.names[:0], values: r.values[:0]}
	readers.Put(r)
	return v, err
}

var readers = sync.Pool{New: func() any { return &reader{names: make([]string, 0, 32), values: make([]Value, 0, 32)} }}

// reader is a walk over JSON text, whose strings are parts of it.
type reader struct {
	text   string
	at     int
	names  []string // of the maps that are open, those inside behind
	values []Value  // of the maps and lists that are open
}

// whole reads the one value that the text must be.
func (r *reader) whole() (Value, error) {
	r.space()
	v, err := r.value(0)
	if err == nil {
		if r.space(); r.at < len(r.text) {
			err = errors.New("something stands behind the value")
		}
	}
	if err != nil {
		return Value{}, fmt.Errorf("JSON at byte %d: %w", r.at, err)
	}
	return v, nil
}

var errEnd = errors.New("the text ends before the value does")

func (r *reader) space() {
	for r.at < len(r.text) {
		switch r.text[r.at] {
		case ' ', '\t', '\n', '\r':
			r.at++
		default:
			return
		}
	}
}

func (r *reader) value(depth int) (Value, error) {
	if r.at >= len(r.text) {
		return Value{}, errEnd
	}
	switch c := r.text[r.at]; {
	case c == '"':
		s, err := r.string()
		return Value{kind: String, text: s}, err
	case c == '-' || '0' <= c && c <= '9':
		return r.number()
	case c == '{' || c == '[':
		if depth == MaxDepth {
			return Value{}, fmt.Errorf("it nests deeper than %d", MaxDepth)
		}
		if c == '[' {
			return r.list(depth + 1)
		}
		return r.object(depth + 1)
	case c == 't':
		return BoolOf(true), r.word("true")
	case c == 'f':
		return BoolOf(false), r.word("false")
	case c == 'n':
		return Value{}, r.word("null")
	}
	return Value{}, errors.New("no value begins like this")
}

func (r *reader) word(w string) error {
	if len(r.text)-r.at < len(w) || r.text[r.at:r.at+len(w)] != w {
		return errors.New("no value begins like this")
	}
	r.at += len(w)
	return nil
}

// list reads what follows '['. Elements are gathered behind those of the lists
// around it and copied out when their number is known.
func (r *reader) list(depth int) (Value, error) {
	first := len(r.values)
	r.at++
	for more := r.open(']'); more; {
		v, err := r.value(depth)
		if err != nil {
			return Value{}, err
		}
		r.values = append(r.values, v)
		if more, err = r.next(']'); err != nil {
			return Value{}, err
		}
	}
	return Value{kind: List, node: &node{values: r.take(first)}}, nil
}

// object reads what follows '{'.
func (r *reader) object(depth int) (Value, error) {
	first, firstName := len(r.values), len(r.names)
	r.at++
	for more := r.open('}'); more; {
		if r.at >= len(r.text) {
			return Value{}, errEnd
		}
		if r.text[r.at] != '"' {
			return Value{}, errors.New("a member's name is missing")
		}
		name, err := r.string()
		if err != nil {
			return Value{}, err
		}
		r.names = append(r.names, name)
		if r.space(); r.at >= len(r.text) {
			return Value{}, errEnd
		}
		if r.text[r.at] != ':' {
			return Value{}, errors.New("there is no ':' behind a member's name")
		}
		r.at++
		r.space()
		v, err := r.value(depth)
		if err != nil {
			return Value{}, err
		}
		r.values = append(r.values, v)
		if more, err = r.next('}'); err != nil {
			return Value{}, err
		}
	}
	n := &node{values: r.take(first)}
	n.names = append(make([]string, 0, len(r.names)-firstName), r.names[firstName:]...)
	clear(r.names[firstName:])
	r.names = r.names[:firstName]
	if twice, ok := n.order(); !ok {
		return Value{}, fmt.Errorf("the name %q is there twice", clip(twice))
	}
	return Value{kind: Map, node: n}, nil
}

// open reports whether a list or map has anything in it, and passes its end if
// not.
func (r *reader) open(end byte) bool {
	r.space()
	if r.at < len(r.text) && r.text[r.at] == end {
		r.at++
		return false
	}
	return true
}

// next passes the ',' before another element, or the end.
func (r *reader) next(end byte) (more bool, err error) {
	if r.space(); r.at >= len(r.text) {
		return false, errEnd
	}
	switch c := r.text[r.at]; c {
	case end:
		r.at++
		return false, nil
	case ',':
		r.at++
		r.space()
		return true, nil
	}
	return false, fmt.Errorf("neither ',' nor '%c' stands behind a value", end)
}

func (r *reader) take(first int) []Value {
	if len(r.values) == first {
		return nil
	}
	out := append(make([]Value, 0, len(r.values)-first), r.values[first:]...)
	clear(r.values[first:])
	r.values = r.values[:first]
	return out
}

func (r *reader) number() (Value, error) {
	start := r.at
	if r.text[r.at] == '-' {
		r.at++
	}
	if r.at < len(r.text) && r.text[r.at] == '0' {
		r.at++
	} else if !r.digits() {
		return Value{}, errors.New("a number has no digits")
	}
	if r.at < len(r.text) && r.text[r.at] == '.' {
		r.at++
		if !r.digits() {
			return Value{}, errors.New("a number has no digits behind its point")
		}
	}
	if r.at < len(r.text) && (r.text[r.at] == 'e' || r.text[r.at] == 'E') {
		r.at++
		if r.at < len(r.text) && (r.text[r.at] == '+' || r.text[r.at] == '-') {
			r.at++
		}
		if !r.digits() {
			return Value{}, errors.New("a number has no digits in its exponent")
		}
	}
	return Value{kind: Number, text: r.text[start:r.at]}, nil
}

func (r *reader) digits() bool {
	start := r.at
	for r.at < len(r.text) && '0' <= r.text[r.at] && r.text[r.at] <= '9' {
		r.at++
	}
	return r.at > start
}

// string reads what begins with a quote. Without escapes it is part of the
// text.
func (r *reader) string() (string, error) {
	r.at++
	start, ascii := r.at, true
	for ; r.at < len(r.text); r.at++ {
		switch c := r.text[r.at]; {
		case c == '"':
			s := r.text[start:r.at]
			if !ascii && !utf8.ValidString(s) {
				return "", errors.New("a string is not UTF-8")
			}
			r.at++
			return s, nil
		case c == '\\':
			return r.escaped(start)
		case c < 0x20:
			return "", errors.New("a control character stands in a string")
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return "", errEnd
}

// escaped reads on from the first escape of a string that began at start.
func (r *reader) escaped(start int) (string, error) {
	out := append(make([]byte, 0, 2*(r.at-start)+16), r.text[start:r.at]...)
	for r.at < len(r.text) {
		c := r.text[r.at]
		switch {
		case c == '"':
			r.at++
			if !utf8.Valid(out) {
				return "", errors.New("a string is not UTF-8")
			}
			return string(out), nil
		case c < 0x20:
			return "", errors.New("a control character stands in a string")
		case c != '\\':
			out = append(out, c)
			r.at++
			continue
		}
		if r.at++; r.at >= len(r.text) {
			return "", errEnd
		}
		c = r.text[r.at]
		r.at++
		switch c {
		case '"', '\\', '/':
			out = append(out, c)
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			u, err := r.codePoint()
			if err != nil {
				return "", err
			}
			out = utf8.AppendRune(out, u)
		default:
			return "", errors.New("an escape is not known")
		}
	}
	return "", errEnd
}

// codePoint reads what follows \u, and the second half of a surrogate pair.
func (r *reader) codePoint() (rune, error) {
	u, err := r.hex4()
	if err != nil || !utf16.IsSurrogate(u) {
		return u, err
	}
	if len(r.text)-r.at >= 2 && r.text[r.at] == '\\' && r.text[r.at+1] == 'u' {
		r.at += 2
		low, err := r.hex4()
		if err != nil {
			return 0, err
		}
		if both := utf16.DecodeRune(u, low); both != utf8.RuneError {
			return both, nil
		}
	}
	return 0, errors.New("half of a surrogate pair stands alone")
}

func (r *reader) hex4() (rune, error) {
	if len(r.text)-r.at < 4 {
		return 0, errEnd
	}
	u, err := strconv.ParseUint(r.text[r.at:r.at+4], 16, 32)
	if err != nil {
		return 0, errors.New("an escape is not known")
	}
	r.at += 4
	return rune(u), nil
}
