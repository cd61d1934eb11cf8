package eventlog

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
)

// A segment file. Integers are little-endian, CRCs are CRC-32C.
//
//	+----------------+-------+-------+-----+-------+------------------------+
//	| segment header | frame | frame | ... | frame | footer (when sealed)   |
//	+----------------+-------+-------+-----+-------+------------------------+
//
// Segment header, 64 bytes. Every file of a log has the same but for base.
//
//	0        8         12       14       16       32             40     48     60    64
//	+--------+---------+--------+--------+--------+--------------+------+------+-----+
//	| magic  | version | codec  | key id | log id | segment size | base | zero | CRC |
//	| 8      | u32     | u16: 0 | u16: 0 | 16     | u64          | u64  | 12   | u32 |
//	+--------+---------+--------+--------+--------+--------------+------+------+-----+
//	base: position of the first event. CRC: over bytes 0 to 60.
//
// Frame: what one Raft entry added. 48 bytes of header, then its records.
//
//	0              4     8       16     24      32     40      44     48
//	+--------------+-----+-------+------+-------+------+-------+------+--------+-----+
//	| bit 31: one, | CRC | Raft  | Raft | first | time | count | zero | record | ... |
//	| length       |     | index | term | pos.  |      |       |      |        |     |
//	| u32          | u32 | u64   | u64  | u64   | i64  | u32   | u32  |        |     |
//	+--------------+-----+-------+------+-------+------+-------+------+--------+-----+
//	length: of the whole frame. time: of every event in it.
//	CRC: over each record's first 12 bytes and header, in order, and then over
//	the frame header without the CRC itself. Salts and payloads are left out,
//	so that they can be erased in place.
//	Bit 31 tells a frame from a record, whose first u32 has it clear: a reader
//	that starts inside a frame sees where the next one begins.
//
// Record: one event. It can be read and checked without the rest of its frame.
//
//	0          4           8          12
//	+----------+-----------+----------+--------+-------------+------+---------+
//	| header   | payload   | header   | header | payload CRC | salt | payload |
//	| length   | length    | CRC      |        |             |      |         |
//	| u32      | u32       | u32      |        | u32         | 16   |         |
//	+----------+-----------+----------+--------+-------------+------+---------+
//	header: record.go. Header CRC: over both lengths and the header.
//	payload: u32 length of data, data, meta. Payload CRC: over salt and payload.
//	The header holds the digest, SHA-256 over salt and payload.
//
// Footer: footer.go.
const (
	segmentMagic   = "cairnseg"
	segmentVersion = 1

	segmentHeaderSize = 64
	frameHeaderSize   = 48
	leadSize          = 12 // of a record: two lengths and the header CRC
	saltSize          = 16
	digestSize        = 32
	recordOverhead    = leadSize + 4 + saltSize // what a record needs beside header and payload

	frameBit = 1 << 31

	// Limits of the format. Those of package event are far below.
	maxHeader  = 1 << 20
	maxPayload = 1 << 26
	maxFrame   = 1 << 30
)

const (
	// MinSegmentSize and MaxSegmentSize bound the segment size a log may be
	// created with, in bytes.
	MinSegmentSize = 256
	MaxSegmentSize = 1 << 30
)

// LogID names one history.
type LogID [16]byte

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func crc(sum uint32, b []byte) uint32 { return crc32.Update(sum, castagnoli, b) }

const (
	segmentSuffix = ".seg"
	tempSuffix    = ".tmp"
	baseDigits    = 20
)

// SegmentName returns the name of the file whose first event stands at base.
func SegmentName(base uint64) string {
	s := strconv.FormatUint(base, 10)
	return strings.Repeat("0", baseDigits-len(s)) + s + segmentSuffix
}

// parseSegmentName reports the base that a file's name says, and whether it is
// the name of a segment.
func parseSegmentName(name string) (base uint64, ok bool) {
	digits, found := strings.CutSuffix(name, segmentSuffix)
	if !found || len(digits) != baseDigits {
		return 0, false
	}
	base, err := strconv.ParseUint(digits, 10, 64)
	return base, err == nil && base > 0 && SegmentName(base) == name
}

type segmentHeader struct {
	logID       LogID
	segmentSize int64
	base        uint64
}

