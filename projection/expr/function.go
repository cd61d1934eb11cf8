package expr

import (
	"fmt"
	"math"

	"cel.dev/cel-go/common/ast"
)

// function is one that an expression calls by name.
type function struct {
	in       []kinds // what each argument may be; what stands before the dot is the first
	optional int     // how many at the end may be left out
	more     bool    // the last may be there many times
	out      kinds
	run      func(f *frame, args []Value) (Value, error)
}

// free are called as name(…), methods as x.name(…).
var free, methods = functions()

func functions() (free, methods map[string]*function) {
	free, methods = map[string]*function{}, map[string]*function{}
	number, text, list := setOf(Number), setOf(String), setOf(List)
	size := &function{in: []kinds{setOf(String, List, Map)}, out: number, run: sizeOf}
	free["size"], methods["size"] = size, size
	free["type"] = &function{in: []kinds{anything}, out: setOf(Type), run: func(_ *frame, a []Value) (Value, error) { return typeOf(a[0].kind), nil }}
	free["dyn"] = &function{in: []kinds{anything}, out: anything, run: func(_ *frame, a []Value) (Value, error) { return a[0], nil }}
	free["bool"] = &function{in: []kinds{setOf(Bool, String)}, out: setOf(Bool), run: reading(toBool)}
	free["double"] = &function{in: []kinds{setOf(Number, String)}, out: number, run: reading(toDouble)}
	free["int"] = &function{in: []kinds{setOf(Number, String, Timestamp)}, out: number, run: reading(toInt)}
	free["string"] = &function{in: []kinds{setOf(Bool, Number, String, Timestamp, Duration)}, out: text, run: reading(toText)}
	free["timestamp"] = &function{in: []kinds{setOf(String, Number, Timestamp)}, out: setOf(Timestamp), run: reading(toTimestamp)}
	free["duration"] = &function{in: []kinds{setOf(String, Duration)}, out: setOf(Duration), run: reading(toDuration)}
	for name, op := range map[string]func(float64) float64{
		"abs": math.Abs, "round": math.Round, "floor": math.Floor, "ceil": math.Ceil, "trunc": math.Trunc, "sign": sign,
	} {
		free["math."+name] = &function{in: []kinds{number}, out: number, run: mathOf(op)}
	}
	free["math.greatest"] = &function{in: []kinds{number | list}, more: true, out: number, run: extreme(1)}
	free["math.least"] = &function{in: []kinds{number | list}, more: true, out: number, run: extreme(-1)}
	free["optional.of"] = &function{in: []kinds{anything}, out: setOf(Optional), run: func(_ *frame, a []Value) (Value, error) { return someOf(a[0]), nil }}
	free["optional.none"] = &function{out: setOf(Optional), run: func(*frame, []Value) (Value, error) { return none, nil }}
	methods["hasValue"] = &function{in: []kinds{setOf(Optional)}, out: setOf(Bool), run: func(_ *frame, a []Value) (Value, error) { return BoolOf(a[0].Len() == 1), nil }}
	methods["value"] = &function{in: []kinds{setOf(Optional)}, out: anything, run: unwrap}
	addTextFunctions(methods, text, number, list)
	addTimeFunctions(methods, text, number)
	addListFunctions(methods, list, number)
	return free, methods
}

// call compiles a call: an operator, a macro or a function.
func (c *compiler) call(e ast.Expr, at place) (compiled, error) {
	call := e.AsCall()
	name, args := call.FunctionName(), call.Args()
	if !call.IsMemberFunction() {
		if out, ok, err := c.operator(call, at); ok {
			return out, err
		}
		if name == "has" {
			return c.has(args, at)
		}
		return c.function(name, free[name], args, at)
	}
	target := call.Target()
	if space, ok := c.namespace(target); ok {
		name = space + "." + name
		if name == "cel.bind" {
			return c.bind(args, at)
		}
		return c.function(name, free[name], args, at)
	}
	if _, ok := loops[name]; ok {
		return c.comprehension(name, target, args, at)
	}
	if name == "orValue" || name == "or" {
		return c.orValue(target, args, name == "orValue", at)
	}
	if name == "matches" {
		return c.matches(target, args, at)
	}
	return c.function(name, methods[name], append([]ast.Expr{target}, args...), at)
}

// namespace tells whether what stands before the dot only groups functions.
func (c *compiler) namespace(target ast.Expr) (string, bool) {
	if target.Kind() != ast.IdentKind {
		return "", false
	}
	name := target.AsIdent()
	_, isVariable := c.lookup(name)
	return name, !isVariable && (name == "math" || name == "optional" || name == "cel")
}

func (c *compiler) function(name string, fn *function, args []ast.Expr, at place) (compiled, error) {
	if fn == nil {
		return compiled{}, at.fail("there is no function %s()%s", name, hint(name))
	}
	if n := len(args); n < len(fn.in)-fn.optional || n > len(fn.in) && !fn.more {
		return compiled{}, at.fail("%s() does not take %d arguments", name, n)
	}
	parts, err := c.exprs(args)
	if err != nil {
		return compiled{}, err
	}
	want := make([]kinds, len(parts))
	for i, part := range parts {
		want[i] = fn.in[min(i, len(fn.in)-1)]
		if part.kinds&want[i] == nothing {
			return compiled{}, at.fail("%s() does not take a %s, but %s", name, part.kinds, want[i])
		}
	}
	call := &calling{name: name, fn: fn, at: at, parts: parts, want: want}
	return compiled{kinds: fn.out, run: call.run}, nil
}

// calling is the call of a function, ready to run.
type calling struct {
	name  string
	fn    *function
	at    place
	parts []compiled
	want  []kinds
}

