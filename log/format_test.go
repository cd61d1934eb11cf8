package eventlog

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"cairn/event"
)

// goldenEvent has every field that a record can have.
func goldenEvent() event.Event {
	return event.Event{
		Position: 300, Version: 2, Time: 1_700_000_000_000_000_001, Stream: "account-42", Type: "Deposited",
		ID: "018bcfe5-6800-7000-8000-0000000000ff", IDChosen: true, Schema: 5, Tags: []string{"a:1", "b:2"},
		CorrelationID: "order 7", CausationID: "018bcfe5-6800-7000-8000-0000000000fe", Compensates: "x",
		ContentType: "text/plain", Data: []byte("hello"), Meta: []byte("{}"), AppendSize: 3, AppendPlace: 1,
	}
}

func goldenSalt() (salt [16]byte) {
	for i := range salt {
		salt[i] = byte(0xa0 + i)
	}
	return salt
}

// unhex decodes hex text in which white space is ignored and # begins a comment.
func unhex(t testing.TB, text string) []byte {
	t.Helper()
	var digits strings.Builder
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		digits.WriteString(strings.Join(strings.Fields(line), ""))
	}
	b, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// golden compares encoded bytes with those that every version must write.
func golden(t *testing.T, got []byte, want string) {
	t.Helper()
	if b := unhex(t, want); !bytes.Equal(got, b) {
		t.Errorf("encoding has changed\n got %x\nwant %x", got, b)
	}
}

func TestFormat_SegmentHeader(t *testing.T) {
	h := segmentHeader{logID: testID, segmentSize: 64 << 20, base: 300}
	b := h.encode()
	golden(t, b[:], `
		636169726e736567 # magic
		01000000 # version
		00000000 # codec, key id
		ca1e4d00000000000000000000000007 # log id
		0000000400000000 # segment size
		2c01000000000000 # base
		000000000000000000000000 # zero
		4b6f8987 # CRC`)
	if got, err := decodeSegmentHeader(b[:]); err != nil || got != h {
		t.Errorf("decoded %+v, %v", got, err)
	}
}

func TestFormat_Frame(t *testing.T) {
	var b FrameBuilder
	e := goldenEvent()
	b.Reset(77, 3, e.Position, e.Time)
	leaf := b.Add(&e, goldenSalt())
	frame := b.seal()
	golden(t, frame, `
		f3000080 # length, bit 31
		a1b8d35c # CRC
		4d00000000000000 # index
		0300000000000000 # term
		2c01000000000000 # first
		01002a36fe9c9717 # time
		0100000000000000 # count, zero
		98000000 # header length
		0b000000 # payload length
		c15632e7 # header CRC
		08ac02 # 1 position
		1002 # 2 version
		1901002a36fe9c9717 # 3 time
		220a6163636f756e742d3432 # 4 stream
		2a094465706f7369746564 # 5 type
		3210018bcfe568007000800000000000 00ff # 6 id
		4001 # 8 chosen
		4803 # 9 append size
		5001 # 10 append place
		5a209ee8141e23a13e2ad62622d517fd 2218806c73586dd71bb8c254a70d9d2f 9728 # 11 digest
		6203613a31 # 12 tag
		6203623a32 # 12 tag
		72076f726465722037 # 14 correlation
		7a10018bcfe568007000800000000000 00fe # 15 causation
		92010178 # 18 compensates
		980105 # 19 schema
		a2010a746578742f706c61696e # 20 content type
		d41e77d6 # payload CRC
		a0a1a2a3a4a5a6a7a8a9aaabacadaeaf # salt
		05000000 # data length
		68656c6c6f7b7d # data, meta`)
	golden(t, leaf[:], `
		6b396c3f86e9f5730ad1cd107b6e10d7 9ed61c5327d3108d2383ade9824b1986 # SHA-256(00, header)`)
	h, err := decodeFrameHeader(frame)
	if want := (frameHeader{int64(len(frame)), h.crc, 77, 3, 300, e.Time, 1}); err != nil || h != want {
		t.Errorf("decoded %+v, %v, want %+v", h, err, want)
	}
	r, err := decodeRecord(frame[frameHeaderSize:])
	if err != nil {
		t.Fatal(err)
	}
	var d decoder
	var got event.Event
	if err := d.record(r, &got); err != nil || !sameEvent(&got, &e) {
		t.Errorf("decoded %+v, %v, want %+v", got, err, e)
	}
	if Leaf(r.header()) != leaf {
		t.Error("Leaf of the header is not what Add returned")
	}
	if [32]byte(d.digest()) != Digest(goldenSalt(), e.Data, e.Meta) {
		t.Error("Digest of the payload is not what the header says")
	}
}

