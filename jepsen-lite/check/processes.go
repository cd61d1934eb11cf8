package check

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"cairn/jepsen-lite/history"
)

var processes = checker{
	"processes",
	"Nodes stop cleanly when asked, end by themselves only where the nemesis gave them reason, and say why. None crashes, panics, or goes on where it must not.",
	judgeProcesses,
}

// excuse is how long after a fault a node may end because of it.
const excuse = 5 * time.Second

// mayEnd are the kinds of faults at which a node has to end: its disk can't be
// used, it has lost what it promised, or it is no member any more.
func mayEnd() []string { return []string{"disk", "rot", "loss", "membership"} }

func judgeProcesses(v *view, _ Options, verdict *Verdict) {
	for _, find := range v.h.Finds {
		verdict.problem("%s", find)
	}
	for i := range v.h.Exits {
		e := &v.h.Exits[i]
		verdict.Counts[e.How]++
		switch {
		case e.How == history.Stopped && e.Code != 0:
			verdict.problem("%s was asked to stop and ended with %s at %.3fs: %s", e.Node, e.Status, e.At.Seconds(), e.LastLine)
		case e.How == history.Itself && (e.Code != 1 || !strings.Contains(e.LastLine, "cairn-node: ")):
			verdict.problem("%s crashed with %s at %.3fs: %s", e.Node, e.Status, e.At.Seconds(), e.LastLine)
		case e.How == history.Itself && !v.excused(e):
			verdict.problem("%s ended by itself at %.3fs, without a fault that explains it: %s", e.Node, e.At.Seconds(), e.LastLine)
		}
	}
	for i := range v.h.Nodes {
		if n := &v.h.Nodes[i]; n.Panics > 0 {
			verdict.problem("%s: %s of request handlers", n.Name, count(n.Panics, "panic"))
		}
	}
	verdict.Detail = fmt.Sprintf("%d processes were killed, %d stopped when asked, %d ended by themselves",
		verdict.Counts[history.Killed], verdict.Counts[history.Stopped], verdict.Counts[history.Itself])
}

// excused reports whether a fault at work on a node explains that it ended.
func (v *view) excused(e *history.Exit) bool {
	return slices.ContainsFunc(v.h.Faults, func(f history.Fault) bool {
		return slices.Contains(mayEnd(), f.Nemesis) && slices.Contains(f.Nodes, e.Node) && f.Start <= e.At && e.At <= f.End+excuse
	})
}
