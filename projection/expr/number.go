package expr

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// whole reports whether a double is an integer.
func whole(f float64) bool { return f == math.Trunc(f) }

// small reports whether a double is an integer of those that doubles tell apart.
func small(f float64) bool { return math.Abs(f) <= maxInteger && whole(f) }

var errInteger = fmt.Errorf("the result is an integer beyond 2^53, where numbers are no longer exact")

// exact refuses what two integers gave and what may be a wrong one: right tells
// whether r is the true result, and is asked only at the limit itself. What is
// out of range is for finite to refuse.
func exact(x, y, r float64, right func() bool) (float64, error) {
	if math.Abs(r) < maxInteger || !whole(x) || !whole(y) || math.IsInf(r, 0) {
		return r, nil
	}
	if math.Abs(r) > maxInteger || !right() {
		return 0, errInteger
	}
	return r, nil
}

func plus(x, y float64) (float64, error) {
	r := x + y
	return exact(x, y, r, func() bool {
		part := r - x // what of r is y's; the rest is what rounding lost (Knuth's two-sum)
		return (x-(r-part))+(y-part) == 0
	})
}

func minus(x, y float64) (float64, error) { return plus(x, -y) }

func multiply(x, y float64) (float64, error) {
	r := x * y
	return exact(x, y, r, func() bool { return math.FMA(x, y, -r) == 0 })
}

func divide(x, y float64) (float64, error) {
	if y == 0 {
		return 0, fmt.Errorf("division by zero")
	}
	r := x / y
	return exact(x, y, r, func() bool { return math.FMA(r, y, -x) == 0 })
}

func modulo(x, y float64) (float64, error) {
	if !small(x) || !small(y) {
		return 0, fmt.Errorf("'%%' takes integers only")
	}
	if y == 0 {
		return 0, fmt.Errorf("division by zero")
	}
	return float64(int64(x) % int64(y)), nil
}

// number returns the double that a Number is, and pays for reading its text.
func (f *frame) number(v Value) (float64, error) {
	if v.text != "" {
		if err := f.spend(numberSteps(v.text)); err != nil {
			return 0, err
		}
	}
	return v.number()
}

// numberSteps is what reading the text of a number may cost. Where there are
// more digits than an uint64 holds, strconv may have to compute with all of
// them; with a large exponent that takes microseconds.
func numberSteps(text string) int {
	switch {
	case len(text) <= 19 || len(text) > maxDigits:
		return 1
	case strings.ContainsAny(text, "eE"):
		return 512
	}
	return 12
}

// whole returns the integer that a Number is.
func (f *frame) whole(v Value) (int64, error) {
	n, err := f.number(v)
	if err != nil {
		return 0, err
	}
	if !small(n) {
		return 0, fmt.Errorf("%s is not an integer up to 2^53", appendNumber(nil, n))
	}
	return int64(n), nil
}

// numberText is what string() makes of a Number: an integer that was read
// keeps its digits, however many there are, so that it can be a key.
func (f *frame) numberText(v Value) (string, error) {
	if v.text != "" && isInteger(v.text) && v.text != "-0" {
		return v.text, nil
	}
	n, err := f.number(v)
	if err != nil {
		return "", err
	}
	return string(appendNumber(nil, n+0)), nil
}

// toNumber is double() of text: what JSON takes for a number.
func toNumber(f *frame, text string) (Value, error) {
	r := reader{text: text}
	if text != "" && (text[0] == '-' || '0' <= text[0] && text[0] <= '9') {
		if v, err := r.number(); err == nil && r.at == len(text) {
			n, err := f.number(v)
			if err != nil {
				return Value{}, err
			}
			return finite(n)
		}
	}
	return Value{}, fmt.Errorf("%s is not a number", strconv.Quote(clip(text)))
}

// truncated is int() of a number.
func truncated(f float64) (Value, error) {
	f = math.Trunc(f)
	if !small(f) {
		return Value{}, errInteger
	}
	return finite(f)
}

// mathOf makes a function of one number.
func mathOf(op func(float64) float64) func(*frame, []Value) (Value, error) {
	return func(f *frame, args []Value) (Value, error) {
		n, err := f.number(args[0])
		if err != nil {
			return Value{}, err
		}
		return finite(op(n))
	}
}

func sign(f float64) float64 {
	switch {
	case f > 0:
		return 1
	case f < 0:
		return -1
	}
	return 0
}

// extreme is math.greatest (direction 1) and math.least (-1) of several numbers
// or of one list of them.
func extreme(direction int) func(*frame, []Value) (Value, error) {
	return func(f *frame, args []Value) (Value, error) {
		if len(args) == 1 && args[0].kind == List {
			args = args[0].node.values
		}
		if len(args) == 0 {
			return Value{}, fmt.Errorf("the list is empty")
		}
		if err := f.spend(len(args)); err != nil {
			return Value{}, err
		}
		var best Value
		var most float64
		for i, v := range args {
			if v.kind != Number {
				return Value{}, kindError("it", v)
			}
			n, err := f.number(v)
			if err != nil {
				return Value{}, err
			}
			if i == 0 || order(n, most) == direction {
				best, most = v, n
			}
		}
		return best, nil
	}
}
