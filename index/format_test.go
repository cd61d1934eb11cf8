package index

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
)

func TestFormat_GoldenKeys(t *testing.T) {
	const uuid = "0190b5c8-7f1e-7abc-8def-0123456789ab"
	for _, c := range []struct {
		what string
		got  []byte
		want string
	}{
		{"head of a stream", headKey(nil, appendTerm(nil, kindStream, "a-1")), "68 01 612d31"},
		{"head of a category", headKey(nil, appendTerm(nil, kindCategory, "a")), "68 02 61"},
		{"head of a type", headKey(nil, appendTerm(nil, kindType, "T")), "68 03 54"},
		{"head of a tag", headKey(nil, appendTerm(nil, kindTag, "x:1")), "68 04 783a31"},
		{"head of a correlation", headKey(nil, appendTerm(nil, kindCorrelation, "c")), "68 05 63"},
		{"head of a correlation by UUID", headKey(nil, appendTerm(nil, kindCorrelation, uuid)), "68 45 0190b5c87f1e7abc8def0123456789ab"},
		{"head of a causation", headKey(nil, appendTerm(nil, kindCausation, "c")), "68 06 63"},
		{"head of what is compensated", headKey(nil, appendTerm(nil, kindCompensates, "c")), "68 07 63"},
		{"head of the system's events", headKey(nil, appendTerm(nil, kindSystem, "")), "68 08"},
		{"a tag is never packed", headKey(nil, appendTerm(nil, kindTag, uuid)), "68 04" + hex.EncodeToString([]byte(uuid))},
		{"block", blockKey(nil, appendTerm(nil, kindTag, "x"), 0x0102030405), "62 02 0478 0000000102030405"},
		{"id", idKey(nil, "id", "a-1"), "69 02 6964 612d31"},
		{"id that is a UUID", idKey(nil, uuid, "a-1"), "75 0190b5c87f1e7abc8def0123456789ab 612d31"},
		{"id that is an upper-case UUID", idKey(nil, strings.ToUpper(uuid), ""), "69 24" + hex.EncodeToString([]byte(strings.ToUpper(uuid)))},
		{"extra", extraKey(nil, []byte("root")), "78 726f6f74"},
		{"row", rowKey(nil, []byte("a/1")), "70 612f31"},
		{"the end of rows", rowsEnd([]byte("a/\xff\xff")), "70 6130"},
		{"the end of all rows", rowsEnd(nil), "71"},
	} {
		if want := strings.ReplaceAll(c.want, " ", ""); hex.EncodeToString(c.got) != want {
			t.Errorf("%s: %x, want %s", c.what, c.got, want)
		}
	}
}

func TestFormat_GoldenValues(t *testing.T) {
	short := head{count: 3, first: 300, last: 1000, tail: []uint64{300, 301, 1000}}
	long := head{count: 9, first: 7, last: 2000, block: blockHead{ordinal: 4, count: 3, first: 500, last: 900}, tail: []uint64{901, 2000}}
	full := head{count: 4, first: 7, last: 900, block: blockHead{count: 4, first: 7, last: 900}, tail: []uint64{}}
	sp := Savepoint{Index: 300, Position: 5, Extra: []byte("xy")}
	for _, c := range []struct {
		what string
		got  []byte
		want string
	}{
		{"short head", short.encode(nil), "01 03 ac02 00 ba05"},
		{"long head", long.encode(nil), "02 09 07 04 f403 03 9003 00 ca08"},
		{"long head without a tail", full.encode(nil), "02 04 07 00 07 04 fd06"},
		{"block", appendBlock(nil, 4, []uint64{500, 501, 900}), "01 04 03 9003 00 8e03"},
		{"id", appendID(nil, 300), "01 ac02"},
		{"savepoint", sp.encode(nil), "01 ac02 05 7879"},
	} {
		if want := strings.ReplaceAll(c.want, " ", ""); hex.EncodeToString(c.got) != want {
			t.Errorf("%s: %x, want %s", c.what, c.got, want)
		}
	}
	for _, want := range []head{short, long, full} {
		got, err := decodeHead(nil, want.encode(nil), nil)
		if err != nil || got.count != want.count || got.first != want.first || got.last != want.last ||
			got.block != want.block || !slices.Equal(got.tail, want.tail) {
			t.Errorf("decoded %+v, %v, want %+v", got, err, want)
		}
	}
}

func TestFormat_UUIDs(t *testing.T) {
	const canonical = "0190b5c8-7f1e-7abc-8def-0123456789ab"
	if u, ok := parseUUID(canonical); !ok || hex.EncodeToString(u[:]) != strings.ReplaceAll(canonical, "-", "") {
		t.Errorf("parseUUID(%q) = %x, %t", canonical, u, ok)
	}
	for i := range canonical { // no other text may give the same bytes
		for _, c := range []byte{'-', 'g', 'A', ' ', 0, '/', ':', '`'} {
			b := []byte(canonical)
			if b[i] == c {
				continue
			}
			b[i] = c
			if u, ok := parseUUID(string(b)); ok {
				t.Errorf("parseUUID(%q) = %x", b, u)
			}
		}
	}
	for _, s := range []string{"", canonical[1:], canonical + "0", "{" + canonical[1:35] + "}"} {
		if _, ok := parseUUID(s); ok {
			t.Errorf("parseUUID(%q) succeeded", s)
		}
	}
}

