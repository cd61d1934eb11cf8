package eventlog

import (
	"encoding/binary"
	"math"

	"cairn/event"
)

// A record header holds every field of an event but data and meta, in the wire
// format of protocol buffers: field number<<3 | wire type as a varint, then the
// value. Wire types are 0 varint, 1 eight bytes, 2 length as varint and bytes.
//
//	number  wire    field                        left out when
//	1       varint  position
//	2       varint  version in its stream
//	3       8 bytes time, nanoseconds (i64)
//	4       bytes   stream
//	5       bytes   type
//	6       bytes   id, 16 bytes of a UUID       the id is none in canonical form
//	7       bytes   id, any other text           empty, or field 6 stands
//	8       varint  1: the client chose the id   it did not
//	9       varint  events in its append         0
//	10      varint  place among them, from 0     0
//	11      bytes   digest, 32 bytes: SHA-256 over salt and payload
//	12      bytes   tag; once for each           no tags
//	13, 14  bytes   correlation id, as 6 and 7   none
//	15, 16  bytes   causation id, as 6 and 7     none
//	17, 18  bytes   id compensated, as 6 and 7   none
//	19      varint  number of the type's schema  0
//	20      bytes   content type                 JSON
//
// There is one encoding only: fields ascend, varints are as short as they can
// be, a value that is to be left out is. So a header's bytes are the same on
// every node. A field with a number above these is skipped, and is part of the
// header's bytes wherever those are hashed or copied.
const (
	fieldPosition = 1 + iota
	fieldVersion
	fieldTime
	fieldStream
	fieldType
	fieldIDUUID
	fieldID
	fieldIDChosen
	fieldAppendSize
	fieldAppendPlace
	fieldDigest
	fieldTag
	fieldCorrelationUUID
	fieldCorrelation
	fieldCausationUUID
	fieldCausation
	fieldCompensatesUUID
	fieldCompensates
	fieldSchema
	fieldContentType

	lastField = fieldContentType
)

const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
)

// wireOf is the wire type of each known field.
var wireOf = [lastField + 1]uint64{
	fieldPosition: wireVarint, fieldVersion: wireVarint, fieldTime: wireFixed64, fieldStream: wireBytes,
	fieldType: wireBytes, fieldIDUUID: wireBytes, fieldID: wireBytes, fieldIDChosen: wireVarint,
	fieldAppendSize: wireVarint, fieldAppendPlace: wireVarint, fieldDigest: wireBytes, fieldTag: wireBytes,
	fieldCorrelationUUID: wireBytes, fieldCorrelation: wireBytes, fieldCausationUUID: wireBytes,
	fieldCausation: wireBytes, fieldCompensatesUUID: wireBytes, fieldCompensates: wireBytes,
	fieldSchema: wireVarint, fieldContentType: wireBytes,
}

// requiredFields is the set of fields without which there is no event.
const requiredFields = 1<<fieldPosition | 1<<fieldVersion | 1<<fieldTime | 1<<fieldStream | 1<<fieldType | 1<<fieldDigest

func appendTag(dst []byte, field, wire uint64) []byte {
	return binary.AppendUvarint(dst, field<<3|wire)
}

func appendVarint(dst []byte, field, v uint64) []byte {
	return binary.AppendUvarint(appendTag(dst, field, wireVarint), v)
}

