package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	conditionTries = 10
	conditionGoal  = time.Millisecond
	conditionTime  = 3 * time.Second // with and without, beside other appends

	// neverMet looks through the two tags that between them all events have and
	// none has both.
	neverMet = `[{"query":{"items":[{"tags":["left:1","right:1"]}]},"after":0}]`
)

// measureCondition appends under a condition that takes a look at the whole log.
// The node has no figure for how long Apply stood. It does say how long each
// append took from being proposed until it was applied, which is behind the look
// at the index: with nothing else going on, what the condition adds there is
// spent in Apply. And if Apply stood, other appends would wait.
func (b *bench) measureCondition(ctx context.Context) ([]line, error) {
	c, err := dial(ctx, b.c.leader.http)
	if err != nil {
		return nil, err
	}
	defer c.close()
	plain, conditional := b.single("plain"), b.conditional()
	var total, applied, plainApplied []time.Duration
	for range conditionTries {
		_, in, err := b.commitOf(ctx, c, plain)
		if err != nil {
			return nil, err
		}
		plainApplied = append(plainApplied, in)
		took, in, err := b.commitOf(ctx, c, conditional)
		if err != nil {
			return nil, err
		}
		total, applied = append(total, took), append(applied, in)
	}
	quiet, err := b.beside(ctx, nil)
	if err != nil {
		return nil, err
	}
	others, err := b.beside(ctx, conditional)
	if err != nil {
		return nil, err
	}
	t, added := spreadOf(total), max(0, spreadOf(applied).p50-spreadOf(plainApplied).p50)
	values := map[string]float64{"median_ms": ms(t.p50), "worst_ms": ms(t.worst), "apply_added_ms": ms(added)}
	quiet.put(values, "others_quiet_")
	others.put(values, "others_")
	return []line{{
		Name: "append under a condition on two tags that never meet, half of the log each", Goal: "Apply stands under 1 ms",
		Text: fmt.Sprintf("answered in %s (worst %s); Apply longer by %s; other appends meanwhile %s, without %s",
			short(t.p50), short(t.worst), short(added), others, quiet),
		Values: values, Verdict: verdict(added < conditionGoal),
	}}, nil
}

// conditional returns a builder of appends under the condition. Their own events
// have no tags, so that it holds for the next one too.
func (b *bench) conditional() func(dst []byte, n int) []byte {
	b.mark++
	stream := string(appendName(nil, "conditional", b.mark, 0))
	return func(dst []byte, _ int) []byte { return b.g.single(dst, stream, "", "", neverMet) }
}

// commitOf sends one append while nothing else is going on, and returns how long
// the client waited and how long it took from being proposed until applied.
func (b *bench) commitOf(ctx context.Context, c *conn, build func(dst []byte, n int) []byte) (took, applied time.Duration, err error) {
	before, err := b.c.scrape(ctx, b.c.leader)
	if err != nil {
		return 0, 0, err
	}
	begun := time.Now()
	refused := 0
	if err := c.append(postRequest(nil, b.c.leader.http, "/v1/append", build(nil, 0)), &refused); err != nil {
		return 0, 0, err
	}
	took = time.Since(begun)
	after, err := b.c.scrape(ctx, b.c.leader)
	if err != nil {
		return 0, 0, err
	}
	if n := after[metricCommits] - before[metricCommits]; n != 1 {
		return 0, 0, fmt.Errorf("%g entries were committed and not one", n)
	}
	seconds := after[metricCommitSeconds] - before[metricCommitSeconds]
	return took, time.Duration(seconds * float64(time.Second)), nil
}

// beside is what 500 appends a second see for a few seconds, in which one client
// sends what build makes, one append after another. Without build it is quiet.
func (b *bench) beside(ctx context.Context, build func(dst []byte, n int) []byte) (spread, error) {
	stop := make(chan struct{})
	errs := make(chan error, 1)
	var probes []probed
	go func() {
		var err error
		probes, err = b.probe(ctx, probeRate, probeClients, stop, b.single("probe"), nil)
		errs <- err
	}()
	err := b.repeat(ctx, build, conditionTime)
	close(stop)
	err = errors.Join(err, <-errs)
	return spreadOf(took(probes, func(*probed) bool { return true })), err
}

// repeat sends what build makes for some time, or only waits.
func (b *bench) repeat(ctx context.Context, build func(dst []byte, n int) []byte, long time.Duration) error {
	end := time.Now().Add(long)
	if build == nil {
		time.Sleep(long)
		return nil
	}
	c, err := dial(ctx, b.c.leader.http)
	if err != nil {
		return err
	}
	defer c.close()
	refused := 0
	request := postRequest(nil, b.c.leader.http, "/v1/append", build(nil, 0))
	for time.Now().Before(end) && ctx.Err() == nil {
		if err := c.append(request, &refused); err != nil {
			return err
		}
	}
	return ctx.Err()
}
