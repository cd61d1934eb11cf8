package check

import (
	"cmp"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"cairn/jepsen-lite/history"
)

var linearizable = checker{
	"linearizable",
	"The appends and linearizable reads of each stream can have happened one after the other, each between its start and its end (Porcupine).",
	judgeLinearizable,
}

const (
	defaultTimeout = time.Minute
	explainTime    = 5 * time.Second // to say more of a partition that is known not to be linearizable
)

func judgeLinearizable(v *view, o Options, verdict *Verdict) {
	parts := v.partitions()
	results := judgePartitions(parts, o.Timeout)
	ops, largest, unknown := 0, 0, 0
	for i, p := range parts {
		ops += len(p.ops)
		largest = max(largest, len(p.ops))
		switch results[i] {
		case porcupine.Unknown:
			unknown++
		case porcupine.Illegal:
			// Explaining takes time; the first ones will do.
			if verdict.Counts["problems"] < maxProblems {
				verdict.problem("%s", explain(&p))
			} else {
				verdict.problem("stream %q", p.stream)
			}
		}
	}
	if unknown > 0 {
		verdict.problem("time ran out with %d of %s undecided", unknown, count(len(parts), "partition"))
	}
	verdict.Counts["operations"] = int64(ops)
	verdict.Counts["partitions"] = int64(len(parts))
	verdict.Counts["largest"] = int64(largest)
	verdict.Counts["undecided"] = int64(unknown)
	verdict.Detail = fmt.Sprintf("%s in %s, the largest of %s", count(ops, "operation"), count(len(parts), "partition"), comma(largest))
}

// judgePartitions asks Porcupine about each partition until the time is over.
// What it was not asked about is Unknown.
func judgePartitions(parts []partition, timeout time.Duration) []porcupine.CheckResult {
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	deadline := time.Now().Add(timeout)
	results := make([]porcupine.CheckResult, len(parts))
	next := make(chan int)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := range next {
				results[i] = porcupine.Unknown
				if left := time.Until(deadline); left > 0 {
					results[i] = porcupine.CheckOperationsTimeout(model(parts[i].from), parts[i].ops, left)
				}
			}
		})
	}
	for i := range parts {
		next <- i
	}
	close(next)
	wg.Wait()
	return results
}

// explain names where the longest attempt to order a partition's operations
// got stuck.
func explain(p *partition) string {
	result, info := porcupine.CheckOperationsVerbose(model(p.from), p.ops, explainTime)
	if result != porcupine.Illegal {
		return fmt.Sprintf("stream %q: no order of its operations explains it", p.stream)
	}
	var longest []porcupine.Operation
	for _, attempts := range info.PartialLinearizationsOperations() {
		for _, attempt := range attempts {
			if len(attempt) > len(longest) {
				longest = attempt
			}
		}
	}
	version, done := p.from, map[*step]bool{}
	for _, op := range longest {
		s := op.Input.(*step)
		_, version = s.apply(version)
		done[s] = true
	}
	left := slices.DeleteFunc(slices.Clone(p.ops), func(op porcupine.Operation) bool { return done[op.Input.(*step)] })
	slices.SortStableFunc(left, func(a, b porcupine.Operation) int { return cmp.Compare(a.Return, b.Return) })
	var names []string
	for _, op := range left[:min(len(left), 3)] {
		names = append(names, fmt.Sprintf("%s, %s", op.Input.(*step), opName(op.Input.(*step).op)))
	}
	return fmt.Sprintf("stream %q: after %d of %s, at version %d, none can be next that had to be: %s",
		p.stream, len(longest), count(len(p.ops), "operation"), version, strings.Join(names, "; "))
}

// Timeline writes Porcupine's picture of one partition as a page of HTML: the
// first that is not linearizable, or else the one with the most operations. It
// writes nothing if there is none.
func Timeline(h *history.History, o Options, w io.Writer) error {
	parts := newView(h).partitions()
	if len(parts) == 0 {
		return nil
	}
	chosen := 0
	for i, result := range judgePartitions(parts, o.Timeout) {
		if result == porcupine.Illegal {
			chosen = i
			break
		}
		if len(parts[i].ops) > len(parts[chosen].ops) {
			chosen = i
		}
	}
	p := parts[chosen]
	drawable(p.ops)
	_, info := porcupine.CheckOperationsVerbose(model(p.from), p.ops, explainTime)
	if err := porcupine.Visualize(model(p.from), info, w); err != nil {
		return fmt.Errorf("timeline of stream %q: %w", p.stream, err)
	}
	return nil
}

// drawable gives each client a row: 0, 1, 2, …, and each operation of unknown
// outcome one of its own, since its client went on meanwhile.
func drawable(ops []porcupine.Operation) {
	rows := map[int]int{}
	for i := range ops {
		if ops[i].Input.(*step).op.Outcome == history.Unknown {
			ops[i].ClientId = -1 - i
		}
		client := ops[i].ClientId
		if _, ok := rows[client]; !ok {
			rows[client] = len(rows)
		}
		ops[i].ClientId = rows[client]
	}
}
