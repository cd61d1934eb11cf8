package expr

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
)

// kinds is a set of Kinds: those that a part of an expression may yield.
type kinds uint16

const (
	nothing  kinds = 0
	anything kinds = 1<<(Optional+1) - 1
)

func setOf(all ...Kind) (s kinds) {
	for _, k := range all {
		s |= 1 << k
	}
	return s
}

func (s kinds) has(k Kind) bool { return s&(1<<k) != 0 }

// String names the kinds for a message.
func (s kinds) String() string {
	if s == anything {
		return "anything"
	}
	var names []string
	for k := Null; k <= Optional; k++ {
		if s.has(k) {
			names = append(names, k.String())
		}
	}
	return strings.Join(names, " or ")
}

// compiled is one part of an expression, ready to run.
type compiled struct {
	run   eval
	kinds kinds
	path  string // "event.data", where the part is a chain of members; for messages
}

// place is where a part stands in the source, from 1.
type place struct{ line, column int }

func (at place) before(other place) bool {
	return at.line < other.line || at.line == other.line && at.column < other.column
}

func (at place) fail(format string, args ...any) error {
	return &Error{at.line, at.column, fmt.Sprintf(format, args...)}
}

// wrap gives an error this place, unless it has one or is nil.
func (at place) wrap(err error) error {
	if err == nil {
		return nil
	}
	if e, ok := err.(*Error); ok {
		return e
	}
	return &Error{at.line, at.column, err.Error()}
}

type variable struct {
	name string
	slot int
}

// compiler turns a tree into functions. It never sees a value that depends on
// an event.
type compiler struct {
	info     *ast.SourceInfo
	scope    []variable // innermost last
	slots    int
	loops    int // comprehensions around the part that is being compiled
	reads    map[string]*reads
	patterns int // what those of matches() weigh
	nodes    int // parts compiled so far, and what finding members by long names costs
}

func (c *compiler) place(id int64) place {
	at := c.info.GetStartLocation(id)
	return place{max(at.Line(), 1), max(at.Column()+1, 1)}
}

func (c *compiler) expr(e ast.Expr) (compiled, error) {
	at := c.place(e.ID())
	c.nodes++
	switch e.Kind() {
	case ast.LiteralKind:
		v, err := literal(e)
		if err != nil {
			return compiled{}, at.wrap(err)
		}
		return constant(v), nil
	case ast.IdentKind:
		return c.ident(e.AsIdent(), at)
	case ast.SelectKind:
		return c.member(e.AsSelect().Operand(), e.AsSelect().FieldName(), at, false)
	case ast.CallKind:
		return c.call(e, at)
	case ast.ListKind:
		return c.list(e.AsList(), at)
	case ast.MapKind:
		return c.mapping(e.AsMap(), at)
	case ast.StructKind:
		return compiled{}, at.fail("%s{…} can't be made: there are no messages, only maps such as {'a': 1}", e.AsStruct().TypeName())
	}
	return compiled{}, at.fail("this is not understood")
}

func constant(v Value) compiled {
	return compiled{run: func(*frame) (Value, error) { return v, nil }, kinds: setOf(v.kind)}
}

func literal(e ast.Expr) (Value, error) {
	switch v := e.AsLiteral().(type) {
	case types.Bool:
		return BoolOf(bool(v)), nil
	case types.Int:
		if v > maxInteger || v < -maxInteger {
			return Value{}, fmt.Errorf("the integer %d is beyond 2^53, where numbers are no longer exact", v)
		}
		return NumberOf(float64(v)), nil
	case types.Uint:
		if v > maxInteger {
			return Value{}, fmt.Errorf("the integer %d is beyond 2^53, where numbers are no longer exact", v)
		}
		return NumberOf(float64(v)), nil
	case types.Double:
		return finite(float64(v))
	case types.String:
		if !utf8.ValidString(string(v)) {
			return Value{}, fmt.Errorf("the string is not UTF-8")
		}
		return TextOf(string(v)), nil
	case types.Null:
		return Value{}, nil
	}
	return Value{}, fmt.Errorf("bytes are not supported, use a string")
}

// typeNames are the identifiers that stand for types. All numbers are one.
var typeNames = map[string]Kind{
	"null_type": Null, "bool": Bool, "int": Number, "uint": Number, "double": Number, "string": String,
	"list": List, "map": Map, "timestamp": Timestamp, "duration": Duration, "type": Type, "optional_type": Optional,
}

func (c *compiler) lookup(name string) (variable, bool) {
	for i := len(c.scope) - 1; i >= 0; i-- {
		if c.scope[i].name == name {
			return c.scope[i], true
		}
	}
	return variable{}, false
}

