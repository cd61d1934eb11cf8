package cluster

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

func newQueue(count int, bytes int64, flying, batch int) *queue {
	return &queue{maxCount: count, maxBytes: bytes, maxFlying: flying, batch: batch}
}

func ticketOf(commands ...string) *ticket {
	b := make([][]byte, len(commands))
	for i, c := range commands {
		b[i] = []byte(c)
	}
	return newTicket(b)
}

func commandsOf(batch []*proposal) (s []string) {
	for _, p := range batch {
		s = append(s, string(p.command))
	}
	return s
}

// While as many batches as may be are under way, the next one fills; it keeps
// the order of the tickets.
func TestQueue_Coalesces(t *testing.T) {
	q := newQueue(100, 1000, 1, 10)
	if start, err := q.put(ticketOf("a1")); !start || err != nil {
		t.Fatal(start, err)
	}
	if got := commandsOf(q.take()); fmt.Sprint(got) != "[a1]" {
		t.Errorf("first batch %v", got)
	}
	for _, c := range []string{"b1", "b2", "b3", "twelve bytes", "b4"} {
		if start, err := q.put(ticketOf(c, c+"'")); start || err != nil {
			t.Fatal(start, err)
		}
	}
	for _, want := range []string{
		"[b1 b1' b2 b2']", "[b3 b3']", "[twelve bytes]", "[twelve bytes']", "[b4 b4']",
	} {
		if got := commandsOf(q.take()); fmt.Sprint(got) != want {
			t.Errorf("batch %v, want %s", got, want)
		}
	}
	if q.idle() || q.take() != nil || !q.idle() {
		t.Error("the batch under way was not given back")
	}
	if start, _ := q.put(ticketOf("c")); !start {
		t.Error("an append on an idle queue does not start a batch")
	}
}

// A ticket that fits into a batch is not divided, so that it is written whole or
// not at all.
func TestQueue_KeepsTicketsTogether(t *testing.T) {
	q := newQueue(100, 1000, 1, 10)
	for _, commands := range [][]string{{"sixsix"}, {"abc", "def"}, {"ghi", "j"}, {"k"}} {
		if _, err := q.put(ticketOf(commands...)); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"[sixsix]", "[abc def ghi j]", "[k]"} {
		if got := fmt.Sprint(commandsOf(q.take())); got != want {
			t.Errorf("batch %s, want %s", got, want)
		}
	}
}

func TestQueue_Bounds(t *testing.T) {
	q := newQueue(4, 100, 1, 1000)
	if _, err := q.put(newTicket([][]byte{make([]byte, 500)})); err != nil {
		t.Errorf("an append over the bound, on an empty queue: %v", err)
	}
	q.take()
	for range 2 {
		if _, err := q.put(ticketOf("a", "b")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := q.put(ticketOf("c")); !errors.Is(err, ErrOverloaded) {
		t.Errorf("a fifth of four: %v", err)
	}
	q.take()
	if _, err := q.put(newTicket([][]byte{make([]byte, 60)})); err != nil {
		t.Fatal(err)
	}
	if _, err := q.put(newTicket([][]byte{make([]byte, 60)})); !errors.Is(err, ErrOverloaded) {
		t.Errorf("120 bytes of 100: %v", err)
	}
}

// Who gives up learns for each append whether it may have been written.
func TestQueue_Abandon(t *testing.T) {
	q := newQueue(100, 1000, 1, 4)
	first, second := ticketOf("1234", "5678"), ticketOf("last")
	for _, tk := range []*ticket{first, second} {
		if _, err := q.put(tk); err != nil {
			t.Fatal(err)
		}
	}
	batch := q.take()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	errs := q.wait(ctx, first, nil)
	var unknown *UnknownError
	if !errors.As(errs[0], &unknown) || !errors.Is(errs[0], context.Canceled) {
		t.Errorf("the one that was sent: %v", errs[0])
	}
	if !errors.Is(errs[1], ErrTimeout) || errors.As(errs[1], &unknown) {
		t.Errorf("the one that was not: %v", errs[1])
	}
	q.finish(batch) // nobody waits any more
	if got := commandsOf(q.take()); fmt.Sprint(got) != "[last]" {
		t.Errorf("after the ticket was given up the next batch is %v", got)
	}
	if count, bytes := q.depth(); count != 0 || bytes != 0 {
		t.Errorf("%d appends and %d bytes wait", count, bytes)
	}
}

// A shut queue returns what waits as not written and leaves alone what was sent.
func TestQueue_Shut(t *testing.T) {
	q := newQueue(100, 1000, 1, 4)
	sent, waits := ticketOf("1234"), ticketOf("5678")
	for _, tk := range []*ticket{sent, waits} {
		if _, err := q.put(tk); err != nil {
			t.Fatal(err)
		}
	}
	batch := q.take()
	q.shut()
	<-waits.done
	if retry := (*retryError)(nil); !errors.As(waits.proposals[0].err, &retry) {
		t.Errorf("what waited: %v", waits.proposals[0].err)
	}
	select {
	case <-sent.done:
		t.Error("what was sent is done")
	default:
	}
	if retry := (*retryError)(nil); !func() bool { _, err := q.put(ticketOf("x")); return errors.As(err, &retry) }() {
		t.Error("a shut queue takes appends")
	}
	q.finish(batch)
	<-sent.done
	q.reopen()
	if start, err := q.put(ticketOf("y")); start || err != nil {
		t.Errorf("reopened, with a batch still under way: %v, %v", start, err)
	}
	if got := commandsOf(q.take()); fmt.Sprint(got) != "[y]" {
		t.Errorf("batch %v", got)
	}
}
