package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// While stalls are measured the load goes on at a pace that leaves the node
	// time: savepoints and segments are due, but there is no queue.
	stallLoadEvery   = 20 * time.Millisecond // 4 × 50 × 100 events/s
	stallLoadClients = 4
	stallLoadEvents  = 1_500_000 // and then it ends at the latest
	stallSavepoints  = 2         // that came of themselves
	stallSnapshots   = 2
	stallGap         = 3 * time.Second // quiet between one and the next
	stallPoll        = 50 * time.Millisecond

	stallFactor = 5                      // of the quiet p99
	stallWorst  = 100 * time.Millisecond // no append may take longer
)

// window is the time in which a savepoint or a snapshot was taken.
type window struct {
	Kind  string    `json:"kind"`
	Begun time.Time `json:"begun"`
	Ended time.Time `json:"ended"`
}

// timeline is what a probe saw, in slices of time, and what went on meanwhile.
type timeline struct {
	Begun   time.Time       `json:"begun"`
	Slice   time.Duration   `json:"slice"`
	P99     []time.Duration `json:"p99"` // of each slice
	Windows []window        `json:"windows"`
}

// measureStalls probes with 500 appends a second beside a steady load, and
// compares those that were due while state was being saved with the others.
func (b *bench) measureStalls(ctx context.Context) ([]line, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	begun, events := time.Now(), b.room(stallLoadEvents, 2)
	until := b.sent() + events
	stop := make(chan struct{})
	var probes []probed
	var work sync.WaitGroup
	work.Go(func() {
		if _, err := b.load(ctx, load{clients: stallLoadClients, until: until, every: stallLoadEvery, stop: stop}); err != nil {
			cancel(err)
		}
	})
	build := b.single("probe")
	work.Go(func() {
		var err error
		if probes, err = b.probe(ctx, probeRate, probeClients, stop, build, nil); err != nil {
			cancel(err)
		}
	})
	windows, watched := b.provoke(ctx, until)
	close(stop)
	work.Wait()
	if err := errors.Join(context.Cause(ctx), ignoreNoSnapshots(watched)); err != nil {
		return nil, err
	}
	b.report.Stalls = newTimeline(begun, probes, windows)
	during := func(kinds ...string) []time.Duration {
		return took(probes, func(p *probed) bool { return overlaps(p, windows, kinds) })
	}
	quiet := spreadOf(took(probes, func(p *probed) bool { return !overlaps(p, windows, []string{savepoint, snapshot}) }))
	const goal = "p99 under 5 × the quiet p99, none over 100 ms"
	lines := []line{{Name: "append, nothing being saved (500/s beside at most 20,000 events/s)", Text: quiet.String(), Goal: "none over 100 ms",
		Values: map[string]float64{}, Verdict: verdict(quiet.worst <= stallWorst)}}
	quiet.put(lines[0].Values, "")
	for _, kind := range []string{savepoint, snapshot} {
		s, n := spreadOf(during(kind)), 0
		for _, w := range windows {
			if w.Kind == kind {
				n++
			}
		}
		out := line{Name: "append while a " + kind + " is taken", Goal: goal}
		switch {
		case s.count == 0 && kind == snapshot && errors.Is(watched, errNoSnapshots):
			out.Text = errNoSnapshots.Error()
		case s.count == 0:
			out.Text = "none was taken in " + count(events) + " events"
		default:
			out.Text = fmt.Sprintf("%s; %d taken, %d appends", s, n, s.count)
			out.Verdict = verdict(s.p99 < stallFactor*quiet.p99 && s.worst <= stallWorst)
			out.Values = map[string]float64{"taken": float64(n)}
			s.put(out.Values, "")
		}
		lines = append(lines, out)
	}
	return lines, nil
}

const (
	savepoint = "savepoint"
	snapshot  = "snapshot"
)

// provoke watches for savepoints, and takes a snapshot after each that came of
// itself. It returns when it has seen enough, or when so many events are sent.
func (b *bench) provoke(ctx context.Context, until int) (windows []window, err error) {
	last, err := b.c.scrape(ctx, b.c.leader)
	if err != nil {
		return nil, err
	}
	savepoints, snapshots := 0, 0
	var missing error
	lastAt := time.Now()
	quietSince := lastAt
	for savepoints < stallSavepoints || snapshots < stallSnapshots || time.Since(quietSince) < stallGap {
		if err := ctx.Err(); err != nil {
			return windows, err
		}
		enough := b.sent() >= until
		if enough && (snapshots > 0 || missing != nil) {
			break
		}
		if missing == nil && time.Since(quietSince) > stallGap && (savepoints > snapshots || enough) {
			begun := time.Now()
			_, err := b.snapshot(ctx)
			switch {
			case errors.Is(err, errNoSnapshots):
				missing, snapshots = err, stallSnapshots
			case err != nil:
				return windows, err
			default:
				windows = append(windows, window{snapshot, begun, time.Now()})
				snapshots++
			}
			// The savepoint in it is not one that came of itself.
			if last, err = b.c.scrape(ctx, b.c.leader); err != nil {
				return windows, err
			}
			lastAt = time.Now()
			quietSince = lastAt
		}
		time.Sleep(stallPoll)
		now, err := b.c.scrape(ctx, b.c.leader)
		if err != nil {
			return windows, err
		}
		if now[metricSavepoints] > last[metricSavepoints] {
			took := time.Duration((now[metricSavepointSeconds] - last[metricSavepointSeconds]) * float64(time.Second))
			// It ended some time between the two looks.
			windows = append(windows, window{savepoint, lastAt.Add(-took), time.Now()})
			savepoints++
			quietSince = time.Now()
		}
		last, lastAt = now, time.Now()
	}
	return windows, missing
}

func ignoreNoSnapshots(err error) error {
	if errors.Is(err, errNoSnapshots) {
		return nil
	}
	return err
}

// overlaps reports whether an append was under way in one of the windows.
func overlaps(p *probed, windows []window, kinds []string) bool {
	ended := p.begun.Add(p.took)
	for _, w := range windows {
		for _, kind := range kinds {
			if w.Kind == kind && p.begun.Before(w.Ended) && ended.After(w.Begun) {
				return true
			}
		}
	}
	return false
}

// newTimeline cuts what a probe saw into slices.
func newTimeline(begun time.Time, probes []probed, windows []window) timeline {
	t := timeline{Begun: begun, Slice: 250 * time.Millisecond, Windows: windows}
	var slices [][]time.Duration
	for _, p := range probes {
		i := int(max(p.begun.Sub(begun), 0) / t.Slice)
		for len(slices) <= i {
			slices = append(slices, nil)
		}
		slices[i] = append(slices[i], p.took)
	}
	for _, s := range slices {
		t.P99 = append(t.P99, spreadOf(s).p99)
	}
	return t
}
