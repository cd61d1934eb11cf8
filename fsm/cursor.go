package fsm

import (
	"fmt"

	"cairn/event"
	"cairn/index"
	eventlog "cairn/log"
)

// Cursor gives the events of a selection one by one. One goroutine may use it
// at a time, as long as its view is open.
type Cursor struct {
	first, last uint64 // bounds of the positions, both included
	backward    bool
	filter      event.Filter

	candidates index.Iter // positions in question; nil = all
	exact      bool       // every candidate matches
	ahead      []uint64   // candidates taken already
	taken      int        // how many of ahead were given

	scan   *eventlog.Scanner // set while positions follow each other closely
	at     uint64            // position that scan gives next
	points eventlog.Points   // reads one by itself
	one    event.Event       // that one
	now    *event.Event      // the current one: that of scan, or one
	err    error
}

// scanGap is how many events a cursor rather reads over than seeks beyond.
const scanGap = 16

// Next goes to the next event and reports whether there is one.
func (c *Cursor) Next() bool {
	for c.err == nil {
		position, ok := c.position()
		if !ok || !c.read(position) {
			return false
		}
		if c.exact || c.filter.Matches(c.now) {
			return true
		}
	}
	return false
}

// position yields the next position in question.
func (c *Cursor) position() (uint64, bool) {
	if c.first > c.last {
		return 0, false
	}
	if c.candidates == nil {
		if c.backward {
			c.last--
			return c.last + 1, true
		}
		c.first++
		return c.first - 1, true
	}
	if c.taken == len(c.ahead) && !c.takeAhead() {
		return 0, false
	}
	c.taken++
	return c.ahead[c.taken-1], true
}

// prefetchCount is how many candidates are taken at once when reads are slow.
const prefetchCount = 128

// takeAhead takes the next candidate; or, when the log is read from a cold disk,
// as many as are worth reading at once.
func (c *Cursor) takeAhead() bool {
	want := 1
	if c.points.Slow() && c.scan == nil {
		want = prefetchCount
	}
	c.ahead, c.taken = c.ahead[:0], 0
	for len(c.ahead) < want {
		position, ok := c.candidates.Next()
		if !ok {
			c.err = c.candidates.Err()
			break
		}
		if position < c.first || position > c.last {
			break
		}
		c.ahead = append(c.ahead, position)
	}
	if len(c.ahead) > 1 {
		c.points.Log.Prefetch(c.ahead)
	}
	return len(c.ahead) > 0 && c.err == nil
}

// read makes the event at a position the current one: by scanning when it is
// close behind the last one, else by a read of its own.
func (c *Cursor) read(position uint64) bool {
	if c.scan != nil && !c.near(position) {
		c.closeScan()
	}
	if c.scan == nil && c.at != position {
		return c.readOne(position)
	}
	if c.scan == nil && c.backward {
		c.scan = c.points.Log.ScanBack(position)
	} else if c.scan == nil {
		c.scan = c.points.Log.Scan(position)
	}
	for c.scan.Next() {
		if e := c.scan.Event(); e.Position == position {
			c.now = e
			c.expect(position)
			return true
		}
	}
	if c.err = c.scan.Err(); c.err == nil {
		c.err = &index.CorruptError{Reason: fmt.Sprintf("it leads to position %d, which the log does not have", position)}
	}
	return false
}

// near reports whether the open scan comes to a position soon.
func (c *Cursor) near(position uint64) bool {
	if c.backward {
		return position <= c.at && c.at-position <= scanGap
	}
	return position >= c.at && position-c.at <= scanGap
}

func (c *Cursor) readOne(position uint64) bool {
	c.one, c.err = c.points.Read(position)
	c.now = &c.one
	c.expect(position)
	return c.err == nil
}

// expect notes the position that would follow directly.
func (c *Cursor) expect(position uint64) {
	if c.backward {
		c.at = position - 1
	} else {
		c.at = position + 1
	}
}

// Event returns the current event. It is valid until Next.
func (c *Cursor) Event() *event.Event { return c.now }

// Err returns what ended the cursor early, or nil.
func (c *Cursor) Err() error { return c.err }

// Close gives back what the cursor holds.
func (c *Cursor) Close() {
	c.closeScan()
	if c.candidates != nil {
		c.candidates.Close()
	}
}

func (c *Cursor) closeScan() {
	if c.scan != nil {
		c.scan.Close()
		c.scan = nil
	}
}
