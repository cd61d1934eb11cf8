package httpapi

import (
	"net/http"
	"net/url"
	"strconv"

	"cairn/event"
)

const (
	pageBytes  = 4 << 20  // a page that has more ends
	chunkBytes = 64 << 10 // an answer that has more is sent in parts, this the first
)

// listing is an answer with many events: a span of them, and how much of it.
type listing struct {
	x       *exchange
	span    span
	params  *params
	form    typeForm
	limit   int // 0 = no limit
	maxSize int // bytes; 0 = no limit

	out   *held
	part  int   // bytes with which out is sent; 0 = chunkBytes for the first time
	pump  *pump // nil until the first part is sent
	count int
	size  int // bytes of the events before those in out
	full  bool
	fault error
}

// readEvents is GET /v1/events.
func (s *Server) readEvents(x *exchange) error {
	names := append(with("after", "before", "limit", "order", "at_position", "follow", "raw"), filterParams...)
	p := x.params(names...)
	f := start{filter: p.filter(), after: p.position("after", 0)}
	return s.events(x, p, f)
}

// readStream is GET /v1/streams/{stream}/events.
func (s *Server) readStream(x *exchange) error {
	name, err := x.pathStream()
	if err != nil {
		return err
	}
	p := x.params(with("from", "limit", "order", "at_position", "follow", "raw")...)
	f := start{stream: name, from: p.number("from", 0, 1, maxNumber)}
	return s.events(x, p, f)
}

const maxNumber = ^uint64(0)

// start is where a reading of events begins, and of which.
type start struct {
	stream string // "" = the whole log
	from   uint64 // version; 0 = the first one, or the last when it goes backward
	filter event.Filter
	after  position
}

// events answers with a page, with lines, or follows.
func (s *Server) events(x *exchange, p *params, from start) error {
	as := x.accepted(asPage, asLines, asSSE, asBatch)
	follow := p.choice("follow", "false", "true") == "true" || as == asSSE
	q := p.reading()
	if follow {
		if as == asBatch {
			p.fault("follow", "has no meaning for a batch of CloudEvents")
		}
		for _, name := range [...]string{"limit", "order", "at_position", "before"} {
			if p.has(name) {
				p.fault(name, "has no meaning for a follower")
			}
		}
		if p.err != nil {
			return p.err
		}
		return s.follow(x, q, from, as)
	}
	l := &listing{x: x, params: p}
	l.span = span{stream: from.stream, version: from.from, filter: from.filter, after: from.after.n, window: defaultWindow}
	l.bounds(p, as)
	if p.err != nil {
		return p.err
	}
	at, err := s.settle(x.r.Context(), q, from.after)
	if err != nil {
		return err
	}
	l.form = s.form(q.raw)
	return s.list(l, at, as)
}

// bounds takes the parameters that say how much to read in which order.
func (l *listing) bounds(p *params, as form) {
	l.span.backward = p.choice("order", "asc", "desc") == "desc"
	l.span.before = p.number("before", 0, 1, maxNumber)
	if p.has("before") && !l.span.backward {
		p.fault("before", "is for order=desc; to read as of a position there is at_position")
	}
	if as != asLines {
		l.limit, l.maxSize = int(p.number("limit", defaultLimit, 1, maxLimit)), pageBytes
		return
	}
	l.limit = int(min(p.number("limit", 0, 1, maxNumber), 1<<62))
}

// list answers with a listing as of a position.
func (s *Server) list(l *listing, at uint64, as form) error {
	l.span.at = at
	l.x.about(at)
	var version uint64
	if l.span.stream != "" {
		var err error
		if version, err = s.version(l.span.stream, at); err != nil {
			return err
		}
		if l.span.version == 0 {
			l.span.version = 1
			if l.span.backward {
				l.span.version = version
			}
		} else if l.span.backward {
			l.span.version = min(l.span.version, version)
		}
	}
	l.out = s.budget.hold()
	defer func() { l.out.release() }()
	l.x.relax() // a walk over much of the log may take its time
	defer func() { s.metrics.read.Add(float64(l.count)) }()
	switch as {
	case asPage:
		return l.page(version)
	case asBatch:
		return l.batch(version)
	}
	return l.lines()
}

