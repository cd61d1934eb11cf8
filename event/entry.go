package event

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// EntryFormat is the version of the form below. A node that meets another one
// must stop: it can't know what the others made of that entry.
//
//	entry    ┌────────────┬───────────┬───────────┬──────────────────────┐
//	         │ format  u8 │ time  i64 │ n uvarint │ n × (length, command)│
//	         └────────────┴───────────┴───────────┴──────────────────────┘
//	command  ┌─────────┬─────────────────┬───────────┬────────────┬────────┐
//	         │ kind u8 │ verified_to u64 │ seed 16 B │ conditions │ events │
//	         └─────────┴─────────────────┴───────────┴────────────┴────────┘
//
// Fixed integers are little-endian; counts, lengths and the other numbers are
// uvarints (as in encoding/binary), a text is its length and its bytes. A
// condition is kind, stream, version, after, and its query: items, each with
// its types and tags. An event is flags (bit 0: the client chose the id),
// stream, type, id, schema, tags, correlation id, causation id, compensates,
// content type, data, meta.
//
// The time is the leader's clock in nanoseconds. An entry has no checksum of
// its own: the log store binds one to its Raft index.
const EntryFormat = 1

// ErrMalformed says that bytes are not of the form they should have.
var ErrMalformed = errors.New("malformed")

// CommandKind says who appends. Its numbers are part of the entry format.
type CommandKind uint8

const (
	// KindAppend is an append of a client.
	KindAppend CommandKind = 1
	// KindSystem is an append of the cluster itself to one of its '$' streams.
	KindSystem CommandKind = 2
)

// Command is what travels in an entry. The state machine may refuse it.
type Command struct {
	Kind CommandKind
	// VerifiedTo is a position up to which the leader found no event that a
	// query of the conditions matches, so that Apply needs to look only beyond.
	VerifiedTo uint64
	// Seed is what the salts of the events are derived from. It is random, so
	// that the digest of a short payload can't be guessed back.
	Seed   [16]byte
	Append Append
}

// Entry is the decoded frame of an entry.
type Entry struct {
	Time     int64    // the leader's clock, nanoseconds
	Commands [][]byte // encoded commands, in order; they share the entry's memory
}

const (
	verifiedToOffset = 1
	commandHeader    = 1 + 8 + 16
	entryHeader      = 1 + 8
)

// EncodeEntry appends an entry of encoded commands to dst.
func EncodeEntry(dst []byte, time int64, commands [][]byte) []byte {
	dst = append(dst, EntryFormat)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(time))
	dst = binary.AppendUvarint(dst, uint64(len(commands)))
	for _, c := range commands {
		dst = appendBytes(dst, c)
	}
	return dst
}

// DecodeEntry reads what EncodeEntry wrote. The result shares b's memory.
func DecodeEntry(b []byte) (Entry, error) {
	if len(b) < entryHeader {
		return Entry{}, fmt.Errorf("entry of %d bytes: %w", len(b), ErrMalformed)
	}
	if b[0] != EntryFormat {
		return Entry{}, fmt.Errorf("entry of format %d, this program knows %d: %w", b[0], EntryFormat, ErrMalformed)
	}
	r := reader{b: b, at: 1}
	e := Entry{Time: int64(r.fixed64())}
	n := r.count(1)
	e.Commands = make([][]byte, n)
	for i := range e.Commands {
		e.Commands[i] = r.bytes()
	}
	return e, r.end("entry")
}

// EncodeCommand appends the binary form of c to dst.
func EncodeCommand(dst []byte, c *Command) []byte {
	dst = append(dst, byte(c.Kind))
	dst = binary.LittleEndian.AppendUint64(dst, c.VerifiedTo)
	dst = append(dst, c.Seed[:]...)
	dst = binary.AppendUvarint(dst, uint64(len(c.Append.Conditions)))
	for i := range c.Append.Conditions {
		dst = appendCondition(dst, &c.Append.Conditions[i])
	}
	dst = binary.AppendUvarint(dst, uint64(len(c.Append.Events)))
	for i := range c.Append.Events {
		dst = appendEvent(dst, &c.Append.Events[i])
	}
	return dst
}