// run evaluates the arguments onto the frame's stack, and takes them off again
// however it ends: && and || go on after a failure.
func (c *calling) run(f *frame) (Value, error) {
	base := len(f.args)
	v, err := c.apply(f, base)
	clear(f.args[base:])
	f.args = f.args[:base]
	return v, err
}

func (c *calling) apply(f *frame, base int) (Value, error) {
	for i, part := range c.parts {
		v, err := part.run(f)
		if err != nil {
			return Value{}, err
		}
		if !c.want[i].has(v.kind) {
			return Value{}, c.at.fail("%s() does not take a %s, but %s%s", c.name, v.kind, c.want[i], blame(part, v, compiled{}, v))
		}
		f.args = append(f.args, v)
	}
	if err := f.spend(1); err != nil {
		return Value{}, c.at.wrap(err)
	}
	v, err := c.fn.run(f, f.args[base:])
	if err != nil {
		return Value{}, c.at.fail("%s(): %v", c.name, err)
	}
	return v, nil
}

// hint tells the way out where another CEL has the function.
func hint(name string) string {
	switch {
	case methods[name] != nil:
		return fmt.Sprintf("; write x.%s(…)", name)
	case free[name] != nil:
		return fmt.Sprintf("; write %s(x)", name)
	case name == "matches":
		return "; write x.matches('pattern')"
	case name == "now":
		return ": there is no clock; event.time is when the event was accepted"
	case name == "uint":
		return "; all numbers are doubles, int(…) truncates"
	case name == "bytes":
		return "; there are no bytes, only strings"
	}
	return ""
}

// maxPattern is how many bytes a regular expression may have.
const maxPattern = 256

// matches compiles text.matches('pattern') (RE2). The pattern must be a
// literal, so that it is checked and compiled once.
func (c *compiler) matches(target ast.Expr, args []ast.Expr, at place) (compiled, error) {
	if len(args) != 1 || args[0].Kind() != ast.LiteralKind {
		return compiled{}, at.fail("matches() takes one pattern, which must be a literal string")
	}
	pattern, err := literal(args[0])
	if err != nil || pattern.kind != String {
		return compiled{}, at.fail("matches() takes one pattern, which must be a literal string")
	}
	re, err := CompilePattern(pattern.text, maxPattern)
	if err != nil {
		return compiled{}, at.fail("matches(): %v", err)
	}
	if c.patterns += re.Weight(); c.patterns > MaxPatterns {
		return compiled{}, at.fail("matches(): the patterns of the expression are too complex together: their bytes times the copies that their repeats make are over %d", MaxPatterns)
	}
	of, err := c.expr(target)
	if err != nil {
		return compiled{}, err
	}
	if !of.kinds.has(String) {
		return compiled{}, at.fail("matches() does not take a %s, but string", of.kinds)
	}
	return compiled{kinds: setOf(Bool), run: func(f *frame) (Value, error) {
		v, err := of.run(f)
		if err != nil {
			return Value{}, err
		}
		if v.kind != String {
			return Value{}, at.fail("matches() does not take a %s, but string%s", v.kind, blame(of, v, compiled{}, v))
		}
		if err := f.spend(re.Steps(len(v.text))); err != nil {
			return Value{}, at.wrap(err)
		}
		return BoolOf(re.MatchString(v.text)), nil
	}}, nil
}

// reading makes a function pay for the text that it reads, and for what reading
// and writing of times and numbers takes besides.
func reading(run func(*frame, []Value) (Value, error)) func(*frame, []Value) (Value, error) {
	return func(f *frame, a []Value) (Value, error) {
		steps := 4
		for _, v := range a {
			steps += textSteps(len(v.text))
		}
		if err := f.spend(steps); err != nil {
			return Value{}, err
		}
		return run(f, a)
	}
}

func sizeOf(f *frame, a []Value) (Value, error) {
	if a[0].kind == String {
		return NumberOf(float64(stringSize(a[0].text))), f.spend(textSteps(len(a[0].text)))
	}
	return NumberOf(float64(a[0].Len())), nil
}

func toBool(_ *frame, a []Value) (Value, error) {
	switch {
	case a[0].kind == Bool:
		return a[0], nil
	case a[0].text == "true":
		return BoolOf(true), nil
	case a[0].text == "false":
		return BoolOf(false), nil
	}
	return Value{}, fmt.Errorf("%s is neither true nor false", quoted(a[0].text))
}

func toDouble(f *frame, a []Value) (Value, error) {
	if a[0].kind == String {
		return toNumber(f, a[0].text)
	}
	n, err := f.number(a[0])
	if err != nil {
		return Value{}, err
	}
	return finite(n)
}

func toInt(f *frame, a []Value) (Value, error) {
	if a[0].kind == Timestamp {
		seconds := a[0].ns() / 1e9
		if a[0].ns()%1e9 < 0 {
			seconds--
		}
		return NumberOf(float64(seconds)), nil
	}
	v, err := toDouble(f, a)
	if err != nil {
		return Value{}, err
	}
	n, err := f.number(v)
	if err != nil {
		return Value{}, err
	}
	return truncated(n)
}

func toText(f *frame, a []Value) (Value, error) {
	switch v := a[0]; v.kind {
	case String:
		return v, nil
	case Bool:
		return TextOf(fmt.Sprint(v.Truth())), nil
	case Number:
		s, err := f.numberText(v)
		return TextOf(s), err
	}
	return TextOf(a[0].plainText()), nil
}

func unwrap(_ *frame, a []Value) (Value, error) {
	if a[0].Len() == 0 {
		return Value{}, fmt.Errorf("the optional is empty")
	}
	return a[0].node.values[0], nil
}
