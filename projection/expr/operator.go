package expr

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
)

// operator compiles a call that is written with a sign. ok is false where the
// call is none.
func (c *compiler) operator(call ast.CallExpr, at place) (out compiled, ok bool, err error) {
	args := call.Args()
	switch name := call.FunctionName(); name {
	case operators.Conditional:
		out, err = c.conditional(args, at)
	case operators.LogicalAnd:
		out, err = c.logical(args, at, false)
	case operators.LogicalOr:
		out, err = c.logical(args, at, true)
	case operators.LogicalNot, operators.Negate:
		out, err = c.unary(args[0], name == operators.Negate, at)
	case operators.Equals, operators.NotEquals:
		out, err = c.equality(args, name == operators.Equals, at)
	case operators.In:
		out, err = c.membership(args, at)
	case operators.Index, operators.OptIndex:
		out, err = c.index(args[0], args[1], at, name == operators.OptIndex)
	case operators.OptSelect:
		name, lerr := literal(args[1])
		if lerr != nil || name.kind != String {
			return compiled{}, true, at.fail("this is not understood")
		}
		out, err = c.member(args[0], name.text, at, true)
	default:
		op, known := binaries[name]
		if !known {
			return compiled{}, false, nil
		}
		out, err = c.binary(args, op, at)
	}
	return out, true, err
}

func (c *compiler) conditional(args []ast.Expr, at place) (compiled, error) {
	parts, err := c.exprs(args)
	if err != nil {
		return compiled{}, err
	}
	cond, yes, no := parts[0], parts[1], parts[2]
	if !cond.kinds.has(Bool) {
		return compiled{}, at.fail("what stands before '?' must be a bool, not a %s", cond.kinds)
	}
	return compiled{kinds: yes.kinds | no.kinds, run: func(f *frame) (Value, error) {
		v, err := cond.run(f)
		switch {
		case err != nil:
			return Value{}, err
		case v.kind != Bool:
			return Value{}, at.fail("what stands before '?' must be a bool, not a %s", v.kind)
		case v.bits == 1:
			return yes.run(f)
		}
		return no.run(f)
	}}, nil
}

// logical compiles && and ||. The value that settles the matter does so on
// either side: false && x and x && false are false though x fails. Of two that
// fail the left one is told.
func (c *compiler) logical(args []ast.Expr, at place, settles bool) (compiled, error) {
	parts, err := c.exprs(args)
	if err != nil {
		return compiled{}, err
	}
	sign := "&&"
	if settles {
		sign = "||"
	}
	for _, part := range parts {
		if !part.kinds.has(Bool) {
			return compiled{}, at.fail("'%s' takes bools, not a %s", sign, part.kinds)
		}
	}
	return compiled{kinds: setOf(Bool), run: func(f *frame) (Value, error) {
		var first error
		for _, part := range parts {
			v, err := part.run(f)
			if err == nil && v.kind != Bool {
				err = at.fail("'%s' takes bools, not a %s", sign, v.kind)
			}
			if err == nil && (v.bits == 1) == settles {
				return v, nil
			}
			if err != nil {
				if err := f.outlive(err); err != nil {
					return Value{}, err
				}
				if first == nil {
					first = err
				}
			}
		}
		return BoolOf(!settles), first
	}}, nil
}

func (c *compiler) unary(arg ast.Expr, negate bool, at place) (compiled, error) {
	part, err := c.expr(arg)
	if err != nil {
		return compiled{}, err
	}
	sign, want := "!", Bool
	if negate {
		sign, want = "-", Number
	}
	if !part.kinds.has(want) && !(negate && part.kinds.has(Duration)) {
		return compiled{}, at.fail("'%s' takes a %s, not a %s", sign, want, part.kinds)
	}
	return compiled{kinds: part.kinds & setOf(Bool, Number, Duration), run: func(f *frame) (Value, error) {
		v, err := part.run(f)
		switch {
		case err != nil:
			return Value{}, err
		case v.kind == Bool && !negate:
			return BoolOf(v.bits == 0), nil
		case v.kind == Number && negate:
			n, err := f.number(v)
			if err != nil {
				return Value{}, at.wrap(err)
			}
			return NumberOf(0 - n), nil // not -n: there is no negative zero
		case v.kind == Duration && negate && v.ns() != math.MinInt64:
			return durationOf(-v.ns()), nil
		}
		return Value{}, at.fail("'%s' takes a %s, not a %s", sign, want, v.kind)
	}}, nil
}

