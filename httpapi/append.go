package httpapi

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"cairn/event"
)

// maxIdempotencyKey leaves room for a slash and a number in event.MaxID.
const maxIdempotencyKey = 240

// appendToStream is POST /v1/streams/{stream}/events.
func (s *Server) appendToStream(x *exchange) error {
	name, err := x.pathStream()
	if err != nil {
		return err
	}
	if err := event.CheckStream(name); err != nil {
		return requestError(err)
	}
	if err := x.noParams(); err != nil {
		return err
	}
	decode, err := x.eventDecoder()
	if err != nil {
		return err
	}
	var a event.Append
	if a.Conditions, err = headerConditions(x.r.Header, name); err != nil {
		return err
	}
	key, err := idempotencyKey(x.r.Header)
	if err != nil {
		return err
	}
	body, err := x.readBody(maxBody)
	if err != nil {
		return err
	}
	defer body.release()
	if a.Events, err = decode(body.b); err != nil {
		return err
	}
	for i := range a.Events {
		e := &a.Events[i]
		if e.Stream != "" {
			return problemf(InvalidEvent, "%sstream: the path names the stream; POST /v1/append takes events of several", eventPrefix(len(a.Events), i))
		}
		e.Stream = name
	}
	return s.appendOne(x, &a, key, http.StatusPreconditionFailed)
}

// appendToStreams is POST /v1/append.
func (s *Server) appendToStreams(x *exchange) error {
	media, err := x.mediaType(mediaJSON[0], mediaLines[0])
	if err != nil {
		return err
	}
	for _, name := range [...]string{"If-Match", "If-None-Match"} {
		if len(x.r.Header[name]) > 0 {
			return problemf(InvalidRequest, "%s: has no meaning for several streams; use conditions", name)
		}
	}
	if media == mediaLines[0] {
		return s.appendLines(x)
	}
	if err := x.noParams(); err != nil {
		return err
	}
	key, err := idempotencyKey(x.r.Header)
	if err != nil {
		return err
	}
	body, err := x.readBody(maxBody)
	if err != nil {
		return err
	}
	defer body.release()
	a, err := decodeAppend(body.b)
	if err != nil {
		return err
	}
	return s.appendOne(x, &a, key, http.StatusConflict)
}

// eventPrefix is how the i-th of n events is named in a problem.
func eventPrefix(n, i int) string {
	if n == 1 {
		return ""
	}
	return "events[" + strconv.Itoa(i) + "]."
}

// appendOne checks a, has it decided and answers with the outcome.
func (s *Server) appendOne(x *exchange, a *event.Append, key string, refused int) error {
	completeIDs(a, key)
	if err := a.Check(); err != nil {
		return err
	}
	o, p := s.propose(x.r.Context(), a, refused)
	if p != nil {
		x.about(max(s.opts.Waiter.Applied(), o.Last))
		return p
	}
	status := http.StatusCreated
	if o.Code == event.Duplicate {
		status = http.StatusOK
	}
	h := x.Header()
	h["Location"] = []string{location(x, a, &o)}
	if len(o.Versions) == 1 {
		h["Etag"] = []string{etag(o.Versions[0].Version)}
	}
	x.about(o.Last)
	body := s.budget.hold()
	defer body.release()
	body.b = appendOutcome(body.b, &o, 0)
	return x.answer(status, body.b)
}

// location is where the first event of an append can be read.
func location(x *exchange, a *event.Append, o *event.Outcome) string {
	if x.route == pathStreamEvents && len(o.Versions) == 1 {
		v := o.Versions[0]
		return "/v1/streams/" + url.PathEscape(v.Stream) + "/events/" + strconv.FormatUint(v.Version+1-uint64(len(a.Events)), 10)
	}
	return "/v1/events/" + strconv.FormatUint(o.First, 10)
}

func etag(version uint64) string { return `"` + strconv.FormatUint(version, 10) + `"` }

