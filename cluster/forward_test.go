package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cairn/event"
)

func TestForward_RoundTrip(t *testing.T) {
	tk := ticketOf("first", "", "third")
	var batch []*proposal
	for i := range tk.proposals {
		batch = append(batch, &tk.proposals[i])
	}
	commands, err := decodeForward(encodeForward(batch))
	if err != nil || fmt.Sprintf("%s", commands) != "[first  third]" {
		t.Fatalf("decoded %q, %v", commands, err)
	}
	results := []Result{
		{Outcome: event.Outcome{Code: event.Accepted, First: 5, Last: 7, Time: 9, Versions: []event.StreamVersion{{Stream: "a", Version: 3}}}},
		{Err: &UnknownError{errors.New("lost")}},
		{Outcome: event.Outcome{Code: event.Refused, Reason: "no"}},
	}
	if err := decodeForwarded(encodeForwarded(results), batch); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(batch[0].outcome, results[0].Outcome) || !reflect.DeepEqual(batch[2].outcome, results[2].Outcome) {
		t.Errorf("outcomes %+v and %+v", batch[0].outcome, batch[2].outcome)
	}
	if unknown := (*UnknownError)(nil); !errors.As(batch[1].err, &unknown) {
		t.Errorf("error %v", batch[1].err)
	}
}

// Each error means the same on the follower as on the leader.
func TestForward_Errors(t *testing.T) {
	retry, unknown, peer := (*retryError)(nil), (*UnknownError)(nil), (*PeerError)(nil)
	for _, tt := range []struct {
		err  error
		same func(error) bool
	}{
		{&retryError{ErrNoLeader}, func(err error) bool { return errors.As(err, &retry) }},
		{&UnknownError{context.Canceled}, func(err error) bool { return errors.As(err, &unknown) }},
		{ErrOverloaded, func(err error) bool { return errors.Is(err, ErrOverloaded) }},
		{fmt.Errorf("%w: too slow", ErrTimeout), func(err error) bool { return errors.Is(err, ErrTimeout) }},
		{errors.New("damaged"), func(err error) bool { return errors.As(err, &peer) && peer.Message == "damaged" }},
	} {
		p := &proposal{}
		if err := decodeForwarded(encodeForwarded([]Result{{Err: tt.err}}), []*proposal{p}); err != nil {
			t.Fatal(err)
		}
		if !tt.same(p.err) {
			t.Errorf("%v became %v", tt.err, p.err)
		}
	}
}

func FuzzForward(f *testing.F) {
	f.Add(encodeForward([]*proposal{{command: []byte("a")}, {command: []byte("bc")}}))
	f.Add(encodeForwarded([]Result{{Err: ErrTimeout}, {Outcome: event.Outcome{Code: event.Accepted}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if commands, err := decodeForward(b); err == nil {
			batch := make([]*proposal, len(commands))
			for i, c := range commands {
				batch[i] = &proposal{command: c}
			}
			again, err := decodeForward(encodeForward(batch))
			if err != nil || !reflect.DeepEqual(again, commands) {
				t.Errorf("%q, %v", again, err)
			}
		}
		_ = decodeForwarded(b, []*proposal{{}, {}})
	})
}

// fakePeers is a network whose calls are answered by a function.
type fakePeers struct {
	Network
	answer func(ctx context.Context, name string, body []byte) ([]byte, error)
}

func (f *fakePeers) Call(ctx context.Context, _, name string, body []byte) ([]byte, error) {
	return f.answer(ctx, name, body)
}

func newTestForwarder(answer func(ctx context.Context, name string, body []byte) ([]byte, error)) *forwarder {
	ctx, cancel := context.WithCancel(context.Background())
	return &forwarder{
		ctx: ctx, cancel: cancel,
		queue: newQueue(1000, 1<<20, 1, entryBytes), peers: &peerClient{&fakePeers{answer: answer}},
		addr: func() string { return "leader" }, timeout: 5 * time.Second,
		stopped: make(chan struct{}), running: &sync.WaitGroup{}, stats: newMetrics(),
	}
}

// What waits while a batch is under way goes in one call.
func TestForwarder_Batches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sizes []int
		release := make(chan struct{})
		f := newTestForwarder(func(_ context.Context, name string, body []byte) ([]byte, error) {
			commands, err := decodeForward(body)
			if err != nil || name != callForward {
				t.Errorf("call %s: %v", name, err)
			}
			sizes = append(sizes, len(commands))
			<-release
			results := make([]Result, len(commands))
			for i, c := range commands {
				results[i].Outcome = event.Outcome{Code: event.Refused, Reason: string(c)}
			}
			return encodeForwarded(results), nil
		})
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				tk := ticketOf(fmt.Sprint(i))
				if errs, err := f.submit(context.Background(), tk); errs != nil || err != nil {
					t.Error(errs, err)
				}
				if tk.proposals[0].outcome.Reason != fmt.Sprint(i) {
					t.Errorf("append %d got the outcome of %s", i, tk.proposals[0].outcome.Reason)
				}
			})
			synctest.Wait()
		}
		close(release)
		wg.Wait()
		f.running.Wait()
		if fmt.Sprint(sizes) != "[1 49]" {
			t.Errorf("batches of %v", sizes)
		}
	})
}

func TestForwarder_Errors(t *testing.T) {
	retry, unknown := (*retryError)(nil), (*UnknownError)(nil)
	for name, tt := range map[string]struct {
		err    error
		answer []byte
		want   any
	}{
		"not sent":       {err: &notSentError{errors.New("refused")}, want: &retry},
		"not the leader": {err: &PeerError{Code: codeFailed, Message: "no leader"}, want: &retry},
		"broken off":     {err: errors.New("connection reset"), want: &unknown},
		"nonsense":       {answer: []byte("nonsense"), want: &unknown},
		"too few":        {answer: encodeForwarded(nil), want: &unknown},
	} {
		f := newTestForwarder(func(context.Context, string, []byte) ([]byte, error) { return tt.answer, tt.err })
		tk := ticketOf("x")
		if _, err := f.submit(context.Background(), tk); err != nil {
			t.Fatal(err)
		}
		if err := tk.proposals[0].err; !errors.As(err, tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What a peer sends gets into an entry only if every node can decode it and a
// client may do it.
func TestServeForward_RefusesWhatWouldEndTheCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, 1, nil)
		defer c.closeAll()
		good := event.EncodeCommand(nil, &event.Command{Kind: event.KindAppend, Append: *one("good")})
		system, err := event.SystemCommand(event.StreamMembers, event.TypeMemberRemoved, event.MemberRemoved{NodeID: nodeID(0)})
		if err != nil {
			t.Fatal(err)
		}
		batch := []*proposal{
			{command: []byte("rubbish")}, {command: good}, {command: append(bytes.Clone(good), 0)},
			{command: event.EncodeCommand(nil, &system)},
		}
		answer, err := c.nodes[0].serveForward(context.Background(), encodeForward(batch))
		if err != nil {
			t.Fatal(err)
		}
		if err := decodeForwarded(answer, batch); err != nil {
			t.Fatal(err)
		}
		for i, want := range []bool{false, true, false, false} {
			if ok := batch[i].err == nil && batch[i].outcome.OK(); ok != want {
				t.Errorf("command %d: %+v, %v", i, batch[i].outcome, batch[i].err)
			}
		}
		if got := c.machines[0].events(); fmt.Sprint(got) != "[good]" {
			t.Errorf("the log has %v", got)
		}
	})
}
