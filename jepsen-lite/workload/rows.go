package workload

import (
	"context"
	"fmt"

	"cairn/event"
	"cairn/jepsen-lite/history"
)

const (
	rowCategory = "row"
	rowStreams  = 12
	rowGroups   = 6
	// changeEvery is after how many steps the projection that changes does.
	changeEvery = 100
)

// The projections of the workload: by stream, where a row may stop; by tag; by
// what the data says, with a guard; and by type, of every event of the run.
const (
	byStream = `{
	"match": {"category": "row"},
	"init": {"n": 0, "sum": 0},
	"when": {"Put": "{'n': state.n + 1, 'sum': state.sum + event.data.amount, 'id': event.id}", "Cleared": "{'n': state.n + 1, 'id': null}"}
}`
	byTag = `{
	"match": {"stream_prefix": "row-", "types": ["Put"]},
	"key": "size(event.tags) > 0 ? event.tags[0] : null",
	"init": {"count": 0, "streams": {}},
	"when": {"*": "{'count': state.count + 1, 'streams': {event.stream: event.version}}"}
}`
	byGroup = `{
	"match": {"stream_prefix": "row-g"},
	"key": "event.data.group",
	"init": {"sum": 0, "n": 0},
	"when": {"Put": "{'sum': state.sum + event.data.amount, 'n': state.n + 1}"},
	"guards": {"*": [{"rule": "state.sum + event.data.amount <= 500 && state.sum + event.data.amount >= -500", "message": "out of bounds"}]}
}`
	byType = `{"key": "event.type", "init": {"n": 0}, "when": {"*": "{'n': state.n + 1, 'at': event.position}"}}`
)

// changing is the definition that is replaced by another one again and again.
func changing(round int) string {
	return fmt.Sprintf(`{
	"match": {"category": "row", "types": ["Put"]},
	"key": "'%s:' + event.stream",
	"init": {"round": %d},
	"when": {"*": "has(state.%[3]s) ? {'%[3]s': state.%[3]s + 1} : {'%[3]s': 1}"}
}`, []string{"odd", "even"}[round%2], round, fmt.Sprintf("n%d", round%3))
}

// changingName is the projection that changes.
const changingName = "row-changing"

// rowProjections are those of the workload, but for the one that changes.
func rowProjections() []struct{ name, definition string } {
	return []struct{ name, definition string }{
		{"row-stream", byStream}, {"row-tag", byTag}, {"row-group", byGroup}, {"row-type", byType},
	}
}

// beginRows has all of them live.
func (a *actor) beginRows(ctx context.Context) error {
	for _, p := range rowProjections() {
		if err := a.defineLive(ctx, p.name, p.definition); err != nil {
			return err
		}
	}
	return a.defineLive(ctx, changingName, changing(0))
}

// stepRows appends what the projections fold, or reads rows.
func (a *actor) stepRows(ctx context.Context) {
	if n := a.group.next(); n%changeEvery == 0 {
		_, _ = a.define(ctx, a.anyNode(), changingName, changing(n/changeEvery)) // recorded
		return
	}
	if a.rng.IntN(10) < 4 {
		a.readRows(ctx)
		return
	}
	kind := []string{"g", "f"}[a.rng.IntN(2)]
	var events []event.Event
	for range 1 + a.rng.IntN(3) {
		stream := fmt.Sprintf("%s-%s%d", rowCategory, kind, a.rng.IntN(rowStreams))
		typ := "Put"
		if kind == "f" && a.rng.IntN(8) == 0 {
			typ = "Cleared"
		}
		e := a.event(stream, typ, 0, 0)
		e.Data = fmt.Appendf(nil, `{"n":%d,"amount":%d,"group":"group-%d","ballast":"%0*d"}`, a.made, a.rng.Int64N(200)-90, a.rng.IntN(rowGroups), ballast, 0)
		if a.rng.IntN(3) > 0 {
			e.Tags = []string{fmt.Sprintf("tag:%d", a.rng.IntN(rowGroups))}
		}
		events = append(events, e)
	}
	if kind == "f" && a.rng.IntN(30) == 0 { // a row of its own that stops here
		stream := fmt.Sprintf("%s-f%d-bad", rowCategory, a.rng.IntN(3*rowStreams))
		events = append(events, a.event(stream, "Put", 1, 0), a.text(stream, "Put"), a.event(stream, "Put", 1, 0))
	}
	answer, outcome := a.append(ctx, a.anyNode(), event.Append{Events: events})
	if outcome == history.OK {
		a.last = answer.Last
		if a.rng.IntN(3) == 0 { // one's own writes, elsewhere
			a.readState(ctx, a.anyNode(), history.StateRead{Projection: "row-stream", Key: events[0].Stream, Local: true, MinPosition: answer.Last})
		}
	}
}

// readRows reads one row or some, as they are or as they were.
func (a *actor) readRows(ctx context.Context) {
	var r history.StateRead
	switch a.rng.IntN(5) {
	case 0:
		r.Projection, r.Key = "row-stream", fmt.Sprintf("%s-%s%d", rowCategory, []string{"g", "f"}[a.rng.IntN(2)], a.rng.IntN(rowStreams))
	case 1:
		r.Projection, r.Key = "row-tag", fmt.Sprintf("tag:%d", a.rng.IntN(rowGroups))
	case 2:
		r.Projection, r.Key = "row-group", fmt.Sprintf("group-%d", a.rng.IntN(rowGroups))
	case 3:
		r.Projection, r.Key = "row-type", []string{"Put", "Cleared", "Noted"}[a.rng.IntN(3)]
	default:
		r.Projection, r.Limit = []string{changingName, "row-stream", "row-type"}[a.rng.IntN(3)], 5
		r.Prefix = []string{"", rowCategory + "-f"}[a.rng.IntN(2)]
	}
	if a.last > 0 && a.rng.IntN(3) == 0 {
		r.AtPosition = 1 + a.rng.Uint64N(a.last)
	}
	r.Local = a.rng.IntN(4) == 0
	a.readState(ctx, a.anyNode(), r)
}
