package eventlog

import (
	"encoding/binary"

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