func (h *segmentHeader) encode() [segmentHeaderSize]byte {
	var b [segmentHeaderSize]byte
	copy(b[0:], segmentMagic)
	binary.LittleEndian.PutUint32(b[8:], segmentVersion)
	copy(b[16:], h.logID[:])
	binary.LittleEndian.PutUint64(b[32:], uint64(h.segmentSize))
	binary.LittleEndian.PutUint64(b[40:], h.base)
	binary.LittleEndian.PutUint32(b[60:], crc(0, b[:60]))
	return b
}

func decodeSegmentHeader(b []byte) (segmentHeader, error) {
	var h segmentHeader
	switch {
	case len(b) < segmentHeaderSize:
		return h, formatError("segment header is cut short")
	case string(b[:8]) != segmentMagic:
		return h, formatError("not a segment")
	case binary.LittleEndian.Uint32(b[60:]) != crc(0, b[:60]):
		return h, formatError("CRC of the segment header does not match")
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != segmentVersion {
		return h, fmt.Errorf("segment version %d: %w", v, ErrFormat)
	}
	if c, k := binary.LittleEndian.Uint16(b[12:]), binary.LittleEndian.Uint16(b[14:]); c != 0 || k != 0 {
		return h, fmt.Errorf("codec %d, key %d: %w", c, k, ErrFormat)
	}
	copy(h.logID[:], b[16:])
	size := binary.LittleEndian.Uint64(b[32:])
	if size < MinSegmentSize || size > MaxSegmentSize {
		return h, formatError("segment size is out of bounds")
	}
	h.segmentSize = int64(size)
	if h.base = binary.LittleEndian.Uint64(b[40:]); h.base == 0 {
		return h, formatError("base position is zero")
	}
	if !isZero(b[48:60]) {
		return h, formatError("reserved bytes of the segment header are not zero")
	}
	return h, nil
}

type frameHeader struct {
	length int64 // of the whole frame
	crc    uint32
	index  uint64
	term   uint64
	first  uint64
	time   int64
	count  uint32
}

func (h *frameHeader) last() uint64 { return h.first + uint64(h.count) - 1 }

// putFrameHeader writes h to the first frameHeaderSize bytes of b. records is
// the CRC over the records' leads and headers; h.crc is not looked at.
func putFrameHeader(b []byte, h *frameHeader, records uint32) {
	binary.LittleEndian.PutUint32(b[0:], uint32(h.length)|frameBit)
	binary.LittleEndian.PutUint64(b[8:], h.index)
	binary.LittleEndian.PutUint64(b[16:], h.term)
	binary.LittleEndian.PutUint64(b[24:], h.first)
	binary.LittleEndian.PutUint64(b[32:], uint64(h.time))
	binary.LittleEndian.PutUint32(b[40:], h.count)
	binary.LittleEndian.PutUint32(b[44:], 0)
	binary.LittleEndian.PutUint32(b[4:], frameCRC(records, b))
}

// frameCRC continues the CRC over a frame's records with its header b.
func frameCRC(records uint32, b []byte) uint32 {
	return crc(crc(records, b[:4]), b[8:frameHeaderSize])
}

// decodeFrameHeader reads a frame header. What it says is not checked by a CRC
// before all records of the frame have been read.
func decodeFrameHeader(b []byte) (frameHeader, error) {
	var h frameHeader
	if len(b) < frameHeaderSize {
		return h, formatError("frame header is cut short")
	}
	length := binary.LittleEndian.Uint32(b)
	h = frameHeader{
		length: int64(length &^ frameBit),
		crc:    binary.LittleEndian.Uint32(b[4:]),
		index:  binary.LittleEndian.Uint64(b[8:]),
		term:   binary.LittleEndian.Uint64(b[16:]),
		first:  binary.LittleEndian.Uint64(b[24:]),
		time:   int64(binary.LittleEndian.Uint64(b[32:])),
		count:  binary.LittleEndian.Uint32(b[40:]),
	}
	switch {
	case length&frameBit == 0:
		return h, formatError("not a frame")
	case h.length > maxFrame,
		h.count == 0,
		int64(h.count) > (h.length-frameHeaderSize)/recordOverhead,
		h.first == 0,
		h.last() < h.first,
		!isZero(b[44:48]):
		return h, formatError("frame header makes no sense")
	}
	return h, nil
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
