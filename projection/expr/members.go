package expr

import "iter"

// Members yields the members of a map in byte order of their names; nothing of
// other values.
func (v Value) Members() iter.Seq2[string, Value] {
	return func(yield func(string, Value) bool) {
		if v.kind != Map {
			return
		}
		for i, name := range v.node.names {
			if !yield(name, v.node.values[i]) {
				return
			}
		}
	}
}
