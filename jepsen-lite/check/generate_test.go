package check

import (
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"cairn/jepsen-lite/history"
)

var seedFlag = flag.Uint64("seed", 0, "seed of the random tests; 0 takes a new one")

func newRand(t *testing.T) *rand.Rand {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d: go test -run '%s' -seed %d", seed, t.Name(), seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// cluster is one that makes no mistakes: requests take effect one after the
// other at a moment between their start and their end, or later if the outcome
// is unknown, or never.
type cluster struct {
	r     *rand.Rand
	h     *history.History
	log   []history.Event
	heads map[string]uint64
	known map[string]*history.Append // by the id of the first event
	taken map[string]bool            // tags
	later []func()                   // appends of unknown outcome on their way
}

// generate makes the history of a correct cluster with that many operations.
func generate(r *rand.Rand, ops, streams, nodes int) *history.History {
	c := &cluster{r: r, h: &history.History{NoOverdraft: true}, heads: map[string]uint64{}, known: map[string]*history.Append{}, taken: map[string]bool{}}
	c.put(history.Event{Stream: "$log", Type: "log-created", ID: "born"})
	const pace = 2 * ms
	for i := range ops {
		at := time.Duration(i+50) * pace
		op := history.Op{
			Client: i % 20, Workload: "append", Node: fmt.Sprintf("n%d", i%nodes+1), Outcome: history.OK,
			Start: at - time.Duration(r.IntN(20))*ms, End: at + time.Duration(r.IntN(20))*ms,
		}
		if n := len(c.later); n > 0 && r.IntN(3) == 0 {
			c.later[n-1]()
			c.later = c.later[:n-1]
		}
		switch stream := fmt.Sprintf("s-%d", r.IntN(streams)); r.IntN(6) {
		case 0:
			c.read(&op, stream)
		case 1:
			op.Workload = transferWorkload
			other := fmt.Sprintf("s-%d", r.IntN(streams))
			a := &history.Append{Events: []history.Event{c.event(i, 0, "a"+stream), c.event(i, 1, "a"+other)}}
			a.Events[0].Amount, a.Events[1].Amount = 5, int64(5*r.IntN(2)) // some pay in
			c.append(&op, a)
		case 2:
			op.Workload = "unique"
			a := &history.Append{Events: []history.Event{c.event(i, 0, stream)}}
			tag := fmt.Sprintf("name:%d", r.IntN(ops))
			a.Events[0].Tags = []string{tag}
			a.Conditions = []history.Condition{{Tag: tag}}
			c.append(&op, a)
		default:
			a := &history.Append{}
			for j := range 1 + r.IntN(3) {
				a.Events = append(a.Events, c.event(i, j, stream))
			}
			if r.IntN(2) == 0 {
				a.Conditions = []history.Condition{{Stream: stream, Version: c.heads[stream] - min(c.heads[stream], uint64(r.IntN(2)))}}
			}
			c.append(&op, a)
		}
	}
	for _, f := range c.later[:len(c.later)/2] { // the others never happen
		f()
	}
	c.end(nodes, time.Duration(ops)*pace)
	return c.h
}

func (c *cluster) event(op, n int, stream string) history.Event {
	id := fmt.Sprintf("e%d/%d", op, n)
	return history.Event{Stream: stream, Type: "T", ID: id, Sum: history.Sum([]byte(id))}
}

func (c *cluster) put(e history.Event) {
	c.heads[e.Stream]++
	e.Position, e.Version, e.Time = uint64(len(c.log))+1, c.heads[e.Stream], int64(len(c.log)/3)
	c.log = append(c.log, e)
}

// append sends a, which may take effect at once, later or never, and perhaps
// sends it again.
func (c *cluster) append(op *history.Op, a *history.Append) {
	op.Append = a
	if c.r.IntN(20) == 0 {
		op.Outcome = history.Unknown
		c.later = append(c.later, func() { c.decide(&history.Op{}, a) })
		retry := *op
		c.h.Ops = append(c.h.Ops, *op)
		if c.r.IntN(2) == 0 {
			return
		}
		again := *a
		op, a = &retry, &again
		op.Append, op.Outcome, op.Workload = a, history.OK, "retry"
	}
	c.decide(op, a)
	c.h.Ops = append(c.h.Ops, *op)
}

func (c *cluster) decide(op *history.Op, a *history.Append) {
	if known := c.known[a.Events[0].ID]; known != nil {
		if op.Append != nil {
			a.First, a.Last, a.Versions, a.Duplicate = known.First, known.Last, known.Versions, true
		}
		return
	}
	for _, cond := range a.Conditions {
		if cond.Tag != "" && c.taken[cond.Tag] || cond.Tag == "" && c.heads[cond.Stream] != cond.Version {
			op.Outcome, op.Code = history.Refused, conditionFailed
			return
		}
	}
	answer := &history.Append{First: uint64(len(c.log)) + 1, Versions: map[string]uint64{}}
	for _, e := range a.Events {
		c.put(e)
		answer.Versions[e.Stream] = c.heads[e.Stream]
		for _, tag := range e.Tags {
			c.taken[tag] = true
		}
	}
	answer.Last = uint64(len(c.log))
	c.known[a.Events[0].ID] = answer
	if op.Append != nil {
		a.First, a.Last, a.Versions = answer.First, answer.Last, answer.Versions
	}
}

func (c *cluster) read(op *history.Op, stream string) {
	r := &history.Read{Local: c.r.IntN(3) == 0, Position: uint64(len(c.log))}
	if c.r.IntN(2) == 0 {
		r.After = r.Position - min(r.Position, uint64(c.r.IntN(10)))
		r.Events = slices.Clone(c.log[r.After:])
	} else {
		r.Stream, r.Version = stream, c.heads[stream]
		r.After = r.Version - min(r.Version, uint64(c.r.IntN(3)))
		version := r.Version
		for i := len(c.log) - 1; version > r.After; i-- {
			if c.log[i].Stream == stream {
				r.Events = append(r.Events, c.log[i])
				version--
			}
		}
		slices.Reverse(r.Events)
	}
	op.Read = r
	c.h.Ops = append(c.h.Ops, *op)
}

func (c *cluster) end(nodes int, length time.Duration) {
	h := c.h
	h.Length = length
	slices.SortStableFunc(h.Ops, func(a, b history.Op) int { return cmp.Compare(a.Start, b.Start) })
	for i := range h.Ops {
		h.Ops[i].ID = i + 1
	}
	for i := range nodes {
		h.Nodes = append(h.Nodes, history.Node{
			Name: fmt.Sprintf("n%d", i+1), LogID: "L", Events: slices.Clone(c.log), Segments: []history.Segment{{Name: "1.seg"}},
			Worked: map[string]int64{"rolls": 1, "savepoints": 1, "snapshots": 1, "installs": 1, "flushes": 1, "compactions": 1},
		})
	}
	for i, prefix := range []string{"", "s-1", "as-"} {
		h.Followers = append(h.Followers, history.Follower{ID: i, Prefix: prefix, Done: true, Through: uint64(len(c.log))})
		for _, e := range c.log {
			if strings.HasPrefix(e.Stream, prefix) {
				h.Deliveries = append(h.Deliveries, history.Delivery{Follower: i, Connection: 1, At: never - 1, Event: e})
			}
		}
	}
	for i := range 5 {
		at := length * time.Duration(i) / 5
		h.Faults = append(h.Faults, history.Fault{Nemesis: "kill", What: "kill", Start: at, End: at + length/10, Bit: map[string]int64{"ended": 1}})
	}
}

func TestAll_CorrectCluster(t *testing.T) {
	r := newRand(t)
	for range 60 {
		h := generate(r, 1+r.IntN(300), 1+r.IntN(20), 1+r.IntN(5))
		for _, v := range All(h, Options{Rate: -1}) {
			if !v.Valid {
				t.Fatalf("%s: %s\n%s", v.Checker, v.Detail, strings.Join(v.Problems, "\n"))
			}
		}
	}
}

var (
	opsFlag     = flag.Int("ops", 20_000, "how many operations the large history has")
	streamsFlag = flag.Int("streams", 500, "in how many streams")
)

// A history of the size of a long run must be judged in well under a minute.
func TestAll_LargeHistory(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a few seconds")
	}
	h := generate(newRand(t), *opsFlag, *streamsFlag, 5)
	began := time.Now()
	for _, v := range All(h, Options{}) {
		t.Logf("%-16s %8v  %s", v.Checker, v.Took.Round(ms), v.Detail)
		if !v.Valid {
			t.Errorf("%s: %q", v.Checker, v.Problems)
		}
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("took %v", took)
	}
}

