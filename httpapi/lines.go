package httpapi

import (
	"bytes"
	"errors"
	"io"
	"sync/atomic"
	"time"
)

// lineReader takes the lines of an NDJSON body off one by one. A line that has
// begun must end within Options.BodyTimeout. One goroutine reads; stop may be
// called by another.
type lineReader struct {
	x       *exchange
	buf     *held
	start   int  // of what is in buf and not yet taken
	scanned int  // up to where there is no line end, from start
	begun   bool // a deadline is set for the line that has begun
	bounded bool // a deadline is set
	endless bool // a client may wait between lines as long as it likes
	over    time.Time
	err     error // of the last Read
	stopped atomic.Bool
}

// errLineTooLong says that a line was passed over.
var errLineTooLong = errors.New("line is too long")

func newLineReader(x *exchange, endless bool) *lineReader {
	l := &lineReader{x: x, buf: x.s.budget.hold(), endless: endless}
	if !endless {
		l.over = time.Now().Add(10 * x.s.opts.BodyTimeout)
	}
	return l
}

// next returns the next line that is not empty, without its end; it is valid
// until the next call. It returns io.EOF at the end, errLineTooLong in the place
// of a line over maxBody, and other errors when nothing more can be read. What
// came after the last line end counts as a line only when the body ended there.
func (l *lineReader) next() ([]byte, error) {
	for {
		rest := l.buf.b[l.start:]
		if end := bytes.IndexByte(rest[l.scanned:], '\n'); end >= 0 {
			line := bytes.Trim(rest[:l.scanned+end], jsonSpace)
			l.start += l.scanned + end + 1
			l.scanned, l.begun = 0, false
			if len(line) > maxBody {
				return nil, errLineTooLong
			}
			if len(line) > 0 {
				return line, nil
			}
			continue
		}
		l.scanned = len(rest)
		if l.err != nil {
			return l.last(rest)
		}
		if len(rest) > maxBody {
			return nil, l.passOver()
		}
		if err := l.read(); err != nil {
			return nil, err
		}
	}
}

// last returns what is left when nothing more can be read.
func (l *lineReader) last(rest []byte) ([]byte, error) {
	l.start, l.scanned = len(l.buf.b), 0
	line := bytes.Trim(rest, jsonSpace)
	if l.err != io.EOF && l.stopped.Load() {
		return nil, errStopped
	}
	if l.err != io.EOF || len(line) == 0 {
		return nil, l.err
	}
	if len(line) > maxBody {
		return nil, errLineTooLong
	}
	return line, nil
}

// read adds to buf. It moves what is left of it to the front first.
func (l *lineReader) read() error {
	if l.start > 0 {
		n := copy(l.buf.b, l.buf.b[l.start:])
		l.buf.b, l.start = l.buf.b[:n], 0
	}
	if cap(l.buf.b) > keepBytes && len(l.buf.b) < freeBytes/2 { // a long line is over
		fresh := l.x.s.budget.hold()
		fresh.b = append(fresh.b, l.buf.b...)
		l.buf.release()
		l.buf = fresh
	}
	if err := l.buf.grow(1); err != nil {
		return err
	}
	l.setDeadline()
	if l.stopped.Load() {
		return errStopped
	}
	n, err := l.x.r.Body.Read(l.buf.b[len(l.buf.b):cap(l.buf.b)])
	l.buf.b = l.buf.b[:len(l.buf.b)+n]
	l.err = err
	return nil
}

var errStopped = errors.New("stopped")

// setDeadline bounds the time for a line that has begun, and over HTTP/1.1 the
// time between lines and that for the whole as well.
func (l *lineReader) setDeadline() {
	begun := len(l.buf.b) > 0
	if begun && l.begun {
		return // a byte now and then is not progress
	}
	l.begun = begun
	if !begun && l.endless {
		if l.bounded {
			l.bounded = false
			_ = l.x.rc.SetReadDeadline(time.Time{})
		}
		return
	}
	deadline := time.Now().Add(l.x.s.opts.BodyTimeout)
	if !l.over.IsZero() && deadline.After(l.over) {
		deadline = l.over
	}
	l.bounded = true
	_ = l.x.rc.SetReadDeadline(deadline)
}

// passOver skips the rest of a line that is too long.
func (l *lineReader) passOver() error {
	for l.err == nil {
		l.buf.b, l.start, l.scanned = l.buf.b[:1], 0, 0 // a byte remains: the line goes on
		if err := l.read(); err != nil {
			return err
		}
		if end := bytes.IndexByte(l.buf.b, '\n'); end >= 0 {
			l.start = end + 1
			return errLineTooLong
		}
	}
	l.start = len(l.buf.b)
	return errLineTooLong
}

// stop makes the reader end soon, also while it waits for bytes.
func (l *lineReader) stop() {
	l.stopped.Store(true)
	_ = l.x.rc.SetReadDeadline(time.Unix(1, 0))
}

func (l *lineReader) release() { l.buf.release() }
