package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

const (
	// What is loaded between the snapshots that are compared.
	smallStep = 100_000
	largeStep = 1_000_000
	// snapshotSlack is how much more than at the first row a snapshot may write
	// and still count as proportional to what is new.
	snapshotSlack = 1.5
)

// errNoSnapshots says that the server has no route to take one.
var errNoSnapshots = errors.New("no snapshot route")

// taken is what a snapshot cost.
type taken struct {
	took     time.Duration
	wrote    int64 // bytes that the leader wrote to disk meanwhile
	position uint64
}

// snapshot has the leader take a snapshot.
func (b *bench) snapshot(ctx context.Context) (taken, error) {
	c, err := dial(ctx, b.c.leader.http)
	if err != nil {
		return taken{}, err
	}
	defer c.close()
	before, err := writtenBy(b.c.leader.pid())
	if err != nil {
		return taken{}, err
	}
	begun := time.Now()
	a, err := c.do(postRequest(nil, b.c.leader.http, "/v1/snapshots", nil))
	took := time.Since(begun)
	switch {
	case err != nil:
		return taken{}, fmt.Errorf("snapshot: %w", err)
	case a.status == 404:
		return taken{}, errNoSnapshots
	case a.status != 201:
		return taken{}, a.unexpected("a snapshot")
	}
	var manifest struct {
		Position uint64 `json:"position"`
	}
	if err := json.Unmarshal(a.body, &manifest); err != nil {
		return taken{}, fmt.Errorf("answer to a snapshot: %w", err)
	}
	after, err := writtenBy(b.c.leader.pid())
	return taken{took, after - before, manifest.Position}, err
}

// measureSnapshots takes one so that little is new, and then one after each of
// two steps of the load. The index may be compacted meanwhile, which is counted
// too.
func (b *bench) measureSnapshots(ctx context.Context) ([]line, error) {
	small := min(smallStep, b.s.rows[b.row]/10)
	lines := []line{}
	first, err := b.snapshot(ctx)
	for i, step := range []int{small, min(largeStep, 10*small)} {
		name := []string{"a snapshot, 100,000 events after one", "a snapshot, 1,000,000 events after one"}[i]
		const goal = "what is new, not the history: at most 1.5 × the bytes per event at the first row"
		if errors.Is(err, errNoSnapshots) {
			lines = append(lines, line{Name: name, Goal: goal, Text: err.Error()})
			continue
		}
		if err != nil {
			return nil, err
		}
		step = b.room(step, 1)
		if _, err := b.load(ctx, load{clients: loadClients, until: b.sent() + step}); err != nil {
			return nil, err
		}
		t, err := b.snapshot(ctx)
		if err != nil {
			return nil, err
		}
		if t.position < first.position+uint64(step) {
			return nil, fmt.Errorf("a snapshot as of %d, after one as of %d and %d events", t.position, first.position, step)
		}
		first = t
		each := float64(t.wrote) / float64(step)
		out := line{
			Name: name, Goal: goal,
			Text:   fmt.Sprintf("%s, %s written, %.0f bytes for each of %s new events", short(t.took), mib(t.wrote), each, count(step)),
			Values: map[string]float64{"seconds": t.took.Seconds(), "bytes": float64(t.wrote), "bytes_per_event": each, "events": float64(step)},
		}
		if base, ok := b.atFirstRow(name, "bytes_per_event"); ok {
			out.Verdict = verdict(each <= snapshotSlack*base)
		}
		lines = append(lines, out)
	}
	return lines, nil
}
