package httpapi

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"cairn/event"
)

const (
	defaultLimit   = 100
	maxLimit       = 10_000
	defaultTimeout = 5 * time.Second
	maxTimeout     = 60 * time.Second
)

// consistency are the parameters of every read; at_position only where pages are.
var consistency = []string{"consistency", "min_position", "timeout"}

// with returns the parameters of every read and further ones.
func with(names ...string) []string { return append(names, consistency...) }

// reading is what the parameters of every read ask for.
type reading struct {
	local   bool
	min     position // wait until this is applied
	at      position // read as of this; 0 = as of what is applied
	raw     bool     // events as they are stored, not in the form of the newest schema
	timeout time.Duration
}

func (p *params) reading() reading {
	return reading{
		local:   p.choice("consistency", "linearizable", "local") == "local",
		min:     p.position("min_position", 0),
		at:      p.position("at_position", 1),
		raw:     p.choice("raw", "false", "true") == "true",
		timeout: p.duration("timeout", defaultTimeout, maxTimeout),
	}
}

// settle waits until this node may answer q and returns the position that the
// answer is as of.
func (s *Server) settle(ctx context.Context, q reading, more ...position) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, q.timeout)
	defer cancel()
	if err := s.confirm(ctx, q); err != nil {
		if ctx.Err() != nil {
			return 0, problemf(Timeout, "the node was not as far as the read asks for within %s: %v", q.timeout, err)
		}
		return 0, err
	}
	id := s.opts.Reads.LogID()
	for _, p := range append(more, q.min, q.at) {
		if err := checkLog(p, id); err != nil {
			return 0, err
		}
	}
	if q.at.n > 0 {
		return q.at.n, nil
	}
	return s.opts.Waiter.Applied(), nil
}

// confirm waits for what q asks for. What was as of a position stays so: a
// reading that names one needs only that much applied.
func (s *Server) confirm(ctx context.Context, q reading) error {
	switch {
	case q.at.n > 0:
	case q.local:
		if err := s.awaitStart(ctx); err != nil {
			return err
		}
	default:
		if err := s.opts.Cluster.ReadIndex(ctx); err != nil {
			return err
		}
	}
	if least := max(q.at.n, q.min.n); least > s.opts.Waiter.Applied() {
		return s.opts.Waiter.WaitPosition(ctx, least)
	}
	return nil
}

