package httpapi

import (
	"math"

	"cairn/event"
)

// span is the rest of a reading: which events are still to come, in which
// order, as of which position. It holds nothing open: each step opens a view
// and closes it before anything is sent, so that a slow client holds nothing.
type span struct {
	stream  string // not "" = the events of one stream by version, from version on
	version uint64

	filter event.Filter // of a span over the whole log
	after  uint64       // only positions above it
	before uint64       // only positions below it; of one that goes backward

	backward bool
	at       uint64 // as of this position
	window   uint64 // most positions that one step looks at
}

// defaultWindow keeps a step short even where no index helps, so that between
// two steps one can see that the client has left, or send a sign of life.
const defaultWindow = 1 << 17

// verdict is what becomes of an event that a step offers.
type verdict uint8

const (
	taken    verdict = iota // go on
	takenEnd                // taken, but let that be the end of the step
	declined                // not taken, and the end of the step
)

// step offers events to take until it says stop or the step's window is over.
// It returns true when there is nothing more to come.
func (sp *span) step(reads Reads, take func(*event.Event) verdict) (done bool, err error) {
	if sp.stream != "" {
		return sp.stepStream(reads, take)
	}
	from, to := sp.after, min(sp.at, satAdd(sp.after, sp.window)) // (from, to]
	if sp.backward {
		to = sp.at
		if sp.before > 0 {
			to = min(sp.at, sp.before-1)
		}
		from = max(sp.after, to-min(to, sp.window))
	}
	if to <= sp.after {
		return true, nil
	}
	v := reads.View(to)
	defer v.Close()
	cur, err := v.Select(Selection{Filter: sp.filter, After: from, Before: satAdd(to, 1), Backward: sp.backward})
	if err != nil {
		return false, err
	}
	defer cur.Close()
	for cur.Next() {
		e := cur.Event()
		said := take(e)
		if said == declined {
			return false, nil
		}
		sp.after, sp.before = sp.past(e.Position)
		if said == takenEnd {
			return false, nil
		}
	}
	if err := cur.Err(); err != nil {
		return false, err
	}
	if sp.backward {
		sp.before = from + 1
		return from <= sp.after, nil
	}
	sp.after = to
	return to >= sp.at, nil
}

// past returns the bounds of the span behind a position that was taken.
func (sp *span) past(position uint64) (after, before uint64) {
	if sp.backward {
		return sp.after, position
	}
	return position, sp.before
}

func (sp *span) stepStream(reads Reads, take func(*event.Event) verdict) (done bool, err error) {
	if sp.at == 0 || sp.version == 0 {
		return true, nil
	}
	v := reads.View(sp.at)
	defer v.Close()
	cur, err := v.Stream(sp.stream, sp.version, sp.backward)
	if err != nil {
		return false, err
	}
	defer cur.Close()
	for cur.Next() {
		said := take(cur.Event())
		if said == declined {
			return false, nil
		}
		if sp.backward {
			sp.version = cur.Event().Version - 1
		} else {
			sp.version = cur.Event().Version + 1
		}
		if said == takenEnd {
			return false, nil
		}
	}
	return true, cur.Err()
}

func satAdd(a, b uint64) uint64 {
	if a > math.MaxUint64-b {
		return math.MaxUint64
	}
	return a + b
}

// roomFor is at least as long as the JSON of an event.
func roomFor(e *event.Event) int {
	text := len(e.Stream) + len(e.Type) + len(e.ID) + len(e.CorrelationID) + len(e.CausationID) + len(e.Compensates) + len(e.ContentType)
	for _, tag := range e.Tags {
		text += len(tag) + 3
	}
	return 6*text + len(e.Data)*4/3 + len(e.Meta) + 512
}
