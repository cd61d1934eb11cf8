package projection

import (
	"errors"
	"maps"
	"math"
	"slices"

	"cairn/projection/expr"
)

// maxMergedState is how large the merged data of a stream may become, in bytes
// of JSON.
const maxMergedState = 1 << 20

// ErrStateTooLarge says that merged data would be larger than 1 MiB.
var ErrStateTooLarge = errors.New("the merged state is larger than 1 MiB")

// MergedState is the data of events, merged one after the other (JSON Merge Patch,
// RFC 7396). To add one takes time as its own size, whatever the state's, and
// memory is bounded. The zero value is an empty object. It belongs to one
// goroutine, and is of no use after an error.
type MergedState struct {
	root mergedValue
	size int // bytes of JSON, but for its outer braces
}

// mergedValue is a map, or else what its JSON says.
type mergedValue struct {
	members map[string]*mergedValue // nil if it is no map
	json    []byte
}

// Add merges the data of the next event. Data that is not an object changes
// nothing, and merged is false: it is no reason to forget what was before. Errors:
// ErrStateTooLarge, and what is wrong with the data's JSON.
func (s *MergedState) Add(data []byte) (merged bool, err error) {
	patch, err := expr.Parse(data)
	if err != nil || patch.Kind() != expr.Map {
		return false, err
	}
	return true, s.merge(&s.root, patch)
}

// merge merges a map into a value, which becomes one.
func (s *MergedState) merge(into *mergedValue, patch expr.Value) error {
	if into.members == nil {
		into.members, into.json = make(map[string]*mergedValue, patch.Len()), nil
	}
	for name, v := range patch.Members() {
		old := into.members[name]
		switch {
		case v.Kind() == expr.Map && old != nil && old.members != nil:
			if err := s.merge(old, v); err != nil {
				return err
			}
			continue
		case old != nil:
			s.size -= old.bytes(name)
			delete(into.members, name)
		}
		if v.Kind() == expr.Null {
			continue
		}
		next := &mergedValue{}
		if v.Kind() != expr.Map {
			var err error
			if next.json, err = v.AppendJSON(nil, math.MaxInt32); err != nil {
				return err
			}
		} else {
			next.members = make(map[string]*mergedValue, v.Len())
		}
		into.members[name] = next
		if s.size += next.bytes(name); s.size > maxMergedState {
			return ErrStateTooLarge
		}
		if v.Kind() == expr.Map { // its nulls are left out
			if err := s.merge(next, v); err != nil {
				return err
			}
		}
	}
	return nil
}

// bytes is how much JSON a member is, with all in it and a comma. A name counts
// as if nothing in it had to be escaped.
func (v *mergedValue) bytes(name string) int {
	n := len(`"":,`) + len(name) + len(v.json)
	if v.members != nil {
		n += len(`{}`)
	}
	for inner, m := range v.members {
		n += m.bytes(inner)
	}
	return n
}

// JSON returns the state as canonical JSON. The error is ErrStateTooLarge.
func (s *MergedState) JSON() ([]byte, error) {
	b := make([]byte, 0, s.size+len(`{}`))
	if s.root.members == nil {
		return append(b, `{}`...), nil
	}
	b, err := s.root.append(b)
	if err != nil || len(b) > maxMergedState {
		return nil, ErrStateTooLarge
	}
	return b, nil
}

func (v *mergedValue) append(b []byte) ([]byte, error) {
	if v.members == nil {
		return append(b, v.json...), nil
	}
	b = append(b, '{')
	for i, name := range slices.Sorted(maps.Keys(v.members)) {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = expr.TextOf(name).AppendJSON(b, math.MaxInt32); err != nil {
			return nil, err
		}
		if b, err = v.members[name].append(append(b, ':')); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}
