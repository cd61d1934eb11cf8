package expr

import (
	"slices"

	"cel.dev/cel-go/common/ast"
)

// has compiles has(a.b): whether a has a member b.
func (c *compiler) has(args []ast.Expr, at place) (compiled, error) {
	if len(args) != 1 || args[0].Kind() != ast.SelectKind {
		return compiled{}, at.fail("has() takes a member, such as has(state.balance)")
	}
	sel := args[0].AsSelect()
	of, err := c.operand(sel.Operand(), sel.FieldName(), at)
	if err != nil {
		return compiled{}, err
	}
	name := sel.FieldName()
	c.nodes += len(name) >> 4
	return compiled{kinds: setOf(Bool), run: func(f *frame) (Value, error) {
		v, err := of.run(f)
		if err != nil {
			return Value{}, err
		}
		found, err := optionalMember(v, name, of.path, at)
		return BoolOf(err == nil && len(found.node.values) == 1), err
	}}, nil
}

// bind compiles cel.bind(name, value, body).
func (c *compiler) bind(args []ast.Expr, at place) (compiled, error) {
	if len(args) != 3 || args[0].Kind() != ast.IdentKind {
		return compiled{}, at.fail("cel.bind() takes a name, a value and an expression")
	}
	value, err := c.expr(args[1])
	if err != nil {
		return compiled{}, err
	}
	slot := c.declare(args[0].AsIdent())
	defer c.forget(1)
	body, err := c.expr(args[2])
	if err != nil {
		return compiled{}, err
	}
	return compiled{kinds: body.kinds, run: func(f *frame) (Value, error) {
		v, err := value.run(f)
		if err != nil {
			return Value{}, err
		}
		f.slots[slot] = v
		return body.run(f)
	}}, nil
}

// orValue compiles a.orValue(b) and a.or(b), which look at b only when a is
// empty.
func (c *compiler) orValue(target ast.Expr, args []ast.Expr, unwrap bool, at place) (compiled, error) {
	if len(args) != 1 {
		return compiled{}, at.fail("it takes one argument, not %d", len(args))
	}
	parts, err := c.exprs([]ast.Expr{target, args[0]})
	if err != nil {
		return compiled{}, err
	}
	of, other := parts[0], parts[1]
	if !of.kinds.has(Optional) || !unwrap && !other.kinds.has(Optional) {
		return compiled{}, at.fail("it takes an optional, such as state.?balance")
	}
	out := compiled{kinds: anything}
	if !unwrap {
		out.kinds = setOf(Optional)
	}
	out.run = func(f *frame) (Value, error) {
		v, err := of.run(f)
		switch {
		case err != nil:
			return Value{}, err
		case v.kind != Optional:
			return Value{}, at.fail("it takes an optional, not a %s", v.kind)
		case len(v.node.values) == 0:
			v, err = other.run(f)
			if err == nil && !unwrap && v.kind != Optional {
				return Value{}, at.fail("it takes an optional, not a %s", v.kind)
			}
			return v, err
		case unwrap:
			return v.node.values[0], nil
		}
		return v, nil
	}
	return out, nil
}

// declare makes a variable that is known until forget.
func (c *compiler) declare(name string) (slot int) {
	slot = c.slots
	c.slots++
	c.scope = append(c.scope, variable{name, slot})
	return slot
}

func (c *compiler) forget(n int) { c.scope = c.scope[:len(c.scope)-n] }

// loops are the comprehensions by name: how many arguments follow the
// variables (fewest and most) and how many variables there may be.
var loops = map[string]struct {
	variables []int
	least     int
	most      int
}{
	"all":           {[]int{1, 2}, 1, 1},
	"exists":        {[]int{1, 2}, 1, 1},
	"exists_one":    {[]int{1, 2}, 1, 1},
	"existsOne":     {[]int{1, 2}, 1, 1},
	"map":           {[]int{1}, 1, 2},
	"filter":        {[]int{1}, 1, 1},
	"transformList": {[]int{2}, 1, 2},
	"transformMap":  {[]int{2}, 1, 2},
}

// loop is a comprehension, ready to run.
type loop struct {
	name   string
	at     place
	over   compiled
	slots  []int // of its variables: element or name; or index or name, and value
	filter *compiled
	body   compiled
	nodes  int // of filter and body
}

// comprehension compiles target.name(variables…, [filter,] body).
func (c *compiler) comprehension(name string, target ast.Expr, args []ast.Expr, at place) (compiled, error) {
	form := loops[name]
	variables := 0
	for _, n := range form.variables {
		if rest := len(args) - n; rest >= form.least && rest <= form.most {
			variables = n
		}
	}
	if variables == 0 {
		return compiled{}, at.fail("%s() does not take %d arguments", name, len(args))
	}
	over, err := c.expr(target)
	if err != nil {
		return compiled{}, err
	}
	if over.kinds&setOf(List, Map) == nothing {
		return compiled{}, at.fail("%s() goes over a list or map, not a %s", name, over.kinds)
	}
	if c.loops++; c.loops > MaxNesting {
		return compiled{}, at.fail("comprehensions may nest %d deep", MaxNesting)
	}
	l := &loop{name: name, at: at, over: over, nodes: -c.nodes}
	for _, arg := range args[:variables] {
		if arg.Kind() != ast.IdentKind {
			return compiled{}, c.place(arg.ID()).fail("this must be the name of a variable")
		}
		if n := arg.AsIdent(); len(l.slots) == 1 && n == args[0].AsIdent() {
			return compiled{}, c.place(arg.ID()).fail("%s is there twice", n)
		}
		l.slots = append(l.slots, c.declare(arg.AsIdent()))
	}
	parts, err := c.exprs(args[variables:])
	c.forget(variables)
	c.loops--
	if err != nil {
		return compiled{}, err
	}
	l.nodes += c.nodes
	l.body = parts[len(parts)-1]
	if len(parts) == 2 {
		l.filter = &parts[0]
	}
	return l.compiled()
}

