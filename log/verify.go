package eventlog

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// VerifySegment reads a sealed segment wholly and checks everything in it:
// header, footer, every CRC, every digest, offsets and hash. Damage is a
// *CorruptError. The file's name must be that of a segment.
func VerifySegment(fs vfs.FS, path string) (SegmentInfo, error) {
	base, ok := parseSegmentName(fs.PathBase(path))
	if !ok {
		return SegmentInfo{}, &CorruptError{File: path, Reason: "not the name of a segment"}
	}
	f, err := openFile(fs, path, base)
	if err != nil {
		return SegmentInfo{}, err
	}
	defer f.Close()
	t, err := f.verify()
	if err != nil {
		return SegmentInfo{}, err
	}
	return sealedSegment(&t, f.size).info(), nil
}

// verify checks all of a sealed segment and returns its trailer.
func (f *file) verify() (trailer, error) {
	t, err := f.trailer()
	if err != nil {
		return t, err
	}
	table, err := f.table(&t)
	if err != nil {
		return t, err
	}
	return t, verifyFrames(f, &t, table)
}

// verifyFrames compares all frames of f with what its footer says of them.
func verifyFrames(f *file, t *trailer, table []byte) error {
	sum := sha256.New()
	b := f.header.encode()
	sum.Write(b[:])
	s := segment{base: t.first, last: t.first - 1, end: segmentHeaderSize}
	k := f.frames(t.footer)
	defer k.release()
	k.hash = sum
	var d decoder
	for k.off < k.limit {
		offsets, err := verifyFrame(k, &d, &s)
		if err != nil {
			return err
		}
		for n, offset := range offsets {
			i := (k.frame.first + uint64(n) - t.first) * tableEntry
			if i >= uint64(len(table)) || int64(binary.LittleEndian.Uint32(table[i:])) != k.start+int64(offset) {
				return k.damage(t.footer, "offsets of the footer do not match the records")
			}
		}
		s.add(&k.frame, offsets)
	}
	want := s.trailer(sum)
	want.tableCRC = t.tableCRC
	if want != *t {
		return k.damage(t.footer, "footer does not match the frames")
	}
	return nil
}

// verifyFrame checks the next frame, which must follow the last one of s, and
// returns where its records stand in it.
func verifyFrame(k *walker, d *decoder, s *segment) ([]uint32, error) {
	if err := k.enter(); err != nil {
		return nil, err
	}
	if k.frame.first != s.last+1 || k.frame.time < s.lastTime && s.last >= s.base {
		return nil, k.damage(k.start, "frame does not follow the one before")
	}
	var offsets []uint32
	for position := k.frame.first; k.left > 0; position++ {
		at := k.off
		r, err := k.record()
		if err != nil {
			return nil, err
		}
		if err := verifyRecord(d, r, position, k.frame.time); err != nil {
			return nil, corrupt(k.path, at, err)
		}
		offsets = append(offsets, uint32(at-k.start))
	}
	return offsets, nil
}

// VerifyPrefix checks the first size bytes of a segment as VerifySegment does a
// sealed one: they must be its header and whole frames. Damage is a
// *CorruptError.
func VerifyPrefix(fs vfs.FS, path string, size int64) error {
	base, ok := parseSegmentName(fs.PathBase(path))
	if !ok {
		return &CorruptError{File: path, Reason: "not the name of a segment"}
	}
	f, err := openFile(fs, path, base)
	if err != nil {
		return err
	}
	defer f.Close()
	if size > f.size {
		return &CorruptError{File: path, Offset: f.size, Reason: "the file ends too early"}
	}
	s := segment{base: base, last: base - 1, end: segmentHeaderSize}
	k := f.frames(size)
	defer k.release()
	var d decoder
	for k.off < k.limit {
		offsets, err := verifyFrame(k, &d, &s)
		if err != nil {
			return err
		}
		s.add(&k.frame, offsets)
	}
	return nil
}

func verifyRecord(d *decoder, r rawRecord, position uint64, time int64) error {
	if err := d.parse(r.header()); err != nil {
		return err
	}
	if d.number[fieldPosition] != position || int64(d.number[fieldTime]) != time {
		return formatError("record is not the next one of its frame")
	}
	if _, _, err := splitPayload(r.payload()); err != nil {
		return err
	}
	return d.checkDigest(r)
}
