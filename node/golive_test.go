package node

import (
	"errors"
	"testing"
	"time"
)

// A voter that can't be asked stops nothing while a majority answers, and one
// that answers is always waited for.
func TestLeastOf(t *testing.T) {
	answers := func(built uint64) *voter { return &voter{id: "b", alive: true, built: built} }
	mute := func() *voter { return &voter{id: "m", alive: true, err: errors.New("refused")} }
	away := func() *voter { return &voter{id: "a"} }
	for _, tt := range []struct {
		name   string
		others []*voter
		want   uint64 // 0 = an error
	}{
		{"alone", nil, 9},
		{"others are behind", []*voter{answers(7), answers(8)}, 7},
		{"others are ahead", []*voter{answers(70)}, 9},
		{"one of two is mute", []*voter{mute()}, 0},
		{"one of three is mute", []*voter{mute(), answers(5)}, 5},
		{"two of three are mute", []*voter{mute(), mute()}, 0},
		{"two of four are mute", []*voter{mute(), answers(8), mute()}, 0},
		{"one is away, one mute", []*voter{away(), mute()}, 0},
		{"one is away", []*voter{away(), answers(8)}, 8},
		{"those that are not alive are not waited for", []*voter{away(), away()}, 9},
	} {
		got, err := leastOf(9, tt.others)
		if got != tt.want || (err != nil) != (tt.want == 0) {
			t.Errorf("%s: %d, %v; want %d", tt.name, got, err, tt.want)
		}
	}
}

// People are told once of what stands still, not of what is being built.
func TestHeldUp(t *testing.T) {
	h := heldUp{}
	start := time.Unix(0, 0)
	reason := errors.New("n2 can't be asked")
	for i, step := range []struct {
		after time.Duration
		err   error
		tell  bool
	}{
		{0, reason, false},
		{liveGrace - 1, reason, false},
		{liveGrace, errNotBuilt, false},
		{liveGrace, reason, false}, // from here
		{2*liveGrace - 1, reason, false},
		{2 * liveGrace, reason, true},
		{9 * liveGrace, reason, false},
		{9 * liveGrace, nil, false},
		{9 * liveGrace, reason, false},
		{10 * liveGrace, reason, true},
	} {
		if got := h.note(3, step.err, start.Add(step.after)); got != step.tell {
			t.Errorf("step %d: told is %t", i, got)
		}
	}
	h.note(4, reason, start)
	if h.keep([]uint64{4}); len(h) != 1 || h[4] == nil {
		t.Errorf("kept %v", h)
	}
}
