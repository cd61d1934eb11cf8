package projection

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"cairn/event"
)

const accountDefinition = `{"match":{"category":"account"},"init":{"balance":0},
 "when":{"FundsDeposited":"{'balance': state.balance + event.data.amount}",
         "FundsWithdrawn":"{'balance': state.balance - event.data.amount}"},
 "guards":{"FundsWithdrawn":[{"rule":"state.balance >= event.data.amount","message":"insufficient funds"}],
           "*":[{"rule":"event.data.amount > 0"}]}}`

func mustCompile(t testing.TB, definition string) *Projection {
	t.Helper()
	d, err := ParseDefinition("account", []byte(definition))
	if err != nil {
		t.Fatal(err)
	}
	p, err := Compile(d)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestStep_Account(t *testing.T) {
	p := mustCompile(t, accountDefinition)
	if !p.Guarding() || !p.ByStream() {
		t.Error("it does not guard, or not by stream")
	}
	var state []byte
	for _, c := range []struct {
		typ, data string
		next      string // "" = refused
		violation string
		failure   string
	}{
		{"FundsWithdrawn", `{"amount":1}`, "", "insufficient funds", ""},
		{"FundsDeposited", `{"amount":100.50}`, `{"balance":100.5}`, "", ""},
		{"FundsWithdrawn", `{"amount":0.5}`, `{"balance":100}`, "", ""},
		{"FundsWithdrawn", `{"amount":101}`, "", "insufficient funds", ""},
		{"FundsWithdrawn", `{"amount":-5}`, "", "this does not hold: event.data.amount > 0", ""},
		{"FundsDeposited", `{"amount":"1"}`, "", "", "guards.*[0].rule: column 19: '>' does not take a string and a double: event.data.amount is a string"},
		{"FundsDeposited", `null`, "", "", "guards.*[0].rule: column 11: event.data is a null_type, it has no member \"amount\""},
		{"Renamed", `{"amount":1}`, `{"balance":100}`, "", ""},
		{"Renamed", `{"amount":0}`, "", "this does not hold: event.data.amount > 0", ""},
	} {
		next, changed, v, err := p.Step(state, NewInput(&event.Event{Stream: "account-1", Type: c.typ, Data: []byte(c.data)}), true)
		switch {
		case c.failure != "":
			if err == nil || err.Error() != c.failure {
				t.Errorf("%s %s: %v", c.typ, c.data, err)
			}
		case c.violation != "":
			if v == nil || v.Message != c.violation || err != nil || next != nil {
				t.Errorf("%s %s: %+v, %v", c.typ, c.data, v, err)
			}
		default:
			if v != nil || err != nil || string(next) != c.next || changed != (c.typ != "Renamed") {
				t.Errorf("%s %s: %s, %v, %+v, %v", c.typ, c.data, next, changed, v, err)
			}
			state = next
		}
	}
	// Without its guards the fold goes on where they would have held it back.
	next, _, v, err := p.Step(state, NewInput(&event.Event{Stream: "account-1", Type: "FundsWithdrawn", Data: []byte(`{"amount":101}`)}), false)
	if string(next) != `{"balance":-1}` || v != nil || err != nil {
		t.Error(string(next), v, err)
	}
}

func TestStep_Cases(t *testing.T) {
	e := &event.Event{Position: 9, Version: 2, Time: 1e9, Stream: "s-1", Type: "T", ID: "i", Tags: []string{"x"}, Data: []byte(`{"n":1.50,"drop":null}`), Meta: []byte(`{"user":"ada"}`)}
	for _, c := range []struct{ definition, state, want string }{
		{`{}`, ``, `{"n":1.50}`},
		{`{}`, `{"drop":1,"big":12345678901234567890,"z":1e3}`, `{"big":12345678901234567890,"n":1.50,"z":1e3}`},
		{`{"when":{"*":"null"},"init":{"b":1,"a":2}}`, ``, `{"a":2,"b":1}`},
		{`{"when":{"T":"{'a': 1}","*":"{'b': 1}"}}`, ``, `{"a":1}`},
		{`{"when":{"U":"{'a': 1}","*":"{'b': 1}"}}`, ``, `{"b":1}`},
		{`{"when":{"*":"{'t': event.time, 'p': event.position, 'v': event.version, 'i': event.id, 'm': event.meta.user, 'x': event.tags, 'c': event.causation_id}"}}`, ``,
			`{"c":"","i":"i","m":"ada","p":9,"t":"1970-01-01T00:00:01.000000000Z","v":2,"x":["x"]}`},
		{`{"when":{"*":"{'a': event}"}}`, `{"a":null,"b":1}`,
			`{"a":{"causation_id":"","compensates":"","correlation_id":"","data":{"n":1.50},"id":"i","meta":{"user":"ada"},"position":9,"stream":"s-1","tags":["x"],"time":"1970-01-01T00:00:01.000000000Z","type":"T","version":2},"b":1}`},
		{`{"when":{"*":"event.data.n == 1.5 ? event.data : state"}}`, `{"q":1}`, `{"n":1.50,"q":1}`},
		{`{"when":{"*":"dyn(1)"}}`, ``, `! when.*: it is a double, but must be a map (a merge patch) or null`},
		{`{"when":{"*":"state.a"}}`, ``, `! when.*: column 6: state has no member "a"`},
		{`{"when":{"*":"{'a': 'x'.replace('x', '` + strings.Repeat("y", 3000) + `'), 'b': state.s + state.s}"}}`, `{"s":"` + strings.Repeat("z", 32<<10) + `"}`,
			`! when.*: the row: it is larger than 65536 bytes of JSON`},
		{`{"when":{"*":"{'a': state}"}}`, strings.Repeat(`{"a":`, 128) + "1" + strings.Repeat(`}`, 128), `! when.*: the row: it nests deeper than 128`},
		{`{"when":{"*":"{'a': type(1)}"}}`, ``, `! when.*: the row: a value of type type has no JSON form`},
	} {
		var state []byte
		if c.state != "" {
			state = []byte(c.state)
		}
		next, changed, _, err := mustCompile(t, c.definition).Step(state, NewInput(e), false)
		got := string(next)
		if err != nil {
			got = "! " + err.Error()
		}
		if got != c.want || changed != (err == nil) {
			t.Errorf("%.80s:\n got %.300s\nwant %.300s", c.definition, got, c.want)
		}
	}
}

func TestStep_Untouched(t *testing.T) {
	p := mustCompile(t, `{"when":{"A":"{}"},"guards":{"B":[{"rule":"false"}]}}`)
	for _, state := range [][]byte{nil, []byte(`{"a":1}`)} {
		next, changed, v, err := p.Step(state, NewInput(&event.Event{Stream: "s", Type: "C", Data: []byte("not JSON")}), true)
		if changed || v != nil || err != nil || !bytes.Equal(next, state) || (next == nil) != (state == nil) {
			t.Error(string(next), changed, v, err)
		}
	}
	if _, _, v, err := p.Step(nil, NewInput(&event.Event{Stream: "s", Type: "B"}), true); v == nil || v.Rule != "false" || err != nil {
		t.Error(v, err)
	}
}

func TestInput_NotJSON(t *testing.T) {
	p := mustCompile(t, `{"when":{"*":"{'none': event.data == null, 'meta': event.meta}"}}`)
	next, _, _, err := p.Step(nil, NewInput(&event.Event{Stream: "s", Type: "T", ContentType: "image/png", Data: []byte("\x89PNG")}), false)
	if string(next) != `{"meta":{},"none":true}` || err != nil {
		t.Error(string(next), err)
	}
	in := NewInput(&event.Event{Stream: "s", Type: "T", Data: []byte(`{`)})
	for range 2 { // the error of reading it is told each time
		if _, _, _, err := p.Step(nil, in, false); err == nil || !strings.HasPrefix(err.Error(), "event.data: JSON at byte 1") {
			t.Error(err)
		}
	}
}

func TestKey(t *testing.T) {
	for _, c := range []struct{ key, want string }{
		{"event.stream", "s-1"},
		{" event.stream ", "s-1"},
		{"event.stream + '/' + event.data.a", "s-1/x"},
		{"string(event.data.id)", "12345678901234567890"},
		{"has(event.data.b) ? event.data.b : null", "-"},
		{"event.data.id", "! key: it is a double, but must be a string or null"},
		{"event.data.empty", "! key: it has 0 bytes, but must have 1 to 512"},
		{"event.data.long", "! key: it has 513 bytes, but must have 1 to 512"},
		{"event.data.none", "! key: column 11: event.data has no member \"none\""},
	} {
		d, _ := json.Marshal(map[string]string{"key": c.key})
		p := mustCompile(t, string(d))
		e := &event.Event{Stream: "s-1", Type: "T", Data: []byte(`{"a":"x","id":12345678901234567890,"empty":"","long":"` + strings.Repeat("k", 513) + `"}`)}
		key, ok, err := p.Key(NewInput(e))
		got := key
		if err != nil {
			got = "! " + err.Error()
		} else if !ok {
			got = "-"
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.key, got, c.want)
		}
	}
}