func TestFormat_Footer(t *testing.T) {
	want := trailer{
		first: 300, last: 302, firstTime: 5, lastTime: 6, firstIndex: 7, lastIndex: 8,
		hash: sha256.Sum256([]byte("x")), footer: 1000,
	}
	b := appendFooter(nil, &want, []uint32{112, 400, 500})
	golden(t, b, `
		7000000090010000f4010000 # offsets
		2c010000000000002e01000000000000 # positions
		05000000000000000600000000000000 # times
		07000000000000000800000000000000 # indexes
		2d711642b726b04401627ca9fbac32f5 c8530fb1903cc4db02258717921a4881 # hash
		e803000000000000 # footer
		df9eeda5 # table CRC
		01000000 # version
		00000000 # zero
		b58b9f51 # CRC
		636169726e656e64 # magic`)
	got, err := decodeTrailer(b[12:], 1000+int64(len(b)))
	want.tableCRC = crc(0, b[:12])
	if err != nil || got != want {
		t.Errorf("decoded %+v, %v", got, err)
	}
}

func TestFormat_Unknown(t *testing.T) {
	seal := func(b []byte, crcAt int) []byte {
		sum := crc(0, b[:crcAt])
		return append(append(append([]byte{}, b[:crcAt]...), byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)), b[crcAt+4:]...)
	}
	h := segmentHeader{logID: testID, segmentSize: 4096, base: 1}
	for _, at := range []int{8, 12, 14} {
		b := h.encode()
		b[at] = 9
		if _, err := decodeSegmentHeader(seal(b[:], 60)); !errors.Is(err, ErrFormat) {
			t.Errorf("byte %d of the segment header: %v", at, err)
		}
	}
	b := appendFooter(nil, &trailer{first: 1, last: 1, footer: 200}, []uint32{112})[4:]
	b[92] = 9
	if _, err := decodeTrailer(seal(b, 100), 200+4+trailerSize); !errors.Is(err, ErrFormat) {
		t.Errorf("version of the footer: %v", err)
	}
}

// A field that a later version adds is skipped, and hashed with the rest.
func TestFormat_UnknownField(t *testing.T) {
	e := goldenEvent()
	header, digest := appendHeader(nil, &e)
	sum := Digest(goldenSalt(), e.Data, e.Meta)
	copy(header[digest:], sum[:])
	known := Leaf(header)
	header = appendText(appendVarint(header, 25, 77), 31, "later")
	var d decoder
	var got event.Event
	if err := d.event(header, &got); err != nil {
		t.Fatal(err)
	}
	e.Data, e.Meta = nil, nil
	if !sameEvent(&got, &e) {
		t.Errorf("decoded %+v, want %+v", got, e)
	}
	if Leaf(header) == known {
		t.Error("the leaf leaves out what is not known")
	}
	if err := d.event(header[:len(header)-1], &got); err == nil {
		t.Error("an unknown field that is cut short was accepted")
	}
}

func TestFormat_HeaderHasOneEncoding(t *testing.T) {
	e := goldenEvent()
	good, _ := appendHeader(nil, &e)
	parts := func(fields ...[]byte) []byte { return bytes.Join(fields, nil) }
	begin := parts(appendVarint(nil, 1, 1), appendVarint(nil, 2, 1), append([]byte{3<<3 | 1}, make([]byte, 8)...),
		appendText(nil, 4, "s"), appendText(nil, 5, "t"))
	digest := appendText(nil, 11, strings.Repeat("d", 32))
	uuid := strings.Repeat("u", 16)
	for name, b := range map[string][]byte{
		"empty":                nil,
		"cut short":            good[:len(good)-1],
		"no digest":            begin,
		"digest too short":     parts(begin, appendText(nil, 11, "d")),
		"position twice":       parts(appendVarint(nil, 1, 1), begin, digest),
		"position zero":        parts(appendVarint(nil, 1, 0), begin[2:], digest),
		"not ascending":        parts(begin, digest, appendText(nil, 7, "id")),
		"long varint":          parts([]byte{1 << 3, 0x81, 0x00}, begin[2:], digest),
		"long field number":    parts([]byte{1<<3 | 0x80, 0x00, 1}, begin[2:], digest),
		"field zero":           parts(begin, digest, []byte{0, 1}),
		"wrong wire type":      parts(begin, digest, appendVarint(nil, 12, 1)),
		"unknown wire type":    parts(begin, digest, appendTag(nil, 30, 3), []byte{0}),
		"id twice":             parts(begin, appendText(nil, 6, uuid), appendText(nil, 7, "id"), digest),
		"id empty":             parts(begin, appendText(nil, 7, ""), digest),
		"uuid as text":         parts(begin, appendText(nil, 7, "018bcfe5-6800-7000-8000-0000000000ff"), digest),
		"uuid too short":       parts(begin, appendText(nil, 6, "u"), digest),
		"flag zero":            parts(begin, appendVarint(nil, 8, 0), digest),
		"append size zero":     parts(begin, appendVarint(nil, 9, 0), digest),
		"append place too big": parts(begin, appendVarint(nil, 10, 1<<32), digest),
		"content type empty":   parts(begin, digest, appendText(nil, 20, "")),
	} {
		var d decoder
		if err := d.event(b, &event.Event{}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	var d decoder
	if err := d.event(parts(begin, digest), &event.Event{}); err != nil {
		t.Errorf("the shortest header: %v", err)
	}
}
