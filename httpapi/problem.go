package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"cairn/event"
)

// Code names a kind of problem. Clients decide by it.
type Code string

// The codes of the contract.
const (
	InvalidRequest   Code = "invalid-request"
	InvalidEvent     Code = "invalid-event"
	Forbidden        Code = "forbidden"
	NotFound         Code = "not-found"
	MethodNotAllowed Code = "method-not-allowed"
	ConditionFailed  Code = "condition-failed"
	IDReused         Code = "id-reused"
	GuardFailed      Code = "guard-failed"
	LogChanged       Code = "log-changed"
	SchemaConflict   Code = "schema-conflict"
	TooLarge         Code = "too-large"
	UnsupportedMedia Code = "unsupported-media-type"
	SchemaViolation  Code = "schema-violation"
	FoldFailed       Code = "fold-failed"
	BadDefinition    Code = "bad-definition"
	Overloaded       Code = "overloaded"
	NoLeader         Code = "no-leader"
	Timeout          Code = "timeout"
	Building         Code = "projection-building"
	NotAttempted     Code = "not-attempted"
	OutcomeUnknown   Code = "outcome-unknown"
	Corrupt          Code = "corrupt"
	// Internal is a fault that no other code names. The node's log has more.
	Internal Code = "internal"
)

// problems is the one table from codes to answers.
var problems = map[Code]struct {
	status int
	title  string
}{
	InvalidRequest:   {http.StatusBadRequest, "The request is not one the server understands"},
	InvalidEvent:     {http.StatusBadRequest, "An event breaks a rule of form"},
	Forbidden:        {http.StatusForbidden, "The request may come from a page of another site"},
	NotFound:         {http.StatusNotFound, "There is no such thing"},
	MethodNotAllowed: {http.StatusMethodNotAllowed, "The route does not take this method"},
	ConditionFailed:  {http.StatusConflict, "A condition of the append does not hold"}, // 412 when it came in a header
	IDReused:         {http.StatusConflict, "An event with this id was appended before, in another append"},
	GuardFailed:      {http.StatusConflict, "A guard of a projection refuses the append"},
	SchemaConflict:   {http.StatusConflict, "The type has another schema of this number, or none of the number before"},
	LogChanged:       {http.StatusConflict, "The position belongs to another log"},
	TooLarge:         {http.StatusRequestEntityTooLarge, "A limit of size or count is exceeded"},
	UnsupportedMedia: {http.StatusUnsupportedMediaType, "The content is not of a type the route takes"},
	SchemaViolation:  {http.StatusUnprocessableEntity, "The data of an event is not what the schema of its type asks for"},
	FoldFailed:       {http.StatusUnprocessableEntity, "A projection with guards can't fold an event"},
	BadDefinition:    {http.StatusUnprocessableEntity, "The definition of a projection or schema can't be used"},
	Overloaded:       {http.StatusServiceUnavailable, "The server has too much to do"},
	NoLeader:         {http.StatusServiceUnavailable, "The cluster has no leader at the moment"},
	Timeout:          {http.StatusServiceUnavailable, "The time for the request was up"},
	Building:         {http.StatusServiceUnavailable, "The projection is being built"},
	NotAttempted:     {http.StatusFailedDependency, "An earlier line failed"},
	OutcomeUnknown:   {http.StatusGatewayTimeout, "The append may or may not have happened"},
	Corrupt:          {http.StatusInternalServerError, "Data on this node is damaged"},
	Internal:         {http.StatusInternalServerError, "The server failed"},
}

// mayYetSucceed says that nothing was decided: sent again, the same append may
// be accepted.
func (c Code) mayYetSucceed() bool {
	return c == Overloaded || c == NoLeader || c == Timeout || c == NotAttempted || c == OutcomeUnknown
}

// problem is an answer that says what went wrong (RFC 9457).
type problem struct {
	code   Code
	status int    // 0 = that of the table
	detail string // for people
	extra  []byte // further members, each as `,"name":value`
	header [2]string
}

func problemf(code Code, format string, args ...any) *problem {
	return &problem{code: code, detail: fmt.Sprintf(format, args...)}
}

// Error makes a problem an error, which handlers return.
func (p *problem) Error() string { return string(p.code) + ": " + p.detail }

func (p *problem) statusCode() int {
	if p.status != 0 {
		return p.status
	}
	return problems[p.code].status
}

func (p *problem) text(name, value string) *problem {
	p.extra = append(append(append(p.extra, ',', '"'), name...), '"', ':')
	p.extra = appendText(p.extra, value)
	return p
}

