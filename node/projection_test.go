package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"cairn/event"
	"cairn/fsm"
	"cairn/httpapi"
	"cairn/projection"
)

const accounts = `{"match":{"category":"account"},"init":{"balance":0},
	"when":{"Deposited":"{'balance': state.balance + event.data.amount}","Withdrawn":"{'balance': state.balance - event.data.amount}"},
	"guards":{"Withdrawn":[{"rule":"state.balance >= event.data.amount","message":"insufficient funds"}]}}`

// define defines a projection through a node and waits until it is live there.
func (w *whole) define(name, definition string) {
	w.t.Helper()
	p := projections{w.Machine(), w.Cluster()}
	eventually(w.t, "a definition", func() bool {
		ctx, cancel := context.WithTimeout(w.t.Context(), 5*time.Second)
		defer cancel()
		_, err := p.Define(ctx, name, []byte(definition))
		return err == nil
	})
	eventually(w.t, name+" to be live", func() bool {
		live, next := w.Machine().Catalog().Find(name)
		return live != nil && next == nil
	})
}

// propose appends one event and returns its outcome once there is one.
func (w *whole) propose(stream, typ string, amount int) event.Outcome {
	a := &event.Append{Events: []event.Event{{Stream: stream, Type: typ, ID: event.NewID(), IDChosen: true, Data: fmt.Appendf(nil, `{"amount":%d}`, amount)}}}
	for w.t.Context().Err() == nil {
		ctx, cancel := context.WithTimeout(w.t.Context(), 5*time.Second)
		sent := *a
		out, err := w.Cluster().Propose(ctx, &sent)
		cancel()
		if err == nil {
			return out
		}
	}
	return event.Outcome{}
}

// Clients that withdraw at once, through all nodes and over changes of the
// leader, never take an account below zero.
func TestGuard_HoldsForManyClientsAndLeaders(t *testing.T) {
	first := newWhole(t, "n1", nil)
	nodes := []*whole{first, newWhole(t, "n2", nil, first.gossip), newWhole(t, "n3", nil, first.gossip)}
	eventually(t, "three voters", func() bool { return voters(first) == 3 })
	first.define("account", accounts)
	const accountCount, deposit = 4, 50
	for i := range accountCount {
		if o := first.propose(fmt.Sprintf("account-%d", i), "Deposited", deposit); !o.OK() {
			t.Fatalf("%+v", o)
		}
	}

	var clients sync.WaitGroup
	var mu sync.Mutex
	withdrawn := make(map[string]int)
	refused := 0
	for c := range 64 {
		clients.Go(func() {
			for range 6 {
				account, amount := fmt.Sprintf("account-%d", rand.IntN(accountCount)), 1+rand.IntN(5)
				out := nodes[c%len(nodes)].propose(account, "Withdrawn", amount)
				mu.Lock()
				switch {
				case out.OK():
					withdrawn[account] += amount
				case out.Code == event.GuardFailed:
					refused++
				default:
					t.Errorf("%+v", out)
				}
				mu.Unlock()
			}
		})
	}
	clients.Go(func() {
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			_ = first.Cluster().Transfer(ctx, "") // it may fail: the load goes on
			cancel()
		}
	})
	clients.Wait()
	if refused == 0 {
		t.Error("no withdrawal was refused: the guard was not tried")
	}
	for _, w := range nodes {
		for i := range accountCount {
			account := fmt.Sprintf("account-%d", i)
			if balance := w.balance(first, account); balance != deposit-withdrawn[account] || balance < 0 {
				t.Errorf("%s on %s: %d of %d are left, %d were withdrawn", account, w.options.ID, balance, deposit, withdrawn[account])
			}
		}
	}
}

// balance reads an account on a node, as of all that another one has.
func (w *whole) balance(other *whole, account string) int {
	w.t.Helper()
	_, position := other.Machine().Applied()
	s, err := projections{w.Machine(), w.Cluster()}.Row(w.t.Context(), "account", account, httpapi.Moment{}, position)
	if err != nil {
		w.t.Fatal(err)
	}
	var row struct{ Balance int }
	if err := json.Unmarshal(s.State, &row); err != nil {
		w.t.Fatal(err)
	}
	return row.Balance
}

func voters(w *whole) (n int) {
	for _, m := range w.Cluster().Status(w.t.Context()).Members {
		if m.Role != "non-voter" && m.Alive {
			n++
		}
	}
	return n
}

