package main

import (
	"fmt"
	"strings"
	"testing"

	"cairn/event"
)

func caused(stream, typ, id, cause string) event.Event {
	return event.Event{Stream: stream, Type: typ, ID: id, CorrelationID: "order-7", CausationID: cause}
}

func TestTrace(t *testing.T) {
	f := newFakeNode(t)
	other := caused("b", "Other", "z", "")
	other.CorrelationID = "order-8"
	f.add(caused("order-7", "OrderPlaced", "a", ""),
		caused("payment-7", "PaymentAsked", "b", "a"),
		other,
		caused("mail-7", "MailSent", "c", "a"),
		caused("payment-7", "Paid", "d", "b"),
		caused("audit", "Seen", "e", "z"),
		caused("stock-7", "Reserved", "f", "a"),
		caused("mail-7", "MailSent", "g", "d"))
	want := `EVENT                                    STREAM     VERSION  POSITION  TIME                      AFTER  DATA
OrderPlaced                              order-7          1         1  2026-01-02T03:04:01.000Z    +0s  null
├─ PaymentAsked                          payment-7        1         2  2026-01-02T03:04:02.000Z    +1s  null
│  └─ Paid                               payment-7        2         5  2026-01-02T03:04:05.000Z    +4s  null
│     └─ MailSent                        mail-7           2         8  2026-01-02T03:04:08.000Z    +7s  null
├─ MailSent                              mail-7           1         4  2026-01-02T03:04:04.000Z    +3s  null
└─ Reserved                              stock-7          1         7  2026-01-02T03:04:07.000Z    +6s  null
Seen (caused by z, not found before it)  audit            1         6  2026-01-02T03:04:06.000Z    +5s  null
`
	if got := f.ok(t, "", "trace", "order-7", "-o", "text"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}

	var got []string
	for _, line := range strings.Split(strings.TrimSpace(f.ok(t, "", "trace", "order-7")), "\n") {
		head, _, _ := strings.Cut(line, `,"stream"`)
		got = append(got, head)
	}
	wantLines := []string{`{"depth":0,"position":1`, `{"depth":1,"cause_position":1,"position":2`, `{"depth":2,"cause_position":2,"position":5`,
		`{"depth":3,"cause_position":5,"position":8`, `{"depth":1,"cause_position":1,"position":4`, `{"depth":1,"cause_position":1,"position":7`, `{"depth":0,"position":6`}
	if strings.Join(got, "\n") != strings.Join(wantLines, "\n") {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
}

// Ids that name each other, or themselves, make no circle: a cause stands
// before its effect. One id in several streams means the nearest before it.
func TestTrace_Circles(t *testing.T) {
	f := newFakeNode(t)
	f.add(caused("a", "Self", "a", "a"), caused("b", "Later", "b", "c"), caused("c", "Earlier", "c", "b"),
		caused("d", "Same", "c", "c"), caused("e", "Effect", "e", "c"))
	var got []string
	for line := range strings.Lines(f.ok(t, "", "trace", "order-7", "-o", "text")) {
		got = append(got, strings.TrimRight(strings.Split(line, "  +")[0], " \n"))
	}
	for i, want := range []string{"EVENT", "Self (caused by a, not found before it)", "Later (caused by c, not found before it)", "└─ Earlier", "   └─ Same", "      └─ Effect"} {
		if i >= len(got) || !strings.HasPrefix(got[i], want) {
			t.Fatalf("line %d of\n%s\nis not %q", i, strings.Join(got, "\n"), want)
		}
	}
}

// A chain of any length is drawn in lines of bounded width.
func TestTrace_Deep(t *testing.T) {
	var events []event.Event
	for i := range 20_000 {
		e := caused("s", "T", fmt.Sprint(i), fmt.Sprint(i-1))
		e.Position = uint64(i + 1)
		events = append(events, e)
	}
	lines := traced(events)
	if len(lines) != len(events) || lines[len(lines)-1].depth != len(events)-1 {
		t.Fatalf("%d lines, the last at depth %d", len(lines), lines[len(lines)-1].depth)
	}
	if got := lines[len(lines)-1].branch(); len(got) > 100 || !strings.HasSuffix(got, "(19999) ") {
		t.Errorf("got %q", got)
	}
}

func TestTrace_Errors(t *testing.T) {
	f := newFakeNode(t)
	tests := []struct {
		args string
		code int
		want string
	}{
		{"trace nothing", exitError, `cairn: no event has the correlation id "nothing"`},
		{"trace", exitUsage, `cairn: trace takes one correlation id, not 0; see 'cairn trace --help'`},
		{"trace a b", exitUsage, `cairn: trace takes one correlation id, not 2; see 'cairn trace --help'`},
	}
	for _, test := range tests {
		if code, _, errs := f.run(t, "", strings.Fields(test.args)...); code != test.code || errs != test.want+"\n" {
			t.Errorf("%s: exit %d, %s", test.args, code, errs)
		}
	}
}
