package expr

import (
	"errors"
	"math"
	"math/bits"
	"slices"
)

// addListFunctions declares what CEL's lists extension has of use for state.
func addListFunctions(methods map[string]*function, list, number kinds) {
	methods["sum"] = &function{in: []kinds{list}, out: number, run: sum}
	methods["sort"] = &function{in: []kinds{list}, out: list, run: sorted}
	methods["distinct"] = &function{in: []kinds{list}, out: list, run: distinct}
	methods["slice"] = &function{in: []kinds{list, number, number}, out: list, run: slice}
}

func sum(f *frame, a []Value) (Value, error) {
	total := NumberOf(0)
	for _, v := range a[0].node.values {
		if v.kind != Number {
			return Value{}, kindError("it", v)
		}
		if err := f.spend(1); err != nil {
			return Value{}, err
		}
		var err error
		if total, err = addNumbers(f, total, v); err != nil {
			return Value{}, err
		}
	}
	return total, nil
}

// sorted orders values of one kind, equal ones as they were. What it costs and
// how it fails is settled before the first comparison: neither may depend on how
// sorting is done.
func sorted(f *frame, a []Value) (Value, error) {
	type element struct {
		Value
		number float64
	}
	all := make([]element, 0, len(a[0].node.values))
	for _, v := range a[0].node.values {
		if _, ok := orderedKinds(a[0].node.values[0].kind, v.kind); !ok {
			return Value{}, kindError("it", a[0].node.values[0], v)
		}
		steps := textSteps(len(v.text)) * bits.Len(uint(cap(all)))
		e := element{Value: v}
		if v.kind == Number {
			var err error
			if e.number, err = f.number(v); err != nil {
				return Value{}, err
			}
			steps = bits.Len(uint(cap(all)))
		}
		if err := f.spend(steps); err != nil {
			return Value{}, err
		}
		all = append(all, e)
	}
	unmetered := &frame{work: math.MaxInt}
	slices.SortStableFunc(all, func(x, y element) int {
		if x.kind == Number {
			return order(x.number, y.number)
		}
		n, _ := unmetered.compare(x.Value, y.Value) // fails for numbers only
		return n
	})
	out := make([]Value, len(all))
	for i, e := range all {
		out[i] = e.Value
	}
	return ListOf(out...), nil
}

func distinct(f *frame, a []Value) (Value, error) {
	var out []Value
	for _, v := range a[0].node.values {
		known := false
		for _, w := range out {
			same, err := f.equal(w, v)
			if err != nil {
				return Value{}, err
			}
			if known = same; known {
				break
			}
		}
		if !known {
			out = append(out, v)
		}
	}
	return ListOf(out...), nil
}

func slice(f *frame, a []Value) (Value, error) {
	from, err := f.whole(a[1])
	if err != nil {
		return Value{}, err
	}
	to, err := f.whole(a[2])
	if err != nil {
		return Value{}, err
	}
	values := a[0].node.values
	if from < 0 || to < from || to > int64(len(values)) {
		return Value{}, errors.New("the range is not in the list")
	}
	return ListOf(values[from:to]...), f.spend(int(to - from))
}