func (c *compiler) ident(name string, at place) (compiled, error) {
	v, ok := c.lookup(name)
	if !ok {
		if k, ok := typeNames[name]; ok {
			return constant(typeOf(k)), nil
		}
		return compiled{}, at.fail("%s is not known; there is %s", name, c.inScope())
	}
	if r := c.outer(v); r != nil {
		r.whole = true
	}
	return variableOf(v), nil
}

func variableOf(v variable) compiled {
	slot := v.slot
	return compiled{run: func(f *frame) (Value, error) { return f.slots[slot], nil }, kinds: anything, path: v.name}
}

// outer returns the record of what is read of one of the program's variables,
// or nil for one that a macro declares.
func (c *compiler) outer(v variable) *reads {
	if r := c.reads[v.name]; r != nil && v.slot < len(c.reads) {
		return r
	}
	return nil
}

func (c *compiler) inScope() string {
	var names []string
	for _, v := range c.scope {
		names = append(names, v.name)
	}
	if len(names) == 0 {
		return "no variable"
	}
	return strings.Join(names, ", ")
}

// operand compiles what stands before a member's name: a variable there counts
// as read in that member only.
func (c *compiler) operand(e ast.Expr, name string, at place) (compiled, error) {
	if e.Kind() == ast.IdentKind {
		if v, ok := c.lookup(e.AsIdent()); ok {
			if r := c.outer(v); r != nil {
				r.add(name, at)
				return variableOf(v), nil
			}
		}
	}
	return c.expr(e)
}

// member compiles operand.name, or operand.?name, which yields an optional.
func (c *compiler) member(operand ast.Expr, name string, at place, optional bool) (compiled, error) {
	of, err := c.operand(operand, name, at)
	if err != nil {
		return compiled{}, err
	}
	if of.kinds&setOf(Map, Optional) == nothing {
		return compiled{}, at.fail("a %s has no members", of.kinds)
	}
	c.nodes += len(name) >> 4
	out := compiled{kinds: anything}
	if of.path != "" {
		out.path = of.path + "." + name
	}
	if optional {
		out.kinds = setOf(Optional)
	}
	out.run = func(f *frame) (Value, error) {
		v, err := of.run(f)
		if err != nil {
			return Value{}, err
		}
		if v.kind == Map && !optional {
			if i := v.node.find(name); i >= 0 {
				return v.node.values[i], nil
			}
			return Value{}, at.fail("%s has no member %q", orPart(of.path), clip(name))
		}
		return optionalMember(v, name, of.path, at)
	}
	return out, nil
}

// optionalMember looks a name up where it may be missing: by ".?", or behind a
// part that is optional itself.
func optionalMember(v Value, name, path string, at place) (Value, error) {
	if v.kind == Optional {
		if len(v.node.values) == 0 {
			return none, nil
		}
		v = v.node.values[0]
	}
	if v.kind != Map {
		return Value{}, at.fail("%s is a %s, it has no member %q", orPart(path), v.kind, clip(name))
	}
	if i := v.node.find(name); i >= 0 {
		return someOf(v.node.values[i]), nil
	}
	return none, nil
}

func orPart(path string) string {
	if path == "" {
		return "the value"
	}
	return path
}

func (c *compiler) list(l ast.ListExpr, at place) (compiled, error) {
	parts, err := c.exprs(l.Elements())
	if err != nil {
		return compiled{}, err
	}
	maybe := make([]bool, len(parts))
	for _, i := range l.OptionalIndices() {
		maybe[i] = true
	}
	return compiled{kinds: setOf(List), run: func(f *frame) (Value, error) {
		if err := f.spend(1 + len(parts)); err != nil {
			return Value{}, at.wrap(err)
		}
		out := make([]Value, 0, len(parts))
		for i, part := range parts {
			v, err := part.run(f)
			if err != nil {
				return Value{}, err
			}
			if maybe[i] {
				if v.kind != Optional {
					return Value{}, at.fail("an element with '?' must be an optional, not a %s", v.kind)
				}
				out = append(out, v.node.values...)
				continue
			}
			out = append(out, v)
		}
		return ListOf(out...), nil
	}}, nil
}

func (c *compiler) exprs(all []ast.Expr) ([]compiled, error) {
	out := make([]compiled, len(all))
	for i, e := range all {
		var err error
		if out[i], err = c.expr(e); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// syntaxMessage cuts the list of everything that might have stood there.
func syntaxMessage(s string) string {
	s, _, _ = strings.Cut(strings.TrimPrefix(s, "Syntax error: "), " expecting ")
	if s == "mismatched input '<EOF>'" {
		return "the expression ends too early"
	}
	return s
}
