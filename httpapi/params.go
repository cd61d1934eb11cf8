package httpapi

import (
	"mime"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"cairn/event"
)

// params takes the query parameters of a request off one by one. It keeps the
// first fault, which done reports; until then values are only placeholders.
type params struct {
	values url.Values
	err    error
}

// repeatable are the parameters that may be there more than once.
var repeatable = []string{"type", "tag"}

// params parses the query. A parameter that is not among the allowed ones is
// an error.
func (x *exchange) params(allowed ...string) *params {
	p := &params{}
	if x.r.URL.RawQuery == "" {
		return p
	}
	values, err := url.ParseQuery(x.r.URL.RawQuery)
	if err != nil {
		p.err = problemf(InvalidRequest, "query parameters: %v", err)
		return p
	}
	p.values = values
	for _, name := range sortedKeys(values) {
		switch {
		case !slices.Contains(allowed, name):
			p.fault(name, "is not a parameter of this route")
		case len(values[name]) > 1 && !slices.Contains(repeatable, name):
			p.fault(name, "must be there only once")
		}
	}
	return p
}

// noParams reports a problem if there is any query parameter.
func (x *exchange) noParams() error { return x.params().err }

func sortedKeys(values url.Values) []string {
	keys := make([]string, 0, len(values))
	for k := range values {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (p *params) fault(name, reason string) {
	if p.err == nil {
		p.err = problemf(InvalidRequest, "%s: %s", name, reason)
	}
}

func (p *params) has(name string) bool { return p.values.Has(name) }

func (p *params) text(name string) string { return p.values.Get(name) }

// number returns a whole number between least and most, or otherwise if the
// parameter is not there.
func (p *params) number(name string, otherwise, least, most uint64) uint64 {
	if !p.has(name) {
		return otherwise
	}
	n, ok := parseNumber(p.text(name))
	if !ok || n < least || n > most {
		bound := "must be a whole number, " + strconv.FormatUint(least, 10) + " or more"
		if most < ^uint64(0) {
			bound = "must be a whole number from " + strconv.FormatUint(least, 10) + " to " + strconv.FormatUint(most, 10)
		}
		p.fault(name, bound)
		return otherwise
	}
	return n
}

// choice returns one of the options, of which the first is the default.
func (p *params) choice(name string, options ...string) string {
	if !p.has(name) {
		return options[0]
	}
	if v := p.text(name); slices.Contains(options, v) {
		return v
	}
	p.fault(name, "must be "+strings.Join(options, " or "))
	return options[0]
}

// moment returns a time in nanoseconds, 0 if it is not given.
func (p *params) moment(name string) int64 {
	if !p.has(name) {
		return 0
	}
	t, err := event.ParseTime(p.text(name))
	if err != nil {
		p.fault(name, err.Error())
	}
	return max(t, 1) // 0 would mean that none was given
}

func (p *params) duration(name string, otherwise, most time.Duration) time.Duration {
	if !p.has(name) {
		return otherwise
	}
	d, err := time.ParseDuration(p.text(name))
	if err != nil || d <= 0 || d > most {
		p.fault(name, "must be a duration such as 500ms or 2s, up to "+most.String())
		return otherwise
	}
	return d
}

// position is a place in a log: a number, with the id of the log if it is known.
type position struct {
	n   uint64
	log string
}

// position returns a position, written as `<number>` or `<number>@<log id>`.
func (p *params) position(name string, least uint64) position {
	if !p.has(name) {
		return position{}
	}
	at, ok := parsePosition(p.text(name))
	if !ok || at.n < least {
		p.fault(name, "must be a position, "+strconv.FormatUint(least, 10)+" or more, with or without @ and a log id")
		return position{}
	}
	return at
}

func parsePosition(s string) (position, bool) {
	number, log, marked := strings.Cut(s, "@")
	n, ok := parseNumber(number)
	if !ok || marked && (log == "" || len(log) > event.MaxID) {
		return position{}, false
	}
	return position{n, log}, true
}

// parseNumber reads a whole number: digits alone, no sign, no leading zero.
func parseNumber(s string) (uint64, bool) {
	if s == "" || s[0] < '0' || s[0] > '9' || s[0] == '0' && len(s) > 1 {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err == nil
}

// form is how an answer with events is written.
type form uint8

const (
	asPage       form = iota // one JSON document
	asLines                  // NDJSON
	asSSE                    // server-sent events
	asBatch                  // CloudEvents, batched
	asCloudEvent             // a CloudEvent, structured
)

var formOf = map[string]form{
	mediaJSON[0]: asPage, mediaLines[0]: asLines, mediaSSE[0]: asSSE, mediaBatch[0]: asBatch, mediaCloudEvent[0]: asCloudEvent,
}

// accepted returns the form a client asks for: what it names first and has a
// quality above 0, of those offered; plain JSON otherwise.
func (x *exchange) accepted(offered ...form) form {
	for _, header := range x.r.Header["Accept"] {
		for part := range strings.SplitSeq(header, ",") {
			name, params, err := mime.ParseMediaType(strings.TrimSpace(part))
			if err != nil {
				continue
			}
			if q, err := strconv.ParseFloat(params["q"], 64); err == nil && q <= 0 {
				continue
			}
			if as, ok := formOf[name]; ok && slices.Contains(offered, as) {
				return as
			}
		}
	}
	return asPage
}