func appendText(dst []byte, field uint64, s string) []byte {
	dst = appendTag(dst, field, wireBytes)
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// appendID writes an id to field if it is a canonical UUID, else as text to
// the field after it; no id writes nothing.
func appendID(dst []byte, field uint64, id string) []byte {
	if id == "" {
		return dst
	}
	u, ok := parseUUID(id)
	if !ok {
		return appendText(dst, field+1, id)
	}
	dst = append(appendTag(dst, field, wireBytes), byte(len(u)))
	return append(dst, u[:]...)
}

// appendHeader appends e's header with a zero digest and returns where in the
// result the digest belongs.
func appendHeader(dst []byte, e *event.Event) (header []byte, digest int) {
	dst = appendVarint(dst, fieldPosition, e.Position)
	dst = appendVarint(dst, fieldVersion, e.Version)
	dst = binary.LittleEndian.AppendUint64(appendTag(dst, fieldTime, wireFixed64), uint64(e.Time))
	dst = appendText(dst, fieldStream, e.Stream)
	dst = appendText(dst, fieldType, e.Type)
	dst = appendID(dst, fieldIDUUID, e.ID)
	if e.IDChosen {
		dst = appendVarint(dst, fieldIDChosen, 1)
	}
	if e.AppendSize != 0 {
		dst = appendVarint(dst, fieldAppendSize, uint64(e.AppendSize))
	}
	if e.AppendPlace != 0 {
		dst = appendVarint(dst, fieldAppendPlace, uint64(e.AppendPlace))
	}
	dst = append(appendTag(dst, fieldDigest, wireBytes), digestSize)
	digest = len(dst)
	dst = append(dst, make([]byte, digestSize)...)
	for _, tag := range e.Tags {
		dst = appendText(dst, fieldTag, tag)
	}
	dst = appendID(dst, fieldCorrelationUUID, e.CorrelationID)
	dst = appendID(dst, fieldCausationUUID, e.CausationID)
	dst = appendID(dst, fieldCompensatesUUID, e.Compensates)
	if e.Schema != 0 {
		dst = appendVarint(dst, fieldSchema, uint64(e.Schema))
	}
	if e.ContentType != "" {
		dst = appendText(dst, fieldContentType, e.ContentType)
	}
	return dst, digest
}

// span is a part of decoder.text.
type span struct{ from, to int }

// decoder reads record headers. It keeps its buffers, so that a header costs
// one allocation: the string that holds all texts of the event.
type decoder struct {
	text   []byte // the header, then the text of its UUIDs
	tags   []span
	fields [lastField + 1]span
	number [lastField + 1]uint64 // of varints and eight bytes
	seen   uint64                // set of known fields
}

func (d *decoder) digest() []byte {
	s := d.fields[fieldDigest]
	return d.text[s.from:s.to]
}

// event decodes a header into e; Data and Meta are left alone. The memory of
// e.Tags is used again, everything else in e is fresh.
func (d *decoder) event(header []byte, e *event.Event) error {
	if err := d.parse(header); err != nil {
		return err
	}
	text := string(d.text)
	str := func(field int) string { return text[d.fields[field].from:d.fields[field].to] }
	id := func(field int) string {
		if d.seen&(1<<field) != 0 {
			return str(field)
		}
		return str(field + 1)
	}
	e.Position = d.number[fieldPosition]
	e.Version = d.number[fieldVersion]
	e.Time = int64(d.number[fieldTime])
	e.Stream = str(fieldStream)
	e.Type = str(fieldType)
	e.ID = id(fieldIDUUID)
	e.IDChosen = d.number[fieldIDChosen] == 1
	e.Schema = uint32(d.number[fieldSchema])
	e.Tags = e.Tags[:0]
	for _, t := range d.tags {
		e.Tags = append(e.Tags, text[t.from:t.to])
	}
	e.CorrelationID = id(fieldCorrelationUUID)
	e.CausationID = id(fieldCausationUUID)
	e.Compensates = id(fieldCompensatesUUID)
	e.ContentType = str(fieldContentType)
	e.AppendSize = uint32(d.number[fieldAppendSize])
	e.AppendPlace = uint32(d.number[fieldAppendPlace])
	return nil
}

// parse reads all fields of a header. It never panics and accepts one encoding
// of each header only.
func (d *decoder) parse(header []byte) error {
	d.text = append(d.text[:0], header...)
	d.tags = d.tags[:0]
	d.fields = [lastField + 1]span{}
	d.number = [lastField + 1]uint64{}
	d.seen = 0
	previous := uint64(0)
	for off := 0; off < len(header); {
		tag, n := uvarint(header[off:])
		if n == 0 {
			return formatError("header: field number is cut short")
		}
		off += n
		field, wire := tag>>3, tag&7
		if field == 0 || field < previous || field == previous && field <= lastField && field != fieldTag {
			return formatError("header: fields do not ascend")
		}
		previous = field
		if field <= lastField && wire != wireOf[field] {
			return formatError("header: field has the wrong wire type")
		}
		n, number, s := value(header, off, wire)
		if n == 0 {
			return formatError("header: value is cut short")
		}
		off += n
		if field > lastField {
			continue
		}
		if err := d.set(int(field), number, s); err != nil {
			return err
		}
	}
	if d.seen&requiredFields != requiredFields {
		return formatError("header: a field is missing")
	}
	return nil
}

// value reads one value of header at off: how many bytes it takes, 0 if it is
// cut short or of an unknown wire type, and the number or the bytes it is.
func value(header []byte, off int, wire uint64) (n int, number uint64, s span) {
	switch wire {
	case wireVarint:
		number, n = uvarint(header[off:])
		return n, number, span{}
	case wireFixed64:
		if len(header)-off < 8 {
			return 0, 0, span{}
		}
		return 8, binary.LittleEndian.Uint64(header[off:]), span{}
	case wireBytes:
		length, n := uvarint(header[off:])
		if n == 0 || length > uint64(len(header)-off-n) {
			return 0, 0, span{}
		}
		from := off + n
		return n + int(length), 0, span{from, from + int(length)}
	}
	return 0, 0, span{}
}

// set takes in the value of a known field.
func (d *decoder) set(field int, number uint64, s span) error {
	d.seen |= 1 << field
	d.number[field] = number
	d.fields[field] = s
	size := s.to - s.from
	switch field {
	case fieldPosition, fieldVersion:
		if number == 0 {
			return formatError("header: position or version is zero")
		}
	case fieldIDChosen:
		if number != 1 {
			return formatError("header: flag is not 1")
		}
	case fieldAppendSize, fieldAppendPlace, fieldSchema:
		if number == 0 || number > math.MaxUint32 {
			return formatError("header: number is out of bounds")
		}
	case fieldDigest:
		if size != digestSize {
			return formatError("header: digest has the wrong size")
		}
	case fieldTag:
		d.tags = append(d.tags, s)
	case fieldIDUUID, fieldCorrelationUUID, fieldCausationUUID, fieldCompensatesUUID:
		if size != 16 {
			return formatError("header: UUID has the wrong size")
		}
		from := len(d.text)
		d.text = appendUUID(d.text, d.text[s.from:s.to])
		d.fields[field] = span{from, len(d.text)}
	case fieldID, fieldCorrelation, fieldCausation, fieldCompensates:
		if d.seen&(1<<(field-1)) != 0 || size == 0 || isUUID(d.text[s.from:s.to]) {
			return formatError("header: id is not in its short form")
		}
	case fieldContentType:
		if size == 0 {
			return formatError("header: content type is empty")
		}
	}
	return nil
}

// uvarint is binary.Uvarint, but refuses what could be shorter; n is 0 then.
func uvarint(b []byte) (v uint64, n int) {
	v, n = binary.Uvarint(b)
	if n <= 0 || n > 1 && b[n-1] == 0 {
		return 0, 0
	}
	return v, n
}

// Leaf returns the hash of an event in the Merkle tree of the log: SHA-256 over
// a zero byte and the record's header.
func Leaf(header []byte) [32]byte {
	b := make([]byte, 1+len(header))
	copy(b[1:], header)
	return sum256(b)
}
