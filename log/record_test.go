package eventlog

import (
	"bytes"
	"encoding/binary"
	"testing"

	"cairn/event"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/uuid"
	"pgregory.net/rapid"
)

// drawID draws an id as clients may send one: a UUID, one that is not in
// canonical form, or any text.
func drawID(t *rapid.T, label string) string {
	id := uuid.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, label)).String()
	switch rapid.IntRange(0, 4).Draw(t, label+" kind") {
	case 0:
		return ""
	case 1:
		return rapid.String().Draw(t, label+" text")
	case 2:
		return string(bytes.ToUpper([]byte(id)))
	case 3:
		return id[:35] + "g"
	}
	return id
}

func drawEvent(t *rapid.T) event.Event {
	text := rapid.String()
	e := event.Event{
		Position: rapid.Uint64Min(1).Draw(t, "position"), Version: rapid.Uint64Min(1).Draw(t, "version"),
		Time: rapid.Int64Min(0).Draw(t, "time"), Stream: text.Draw(t, "stream"), Type: text.Draw(t, "type"),
		ID: drawID(t, "id"), IDChosen: rapid.Bool().Draw(t, "chosen"), Schema: rapid.Uint32().Draw(t, "schema"),
		Tags:          rapid.SliceOfN(text, 0, 4).Draw(t, "tags"),
		CorrelationID: drawID(t, "correlation"), CausationID: drawID(t, "causation"), Compensates: drawID(t, "compensates"),
		ContentType: rapid.SampledFrom([]string{"", "text/plain"}).Draw(t, "content type"),
		AppendSize:  rapid.Uint32().Draw(t, "append size"), AppendPlace: rapid.Uint32().Draw(t, "append place"),
	}
	if b := rapid.SliceOf(rapid.Byte()).Draw(t, "data"); len(b) > 0 {
		e.Data = b
	}
	if b := rapid.SliceOf(rapid.Byte()).Draw(t, "meta"); len(b) > 0 {
		e.Meta = b
	}
	return e
}

func TestRecord_RoundTrip(t *testing.T) {
	var b FrameBuilder
	var d decoder
	var got event.Event
	rapid.Check(t, func(t *rapid.T) {
		e := drawEvent(t)
		salt := [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "salt"))
		b.Reset(1, 1, e.Position, e.Time)
		leaf := b.Add(&e, salt)
		if b.err != nil {
			t.Fatal(b.err)
		}
		r, err := decodeRecord(b.seal()[frameHeaderSize:])
		if err != nil {
			t.Fatal(err)
		}
		if err := d.record(r, &got); err != nil {
			t.Fatal(err)
		}
		if !sameEvent(&got, &e) {
			t.Fatalf("got %+v, want %+v", got, e)
		}
		record := Record{Header: r.header(), Salt: [16]byte(r.salted), Payload: r.payload()}
		again, err := record.Event()
		if err != nil || !sameEvent(&again, &e) || record.Salt != salt {
			t.Fatalf("Record.Event() = %+v, %v", again, err)
		}
		digest, err := record.Digest()
		if err != nil || digest != Digest(salt, e.Data, e.Meta) {
			t.Fatalf("Record.Digest() = %x, %v", digest, err)
		}
		if leaf != Leaf(r.header()) {
			t.Fatal("leaf is not that of the header")
		}
	})
}

func TestUUID_MatchesLibrary(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawID(t, "id")
		u, err := uuid.Parse(s)
		canonical := err == nil && u.String() == s
		got, ok := parseUUID(s)
		if ok != canonical || ok && got != u {
			t.Fatalf("parseUUID(%q) = %x, %v", s, got, ok)
		}
		if ok && string(appendUUID(nil, got[:])) != s {
			t.Fatalf("appendUUID gives %q", appendUUID(nil, got[:]))
		}
	})
}

// The strings of an event outlive the next record, Data and Meta do not need to.
func TestDecoder_StringsStay(t *testing.T) {
	var d decoder
	var e event.Event
	first, second := goldenEvent(), goldenEvent()
	second.Stream, second.ID = "ACCOUNT-42", "different"
	header, _ := appendHeader(nil, &first)
	if err := d.event(header, &e); err != nil {
		t.Fatal(err)
	}
	stream, id := e.Stream, e.ID
	copy(header, bytes.Repeat([]byte{'x'}, len(header)))
	if header, _ = appendHeader(header[:0], &second); d.event(header, &e) != nil {
		t.Fatal("second header was refused")
	}
	if stream != first.Stream || id != first.ID {
		t.Errorf("stream %q, id %q changed under the caller", stream, id)
	}
}

// reencode writes what a header says once more.
func reencode(d *decoder, e *event.Event) []byte {
	b, at := appendHeader(nil, e)
	copy(b[at:], d.digest())
	return b
}

