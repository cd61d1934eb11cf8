package client

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"

	"cairn/event"
)

// ReactionID returns the id for the n-th event, from 0, that the reaction name
// appends in answer to e. It is always the same for the same answer, so that a
// program that crashed and does not know whether it has answered answers
// again: the append is then a repetition, which changes nothing, or is refused
// with an error for which IsIDReused holds if it differs from the first.
//
// It is made of e's stream and id, which say which event it is also in a log
// restored from a backup, where positions may mean other events: base64url of
// the SHA-256 of stream, id and name, each led by its length in 8 bytes big
// endian, and n in 8 bytes. Ids are unique in a stream, so answer e in one and
// the same stream each time.
func ReactionID(e *event.Event, name string, n int) string {
	var b []byte
	for _, s := range []string{e.Stream, e.ID, name} {
		b = binary.BigEndian.AppendUint64(b, uint64(len(s)))
		b = append(b, s...)
	}
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(b, uint64(n)))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
