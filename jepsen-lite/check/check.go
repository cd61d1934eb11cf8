// Package check judges a history of jepsen-lite: whether what clients,
// followers and nodes saw can be what a correct Cairn shows.
//
// Every checker is a pure function of the history. It may find a fault that is
// none only if the history was recorded wrongly; a history that it calls valid
// has shown no fault of the kind the checker looks for. A checker that could
// not decide says invalid. They share one premise: the final log, the longest
// of the nodes' logs in the end, is a last read of everything.
//
// All functions may be called concurrently, on one history too, as long as
// nobody changes it. In a bubble of testing/synctest no timeout passes while
// they work: call them outside.
package check

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"cairn/jepsen-lite/history"
)

// Verdict is what one checker found.
type Verdict struct {
	Checker  string
	Proves   string // one line: what a valid verdict says
	Valid    bool
	Detail   string           // one line for people, also when valid
	Problems []string         // the first 10
	Counts   map[string]int64 // what Detail says in figures; "problems" counts all of them
	Took     time.Duration
}

const maxProblems = 10

// problem makes the verdict invalid and says why.
func (v *Verdict) problem(format string, args ...any) {
	v.Valid = false
	v.Counts["problems"]++
	if len(v.Problems) < maxProblems {
		v.Problems = append(v.Problems, fmt.Sprintf(format, args...))
	}
}

// Options are what some checkers need beside the history.
type Options struct {
	// Timeout bounds the search for a linearization. 0 means one minute.
	Timeout time.Duration
	// Rate is how many acknowledged operations a second, on average over the
	// part with faults, make a run that means something. 0 means 50, less than 0
	// that any rate will do.
	Rate float64
	// Worked names the counters of History.Nodes that must not be zero, summed
	// over the nodes. nil means DefaultWorked, an empty slice none. Of a history
	// that says which nemeses were asked for, installs count only with install.
	Worked []string
}

// DefaultWorked returns the counters that a run must move to mean something.
func DefaultWorked() []string {
	return []string{"rolls", "savepoints", "snapshots", "installs", "flushes", "compactions"}
}

// checker is one by name. judge starts from a valid verdict, gives it a Detail
// and its problems.
type checker struct {
	name, proves string
	judge        func(*view, Options, *Verdict)
}

var checkers = []checker{linearizable, acknowledged, finalLog, equalNodes, realTime, atomic, conditions, totals, guards, reads, rows, schemas, followers, recovery, processes, meaning}

// All runs every checker, in an order that puts first what says most.
func All(h *history.History, o Options) []Verdict {
	view := newView(h)
	verdicts := make([]Verdict, len(checkers))
	for i, c := range checkers {
		verdicts[i] = c.run(view, o)
	}
	return verdicts
}

// Valid reports whether every verdict is valid, and there is one.
func Valid(verdicts []Verdict) bool {
	for i := range verdicts {
		if !verdicts[i].Valid {
			return false
		}
	}
	return len(verdicts) > 0
}

func (c checker) run(view *view, o Options) Verdict {
	began := time.Now()
	v := Verdict{Checker: c.name, Proves: c.proves, Valid: true, Counts: map[string]int64{}}
	if len(view.h.Nodes) == 0 {
		v.problem("no node's final log is there to judge from")
	} else {
		c.judge(view, o, &v)
	}
	if n := v.Counts["problems"]; n > 0 {
		v.Detail = strings.TrimSuffix(fmt.Sprintf("%s; %s", count(int(n), "problem"), v.Detail), "; ")
	}
	v.Took = time.Since(began)
	return v
}

// Linearizable judges each stream with Porcupine; see linearizable.go.
func Linearizable(h *history.History, o Options) Verdict { return linearizable.run(newView(h), o) }

// Processes judges how processes ended.
func Processes(h *history.History) Verdict { return processes.run(newView(h), Options{}) }

// Acknowledged judges that what was acknowledged is in the final log as it was
// answered, and what was refused is not.
func Acknowledged(h *history.History) Verdict { return acknowledged.run(newView(h), Options{}) }

// FinalLog judges the final log by itself: gap-free, each event once, nothing
// that nobody sent, time never running backwards.
func FinalLog(h *history.History) Verdict { return finalLog.run(newView(h), Options{}) }

// EqualNodes judges that all nodes have the same log and the same segments.
func EqualNodes(h *history.History) Verdict { return equalNodes.run(newView(h), Options{}) }

// RealTime judges that an append stands behind everything acknowledged before
// it began.
func RealTime(h *history.History) Verdict { return realTime.run(newView(h), Options{}) }

// Atomic judges that appends are in the log as a whole or not at all, and that
// no read saw a part of one.
func Atomic(h *history.History) Verdict { return atomic.run(newView(h), Options{}) }

// Conditions judges that accepted appends met their conditions in their place,
// and that those refused for their conditions had a reason.
func Conditions(h *history.History) Verdict { return conditions.run(newView(h), Options{}) }

// Totals judges that the workloads with money neither made nor lost money.
func Totals(h *history.History) Verdict { return totals.run(newView(h), Options{}) }

// Guards judges that what projections guard held, and that they refused nothing
// else.
func Guards(h *history.History) Verdict { return guards.run(newView(h), Options{}) }

// Rows judges that the rows of projections are what the final log makes of them.
func Rows(h *history.History) Verdict { return rows.run(newView(h), Options{}) }

// Schemas judges that events are valid under their schemas and are read in the
// form of the newest.
func Schemas(h *history.History) Verdict { return schemas.run(newView(h), Options{}) }

// Reads judges each read by what its consistency promises.
func Reads(h *history.History) Verdict { return reads.run(newView(h), Options{}) }

// Followers judges that each follower was given every event once, in order.
func Followers(h *history.History) Verdict { return followers.run(newView(h), Options{}) }

// Recovery judges that appends succeed again soon after faults are healed.
func Recovery(h *history.History) Verdict { return recovery.run(newView(h), Options{}) }

// Meaning judges that the run could have found something: enough was done, the
// faults took effect, the nodes did their upkeep.
func Meaning(h *history.History, o Options) Verdict { return meaning.run(newView(h), o) }

// opName names an operation for people.
func opName(op *history.Op) string {
	return fmt.Sprintf("op %d (%s, client %d, %s, %.3fs to %.3fs)", op.ID, op.Workload, op.Client, op.Node, op.Start.Seconds(), op.End.Seconds())
}

// eventName names an event for people.
func eventName(e *history.Event) string { return fmt.Sprintf("event %q of stream %q", e.ID, e.Stream) }

// count says how many there are of a thing whose plural ends in s.
func count(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return comma(n) + " " + thing
}

// comma writes n with a comma between thousands.
func comma(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
