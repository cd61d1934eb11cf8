package check

import (
	"cmp"
	"math"
	"slices"
	"sort"
	"strings"
	"time"

	"cairn/jepsen-lite/history"
)

// eventKey is what an event is known by: ids are unique in their stream.
type eventKey struct{ stream, id string }

// view is a history with what several checkers look up in it. A place is an
// index into the final log; position p stands at place p-1 unless the log has
// gaps, which the checker of the final log finds.
type view struct {
	h        *history.History
	node     string // whose log is taken as the final log
	log      []history.Event
	at       map[eventKey]int // the first place of each event
	byStream map[string][]int // places of a stream's events: version k stands at [k-1]
	groups   []group          // appends with the same events, in the order of their first try
	groupOf  map[eventKey]int // of the first event of a group
	sent     []time.Duration  // by place: when the first try that may have written it began; 0 if nobody sent it
	seen     []time.Duration  // by place: when it was first certain that the log reaches there; never if it was not
	latest   []time.Duration  // by place: the latest of sent up to there
	known    highWater        // what appends and linearizable reads were answered
	made     *definitions     // by defined, when first asked
}

// group is an append with all its tries. The members that are indexes are into
// History.Ops.
type group struct {
	tries  []int
	author int // the try that was answered as new, or -1
	// open is the first try of unknown outcome, or -1.
	open int
	// first is the place of the group's first event, or -1; whole says that all
	// its events stand there, together and in order.
	first int
	whole bool
}

// never is the end of an interval that has none.
const never = time.Duration(math.MaxInt64)

func newView(h *history.History) *view {
	v := &view{h: h, at: map[eventKey]int{}, byStream: map[string][]int{}, groupOf: map[eventKey]int{}}
	for i := range h.Nodes {
		if n := &h.Nodes[i]; i == 0 || len(n.Events) > len(v.log) {
			v.node, v.log = n.Name, n.Events
		}
	}
	for i := range v.log {
		e := &v.log[i]
		if _, ok := v.at[keyOf(e)]; !ok {
			v.at[keyOf(e)] = i
		}
		v.byStream[e.Stream] = append(v.byStream[e.Stream], i)
	}
	v.group()
	v.times()
	return v
}

func keyOf(e *history.Event) eventKey { return eventKey{e.Stream, e.ID} }

// own reports whether a stream is the store's own.
func own(stream string) bool { return strings.HasPrefix(stream, "$") }

// appendOf returns an operation's append if it is one that has events.
func appendOf(op *history.Op) *history.Append {
	if op.Append == nil || len(op.Append.Events) == 0 {
		return nil
	}
	return op.Append
}

// events returns those of a group.
func (v *view) events(g *group) []history.Event { return v.h.Ops[g.tries[0]].Append.Events }

func (v *view) group() {
	for i := range v.h.Ops {
		op := &v.h.Ops[i]
		a := appendOf(op)
		if a == nil {
			continue
		}
		key := keyOf(&a.Events[0])
		n, ok := v.groupOf[key]
		if !ok {
			n = len(v.groups)
			v.groupOf[key] = n
			v.groups = append(v.groups, group{author: -1, open: -1})
		}
		g := &v.groups[n]
		g.tries = append(g.tries, i)
		if op.Outcome == history.OK && !a.Duplicate && (g.author < 0 || op.Start < v.h.Ops[g.author].Start) {
			g.author = i
		}
		if op.Outcome == history.Unknown && (g.open < 0 || op.Start < v.h.Ops[g.open].Start) {
			g.open = i
		}
	}
	for i := range v.groups {
		v.place(&v.groups[i])
	}
}

func (v *view) place(g *group) {
	events := v.events(g)
	first, ok := v.at[keyOf(&events[0])]
	if !ok {
		g.first = -1
		return
	}
	g.first, g.whole = first, first+len(events) <= len(v.log)
	for i := 0; g.whole && i < len(events); i++ {
		g.whole = keyOf(&v.log[first+i]) == keyOf(&events[i])
	}
}

