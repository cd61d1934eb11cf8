package httpapi

import (
	"context"
	"errors"
	"net/http"
	"time"

	"cairn/bug"
	"cairn/event"
)

// follower sends the events that a filter matches: first what there is, then
// what comes. It holds a buffer only while it has something to send.
type follower struct {
	s     *Server
	x     *exchange
	ctx   context.Context
	frame framer
	local bool
	raw   bool
	form  typeForm

	span span   // what is still to be read of the history
	from uint64 // version from which on events of its stream count
	sub  *subscription
	beat *time.Ticker

	out   *held     // nil while there is nothing to send
	need  int       // bytes that out lacked for the next event
	sent  int       // events in out
	batch []*recent // room for what the hub gives; nil while there is nothing to send
}

// follow answers with events for as long as the client stays.
func (s *Server) follow(x *exchange, q reading, from start, as form) error {
	if err := resume(x.r.Header, &from); err != nil {
		return err
	}
	if err := x.stay(); err != nil {
		return err
	}
	s.metrics.followers.Inc()
	defer s.metrics.followers.Dec()
	if err := s.settleFollower(x.r.Context(), q, from.after); err != nil {
		return err
	}
	f := &follower{
		s: s, x: x, ctx: x.r.Context(), local: q.local, raw: q.raw, from: from.from,
		frame: framer{sse: as == asSSE, logID: s.opts.Reads.LogID()},
		span:  span{filter: from.filter, after: from.after.n, window: defaultWindow},
		beat:  time.NewTicker(s.opts.Heartbeat),
	}
	defer f.beat.Stop()
	f.span.filter.Stream = from.stream
	if from.stream != "" && from.after.n == 0 {
		f.span.stream, f.span.version = from.stream, max(from.from, 1)
	}
	h := x.Header()
	h["Content-Type"] = mediaLines
	if as == asSSE {
		h["Content-Type"] = mediaSSE
		h["X-Accel-Buffering"] = []string{"no"} // a proxy must not gather events
	}
	x.about(from.after.n)
	x.WriteHeader(http.StatusOK)
	if err := x.flush(); err != nil {
		return err
	}
	x.relax()
	err := f.run()
	if errors.Is(err, errStopped) {
		return nil
	}
	return err
}

// resume takes over the position that a client says it got to.
func resume(h http.Header, from *start) error {
	values := h["Last-Event-Id"]
	if len(values) == 0 || values[0] == "" {
		return nil
	}
	at, ok := parsePosition(values[0])
	if !ok || len(values) > 1 {
		return problemf(InvalidRequest, "Last-Event-ID: must be a position, with or without @ and a log id")
	}
	from.after = at
	return nil
}

// settleFollower waits for what must be known before the first byte: the log,
// and the least position that was asked for. The rest a follower waits for
// while it is connected: an EventSource that gets a 503 never comes back.
func (s *Server) settleFollower(ctx context.Context, q reading, after position) error {
	born := reading{local: true, at: position{n: max(1, q.min.n)}, timeout: q.timeout}
	if _, err := s.settle(ctx, born, after, q.min); err != nil {
		return err
	}
	return nil
}

func (f *follower) run() error {
	if err := f.catchUp(); err != nil {
		return err
	}
	if bug.Is(bug.SkipAtLive) {
		f.span.after++
	}
	f.sub = f.s.hub.subscribe(f.span.filter, f.from, f.span.after)
	defer f.s.hub.unsubscribe(f.sub)
	for {
		if err := f.live(); err != nil {
			return err
		}
		select {
		case <-f.sub.wake:
		case <-f.beat.C:
			if err := f.say(f.frame.beat, f.s.hub.position(f.sub)); err != nil {
				return err
			}
		case <-f.ctx.Done():
			return &goneError{f.ctx.Err()}
		case <-f.s.stopping:
			return errStopped
		}
	}
}

// catchUp sends the history and then the sign that it is done: when everything
// was sent that was committed before the follower got that far, not only what
// this node had applied by then.
func (f *follower) catchUp() error {
	for confirmed := false; ; {
		changed := f.s.opts.Waiter.Changed()
		target := f.s.opts.Waiter.Applied()
		if target < f.span.after { // the client has seen more, elsewhere
			if err := f.pause(changed); err != nil {
				return err
			}
			continue
		}
		f.span.at = target
		if err := f.read(); err != nil {
			return err
		}
		f.span.stream, f.span.after = "", target // from here on by position
		if confirmed {
			return f.say(f.frame.caughtUp, target)
		}
		if confirmed = f.confirm(); !confirmed {
			if err := f.pause(nil); err != nil {
				return err
			}
		}
	}
}