func FuzzDecodeHeader(f *testing.F) {
	e := goldenEvent()
	header, _ := appendHeader(nil, &e)
	f.Add(header)
	f.Add(appendText(header, 33, "later"))
	e = event.Event{Position: 1, Version: 1, ID: "a"}
	header, _ = appendHeader(nil, &e)
	f.Add(header)
	f.Fuzz(func(t *testing.T, b []byte) {
		var d decoder
		var e event.Event
		if d.event(b, &e) != nil {
			return
		}
		// What is left over are fields that are not known.
		known := reencode(&d, &e)
		if !bytes.HasPrefix(b, known) {
			t.Fatalf("decoded %+v\nfrom %x\nwhose encoding is %x", e, b, known)
		}
		if len(b) > len(known) {
			if tag, _ := uvarint(b[len(known):]); tag>>3 <= lastField {
				t.Fatalf("field %d of %x was lost", tag>>3, b)
			}
		}
		if position, time, err := place(b); err != nil || position != e.Position || time != e.Time {
			t.Fatalf("place = %d, %d, %v of %x", position, time, err, b)
		}
	})
}

func FuzzDecodeRecord(f *testing.F) {
	e := goldenEvent()
	record, _, _ := appendRecord(nil, &e, goldenSalt())
	f.Add(record)
	f.Add(append(record, record...))
	f.Add(make([]byte, 100))
	f.Fuzz(func(t *testing.T, b []byte) {
		mendRecord(b)
		r, err := decodeRecord(b)
		if err != nil {
			return
		}
		var d decoder
		var e event.Event
		if d.record(r, &e) != nil {
			return
		}
		if !bytes.HasPrefix(r.header(), reencode(&d, &e)) {
			t.Fatalf("decoded %+v from %x", e, r.header())
		}
		if [32]byte(d.digest()) != Digest([16]byte(r.salted), e.Data, e.Meta) {
			t.Fatal("payload of another digest was accepted")
		}
	})
}

// mendRecord makes the CRCs of a record match, so that what they would refuse is
// tried too.
func mendRecord(b []byte) {
	head, record, err := recordSizes(b)
	if err != nil || len(b) < record {
		return
	}
	binary.LittleEndian.PutUint32(b[8:], headCRC(b[:head]))
	binary.LittleEndian.PutUint32(b[head:], crc(0, b[head+4:record]))
}

// Any bytes may follow a good frame: what was there before is read, the rest is
// refused or is itself a frame that follows.
func FuzzDecodeFrame(f *testing.F) {
	script := testScript(7, 3, 3)
	var b FrameBuilder
	script[0].build(&b)
	good := bytes.Clone(b.seal())
	script[1].build(&b)
	f.Add(bytes.Clone(b.seal()))
	f.Add(make([]byte, 200))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, tail []byte) {
		all := append(bytes.Clone(good), tail...)
		k := walker{window: window{file: bytes.NewReader(all)}, limit: int64(len(all))}
		defer k.release()
		next, time := uint64(1), int64(0)
		for k.off < k.limit {
			offsets, err := k.whole(next, time, nil)
			if err != nil {
				if !isCorrupt(err) {
					t.Fatal(err)
				}
				if k.start == 0 && next == 1 {
					t.Fatal("the good frame was refused")
				}
				return
			}
			if len(offsets) != int(k.frame.count) || k.frame.first != next {
				t.Fatalf("frame %+v with %d records after position %d", k.frame, len(offsets), next-1)
			}
			next, time = k.frame.last()+1, k.frame.time
		}
	})
}

func FuzzDecodeTrailer(f *testing.F) {
	b := appendFooter(nil, &trailer{first: 1, last: 2, footer: 300}, []uint32{112, 200})
	f.Add(b[8:], int64(300+len(b)))
	f.Add(make([]byte, trailerSize), int64(1000))
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		got, err := decodeTrailer(b, size)
		if err != nil {
			return
		}
		if n := size - trailerSize - got.footer; n <= 0 || uint64(n/tableEntry) != got.last-got.first+1 {
			t.Fatalf("accepted %+v of a file of %d bytes", got, size)
		}
	})
}

// A file of any bytes is opened, or refused with an error, and read.
func FuzzOpen(f *testing.F) {
	fs := vfs.NewMem()
	l := createTest(f, fs, 512, testScript(3, 4, 2))
	closeTest(f, l)
	b, err := fs.UnsafeGetFileDataBuffer("log/" + SegmentName(1))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(bytes.Clone(b), uint64(1))
	f.Add(bytes.Clone(b), uint64(0))
	f.Add(bytes.Clone(b[:len(b)-1]), uint64(2))
	f.Fuzz(func(t *testing.T, b []byte, through uint64) {
		fs := vfs.NewMem()
		writeFile(t, fs, "log/"+SegmentName(1), b)
		l, err := Open(Options{FS: fs, Dir: "log", Through: through, Flush: -1})
		if err != nil {
			return
		}
		defer closeTest(t, l)
		if err := l.Cut(); err != nil {
			t.Fatal(err)
		}
		s := l.Scan(1)
		defer s.Close()
		for n := uint64(1); s.Next(); n++ {
			if s.Event().Position != n {
				t.Fatalf("event %d where %d should be", s.Event().Position, n)
			}
		}
		if s.Err() != nil && !isCorrupt(s.Err()) {
			t.Fatal(s.Err())
		}
	})
}
