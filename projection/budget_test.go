package projection

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"cairn/event"
)

// TestBudget folds the events of one append until it has done too much: always
// at the same event.
func TestBudget(t *testing.T) {
	loop := mustCompile(t, `{"key":"event.data.k","when":{"*":"event.data.l.all(x, x < 5) ? {'n': 1} : null"},"guards":{"*":[{"rule":"event.data.l.exists(x, x == 2)"}]}}`)
	rows := mustCompile(t, `{"when":{"*":"{'n': event.version}"}}`)
	var names, nulls []string // a patch that merges the same nulls a hundred times
	for i := range 1000 {
		nulls = append(nulls, fmt.Sprintf(`"n%d":null`, i))
	}
	for i := range 100 {
		names = append(names, fmt.Sprintf("'m%d': event.data", i))
	}
	merge := mustCompile(t, `{"when":{"*":"{`+strings.Join(names, ", ")+`}"}}`)
	large := []byte(`{"a":"` + strings.Repeat("x", 60_000) + `"}`)
	for _, c := range []struct {
		name  string
		p     *Projection
		state []byte
		data  string
		want  int // the event that fails
	}{
		{"loops", loop, nil, `{"k":"a","l":[` + strings.Repeat("1,", 50_000) + `2]}`, 6},
		{"merging", merge, nil, "{" + strings.Join(nulls, ",") + "}", 41},
		{"large rows", rows, large, `{}`, 372},
		{"large events", loop, nil, `{"k":"a","l":[2],"more":"` + strings.Repeat("x", 500_000) + `"}`, 134},
	} {
		for range 2 {
			b := NewBudget()
			e := &event.Event{Stream: "s", Type: "T", Data: []byte(c.data)}
			failed := -1
			for i := range 10_000 {
				in := NewInputWithin(e, b)
				_, _, err := c.p.Key(in)
				if err == nil {
					_, _, _, err = c.p.Step(c.state, in, true)
				}
				if err != nil {
					if !errors.Is(err, ErrBudget) {
						t.Fatal(err)
					}
					failed = i
					break
				}
			}
			if failed != c.want {
				t.Errorf("%s: event %d fails, want %d", c.name, failed, c.want)
			}
			if _, _, _, err := c.p.Step(nil, NewInputWithin(e, b), true); !errors.Is(err, ErrBudget) {
				t.Errorf("%s: it goes on after it was used up: %v", c.name, err)
			}
		}
	}
}

// A whole append of small events is far from the end of the budget.
func TestBudget_Plenty(t *testing.T) {
	p := mustCompile(t, accountDefinition)
	b := NewBudget()
	var state []byte
	for i := range event.MaxAppendEvents {
		in := NewInputWithin(&event.Event{Stream: "account-1", Type: "FundsDeposited", Data: fmt.Appendf(nil, `{"amount":%d.5}`, i+1)}, b)
		var err error
		if state, _, _, err = p.Step(state, in, true); err != nil {
			t.Fatal(i, err)
		}
	}
	if b.left < maxBudget/2 {
		t.Errorf("%d steps are left", b.left)
	}
}