// page writes the events as one JSON document.
func (l *listing) page(version uint64) error {
	l.x.Header()["Content-Type"] = mediaJSON
	l.out.b = append(l.out.b, `{"events":[`...)
	done, err := l.run(func(a answered) {
		if l.count > 0 {
			l.out.b = append(l.out.b, ',')
		}
		l.out.b = event.AppendJSON(l.out.b, a.Event)
	})
	if err != nil {
		return err
	}
	next := ""
	if !done {
		next = l.next()
	}
	if err := l.out.grow(len(next) + 128); err != nil {
		return err
	}
	l.out.b = append(l.out.b, ']')
	switch {
	case l.span.stream != "":
		l.out.b = strconv.AppendUint(append(l.out.b, `,"version":`...), version, 10)
	case done && !l.skipped():
		l.out.b = strconv.AppendUint(append(l.out.b, `,"head":`...), l.span.at, 10)
	}
	if next != "" {
		l.out.b = appendText(append(l.out.b, `,"next":`...), next)
	}
	l.out.b = append(l.out.b, '}')
	if l.x.status == 0 {
		return l.x.answer(http.StatusOK, l.out.b)
	}
	return l.x.send(l.out.b)
}

// skipped reports whether the pages have left out events that match, so that
// their position is no head: before was not given by a page of this reading.
func (l *listing) skipped() bool { return l.params.has("before") && !l.params.has("at_position") }

// lines writes the events as NDJSON.
func (l *listing) lines() error {
	l.x.Header()["Content-Type"] = mediaLines
	if _, err := l.run(func(a answered) {
		l.out.b = append(event.AppendJSON(l.out.b, a.Event), '\n')
	}); err != nil {
		return err
	}
	if l.x.status == 0 {
		l.x.Header()["Content-Length"] = []string{strconv.Itoa(len(l.out.b))}
		l.x.WriteHeader(http.StatusOK)
	}
	return l.x.send(l.out.b)
}

// run walks over the span until it or the listing is at its end. Whenever much
// is gathered it is sent while the walk goes on; the last part stays in out. It
// returns true at the end of the span.
func (l *listing) run(put func(answered)) (done bool, err error) {
	orDefault(&l.part, chunkBytes)
	defer func() {
		if l.pump != nil {
			err = firstOf(err, l.pump.close())
		}
	}()
	for !done && !l.full {
		done, err = l.span.step(l.x.s.opts.Reads, func(e *event.Event) verdict { return l.take(e, put) })
		if err == nil {
			err = l.fault
		}
		if err == nil && l.x.r.Context().Err() != nil {
			err = &goneError{l.x.r.Context().Err()}
		}
		if err == nil && len(l.out.b) >= l.part {
			err = l.push()
		}
		if err != nil {
			return false, err
		}
	}
	return done, nil
}

// push sends what is gathered on its way.
func (l *listing) push() (err error) {
	if l.pump == nil {
		l.pump = startPump(l.x)
	}
	l.size += len(l.out.b)
	l.part = partBytes
	l.out, err = l.pump.push(l.out)
	return err
}

// take adds an event to the answer if there is room.
func (l *listing) take(e *event.Event, put func(answered)) verdict {
	a := l.form.of(e)
	room := a.room()
	if l.limit > 0 && l.count == l.limit || l.maxSize > 0 && l.count > 0 && l.size+len(l.out.b)+len(a.Data) > l.maxSize {
		l.full = true
		return declined
	}
	if l.fault = l.out.grow(room); l.fault != nil {
		if l.pump != nil && len(l.out.b) > 0 { // what is gathered may go first
			l.fault, l.part = nil, len(l.out.b)
		}
		return declined
	}
	put(a)
	l.count++
	if len(l.out.b) >= l.part {
		return takenEnd
	}
	return taken
}

// next is the URL of the page behind this one, as of the same position.
func (l *listing) next() string {
	name, value := "after", l.span.after
	switch {
	case l.span.stream != "":
		name, value = "from", l.span.version
	case l.span.backward:
		name, value = "before", l.span.before
	}
	return l.x.nextURL(l.params, l.span.at, name, strconv.FormatUint(value, 10))
}

// nextURL is the URL of this request, as of a position, with one parameter set
// anew.
func (x *exchange) nextURL(p *params, at uint64, name, value string) string {
	q := url.Values{}
	for k, v := range p.values {
		if k != "consistency" {
			q[k] = v
		}
	}
	q.Set(name, value)
	number := strconv.FormatUint(at, 10)
	q.Set("min_position", number)
	q.Set("at_position", number+"@"+x.s.opts.Reads.LogID())
	return x.r.URL.EscapedPath() + "?" + q.Encode()
}