// confirm reports whether what this node has applied from now on is as recent
// as the client asks for.
func (f *follower) confirm() bool {
	ctx, cancel := context.WithTimeout(f.ctx, min(f.s.opts.Heartbeat, defaultTimeout))
	defer cancel()
	if f.local {
		return f.s.awaitStart(ctx) == nil
	}
	return f.s.opts.Cluster.ReadIndex(ctx) == nil
}

// pause waits for a change, or a moment if there is nothing to wait for.
func (f *follower) pause(changed <-chan struct{}) error {
	var moment <-chan time.Time
	if changed == nil {
		moment = time.After(100 * time.Millisecond)
	}
	select {
	case <-changed:
	case <-moment:
	case <-f.beat.C:
		return f.say(f.frame.beat, f.span.after)
	case <-f.ctx.Done():
		return &goneError{f.ctx.Err()}
	case <-f.s.stopping:
		return errStopped
	}
	return nil
}

// read sends the rest of the span.
func (f *follower) read() error {
	defer f.release()
	for {
		last := uint64(0)
		f.form = f.s.form(f.raw)
		done, err := f.span.step(f.s.opts.Reads, func(e *event.Event) verdict {
			if e.Version >= f.from {
				a := f.form.of(e)
				if !f.room(a.room()) {
					return declined
				}
				f.out.b = f.frame.event(f.out.b, a)
				f.sent++
			}
			last = e.Position
			return taken
		})
		if err != nil {
			return err
		}
		if f.span.stream == "" {
			last = f.span.after
		}
		if err := f.push(); err != nil {
			return err
		}
		select {
		case <-f.beat.C:
			if last > 0 {
				if err := f.say(f.frame.beat, last); err != nil {
					return err
				}
			}
		default:
		}
		if done {
			return nil
		}
		if err := f.stopped(); err != nil {
			return err
		}
	}
}

// live sends what the follower was woken for.
func (f *follower) live() error {
	defer f.release()
	for {
		f.form = f.s.form(f.raw)
		got := f.s.hub.gather(f.sub, f.batch[:0])
		for _, r := range got.events {
			if !f.put(r) {
				f.s.hub.giveBack(f.sub, r.event.Position)
				got.state = more
				break
			}
		}
		clear(got.events) // the ring may drop them while this waits for its client
		f.batch = got.events
		if err := f.push(); err != nil {
			return err
		}
		switch got.state {
		case upToDate:
			return nil
		case behind:
			f.span.after, f.span.at = got.from-1, got.through
			if err := f.read(); err != nil {
				return err
			}
			f.s.hub.moved(f.sub, got.through)
		}
		if err := f.stopped(); err != nil {
			return err
		}
	}
}

// put adds an event to what is gathered, or declines it for lack of room.
func (f *follower) put(r *recent) bool {
	a := f.form.of(&r.event)
	if !f.room(a.room()) {
		return false
	}
	if a.isStored() {
		f.out.b = f.frame.encoded(f.out.b, a.Position, r.encoded())
	} else {
		f.out.b = f.frame.event(f.out.b, a)
	}
	f.sent++
	return true
}

// followChunk is what a follower gathers before it is sent. An event that is
// larger is sent alone.
const followChunk = 32 << 10

// room reports whether an event of that size fits into what is gathered. If
// not, push makes room.
func (f *follower) room(size int) bool {
	if f.out == nil {
		f.out = f.s.budget.hold()
	}
	if len(f.out.b) > 0 && len(f.out.b)+size > followChunk {
		return false
	}
	if f.out.grow(size) != nil {
		f.need = size
		return false
	}
	return true
}

// push sends what is gathered, and waits for memory if the next event needs it:
// no view is open now, and others may use theirs up meanwhile.
func (f *follower) push() error {
	if f.out == nil {
		return nil
	}
	if len(f.out.b) > 0 {
		if err := f.x.sendLines(f.out); err != nil {
			return err
		}
	}
	f.s.metrics.read.Add(float64(f.sent))
	f.sent = 0
	if f.need == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(f.ctx, f.s.opts.StallTimeout)
	defer cancel()
	err := f.out.growWithin(ctx, f.need)
	f.need = 0
	return err
}

// release lets go of the buffer until there is something to send again.
func (f *follower) release() {
	f.batch = nil
	if f.out != nil {
		f.out.release()
		f.out = nil
	}
}

// say sends a sign, one of those of a framer.
func (f *follower) say(sign func([]byte, uint64) []byte, position uint64) error {
	defer f.release()
	f.room(128)
	f.out.b = sign(f.out.b, position)
	return f.push()
}

// stopped returns the reason to stop, if there is one.
func (f *follower) stopped() error {
	if f.ctx.Err() != nil {
		return &goneError{f.ctx.Err()}
	}
	if f.s.isStopping() {
		return errStopped
	}
	return nil
}