func (c *compiler) equality(args []ast.Expr, equal bool, at place) (compiled, error) {
	parts, err := c.exprs(args)
	if err != nil {
		return compiled{}, err
	}
	left, right := parts[0], parts[1]
	return compiled{kinds: setOf(Bool), run: func(f *frame) (Value, error) {
		a, err := left.run(f)
		if err != nil {
			return Value{}, err
		}
		b, err := right.run(f)
		if err != nil {
			return Value{}, err
		}
		same, err := f.equal(a, b)
		return BoolOf(same == equal), at.wrap(err)
	}}, nil
}

// membership compiles: element in list, name in map.
func (c *compiler) membership(args []ast.Expr, at place) (compiled, error) {
	parts, err := c.exprs(args)
	if err != nil {
		return compiled{}, err
	}
	what, in := parts[0], parts[1]
	if in.kinds&setOf(List, Map) == nothing {
		return compiled{}, at.fail("'in' looks into a list or map, not a %s", in.kinds)
	}
	return compiled{kinds: setOf(Bool), run: func(f *frame) (Value, error) {
		a, err := what.run(f)
		if err != nil {
			return Value{}, err
		}
		b, err := in.run(f)
		if err != nil {
			return Value{}, err
		}
		switch b.kind {
		case Map:
			if err := f.spend(textSteps(len(a.text))); err != nil {
				return Value{}, at.wrap(err)
			}
			return BoolOf(a.kind == String && b.node.find(a.text) >= 0), nil
		case List:
			for _, element := range b.node.values {
				if same, err := f.equal(a, element); err != nil || same {
					return BoolOf(same), at.wrap(err)
				}
			}
			return BoolOf(false), at.wrap(f.spend(1))
		}
		return Value{}, at.fail("'in' looks into a list or map, not a %s", b.kind)
	}}, nil
}

// binaryOp is an operator that computes one value of two.
type binaryOp struct {
	sign   string
	result func(a, b Kind) (Kind, bool) // the kind of its result; false where it does not take these
	run    func(f *frame, a, b Value) (Value, error)
}

var binaries = map[string]*binaryOp{
	operators.Add:           {"+", addKinds, (*frame).add},
	operators.Subtract:      {"-", subtractKinds, (*frame).subtract},
	operators.Multiply:      {"*", numberKinds, arithmetic(multiply)},
	operators.Divide:        {"/", numberKinds, arithmetic(divide)},
	operators.Modulo:        {"%", numberKinds, arithmetic(modulo)},
	operators.Less:          {"<", orderedKinds, ordering(func(n int) bool { return n < 0 })},
	operators.LessEquals:    {"<=", orderedKinds, ordering(func(n int) bool { return n <= 0 })},
	operators.Greater:       {">", orderedKinds, ordering(func(n int) bool { return n > 0 })},
	operators.GreaterEquals: {">=", orderedKinds, ordering(func(n int) bool { return n >= 0 })},
}

func (c *compiler) binary(args []ast.Expr, op *binaryOp, at place) (compiled, error) {
	parts, err := c.exprs(args)
	if err != nil {
		return compiled{}, err
	}
	left, right := parts[0], parts[1]
	result := nothing
	for a := Null; a <= Optional; a++ {
		for b := Null; b <= Optional; b++ {
			if k, ok := op.result(a, b); ok && left.kinds.has(a) && right.kinds.has(b) {
				result |= setOf(k)
			}
		}
	}
	if result == nothing {
		return compiled{}, at.fail("'%s' does not take a %s and a %s", op.sign, left.kinds, right.kinds)
	}
	return compiled{kinds: result, run: func(f *frame) (Value, error) {
		a, err := left.run(f)
		if err != nil {
			return Value{}, err
		}
		b, err := right.run(f)
		if err != nil {
			return Value{}, err
		}
		if _, ok := op.result(a.kind, b.kind); !ok {
			return Value{}, at.fail("'%s' does not take a %s and a %s%s", op.sign, a.kind, b.kind, blame(left, a, right, b))
		}
		if err := f.spend(1); err != nil {
			return Value{}, at.wrap(err)
		}
		v, err := op.run(f, a, b)
		return v, at.wrap(err)
	}}, nil
}

