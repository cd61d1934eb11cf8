package expr

import (
	"math/bits"
	"slices"
	"strings"

	"cel.dev/cel-go/common/ast"
)

// mapping compiles a map literal. Its members are evaluated in the order of
// the source and stand in byte order of their names.
func (c *compiler) mapping(m ast.MapExpr, at place) (compiled, error) {
	entries := m.Entries()
	keys, values := make([]compiled, len(entries)), make([]compiled, len(entries))
	maybe := make([]bool, len(entries))
	names := make([]string, 0, len(entries)) // where every key is a literal
	for i, e := range entries {
		entry := e.AsMapEntry()
		maybe[i] = entry.IsOptional()
		var err error
		if keys[i], err = c.expr(entry.Key()); err != nil {
			return compiled{}, err
		}
		if !keys[i].kinds.has(String) {
			return compiled{}, c.place(entry.Key().ID()).fail("a map's key must be a string, not a %s; string(…) makes one", keys[i].kinds)
		}
		if values[i], err = c.expr(entry.Value()); err != nil {
			return compiled{}, err
		}
		if entry.Key().Kind() == ast.LiteralKind && !maybe[i] {
			v, _ := literal(entry.Key())
			if slices.Contains(names, v.text) {
				return compiled{}, c.place(entry.Key().ID()).fail("the key %q is there twice", clip(v.text))
			}
			names = append(names, v.text)
		}
	}
	if len(names) == len(entries) {
		return compiled{run: fixedMap(names, values, at), kinds: setOf(Map)}, nil
	}
	return compiled{run: computedMap(keys, values, maybe, at), kinds: setOf(Map)}, nil
}

// fixedMap makes a map whose names are known: all its results share them.
func fixedMap(source []string, values []compiled, at place) eval {
	names := slices.Sorted(slices.Values(source))
	rank := make([]int, len(source))
	for i, name := range source {
		rank[i], _ = slices.BinarySearch(names, name)
	}
	return func(f *frame) (Value, error) {
		if err := f.spend(1 + len(values)); err != nil {
			return Value{}, at.wrap(err)
		}
		out := make([]Value, len(values))
		for i, part := range values {
			v, err := part.run(f)
			if err != nil {
				return Value{}, err
			}
			out[rank[i]] = v
		}
		return MapOf(names, out), nil
	}
}

func computedMap(keys, values []compiled, maybe []bool, at place) eval {
	return func(f *frame) (Value, error) {
		if err := f.spend(1 + len(values)); err != nil {
			return Value{}, at.wrap(err)
		}
		out := &node{}
		for i := range keys {
			key, err := keys[i].run(f)
			if err != nil {
				return Value{}, err
			}
			if key.kind != String {
				return Value{}, at.fail("a map's key must be a string, not a %s; string(…) makes one", key.kind)
			}
			v, err := values[i].run(f)
			if err != nil {
				return Value{}, err
			}
			if maybe[i] {
				if v.kind != Optional {
					return Value{}, at.fail("a member with '?' must be an optional, not a %s", v.kind)
				}
				if len(v.node.values) == 0 {
					continue
				}
				v = v.node.values[0]
			}
			if err := f.spend(textSteps(len(key.text)) * bits.Len(uint(len(keys)))); err != nil { // of ordering the names
				return Value{}, at.wrap(err)
			}
			out.add(key.text, v)
		}
		return out.asMap(at)
	}
}

// asMap orders the members that were added to n.
func (n *node) asMap(at place) (Value, error) {
	if twice, ok := n.order(); !ok {
		return Value{}, at.fail("the key %q is there twice", clip(twice))
	}
	return Value{kind: Map, node: n}, nil
}

// index compiles operand[key], or operand[?key], which yields an optional.
func (c *compiler) index(operand, key ast.Expr, at place, optional bool) (compiled, error) {
	if key.Kind() == ast.LiteralKind {
		if v, err := literal(key); err == nil && v.kind == String {
			return c.member(operand, v.text, at, optional)
		}
	}
	of, err := c.expr(operand)
	if err != nil {
		return compiled{}, err
	}
	by, err := c.expr(key)
	if err != nil {
		return compiled{}, err
	}
	if of.kinds&setOf(List, Map, Optional) == nothing {
		return compiled{}, at.fail("a %s has no elements", of.kinds)
	}
	if by.kinds&setOf(Number, String) == nothing {
		return compiled{}, at.fail("an index must be a number or a string, not a %s", by.kinds)
	}
	out := compiled{kinds: anything}
	if optional {
		out.kinds = setOf(Optional)
	}
	out.run = func(f *frame) (Value, error) {
		v, err := of.run(f)
		if err != nil {
			return Value{}, err
		}
		k, err := by.run(f)
		if err != nil {
			return Value{}, err
		}
		maybe := optional || v.kind == Optional
		if v.kind == Optional {
			if len(v.node.values) == 0 {
				return none, nil
			}
			v = v.node.values[0]
		}
		found, missing, err := f.element(v, k, of.path)
		switch {
		case err != nil:
			return Value{}, at.wrap(err)
		case maybe && missing != "":
			return none, nil
		case missing != "":
			return Value{}, at.fail("%s", missing)
		case maybe:
			return someOf(found), nil
		}
		return found, nil
	}
	return out, nil
}

// element returns v[key]; missing says, where there is none, that there is none.
func (f *frame) element(v, key Value, path string) (found Value, missing string, err error) {
	switch {
	case v.kind == Map && key.kind == String:
		if err := f.spend(textSteps(len(key.text))); err != nil {
			return Value{}, "", err
		}
		if i := v.node.find(key.text); i >= 0 {
			return v.node.values[i], "", nil
		}
		return Value{}, orPart(path) + " has no member " + quoted(key.text), nil
	case v.kind == List && key.kind == Number:
		i, err := f.whole(key)
		if err != nil {
			return Value{}, "", err
		}
		if i < 0 || i >= int64(len(v.node.values)) {
			return Value{}, orPart(path) + " has no element " + string(appendNumber(nil, float64(i))), nil
		}
		return v.node.values[i], "", nil
	}
	return Value{}, "", kindError("an index", v, key)
}

func quoted(s string) string {
	return strings.TrimSpace(string(appendString(nil, clip(s))))
}
