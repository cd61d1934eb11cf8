package client

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cairn/event"
)

// ledger is a subscriber with a transaction: it stores events and checkpoint
// together, or neither.
type ledger struct {
	at      Checkpoint
	got     []uint64
	batches []int
	crash   func(b Batch) error // before anything is stored
	enough  func() bool
	stop    context.CancelFunc
}

func (l *ledger) Load(context.Context) (Checkpoint, error) { return l.at, nil }

func (l *ledger) Take(_ context.Context, b Batch) error {
	if l.crash != nil {
		if err := l.crash(b); err != nil {
			return err
		}
	}
	for i := range b.Events {
		l.got = append(l.got, b.Events[i].Position)
	}
	l.batches = append(l.batches, len(b.Events))
	l.at = b.Checkpoint
	if l.enough() {
		l.stop()
	}
	return nil
}

// subscribe runs until the ledger has n events.
func (l *ledger) subscribe(t *testing.T, c *Client, o SubscribeOptions, n int) error {
	t.Helper()
	ctx, stop := context.WithCancel(testContext(t))
	defer stop()
	l.stop, l.enough = stop, func() bool { return len(l.got) >= n }
	return c.Subscribe(ctx, l, o)
}

func addMany(f *fakeLog, n int) {
	for range n {
		f.add(moved("a", "Deposited", 1))
	}
}

var deposits = event.Filter{Query: event.Query{Items: []event.QueryItem{{Types: []string{"Deposited"}}}}}

var errCrash = errors.New("crash")

// Whenever it crashes, a subscriber with a transaction has each event once.
func TestSubscribe_ExactlyOnceInEffect(t *testing.T) {
	f := newFakeLog(t)
	addMany(f, 30)
	c := newClient(t, nil, f.url)
	taken := 0
	l := &ledger{crash: func(Batch) error {
		if taken++; taken%3 == 0 {
			return errCrash
		}
		return nil
	}}
	crashes := 0
	for target := 30; len(l.got) < 40; {
		err := l.subscribe(t, c, SubscribeOptions{Filter: deposits, MaxEvents: 4}, target)
		if errors.Is(err, errCrash) {
			crashes++
		} else if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if len(l.got) == 30 {
			addMany(f, 10)
			target = 40
		}
	}
	if !slices.Equal(l.got, positions(2, 41)) || crashes == 0 {
		t.Errorf("got %v, %d crashes", l.got, crashes)
	}
	if l.at != (Checkpoint{Log: "L", Position: 41}) || slices.Max(l.batches) > 4 {
		t.Errorf("at %+v, batches %v", l.at, l.batches)
	}
}