// Rows come with a snapshot, or are folded by who was away: projections with
// guards are there before the first append is applied, others follow.
func TestProjection_RowsComeWithASnapshot(t *testing.T) {
	first := newWhole(t, "n1", nil)
	first.define("account", accounts)
	first.define("texts", `{"match":{"category":"s"},"key":"event.type","when":{"*":"{'n': (has(state.n) ? state.n : 0) + 1}"}}`)
	first.propose("account-1", "Deposited", 7)
	first.append(300)
	first.compact()
	second := newWhole(t, "n2", nil, first.gossip)
	second.await(first)
	second.expect("snapshot fetched", 1)
	expectRows(t, second, first)

	// Away until Raft's log no longer has what it lacks.
	third := newWhole(t, "n3", nil, first.gossip)
	third.await(first)
	eventually(t, "three voters", func() bool { return voters(first) == 3 })
	third.stop()
	first.append(50)
	first.propose("account-1", "Deposited", 5)
	first.define("late", accounts)
	first.propose("account-1", "Withdrawn", 1)
	first.compact()
	third.log.clear()
	third.start()
	third.await(first)
	expectRows(t, third, first)
	if o := third.propose("account-1", "Withdrawn", 12); o.Code != event.GuardFailed {
		t.Errorf("a withdrawal of more than there is: %+v", o)
	}
	if o := third.propose("account-1", "Withdrawn", 11); !o.OK() {
		t.Errorf("a withdrawal of all there is: %+v", o)
	}
	expectRows(t, third, first)
	expectRows(t, second, first)
}

// A voter whose HTTP address nobody reaches does not keep projections from going
// live. What is not there can't be deleted, and the list shows what there is.
func TestProjection_LiveWithoutAVoterThatCantBeAsked(t *testing.T) {
	first := newWhole(t, "n1", nil)
	newWhole(t, "n2", nil, first.gossip)
	newWhole(t, "n3", func(o *Options) { o.Cluster.HTTP = "http://127.0.0.1:1" }, first.gossip)
	eventually(t, "three voters", func() bool { return voters(first) == 3 })
	p := projections{first.Machine(), first.Cluster()}
	first.define("account", accounts)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := p.Delete(ctx, "none"); !errors.Is(err, fsm.ErrNoProjection) {
		t.Errorf("delete what is not there: %v", err)
	}
	list, err := p.Statuses(ctx)
	if err != nil || len(list) != 1 || list[0].State != httpapi.StateLive || list[0].Rows == nil {
		t.Errorf("list %+v, %v", list, err)
	}
	if s, err := p.Status(ctx, "account", false); err != nil || s.Rows != nil {
		t.Errorf("status %+v, %v", s, err)
	}
	if err := p.Delete(ctx, "account"); err != nil {
		t.Error(err)
	}
	if _, err := p.Status(ctx, "account", false); !errors.Is(err, fsm.ErrNoProjection) {
		t.Errorf("status of what is deleted: %v", err)
	}
}

// A type is listed while its first schema waits for projections.
func TestTypesOf_FirstSchemaPending(t *testing.T) {
	c := projection.NewCatalog()
	take := func(position uint64, stream, typ string, body any) {
		t.Helper()
		command, err := event.SystemCommand(stream, typ, body)
		if err != nil {
			t.Fatal(err)
		}
		e := command.Append.Events[0]
		e.Position = position
		if c, err = c.With(&e); err != nil {
			t.Fatal(err)
		}
	}
	take(2, event.StreamProjections, event.TypeProjectionDefined, event.ProjectionDefined{
		Name: "account", Engine: projection.Engine, Definition: json.RawMessage(accounts),
	})
	take(3, event.StreamTypes, event.TypeSchemaRegistered, event.SchemaRegistered{
		Type: "Deposited", Number: 1, Engine: projection.Engine,
		Body: json.RawMessage(`{"schema":{},"upcast":"data","examples":[{"old":{},"new":{}}]}`),
	})
	got, err := json.Marshal(typesOf(c))
	if want := `[{"type":"Deposited","newest":0,"schemas":[],"pending":1}]`; err != nil || string(got) != want {
		t.Errorf("%s, %v; want %s", got, err, want)
	}
}

// expectRows compares the rows of all projections of two nodes.
func expectRows(t *testing.T, got, want *whole) {
	t.Helper()
	_, position := want.Machine().Applied()
	for _, name := range want.Machine().Catalog().Names() {
		page := func(w *whole) string {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			p, err := w.Machine().Rows(ctx, name, fsm.RowsQuery{Limit: 100, Bytes: 1 << 20}, position)
			if err != nil {
				t.Fatalf("%s on %s: %v", name, w.options.ID, err)
			}
			text := ""
			for _, r := range p.Rows {
				text += fmt.Sprintf("%s %s %d %d\n", r.Key, r.Row.State, r.Row.Events, r.Row.Last)
			}
			return text
		}
		if g, w := page(got), page(want); g != w || w == "" {
			t.Errorf("%s on %s has\n%swant\n%s", name, got.options.ID, g, w)
		}
	}
}
