package expr

import "strings"

// equal compares two values of any kinds. Values of different kinds differ.
func (f *frame) equal(a, b Value) (bool, error) {
	if err := f.spend(textSteps(min(len(a.text), len(b.text)))); err != nil {
		return false, err
	}
	if a.kind != b.kind {
		return false, nil
	}
	switch a.kind {
	case Null:
		return true, nil
	case String:
		return a.text == b.text, nil
	case Number:
		x, y, err := f.numbers(a, b)
		return err == nil && x == y, err
	case List, Map, Optional:
		if len(a.node.values) != len(b.node.values) {
			return false, nil
		}
		for i, name := range a.node.names {
			if err := f.spend(len(name) >> 4); err != nil {
				return false, err
			}
			if name != b.node.names[i] {
				return false, nil
			}
		}
		for i := range a.node.values {
			if same, err := f.equal(a.node.values[i], b.node.values[i]); err != nil || !same {
				return false, err
			}
		}
		return true, nil
	}
	return a.bits == b.bits, nil
}

// compare orders two values of one kind that has an order.
func (f *frame) compare(a, b Value) (int, error) {
	switch a.kind {
	case Number:
		x, y, err := f.numbers(a, b)
		if err != nil {
			return 0, err
		}
		return order(x, y), nil
	case String:
		return strings.Compare(a.text, b.text), f.spend(textSteps(min(len(a.text), len(b.text))))
	case Bool:
		return order(a.bits, b.bits), nil
	}
	return order(a.ns(), b.ns()), nil
}

func order[T float64 | int64 | uint64](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
