package workload

import (
	"context"
	"fmt"

	"cairn/event"
	"cairn/jepsen-lite/history"
)

const (
	bankCategory   = "bank"
	bankProjection = "bank"
	bankAccounts   = 8
)

// bankDefinition keeps every account at 0 or above.
const bankDefinition = `{
	"match": {"category": "bank"},
	"init": {"balance": 0, "moves": 0},
	"when": {"*": "{'balance': state.balance + event.data.amount, 'moves': state.moves + 1}"},
	"guards": {"Withdrawn": [{"rule": "state.balance + event.data.amount >= 0", "message": "insufficient funds"}]}
}`

func bankAccount(i int) string { return fmt.Sprintf("%s-%d", bankCategory, i) }

// beginBank has the guard in force before anybody takes money.
func (a *actor) beginBank(ctx context.Context) error {
	return a.defineLive(ctx, bankProjection, bankDefinition)
}

// stepBank moves money without a look at what there is and without a condition:
// only the guard stands between the clients and a debt.
func (a *actor) stepBank(ctx context.Context) {
	if a.open != nil { // sent again with the same ids, until it is known what became of it
		if _, outcome := a.append(ctx, a.anyNode(), *a.open); outcome != history.Unknown {
			a.open = nil
		}
		return
	}
	from := a.rng.IntN(bankAccounts)
	to := (from + 1 + a.rng.IntN(bankAccounts-1)) % bankAccounts
	sum := 1 + a.rng.Int64N(100)
	var events []event.Event
	switch n := a.rng.IntN(20); {
	case n < 5:
		events = []event.Event{a.event(bankAccount(to), "Deposited", sum, ballast)}
	case n < 11:
		events = []event.Event{a.event(bankAccount(from), "Withdrawn", -sum, ballast)}
	case n < 16:
		events = []event.Event{a.event(bankAccount(from), "Withdrawn", -sum, 0), a.event(bankAccount(to), "Deposited", sum, 0)}
	case n < 17: // what comes in first may be taken out within the same append
		events = []event.Event{a.event(bankAccount(from), "Deposited", sum, 0), a.event(bankAccount(from), "Withdrawn", -2*sum, 0)}
	case n < 18: // the second half can't be folded: nothing of the first may stay
		events = []event.Event{a.event(bankAccount(to), "Deposited", sum, 0), a.text(bankAccount(from), "Deposited")}
	default:
		a.readState(ctx, a.anyNode(), history.StateRead{Projection: bankProjection, Key: bankAccount(to)})
		return
	}
	what := event.Append{Events: events}
	if _, outcome := a.append(ctx, a.anyNode(), what); outcome == history.Unknown && a.rng.IntN(2) == 0 {
		a.open = &what
	}
}

// text makes an event with a text where a number belongs.
func (a *actor) text(stream, typ string) event.Event {
	e := a.event(stream, typ, 0, 0)
	e.Data = fmt.Appendf(nil, `{"n":%d,"amount":"much"}`, a.made)
	return e
}
