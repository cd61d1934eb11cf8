package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const (
	loadClients = 8
	lastEvents  = 1_000_000 // the rate of a row is that over these before it
	// rateKept is the part of the first row's rate that later ones must reach.
	rateKept = 0.85
)

// measureAppends loads the log up to the row, and tells of the last million.
func (b *bench) measureAppends(ctx context.Context) ([]line, error) {
	target := b.s.rows[b.row]
	last := min(lastEvents, target-b.sent())
	b.watch.load(true)
	defer b.watch.load(false)
	if _, err := b.load(ctx, load{clients: loadClients, until: target - last}); err != nil {
		return nil, err
	}
	begun := time.Now()
	r, err := b.load(ctx, load{clients: loadClients, until: target})
	if err != nil {
		return nil, err
	}
	took := time.Since(begun)
	if err := b.noteMemory(&b.loaded); err != nil {
		return nil, err
	}
	rate := float64(last) / took.Seconds()
	l := spreadOf(r.took)
	const name = "append rate, 8 clients × 100"
	values := map[string]float64{"rate": rate, "overloaded": float64(r.overloaded)}
	l.put(values, "")
	text := fmt.Sprintf("%s events/s; %s", count(rate), l)
	if r.overloaded > 0 {
		text += fmt.Sprintf("; %s answered overloaded", count(r.overloaded))
	}
	first, ok := b.atFirstRow(name, "rate")
	out := line{Name: name, Goal: "within 15 % of the first row", Text: text, Values: values}
	if ok {
		out.Text += fmt.Sprintf("; %.0f %% of the first row", 100*rate/first)
		out.Verdict = verdict(rate >= rateKept*first)
	}
	return []line{out}, nil
}

// load is a part of the load to send.
type load struct {
	clients int
	until   int           // events
	every   time.Duration // least time between the appends of one client; 0 = as fast as they are answered
	stop    <-chan struct{}
}

// loadResult is what the clients saw.
type loadResult struct {
	took       []time.Duration // of each append, with its repetitions
	overloaded int             // answers that asked to come again
}

// load sends the appends that are missing, and returns when all are answered.
func (b *bench) load(ctx context.Context, l load) (loadResult, error) {
	until := l.until / batchEvents
	var next atomic.Int64
	next.Store(b.batches.Load())
	results, err := crew(ctx, l.clients, b.c.leader.http, func(c *conn, r *loadResult, halt <-chan struct{}) error {
		var body, request []byte
		due := time.Now()
		for {
			select {
			case <-halt:
				return nil
			case <-l.stop:
				return nil
			default:
			}
			time.Sleep(time.Until(due))
			n := int(next.Add(1)) - 1
			if n >= until {
				return nil
			}
			var tagBytes int
			body, tagBytes = b.g.batch(body, n)
			request = postRequest(request, b.c.leader.http, "/v1/append", body)
			sent := time.Now()
			due = sent.Add(l.every) // what a stall has held up is not made up for in a burst
			if err := c.append(request, &r.overloaded); err != nil {
				return err
			}
			r.took = append(r.took, time.Since(sent))
			b.batches.Add(1)
			b.tagBytes.Add(int64(tagBytes))
		}
	})
	var all loadResult
	for _, r := range results {
		all.took = append(all.took, r.took...)
		all.overloaded += r.overloaded
	}
	return all, err
}

// append sends an append until it is in the log, for a minute at most. A node
// may answer that it has more than it can take, in which case nothing was
// written.
func (c *conn) append(request []byte, overloaded *int) error {
	for begun := time.Now(); ; {
		a, err := c.do(request)
		if err != nil {
			return err
		}
		if a.status != 503 {
			return a.appended()
		}
		if *overloaded++; time.Since(begun) > time.Minute {
			return a.unexpected("an append, a minute long")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// crew runs a number of clients, each with a connection and a result of its own,
// until all have returned. halt is closed when ctx ends or one has failed; the
// error is that of the first one that did.
func crew[R any](ctx context.Context, clients int, host string, run func(c *conn, r *R, halt <-chan struct{}) error) ([]R, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	results := make([]R, clients)
	var work sync.WaitGroup
	for i := range clients {
		work.Go(func() {
			c, err := dial(ctx, host)
			if err == nil {
				defer c.close()
				err = run(c, &results[i], ctx.Done())
			}
			if err != nil {
				cancel(err)
			}
		})
	}
	work.Wait()
	return results, context.Cause(ctx)
}