func (l *loop) compiled() (compiled, error) {
	tests := slices.Contains([]string{"all", "exists", "exists_one", "existsOne", "filter"}, l.name)
	if tests && !l.body.kinds.has(Bool) || l.filter != nil && !l.filter.kinds.has(Bool) {
		return compiled{}, l.at.fail("%s() needs a condition that is a bool", l.name)
	}
	switch l.name {
	case "all":
		return compiled{run: l.settle(false), kinds: setOf(Bool)}, nil
	case "exists":
		return compiled{run: l.settle(true), kinds: setOf(Bool)}, nil
	case "exists_one", "existsOne":
		return compiled{run: l.count, kinds: setOf(Bool)}, nil
	case "filter":
		return compiled{run: l.keep, kinds: setOf(List)}, nil
	case "transformMap":
		return compiled{run: l.transformMap, kinds: setOf(Map)}, nil
	}
	return compiled{run: l.transform, kinds: setOf(List)}, nil
}

// each sets the variables to each element in turn, maps in byte order of their
// names, until do says stop.
func (l *loop) each(f *frame, do func(i int, n *node) (stop bool, err error)) error {
	v, err := l.over.run(f)
	if err != nil {
		return err
	}
	if v.kind != List && v.kind != Map {
		return l.at.fail("%s() goes over a list or map, not a %s", l.name, v.kind)
	}
	for i, value := range v.node.values {
		if err := f.spend(1 + l.nodes); err != nil {
			return l.at.wrap(err)
		}
		key := NumberOf(float64(i))
		if v.kind == Map {
			key = TextOf(v.node.names[i])
		}
		switch {
		case len(l.slots) == 2:
			f.slots[l.slots[0]], f.slots[l.slots[1]] = key, value
		case v.kind == Map:
			f.slots[l.slots[0]] = key
		default:
			f.slots[l.slots[0]] = value
		}
		if stop, err := do(i, v.node); stop || err != nil {
			return err
		}
	}
	return nil
}

// holds evaluates a condition of the loop.
func (l *loop) holds(f *frame, condition *compiled) (bool, error) {
	v, err := condition.run(f)
	if err == nil && v.kind != Bool {
		err = l.at.fail("%s() needs a condition that is a bool, not a %s", l.name, v.kind)
	}
	return v.Truth(), err
}

// settle is all() and exists(): the element that settles the matter does so
// even if one before it failed; else the first failure is told.
func (l *loop) settle(settles bool) eval {
	return func(f *frame) (Value, error) {
		settled := false
		var first error
		err := l.each(f, func(int, *node) (bool, error) {
			truth, err := l.holds(f, &l.body)
			if err == nil {
				settled = truth == settles
				return settled, nil
			}
			if first == nil {
				first = err
			}
			return false, f.outlive(err)
		})
		if err == nil && !settled {
			err = first
		}
		return BoolOf(settled == settles), err
	}
}

func (l *loop) count(f *frame) (Value, error) {
	found := 0
	err := l.each(f, func(int, *node) (bool, error) {
		truth, err := l.holds(f, &l.body)
		if truth {
			found++
		}
		return false, err
	})
	return BoolOf(found == 1), err
}

func (l *loop) keep(f *frame) (Value, error) {
	var out []Value
	err := l.each(f, func(int, *node) (bool, error) {
		element := f.slots[l.slots[0]]
		truth, err := l.holds(f, &l.body)
		if truth {
			out = append(out, element)
		}
		return false, err
	})
	return ListOf(out...), err
}

// transform is map() and transformList().
func (l *loop) transform(f *frame) (Value, error) {
	var out []Value
	err := l.each(f, func(int, *node) (bool, error) {
		v, passes, err := l.transformed(f)
		if passes {
			out = append(out, v)
		}
		return false, err
	})
	return ListOf(out...), err
}

func (l *loop) transformed(f *frame) (v Value, passes bool, err error) {
	if l.filter != nil {
		if passes, err = l.holds(f, l.filter); err != nil || !passes {
			return Value{}, false, err
		}
	}
	v, err = l.body.run(f)
	return v, err == nil, err
}

func (l *loop) transformMap(f *frame) (Value, error) {
	out := &node{}
	err := l.each(f, func(i int, n *node) (bool, error) {
		if n.names == nil {
			return false, l.at.fail("transformMap() goes over a map, not a list")
		}
		v, passes, err := l.transformed(f)
		if passes {
			out.add(n.names[i], v)
		}
		return false, err
	})
	return Value{kind: Map, node: out}, err
}
