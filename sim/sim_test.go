package sim

import (
	"flag"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var (
	seeds     = flag.Int("seeds", 12, "how many clusters to simulate")
	firstSeed = flag.Uint64("seed", 1, "seed of the first one")
	length    = flag.Duration("length", 0, "virtual time with faults; 0 = 55s")
	debug     = flag.Bool("debug", false, "keep the nodes' debug lines, for the log of a run that fails")
)

// TestSim simulates clusters, each in a bubble of its own, as many at a time as
// -parallel says.
func TestSim(t *testing.T) {
	var mu sync.Mutex
	var totals Totals
	began := time.Now()
	t.Cleanup(func() {
		fmt.Printf("%sreal time %s\n", &totals, time.Since(began).Round(time.Second))
		if totals.Runs != *seeds {
			t.Errorf("%d of %d runs came to an end", totals.Runs, *seeds)
		}
	})
	for i := range *seeds {
		seed := *firstSeed + uint64(i)
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			var r *Result
			synctest.Test(t, func(*testing.T) { r = Run(options(seed)) })
			judge(t, r)
			mu.Lock()
			defer mu.Unlock()
			totals.Add(r)
			if totals.Runs%100 == 0 {
				fmt.Printf("%d of %d seeds, %s\n", totals.Runs, *seeds, time.Since(began).Round(time.Second))
			}
		})
	}
}

func options(seed uint64) Options {
	o := Options{Seed: seed, Length: *length, Level: slog.LevelInfo}
	if *debug {
		o.Level = slog.LevelDebug
	}
	return o
}

// judge fails the test of a run that is not valid, and says how to repeat it.
func judge(t *testing.T, r *Result) {
	if r.Valid() {
		return
	}
	_ = r.WriteLog(os.Stdout)
	for _, f := range r.Failures {
		t.Error(f)
	}
	for _, v := range r.Verdicts {
		if !v.Valid {
			t.Errorf("%s: %s %q", v.Checker, v.Detail, v.Problems)
		}
	}
	t.Errorf("run it again: make sim SEED=%d SEEDS=1 SIMFLAGS=-debug", r.Options.Seed)
}
