package event

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// The limits of an append, in bytes of UTF-8 where they are about text.
const (
	MaxData         = 1 << 20  // data of one event
	MaxMeta         = 64 << 10 // meta of one event
	MaxAppendEvents = 10_000
	MaxAppendBytes  = 2 << 20 // all texts, data and meta of an append together
	MaxStream       = 512
	MaxType         = 256
	MaxID           = 256 // also of the correlation, causation and compensates ids
	MaxTags         = 32
	MaxTag          = 256
	MaxContentType  = 256
	MaxConditions   = 64
	MaxQueryTerms   = 256 // types and tags of one query together, and its items
	MaxDepth        = 128 // nesting of arrays and objects in JSON
)

// InvalidError says that a request breaks a rule of form.
type InvalidError struct {
	Field  string // such as `events[3].tags[0]`
	Reason string
}

func (e *InvalidError) Error() string { return e.Field + ": " + e.Reason }

// TooLargeError says that something is over its limit of size or count.
type TooLargeError struct {
	Field string
	Size  int
	Limit int
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("%s: %d is over the limit of %d", e.Field, e.Size, e.Limit)
}

// Check reports the first rule of form that a client's append breaks, as an
// *InvalidError or a *TooLargeError. It does not look at the log.
func (a *Append) Check() error {
	if len(a.Events) == 0 {
		return &InvalidError{"events", "there must be at least one event"}
	}
	if err := within("events", len(a.Events), MaxAppendEvents); err != nil {
		return err
	}
	size := 0
	ids := make(map[streamID]int)
	for i := range a.Events {
		e := &a.Events[i]
		if err := e.check(fieldOf(len(a.Events), i)); err != nil {
			return err
		}
		size += e.size()
		if e.IDChosen {
			at := streamID{e.Stream, e.ID}
			if first, ok := ids[at]; ok {
				return &InvalidError{fieldOf(len(a.Events), i) + "id", fmt.Sprintf("is also the id of events[%d]", first)}
			}
			ids[at] = i
		}
	}
	if err := within("append", size, MaxAppendBytes); err != nil {
		return err
	}
	return CheckConditions(a.Conditions)
}

type streamID struct{ stream, id string }

// fieldOf is the prefix that names a field of the i-th of n events.
func fieldOf(n, i int) string {
	if n == 1 {
		return ""
	}
	return fmt.Sprintf("events[%d].", i)
}

// size is what an event counts of MaxAppendBytes.
func (e *Event) size() int {
	n := len(e.Stream) + len(e.Type) + len(e.ID) + len(e.CorrelationID) + len(e.CausationID) + len(e.Compensates) +
		len(e.ContentType) + len(e.Data) + len(e.Meta)
	for _, tag := range e.Tags {
		n += len(tag)
	}
	return n
}

func (e *Event) check(at string) error {
	if err := checkStream(at+"stream", e.Stream); err != nil {
		return err
	}
	if err := checkText(at+"type", e.Type, MaxType); err != nil {
		return err
	}
	for _, id := range [...]struct{ name, value string }{
		{"id", e.ID}, {"correlation_id", e.CorrelationID}, {"causation_id", e.CausationID}, {"compensates", e.Compensates},
	} {
		if err := checkID(at+id.name, id.value); err != nil {
			return err
		}
	}
	if e.ID == "" {
		return &InvalidError{at + "id", "must not be empty"}
	}
	if err := checkTags(at, e.Tags); err != nil {
		return err
	}
	if err := within(at+"content_type", len(e.ContentType), MaxContentType); err != nil {
		return err
	}
	if err := within(at+"data", len(e.Data), MaxData); err != nil {
		return err
	}
	return within(at+"meta", len(e.Meta), MaxMeta)
}

func checkTags(at string, tags []string) error {
	if err := within(at+"tags", len(tags), MaxTags); err != nil {
		return err
	}
	for i, tag := range tags {
		field := fmt.Sprintf("%stags[%d]", at, i)
		if err := checkText(field, tag, MaxTag); err != nil {
			return err
		}
		for _, before := range tags[:i] {
			if before == tag {
				return &InvalidError{field, "is there twice"}
			}
		}
	}
	return nil
}

// CheckConditions reports the first rule of form that conditions break.
func CheckConditions(conditions []Condition) error {
	if err := within("conditions", len(conditions), MaxConditions); err != nil {
		return err
	}
	for i := range conditions {
		c, at := &conditions[i], fmt.Sprintf("conditions[%d].", i)
		switch c.Kind {
		case StreamAtVersion, StreamExists, StreamMissing:
			if err := checkStreamName(at+"stream", c.Stream); err != nil {
				return err
			}
		case NoMatch:
			if err := c.Query.check(at + "query."); err != nil {
				return err
			}
		default:
			return &InvalidError{at + "kind", "is not known"}
		}
	}
	return nil
}

// Check reports the first rule of form that a query breaks.
func (q Query) Check() error { return q.check("query.") }

func (q Query) check(at string) error {
	terms := len(q.Items)
	for i, item := range q.Items {
		terms += len(item.Types) + len(item.Tags)
		for j, typ := range item.Types {
			if err := checkText(fmt.Sprintf("%sitems[%d].types[%d]", at, i, j), typ, MaxType); err != nil {
				return err
			}
		}
		for j, tag := range item.Tags {
			if err := checkText(fmt.Sprintf("%sitems[%d].tags[%d]", at, i, j), tag, MaxTag); err != nil {
				return err
			}
		}
	}
	return within(at+"items", terms, MaxQueryTerms)
}

// CheckStream reports why a client may not append to a stream of that name.
func CheckStream(name string) error { return checkStream("stream", name) }

// CheckStreamName reports why a stream of that name can't even be read.
func CheckStreamName(name string) error { return checkStreamName("stream", name) }

func checkStream(field, name string) error {
	if err := checkStreamName(field, name); err != nil {
		return err
	}
	if IsSystem(name) {
		return &InvalidError{field, "names that begin with '$' are the store's own; read them, but append elsewhere"}
	}
	return nil
}

func checkStreamName(field, name string) error {
	if name == "." || name == ".." {
		return &InvalidError{field, "must not be '.' or '..'"}
	}
	return checkText(field, name, MaxStream)
}

// checkText holds for names: neither empty nor over limit, UTF-8, and without
// control characters.
func checkText(field, s string, limit int) error {
	if s == "" {
		return &InvalidError{field, "must not be empty"}
	}
	if err := within(field, len(s), limit); err != nil {
		return err
	}
	if !utf8.ValidString(s) {
		return &InvalidError{field, "must be UTF-8"}
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || 0x7f <= r && r < 0xa0 }) {
		return &InvalidError{field, "must not contain control characters"}
	}
	return nil
}

// checkID holds for ids, which may be any text; "" stands for none.
func checkID(field, id string) error {
	if !utf8.ValidString(id) {
		return &InvalidError{field, "must be UTF-8"}
	}
	return within(field, len(id), MaxID)
}

func within(field string, size, limit int) error {
	if size > limit {
		return &TooLargeError{field, size, limit}
	}
	return nil
}
