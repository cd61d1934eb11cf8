package event

import (
	"encoding/binary"
	"fmt"
)

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

func appendBytes(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

func appendTexts(dst []byte, texts []string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(texts)))
	for _, s := range texts {
		dst = appendText(dst, s)
	}
	return dst
}

// reader takes values off b one by one. After the first that is not there it
// is bad and yields zero values, so that a decoder checks once, at its end.
type reader struct {
	b   []byte
	s   string // b as a string, for texts; "" makes a new string for each
	at  int
	bad bool
}

// end reports what a decoder of a whole value needs: no fault, nothing left.
func (r *reader) end(what string) error {
	if r.bad {
		return fmt.Errorf("%s, near byte %d: %w", what, r.at, ErrMalformed)
	}
	if r.at != len(r.b) {
		return fmt.Errorf("%s, %d bytes after its end: %w", what, len(r.b)-r.at, ErrMalformed)
	}
	return nil
}

func (r *reader) byte() byte {
	if r.bad || r.at >= len(r.b) {
		r.bad = true
		return 0
	}
	r.at++
	return r.b[r.at-1]
}

func (r *reader) fixed64() uint64 {
	if r.bad || len(r.b)-r.at < 8 {
		r.bad = true
		return 0
	}
	r.at += 8
	return binary.LittleEndian.Uint64(r.b[r.at-8:])
}

func (r *reader) uvarint() uint64 {
	if r.bad {
		return 0
	}
	v, n := binary.Uvarint(r.b[r.at:])
	if n <= 0 || n > 1 && r.b[r.at+n-1] == 0 { // cut short, too long, or longer than needed
		r.bad = true
		return 0
	}
	r.at += n
	return v
}

// count reads how many values follow, each of at least size bytes.
func (r *reader) count(size int) int {
	n := r.uvarint()
	if r.bad || n > uint64(len(r.b)-r.at)/uint64(size) {
		r.bad = true
		return 0
	}
	return int(n)
}

func (r *reader) bytes() []byte {
	n := r.count(1)
	r.at += n
	return r.b[r.at-n : r.at : r.at]
}

func (r *reader) text() string {
	n := r.count(1)
	r.at += n
	if r.s != "" {
		return r.s[r.at-n : r.at]
	}
	return string(r.b[r.at-n : r.at])
}

func (r *reader) texts() []string {
	n := r.count(1)
	if n == 0 {
		return nil
	}
	texts := make([]string, n)
	for i := range texts {
		texts[i] = r.text()
	}
	return texts
}
