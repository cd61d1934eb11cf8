package schema

import (
	"encoding/json"
	"maps"
	"math/big"
	"slices"
)

// equal reports whether two JSON texts have the same value: numbers however they
// are written, members in any order.
func equal(a, b []byte) bool {
	v, mv, err := decode(a)
	if err != nil {
		return false
	}
	w, mw, err := decode(b)
	return err == nil && mv.number == "" && mw.number == "" && equalValues(v, w)
}

func equalValues(a, b any) bool {
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		return ok && maps.EqualFunc(a, b, equalValues)
	case []any:
		b, ok := b.([]any)
		return ok && slices.EqualFunc(a, b, equalValues)
	case json.Number:
		b, ok := b.(json.Number)
		if !ok {
			return false
		}
		x, valid := new(big.Rat).SetString(a.String())
		y, also := new(big.Rat).SetString(b.String())
		return valid && also && x.Cmp(y) == 0
	}
	return a == b
}
