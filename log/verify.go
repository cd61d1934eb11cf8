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
	t, err := f.trailer()
	if err != nil {
		return SegmentInfo{}, err
	}
	table, err := f.table(&t)
	if err != nil {
		return SegmentInfo{}, err
	}
	if err := verifyFrames(f, &t, table); err != nil {
		return SegmentInfo{}, err
	}
	return sealedSegment(&t, f.size).info(), nil
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
		if err := k.enter(); err != nil {
			return err
		}
		if k.frame.first != s.last+1 || k.frame.time < s.lastTime && s.last >= s.base {
			return k.damage(k.start, "frame does not follow the one before")
		}
		var offsets []uint32
		for position := k.frame.first; k.left > 0; position++ {
			at := k.off
			r, err := k.record()
			if err != nil {
				return err
			}
			if err := verifyRecord(&d, r, position, k.frame.time); err != nil {
				return corrupt(f.path, at, err)
			}
			if i := (position - t.first) * tableEntry; i >= uint64(len(table)) || int64(binary.LittleEndian.Uint32(table[i:])) != at {
				return k.damage(t.footer, "offsets of the footer do not match the records")
			}
			offsets = append(offsets, uint32(at-k.start))
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
