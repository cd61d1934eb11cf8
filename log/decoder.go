package eventlog

import (
	"encoding/binary"
	"math"
	"math/bits"
	"strings"

	"cairn/event"
)

// span is a part of a header.
type span struct{ from, to int }

// decoder reads record headers. It keeps its buffers, so that a header costs no
// more than its share of a block of texts.
type decoder struct {
	header []byte // parsed last; it belongs to the caller
	tags   []span
	fields [lastField + 1]span
	number [lastField + 1]uint64 // of varints and eight bytes
	seen   uint64                // set of known fields

	// texts is the block that the strings of events are cut from: what was
	// written to it never changes. One string keeps its whole block.
	texts strings.Builder
	block int // most bytes of a block for several events; 0 = each has its own
}

const (
	uuidFields = 1<<fieldIDUUID | 1<<fieldCorrelationUUID | 1<<fieldCausationUUID | 1<<fieldCompensatesUUID
	uuidText   = 36 // length of a UUID in canonical form
)

func (d *decoder) digest() []byte {
	s := d.fields[fieldDigest]
	return d.header[s.from:s.to]
}

// event decodes a header into e; Data and Meta are left alone. The memory of
// e.Tags is used again, everything else in e is fresh.
func (d *decoder) event(header []byte, e *event.Event) error {
	if err := d.parse(header); err != nil {
		return err
	}
	text := d.text()
	str := func(field int) string { return text[d.fields[field].from:d.fields[field].to] }
	uuids := len(header)
	id := func(field int) string {
		if d.seen&(1<<field) == 0 {
			return str(field + 1)
		}
		uuids += uuidText
		return text[uuids-uuidText : uuids]
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

// text returns the header parsed last, and then the text of its UUIDs in the
// order of their fields.
func (d *decoder) text() string {
	need := len(d.header) + uuidText*bits.OnesCount64(d.seen&uuidFields)
	if d.texts.Cap()-d.texts.Len() < need {
		size := max(need, min(2*d.texts.Cap(), d.block))
		d.texts.Reset()
		d.texts.Grow(size)
	}
	start := d.texts.Len()
	d.texts.Write(d.header)
	for rest := d.seen & uuidFields; rest != 0; rest &= rest - 1 {
		s := d.fields[bits.TrailingZeros64(rest)]
		var u [uuidText]byte
		d.texts.Write(appendUUID(u[:0], d.header[s.from:s.to]))
	}
	return d.texts.String()[start:]
}

// parse reads all fields of a header. It never panics and accepts one encoding
// of each header only.
func (d *decoder) parse(header []byte) error {
	d.header = header
	d.tags = d.tags[:0]
	d.fields = [lastField + 1]span{}
	d.number = [lastField + 1]uint64{}
	d.seen = 0
	previous := uint64(0)
	for off := 0; off < len(header); {
		tag, n := uint64(header[off]), 1
		if tag >= 0x80 {
			tag, n = uvarint(header[off:])
		}
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
		if off < len(header) && header[off] < 0x80 { // nearly always
			n, number = 1, uint64(header[off])
		} else {
			number, n = uvarint(header[off:])
		}
		length := number
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
	case fieldID, fieldCorrelation, fieldCausation, fieldCompensates:
		if d.seen&(1<<(field-1)) != 0 || size == 0 || isUUID(d.header[s.from:s.to]) {
			return formatError("header: id is not in its short form")
		}
	case fieldContentType:
		if size == 0 {
			return formatError("header: content type is empty")
		}
	}
	return nil
}
