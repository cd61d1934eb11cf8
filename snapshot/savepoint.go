package snapshot

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// SAVEPOINT, 32 bytes, little-endian:
//
//	offset  0        8         12      20         28        32
//	        +--------+---------+-------+----------+---------+
//	        | magic  | version | index | position | CRC-32C |
//	        | 8 byte | u32     | u64   | u64      | u32     |
//	        +--------+---------+-------+----------+---------+
//
// The CRC covers the 28 bytes before it.
const (
	savepointName    = "SAVEPOINT"
	savepointMagic   = "cairnsav"
	savepointVersion = 1
	savepointSize    = 32
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// EncodeSavepoint returns the contents of a SAVEPOINT file: the data is durable
// up to Raft index A and position P.
func EncodeSavepoint(index, position uint64) []byte {
	b := make([]byte, 0, savepointSize)
	b = append(b, savepointMagic...)
	b = binary.LittleEndian.AppendUint32(b, savepointVersion)
	b = binary.LittleEndian.AppendUint64(b, index)
	b = binary.LittleEndian.AppendUint64(b, position)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// DecodeSavepoint reads what EncodeSavepoint wrote, and nothing else.
func DecodeSavepoint(b []byte) (index, position uint64, err error) {
	corrupt := func(format string, args ...any) (uint64, uint64, error) {
		return 0, 0, &CorruptError{savepointName, fmt.Sprintf(format, args...)}
	}
	switch {
	case len(b) != savepointSize:
		return corrupt("it has %d bytes, not %d", len(b), savepointSize)
	case !bytes.HasPrefix(b, []byte(savepointMagic)):
		return corrupt("it does not begin with %q", savepointMagic)
	case crc32.Checksum(b[:28], castagnoli) != binary.LittleEndian.Uint32(b[28:]):
		return corrupt("its checksum is wrong")
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != savepointVersion {
		return corrupt("its format %d is unknown to this binary, which knows %d", v, savepointVersion)
	}
	return binary.LittleEndian.Uint64(b[12:]), binary.LittleEndian.Uint64(b[20:]), nil
}

// WriteSavepoint replaces the SAVEPOINT of a generation, durably and at once.
func WriteSavepoint(fs vfs.FS, genDir string, index, position uint64) error {
	if err := ReplaceFile(fs, fs.PathJoin(genDir, savepointName), EncodeSavepoint(index, position)); err != nil {
		return fmt.Errorf("savepoint: %w", err)
	}
	return nil
}

// ReadSavepoint reads the SAVEPOINT of a generation. Where there is none yet,
// the error is one of which errors.Is(err, os.ErrNotExist) is true.
func ReadSavepoint(fs vfs.FS, genDir string) (index, position uint64, err error) {
	path := fs.PathJoin(genDir, savepointName)
	b, err := readFile(fs, path, savepointSize)
	if err != nil {
		return 0, 0, err
	}
	index, position, err = DecodeSavepoint(b)
	return index, position, inFile(err, path)
}
