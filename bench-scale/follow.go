package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/http/httputil"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	followers     = 1000
	followTime    = 10 * time.Second
	followGoal    = 50 * time.Millisecond
	followClients = 64
	followTimeout = 2 * time.Minute // for a follower to be done

	// markPrefix begins the data of events that are followed; their number
	// stands behind it, in markDigits digits.
	markPrefix = "number-"
	markDigits = 7
)

// crowd is one way to have followers follow.
type crowd struct {
	name, goal string
	rate       int // appends a second
	groups     int // a follower sees one append of so many
}

var crowds = []crowd{
	{"1,000 followers, 2,000 appends/s, each sees 1 of 100", "p99 under 50 ms", 2000, 100},
	// Each append is sent 1,000 times: as many messages a second as above, which
	// is what two cores carry beside the appends.
	{"1,000 followers, 20 appends/s, each sees all", "p99 under 50 ms", 20, 1},
}

// arrival is an event at a follower.
type arrival struct {
	n  int
	at time.Time
}

// measureFollowers tells how long after the answer to an append its event
// arrives at those who follow. One that arrives before the answer counts as 0.
func (b *bench) measureFollowers(ctx context.Context) ([]line, error) {
	var lines []line
	for i := range crowds {
		l, err := b.followAs(ctx, &crowds[i])
		if err != nil {
			return nil, err
		}
		lines = append(lines, l)
	}
	return lines, nil
}

func (b *bench) followAs(ctx context.Context, w *crowd) (line, error) {
	after, err := b.position(ctx)
	if err != nil {
		return line{}, err
	}
	b.mark++
	crowd, err := b.gather(ctx, w, after)
	if err != nil {
		return line{}, err
	}
	defer crowd.disperse()
	defer context.AfterFunc(ctx, crowd.hangUp)()
	total := w.rate * int(followTime/time.Second)
	answers := make([]atomic.Int64, total)
	stop := make(chan struct{})
	errs := make(chan error, 1)
	var once sync.Once
	var left atomic.Int64
	left.Store(int64(total))
	stream := string(appendName(nil, "followed", b.mark, 0))
	begun := time.Now()
	go func() {
		_, err := b.probe(ctx, w.rate, followClients, stop, func(dst []byte, n int) []byte {
			mark := ""
			if n < total {
				mark = fmt.Sprintf("%s%0*d", markPrefix, markDigits, n)
			}
			return b.g.single(dst, stream, fmt.Sprintf(`"shard:%d-%d"`, b.mark, n%w.groups), mark, "")
		}, func(n int) {
			if n >= total {
				return
			}
			answers[n].Store(int64(time.Since(begun)))
			if left.Add(-1) == 0 {
				once.Do(func() { close(stop) })
			}
		})
		errs <- err
	}()
	if err := <-errs; err != nil {
		return line{}, err
	}
	delays, err := crowd.delays(w, total, begun, answers)
	if err != nil {
		return line{}, err
	}
	s := spreadOf(delays)
	l := line{
		Name: w.name, Goal: w.goal, Text: fmt.Sprintf("%s, of %s arrivals", s, count(s.count)),
		Values: map[string]float64{"arrivals": float64(s.count)}, Verdict: verdict(s.p99 < followGoal),
	}
	s.put(l.Values, "")
	return l, nil
}

// gathering is followers that are connected.
type gathering struct {
	conns    []*conn
	arrivals [][]arrival // of each follower; its own goroutine's until work is done
	errs     []error
	want     int
	work     sync.WaitGroup
}

// gather connects the followers and returns when each has caught up.
func (b *bench) gather(ctx context.Context, w *crowd, after int) (*gathering, error) {
	want := w.rate * int(followTime/time.Second) / w.groups
	g := &gathering{arrivals: make([][]arrival, followers), errs: make([]error, followers), want: want}
	var caughtUp sync.WaitGroup
	for i := range followers {
		c, err := dial(ctx, b.c.leader.http)
		if err != nil {
			g.disperse()
			return nil, err
		}
		g.conns = append(g.conns, c)
		path := fmt.Sprintf("/v1/events?follow=true&after=%d&tag=shard:%d-%d", after, b.mark, i%w.groups)
		g.arrivals[i] = make([]arrival, 0, want)
		caughtUp.Add(1)
		g.work.Go(func() {
			live := sync.OnceFunc(caughtUp.Done)
			defer live()
			g.errs[i] = c.follow(getRequest(b.c.leader.http, path, ndjson), live, &g.arrivals[i], want)
		})
	}
	caughtUp.Wait()
	return g, nil
}

// disperse ends the connections and waits for the followers' goroutines.
func (g *gathering) disperse() {
	g.hangUp()
	g.work.Wait()
}

func (g *gathering) hangUp() {
	for _, c := range g.conns {
		c.close()
	}
}

// follow reads until it has seen so many events.
func (c *conn) follow(request []byte, live func(), seen *[]arrival, want int) error {
	h, err := c.begin(request, followTimeout)
	if err != nil {
		return err
	}
	if h.status != 200 || !h.chunked {
		return fmt.Errorf("a follower was answered with status %d, chunked: %v", h.status, h.chunked)
	}
	r := bufio.NewReaderSize(httputil.NewChunkedReader(c.r), 4<<10)
	for len(*seen) < want {
		text, err := r.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("after %d events of %d: %w", len(*seen), want, err)
		}
		if bytes.HasPrefix(text, []byte(`{"caught_up"`)) {
			live()
			continue
		}
		i := bytes.Index(text, []byte(markPrefix+"0"))
		if i < 0 {
			continue // a heartbeat
		}
		i += len(markPrefix)
		n, err := strconv.Atoi(string(text[i:min(i+markDigits, len(text))]))
		if err != nil {
			return fmt.Errorf("a followed event without its number: %w", err)
		}
		*seen = append(*seen, arrival{n, time.Now()})
	}
	return nil
}

// delays waits until all has arrived, checks that each follower has seen what it
// asked for, once and nothing else, and returns how long each event took.
func (g *gathering) delays(w *crowd, total int, begun time.Time, answers []atomic.Int64) ([]time.Duration, error) {
	g.work.Wait()
	for i, err := range g.errs {
		if err != nil {
			return nil, fmt.Errorf("follower %d: %w", i, err)
		}
	}
	var all []time.Duration
	for i, arrived := range g.arrivals {
		seen := make([]bool, total)
		for _, a := range arrived {
			if a.n >= total || a.n%w.groups != i%w.groups || seen[a.n] {
				return nil, fmt.Errorf("follower %d has seen event %d, which it should not or not again", i, a.n)
			}
			seen[a.n] = true
			answered := begun.Add(time.Duration(answers[a.n].Load()))
			all = append(all, max(0, a.at.Sub(answered)))
		}
	}
	slices.Sort(all)
	return all, nil
}
