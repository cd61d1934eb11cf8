package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cairn/event"
)

var errNoFunds = errors.New("no funds")

type funds struct{ balance, events int }

func (f *funds) add(e *event.Event) error {
	var amount int
	if err := json.Unmarshal(e.Data, &amount); err != nil {
		return err
	}
	if e.Type == "Withdrawn" {
		amount = -amount
	}
	f.balance += amount
	f.events++
	return nil
}

func moved(stream, typ string, amount int) event.Event {
	return event.Event{Stream: stream, Type: typ, Data: fmt.Append(nil, amount)}
}

// withdraw takes 10 from an account if they are there.
func withdraw(stream string) Decider[funds] {
	return Decider[funds]{
		Streams: []string{stream},
		Fold:    (*funds).add,
		Decide: func(f *funds) ([]event.Event, error) {
			if f.balance < 10 {
				return nil, errNoFunds
			}
			return []event.Event{moved("", "Withdrawn", 10)}, nil
		},
	}
}

// However many withdraw at once, no more is withdrawn than there is.
func TestDecide_Contention(t *testing.T) {
	for name, query := range map[string]bool{"stream": false, "query": true} {
		t.Run(name, func(t *testing.T) {
			f := newFakeLog(t)
			deposit := moved("account-1", "Deposited", 395)
			deposit.Tags = []string{"account:1"}
			f.add(deposit)
			d := withdraw("account-1")
			if query {
				d.Streams, d.Query.Items = nil, []event.QueryItem{{Tags: []string{"account:1"}}}
				decide := d.Decide
				d.Decide = func(s *funds) ([]event.Event, error) {
					events, err := decide(s)
					for i := range events {
						events[i].Stream, events[i].Tags = "account-1", []string{"account:1"}
					}
					return events, err
				}
			}
			d.Tries = 200
			c := newClient(t, nil, f.url)
			var done, refused atomic.Int32
			var wg sync.WaitGroup
			for range 64 {
				wg.Go(func() {
					_, err := Decide(testContext(t), c, d)
					switch {
					case err == nil:
						done.Add(1)
					case errors.Is(err, errNoFunds):
						refused.Add(1)
					default:
						t.Error(err)
					}
				})
			}
			wg.Wait()
			balance := 0
			for _, e := range f.stream("account-1") {
				var amount int
				_ = json.Unmarshal(e.Data, &amount)
				if e.Type == "Withdrawn" {
					amount = -amount
				}
				if balance += amount; balance < 0 {
					t.Fatalf("the account is at %d at version %d", balance, e.Version)
				}
			}
			if done.Load() != 39 || refused.Load() != 25 || balance != 5 {
				t.Errorf("%d withdrawn, %d refused, %d left", done.Load(), refused.Load(), balance)
			}
		})
	}
}

