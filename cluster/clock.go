package cluster

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxAhead is how far a stamp may be above the median of the voters' clocks.
	maxAhead = time.Second
	// sampleAge is how long a voter's clock is believed to have gone on as ours.
	sampleAge = time.Minute
	// aheadRounds is how many rounds in a row a leader's clock must be too far
	// ahead until it hands over.
	aheadRounds = 3
)

// clock holds the leader's stamps back: at most one second above the median of
// the voters' clocks, so that one wrong clock cannot push the log's time, which
// never goes back, years ahead.
//
// A voter's clock is sampled by a call and corrected by half the round trip;
// from there on it is taken to run as fast as our monotonic clock, so that a
// step of our own wall clock moves neither the samples nor the bound.
type clock struct {
	now   func() time.Time // what the wall clock shows
	mono  func() time.Time // for its monotonic part
	bound atomic.Pointer[bound]

	mu      sync.Mutex
	samples map[string]sample // by node id; under mu
	ahead   int               // rounds in a row that we were too far ahead; under mu
}

// sample is a voter's clock as it was at a moment of ours.
type sample struct {
	at    time.Time
	clock int64
}

// bound is the median of the voters' clocks as it was at a moment of ours.
type bound struct {
	at     time.Time
	median int64
	alone  bool // the only voter: its own clock is the median
}

func newClock(now func() time.Time) *clock {
	return &clock{now: now, mono: now, samples: map[string]sample{}}
}

// known says that the clocks of a majority have been read once.
func (c *clock) known() bool { return c.bound.Load() != nil }

// stamp returns our clock or, if that is less, the median plus one second. As
// long as no majority of clocks is known it returns 0, which the state machine
// takes as "the time of the event before": a wrong stamp could not be undone.
func (c *clock) stamp() int64 {
	b, now := c.bound.Load(), c.now().UnixNano()
	switch {
	case b == nil:
		return 0
	case b.alone:
		return now
	}
	return min(now, b.median+int64(c.mono().Sub(b.at)+maxAhead))
}

// update takes in the answers of a round.
func (c *clock) update(voters []string, self string, answers map[string]answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, a := range answers {
		c.samples[id] = sample{at: a.at, clock: a.Clock + int64(a.trip/2)}
	}
	now, own := c.mono(), c.now().UnixNano()
	maps.DeleteFunc(c.samples, func(_ string, s sample) bool { return now.Sub(s.at) > sampleAge })
	if len(voters) == 1 && voters[0] == self {
		c.bound.Store(&bound{at: now, alone: true})
		c.ahead = 0
		return
	}
	var clocks []int64
	for _, id := range voters {
		if id == self {
			clocks = append(clocks, own)
		} else if s, ok := c.samples[id]; ok {
			clocks = append(clocks, s.clock+int64(now.Sub(s.at)))
		}
	}
	if len(clocks) <= len(voters)/2 {
		return // the last bound goes on
	}
	b := &bound{at: now, median: median(clocks)}
	c.bound.Store(b)
	if own-b.median > int64(maxAhead) {
		c.ahead++
	} else {
		c.ahead = 0
	}
}

// tooFarAhead says that this node should not lead: for several rounds its clock
// was more than a second above the median. It counts anew after that.
func (c *clock) tooFarAhead() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ahead < aheadRounds {
		return false
	}
	c.ahead = 0
	return true
}

// median returns the middle of the clocks, of an even number the lower one: of
// two clocks it can't be known which is wrong, and a stamp too low does no
// lasting harm.
func median(clocks []int64) int64 {
	sorted := slices.Sorted(slices.Values(clocks))
	return sorted[(len(sorted)-1)/2]
}