// blame names the parts whose kinds don't go together, where they have names.
func blame(left compiled, a Value, right compiled, b Value) string {
	var named []string
	if left.path != "" {
		named = append(named, left.path+" is a "+a.kind.String())
	}
	if right.path != "" {
		named = append(named, right.path+" is a "+b.kind.String())
	}
	if len(named) == 0 {
		return ""
	}
	return ": " + strings.Join(named, ", ")
}

func numberKinds(a, b Kind) (Kind, bool) { return Number, a == Number && b == Number }

func orderedKinds(a, b Kind) (Kind, bool) {
	return Bool, a == b && setOf(Number, String, Bool, Timestamp, Duration).has(a)
}

func addKinds(a, b Kind) (Kind, bool) {
	switch {
	case a == b && setOf(Number, String, List, Duration).has(a):
		return a, true
	case a == Timestamp && b == Duration, a == Duration && b == Timestamp:
		return Timestamp, true
	}
	return Null, false
}

func subtractKinds(a, b Kind) (Kind, bool) {
	switch {
	case a == b && setOf(Number, Duration).has(a):
		return a, true
	case a == Timestamp && b == Timestamp:
		return Duration, true
	case a == Timestamp && b == Duration:
		return Timestamp, true
	}
	return Null, false
}

func arithmetic(op func(x, y float64) (float64, error)) func(*frame, Value, Value) (Value, error) {
	return func(f *frame, a, b Value) (Value, error) {
		x, y, err := f.numbers(a, b)
		if err != nil {
			return Value{}, err
		}
		z, err := op(x, y)
		if err != nil {
			return Value{}, err
		}
		return finite(z)
	}
}

var addNumbers, subtractNumbers = arithmetic(plus), arithmetic(minus)

func (f *frame) add(a, b Value) (Value, error) {
	switch a.kind {
	case Number:
		return addNumbers(f, a, b)
	case String:
		return f.madeText(len(a.text)+len(b.text), func() string { return a.text + b.text })
	case List:
		if err := f.spend(len(a.node.values) + len(b.node.values)); err != nil {
			return Value{}, err
		}
		both := make([]Value, 0, len(a.node.values)+len(b.node.values))
		return ListOf(append(append(both, a.node.values...), b.node.values...)...), nil
	}
	sum := a.ns() + b.ns()
	if (sum > a.ns()) != (b.ns() > 0) && b.ns() != 0 {
		return Value{}, errTimeRange
	}
	if a.kind == Timestamp || b.kind == Timestamp {
		return timestampOf(sum)
	}
	return durationOf(sum), nil
}

func (f *frame) subtract(a, b Value) (Value, error) {
	if a.kind == Number {
		return subtractNumbers(f, a, b)
	}
	difference := a.ns() - b.ns()
	if (difference < a.ns()) != (b.ns() > 0) && b.ns() != 0 {
		return Value{}, errTimeRange
	}
	if a.kind == Timestamp && b.kind == Duration {
		return timestampOf(difference)
	}
	return durationOf(difference), nil
}

// madeText makes a string whose size is known before.
func (f *frame) madeText(size int, make func() string) (Value, error) {
	if size > maxText {
		return Value{}, fmt.Errorf("a string of %d bytes would be made, the most is %d", size, maxText)
	}
	if err := f.spend(textSteps(size)); err != nil {
		return Value{}, err
	}
	return TextOf(make()), nil
}

func ordering(holds func(int) bool) func(*frame, Value, Value) (Value, error) {
	return func(f *frame, a, b Value) (Value, error) {
		order, err := f.compare(a, b)
		return BoolOf(holds(order)), err
	}
}

func (f *frame) numbers(a, b Value) (x, y float64, err error) {
	if x, err = f.number(a); err != nil {
		return 0, 0, err
	}
	y, err = f.number(b)
	return x, y, err
}

func kindError(what string, all ...Value) error {
	names := make([]string, len(all))
	for i, v := range all {
		names[i] = "a " + v.kind.String()
	}
	return fmt.Errorf("%s does not take %s", what, strings.Join(names, " and "))
}

var errNotFinite = errors.New("the result is out of the range of numbers")

func finite(f float64) (Value, error) {
	if math.IsInf(f, 0) || math.IsNaN(f) {
		return Value{}, errNotFinite
	}
	return NumberOf(f + 0), nil // + 0: there is no negative zero
}
