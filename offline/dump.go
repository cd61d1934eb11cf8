package offline

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/uuid"

	"cairn/event"
	eventlog "cairn/log"
)

// Part is a part of a segment file: the file's header, a frame, a record, the
// footer, or damage. Which fields have a meaning depends on Kind.
type Part struct {
	Kind   PartKind `json:"part"`
	Offset int64    `json:"offset"`
	Size   int64    `json:"size"` // in bytes; of a frame with its records, of damage up to where reading goes on

	// A segment header, and again the footer.
	LogID       string `json:"log_id,omitempty"`
	SegmentSize int64  `json:"segment_size,omitempty"`
	Base        uint64 `json:"base,omitempty"`

	// A frame; of the footer positions and times too.
	Index    uint64 `json:"index,omitempty"`
	Term     uint64 `json:"term,omitempty"`
	First    uint64 `json:"first,omitempty"`
	Last     uint64 `json:"last,omitempty"`
	Time     string `json:"time,omitempty"` // of the footer that of the first event
	LastTime string `json:"last_time,omitempty"`
	Hash     string `json:"hash,omitempty"`

	// A record. The event is in the form in which it is read over HTTP.
	Event  *event.Event    `json:"-"`
	JSON   json.RawMessage `json:"event,omitempty"`
	Digest string          `json:"digest,omitempty"`
	Salt   string          `json:"salt,omitempty"`

	Damage string `json:"damage,omitempty"` // also of a record whose payload is damaged
}

// PartKind tells the parts of a segment apart.
type PartKind string

// The kinds of parts.
const (
	PartSegment PartKind = "segment"
	PartFrame   PartKind = "frame"
	PartRecord  PartKind = "record"
	PartFooter  PartKind = "footer"
	PartDamage  PartKind = "damage"
)

// Dump goes through one segment file, wherever it lies, and calls visit with
// each part in order; frames and records before position from are left out. It
// goes on after damage where that can be done (eventlog.Dump). It reports
// whether there was damage. What Event points to is good until visit returns.
func Dump(fs vfs.FS, path string, from uint64, visit func(*Part) error) (damaged bool, err error) {
	err = eventlog.Dump(fs, path, func(p eventlog.Piece) error {
		part := Part{Offset: p.Offset, Size: p.Size}
		switch {
		case p.Header != nil:
			part.Kind, part.LogID = PartSegment, uuid.UUID(p.Header.LogID).String()
			part.SegmentSize, part.Base = p.Header.SegmentSize, p.Header.Base
		case p.Frame != nil:
			if p.Frame.Last < from {
				return nil
			}
			part.Kind, part.Index, part.Term = PartFrame, p.Frame.Index, p.Frame.Term
			part.First, part.Last, part.Time = p.Frame.First, p.Frame.Last, text(p.Frame.Time)
		case p.Record != nil:
			damaged = damaged || p.Record.Payload != nil
			if p.Record.Event.Position < from {
				return nil
			}
			part.record(p.Record)
		case p.Footer != nil:
			part.Kind, part.Base, part.First, part.Last = PartFooter, p.Footer.Base, p.Footer.Base, p.Footer.Last
			part.Time, part.LastTime, part.Hash = text(p.Footer.FirstTime), text(p.Footer.LastTime), hex.EncodeToString(p.Footer.Hash[:])
		default:
			damaged = true
			part.Kind, part.Damage = PartDamage, reason(p.Damage)
		}
		return visit(&part)
	})
	return damaged, err
}

func (p *Part) record(r *eventlog.DumpedRecord) {
	e := r.Event
	if e.ContentType == "" && !json.Valid(e.Data) {
		e.Data = []byte("null") // it is damaged, or was never JSON
	}
	if len(e.Meta) > 0 && !json.Valid(e.Meta) {
		e.Meta = nil
	}
	p.Kind, p.Event, p.JSON = PartRecord, &r.Event, event.AppendJSON(nil, &e)
	p.Digest, p.Salt = hex.EncodeToString(r.Digest[:]), hex.EncodeToString(r.Salt[:])
	if r.Payload != nil {
		p.Damage = reason(r.Payload)
	}
}

// reason is what damage says beside the file and the offset, which stand with
// the part.
func reason(err error) string {
	var c *eventlog.CorruptError
	if errors.As(err, &c) {
		return c.Reason
	}
	return err.Error()
}

// text is a time for people and for programs.
func text(ns int64) string { return time.Unix(0, ns).UTC().Format(time.RFC3339Nano) }