// times fills sent and seen.
func (v *view) times() {
	v.sent = make([]time.Duration, len(v.log))
	v.seen = make([]time.Duration, len(v.log))
	for i := range v.seen {
		v.sent[i], v.seen[i] = never, never
	}
	for i := range v.groups {
		g := &v.groups[i]
		start := v.start(g)
		for _, e := range v.events(g) {
			if place, ok := v.at[keyOf(&e)]; ok {
				v.sent[place] = min(v.sent[place], start)
			}
		}
	}
	for i := range v.sent {
		if v.sent[i] == never {
			v.sent[i] = 0
		}
	}
	for i := range v.h.Ops {
		op := &v.h.Ops[i]
		if n := min(reached(op), uint64(len(v.log))); n > 0 {
			v.seen[n-1] = min(v.seen[n-1], op.End)
		}
	}
	for i := len(v.seen) - 2; i >= 0; i-- {
		v.seen[i] = min(v.seen[i], v.seen[i+1])
	}
	v.latest = slices.Clone(v.sent)
	for i := 1; i < len(v.latest); i++ {
		v.latest[i] = max(v.latest[i], v.latest[i-1])
	}
	var marks []mark
	for i := range v.h.Ops {
		op := &v.h.Ops[i]
		if p := reached(op); p > 0 && !local(op) {
			marks = append(marks, mark{op.End, p, op})
		}
	}
	v.known = newHighWater(marks)
}

// start returns when the first try of g began that can have written it.
func (v *view) start(g *group) time.Duration {
	if g.author >= 0 {
		return v.h.Ops[g.author].Start
	}
	first := never
	for _, i := range g.tries {
		if op := &v.h.Ops[i]; op.Outcome != history.Refused {
			first = min(first, op.Start)
		}
	}
	if first == never { // all were refused
		return v.h.Ops[g.tries[0]].Start
	}
	return first
}

// reached returns the position that an operation's answer shows the log to have
// reached, or 0.
func reached(op *history.Op) uint64 {
	switch {
	case op.Outcome != history.OK:
		return 0
	case op.Append != nil:
		return op.Append.Last
	case op.Read != nil:
		return op.Read.Position
	case op.State != nil:
		return op.State.AsOf
	}
	return 0
}

// local reports whether an operation is a read by what one node has.
func local(op *history.Op) bool {
	return op.Append == nil && (op.Read != nil && op.Read.Local || op.State != nil && op.State.Local)
}

// least returns how many events the log certainly had when an operation began:
// what had been answered before, or what it asked for itself.
func (v *view) least(op *history.Op) uint64 {
	n := uint64(0)
	if m, ok := v.known.before(op.Start); ok && !local(op) {
		n = m.position
	}
	if s := op.State; s != nil {
		n = max(n, s.MinPosition, s.AtPosition)
	}
	if r := op.Read; r != nil {
		n = max(n, r.MinPosition)
	}
	return min(n, uint64(len(v.log)))
}

// most returns how many events the log can have had at a time.
func (v *view) most(t time.Duration) uint64 {
	return uint64(sort.Search(len(v.latest), func(i int) bool { return v.latest[i] > t }))
}

// versionAt returns how many events of stream stand in the first n places.
func (v *view) versionAt(stream string, n uint64) uint64 {
	if n > uint64(len(v.log)) {
		n = uint64(len(v.log))
	}
	return uint64(sort.SearchInts(v.byStream[stream], int(n)))
}

// mark says that from a time on the log was known to reach a position.
type mark struct {
	at       time.Duration
	position uint64
	op       *history.Op
}

// highWater is marks in order of time, each with the highest position so far.
type highWater []mark

func newHighWater(marks []mark) highWater {
	slices.SortStableFunc(marks, func(a, b mark) int { return cmp.Compare(a.at, b.at) })
	for i := 1; i < len(marks); i++ {
		if marks[i].position < marks[i-1].position {
			marks[i].position, marks[i].op = marks[i-1].position, marks[i-1].op
		}
	}
	return marks
}

// before returns the highest position known before t, and of whom.
func (w highWater) before(t time.Duration) (mark, bool) {
	n := sort.Search(len(w), func(i int) bool { return w[i].at >= t })
	if n == 0 {
		return mark{}, false
	}
	return w[n-1], true
}
