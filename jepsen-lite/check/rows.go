package check

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"cairn/event"
	"cairn/jepsen-lite/history"
	"cairn/projection"
)

var rows = checker{
	"rows",
	"The rows of every projection are what folding the final log gives: on all nodes in the end, in every answer, and as they were at earlier positions. Reads miss nothing acknowledged before.",
	judgeRows,
}

func judgeRows(v *view, _ Options, verdict *Verdict) {
	d := v.defined()
	for _, fault := range d.faults {
		verdict.problem("%s", fault)
	}
	reads, past := 0, 0
	for i := range v.h.Ops {
		op := &v.h.Ops[i]
		switch {
		case op.State != nil && op.Outcome == history.OK:
			if reads++; op.State.AtPosition > 0 {
				past++
			}
			if fault := v.misreadState(op); fault != "" {
				verdict.problem("%s of projection %s: %s", opName(op), op.State.Projection, fault)
			}
		case op.State != nil && op.Code == codeBuilding:
			if live := d.inForce(op.State.Projection, v.least(op), v.least(op)); len(live) > 0 {
				verdict.problem("%s was told that projection %s is being built, which is live since position %d", opName(op), op.State.Projection, live[0].Live)
			}
		case op.Define != nil && op.Define.Projection != "" && op.Outcome == history.OK:
			if fault := v.misdefined(op); fault != "" {
				verdict.problem("%s defined projection %s as generation %d, but %s", opName(op), op.Define.Projection, op.Define.Generation, fault)
			}
		}
	}
	tables, held := v.judgeTables(verdict)
	verdict.Counts["reads"] = int64(reads)
	verdict.Counts["reads of the past"] = int64(past)
	verdict.Counts["generations"] = int64(len(d.generations))
	verdict.Counts["rows"] = int64(held)
	verdict.Detail = fmt.Sprintf("%s, %s of the past; %s with %s; %s in force over the run",
		count(reads, "read"), comma(past), count(tables, "table"), count(held, "row"), count(len(d.generations), "generation"))
}

// codeBuilding is the code of a refusal to read rows that are not there yet.
const codeBuilding = "projection-building"

// judgeTables judges what the nodes have in the end.
func (v *view) judgeTables(verdict *Verdict) (tables, held int) {
	d := v.defined()
	for i := range v.h.Nodes {
		n := &v.h.Nodes[i]
		there := map[string]bool{}
		for j := range n.Tables {
			t := &n.Tables[j]
			tables++
			held += len(t.Rows)
			if !t.Past {
				there[t.Projection] = true
			}
			if fault := v.mismatch(t); fault != "" {
				verdict.problem("projection %s on %s: %s", t.Projection, n.Name, fault)
			}
		}
		for _, g := range d.generations {
			if g.until == math.MaxUint64 && !there[g.Name] && len(n.Events) > 0 {
				verdict.problem("the rows of projection %s on %s could not be read", g.Name, n.Name)
			}
		}
	}
	return tables, held
}

// mismatch says how a table is not what the log gives, or "".
func (v *view) mismatch(t *history.Table) string {
	end := uint64(len(v.log))
	live := v.defined().inForce(t.Projection, end, end)
	if len(live) == 0 {
		return "no generation is in force"
	}
	position := t.AtPosition
	if position == 0 {
		position = end // it has no row that would say
	}
	switch {
	case len(t.Rows) > 0 && t.Generation != live[0].ID:
		return fmt.Sprintf("rows are of generation %d, in force is %d", t.Generation, live[0].ID)
	case position > end, !t.Past && position < end:
		return fmt.Sprintf("rows are as of position %d, the final log ends at %d", position, end)
	}
	return differ(t.Rows, live[0].list("", 0, position), position)
}

// differ says how rows are not those that the log gives, or "".
func differ(got, want []history.Row, position uint64) string {
	for i := range want {
		if i >= len(got) || got[i].Key > want[i].Key {
			return fmt.Sprintf("row %q is missing as of position %d", want[i].Key, position)
		}
		if got[i] != want[i] {
			return fmt.Sprintf("as of position %d row %q is %s, but folding the log gives %s", position, got[i].Key, rowName(got[i]), rowName(want[i]))
		}
	}
	if len(got) > len(want) {
		return fmt.Sprintf("row %q is there as of position %d, though no event made it", got[len(want)].Key, position)
	}
	return ""
}

func rowName(r history.Row) string {
	text := fmt.Sprintf("%s %s after %s, the last at %d", r.Key, r.State, count(int(min(r.Events, math.MaxInt32)), "event"), r.Position)
	if r.Failed > 0 {
		text += fmt.Sprintf(", stopped at %d", r.Failed)
	}
	return text
}

// misreadState says what is wrong with the answer to a read of rows, or "".
func (v *view) misreadState(op *history.Op) string {
	s := op.State
	least, most := v.least(op), v.most(op.End)
	candidates := v.defined().inForce(s.Projection, least, max(least, most))
	if s.Generation > 0 {
		candidates = slices.DeleteFunc(candidates, func(g *generation) bool { return g.ID != s.Generation })
	}
	if len(candidates) == 0 {
		return fmt.Sprintf("no generation that it can be of (%d) was in force then, from position %d to %d", s.Generation, least, most)
	}
	position := s.AsOf
	switch {
	case s.AtPosition > 0:
		position = s.AtPosition
	case position == 0:
		position = least // no row is there now, so none was then
	case position < least:
		return fmt.Sprintf("it is as of position %d, though position %d had been answered before or was asked for", position, least)
	}
	if position > most {
		return fmt.Sprintf("it is as of position %d, though only %d events had been sent", position, most)
	}
	fault := ""
	for _, g := range candidates {
		want := g.list(s.Prefix, s.Limit, position)
		if s.Key != "" {
			want = nil
			if row, ok := g.row(s.Key, position); ok {
				want = append(want, row)
			}
		}
		if fault = differ(s.Rows, want, position); fault == "" {
			break
		}
	}
	return fault
}

// misdefined says how the final log does not have what was acknowledged to a
// definition, or "".
func (v *view) misdefined(op *history.Op) string {
	at := op.Define.Generation
	if at == 0 || at > uint64(len(v.log)) {
		return fmt.Sprintf("the final log ends at position %d", len(v.log))
	}
	e := &v.log[at-1]
	var body event.ProjectionDefined
	if e.Stream != event.StreamProjections || e.Type != event.TypeProjectionDefined || json.Unmarshal(e.Data, &body) != nil {
		return "no definition stands there"
	}
	got, err := projection.ParseDefinition(body.Name, body.Definition)
	if err != nil {
		return "what stands there is none: " + err.Error()
	}
	want, err := projection.ParseDefinition(op.Define.Projection, op.Define.Body)
	if err != nil || string(got.Canonical()) != string(want.Canonical()) {
		return "another definition stands there"
	}
	return ""
}