// completeIDs gives an id to every event that has none: one of its place under
// the client's key, with which a retry finds it, or a new one.
func completeIDs(a *event.Append, key string) {
	for i := range a.Events {
		e := &a.Events[i]
		switch {
		case e.IDChosen:
		case key != "":
			e.ID, e.IDChosen = key+"/"+strconv.Itoa(i), true
		default:
			e.ID = event.NewID()
		}
	}
}

// propose has a decided. It returns an outcome that is OK, or the problem.
func (s *Server) propose(ctx context.Context, a *event.Append, refused int) (event.Outcome, *problem) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.AppendTimeout)
	defer cancel()
	o, err := s.opts.Appender.Propose(ctx, a)
	return o, s.decided(ctx, a, &o, err, refused)
}

// decided counts a decision and returns the problem it is, if it is one. While
// ctx is not done it may look for what stood in the way.
func (s *Server) decided(ctx context.Context, a *event.Append, o *event.Outcome, err error, refused int) *problem {
	var p *problem
	switch {
	case err != nil:
		p = s.appendProblem(a, err)
	case !o.OK():
		p = outcomeProblem(o, len(a.Events), refused)
		if c := o.Conflict; c != nil && c.Kind == event.NoMatch {
			if typ := s.typeAt(ctx, c.Position); typ != "" {
				p.text("conflicting_type", typ)
			}
		}
	}
	switch {
	case p != nil:
		s.metrics.appends.WithLabelValues(string(p.code)).Inc()
	case o.Code == event.Duplicate:
		s.metrics.appends.WithLabelValues("duplicate").Inc()
	default:
		s.metrics.appends.WithLabelValues("accepted").Inc()
		s.metrics.events.Add(float64(len(a.Events)))
	}
	return p
}

// appendProblem is the problem of an append that was not decided. Only an error
// that promises it was not written may be answered so.
func (s *Server) appendProblem(a *event.Append, err error) *problem {
	if f, ok := s.opts.Classify(err); ok {
		switch f.Code {
		case NoLeader, Overloaded, Timeout, Corrupt, InvalidRequest, InvalidEvent, TooLarge:
			return s.problemOf(err)
		}
	}
	p := problemf(OutcomeUnknown, "%v", err)
	var chosen []event.IDAt
	for i := range a.Events {
		if e := &a.Events[i]; e.IDChosen {
			chosen = append(chosen, event.IDAt{ID: e.ID, Stream: e.Stream})
		}
	}
	if len(chosen) == 0 {
		p.detail += "; no event has an id of yours: read before you retry"
	}
	return p.ids(chosen)
}

// conflictWait is how long an answer waits for this node to have the event that
// the leader found in the way. Appends of a convoy have no conditions, so that
// no two of them wait.
const conflictWait = 100 * time.Millisecond

// typeAt returns the type of a committed event, "" if this node does not get it
// in time.
func (s *Server) typeAt(ctx context.Context, position uint64) string {
	ctx, cancel := context.WithTimeout(ctx, conflictWait)
	defer cancel()
	if s.opts.Waiter.WaitPosition(ctx, position) != nil {
		return ""
	}
	v := s.opts.Reads.View(0)
	defer v.Close()
	e, err := v.Event(position)
	if err != nil {
		return "" // who reads on from there learns of it
	}
	return e.Type
}

