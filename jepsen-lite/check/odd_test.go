package check

import (
	"bytes"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"

	"cairn/jepsen-lite/history"
)

// No checker may panic, whatever the history says, and none may hang.
func TestAll_OddHistories(t *testing.T) {
	r := newRand(t)
	for range 400 {
		h := generate(r, r.IntN(30), 1+r.IntN(3), 1+r.IntN(3))
		if r.IntN(3) == 0 {
			h = folded()
		}
		for range 1 + r.IntN(8) {
			distort(r, reflect.ValueOf(h).Elem())
		}
		for _, v := range All(h, Options{Timeout: 100 * ms}) {
			if v.Detail == "" || v.Valid != (len(v.Problems) == 0) {
				t.Fatalf("%+v", v)
			}
		}
		if err := Timeline(h, Options{Timeout: 100 * ms}, &bytes.Buffer{}); err != nil {
			t.Fatal(err)
		}
	}
	if v := All(&history.History{}, Options{}); Valid(v) {
		t.Error("an empty history is valid")
	}
}

// distort changes one thing somewhere in v, which it follows down at random.
func distort(r *rand.Rand, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		} else if r.IntN(10) == 0 {
			v.SetZero()
			return
		}
		distort(r, v.Elem())
	case reflect.Struct:
		distort(r, v.Field(r.IntN(v.NumField())))
	case reflect.Slice:
		switch n := v.Len(); {
		case n == 0:
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		case r.IntN(12) == 0:
			v.Set(v.Slice(r.IntN(n), n))
		case r.IntN(12) == 0:
			v.Set(reflect.AppendSlice(v.Slice(0, n), v.Slice(0, r.IntN(n))))
		case r.IntN(12) == 0:
			reflect.Swapper(v.Interface())(r.IntN(n), r.IntN(n))
		default:
			distort(r, v.Index(r.IntN(n)))
		}
	case reflect.Map:
		v.SetZero()
	case reflect.String:
		v.SetString([]string{"", "$log", "s-0", "s-1", "e1/0", "ok", "refused", "unknown", "condition-failed", "\xff"}[r.IntN(10)])
	case reflect.Uint64:
		v.SetUint([]uint64{0, 1, 2, 3, math.MaxInt64, math.MaxUint64}[r.IntN(6)])
	case reflect.Int, reflect.Int64:
		v.SetInt([]int64{0, 1, -1, 5, math.MinInt64, math.MaxInt64}[r.IntN(6)])
	case reflect.Bool:
		v.SetBool(!v.Bool())
	}
}
