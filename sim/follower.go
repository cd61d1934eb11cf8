package sim

import (
	"context"
	"math/rand/v2"
	"time"

	"cairn/fsm"
	"cairn/jepsen-lite/history"
)

// follower is given the whole log, from one node after the other: as a client
// of package httpapi would be, by the same view and the same wake-up.
type follower struct {
	w          *world
	id         int
	rng        *rand.Rand
	position   uint64
	connection int
}

// follow runs until it has everything there is in the end, or ctx ends.
func (f *follower) follow(ctx context.Context, end *finish) history.Follower {
	for ctx.Err() == nil {
		h := f.w.hosts[f.rng.IntN(len(f.w.hosts))]
		if r := h.current(); r != nil && r.enter() {
			f.connection++
			f.hang(ctx, r, end)
			r.leave()
		}
		if end.reached(f.position) {
			return history.Follower{ID: f.id, Form: "view", Done: true, Through: f.position}
		}
		time.Sleep(50 * time.Millisecond)
	}
	return history.Follower{ID: f.id, Form: "view", Through: f.position}
}

// hang follows on one node for some seconds, or until it stops.
func (f *follower) hang(ctx context.Context, r *run, end *finish) {
	ctx, cancel := context.WithTimeout(ctx, time.Second+time.Duration(f.rng.Int64N(int64(10*time.Second))))
	defer cancel()
	if r.node.Cluster().Ready() != nil {
		return
	}
	for {
		changed := r.node.Machine().Changed()
		view := r.node.Machine().View(0)
		events, err := page(view.Select(fsm.Selection{After: f.position}))(100)
		view.Close()
		if r.end.killed() {
			return
		}
		if err != nil {
			f.w.fail("follower %d on %s: %v", f.id, r.host.name, err)
			return
		}
		for i := range events {
			f.position = events[i].Position
			f.w.rec.Delivery(history.Delivery{Follower: f.id, Connection: f.connection, Node: r.host.name, At: f.w.rec.Now(), Event: events[i]})
		}
		if end.reached(f.position) {
			return
		}
		if len(events) > 0 {
			continue
		}
		select {
		case <-changed:
		case <-r.lifetime.Done():
			return
		case <-r.quit:
			return
		case <-ctx.Done():
			return
		}
	}
}