// outcomeProblem is the problem of an append of that many events that was
// refused; refused is the status when a condition did not hold.
func outcomeProblem(o *event.Outcome, events, refused int) *problem {
	switch o.Code {
	case event.GuardFailed, event.FoldFailed:
		return guardProblem(o.Guard, o.Code == event.FoldFailed, events)
	case event.SchemaViolation:
		return violationProblem(o.Violation, events)
	case event.SchemaChanged:
		return problemf(Overloaded, "schemas changed while it was decided; nothing was written")
	case event.ConditionFailed:
		c := o.Conflict
		p := problemf(ConditionFailed, "%s", c.String()).number("condition", uint64(c.Condition))
		p.status = refused
		if c.Kind == event.NoMatch {
			return p.number("conflicting_position", c.Position)
		}
		p.text("stream", c.Stream)
		if c.Kind != event.StreamExists { // for which any version would do
			p.number("expected", c.Expected)
		}
		return p.number("actual", c.Actual)
	case event.IDReused:
		return problemf(IDReused, "an id was appended before with other events, or only some of these events were").ids(o.Reused)
	}
	if reason, ok := strings.CutPrefix(o.Reason, event.TryAgain); ok {
		return problemf(Overloaded, "%s; try again", reason)
	}
	return problemf(InvalidEvent, "%s", o.Reason)
}

// appendOutcome appends the answer to an append. A status other than 0 is made
// a member of it.
func appendOutcome(dst []byte, o *event.Outcome, status int) []byte {
	dst = append(dst, '{')
	if status != 0 {
		dst = strconv.AppendInt(append(dst, `"status":`...), int64(status), 10)
		dst = append(dst, ',')
	}
	dst = strconv.AppendUint(append(dst, `"first_position":`...), o.First, 10)
	dst = strconv.AppendUint(append(dst, `,"last_position":`...), o.Last, 10)
	if len(o.Versions) == 1 {
		dst = strconv.AppendUint(append(dst, `,"version":`...), o.Versions[0].Version, 10)
	}
	dst = append(dst, `,"versions":{`...)
	for i, v := range o.Versions {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendText(dst, v.Stream), ':')
		dst = strconv.AppendUint(dst, v.Version, 10)
	}
	dst = append(dst, `},"time":"`...)
	dst = append(dst, event.FormatTime(o.Time)...)
	dst = append(dst, `","duplicate":`...)
	dst = strconv.AppendBool(dst, o.Code == event.Duplicate)
	return append(dst, '}')
}

// headerConditions are the conditions that If-Match and If-None-Match make on a
// stream.
func headerConditions(h http.Header, stream string) ([]event.Condition, error) {
	var conditions []event.Condition
	if values := h["If-Match"]; len(values) > 0 {
		c := event.Condition{Kind: event.StreamExists, Stream: stream}
		if len(values) > 1 {
			return nil, problemf(InvalidRequest, "If-Match: must be there only once")
		}
		if values[0] != "*" {
			version, ok := parseETag(values[0])
			if !ok {
				return nil, problemf(InvalidRequest, `If-Match: must be one version in quotes, such as "7", or *`)
			}
			c.Kind, c.Version = event.StreamAtVersion, version
		}
		conditions = append(conditions, c)
	}
	if values := h["If-None-Match"]; len(values) > 0 {
		if len(values) > 1 || values[0] != "*" {
			return nil, problemf(InvalidRequest, "If-None-Match: must be *, once")
		}
		conditions = append(conditions, event.Condition{Kind: event.StreamMissing, Stream: stream})
	}
	return conditions, nil
}

func parseETag(s string) (version uint64, ok bool) {
	if len(s) < 3 || s[0] != '"' || s[len(s)-1] != '"' {
		return 0, false
	}
	return parseNumber(s[1 : len(s)-1])
}

// idempotencyKey returns the client's key, "" if there is none.
func idempotencyKey(h http.Header) (string, error) {
	values := h["Idempotency-Key"]
	switch {
	case len(values) == 0:
		return "", nil
	case len(values) > 1:
		return "", problemf(InvalidRequest, "Idempotency-Key: must be there only once")
	case values[0] == "":
		return "", problemf(InvalidRequest, "Idempotency-Key: must not be empty")
	case len(values[0]) > maxIdempotencyKey:
		return "", problemf(TooLarge, "Idempotency-Key: %d is over the limit of %d bytes", len(values[0]), maxIdempotencyKey)
	case !utf8.ValidString(values[0]):
		return "", problemf(InvalidRequest, "Idempotency-Key: must be UTF-8")
	}
	return values[0], nil
}
