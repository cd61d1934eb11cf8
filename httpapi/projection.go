package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/go-json-experiment/json"

	"cairn/event"
)

const (
	pathProjection = "/v1/projections/{name}"

	maxDefinition     = 64 << 10 // bytes of a definition as it is sent
	maxProjectionName = 64
)

// pathProjectionName returns the name of the projection in the path.
func (x *exchange) pathProjectionName() (string, error) {
	name, err := x.pathText("name")
	if err != nil {
		return "", err
	}
	if !isProjectionName(name) {
		return "", problemf(InvalidRequest, "name: must be 1 to %d of the characters a-z, 0-9, '_', '.' and '-', the first a letter or digit", maxProjectionName)
	}
	return name, nil
}

func isProjectionName(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		case i > 0 && (c == '_' || c == '.' || c == '-'):
		default:
			return false
		}
	}
	return 0 < len(s) && len(s) <= maxProjectionName
}

// defineProjection is PUT /v1/projections/{name}.
func (s *Server) defineProjection(x *exchange) error {
	name, err := x.pathProjectionName()
	if err != nil {
		return err
	}
	if err := x.noParams(); err != nil {
		return err
	}
	if _, err := x.mediaType(mediaJSON[0]); err != nil {
		return err
	}
	body, err := x.readBody(maxDefinition)
	if err != nil {
		return err
	}
	defer body.release()
	ctx, cancel := context.WithTimeout(x.r.Context(), s.opts.AppendTimeout)
	defer cancel()
	d, err := s.opts.Projections.Define(ctx, name, body.b)
	if err != nil {
		return s.unsettled(err)
	}
	status := http.StatusOK
	if d.Changed {
		status = http.StatusAccepted
	}
	x.Header()["Location"] = []string{"/v1/projections/" + name}
	x.about(max(s.opts.Waiter.Applied(), d.Generation))
	out := appendText([]byte(`{"name":`), name)
	out = strconv.AppendUint(append(out, `,"generation":`...), d.Generation, 10)
	out = append(appendText(append(out, `,"state":`...), d.State), '}')
	return x.answer(status, out)
}

// deleteProjection is DELETE /v1/projections/{name}.
func (s *Server) deleteProjection(x *exchange) error {
	name, err := x.pathProjectionName()
	if err != nil {
		return err
	}
	if err := x.noParams(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(x.r.Context(), s.opts.AppendTimeout)
	defer cancel()
	if err := s.opts.Projections.Delete(ctx, name); err != nil {
		return s.unsettled(s.ofProjection(err, name))
	}
	x.about(s.opts.Waiter.Applied())
	x.WriteHeader(http.StatusNoContent)
	return nil
}

// unsettled is the problem of a change of the definitions that failed. Only an
// error that is known to promise so may be answered as one that wrote nothing.
func (s *Server) unsettled(err error) error {
	var p *problem
	if errors.As(err, &p) || problemOfForm(err) != nil {
		return err
	}
	if _, ok := s.opts.Classify(err); ok {
		return err
	}
	return problemf(OutcomeUnknown, "the definitions may or may not have changed: %v; do it again, that is safe", err)
}

// listProjections is GET /v1/projections.
func (s *Server) listProjections(x *exchange) error {
	at, err := s.asOf(x)
	if err != nil {
		return err
	}
	list, err := s.opts.Projections.Statuses(x.r.Context())
	if err != nil {
		return err
	}
	if list == nil {
		list = []ProjectionStatus{}
	}
	return x.answerJSON(struct {
		Projections []ProjectionStatus `json:"projections"`
		AsOf        uint64             `json:"as_of"`
	}{list, at})
}

// projection is GET /v1/projections/{name}.
func (s *Server) projection(x *exchange) error {
	name, err := x.pathProjectionName()
	if err != nil {
		return err
	}
	p := x.params(with("failures")...)
	failures := p.choice("failures", "true", "false") == "true"
	if _, err := s.settleParams(x, p); err != nil {
		return err
	}
	status, err := s.opts.Projections.Status(x.r.Context(), name, failures)
	if err != nil {
		return s.ofProjection(err, name)
	}
	return x.answerJSON(&status)
}

// ofProjection says of which projection something was not found.
func (s *Server) ofProjection(err error, name string) error {
	return s.notFound(err, fmt.Sprintf("projection %q: %v", name, err))
}

// answerJSON sends v.
func (x *exchange) answerJSON(v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	return x.answer(http.StatusOK, body)
}

// badDefinition adds where the fault is to the problem of a definition.
func badDefinition(p *problem, f *Fault) {
	p.text("message", f.Detail)
	if f.Path != "" {
		p.text("path", f.Path)
		p.detail = f.Path + ": " + f.Detail
	}
	if f.Line > 0 {
		p.number("line", uint64(f.Line)).number("column", uint64(max(f.Column, 0)))
		p.detail = fmt.Sprintf("%s, line %d, column %d: %s", f.Path, f.Line, f.Column, f.Detail)
	}
}

// guardProblem is the problem of an append of that many events that a projection
// with guards does not let in: it failed to fold one, or a guard is not true.
func guardProblem(g *event.GuardFailure, failed bool, events int) *problem {
	if failed {
		p := problemf(FoldFailed, "projection %q can't fold %s into row %q: %s", g.Projection, placeOf(g.Event, events), clip(g.Key), g.Message)
		return p.text("projection", g.Projection).number("event", uint64(g.Event)).text("key", g.Key).text("message", g.Message)
	}
	why := g.Message
	if why == "" {
		why = g.Rule
	}
	p := problemf(GuardFailed, "a guard of projection %q does not let %s happen to %q: %s", g.Projection, placeOf(g.Event, events), clip(g.Key), why)
	p.text("projection", g.Projection).number("event", uint64(g.Event)).text("key", g.Key)
	return p.text("guard", g.Rule).text("message", why).number("state_position", g.StatePosition)
}

// placeOf names an event of an append of that many.
func placeOf(i, of int) string {
	if i == 0 && of == 1 {
		return "the event"
	}
	return "events[" + strconv.Itoa(i) + "]"
}

// violationProblem is the problem of an append of that many events with data that
// is against a schema. The member "type" is that of every problem.
func violationProblem(v *event.Violation, events int) *problem {
	p := problemf(SchemaViolation, "%s is not what schema %d of %q asks for", placeOf(v.Event, events), v.Schema, v.Type)
	if len(v.Errors) > 0 {
		if first := v.Errors[0]; first.Path != "" {
			p.detail += ": " + first.Path + ": " + first.Message
		} else { // the whole of the data
			p.detail += ": " + first.Message
		}
	}
	p.number("event", uint64(v.Event)).text("event_type", v.Type).number("schema", uint64(v.Schema))
	p.extra = append(p.extra, `,"errors":[`...)
	for i, e := range v.Errors {
		if i > 0 {
			p.extra = append(p.extra, ',')
		}
		p.extra = appendText(append(p.extra, `{"path":`...), e.Path)
		p.extra = append(appendText(append(p.extra, `,"message":`...), e.Message), '}')
	}
	p.extra = append(p.extra, ']')
	return p
}
