package projection

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"testing"
)

func TestRow_Golden(t *testing.T) {
	for _, c := range []struct {
		row  Row
		want string
	}{
		{Row{}, "010000000000"},
		{Row{State: []byte(`{"a":1}`), Events: 3, Last: 300, Kept: 2, Since: 9}, "010203ac0202097b2261223a317d"},
		{Row{Failed: &Failure{Position: 5, Reason: "no"}}, "01010000000005026e6f"},
		{Row{State: []byte(`{}`), Events: 1, Last: 4, Failed: &Failure{Position: 5}}, "010301040000" + "0500" + "7b7d"},
	} {
		got := c.row.Encode([]byte("x"))[1:]
		if hex.EncodeToString(got) != c.want {
			t.Errorf("%+v is %x, want %s", c.row, got, c.want)
		}
		back, err := DecodeRow(got)
		if err != nil || !reflect.DeepEqual(back, c.row) {
			t.Errorf("%s is %+v, %v", c.want, back, err)
		}
	}
}

// FuzzDecodeRow holds that whatever is read is written as it was.
func FuzzDecodeRow(f *testing.F) {
	whole := Row{State: []byte(`{"a":1}`), Events: 3, Last: 300, Kept: 2, Since: 9, Failed: &Failure{Position: 1 << 40, Reason: "it fails"}}
	encoded := whole.Encode(nil)
	f.Add(encoded)
	for bit := range 8 * len(encoded) {
		flipped := bytes.Clone(encoded)
		flipped[bit/8] ^= 1 << (bit % 8)
		f.Add(flipped)
	}
	for n := range encoded {
		f.Add(encoded[:n])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeRow(b)
		if err != nil {
			if !errors.Is(err, ErrRow) {
				t.Fatal(err)
			}
			return
		}
		if again := r.Encode(nil); !bytes.Equal(again, b) {
			t.Fatalf("%x is written as %x", b, again)
		}
	})
}
