package expr

import "errors"

// maxMerged bounds how many members of a patch one merge looks at: a computed
// patch may hold the same part many times over.
const maxMerged = 1 << 17

// Merge applies a JSON Merge Patch (RFC 7396) to a map: members of the patch
// that are null are taken out, maps are merged, everything else is replaced.
// Both must be maps. What the patch does not name is carried over as it is.
// looked is how many members of the patch were looked at.
func Merge(state, patch Value) (merged Value, looked int, err error) {
	m := merger{left: maxMerged}
	out := m.maps(state, patch)
	if m.left < 0 {
		return Value{}, maxMerged, errors.New("the patch is too large")
	}
	return out, maxMerged - m.left, nil
}

type merger struct{ left int }

// maps walks both in byte order at once; state may be anything, as a patch of
// a value that is no map starts from an empty one.
func (m *merger) maps(state, patch Value) Value {
	var old node
	if state.kind == Map {
		old = *state.node
	}
	change := patch.node
	size := len(old.names) + len(change.names)
	out := &node{names: make([]string, 0, size), values: make([]Value, 0, size)}
	i := 0
	for j, name := range change.names {
		if m.left--; m.left < 0 {
			return Value{}
		}
		for ; i < len(old.names) && old.names[i] < name; i++ {
			out.add(old.names[i], old.values[i])
		}
		var before Value
		if i < len(old.names) && old.names[i] == name {
			before = old.values[i]
			i++
		}
		switch v := change.values[j]; v.kind {
		case Null:
		case Map:
			out.add(name, m.maps(before, v))
		default:
			out.add(name, v)
		}
	}
	for ; i < len(old.names); i++ {
		out.add(old.names[i], old.values[i])
	}
	return Value{kind: Map, node: out}
}

func (n *node) add(name string, v Value) {
	n.names = append(n.names, name)
	n.values = append(n.values, v)
}
