package eventlog

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"

	"cairn/event"
)

func sum256(b []byte) [32]byte { return sha256.Sum256(b) }

// Record is an event as it lies in a segment.
type Record struct {
	Header  []byte
	Salt    [16]byte
	Payload []byte // u32 length of the data, data, meta
}

// Event decodes the record and checks the digest.
func (r *Record) Event() (event.Event, error) {
	var e event.Event
	salted := append(append(make([]byte, 0, saltSize+len(r.Payload)), r.Salt[:]...), r.Payload...)
	err := (&decoder{}).record(rawRecord{head: append(make([]byte, leadSize), r.Header...), salted: salted}, &e)
	return e, err
}

// Digest returns the digest that the record's header carries.
func (r *Record) Digest() ([32]byte, error) {
	var d decoder
	if err := d.parse(r.Header); err != nil {
		return [32]byte{}, err
	}
	return [32]byte(d.digest()), nil
}

// Digest returns SHA-256 over salt and payload: what the header of an event
// with these data and meta carries.
func Digest(salt [16]byte, data, meta []byte) [32]byte {
	b := make([]byte, 0, saltSize+4+len(data)+len(meta))
	return sum256(appendPayload(append(b, salt[:]...), data, meta))
}

func appendPayload(dst, data, meta []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(data)))
	return append(append(dst, data...), meta...)
}

// splitPayload returns data and meta of a payload, sharing its memory; nil for
// what is empty.
func splitPayload(b []byte) (data, meta []byte, err error) {
	if len(b) < 4 {
		return nil, nil, formatError("payload is cut short")
	}
	n := binary.LittleEndian.Uint32(b)
	b = b[4:]
	if uint64(n) > uint64(len(b)) {
		return nil, nil, formatError("data are longer than the payload")
	}
	if n > 0 {
		data = b[:n:n]
	}
	if int(n) < len(b) {
		meta = b[n:len(b):len(b)]
	}
	return data, meta, nil
}

// appendRecord appends e's record to dst and returns its Merkle leaf.
func appendRecord(dst []byte, e *event.Event, salt [16]byte) (record []byte, leaf [32]byte, err error) {
	start := len(dst)
	payload := 4 + uint64(len(e.Data)) + uint64(len(e.Meta))
	if payload > maxPayload {
		return dst, leaf, formatError("payload is too large")
	}
	dst = append(dst, make([]byte, leadSize)...)
	dst, digestAt := appendHeader(dst, e)
	end := len(dst)
	header := end - start - leadSize
	if header > maxHeader {
		return dst[:start], leaf, formatError("header is too large")
	}
	dst = append(dst, 0, 0, 0, 0)
	dst = append(dst, salt[:]...)
	dst = appendPayload(dst, e.Data, e.Meta)

	salted := dst[end+4:]
	binary.LittleEndian.PutUint32(dst[end:], crc(0, salted))
	digest := sum256(salted)
	copy(dst[digestAt:], digest[:])
	// The byte before the header is still zero, as a leaf wants it.
	leaf = sum256(dst[start+leadSize-1 : end])
	binary.LittleEndian.PutUint32(dst[start:], uint32(header))
	binary.LittleEndian.PutUint32(dst[start+4:], uint32(payload))
	binary.LittleEndian.PutUint32(dst[start+8:], headCRC(dst[start:end]))
	return dst, leaf, nil
}

// headCRC returns the CRC over the two lengths and the header; head holds lead
// and header.
func headCRC(head []byte) uint32 { return crc(crc(0, head[:8]), head[leadSize:]) }

// rawRecord is a record whose CRCs match. It shares the memory it was read to.
type rawRecord struct {
	head   []byte // lead and header
	salted []byte // salt and payload
}

func (r *rawRecord) header() []byte  { return r.head[leadSize:] }
func (r *rawRecord) payload() []byte { return r.salted[saltSize:] }

// recordSizes returns what a record's lead says: the sizes of lead and header,
// and of the whole record. They are not checked by the CRC yet.
func recordSizes(lead []byte) (head, record int, err error) {
	if len(lead) < leadSize {
		return 0, 0, formatError("record is cut short")
	}
	header, payload := binary.LittleEndian.Uint32(lead), binary.LittleEndian.Uint32(lead[4:])
	if header > maxHeader || payload > maxPayload || payload < 4 {
		return 0, 0, formatError("lengths of the record make no sense")
	}
	return leadSize + int(header), recordOverhead + int(header) + int(payload), nil
}

// checkHead checks the CRC of lead and header at the beginning of b.
func checkHead(b []byte) (head []byte, record int, err error) {
	n, record, err := recordSizes(b)
	if err != nil {
		return nil, 0, err
	}
	if len(b) < n {
		return nil, 0, formatError("record is cut short")
	}
	head = b[:n:n]
	if binary.LittleEndian.Uint32(head[8:]) != headCRC(head) {
		return nil, 0, formatError("CRC of the record's header does not match")
	}
	return head, record, nil
}

// decodeRecord finds the record at the beginning of b and checks its CRCs.
func decodeRecord(b []byte) (rawRecord, error) {
	head, record, err := checkHead(b)
	if err != nil {
		return rawRecord{}, err
	}
	if len(b) < record {
		return rawRecord{}, formatError("record is cut short")
	}
	n := len(head)
	salted := b[n+4 : record : record]
	if binary.LittleEndian.Uint32(b[n:]) != crc(0, salted) {
		return rawRecord{}, formatError("CRC of the payload does not match")
	}
	return rawRecord{head: head, salted: salted}, nil
}

// record decodes r into e and checks the digest. Data and Meta share r's
// memory.
func (d *decoder) record(r rawRecord, e *event.Event) error {
	if err := d.event(r.header(), e); err != nil {
		return err
	}
	if err := d.checkDigest(r); err != nil {
		return err
	}
	var err error
	e.Data, e.Meta, err = splitPayload(r.payload())
	return err
}

// checkDigest compares the digest of the header parsed last with r's payload.
func (d *decoder) checkDigest(r rawRecord) error {
	if sum := sum256(r.salted); !bytes.Equal(sum[:], d.digest()) {
		return formatError("payload does not match its digest")
	}
	return nil
}

// place reads position and time alone: the first and the third field.
func place(header []byte) (position uint64, time int64, err error) {
	bad := formatError("header: position or time is missing")
	position, n := field(header, fieldPosition)
	if n == 0 || position == 0 {
		return 0, 0, bad
	}
	header = header[n:]
	if _, n = field(header, fieldVersion); n == 0 {
		return 0, 0, bad
	}
	header = header[n:]
	if len(header) < 9 || header[0] != fieldTime<<3|wireFixed64 {
		return 0, 0, bad
	}
	return position, int64(binary.LittleEndian.Uint64(header[1:])), nil
}

// field reads the varint field with the given number at the beginning of b; n
// is 0 if another one stands there.
func field(b []byte, number byte) (v uint64, n int) {
	if len(b) == 0 || b[0] != number<<3|wireVarint {
		return 0, 0
	}
	if v, n = uvarint(b[1:]); n == 0 {
		return 0, 0
	}
	return v, 1 + n
}
