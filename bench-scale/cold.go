package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"
	"time"
)

const (
	streamGoal = 5 * time.Millisecond
	tagGoal    = 10 * time.Millisecond
)

// measureStreamRead reads streams of 100 events that lie all over the log.
func (b *bench) measureStreamRead(ctx context.Context) ([]line, error) {
	return b.coldReads(ctx, "one stream of 100 events, cold", "median under 5 ms", streamGoal, func(i int) string {
		return fmt.Sprintf("/v1/streams/%s/events?limit=100", appendHundred(nil, b.row, i))
	})
}

// measureTagQueries asks for the newest events of a tag that each 20th event
// has, so that they lie close together, and of one that 100 events all over the
// log have.
func (b *bench) measureTagQueries(ctx context.Context) ([]line, error) {
	const goal = "median under 10 ms"
	dense, err := b.coldReads(ctx, "newest 100 of a tag of each 20th event, cold", goal, tagGoal, func(i int) string {
		return fmt.Sprintf("/v1/events?tag=region:%d&order=desc&limit=100", i%regions)
	})
	if err != nil {
		return nil, err
	}
	sparse, err := b.coldReads(ctx, "newest 100 of a tag of 100 events all over the log, cold", goal, tagGoal, func(i int) string {
		return fmt.Sprintf("/v1/events?tag=customer:%s&order=desc&limit=100", appendHundred(nil, b.row, i))
	})
	return append(dense, sparse...), err
}

// coldReads restarts the nodes and makes 20 requests for 100 events each, with
// nothing of the nodes' files in the page cache before each. What the node read
// from the index for the ones before stays in its memory; the first request is
// told of on its own.
func (b *bench) coldReads(ctx context.Context, name, goal string, limit time.Duration, path func(i int) string) ([]line, error) {
	if err := b.noteMemory(nil); err != nil {
		return nil, err
	}
	if _, err := b.c.restart(ctx, syscall.SIGTERM); err != nil {
		return nil, err
	}
	c, err := dial(ctx, b.c.leader.http)
	if err != nil {
		return nil, err
	}
	defer c.close()
	host := b.c.leader.http
	var took []time.Duration
	for i := range hundreds {
		for _, p := range b.c.nodes {
			if err := evictAll(p.dir); err != nil {
				return nil, err
			}
		}
		// The connection and the handlers are warm; only the data are not.
		if a, err := c.do(getRequest(host, "/v1/cluster", "application/json")); err != nil || a.status != 200 {
			return nil, errors.Join(err, a.unexpected("/v1/cluster"))
		}
		request := getRequest(host, path(i), "application/json")
		begun := time.Now()
		a, err := c.do(request)
		took = append(took, time.Since(begun))
		if err != nil {
			return nil, err
		}
		if n := bytes.Count(a.body, []byte(`"position":`)); a.status != 200 || n != 100 {
			return nil, fmt.Errorf("%d events of 100: %w", n, a.unexpected(path(i)))
		}
	}
	first := took[0]
	s := spreadOf(took)
	return []line{{
		Name: name, Goal: goal,
		Text:   fmt.Sprintf("median %s, worst %s of %d; the first %s", short(s.p50), short(s.worst), s.count, short(first)),
		Values: map[string]float64{"median_ms": ms(s.p50), "worst_ms": ms(s.worst), "first_ms": ms(first)}, Verdict: verdict(s.p50 < limit),
	}}, nil
}

// evictAll has the pages of all files in a folder leave the page cache.
func evictAll(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			err = evict(path)
		}
		return ignoreGone(err)
	})
}
