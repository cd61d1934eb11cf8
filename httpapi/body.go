package httpapi

import (
	"context"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

const (
	// maxBody bounds what is read of one append or query. It is more than
	// event.MaxAppendBytes, which counts content: base64 and escapes are longer.
	maxBody = 3 << 20
	// freeBytes is what a buffer may hold without asking the budget. How many
	// there are is bounded by the limits on requests and streams.
	freeBytes = 8 << 10
	// keepBytes is the capacity above which a buffer is not kept for reuse.
	keepBytes = 128 << 10
)

// budget bounds the bytes that all requests and answers hold at once.
type budget struct{ sem *semaphore.Weighted }

func newBudget(bytes int64) *budget { return &budget{semaphore.NewWeighted(bytes)} }

// held is a reused byte slice. What its capacity is above freeBytes counts
// against the budget until it is released.
type held struct {
	b      []byte
	budget *budget
	taken  int64
}

var helds = sync.Pool{New: func() any { return &held{b: make([]byte, 0, freeBytes)} }}

func (b *budget) hold() *held {
	h := helds.Get().(*held)
	h.budget = b
	if over := int64(cap(h.b) - freeBytes); over > 0 {
		if !b.sem.TryAcquire(over) {
			h.b = make([]byte, 0, freeBytes)
		} else {
			h.taken = over
		}
	}
	return h
}

// grow makes room for n more bytes, or returns a problem when that is more
// than the budget has left.
func (h *held) grow(n int) error {
	if cap(h.b)-len(h.b) >= n {
		return nil
	}
	return h.enlarge(n, h.budget.sem.TryAcquire)
}

// growWithin is grow, but waits for the budget until ctx is done.
func (h *held) growWithin(ctx context.Context, n int) error {
	if cap(h.b)-len(h.b) >= n {
		return nil
	}
	return h.enlarge(n, func(more int64) bool { return h.budget.sem.Acquire(ctx, more) == nil })
}

func (h *held) enlarge(n int, acquire func(more int64) bool) error {
	size := max(2*cap(h.b), len(h.b)+n)
	more := int64(size-freeBytes) - h.taken
	if !acquire(more) {
		return problemf(Overloaded, "the node holds as many bytes of requests and answers as it may")
	}
	h.taken += more
	grown := make([]byte, len(h.b), size)
	copy(grown, h.b)
	h.b = grown
	return nil
}

// release gives the bytes back. h must not be used any more.
func (h *held) release() {
	if h.taken > 0 {
		h.budget.sem.Release(h.taken)
	}
	h.taken, h.budget = 0, nil
	if cap(h.b) <= keepBytes {
		h.b = h.b[:0]
		helds.Put(h)
	}
}

// readBody reads the whole body, at most limit bytes of it, within
// Options.BodyTimeout. The caller releases it.
func (x *exchange) readBody(limit int) (*held, error) {
	if x.r.ContentLength > int64(limit) {
		return nil, tooLong(limit)
	}
	buf := x.s.budget.hold()
	if x.r.Body == nil || x.r.Body == http.NoBody {
		return buf, nil
	}
	_ = x.rc.SetReadDeadline(time.Now().Add(x.s.opts.BodyTimeout)) // only a test's writer has none
	if err := x.fill(buf, limit); err != nil {
		buf.release()
		return nil, err
	}
	_ = x.rc.SetReadDeadline(time.Time{})
	return buf, nil
}

// fill reads the body into buf. Memory is taken as bytes arrive, so that it
// costs a client a byte to make the server hold one.
func (x *exchange) fill(buf *held, limit int) error {
	for {
		if len(buf.b) > limit {
			return tooLong(limit)
		}
		if err := buf.grow(1); err != nil {
			return err
		}
		n, err := x.r.Body.Read(buf.b[len(buf.b):cap(buf.b)])
		buf.b = buf.b[:len(buf.b)+n]
		switch {
		case err == io.EOF:
			if len(buf.b) > limit {
				return tooLong(limit)
			}
			return nil
		case err != nil:
			return x.brokenBody(err)
		}
	}
}

// brokenBody is the problem of a body that could not be read to its end.
func (x *exchange) brokenBody(err error) error {
	x.Header()["Connection"] = []string{"close"}
	if isTimeout(err) {
		return problemf(Timeout, "the body did not arrive within %s", x.s.opts.BodyTimeout)
	}
	return problemf(InvalidRequest, "body: ended before its end: %v", err)
}

func tooLong(limit int) error {
	return problemf(TooLarge, "body: is over the limit of %d bytes", limit)
}

// plainEncoding reports a body that is compressed.
func (x *exchange) plainEncoding() error {
	if e := x.r.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return problemf(UnsupportedMedia, "Content-Encoding: %q is not supported", e)
	}
	return nil
}

// mediaType returns which of the allowed types the body has.
func (x *exchange) mediaType(allowed ...string) (string, error) {
	if err := x.plainEncoding(); err != nil {
		return "", err
	}
	values := x.r.Header["Content-Type"]
	if len(values) != 1 {
		return "", problemf(UnsupportedMedia, "Content-Type: must be %s", strings.Join(allowed, " or "))
	}
	for _, a := range allowed {
		if values[0] == a {
			return a, nil
		}
	}
	media, params, err := mime.ParseMediaType(values[0])
	for _, a := range allowed {
		charset, given := params["charset"]
		if err == nil && media == a && (!given || strings.EqualFold(charset, "utf-8")) {
			return a, nil
		}
	}
	return "", problemf(UnsupportedMedia, "Content-Type: must be %s, not %q", strings.Join(allowed, " or "), values[0])
}
