package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"cairn/event"
)

// Checkpoint says up to where a subscriber has taken what it follows. The zero
// Checkpoint stands before the first event. A position alone says nothing: of
// a log restored from a backup it may name another event.
type Checkpoint struct {
	Log      string // id of the log; "" = not known yet
	Position uint64
}

// Batch is what a subscriber takes at once.
type Batch struct {
	// Events are in the order of the log. There may be none: then only the
	// position has moved, past events that the filter does not choose.
	Events []event.Event
	// Checkpoint is where to go on once the batch is taken.
	Checkpoint Checkpoint
}

// Subscriber is who takes what Subscribe delivers. Its methods are called one
// at a time.
type Subscriber interface {
	// Load returns the checkpoint of what was taken last, the zero Checkpoint
	// if nothing was. It is called once, at the start.
	Load(ctx context.Context) (Checkpoint, error)
	// Take works with a batch. One that stores what it makes of the events and
	// the batch's checkpoint in one transaction sees each event exactly once
	// in effect: after a crash Load returns what that transaction stored, and
	// everything behind it comes again. Take may keep the batch. An error ends
	// Subscribe.
	Take(ctx context.Context, b Batch) error
}

// CheckpointStore keeps the checkpoint of a subscriber that has no transaction
// of its own.
type CheckpointStore interface {
	// Load returns what was saved last, the zero Checkpoint if nothing was.
	Load(ctx context.Context) (Checkpoint, error)
	// Save replaces it. When it returns nil, p is as durable as the store
	// makes things.
	Save(ctx context.Context, p Checkpoint) error
}

// AtLeastOnce makes a Subscriber of a handler and a store for its checkpoint,
// which is saved after the handler has returned nil. A crash in between makes
// the events of the last batch come again, so what handle does must be safe to
// repeat: an append with a ReactionID is. Batches without events are not
// handled, only saved.
func AtLeastOnce(store CheckpointStore, handle func(ctx context.Context, events []event.Event) error) Subscriber {
	return &repeating{store, handle}
}

type repeating struct {
	CheckpointStore
	handle func(context.Context, []event.Event) error
}

func (r *repeating) Take(ctx context.Context, b Batch) error {
	if len(b.Events) > 0 {
		if err := r.handle(ctx, b.Events); err != nil {
			return err
		}
	}
	if err := r.Save(ctx, b.Checkpoint); err != nil {
		return fmt.Errorf("save checkpoint: %w", err)
	}
	return nil
}

// SubscribeOptions say what to deliver, in what pieces.
type SubscribeOptions struct {
	// Filter chooses the events, as in FollowOptions.
	Filter event.Filter
	// MaxEvents bounds a batch; 0 = 100.
	MaxEvents int
	// MaxWait is how long an event may wait for others to fill its batch. 0 =
	// not at all: a batch is what has arrived while the one before was taken.
	MaxWait time.Duration
	// Interrupted, if set, is called as in FollowOptions, from a goroutine of
	// Subscribe's own.
	Interrupted func(err error)
}

const defaultMaxEvents = 100

// Subscribe follows from s's checkpoint on and hands what comes to s, in order
// and without a gap, until ctx is done, s returns an error, or the cluster
// refuses; it always returns an error, wrapped, and has no goroutine left then.
//
// If the cluster has another log than the checkpoint's, one restored from a
// backup, the error is one for which IsLogChanged holds. What s has stored may
// then hold events that the log no longer has: build it anew from the zero
// Checkpoint, or decide by hand from where to go on.
func (c *Client) Subscribe(ctx context.Context, s Subscriber, o SubscribeOptions) error {
	if o.MaxEvents < 0 || o.MaxWait < 0 {
		return errors.New("subscribe: neither MaxEvents nor MaxWait can be below 0")
	}
	if o.MaxEvents == 0 {
		o.MaxEvents = defaultMaxEvents
	}
	from, err := s.Load(ctx)
	if err != nil {
		return fmt.Errorf("load checkpoint: %w", err)
	}
	b := &batcher{o: o, at: from, arrived: make(chan arrival, o.MaxEvents)}
	following, stop := context.WithCancel(ctx)
	var followed error
	var joined sync.WaitGroup
	joined.Go(func() {
		defer close(b.arrived)
		followed = c.feed(following, from, b)
	})
	taken := b.deliver(ctx, s)
	stop()
	joined.Wait()
	if taken != nil {
		return fmt.Errorf("after position %d: %w", b.at.Position, taken)
	}
	if IsLogChanged(followed) {
		return fmt.Errorf("the cluster no longer has log %s, of which everything up to position %d was taken; was it restored from a backup? %w",
			b.at.Log, b.at.Position, followed)
	}
	return followed
}

// arrival is an event, or the news that there is none up to a position.
type arrival struct {
	event event.Event // its position is 0 if there is none
	at    Checkpoint
}

// feed follows into b.arrived until it can't go on.
func (c *Client) feed(ctx context.Context, from Checkpoint, b *batcher) error {
	f := &follower{c: c, position: from.Position, log: from.Log}
	last := from.Position
	send := func(a arrival) bool {
		last = a.at.Position
		select {
		case b.arrived <- a:
			return true
		case <-ctx.Done():
			return false
		}
	}
	f.o = FollowOptions{Filter: b.o.Filter, Interrupted: b.o.Interrupted, Progress: func(position uint64, log string) {
		if position > last {
			send(arrival{at: Checkpoint{Log: log, Position: position}})
		}
	}}
	f.yield = func(e event.Event, _ error) bool {
		return send(arrival{event: e, at: Checkpoint{Log: f.log, Position: e.Position}})
	}
	if err := f.run(ctx); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// batcher gathers what arrives. The goroutine of Subscribe owns it; only
// arrived is shared with that of feed, which closes it.
type batcher struct {
	o       SubscribeOptions
	arrived chan arrival
	at      Checkpoint // everything up to here is taken
}

// deliver hands over batches until nothing arrives any more, or ctx is done.
func (b *batcher) deliver(ctx context.Context, s Subscriber) error {
	for a := range b.arrived {
		batch := b.gather(ctx, a)
		if ctx.Err() != nil {
			return nil // feed says why
		}
		if err := s.Take(ctx, batch); err != nil {
			return err
		}
		b.at = batch.Checkpoint
	}
	return nil
}

// gather fills the batch that a begins.
func (b *batcher) gather(ctx context.Context, a arrival) Batch {
	var batch Batch
	batch.add(a)
	var late <-chan time.Time
	if b.o.MaxWait > 0 {
		timer := time.NewTimer(b.o.MaxWait)
		defer timer.Stop()
		late = timer.C
	}
	for len(batch.Events) < b.o.MaxEvents {
		var more bool
		if late == nil {
			select {
			case a, more = <-b.arrived:
			default:
			}
		} else {
			select {
			case a, more = <-b.arrived:
			case <-late:
			case <-ctx.Done():
			}
		}
		if !more {
			return batch
		}
		batch.add(a)
	}
	return batch
}

func (b *Batch) add(a arrival) {
	if a.event.Position > 0 {
		b.Events = append(b.Events, a.event)
	}
	b.Checkpoint = a.at
}
