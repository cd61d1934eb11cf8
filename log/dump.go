package eventlog

import (
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"

	"cairn/event"
)

// Piece is a part of a segment file, as Dump comes across it: one of the
// pointers is set.
type Piece struct {
	Offset int64 // where it begins
	Size   int64 // in bytes; of a frame with its records, of damage up to where reading goes on

	Header *SegmentHeader
	Frame  *Frame // its records follow
	Record *DumpedRecord
	Footer *SegmentInfo
	Damage error
}

// SegmentHeader is what a segment's first bytes say.
type SegmentHeader struct {
	LogID       LogID
	SegmentSize int64
	Base        uint64
}

// DumpedRecord is a record whose header is intact.
type DumpedRecord struct {
	Event   event.Event // without Data and Meta if the payload is damaged
	Digest  [32]byte    // that the header says
	Salt    [16]byte
	Payload error // what is wrong with the payload or the digest, or nil
}

// Dump goes through a segment file and calls visit with each part, in order.
// Damage is a part too: it goes on with the next record if only a payload is
// damaged, else with the next bytes that are a whole frame of later positions,
// and ends if there are none. Where it has to search, data that a client chose
// to look like a frame are taken for one. An error is one of reading, or that of
// visit, which must not be a *CorruptError. Data, Meta and Tags of an event are good until visit returns.
func Dump(fs vfs.FS, path string, visit func(Piece) error) error {
	f, err := fs.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("stat %s: %w", path, err)
	}
	d := dumper{visit: visit, size: info.Size(), footer: -1}
	d.walker = walker{window: window{file: f}, path: path, limit: d.size}
	defer d.walker.release()
	if err := d.header(f); err != nil {
		return err
	}
	for d.off < d.size {
		if err := d.step(); err != nil {
			return err
		}
	}
	return nil
}

// dumper is a Dump under way.
type dumper struct {
	walker
	visit   func(Piece) error
	size    int64
	footer  int64 // where the footer begins, if the file ends with a trailer; else -1
	trailer trailer
	next    uint64 // lowest position that a frame found by searching may begin with
	decoder decoder
}

// header reads the segment header, and the trailer if there is one.
func (d *dumper) header(f io.ReaderAt) error {
	var b [segmentHeaderSize]byte
	n := min(d.size, segmentHeaderSize)
	if err := readFull(f, b[:n], 0); err != nil {
		return err
	}
	d.off = n
	h, err := decodeSegmentHeader(b[:n])
	p := Piece{Size: n, Header: &SegmentHeader{LogID: h.logID, SegmentSize: h.segmentSize, Base: h.base}}
	if err != nil {
		p = Piece{Size: n, Damage: corrupt(d.path, 0, err)}
	}
	d.next = h.base
	if d.size >= segmentHeaderSize+trailerSize {
		var b [trailerSize]byte
		if err := readFull(f, b[:], d.size-trailerSize); err != nil {
			return err
		}
		if t, err := decodeTrailer(b[:], d.size); err == nil {
			d.trailer, d.footer = t, t.footer
		}
	}
	return d.visit(p)
}

// step goes through what stands at d.off: the footer, a frame or damage.
func (d *dumper) step() error {
	if d.off == d.footer {
		s := sealedSegment(&d.trailer, d.size).info()
		s.Name = SegmentName(s.Base)
		p := Piece{Offset: d.off, Size: d.size - d.off, Footer: &s}
		d.off = d.size
		return d.visit(p)
	}
	start := d.off
	if err := d.enter(); err != nil {
		return d.damaged(start, err)
	}
	h := d.frame
	err := d.visit(Piece{Offset: start, Size: h.length, Frame: &Frame{Index: h.index, Term: h.term, First: h.first, Last: h.last(), Time: h.time}})
	if err != nil {
		return err
	}
	d.next = h.last() + 1
	for position := h.first; d.left > 0; position++ {
		at := d.off
		if err := d.one(position); err != nil {
			if !isCorrupt(err) {
				return err
			}
			return d.damaged(at, err)
		}
	}
	// Payloads are not part of it: they may be damaged, and it right.
	if d.off != start+h.length || frameCRC(d.records, d.raw[:]) != h.crc {
		return d.visit(Piece{Offset: start, Damage: d.damage(start, "CRC or length of the frame does not match its records")})
	}
	return nil
}

// one goes through the record at d.off. Its error is damage of lead or header,
// after which nobody knows where the next one begins.
func (d *dumper) one(position uint64) error {
	at := d.off
	b, err := d.at(at, leadSize, d.limit)
	if err != nil {
		return corrupt(d.path, at, err)
	}
	_, size, err := recordSizes(b)
	if err == nil {
		b, err = d.at(at, size, d.limit)
	}
	var head []byte
	if err == nil {
		head, _, err = checkHead(b)
	}
	var r DumpedRecord
	if err == nil {
		err = d.decoder.event(head[leadSize:], &r.Event)
	}
	if err != nil {
		return corrupt(d.path, at, err)
	}
	d.records = crc(d.records, head)
	d.left--
	d.off += int64(size)
	r.Digest, r.Salt = [32]byte(d.decoder.digest()), [16]byte(b[len(head)+4:])
	raw, err := decodeRecord(b)
	if err == nil {
		err = d.decoder.record(raw, &r.Event)
	}
	if err == nil && r.Event.Position != position {
		err = formatError(fmt.Sprintf("record of position %d where that of %d should be", r.Event.Position, position))
	}
	r.Payload = corrupt(d.path, at, err)
	return d.visit(Piece{Offset: at, Size: int64(size), Record: &r})
}

// damaged tells of damage at an offset, and goes on behind it.
func (d *dumper) damaged(at int64, cause error) error {
	if !isCorrupt(cause) {
		return cause
	}
	resume, err := d.search(at + 1)
	if err != nil {
		return err
	}
	d.seek(resume)
	return d.visit(Piece{Offset: at, Size: resume - at, Damage: cause})
}

// search returns where the next whole frame or the footer begins, the end of
// the file if there is neither.
func (d *dumper) search(from int64) (int64, error) {
	end := d.size
	if d.footer >= from {
		end = d.footer
	}
	probe := walker{window: window{file: d.file}, path: d.path, limit: end}
	defer probe.release()
	for off := from; off+frameHeaderSize <= end; off++ {
		b, err := d.at(off, frameHeaderSize, end)
		if err != nil {
			return 0, err
		}
		if b[3]&0x80 == 0 {
			continue
		}
		h, err := decodeFrameHeader(b)
		if err != nil || h.first < d.next || h.length > end-off {
			continue
		}
		probe.seek(off)
		switch _, err := probe.whole(h.first, h.time, nil); {
		case err == nil:
			return off, nil
		case !isCorrupt(err):
			return 0, err
		}
	}
	return end, nil
}
