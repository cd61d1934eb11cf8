package httpapi

import (
	"errors"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/gorilla/mux"

	"cairn/event"
)

// Header values that never change. Nothing may change them in place.
var (
	mediaJSON    = []string{"application/json"}
	mediaLines   = []string{"application/x-ndjson"}
	mediaSSE     = []string{"text/event-stream"}
	mediaProblem = []string{"application/problem+json"}
	retryAfter   = []string{"1"}
	noStore      = []string{"no-store"}
	noSniff      = []string{"nosniff"}
)

// exchange is one request and its answer. The goroutine that serves the
// request owns it; it is the http.ResponseWriter of that request too.
type exchange struct {
	s      *Server
	w      http.ResponseWriter
	r      *http.Request
	rc     *http.ResponseController
	route  string // template of the path, for metrics
	status int    // 0 until the header went out
	write  bool   // the route changes something
	long   bool   // counted among the long-lived ones, not the short
	paced  bool   // every send has a deadline of its own, and the whole none
}

func (x *exchange) Header() http.Header { return x.w.Header() }

// Unwrap is for http.ResponseController.
func (x *exchange) Unwrap() http.ResponseWriter { return x.w }

func (x *exchange) WriteHeader(status int) {
	if x.status == 0 {
		x.status = status
		if x.write {
			if _, leader := x.s.opts.Cluster.Leader(); leader != "" {
				x.Header()["Cairn-Leader"] = []string{leader}
			}
		}
	}
	x.w.WriteHeader(status)
}

func (x *exchange) Write(b []byte) (int, error) {
	if x.status == 0 {
		x.WriteHeader(http.StatusOK)
	}
	return x.w.Write(b)
}

// about says what the answer is as of.
func (x *exchange) about(position uint64) {
	h := x.Header()
	h["Cairn-Position"] = []string{strconv.FormatUint(position, 10)}
	if id := x.s.opts.Reads.LogID(); id != "" {
		h["Cairn-Log"] = []string{id}
	}
}

// answer sends a whole JSON answer.
func (x *exchange) answer(status int, body []byte) error { return x.answerAs(mediaJSON, status, body) }

// answerAs sends a whole answer of that media type.
func (x *exchange) answerAs(media []string, status int, body []byte) error {
	h := x.Header()
	h["Content-Type"] = media
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	x.WriteHeader(status)
	return x.send(body)
}

// sendPiece is how much is written under one deadline: a client that takes it
// within Options.StallTimeout is slow, one that does not is gone.
const sendPiece = 64 << 10

// send writes b as fast as the client takes it. A short answer is under the
// deadline that the server has for every request.
func (x *exchange) send(b []byte) error {
	for len(b) > 0 {
		piece := b[:min(len(b), sendPiece)]
		if len(b) > freeBytes || x.paced {
			_ = x.rc.SetWriteDeadline(time.Now().Add(x.s.opts.StallTimeout)) // only a test's writer has none
		}
		if _, err := x.Write(piece); err != nil {
			return &goneError{err}
		}
		b = b[len(piece):]
	}
	return nil
}

// flush sends what was written on its way. The deadline of the last send still
// holds; relax lifts it.
func (x *exchange) flush() error {
	if err := x.rc.Flush(); err != nil {
		return &goneError{err}
	}
	return nil
}

// relax lifts the deadline for writing, until the next send: over HTTP/2 it
// would end the stream even while nothing is being written.
func (x *exchange) relax() {
	x.paced = true
	_ = x.rc.SetWriteDeadline(time.Time{})
}

// goneError says that a client no longer takes its answer.
type goneError struct{ cause error }

func (e *goneError) Error() string { return "client is gone: " + e.cause.Error() }
func (e *goneError) Unwrap() error { return e.cause }

// fail ends the exchange with an error. When part of the answer is out already
// the only honest end is to break the connection, so that the client does not
// take the part for the whole.
func (x *exchange) fail(err error) {
	var gone *goneError
	if errors.As(err, &gone) || x.r.Context().Err() != nil && x.status != 0 {
		panic(http.ErrAbortHandler)
	}
	p := x.s.problemOf(err)
	if x.status != 0 {
		x.s.logger.Warn("answer broken off", "route", x.route, "code", string(p.code), "error", err)
		panic(http.ErrAbortHandler)
	}
	x.problem(p)
}

// pathText returns a variable of the path, decoded.
func (x *exchange) pathText(name string) (string, error) {
	text, err := url.PathUnescape(mux.Vars(x.r)[name])
	if err != nil {
		return "", problemf(InvalidRequest, "%s: is not percent-encoded as it should be", name)
	}
	return text, nil
}

// pathStream returns the name of the stream in the path, one that can be read.
func (x *exchange) pathStream() (string, error) {
	name, err := x.pathText("stream")
	if err != nil {
		return "", err
	}
	if err := event.CheckStreamName(name); err != nil {
		return "", requestError(err)
	}
	return name, nil
}

// pathNumber returns a variable of the path that counts from 1.
func (x *exchange) pathNumber(name string) (uint64, error) {
	n, ok := parseNumber(mux.Vars(x.r)[name])
	if !ok || n == 0 {
		return 0, problemf(InvalidRequest, "%s: must be a whole number, 1 or more", name)
	}
	return n, nil
}

// requestError is the problem of a rule that something outside the body breaks.
func requestError(err error) *problem {
	p := problemOfForm(err)
	if p == nil {
		return problemf(InvalidRequest, "%v", err)
	}
	if p.code == InvalidEvent {
		p.code = InvalidRequest
	}
	return p
}

// isTimeout reports whether a deadline of the connection ran out.
func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