func (p *problem) number(name string, value uint64) *problem {
	p.extra = append(append(append(p.extra, ',', '"'), name...), '"', ':')
	p.extra = strconv.AppendUint(p.extra, value, 10)
	return p
}

// ids adds the member "ids". Positions that are not known are left out.
func (p *problem) ids(ids []event.IDAt) *problem {
	p.extra = append(p.extra, `,"ids":[`...)
	for i, id := range ids {
		if i > 0 {
			p.extra = append(p.extra, ',')
		}
		p.extra = appendText(append(p.extra, `{"id":`...), id.ID)
		p.extra = appendText(append(p.extra, `,"stream":`...), id.Stream)
		if id.Position != 0 {
			p.extra = strconv.AppendUint(append(p.extra, `,"position":`...), id.Position, 10)
		}
		p.extra = append(p.extra, '}')
	}
	p.extra = append(p.extra, ']')
	return p
}

// appendJSON appends the problem document.
func (p *problem) appendJSON(dst []byte) []byte {
	dst = append(dst, `{"type":"urn:cairn:error:`...)
	dst = append(dst, p.code...)
	dst = appendText(append(dst, `","title":`...), problems[p.code].title)
	dst = strconv.AppendInt(append(dst, `,"status":`...), int64(p.statusCode()), 10)
	if p.detail != "" {
		dst = appendText(append(dst, `,"detail":`...), p.detail)
	}
	return append(append(dst, p.extra...), '}')
}

// appendText appends s as a JSON string. What is not UTF-8 is replaced.
func appendText(dst []byte, s string) []byte {
	quoted, _ := jsontext.AppendQuote(dst, s) // the error says only that something was replaced
	return quoted
}

// Fault is what an error of the store means to a client.
type Fault struct {
	Code   Code
	Detail string // for people; "" = the text of the error
	File   string // of Corrupt, as is Offset
	Offset int64

	Path         string // of BadDefinition: where in the definition, as in when.FundsDeposited or examples[0].new
	Line, Column int    // of BadDefinition: in the expression there, from 1; 0 = not in one

	Progress float64 // of Building, 0 to 1

	Newest uint32 // of SchemaConflict: the number of the type's newest schema
}

// problemOf finds the answer to any error.
func (s *Server) problemOf(err error) *problem {
	var p *problem
	if errors.As(err, &p) {
		return p
	}
	if p := problemOfForm(err); p != nil {
		return p
	}
	if f, ok := s.opts.Classify(err); ok {
		if f.Detail == "" {
			f.Detail = err.Error()
		}
		p := problemf(f.Code, "%s", f.Detail)
		switch f.Code {
		case Corrupt:
			p.text("file", f.File).number("offset", uint64(max(f.Offset, 0)))
			s.corrupt.Do(func() { s.opts.OnCorrupt(err) })
		case BadDefinition:
			badDefinition(p, &f)
		case SchemaConflict:
			p.number("newest", uint64(f.Newest))
		case Building:
			p.extra = strconv.AppendFloat(append(p.extra, `,"progress":`...), f.Progress, 'f', 4, 64)
		}
		return p
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return problemf(Timeout, "the node could not answer in time")
	}
	s.logger.Error("request failed", "error", err)
	return problemf(Internal, "the log of the node says what happened")
}

// problemOfForm finds the answer to an error of the rules of package event, or
// nil if err is not one.
func problemOfForm(err error) *problem {
	var invalid *event.InvalidError
	var large *event.TooLargeError
	switch {
	case errors.As(err, &large):
		return problemf(TooLarge, "%s", large.Error())
	case errors.As(err, &invalid):
		code := InvalidEvent
		switch part, _, inner := strings.Cut(invalid.Field, "."); {
		case part == "body", part == "query", strings.HasPrefix(part, "conditions"), strings.HasPrefix(part, "events") && !inner:
			code = InvalidRequest
		}
		return problemf(code, "%s", invalid.Error())
	}
	return nil
}

// problem answers with p.
func (x *exchange) problem(p *problem) {
	h := x.Header()
	h["Content-Type"] = mediaProblem
	if p.header[0] != "" {
		h.Set(p.header[0], p.header[1])
	}
	status := p.statusCode()
	if status == http.StatusServiceUnavailable {
		h["Retry-After"] = retryAfter
	}
	body := p.appendJSON(nil)
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	x.WriteHeader(status)
	_, _ = x.Write(body) // a client that is gone needs no answer
}