// SetVerifiedTo sets VerifiedTo of an encoded command in place.
func SetVerifiedTo(command []byte, position uint64) {
	binary.LittleEndian.PutUint64(command[verifiedToOffset:], position)
}

// DecodeCommand reads what EncodeCommand wrote. Data and Meta share b's memory.
func DecodeCommand(b []byte) (Command, error) {
	if len(b) < commandHeader {
		return Command{}, fmt.Errorf("command of %d bytes: %w", len(b), ErrMalformed)
	}
	c := Command{Kind: CommandKind(b[0]), VerifiedTo: binary.LittleEndian.Uint64(b[verifiedToOffset:])}
	copy(c.Seed[:], b[commandHeader-16:])
	// All texts of a command are parts of one string, made at once.
	r := reader{b: b, s: string(b), at: commandHeader}
	if n := r.count(minCondition); n > 0 {
		c.Append.Conditions = make([]Condition, n)
		for i := range c.Append.Conditions {
			c.Append.Conditions[i] = r.condition()
		}
	}
	c.Append.Events = make([]Event, r.count(minEvent))
	for i := range c.Append.Events {
		c.Append.Events[i] = r.event()
	}
	if c.Kind != KindAppend && c.Kind != KindSystem {
		return Command{}, fmt.Errorf("command of kind %d: %w", c.Kind, ErrMalformed)
	}
	return c, r.end("command")
}

// The fewest bytes that one of them takes, which bounds how many a count in
// hostile bytes can make us allocate.
const (
	minCondition = 5
	minEvent     = 12
)

const flagIDChosen = 1

func appendEvent(dst []byte, e *Event) []byte {
	flags := byte(0)
	if e.IDChosen {
		flags |= flagIDChosen
	}
	dst = append(dst, flags)
	dst = appendText(dst, e.Stream)
	dst = appendText(dst, e.Type)
	dst = appendText(dst, e.ID)
	dst = binary.AppendUvarint(dst, uint64(e.Schema))
	dst = appendTexts(dst, e.Tags)
	dst = appendText(dst, e.CorrelationID)
	dst = appendText(dst, e.CausationID)
	dst = appendText(dst, e.Compensates)
	dst = appendText(dst, e.ContentType)
	dst = appendBytes(dst, e.Data)
	return appendBytes(dst, e.Meta)
}

func (r *reader) event() Event {
	flags := r.byte()
	if flags&^flagIDChosen != 0 {
		r.bad = true
	}
	e := Event{IDChosen: flags&flagIDChosen != 0, Stream: r.text(), Type: r.text(), ID: r.text()}
	schema := r.uvarint()
	e.Schema = uint32(schema)
	r.bad = r.bad || uint64(e.Schema) != schema
	e.Tags = r.texts()
	e.CorrelationID, e.CausationID, e.Compensates, e.ContentType = r.text(), r.text(), r.text(), r.text()
	e.Data, e.Meta = r.bytes(), r.bytes()
	if len(e.Meta) == 0 {
		e.Meta = nil
	}
	return e
}

func appendCondition(dst []byte, c *Condition) []byte {
	dst = append(dst, byte(c.Kind))
	dst = appendText(dst, c.Stream)
	dst = binary.AppendUvarint(dst, c.Version)
	dst = binary.AppendUvarint(dst, c.After)
	dst = binary.AppendUvarint(dst, uint64(len(c.Query.Items)))
	for _, item := range c.Query.Items {
		dst = appendTexts(dst, item.Types)
		dst = appendTexts(dst, item.Tags)
	}
	return dst
}

func (r *reader) condition() Condition {
	c := Condition{Kind: ConditionKind(r.byte()), Stream: r.text(), Version: r.uvarint(), After: r.uvarint()}
	if n := r.count(2); n > 0 {
		c.Query.Items = make([]QueryItem, n)
		for i := range c.Query.Items {
			c.Query.Items[i] = QueryItem{Types: r.texts(), Tags: r.texts()}
		}
	}
	return c
}
