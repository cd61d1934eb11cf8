package cluster

import (
	"context"
	"testing"
	"time"
)

// wallAndMono is a clock whose wall time can be stepped without its monotonic
// time, as a correction by NTP does. Time.Sub uses the monotonic part.
type wallAndMono struct {
	start time.Time
	mono  time.Duration
}

func (c *wallAndMono) now() time.Time { return c.start.Add(c.mono) }

const (
	second = int64(time.Second)
	hour   = 3600 * second
)

func TestClock_Median(t *testing.T) {
	for _, test := range []struct {
		clocks []int64
		want   int64
	}{
		{[]int64{5}, 5},
		{[]int64{9, 5}, 5},
		{[]int64{9, 1, 5}, 5},
		{[]int64{9, 1, 5, 7}, 5},
		{[]int64{100, 1, 2, 3, 100}, 3},
	} {
		if got := median(test.clocks); got != test.want {
			t.Errorf("median of %v is %d, want %d", test.clocks, got, test.want)
		}
	}
}

func TestClock_Stamp(t *testing.T) {
	for _, test := range []struct {
		name   string
		voters []string
		off    map[string]int64 // how far the others' clocks are off ours; the rest is silent
		want   int64            // stamp minus our clock
		none   bool             // the stamp is 0
	}{
		{"alone", []string{"a"}, nil, 0, false},
		{"all agree", []string{"a", "b", "c"}, map[string]int64{"b": 0, "c": 0}, 0, false},
		{"ours is behind", []string{"a", "b", "c"}, map[string]int64{"b": hour, "c": hour}, 0, false},
		{"ours is ahead by half a second", []string{"a", "b", "c"}, map[string]int64{"b": -second / 2, "c": -second / 2}, 0, false},
		{"ours is ahead by an hour", []string{"a", "b", "c"}, map[string]int64{"b": -hour, "c": -hour}, -hour + second, false},
		{"another one is ahead", []string{"a", "b", "c"}, map[string]int64{"b": hour, "c": 0}, 0, false},
		{"one is silent", []string{"a", "b", "c"}, map[string]int64{"b": -hour}, -hour + second, false},
		{"two of two", []string{"a", "b"}, map[string]int64{"b": -hour}, -hour + second, false},
		{"a majority is silent", []string{"a", "b", "c"}, nil, 0, true},
		{"half is silent", []string{"a", "b", "c", "d"}, map[string]int64{"b": 0}, 0, true},
		{"who is no voter does not count", []string{"a", "b", "c"}, map[string]int64{"x": 0, "y": 0}, 0, true},
		{"no voter", nil, map[string]int64{"b": 0}, 0, true},
		{"seen by a non-voter", []string{"b", "c", "d"}, map[string]int64{"b": -hour, "c": -hour, "d": 0}, -hour + second, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			base := &wallAndMono{start: time.Now()}
			c := newClock(base.now)
			if c.stamp() != 0 || c.known() {
				t.Error("a stamp before the first round")
			}
			c.update(test.voters, "a", answersAt(base.now(), test.off))
			want := base.now().UnixNano() + test.want
			if test.none {
				want = 0
			}
			if got := c.stamp(); got != want {
				t.Errorf("stamp is %v off", time.Duration(got-want))
			}
			if c.known() == test.none {
				t.Errorf("known is %v", c.known())
			}
		})
	}
}

// answersAt makes answers of nodes whose clocks are off ours by so much.
func answersAt(now time.Time, off map[string]int64) map[string]answer {
	answers := map[string]answer{}
	for id, d := range off {
		answers[id] = answer{peerStatus: peerStatus{ID: id, Clock: now.UnixNano() + d}, at: now}
	}
	return answers
}

func TestClock_HalfTheRoundTrip(t *testing.T) {
	base := &wallAndMono{start: time.Now()}
	c := newClock(base.now)
	// The clock was read 2 s before the answer came, so it is 2 s further now:
	// as far as ours.
	a := answersAt(base.now(), map[string]int64{"b": -2 * second})
	a["b"] = answer{peerStatus: a["b"].peerStatus, at: base.now(), trip: 4 * time.Second}
	c.update([]string{"a", "b"}, "a", a)
	if got := c.stamp(); got != base.now().UnixNano() {
		t.Errorf("stamp is %v off", time.Duration(got-base.now().UnixNano()))
	}
}

// The bound moves on with time, whatever our own wall clock does meanwhile.
func TestClock_GoesOnBetweenRounds(t *testing.T) {
	base := &wallAndMono{start: time.Now()}
	c := newClock(base.now)
	voters := []string{"a", "b", "c"}
	c.update(voters, "a", answersAt(base.now(), map[string]int64{"b": -hour, "c": -hour}))
	first := c.stamp()
	base.mono += 10 * time.Second
	if got := c.stamp() - first; got != 10*second {
		t.Errorf("stamp went on by %v in 10s", time.Duration(got))
	}
	// Nobody answers for long: the samples of a minute ago count no more, the
	// last bound stays.
	base.mono += 2 * time.Minute
	c.update(voters, "a", nil)
	if got := c.stamp() - first; got != 130*second {
		t.Errorf("stamp went on by %v in 130s", time.Duration(got))
	}
	if len(c.samples) != 0 {
		t.Errorf("%d old samples are kept", len(c.samples))
	}
}

func TestClock_TooFarAhead(t *testing.T) {
	base := &wallAndMono{start: time.Now()}
	c := newClock(base.now)
	voters := []string{"a", "b", "c"}
	round := func(off int64) bool {
		base.mono += time.Second
		c.update(voters, "a", answersAt(base.now(), map[string]int64{"b": off, "c": off}))
		return c.tooFarAhead()
	}
	steps := []struct {
		off  int64
		want bool
	}{
		{-2 * second, false}, {-2 * second, false}, {0, false}, // not in a row
		{-2 * second, false}, {-2 * second, false}, {-2 * second, true},
		{-2 * second, false}, {-2 * second, false}, {-2 * second, true}, // it counts anew
		{-second, false}, {-second, false}, {-second, false}, {-second, false}, // just within
		{hour, false}, {hour, false}, {hour, false}, {hour, false}, // behind is no harm
	}
	for i, s := range steps {
		if got := round(s.off); got != s.want {
			t.Errorf("step %d: %v, want %v", i, got, s.want)
		}
	}
}

func TestClock_HandsOver(t *testing.T) {
	m := bareMembership(t, &memberSM{}, &Config{NodeID: "a"})
	handed := 0
	m.deps.handover = func(context.Context) error { handed++; return nil }
	for i := range aheadRounds {
		if m.mindClock(t.Context()); handed != 0 {
			t.Fatalf("handed over after %d rounds", i)
		}
		m.clock.update([]string{"a", "b"}, "a", answersAt(time.Now(), map[string]int64{"b": -hour}))
	}
	if m.mindClock(t.Context()); handed != 1 {
		t.Errorf("handed over %d times", handed)
	}
}
