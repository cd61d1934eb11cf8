package main

import (
	"context"
	"slices"
	"sync/atomic"
	"time"
)

const (
	probeRate    = 500 // appends a second
	probeClients = 32
)

// probed is one append of a probe.
type probed struct {
	begun time.Time     // when it was due
	took  time.Duration // until the answer
}

// probe sends appends of one event at a steady rate, whatever becomes of the
// ones before, until stop is closed. 64 clients that each wait for their answer
// would fill the node's queue, and their latency would be that queue's; and
// while the node stands still they would send nothing and so count one slow
// append each. Here every append that was due while the node stood counts.
//
// build puts the body of append n, from 0 on, into dst. answered, if not nil, is
// called at once with each answer; clients call it at the same time.
func (b *bench) probe(ctx context.Context, rate, clients int, stop <-chan struct{},
	build func(dst []byte, n int) []byte, answered func(n int)) ([]probed, error) {
	var next atomic.Int64
	begun := time.Now()
	every := time.Second / time.Duration(rate)
	results, err := crew(ctx, clients, b.c.leader.http, func(c *conn, r *[]probed, halt <-chan struct{}) error {
		var body, request []byte
		refused := 0
		for {
			n := int(next.Add(1)) - 1
			due := begun.Add(time.Duration(n) * every)
			body = build(body, n)
			request = postRequest(request, b.c.leader.http, "/v1/append", body)
			if wait := time.Until(due); wait > 0 {
				select {
				case <-halt:
					return nil
				case <-stop:
					return nil
				case <-time.After(wait):
				}
				// It was this client's clock that woke it late, not the node.
				due = time.Now()
			}
			select {
			case <-stop:
				return nil
			default:
			}
			if err := c.append(request, &refused); err != nil {
				return err
			}
			if answered != nil {
				answered(n)
			}
			*r = append(*r, probed{due, time.Since(due)})
		}
	})
	all := slices.Concat(results...)
	slices.SortFunc(all, func(x, y probed) int { return x.begun.Compare(y.begun) })
	return all, err
}

// single returns a builder of appends of one event to streams of their own.
func (b *bench) single(prefix string) func(dst []byte, n int) []byte {
	b.mark++
	stream := appendName(nil, prefix, b.mark, 0)
	return func(dst []byte, n int) []byte {
		return b.g.single(dst, string(stream), likeTheLoad, "", "")
	}
}

// took is how long the appends took for which keep is true.
func took(all []probed, keep func(p *probed) bool) []time.Duration {
	var d []time.Duration
	for i := range all {
		if keep(&all[i]) {
			d = append(d, all[i].took)
		}
	}
	return d
}
