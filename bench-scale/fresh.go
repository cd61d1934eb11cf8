package main

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"
)

const (
	freshClients = 64
	freshSlice   = 3 * time.Second
	freshRounds  = 3
	freshKept    = 0.8 // of the rate of a hot stream
)

// appendName appends the name of a stream that a figure appends to.
func appendName(dst []byte, prefix string, mark int, n int64) []byte {
	dst = strconv.AppendInt(append(append(dst, prefix...), '-'), int64(mark), 10)
	return strconv.AppendInt(append(dst, '-'), n, 10)
}

// measureFreshStreams has 64 clients append single events, in turns to streams
// that do not exist yet and to one that is hot, so that whatever else changes on
// the machine changes for both.
func (b *bench) measureFreshStreams(ctx context.Context) ([]line, error) {
	b.mark++
	hot := string(appendName(nil, "hot", b.mark, 0))
	var sent [2]int
	var spent [2]time.Duration
	var number atomic.Int64
	for turn := range 2 * freshRounds {
		begun := time.Now()
		n, err := b.singles(ctx, begun.Add(freshSlice), func(dst []byte) []byte {
			if turn%2 == 0 {
				return b.g.single(dst, hot, likeTheLoad, "", "")
			}
			return b.g.single(dst, string(appendName(nil, "fresh", b.mark, number.Add(1))), likeTheLoad, "", "")
		})
		if err != nil {
			return nil, err
		}
		sent[turn%2] += n
		spent[turn%2] += time.Since(begun)
	}
	hotRate, freshRate := float64(sent[0])/spent[0].Seconds(), float64(sent[1])/spent[1].Seconds()
	return []line{{
		Name: "append to a stream that does not exist yet, 64 clients × 1", Goal: "within 20 % of a hot stream",
		Text:   fmt.Sprintf("%s/s, hot %s/s, %.0f %%", count(freshRate), count(hotRate), 100*freshRate/hotRate),
		Values: map[string]float64{"fresh_rate": freshRate, "hot_rate": hotRate}, Verdict: verdict(freshRate >= freshKept*hotRate),
	}}, nil
}

// singles has the clients append until a time and returns how many appends were
// answered.
func (b *bench) singles(ctx context.Context, until time.Time, build func(dst []byte) []byte) (int, error) {
	counts, err := crew(ctx, freshClients, b.c.leader.http, func(c *conn, n *int, halt <-chan struct{}) error {
		var body, request []byte
		refused := 0
		for time.Now().Before(until) {
			select {
			case <-halt:
				return nil
			default:
			}
			body = build(body)
			request = postRequest(request, b.c.leader.http, "/v1/append", body)
			if err := c.append(request, &refused); err != nil {
				return err
			}
			*n++
		}
		return nil
	})
	sum := 0
	for _, n := range counts {
		sum += n
	}
	return sum, err
}
