package workload

import (
	"context"
	"fmt"
	"time"

	"cairn/event"
	"cairn/jepsen-lite/history"
)

// A stream is used for so many appends of its workload: the search for a
// linearization grows fast with their number.
const appendsOfAStream = 60

// crowd is how many streams the workload append writes to at a time.
const crowd = 5

// ballast is the usual size of an event's data.
const ballast = 120

// stepAppend appends to one of the present streams, mostly on the condition
// that it is still at the version last heard of, or reads it.
func (a *actor) stepAppend(ctx context.Context) {
	round := a.group.next() / (crowd * appendsOfAStream)
	stream := fmt.Sprintf("append-%d-%d", round, a.rng.IntN(crowd))
	node := a.anyNode()
	if a.rng.IntN(10) < 4 {
		a.read(ctx, node, history.Read{Stream: stream, Limit: 1000})
		return
	}
	what := event.Append{}
	for range 1 + a.rng.IntN(3) {
		what.Events = append(what.Events, a.event(stream, "Noted", 0, ballast))
	}
	if a.rng.IntN(10) < 7 {
		what.Conditions = []event.Condition{{Kind: event.StreamAtVersion, Stream: stream, Version: a.known[stream]}}
	}
	if _, outcome := a.append(ctx, node, what); outcome == history.Refused && a.rng.IntN(2) == 0 {
		a.read(ctx, a.anyNode(), history.Read{Stream: stream, Limit: 1000})
	}
}

const (
	accounts = 12
	payment  = 1000
)

func account(i int) string { return fmt.Sprintf("transfer-%d", i) }

// payIn pays into every account, once.
func (a *actor) payIn(ctx context.Context) error {
	for i := range accounts {
		what := event.Append{
			Events:     []event.Event{a.event(account(i), "PaidIn", payment, 0)},
			Conditions: []event.Condition{{Kind: event.StreamAtVersion, Stream: account(i)}},
		}
		for deadline := time.Now().Add(20 * time.Second); ; {
			_, outcome := a.append(ctx, a.anyNode(), what)
			if outcome == history.OK {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("nothing could be paid into %s", account(i))
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	return nil
}

// stepTransfer moves money from one account to another, on the condition that
// both are as they were read. An account is never overdrawn.
func (a *actor) stepTransfer(ctx context.Context) {
	from := a.rng.IntN(accounts)
	to := (from + 1 + a.rng.IntN(accounts-1)) % accounts
	node := a.anyNode()
	has, atFrom, ok := a.balance(ctx, node, account(from))
	if !ok {
		return
	}
	_, atTo, ok := a.balance(ctx, node, account(to))
	if !ok {
		return
	}
	sum := 1 + a.rng.Int64N(300)
	if sum > has {
		return
	}
	a.append(ctx, a.anyNode(), event.Append{
		Events: []event.Event{a.event(account(from), "Left", -sum, 0), a.event(account(to), "Arrived", sum, 0)},
		Conditions: []event.Condition{
			{Kind: event.StreamAtVersion, Stream: account(from), Version: atFrom},
			{Kind: event.StreamAtVersion, Stream: account(to), Version: atTo},
		},
	})
}

// balance adds up an account, from what the client knows of it already.
func (a *actor) balance(ctx context.Context, node int, stream string) (sum int64, version uint64, ok bool) {
	if a.accounts == nil {
		a.accounts = map[string]*statement{}
	}
	s := a.accounts[stream]
	if s == nil {
		s = &statement{}
		a.accounts[stream] = s
	}
	events, ok := a.read(ctx, node, history.Read{Stream: stream, After: s.version, Limit: 1000})
	if !ok {
		return 0, 0, false
	}
	for _, e := range events {
		s.sum += e.Amount
		s.version = e.Version
	}
	return s.sum, s.version, true
}

// statement is what a client has added up of an account.
type statement struct {
	sum     int64
	version uint64
}

// stepUnique tries to take a name that others try to take too.
func (a *actor) stepUnique(ctx context.Context) {
	name := fmt.Sprintf("name:%d", a.group.next()/4)
	taken := a.event(fmt.Sprintf("unique-%d", a.number), "NameTaken", 0, ballast)
	taken.Tags = []string{name}
	a.append(ctx, a.anyNode(), event.Append{
		Events: []event.Event{taken},
		Conditions: []event.Condition{{
			Kind: event.NoMatch, Query: event.Query{Items: []event.QueryItem{{Tags: []string{name}}}},
		}},
	})
}

// stepRetry appends, or sends again what has no definite answer yet.
func (a *actor) stepRetry(ctx context.Context) {
	if a.open == nil {
		stream := fmt.Sprintf("retry-%d-%d", a.number, a.made/appendsOfAStream)
		what := event.Append{Events: []event.Event{a.event(stream, "Tried", 0, ballast)}}
		if a.rng.IntN(2) == 0 {
			what.Events = append(what.Events, a.event(stream+"-too", "Tried", 0, ballast))
		}
		if a.rng.IntN(2) == 0 { // nobody else writes here; a retry must not be refused for its own events
			what.Conditions = []event.Condition{{Kind: event.StreamAtVersion, Stream: stream, Version: a.known[stream]}}
		}
		a.open = &what
	}
	_, outcome := a.append(ctx, a.anyNode(), *a.open)
	// Some that succeeded are sent once more, as a client does that has lost the
	// answer.
	if outcome == history.OK && a.rng.IntN(4) != 0 {
		a.open = nil
	}
}

// stepReadback reads its own append, as of its position, at another node.
func (a *actor) stepReadback(ctx context.Context) {
	node := a.anyNode()
	what := event.Append{Events: []event.Event{a.event(fmt.Sprintf("readback-%d-%d", a.number, a.made/appendsOfAStream), "Written", 0, ballast)}}
	answer, outcome := a.append(ctx, node, what)
	if outcome != history.OK {
		return
	}
	other := (node + 1 + a.rng.IntN(len(a.of.clients)-1)) % len(a.of.clients)
	a.read(ctx, other, history.Read{Stream: what.Events[0].Stream, Local: true, MinPosition: answer.Last, Limit: 1000})
	// And the end of the whole log, from anywhere.
	a.read(ctx, a.anyNode(), history.Read{After: max(answer.Last, 20) - 20, Limit: 100, Local: a.rng.IntN(2) == 0})
}

// stepBig appends as much as one event or one append may have.
func (a *actor) stepBig(ctx context.Context) {
	stream := fmt.Sprintf("big-%d", a.made/appendsOfAStream)
	what := event.Append{}
	switch a.rng.IntN(3) {
	case 0: // one event
		what.Events = []event.Event{a.event(stream, "Large", 0, 1<<20-200)}
	case 1: // two of nearly that size
		what.Events = []event.Event{a.event(stream, "Large", 0, 1<<20-1000), a.event(stream, "Large", 0, 1<<20-1000)}
	default: // very many
		for range 2000 {
			what.Events = append(what.Events, a.event(stream, "Small", 0, 10))
		}
	}
	a.append(ctx, a.anyNode(), what)
}

// stepStreams begins a stream.
func (a *actor) stepStreams(ctx context.Context) {
	stream := fmt.Sprintf("streams-%d-%d", a.number, a.made)
	e := a.event(stream, "Begun", 0, ballast)
	e.Tags = []string{"streams", fmt.Sprintf("kind:%d", a.rng.IntN(5))}
	a.append(ctx, a.anyNode(), event.Append{
		Events:     []event.Event{e},
		Conditions: []event.Condition{{Kind: event.StreamAtVersion, Stream: stream}},
	})
}
