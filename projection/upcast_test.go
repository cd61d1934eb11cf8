package projection

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"cairn/event"
	"cairn/projection/schema"
)

// registryOf has three schemas of Deposited, the last of which renames it to
// Credited, and a second of that: the amount became a number of cents, then got
// a currency, then a note.
func registryOf(t *testing.T) *schema.Registry {
	t.Helper()
	g := schema.Empty()
	for _, r := range []struct {
		typ    string
		number uint32
		body   string
	}{
		{"Deposited", 1, `{"schema":{}}`},
		{"Deposited", 2, `{"schema":{},"upcast":"{'cents': event.data.amount * 100, 'who': data.?who.orValue('nobody')}","examples":[{"old":{"amount":2.5},"new":{"cents":250,"who":"nobody"}}]}`},
		{"Credited", 1, `{"schema":{}}`},
		{"Deposited", 3, `{"schema":{},"renamed":"Credited","upcast":"{'money': {'cents': data.cents, 'currency': 'EUR'}, 'who': data.who}",
			"examples":[{"old":{"cents":1,"who":"a"},"new":{"money":{"cents":1,"currency":"EUR"},"who":"a"}}]}`},
		{"Credited", 2, `{"schema":{},"upcast":"{'money': data.money, 'who': data.who, 'note': event.stream + ' ' + string(event.position)}",
			"examples":[{"old":{"money":{"cents":1},"who":"a"},"new":{"money":{"cents":1},"who":"a","note":"example-1 1"}}]}`},
	} {
		parsed, err := schema.Parse(r.typ, r.number, []byte(r.body))
		if err != nil {
			t.Fatal(err)
		}
		if g, err = g.With(parsed); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

// deposit is one that happened; it is stored in the form of its time.
type deposit struct {
	quarters int // of a euro
	who      string
	position uint64
}

// as returns the event as a program of some time appended it: 0, 1 = schemas 1
// and 2 of Deposited, 2, 3 = schemas 1 and 2 of Credited.
func (d deposit) as(form int) *event.Event {
	e := &event.Event{Position: d.position, Stream: "account-1", Type: "Deposited", ID: "i"}
	cents := d.quarters * 25
	switch form {
	case 0:
		e.Schema, e.Data = 1, fmt.Appendf(nil, `{"amount":%g,"who":%q}`, float64(d.quarters)/4, d.who)
		if d.who == "nobody" {
			e.Data = fmt.Appendf(nil, `{"amount":%g}`, float64(d.quarters)/4)
		}
	case 1:
		e.Schema, e.Data = 2, fmt.Appendf(nil, `{"cents":%d,"who":%q}`, cents, d.who)
	case 2:
		e.Type, e.Schema, e.Data = "Credited", 1, fmt.Appendf(nil, `{"money":{"cents":%d,"currency":"EUR"},"who":%q}`, cents, d.who)
	case 3:
		e.Type, e.Schema = "Credited", 2
		e.Data = fmt.Appendf(nil, `{"money":{"cents":%d,"currency":"EUR"},"who":%q,"note":"account-1 %d"}`, cents, d.who, d.position)
	}
	return e
}

// TestStep_AfterUpcast folds events that were stored in forms of several times,
// each brought to the newest, and the same ones made in the newest form: key,
// row and what guards say are the same after each.
func TestStep_AfterUpcast(t *testing.T) {
	g := registryOf(t)
	p := mustCompile(t, `{"key":"event.data.who","init":{"balance":0},
		"when":{"Credited":"{'balance': state.balance + event.data.money.cents, 'last': event.data, 'n': state.?n.orValue(0) + 1}","*":"{'other': event.type}"},
		"guards":{"Credited":[{"rule":"state.balance + event.data.money.cents < 3000","message":"too much"}]}}`)
	newest := map[string]uint32{"Deposited": 3, "Credited": 2}
	rapid.Check(t, func(t *rapid.T) {
		stored, made := map[string][]byte{}, map[string][]byte{}
		fold := func(rows map[string][]byte, e *event.Event) string {
			in := NewInput(e)
			key, ok, err := p.Key(in)
			if !ok || err != nil {
				t.Fatal(ok, err)
			}
			next, _, v, err := p.Step(rows[key], in, true)
			if err != nil {
				t.Fatal(err)
			}
			if v == nil {
				rows[key] = next
				return fmt.Sprintf("%s = %s", key, next)
			}
			return fmt.Sprintf("%s: %s", key, v.Message)
		}
		for i := range rapid.IntRange(1, 20).Draw(t, "events") {
			d := deposit{rapid.IntRange(0, 60).Draw(t, "quarters"), rapid.SampledFrom([]string{"ada", "bob", "nobody"}).Draw(t, "who"), uint64(i + 1)}
			e := d.as(rapid.IntRange(0, 3).Draw(t, "form"))
			before := e.Type + string(e.Data)
			if err := g.UpcastTo(e, newest); err != nil {
				t.Fatal(err)
			}
			if got, want := fold(stored, e), fold(made, d.as(3)); got != want {
				t.Fatalf("%s\nstored %s\nmade   %s", before, got, want)
			}
		}
	})
}