// awaitStart waits until the node has once applied what was committed when it
// started, so that even a local read is never answered from before.
func (s *Server) awaitStart(ctx context.Context) error {
	for !s.started.Load() {
		err := s.opts.Cluster.Ready()
		if err == nil {
			s.started.Store(true)
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

// checkLog reports a position that belongs to another log.
func checkLog(p position, id string) error {
	if p.log != "" && p.log != id {
		return problemf(LogChanged, "position %d is one of log %s", p.n, clip(p.log)).text("log", id)
	}
	return nil
}

// readEvent is GET /v1/events/{position}.
func (s *Server) readEvent(x *exchange) error {
	n, err := x.pathNumber("position")
	if err != nil {
		return err
	}
	return s.one(x, func(v View) (event.Event, error) { return v.Event(n) })
}

// readVersion is GET /v1/streams/{stream}/events/{version}.
func (s *Server) readVersion(x *exchange) error {
	name, err := x.pathStream()
	if err != nil {
		return err
	}
	n, err := x.pathNumber("version")
	if err != nil {
		return err
	}
	return s.one(x, func(v View) (event.Event, error) { return v.EventAt(name, n) })
}

// one answers with one event.
func (s *Server) one(x *exchange, find func(View) (event.Event, error)) error {
	p := x.params(with("raw")...)
	q := p.reading()
	if p.err != nil {
		return p.err
	}
	at, err := s.settle(x.r.Context(), q)
	if err != nil {
		return err
	}
	x.about(at)
	e, err := func() (event.Event, error) {
		v := s.opts.Reads.View(at)
		defer v.Close()
		return find(v)
	}()
	if err != nil {
		return s.notFound(err, "there is no such event as of position "+strconv.FormatUint(at, 10))
	}
	form := s.form(q.raw)
	a := form.of(&e)
	body := s.budget.hold()
	defer body.release()
	if err := body.grow(a.room()); err != nil {
		return err
	}
	s.metrics.read.Inc()
	if x.accepted(asPage, asCloudEvent) == asCloudEvent {
		return x.answerAs(mediaCloudEvent, http.StatusOK, appendCloudEvent(body.b, a))
	}
	body.b = event.AppendJSON(body.b, a.Event)
	return x.answer(http.StatusOK, body.b)
}

// notFound says what was not found, if that is what err means.
func (s *Server) notFound(err error, what string) error {
	var p *problem
	if errors.As(err, &p) {
		return err
	}
	if f, ok := s.opts.Classify(err); ok && f.Code == NotFound {
		return problemf(NotFound, "%s", what)
	}
	return err
}

// headStream is HEAD /v1/streams/{stream}.
func (s *Server) headStream(x *exchange) error {
	name, err := x.pathStream()
	if err != nil {
		return err
	}
	at, err := s.asOf(x)
	if err != nil {
		return err
	}
	version, err := s.version(name, at)
	if err != nil {
		return err
	}
	x.Header()["Etag"] = []string{etag(version)}
	x.WriteHeader(http.StatusOK)
	return nil
}

// version returns the version of a stream that exists.
func (s *Server) version(stream string, at uint64) (uint64, error) {
	v := s.opts.Reads.View(at)
	defer v.Close()
	version, err := v.Version(stream)
	if err == nil && version == 0 {
		err = problemf(NotFound, "stream %q does not exist", stream)
	}
	return version, err
}

// listStreams is GET /v1/streams.
func (s *Server) listStreams(x *exchange) error {
	p := x.params(with("prefix", "after", "limit", "at_position")...)
	q := p.reading()
	prefix, after := p.name("prefix"), p.name("after")
	limit := int(p.number("limit", defaultLimit, 1, maxLimit))
	if p.err != nil {
		return p.err
	}
	at, err := s.settle(x.r.Context(), q)
	if err != nil {
		return err
	}
	x.about(at)
	streams, err := func() ([]event.StreamVersion, error) {
		v := s.opts.Reads.View(at)
		defer v.Close()
		return v.Streams(prefix, after, limit+1)
	}()
	if err != nil {
		return err
	}
	more := len(streams) > limit
	streams = streams[:min(limit, len(streams))]
	body := s.budget.hold()
	defer body.release()
	body.b = append(body.b, `{"streams":[`...)
	for i, stream := range streams {
		if err := body.grow(6*len(stream.Stream) + 64); err != nil {
			return err
		}
		if i > 0 {
			body.b = append(body.b, ',')
		}
		body.b = appendText(append(body.b, `{"stream":`...), stream.Stream)
		body.b = strconv.AppendUint(append(body.b, `,"version":`...), stream.Version, 10)
		body.b = append(body.b, '}')
	}
	body.b = append(body.b, ']')
	if more {
		next := x.nextURL(p, at, "after", streams[limit-1].Stream)
		if err := body.grow(len(next) + 32); err != nil {
			return err
		}
		body.b = appendText(append(body.b, `,"next":`...), next)
	}
	return x.answer(http.StatusOK, append(body.b, '}'))
}

// name returns a stream's name or the beginning of one.
func (p *params) name(name string) string {
	v := p.text(name)
	if v != "" && v != "." && v != ".." { // the beginning of a name may be these
		if err := event.CheckStreamName(v); err != nil {
			p.err = firstOf(p.err, renamed(name, err))
		}
	}
	return v
}

// renamed is a fault of a text, said of the parameter it came in.
func renamed(name string, err error) error {
	var invalid *event.InvalidError
	var large *event.TooLargeError
	switch {
	case errors.As(err, &invalid):
		return problemf(InvalidRequest, "%s: %s", name, invalid.Reason)
	case errors.As(err, &large):
		return problemf(TooLarge, "%s: %d is over the limit of %d bytes", name, large.Size, large.Limit)
	}
	return err
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// asOf returns the position that a read with no parameters but those about
// consistency is answered as of, and says so in the answer's header.
func (s *Server) asOf(x *exchange) (uint64, error) {
	return s.settleParams(x, x.params(consistency...))
}

// settleParams is asOf of a read that has other parameters too.
func (s *Server) settleParams(x *exchange, p *params) (uint64, error) {
	q := p.reading()
	if p.err != nil {
		return 0, p.err
	}
	at, err := s.settle(x.r.Context(), q)
	if err == nil {
		x.about(at)
	}
	return at, err
}
