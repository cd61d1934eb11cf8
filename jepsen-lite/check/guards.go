package check

import (
	"encoding/json"
	"fmt"
	"strings"

	"cairn/event"
	"cairn/jepsen-lite/history"
	"cairn/projection"
)

var guards = checker{
	"guards",
	"No account of the bank was below zero at any version. Everything that a guarding projection let in passes its guards, and whatever it refused broke one in a state there was between request and answer.",
	judgeGuards,
}

const (
	codeGuardFailed = "guard-failed"
	codeFoldFailed  = "fold-failed"
)

func judgeGuards(v *view, _ Options, verdict *Verdict) {
	moves := v.judgeBank(verdict)
	guarding := 0
	for _, g := range v.defined().generations {
		if g.Guarding() {
			guarding++
		}
		for _, fault := range g.broken {
			verdict.problem("%s", fault)
		}
	}
	for i := range v.h.Ops {
		op := &v.h.Ops[i]
		if appendOf(op) == nil || op.Outcome != history.Refused || op.Code != codeGuardFailed && op.Code != codeFoldFailed {
			continue
		}
		verdict.Counts[op.Code]++
		if fault := v.unjustified(op); fault != "" {
			verdict.problem("%s was refused (%s), but %s", opName(op), op.Code, fault)
		}
		if ack := v.acknowledgedBefore(op); ack != nil {
			verdict.problem("%s was refused (%s), though its events had been acknowledged to %s", opName(op), op.Code, opName(ack))
		}
	}
	verdict.Counts["moves"] = int64(moves)
	verdict.Detail = fmt.Sprintf("%s of the bank; %s; %s refused by a guard, %s that can't be folded", count(moves, "event"),
		count(guarding, "guarding generation"), count(int(verdict.Counts[codeGuardFailed]), "append"), comma(int(verdict.Counts[codeFoldFailed])))
}

// judgeBank adds up the accounts of the workload bank-guarded, in plain integers
// and without a look at any definition.
func (v *view) judgeBank(verdict *Verdict) (moves int) {
	balance := map[string]int64{}
	for i := range v.log {
		e := &v.log[i]
		if !strings.HasPrefix(e.Stream, "bank-") {
			continue
		}
		moves++
		var data struct{ Amount *int64 }
		if err := json.Unmarshal(e.Data, &data); err != nil || data.Amount == nil {
			verdict.problem("%s at position %d has no amount: %s", eventName(e), i+1, e.Data)
			continue
		}
		if balance[e.Stream] += *data.Amount; balance[e.Stream] < 0 {
			verdict.problem("account %q is at %d at version %d, position %d", e.Stream, balance[e.Stream], e.Version, i+1)
		}
	}
	return moves
}

// unjustified says why no state that the log can have been in, between an
// append's start and its end, explains that it was refused; or "". The answer
// names the row and, for a guard, the last event in the state that it saw: that
// state must have been the row's at one of those moments, and folding the append
// from there must break that very guard.
func (v *view) unjustified(op *history.Op) string {
	r := op.Refusal
	if r == nil || r.Event < 0 || r.Event >= len(op.Append.Events) {
		return "the answer does not say for which event"
	}
	least, most := v.least(op), v.most(op.End)
	candidates := v.defined().inForce(r.Projection, least, max(least, most))
	fault := fmt.Sprintf("projection %q did not guard anything then", r.Projection)
	for _, g := range candidates {
		if !g.Guarding() {
			continue
		}
		t := trial{view: v, g: g, op: op, from: max(least, g.Live), to: min(most, g.until-1)}
		if t.explains() {
			return ""
		}
		fault = fmt.Sprintf("event %d breaks nothing for row %q of projection %s in any state from position %d to %d that ended with position %d",
			r.Event, r.Key, r.Projection, t.from, t.to, r.State)
	}
	return fault
}

// trial folds a refused append from every state of its row in a span of
// positions.
type trial struct {
	view     *view
	g        *generation
	op       *history.Op
	from, to uint64
}

func (t *trial) explains() bool {
	r := t.op.Refusal
	states := t.g.rows[r.Key]
	for i := -1; i < len(states); i++ {
		begin, end, s := uint64(0), t.to, rowState{}
		if i >= 0 {
			begin, s = states[i].position, states[i]
		}
		if i+1 < len(states) {
			end = min(end, states[i+1].position-1)
		}
		if begin = max(begin, t.from); begin > end {
			continue
		}
		for _, number := range t.numbers() {
			if t.explainedBy(s, begin, number) {
				return true
			}
		}
	}
	return false
}

// numbers are the schemas that the event may have been stamped with, if it did
// not name one.
func (t *trial) numbers() []uint32 {
	e := &t.op.Append.Events[t.op.Refusal.Event]
	if e.Schema > 0 {
		return []uint32{e.Schema}
	}
	numbers := []uint32{0}
	for n := uint32(1); n <= t.view.defined().at(t.to).Types().Newest(e.Type); n++ {
		numbers = append(numbers, n)
	}
	return numbers
}

// explainedBy reports whether the refusal is right from a state that the row had
// when the log's end was at position begin.
func (t *trial) explainedBy(s rowState, begin uint64, number uint32) bool {
	r := t.op.Refusal
	for place := range r.Event + 1 {
		e := stored(&t.op.Append.Events[place])
		e.Position = begin + uint64(place) + 1
		if e.Schema == 0 {
			e.Schema = number
		}
		if !t.g.Matches(&e) {
			continue
		}
		next, changed, refused, ours := t.step(s, &e)
		if place == r.Event {
			return refused != nil && t.fits(*refused, s)
		}
		if !ours {
			continue
		}
		if refused != nil {
			return false // it would have been for this event
		}
		if changed {
			s.state = next
		}
	}
	return false
}

// refusedFor says what stands against an event: a rule, or "" if it can't be
// folded.
type refusedFor struct{ rule string }

// step folds an event of the append into the row, if it is for that row.
func (t *trial) step(s rowState, e *event.Event) (next []byte, changed bool, refused *refusedFor, ours bool) {
	brought, err := t.view.defined().last().Bring(t.g.Generation, e)
	if err != nil {
		return nil, false, &refusedFor{}, true
	}
	in := projection.NewInput(brought)
	key, ok, err := t.g.Key(in)
	if err != nil {
		return nil, false, &refusedFor{}, true
	}
	if !ok || key != t.op.Refusal.Key {
		return nil, false, nil, false
	}
	if s.failed > 0 {
		return nil, false, &refusedFor{}, true
	}
	next, changed, violation, err := t.g.Step(s.state, in, true)
	switch {
	case err != nil:
		refused = &refusedFor{}
	case violation != nil:
		refused = &refusedFor{violation.Rule}
	}
	return next, changed, refused, true
}

// fits reports whether the answer is about that refusal, in that state.
func (t *trial) fits(found refusedFor, s rowState) bool {
	r := t.op.Refusal
	if t.op.Code == codeFoldFailed {
		return found.rule == ""
	}
	if found.rule == "" || found.rule != r.Guard {
		return false
	}
	return r.State == s.last // that before the append, whose own events have no positions
}