// A cluster that makes one mistake must not pass. Each spoils a random history
// and reports whether it could.
var mistakes = map[string]func(r *rand.Rand, h *history.History) bool{
	"loses an acknowledged append": func(r *rand.Rand, h *history.History) bool {
		op := pick(r, h, func(op *history.Op) bool { return op.Outcome == history.OK && op.Append != nil })
		if op == nil {
			return false
		}
		logs(h, func(log []history.Event) []history.Event {
			return renumber(slices.Delete(log, int(op.Append.First-1), int(op.Append.Last)))
		})
		return true
	},
	"writes one event twice": func(r *rand.Rand, h *history.History) bool {
		place := r.IntN(len(h.Nodes[0].Events))
		logs(h, func(log []history.Event) []history.Event { return renumber(append(log, log[place])) })
		return true
	},
	"acknowledges what it refused": func(r *rand.Rand, h *history.History) bool {
		op := pick(r, h, func(op *history.Op) bool { return op.Outcome == history.Refused })
		if op == nil {
			return false
		}
		op.Outcome, op.Append.First, op.Append.Last = history.OK, 2, 1+uint64(len(op.Append.Events))
		return true
	},
	"answers a linearizable read from the past": func(r *rand.Rand, h *history.History) bool {
		op := pick(r, h, func(op *history.Op) bool {
			return op.Read != nil && !op.Read.Local && op.Read.Stream == "" && op.Read.Position > 150 && len(op.Read.Events) == 0
		})
		if op == nil {
			return false
		}
		op.Read.Position, op.Read.After = 50, 50
		return true
	},
	"exchanges two events": func(r *rand.Rand, h *history.History) bool {
		i := 1 + r.IntN(len(h.Nodes[0].Events)-1)
		logs(h, func(log []history.Event) []history.Event { return renumber(swap(i-1, i)(log)) })
		return true
	},
	"keeps something else on one node": func(r *rand.Rand, h *history.History) bool {
		h.Nodes[r.IntN(len(h.Nodes))].Events[r.IntN(len(h.Nodes[0].Events))].Sum = "other"
		return len(h.Nodes) > 1
	},
	"skips an event for a follower": func(r *rand.Rand, h *history.History) bool {
		i := r.IntN(len(h.Deliveries))
		h.Deliveries = slices.Delete(h.Deliveries, i, i+1)
		return true
	},
}

func pick(r *rand.Rand, h *history.History, fits func(*history.Op) bool) *history.Op {
	for _, i := range r.Perm(len(h.Ops)) {
		if fits(&h.Ops[i]) {
			return &h.Ops[i]
		}
	}
	return nil
}

// renumber makes a changed log look untouched by itself.
func renumber(log []history.Event) []history.Event {
	versions := map[string]uint64{}
	for i := range log {
		versions[log[i].Stream]++
		log[i].Position, log[i].Version, log[i].Time = uint64(i)+1, versions[log[i].Stream], int64(i)
	}
	return log
}

func TestAll_ClusterThatMakesOneMistake(t *testing.T) {
	r := newRand(t)
	for name, spoil := range mistakes {
		made := 0
		for range 10 {
			h := generate(r, 300, 10, 3)
			if !spoil(r, h) {
				continue
			}
			made++
			if Valid(All(h, Options{})) {
				t.Errorf("a cluster that %s passes", name)
			}
		}
		if made == 0 {
			t.Errorf("no cluster could be made that %s", name)
		}
	}
}
