// Package expr evaluates CEL expressions (https://cel.dev) over JSON: the same
// bytes from the same input, on every node and at any time.
//
// cel-go parses; everything that an evaluation does is here. All numbers are
// doubles, maps have their members in byte order, there is no clock and
// nothing random, and what an evaluation may do is limited by counts that
// depend on the expression and its input alone. A result never depends on how
// Go orders a map.
//
// Programs and values are immutable: any number of goroutines may use them.
package expr

import (
	"fmt"
	"math"
	"sort"
	"strconv"
	"time"
)

// Kind is what a Value is.
type Kind uint8

// The kinds. Values of those up to Map have a JSON form of their own;
// timestamps and durations become text; the others have none.
const (
	Null Kind = iota
	Bool
	Number
	String
	List
	Map
	Timestamp
	Duration
	Type
	Optional
)

var kindNames = [...]string{"null_type", "bool", "double", "string", "list", "map", "timestamp", "duration", "type", "optional_type"}

// String returns the name that type() gives to values of the kind.
func (k Kind) String() string { return kindNames[k] }

// Value is one value of the language: the zero Value is null. Those that Parse
// returns share memory with each other, never with the bytes they were read of.
type Value struct {
	kind Kind
	text string // of a String; of a Number: how JSON wrote it, or "" = computed
	bits uint64 // a Bool: 0 or 1; a computed Number: its IEEE 754 bits; a Timestamp or Duration: nanoseconds; a Type: its Kind
	node *node  // of a List, Map or Optional
}

// node holds the elements of a list, the members of a map in byte order of
// their names, or the one value or none of an optional.
type node struct {
	names  []string // of a map only
	values []Value
}

// TextOf returns a string. s must be valid UTF-8.
func TextOf(s string) Value { return Value{kind: String, text: s} }

// BoolOf returns a truth value.
func BoolOf(b bool) Value {
	if b {
		return Value{kind: Bool, bits: 1}
	}
	return Value{kind: Bool}
}

// NumberOf returns a number, which must be finite.
func NumberOf(f float64) Value { return Value{kind: Number, bits: math.Float64bits(f)} }

// TimeOf returns the timestamp of so many nanoseconds since 1970-01-01 UTC.
func TimeOf(ns int64) Value { return Value{kind: Timestamp, bits: uint64(ns)} }

// ListOf returns a list, which keeps values.
func ListOf(values ...Value) Value { return Value{kind: List, node: &node{values: values}} }

// MapOf returns a map, which keeps both slices. names must be distinct, valid
// UTF-8 and in byte order; values[i] is that of names[i].
func MapOf(names []string, values []Value) Value {
	return Value{kind: Map, node: &node{names, values}}
}

func durationOf(ns int64) Value { return Value{kind: Duration, bits: uint64(ns)} }
func typeOf(k Kind) Value       { return Value{kind: Type, bits: uint64(k)} }
func someOf(v Value) Value      { return Value{kind: Optional, node: &node{values: []Value{v}}} }

var none = Value{kind: Optional, node: &node{}}

// Kind returns what v is.
func (v Value) Kind() Kind { return v.kind }

// Text returns the string that v is, or "".
func (v Value) Text() string {
	if v.kind != String {
		return ""
	}
	return v.text
}

// Truth reports whether v is true itself.
func (v Value) Truth() bool { return v.kind == Bool && v.bits == 1 }

// Len returns how many elements or members a list or map has, 0 for others.
func (v Value) Len() int {
	if v.node == nil {
		return 0
	}
	return len(v.node.values)
}

// Member returns the member of that name of a map.
func (v Value) Member(name string) (Value, bool) {
	if v.kind != Map {
		return Value{}, false
	}
	if i := v.node.find(name); i >= 0 {
		return v.node.values[i], true
	}
	return Value{}, false
}

func (v Value) ns() int64 { return int64(v.bits) }

// find returns the place of a name, or -1. Most maps are so small that looking
// at each name is quicker than halving.
func (n *node) find(name string) int {
	if len(n.names) <= 12 {
		for i := range n.names {
			if n.names[i] == name {
				return i
			}
		}
		return -1
	}
	if i := sort.SearchStrings(n.names, name); i < len(n.names) && n.names[i] == name {
		return i
	}
	return -1
}

// node sorts as a map whose members are still in the order of their source.
func (n *node) Len() int           { return len(n.names) }
func (n *node) Less(i, j int) bool { return n.names[i] < n.names[j] }
func (n *node) Swap(i, j int) {
	n.names[i], n.names[j] = n.names[j], n.names[i]
	n.values[i], n.values[j] = n.values[j], n.values[i]
}

// order brings members into byte order and returns a name that is there twice,
// the first of them in that order.
func (n *node) order() (twice string, ok bool) {
	sorted := true
	for i := 1; i < len(n.names); i++ {
		if n.names[i-1] >= n.names[i] {
			sorted = false
			break
		}
	}
	if sorted {
		return "", true
	}
	sort.Sort(n)
	for i := 1; i < len(n.names); i++ {
		if n.names[i-1] == n.names[i] {
			return n.names[i], false
		}
	}
	return "", true
}

// maxInteger is the largest magnitude up to which a double tells all integers
// apart.
const maxInteger = 1 << 53

// number returns the double that a Number is. It fails for text that no double
// stands for well enough: an integer beyond 2^53, or one out of range.
func (v Value) number() (float64, error) {
	if v.text == "" {
		return math.Float64frombits(v.bits), nil
	}
	return parseNumber(v.text)
}

// maxDigits bounds the text of a number that is computed with, in bytes. Doubles
// need far fewer.
const maxDigits = 40

func parseNumber(text string) (float64, error) {
	if len(text) > maxDigits {
		return 0, fmt.Errorf("the number %s has more than %d digits", clip(text), maxDigits)
	}
	if isInteger(text) {
		i, err := strconv.ParseInt(text, 10, 64)
		if err != nil || i > maxInteger || i < -maxInteger {
			return 0, fmt.Errorf("the integer %s is beyond 2^53, where numbers are no longer exact", clip(text))
		}
		return float64(i), nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0, fmt.Errorf("the number %s is out of range", clip(text))
	}
	return f, nil
}

func isInteger(text string) bool {
	for i := 0; i < len(text); i++ {
		if c := text[i]; c == '.' || c == 'e' || c == 'E' {
			return false
		}
	}
	return true
}

// clip shortens text that stands in a message.
func clip(s string) string {
	const most = 40
	if len(s) <= most {
		return s
	}
	for i := range s {
		if i > most {
			return s[:i] + "…"
		}
	}
	return s
}

// timeForm is RFC 3339 in UTC with nine digits, as an event's time is written.
const timeForm = "2006-01-02T15:04:05.000000000Z"

// plainText returns the JSON text of a timestamp or duration.
func (v Value) plainText() string {
	if v.kind == Timestamp {
		return time.Unix(0, v.ns()).UTC().Format(timeForm)
	}
	return formatDuration(v.ns())
}

// formatDuration writes seconds with as many digits as there are.
func formatDuration(ns int64) string {
	sign, n := "", uint64(ns)
	if ns < 0 {
		sign, n = "-", -n
	}
	s := sign + strconv.FormatUint(n/1e9, 10)
	if rest := n % 1e9; rest != 0 {
		digits := strconv.FormatUint(1e9+rest, 10)[1:]
		for digits[len(digits)-1] == '0' {
			digits = digits[:len(digits)-1]
		}
		s += "." + digits
	}
	return s + "s"
}
