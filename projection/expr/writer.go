package expr

import (
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"
)

// AppendJSON appends v's canonical JSON to dst: members in byte order of their
// names, no white space, as few escapes as may be. A number that was read and
// not computed with keeps its text; a computed one has the shortest that reads
// back as the same double, without exponent where it is an integer up to 2^53.
// More than limit bytes, nesting over MaxDepth and values without a JSON form
// are errors, and dst is returned as it was.
func (v Value) AppendJSON(dst []byte, limit int) ([]byte, error) {
	w := writer{out: dst, most: len(dst) + limit}
	if err := w.value(v, 0); err != nil {
		return dst, err
	}
	if len(w.out) > w.most {
		return dst, fmt.Errorf("it is larger than %d bytes of JSON", limit)
	}
	return w.out, nil
}

type writer struct {
	out  []byte
	most int
}

func (w *writer) value(v Value, depth int) error {
	switch v.kind {
	case Null:
		w.out = append(w.out, "null"...)
	case Bool:
		w.out = strconv.AppendBool(w.out, v.bits == 1)
	case Number:
		if v.text != "" {
			w.out = append(w.out, v.text...)
		} else {
			w.out = appendNumber(w.out, math.Float64frombits(v.bits))
		}
	case String:
		w.out = appendString(w.out, v.text)
	case Timestamp, Duration:
		w.out = appendString(w.out, v.plainText())
	case List, Map:
		return w.elements(v, depth+1)
	default:
		return fmt.Errorf("a value of type %s has no JSON form", v.kind)
	}
	return nil
}

func (w *writer) elements(v Value, depth int) error {
	if depth > MaxDepth {
		return fmt.Errorf("it nests deeper than %d", MaxDepth)
	}
	left, right := byte('['), byte(']')
	if v.kind == Map {
		left, right = '{', '}'
	}
	w.out = append(w.out, left)
	for i, element := range v.node.values {
		if i > 0 {
			w.out = append(w.out, ',')
		}
		if v.kind == Map {
			w.out = append(appendString(w.out, v.node.names[i]), ':')
		}
		if err := w.value(element, depth); err != nil {
			return err
		}
		if len(w.out) > w.most {
			return nil // AppendJSON says so
		}
	}
	w.out = append(w.out, right)
	return nil
}

// appendNumber writes a double. One that is whole but beyond 2^53 always gets
// an exponent: without, it would read back as an integer that is not exact.
func appendNumber(dst []byte, f float64) []byte {
	abs := math.Abs(f)
	if abs <= maxInteger && f == math.Trunc(f) {
		return strconv.AppendInt(dst, int64(f), 10)
	}
	if 1e-6 <= abs && abs <= maxInteger {
		return strconv.AppendFloat(dst, f, 'f', -1, 64)
	}
	start := len(dst)
	dst = strconv.AppendFloat(dst, f, 'e', -1, 64)
	for i := start; i < len(dst); i++ {
		if dst[i] == 'e' {
			return trimExponent(dst, i+1)
		}
	}
	return dst
}

// trimExponent takes the '+' and the leading zero out of the exponent at i.
func trimExponent(b []byte, i int) []byte {
	from := i
	if b[i] == '-' {
		i++
		from++
	} else if b[i] == '+' {
		from++
	}
	if b[from] == '0' {
		from++
	}
	return append(b[:i], b[from:]...)
}

const hexDigits = "0123456789abcdef"

func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[start:i]...)
		start = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, `\b`...)
		case '\f':
			dst = append(dst, `\f`...)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\t':
			dst = append(dst, `\t`...)
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}

// stringSize is how many code points s has.
func stringSize(s string) int { return utf8.RuneCountInString(s) }
