package httpapi

import (
	"strconv"

	"cairn/event"
)

// framer writes what a follower sends: server-sent events, or lines of NDJSON,
// in which what is no event is an object with one member, caught_up or
// heartbeat.
type framer struct {
	sse   bool
	logID string
}

// event appends an event.
func (f framer) event(dst []byte, a answered) []byte {
	return f.end(event.AppendJSON(f.begin(dst, a.Position), a.Event))
}

// encoded appends an event whose JSON is there already.
func (f framer) encoded(dst []byte, position uint64, json []byte) []byte {
	return f.end(append(f.begin(dst, position), json...))
}

func (f framer) begin(dst []byte, position uint64) []byte {
	if !f.sse {
		return dst
	}
	return append(f.id(dst, position), "data: "...)
}

// id appends the line from which a client that lost its connection resumes.
func (f framer) id(dst []byte, position uint64) []byte {
	dst = strconv.AppendUint(append(dst, "id: "...), position, 10)
	return append(append(append(dst, '@'), f.logID...), '\n')
}

func (f framer) end(dst []byte) []byte {
	dst = append(dst, '\n')
	if f.sse {
		dst = append(dst, '\n')
	}
	return dst
}

// caughtUp appends the sign that all history up to a position was sent.
func (f framer) caughtUp(dst []byte, position uint64) []byte {
	if f.sse {
		dst = append(f.id(append(dst, "event: caught_up\n"...), position), `data: {"position":`...)
		return append(strconv.AppendUint(dst, position, 10), "}\n\n"...)
	}
	return append(strconv.AppendUint(append(dst, `{"caught_up":{"position":`...), position, 10), "}}\n"...)
}

// beat appends the sign that everything up to a position was looked at.
func (f framer) beat(dst []byte, position uint64) []byte {
	if f.sse {
		return append(f.id(dst, position), '\n')
	}
	return append(strconv.AppendUint(append(dst, `{"heartbeat":{"position":`...), position, 10), "}}\n"...)
}