// Without a transaction the batch at which it crashed comes again, and nothing
// is left out.
func TestSubscribe_AtLeastOnce(t *testing.T) {
	f := newFakeLog(t)
	addMany(f, 10)
	c := newClient(t, nil, f.url)
	file := CheckpointFile(filepath.Join(t.TempDir(), "checkpoint"))
	var got []uint64
	run := func(fail uint64) error {
		ctx, stop := context.WithCancel(testContext(t))
		defer stop()
		return c.Subscribe(ctx, AtLeastOnce(file, func(_ context.Context, events []event.Event) error {
			for i := range events {
				p := events[i].Position
				got = append(got, p)
				if p == fail {
					return errCrash
				}
				if p == 11 {
					stop()
				}
			}
			return nil
		}), SubscribeOptions{MaxEvents: 1})
	}
	err := run(5)
	if !errors.Is(err, errCrash) || !strings.HasPrefix(err.Error(), "after position 4: ") {
		t.Errorf("got %v", err)
	}
	if err := run(0); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if want := append(positions(1, 5), positions(5, 11)...); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// A checkpoint moves on also when nothing of what passes is chosen.
func TestSubscribe_SparseFilter(t *testing.T) {
	f := newFakeLog(t)
	addMany(f, 5)
	f.add(event.Event{Stream: "b", Type: "Other"})
	l := &ledger{}
	ctx, stop := context.WithCancel(testContext(t))
	defer stop()
	l.stop, l.enough = stop, func() bool { return l.at.Position == 7 }
	err := newClient(t, nil, f.url).Subscribe(ctx, l, SubscribeOptions{Filter: deposits})
	if !errors.Is(err, context.Canceled) || !slices.Equal(l.got, positions(2, 6)) {
		t.Errorf("got %v, %v", l.got, err)
	}
}

// Positions of a log that was replaced are never taken for those of the new
// one, and the error says what has happened.
func TestSubscribe_LogChanged(t *testing.T) {
	f := newFakeLog(t)
	addMany(f, 3)
	c := newClient(t, nil, f.url)
	l := &ledger{}
	if err := l.subscribe(t, c, SubscribeOptions{}, 4); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	f.mu.Lock()
	f.log = "M"
	f.mu.Unlock()
	err := l.subscribe(t, c, SubscribeOptions{}, 5)
	if !IsLogChanged(err) || !strings.Contains(err.Error(), "no longer has log L, of which everything up to position 4 was taken") || len(l.got) != 4 {
		t.Errorf("got %v, %v", l.got, err)
	}
}

func TestSubscribe_Refuses(t *testing.T) {
	c := newClient(t, nil, deadNode(t))
	if err := c.Subscribe(t.Context(), &ledger{}, SubscribeOptions{MaxEvents: -1}); err == nil {
		t.Error("MaxEvents below 0: no error")
	}
	file := CheckpointFile(filepath.Join(t.TempDir(), "bad"))
	if err := os.WriteFile(string(file), []byte("17\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := c.Subscribe(t.Context(), AtLeastOnce(file, nil), SubscribeOptions{})
	if err == nil || !strings.Contains(err.Error(), "holds no checkpoint") {
		t.Errorf("got %v", err)
	}
}

// A batch ends when it is full or its time is over, whichever is first.
func TestBatcher_Gather(t *testing.T) {
	at := func(p uint64) arrival { return arrival{event: event.Event{Position: p}, at: Checkpoint{"L", p}} }
	tests := []struct {
		name   string
		wait   time.Duration
		want   []int
		last   time.Duration // when the last batch was complete
		ending bool
	}{
		{"no wait", 0, []int{1, 1, 1, 1, 1}, 4 * time.Second, false},
		{"wait", 2500 * time.Millisecond, []int{3, 2}, 4500*time.Millisecond + time.Second, false},
		{"full", time.Hour, []int{3, 2}, 4 * time.Second, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &batcher{o: SubscribeOptions{MaxEvents: 3, MaxWait: test.wait}, arrived: make(chan arrival)}
				go func() {
					for p := range uint64(5) {
						b.arrived <- at(p + 1)
						if p < 4 {
							time.Sleep(time.Second)
						}
					}
					if !test.ending {
						time.Sleep(10 * time.Second)
					}
					close(b.arrived)
				}()
				l := &ledger{enough: func() bool { return false }}
				start := time.Now()
				var last time.Duration
				l.crash = func(Batch) error {
					last = time.Since(start)
					return nil
				}
				if err := b.deliver(t.Context(), l); err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(l.batches, test.want) || last != test.last || l.at.Position != 5 {
					t.Errorf("batches %v, the last after %s", l.batches, last)
				}
			})
		})
	}
}

func TestCheckpointFile(t *testing.T) {
	folder := t.TempDir()
	f := CheckpointFile(filepath.Join(folder, "c"))
	if p, err := f.Load(t.Context()); err != nil || p != (Checkpoint{}) {
		t.Errorf("got %+v, %v", p, err)
	}
	for _, want := range []Checkpoint{{"L", 7}, {"L@x", 1 << 63}} {
		if err := f.Save(t.Context(), want); err != nil {
			t.Fatal(err)
		}
		if p, err := f.Load(t.Context()); err != nil || p != want {
			t.Errorf("got %+v, %v", p, err)
		}
	}
	if files, err := os.ReadDir(folder); err != nil || len(files) != 1 {
		t.Errorf("left behind: %v, %v", files, err)
	}
	if err := CheckpointFile(filepath.Join(folder, "missing", "c")).Save(t.Context(), Checkpoint{}); err == nil {
		t.Error("no folder: no error")
	}
}

func TestReactionID(t *testing.T) {
	e := &event.Event{Stream: "order-7", ID: "x", Position: 9}
	id := ReactionID(e, "confirm", 0)
	if want := "B6sFbJ3ytBYf2-DQd4hOHPqgt4J65j0W4dMRv3YO-RY"; id != want {
		t.Errorf("got %s, want %s: ids of answers must never change", id, want)
	}
	moved := *e
	moved.Position = 12 // in another log
	if ReactionID(&moved, "confirm", 0) != id {
		t.Error("it depends on the position")
	}
	for _, other := range []string{ReactionID(e, "confirm", 1), ReactionID(e, "remind", 0),
		ReactionID(&event.Event{Stream: "order-", ID: "7x"}, "confirm", 0), ReactionID(&event.Event{Stream: "order-7", ID: "xc"}, "onfirm", 0)} {
		if other == id {
			t.Error("two answers with one id")
		}
	}
}