// cart is the model of cartDefinition: what a plain program would keep.
type cart struct {
	Lines map[string]float64 `json:"lines"`
	Total float64            `json:"total"`
	Last  string             `json:"last,omitempty"`
	Count float64            `json:"count"`
}

const cartDefinition = `{"init":{"lines":{},"total":0,"count":0},
 "when":{"Added":"{'lines': {event.data.sku: state.?lines[?event.data.sku].orValue(0) + event.data.n}, 'total': state.total + event.data.n * event.data.price, 'last': event.data.sku, 'count': state.count + 1}",
         "Removed":"{'lines': {event.data.sku: null}, 'last': null, 'count': state.count + 1}",
         "Cleared":"{'lines': state.lines.transformMap(k, v, null), 'total': 0, 'count': state.count + 1}",
         "*":"{'count': state.count + 1}"},
 "guards":{"Removed":[{"rule":"event.data.sku in state.lines","message":"not in the cart"}]}}`

// TestStep_Model folds random events by Step, from bytes to bytes, and by a
// plain program.
func TestStep_Model(t *testing.T) {
	p := mustCompile(t, cartDefinition)
	rapid.Check(t, func(rt *rapid.T) {
		model := cart{Lines: map[string]float64{}}
		var state []byte
		for i := range rapid.IntRange(1, 30).Draw(rt, "events") {
			typ := rapid.SampledFrom([]string{"Added", "Added", "Removed", "Cleared", "Looked"}).Draw(rt, "type")
			sku := rapid.SampledFrom([]string{"tea", "milk", "a\"b", "é", ""}).Draw(rt, "sku")
			n, price := rapid.IntRange(1, 9).Draw(rt, "n"), rapid.IntRange(0, 400).Draw(rt, "quarters")
			data, _ := json.Marshal(map[string]any{"sku": sku, "n": n, "price": float64(price) / 4})
			e := &event.Event{Position: uint64(i + 1), Stream: "cart-1", Type: typ, Data: data}
			next, changed, v, err := p.Step(state, NewInput(e), true)
			_, there := model.Lines[sku]
			if refused := typ == "Removed" && !there; err != nil || refused != (v != nil) || changed == refused {
				rt.Fatalf("%s %s on %s: %s, %+v, %v", typ, data, state, next, v, err)
			} else if refused {
				continue
			}
			state = next
			model.Count++
			switch typ {
			case "Added":
				model.Lines[sku] += float64(n)
				model.Total += float64(n) * float64(price) / 4
				model.Last = sku
			case "Removed":
				delete(model.Lines, sku)
				model.Last = ""
			case "Cleared":
				clear(model.Lines)
				model.Total = 0
			}
			var got cart
			if err := json.Unmarshal(state, &got); err != nil {
				rt.Fatal(err)
			}
			if !reflect.DeepEqual(got, model) {
				rt.Fatalf("after %s %s: %s, want %+v", typ, data, state, model)
			}
		}
	})
}