// After a conflict only what is new is read, as of one moment, and folded in
// the order of the log, each event once.
func TestDecide_ReadsOn(t *testing.T) {
	f := newFakeLog(t)
	f.page = 2
	tagged := func(stream string, n int) event.Event {
		e := moved(stream, "Deposited", n)
		e.Tags = []string{"x"}
		return e
	}
	f.add(tagged("a", 1), tagged("b", 2), moved("c", "Deposited", 3), tagged("a", 4), tagged("a", 5), tagged("b", 6))
	var seen []uint64
	tries := 0
	made, err := Decide(testContext(t), newClient(t, nil, f.url), Decider[funds]{
		Streams: []string{"a", "missing", "c"},
		Query:   event.Query{Items: []event.QueryItem{{Tags: []string{"x"}}}},
		Begin:   func() funds { return funds{balance: 100} },
		Fold: func(s *funds, e *event.Event) error {
			seen = append(seen, e.Position)
			return s.add(e)
		},
		Decide: func(s *funds) ([]event.Event, error) {
			switch tries++; tries {
			case 1:
				f.add(tagged("b", 7), moved("d", "Deposited", 99)) // the query
			case 2:
				f.add(moved("c", "Deposited", 8), tagged("a", 9)) // both
			case 3:
				f.add(moved("missing", "Deposited", 10))
			}
			return []event.Event{moved("", "Withdrawn", 1), moved("d", "Deposited", 1)}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := []uint64{2, 3, 4, 5, 6, 7, 8, 10, 11, 12}; !slices.Equal(seen, want) {
		t.Errorf("folded %v, want %v", seen, want)
	}
	if made.Tries != 4 || made.Position != 12 || made.State.balance != 155 || made.Result.First != 13 || made.Events[0].Stream != "a" {
		t.Errorf("got %+v", made)
	}
	want := []string{
		"a from 1", "a from 3", "missing from 1", "c from 1", "query after 0", "query after 3", "query after 6",
		"a from 4", "missing from 1", "c from 2", "query after 7",
		"a from 4", "missing from 1", "c from 2", "query after 9",
		"a from 5", "missing from 1", "c from 3", "query after 11",
	}
	if !slices.Equal(f.reads, want) {
		t.Errorf("reads\n%s\nwant\n%s", strings.Join(f.reads, "\n"), strings.Join(want, "\n"))
	}
}

// What comes while several places are read belongs to the next time, wherever
// it stands: nothing is folded before what stands in front of it.
func TestDecide_OneMoment(t *testing.T) {
	f := newFakeLog(t)
	f.add(moved("a", "Deposited", 1), moved("b", "Deposited", 2))
	f.after = func(read string) {
		if read == "a from 1" {
			f.add(moved("a", "Deposited", 3), moved("b", "Deposited", 4))
		}
	}
	var seen []uint64
	made, err := Decide(testContext(t), newClient(t, nil, f.url), Decider[funds]{
		Streams: []string{"a", "b"},
		Fold: func(s *funds, e *event.Event) error {
			seen = append(seen, e.Position)
			return s.add(e)
		},
		Decide: func(*funds) ([]event.Event, error) { return []event.Event{moved("", "Withdrawn", 1)}, nil },
	})
	if err != nil || made.Tries != 2 || made.State.balance != 10 || !slices.Equal(seen, positions(2, 5)) {
		t.Errorf("got %+v, %v, folded %v", made, err, seen)
	}
}

// A decision whose fate is not known is sent again as it was, not made anew.
func TestDecide_UnknownFate(t *testing.T) {
	f := newFakeLog(t)
	f.add(moved("a", "Deposited", 10))
	var sent []string
	f.fault = func(body string) bool {
		sent = append(sent, body)
		return len(sent) < 4
	}
	c := newClient(t, func(c *Config) { c.RetryFor = -1 }, f.url) // so that each attempt is one call
	made, err := Decide(testContext(t), c, withdraw("a"))
	if err != nil || made.Tries != 1 || !made.Result.Duplicate || len(f.stream("a")) != 2 {
		t.Errorf("got %+v, %v, %d events", made, err, len(f.stream("a")))
	}
	if len(sent) != 4 || !reflect.DeepEqual(slices.Compact(sent), []string{sent[0]}) {
		t.Errorf("sent %q", sent)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	f.fault = func(string) bool { return true }
	f.add(moved("b", "Deposited", 10))
	if _, err := Decide(ctx, c, withdraw("b")); !IsUnknown(err) {
		t.Errorf("got %v, want an unknown fate", err)
	}
}

// A refusal of the repetition that does not bind the first attempt is no
// answer: it is asked again.
func TestDecide_UnknownThenRefused(t *testing.T) {
	for _, code := range []string{CodeNoLeader, CodeGuardFailed} {
		f := newFakeLog(t)
		f.add(moved("a", "Deposited", 10))
		f.fault = func(string) bool {
			f.fault, f.refuse = nil, code
			return true
		}
		c := newClient(t, func(c *Config) { c.RetryFor = -1 }, f.url)
		made, err := Decide(testContext(t), c, withdraw("a"))
		if err != nil || !made.Result.Duplicate || f.refuse != "" {
			t.Errorf("%s: got %+v, %v", code, made, err)
		}
	}
}

func TestDecide_Ends(t *testing.T) {
	f := newFakeLog(t)
	f.add(moved("a", "Deposited", 10), event.Event{Stream: "bad", Type: "Deposited", Data: []byte(`"x"`)})
	c := newClient(t, nil, f.url)

	made, err := Decide(testContext(t), c, Decider[funds]{Streams: []string{"a"}, Fold: (*funds).add,
		Decide: func(*funds) ([]event.Event, error) { return nil, nil }})
	if err != nil || made.Result.Last != 0 || made.State.balance != 10 || made.Tries != 1 || len(f.stream("a")) != 1 {
		t.Errorf("nothing to do: %+v, %v", made, err)
	}
	if _, err := Decide(testContext(t), c, withdraw("missing")); err != errNoFunds {
		t.Errorf("got %v, want the error of Decide as it is", err)
	}
	if _, err := Decide(testContext(t), c, withdraw("bad")); err == nil || len(f.stream("bad")) != 1 {
		t.Errorf("an event that can't be folded: %v", err)
	}
	f.refuse = CodeGuardFailed
	if made, err := Decide(testContext(t), c, withdraw("a")); codeOf(err) != CodeGuardFailed || made.Tries != 1 {
		t.Errorf("a guard: %+v, %v", made, err)
	}
	if _, err := Decide(testContext(t), c, Decider[funds]{}); err == nil {
		t.Error("nothing to read: no error")
	}

	d := withdraw("a")
	decide := d.Decide
	d.Tries = 3
	d.Decide = func(s *funds) ([]event.Event, error) {
		f.add(moved("a", "Deposited", 10))
		return decide(s)
	}
	made, err = Decide(testContext(t), c, d)
	if !IsConflict(err) || made.Tries != 3 || !strings.Contains(err.Error(), "at each of 3 tries") {
		t.Errorf("got %+v, %v, want a conflict", made, err)
	}

	ctx, cancel := context.WithCancel(testContext(t))
	d.Tries = 0
	d.Decide = func(s *funds) ([]event.Event, error) {
		f.add(moved("a", "Deposited", 10))
		cancel()
		return decide(s)
	}
	if _, err := Decide(ctx, c, d); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want a cancellation", err)
	}
}

// A decision is not carried on in another log.
func TestDecide_LogChanged(t *testing.T) {
	f := newFakeLog(t)
	f.add(moved("a", "Deposited", 10))
	d := withdraw("a")
	d.Decide = func(*funds) ([]event.Event, error) {
		f.add(moved("a", "Deposited", 10))
		f.mu.Lock()
		defer f.mu.Unlock()
		f.log = "M"
		return []event.Event{moved("", "Withdrawn", 10)}, nil
	}
	if _, err := Decide(testContext(t), newClient(t, nil, f.url), d); !IsLogChanged(err) {
		t.Errorf("got %v", err)
	}
}
