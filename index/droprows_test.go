package index

import (
	"encoding/binary"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Dropping the rows under one prefix leaves those under every other one, whatever
// its last bytes are.
func TestDropRows_LeavesTheOthers(t *testing.T) {
	const low, high = 0x0f70, 0x1090
	key := func(id uint64) []byte { return binary.BigEndian.AppendUint64(nil, id) }
	for _, dropped := range []uint64{0x0f7f, 0x0f80, 0x0fc3, 0x0fec, 0x0ffe, 0x0fff, 0x1000, 0x1080} {
		x, _, err := Open(Options{FS: vfs.NewMem(), Dir: "state"})
		if err != nil {
			t.Fatal(err)
		}
		var pairs []Pair
		for id := uint64(low); id < high; id++ {
			pairs = append(pairs, Pair{Key: append(key(id), 'r', 0xff), Value: []byte("row")})
		}
		if err := x.WriteRows(pairs); err != nil {
			t.Fatal(err)
		}
		if err := x.DropRows(key(dropped)); err != nil {
			t.Fatal(err)
		}
		for id := uint64(low); id < high; id++ {
			value, _, err := x.Row(append(key(id), 'r', 0xff))
			if err != nil || (value == nil) != (id == dropped) {
				t.Errorf("after dropping %#x: %#x has %q, %v", dropped, id, value, err)
			}
			found, _, _, err := x.Rows(key(id), nil, 10, nil)
			if want := 1; err != nil || id != dropped && len(found) != want || id == dropped && len(found) != 0 {
				t.Errorf("after dropping %#x: %d rows under %#x, %v", dropped, len(found), id, err)
			}
		}
		if err := x.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