// TestStep_Shared folds one event by many projections at once, each of which
// sees the same Input in turn, and in any order of what they read of it.
func TestStep_Shared(t *testing.T) {
	e := &event.Event{Stream: "s", Type: "T", Data: []byte(`{"a":1}`), Meta: []byte(`{"b":2}`)}
	whens := []string{"{'t': event.type}", "{'a': event.data.a}", "{'b': event.meta.b}", "{'e': event.data, 'm': event.meta}"}
	wants := []string{`{"t":"T"}`, `{"a":1}`, `{"b":2}`, `{"e":{"a":1},"m":{"b":2}}`}
	for first := range whens {
		in := NewInput(e)
		for i := range whens {
			at := (first + i) % len(whens)
			p := mustCompile(t, fmt.Sprintf(`{"when":{"*":%q}}`, whens[at]))
			if next, _, _, err := p.Step(nil, in, false); string(next) != wants[at] || err != nil {
				t.Errorf("%s: %s, %v", whens[at], next, err)
			}
		}
	}
}

// BenchmarkStep is guard, when, merge and encoding of a small row, with the
// reading of the event.
func BenchmarkStep(b *testing.B) {
	p := mustCompile(b, accountDefinition)
	e := &event.Event{Stream: "account-42", Type: "FundsWithdrawn", ID: "1", Data: []byte(`{"amount":12.5,"currency":"EUR","note":"rent"}`)}
	state := []byte(`{"balance":1000,"opened":"2026-01-01T00:00:00Z","owner":"Ada"}`)
	b.ReportAllocs()
	for b.Loop() {
		next, _, v, err := p.Step(state, NewInput(e), true)
		if err != nil || v != nil || len(next) == 0 {
			b.Fatal(next, v, err)
		}
	}
}
