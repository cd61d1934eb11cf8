package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

const (
	progressEvery = 5 * time.Second
	sampleEvery   = time.Second
)

// sample is what the plot shows of one moment of the load.
type sample struct {
	Events   int     `json:"events"`
	Rate     float64 `json:"rate"`     // events per second since the sample before; 0 = none
	Resident int64   `json:"resident"` // of the node that holds most, in bytes
}

// watcher prints a line of progress every five seconds, and samples the load and
// the nodes' files meanwhile. Its methods may be called by any goroutine.
type watcher struct {
	b    *bench
	out  io.Writer
	done chan struct{}
	work sync.WaitGroup

	mu      sync.Mutex
	phase   string
	since   time.Time
	loading bool
	samples []sample
	raft    int64 // most bytes that Raft's log of a node took on disk
}

func newWatcher(b *bench, out io.Writer) *watcher {
	w := &watcher{b: b, out: out, done: make(chan struct{}), phase: "start", since: time.Now()}
	w.work.Go(w.run)
	return w
}

func (w *watcher) stop() {
	close(w.done)
	w.work.Wait()
}

// begin names what is being done.
func (w *watcher) begin(phase string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.phase, w.since = phase, time.Now()
}

// load says whether the load is on, alone, so that its rate is worth keeping.
func (w *watcher) load(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.loading = on
}

// say prints a line.
func (w *watcher) say(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fmt.Fprintf(w.out, "%s %s\n", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, args...))
}

func (w *watcher) run() {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	last, events, printed := time.Now(), 0, time.Now()
	fresh := true // the first sample of a load has no rate
	for {
		select {
		case <-w.done:
			return
		case <-tick.C:
		}
		now := w.b.sent()
		rate := float64(now-events) / time.Since(last).Seconds()
		last, events = time.Now(), now
		raft := w.b.raftBytes()
		resident := w.resident()
		most := int64(0)
		for _, n := range resident {
			most = max(most, n)
		}
		w.mu.Lock()
		w.raft = max(w.raft, raft)
		if w.loading && !fresh {
			w.samples = append(w.samples, sample{now, rate, most})
		}
		fresh = !w.loading
		phase, since := w.phase, w.since
		w.mu.Unlock()
		if time.Since(printed) >= progressEvery-sampleEvery/2 {
			printed = time.Now()
			var held []string
			for _, n := range resident {
				held = append(held, mib(n))
			}
			w.say("%s for %.0f s, %s events, %s/s, resident %s", phase, time.Since(since).Seconds(), count(now), count(rate), strings.Join(held, ", "))
		}
	}
}

// resident is what each node holds in memory; 0 for one that does not run.
func (w *watcher) resident() []int64 {
	var all []int64
	for _, p := range w.b.c.nodes {
		held := int64(0)
		if pid := p.running(); pid != 0 {
			held, _, _ = memoryOf(pid) // it may be ending
		}
		all = append(all, held)
	}
	return all
}

// takeRaft returns the most that Raft's log took on disk since the last call.
func (w *watcher) takeRaft() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	most := w.raft
	w.raft = 0
	return most
}

// taken returns the samples of the load.
func (w *watcher) taken() []sample {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.samples
}
