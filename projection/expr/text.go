package expr

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// addTextFunctions declares what CEL's strings extension has, but for what
// depends on a locale or on tables of Unicode. Places count code points.
func addTextFunctions(methods map[string]*function, text, number, list kinds) {
	declare := func(name string, optional int, out kinds, run func(f *frame, a []Value) (Value, error), more ...kinds) {
		methods[name] = &function{in: append([]kinds{text}, more...), optional: optional, out: out, run: func(f *frame, a []Value) (Value, error) {
			size := 0
			for _, v := range a {
				size += len(v.text)
			}
			if err := f.spend(textSteps(size)); err != nil {
				return Value{}, err
			}
			return run(f, a)
		}}
	}
	truth := setOf(Bool)
	for name, test := range map[string]func(s, part string) bool{
		"contains": strings.Contains, "startsWith": strings.HasPrefix, "endsWith": strings.HasSuffix,
	} {
		declare(name, 0, truth, func(_ *frame, a []Value) (Value, error) { return BoolOf(test(a[0].text, a[1].text)), nil }, text)
	}
	declare("lowerAscii", 0, text, mapText(func(c byte) bool { return 'A' <= c && c <= 'Z' }))
	declare("upperAscii", 0, text, mapText(func(c byte) bool { return 'a' <= c && c <= 'z' }))
	declare("trim", 0, text, func(_ *frame, a []Value) (Value, error) { return TextOf(strings.TrimFunc(a[0].text, isSpace)), nil })
	declare("reverse", 0, text, reverseText)
	declare("charAt", 0, text, charAt, number)
	declare("substring", 1, text, substring, number, number)
	declare("indexOf", 1, number, indexOf, text, number)
	declare("lastIndexOf", 1, number, lastIndexOf, text, number)
	declare("replace", 1, text, replace, text, text, number)
	declare("split", 1, list, split, text, number)
	methods["join"] = &function{in: []kinds{list, text}, optional: 1, out: text, run: join}
}

// mapText turns letters of one case into the other; in holds for those.
func mapText(in func(byte) bool) func(*frame, []Value) (Value, error) {
	return func(_ *frame, a []Value) (Value, error) {
		b := []byte(a[0].text)
		for i, c := range b {
			if in(c) {
				b[i] = c ^ 0x20
			}
		}
		return TextOf(string(b)), nil
	}
}

// isSpace holds for White_Space of Unicode 6 and later, which no version of Go
// changes.
func isSpace(r rune) bool {
	switch r {
	case '\t', '\n', '\v', '\f', '\r', ' ', 0x85, 0xa0, 0x1680, 0x2028, 0x2029, 0x202f, 0x205f, 0x3000:
		return true
	}
	return 0x2000 <= r && r <= 0x200a
}

func reverseText(f *frame, a []Value) (Value, error) {
	s := a[0].text
	if err := f.spend(textSteps(len(s))); err != nil {
		return Value{}, err
	}
	out := make([]byte, 0, len(s))
	for len(s) > 0 {
		_, n := utf8.DecodeLastRuneInString(s)
		out = append(out, s[len(s)-n:]...)
		s = s[:len(s)-n]
	}
	return TextOf(string(out)), nil
}

// offset returns the byte at which the n-th code point of s begins, len(s) for
// the one behind the last.
func (f *frame) offset(s string, v Value) (int, error) {
	n, err := f.whole(v)
	if err != nil {
		return 0, err
	}
	left := n
	if left >= 0 {
		for i := range s {
			if left == 0 {
				return i, nil
			}
			left--
		}
		if left == 0 {
			return len(s), nil
		}
	}
	return 0, fmt.Errorf("the index %d is out of range", n)
}

func charAt(f *frame, a []Value) (Value, error) {
	at, err := f.offset(a[0].text, a[1])
	if err != nil {
		return Value{}, err
	}
	_, n := utf8.DecodeRuneInString(a[0].text[at:])
	return TextOf(a[0].text[at : at+n]), nil
}

func substring(f *frame, a []Value) (Value, error) {
	s := a[0].text
	from, err := f.offset(s, a[1])
	if err != nil {
		return Value{}, err
	}
	to := len(s)
	if len(a) == 3 {
		if to, err = f.offset(s, a[2]); err != nil {
			return Value{}, err
		}
	}
	if from > to {
		return Value{}, fmt.Errorf("the end lies before the start")
	}
	return TextOf(s[from:to]), nil
}

// place of a part in code points, -1 where at is negative.
func codePoints(s string, at int) Value {
	if at < 0 {
		return NumberOf(-1)
	}
	return NumberOf(float64(stringSize(s[:at])))
}

func indexOf(f *frame, a []Value) (Value, error) {
	s, from := a[0].text, 0
	if len(a) == 3 {
		var err error
		if from, err = f.offset(s, a[2]); err != nil {
			return Value{}, err
		}
	}
	at := strings.Index(s[from:], a[1].text)
	if at >= 0 {
		at += from
	}
	return codePoints(s, at), nil
}

// lastIndexOf finds the last place at which the part begins, at the given one
// or before.
func lastIndexOf(f *frame, a []Value) (Value, error) {
	s, to := a[0].text, len(a[0].text)
	if len(a) == 3 {
		last, err := f.offset(s, a[2])
		if err != nil {
			return Value{}, err
		}
		to = min(to, last+len(a[1].text))
	}
	return codePoints(s, strings.LastIndex(s[:to], a[1].text)), nil
}

func replace(f *frame, a []Value) (Value, error) {
	s, old, with := a[0].text, a[1].text, a[2].text
	count := strings.Count(s, old)
	if len(a) == 4 {
		most, err := f.whole(a[3])
		if err != nil {
			return Value{}, err
		}
		if most >= 0 {
			count = int(min(int64(count), most))
		}
	}
	if err := f.spend(count); err != nil {
		return Value{}, err
	}
	return f.madeText(len(s)+count*(len(with)-len(old)), func() string { return strings.Replace(s, old, with, count) })
}

func split(f *frame, a []Value) (Value, error) {
	most := int64(-1)
	if len(a) == 3 {
		var err error
		if most, err = f.whole(a[2]); err != nil {
			return Value{}, err
		}
	}
	if err := f.spend(2 * strings.Count(a[0].text, a[1].text)); err != nil {
		return Value{}, err
	}
	parts := strings.SplitN(a[0].text, a[1].text, int(most))
	out := make([]Value, len(parts))
	for i, part := range parts {
		out[i] = TextOf(part)
	}
	return ListOf(out...), nil
}

func join(f *frame, a []Value) (Value, error) {
	parts, between := a[0].node.values, ""
	if len(a) == 2 {
		between = a[1].text
	}
	if err := f.spend(len(parts)); err != nil {
		return Value{}, err
	}
	size := len(between) * max(len(parts)-1, 0)
	for _, part := range parts {
		if part.kind != String {
			return Value{}, kindError("it", part)
		}
		size += len(part.text)
	}
	return f.madeText(size, func() string {
		texts := make([]string, len(parts))
		for i, part := range parts {
			texts[i] = part.text
		}
		return strings.Join(texts, between)
	})
}
