package projection

import (
	"encoding/binary"
	"errors"
)

// Row is what is stored of a row.
type Row struct {
	State  []byte   // canonical JSON; nil = no event was folded into it yet
	Events uint64   // folded into it
	Last   uint64   // position of the last one
	Failed *Failure // nil while it is sound; else later events pass it by
	Kept   uint64   // Events when its state was last kept
	Since  uint64   // bytes of events since then
}

// Failure is why a row stands still: an event that could not be folded.
type Failure struct {
	Position uint64
	Reason   string
}

// A row is stored as
//
//	┌─────────┬───────┬────────┬──────┬──────┬───────┬─ if failed ────────────────┬─ if there ─┐
//	│ form: 1 │ flags │ events │ last │ kept │ since │ position │ length │ reason │ state      │
//	└─────────┴───────┴────────┴──────┴──────┴───────┴──────────┴────────┴────────┴────────────┘
//
// Form and flags are a byte each, all numbers uvarints; the state takes the
// rest. There is no checksum: where rows are stored has its own.
const (
	rowForm   = 1
	rowFailed = 1 << 0
	rowState  = 1 << 1
)

// ErrRow says that bytes are no row of a form that this program knows.
var ErrRow = errors.New("malformed row")

// Encode appends the stored form of r to dst.
func (r *Row) Encode(dst []byte) []byte {
	var flags byte
	if r.Failed != nil {
		flags |= rowFailed
	}
	if r.State != nil {
		flags |= rowState
	}
	dst = append(dst, rowForm, flags)
	for _, n := range [...]uint64{r.Events, r.Last, r.Kept, r.Since} {
		dst = binary.AppendUvarint(dst, n)
	}
	if r.Failed != nil {
		dst = binary.AppendUvarint(dst, r.Failed.Position)
		dst = binary.AppendUvarint(dst, uint64(len(r.Failed.Reason)))
		dst = append(dst, r.Failed.Reason...)
	}
	return append(dst, r.State...)
}

// DecodeRow reads the stored form of a row, whose State is part of b. The error
// is ErrRow.
func DecodeRow(b []byte) (Row, error) {
	if len(b) < 2 || b[0] != rowForm || b[1]&^(rowFailed|rowState) != 0 {
		return Row{}, ErrRow
	}
	flags, b := b[1], b[2:]
	var r Row
	for _, n := range [...]*uint64{&r.Events, &r.Last, &r.Kept, &r.Since} {
		if !takeUvarint(&b, n) {
			return Row{}, ErrRow
		}
	}
	if flags&rowFailed != 0 {
		var size uint64
		r.Failed = &Failure{}
		if !takeUvarint(&b, &r.Failed.Position) || !takeUvarint(&b, &size) || size > uint64(len(b)) {
			return Row{}, ErrRow
		}
		r.Failed.Reason, b = string(b[:size]), b[size:]
	}
	if flags&rowState != 0 {
		r.State = b[:len(b):len(b)]
	} else if len(b) > 0 {
		return Row{}, ErrRow
	}
	return r, nil
}

// takeUvarint takes a number off b, which must be in its shortest form.
func takeUvarint(b *[]byte, to *uint64) bool {
	n, size := binary.Uvarint(*b)
	if size <= 0 || size > 1 && (*b)[size-1] == 0 {
		return false
	}
	*to, *b = n, (*b)[size:]
	return true
}
