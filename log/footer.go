package eventlog

import (
	"encoding/binary"
	"fmt"
)

// Footer of a sealed segment: a table of offsets, then a trailer of fixed size
// at the very end of the file.
//
//	+-----------------------------------+---------+
//	| offset of each record, u32 each   | trailer |
//	+-----------------------------------+---------+
//
// Trailer, 112 bytes:
//
//	0       8      16      24     32      40      48      80       88      92        96     100   104     112
//	+-------+------+-------+------+-------+-------+-------+--------+-------+---------+------+-----+-------+
//	| first | last | first | last | first | last  | hash  | offset | table | version | zero | CRC | magic |
//	| pos.  | pos. | time  | time | index | index |       | of the | CRC   |         |      |     |       |
//	|       |      |       |      |       |       |       | footer |       |         |      |     |       |
//	| u64   | u64  | i64   | i64  | u64   | u64   | 32    | u64    | u32   | u32     | u32  | u32 | 8     |
//	+-------+------+-------+------+-------+-------+-------+--------+-------+---------+------+-----+-------+
//	index: Raft index of a frame. hash: SHA-256 over the segment header, and of
//	each frame its header and its records' first 12 bytes and headers, in
//	order. CRC: over bytes 0 to 100.
//
// The table has a CRC of its own, so that opening a log reads the trailers
// alone. An entry that is wrong leads to a record that says another position.
const (
	trailerMagic   = "cairnend"
	trailerVersion = 1
	trailerSize    = 112
	tableEntry     = 4
)

type trailer struct {
	first, last           uint64 // positions
	firstTime, lastTime   int64
	firstIndex, lastIndex uint64
	hash                  [32]byte
	footer                int64 // where the footer begins and the frames end
	tableCRC              uint32
}

// appendFooter appends the footer of a segment to dst; t.tableCRC is not
// looked at.
func appendFooter(dst []byte, t *trailer, offsets []uint32) []byte {
	start := len(dst)
	for _, o := range offsets {
		dst = binary.LittleEndian.AppendUint32(dst, o)
	}
	table := crc(0, dst[start:])
	start = len(dst)
	dst = binary.LittleEndian.AppendUint64(dst, t.first)
	dst = binary.LittleEndian.AppendUint64(dst, t.last)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(t.firstTime))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(t.lastTime))
	dst = binary.LittleEndian.AppendUint64(dst, t.firstIndex)
	dst = binary.LittleEndian.AppendUint64(dst, t.lastIndex)
	dst = append(dst, t.hash[:]...)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(t.footer))
	dst = binary.LittleEndian.AppendUint32(dst, table)
	dst = binary.LittleEndian.AppendUint32(dst, trailerVersion)
	dst = binary.LittleEndian.AppendUint32(dst, 0)
	dst = binary.LittleEndian.AppendUint32(dst, crc(0, dst[start:]))
	return append(dst, trailerMagic...)
}

// decodeTrailer reads the last trailerSize bytes of a file of the given size.
func decodeTrailer(b []byte, size int64) (trailer, error) {
	var t trailer
	switch {
	case len(b) != trailerSize:
		return t, formatError("footer is cut short")
	case string(b[104:]) != trailerMagic:
		return t, formatError("no footer")
	case binary.LittleEndian.Uint32(b[100:]) != crc(0, b[:100]):
		return t, formatError("CRC of the footer does not match")
	}
	if v := binary.LittleEndian.Uint32(b[92:]); v != trailerVersion {
		return t, fmt.Errorf("footer version %d: %w", v, ErrFormat)
	}
	t = trailer{
		first:      binary.LittleEndian.Uint64(b[0:]),
		last:       binary.LittleEndian.Uint64(b[8:]),
		firstTime:  int64(binary.LittleEndian.Uint64(b[16:])),
		lastTime:   int64(binary.LittleEndian.Uint64(b[24:])),
		firstIndex: binary.LittleEndian.Uint64(b[32:]),
		lastIndex:  binary.LittleEndian.Uint64(b[40:]),
		hash:       [32]byte(b[48:80]),
		footer:     int64(binary.LittleEndian.Uint64(b[80:])),
		tableCRC:   binary.LittleEndian.Uint32(b[88:]),
	}
	table := size - trailerSize - t.footer
	if t.first == 0 || t.last < t.first || t.firstTime > t.lastTime || !isZero(b[96:100]) ||
		t.footer < segmentHeaderSize || table <= 0 || table%tableEntry != 0 ||
		uint64(table/tableEntry) != t.last-t.first+1 {
		return t, formatError("footer makes no sense")
	}
	return t, nil
}