func TestFormat_RefusesDamage(t *testing.T) {
	key := blockKey(nil, []byte{4, 'x'}, 7)
	for what, value := range map[string][]byte{
		"head: empty":                       {},
		"head: unknown form":                {3, 1, 1},
		"head: no postings":                 {1, 0, 1},
		"head: position 0":                  {1, 1, 0},
		"head: fewer postings than counted": {1, 3, 1, 0},
		"head: bytes left over":             {1, 1, 1, 0},
		"head: not the shortest form":       {1, 0x81, 0, 1},
		"head: cut":                         {1, 1, 0x80},
		"head: a huge count":                append([]byte{1}, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 1),
		"head: more in blocks than in all":  {2, 3, 1, 2, 1, 2, 5},
		"head: last block before the first": {2, 3, 9, 0, 1, 2, 5, 0},
		"head: position overflows":          append([]byte{1, 2}, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0),
	} {
		wantCorrupt(t, what, func() error { _, err := decodeHead(key, value, nil); return err })
	}
	for what, value := range map[string][]byte{
		"block: empty":                       {},
		"block: unknown form":                {2, 0, 1, 0},
		"block: no postings":                 {1, 0, 0, 0},
		"block: a span that is not its own":  {1, 0, 2, 9, 0},
		"block: fewer postings than counted": {1, 0, 2, 1},
		"block: bytes left over":             {1, 0, 1, 0, 0},
	} {
		wantCorrupt(t, what, func() error { _, _, err := decodeBlock(key, value, nil); return err })
	}
	wantCorrupt(t, "block: short key", func() error { _, _, err := decodeBlock([]byte("b"), []byte{1, 0, 1, 0}, nil); return err })
	wantCorrupt(t, "id: position 0", func() error { _, err := decodeID(key, []byte{1, 0}); return err })
	wantCorrupt(t, "id: unknown form", func() error { _, err := decodeID(key, []byte{2, 1}); return err })
	wantCorrupt(t, "savepoint: cut", func() error { _, err := decodeSavepoint(key, []byte{1, 1}); return err })
	wantCorrupt(t, "savepoint: unknown form", func() error { _, err := decodeSavepoint(key, []byte{2, 1, 1}); return err })
}

func wantCorrupt(t *testing.T, what string, decode func() error) {
	t.Helper()
	var corrupt *CorruptError
	if err := decode(); !errors.As(err, &corrupt) {
		t.Errorf("%s: %v, want a CorruptError", what, err)
	}
}

// FuzzDecoders: no bytes make a decoder panic or allocate without bound, and
// what is decoded has one encoding, the one it came from.
func FuzzDecoders(f *testing.F) {
	short := head{count: 3, tail: []uint64{300, 301, 1000}}
	long := head{count: 9, first: 7, block: blockHead{ordinal: 4, count: 3, first: 500, last: 900}, tail: []uint64{901, 2000}}
	f.Add(short.encode(nil))
	f.Add(long.encode(nil))
	f.Add(appendBlock(nil, 4, []uint64{500, 501, 900}))
	f.Add(appendID(nil, math.MaxUint64))
	f.Add((&Savepoint{Index: 300, Position: 5, Extra: []byte("xy")}).encode(nil))
	key := blockKey(nil, []byte{4, 'x'}, 500)
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := decodeHead(key, b, nil); err == nil {
			if again := h.encode(nil); !bytes.Equal(again, b) {
				t.Errorf("head %x encodes as %x", b, again)
			}
			checkAscending(t, h.tail)
		}
		if h, postings, err := decodeBlock(key, b, nil); err == nil {
			if again := appendBlock(nil, h.ordinal, postings); !bytes.Equal(again, b) {
				t.Errorf("block %x encodes as %x", b, again)
			}
			checkAscending(t, postings)
			if h.count != uint64(len(postings)) || h.last != postings[len(postings)-1] {
				t.Errorf("block %x: %+v, postings %d", b, h, postings)
			}
		}
		if p, err := decodeID(key, b); err == nil {
			if again := appendID(nil, p); !bytes.Equal(again, b) {
				t.Errorf("id %x encodes as %x", b, again)
			}
		}
		if sp, err := decodeSavepoint(key, b); err == nil {
			if again := sp.encode(nil); !bytes.Equal(again, b) {
				t.Errorf("savepoint %x encodes as %x", b, again)
			}
		}
	})
}

func checkAscending(t *testing.T, positions []uint64) {
	t.Helper()
	for i := 1; i < len(positions); i++ {
		if positions[i] <= positions[i-1] {
			t.Errorf("positions %d do not ascend", positions)
		}
	}
}
