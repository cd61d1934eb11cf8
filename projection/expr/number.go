package expr

import (
	"fmt"
	"math"
	"strconv"
)

// small reports whether a double is an integer of those that doubles tell apart.
func small(f float64) bool { return math.Abs(f) <= maxInteger && f == math.Trunc(f) }

var errInteger = fmt.Errorf("the result is an integer beyond 2^53, where numbers are no longer exact")

// exact refuses a result that would be a wrong integer: right tells whether r
// is the true result, and is asked only near the limit.
func exact(x, y, r float64, right func() bool) (float64, error) {
	if math.Abs(r) < maxInteger || !small(x) || !small(y) {
		return r, nil
	}
	if math.Abs(r) > maxInteger || !right() {
		return 0, errInteger
	}
	return r, nil
}

func plus(x, y float64) (float64, error) {
	r := x + y
	return exact(x, y, r, func() bool { return int64(x)+int64(y) == int64(r) })
}

func minus(x, y float64) (float64, error) {
	r := x - y
	return exact(x, y, r, func() bool { return int64(x)-int64(y) == int64(r) })
}

func multiply(x, y float64) (float64, error) {
	r := x * y
	return exact(x, y, r, func() bool { return math.FMA(x, y, -r) == 0 })
}

func divide(x, y float64) (float64, error) {
	if y == 0 {
		return 0, fmt.Errorf("division by zero")
	}
	return x / y, nil
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

// whole returns the integer that a Number is.
func (v Value) whole() (int64, error) {
	f, err := v.number()
	if err != nil {
		return 0, err
	}
	if !small(f) {
		return 0, fmt.Errorf("%s is not an integer up to 2^53", appendNumber(nil, f))
	}
	return int64(f), nil
}

// numberText is what string() makes of a Number: an integer that was read
// keeps its digits, however many there are, so that it can be a key.
func (v Value) numberText() (string, error) {
	if v.text != "" && isInteger(v.text) && v.text != "-0" {
		return v.text, nil
	}
	f, err := v.number()
	if err != nil {
		return "", err
	}
	return string(appendNumber(nil, f+0)), nil
}

// toNumber is double() of text: what JSON takes for a number.
func toNumber(text string) (Value, error) {
	r := reader{text: text}
	if text != "" && (text[0] == '-' || '0' <= text[0] && text[0] <= '9') {
		if v, err := r.number(); err == nil && r.at == len(text) {
			f, err := v.number()
			if err != nil {
				return Value{}, err
			}
			return finite(f)
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
	return func(_ *frame, args []Value) (Value, error) {
		f, err := args[0].number()
		if err != nil {
			return Value{}, err
		}
		return finite(op(f))
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
			n, err := v.number()
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
