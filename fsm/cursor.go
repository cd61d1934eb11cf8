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
	log         *eventlog.Log
	first, last uint64 // bounds of the positions, both included
	backward    bool
	filter      event.Filter

	candidates index.Iter // positions in question; nil = all
	exact      bool       // every candidate matches

	scan *eventlog.Scanner // set while positions follow each other closely
	at   uint64            // position that scan gives next
	one  event.Event       // read by itself
	now  *event.Event      // the current one: that of scan, or one
	err  error
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
	position, ok := c.candidates.Next()
	if !ok {
		c.err = c.candidates.Err()
		return 0, false
	}
	if position < c.first || position > c.last {
		return 0, false
	}
	return position, true
}

// read makes the event at a position the current one: by scanning when it is
// close behind the last one, else by a read of its own.
func (c *Cursor) read(position uint64) bool {
	near := c.scan != nil && (!c.backward && position >= c.at && position-c.at <= scanGap ||
		c.backward && position <= c.at && c.at-position <= scanGap)
	if !near && c.scan == nil && c.at != position {
		return c.readOne(position)
	}
	if !near {
		c.closeScan()
		if c.backward {
			c.scan = c.log.ScanBack(position)
		} else {
			c.scan = c.log.Scan(position)
		}
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

func (c *Cursor) readOne(position uint64) bool {
	c.one, c.err = c.log.Read(position)
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
