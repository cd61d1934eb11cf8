package index

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"cairn/event"
)

func TestScale(t *testing.T) {
	n, _ := strconv.Atoi(os.Getenv("SCALE"))
	if n == 0 {
		t.Skip()
	}
	ids := os.Getenv("IDS") != ""
	dir := t.TempDir()
	runtime.LockOSThread()
	x, _, err := Open(Options{FS: vfs.Default, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	versions := make([]uint32, n/10)
	var add, commit time.Duration
	evs := make([]event.Event, 100)
	pos := uint64(0)
	commitch := make(chan uint64)
	done := make(chan bool)
	go func() {
		for p := range commitch {
			s := time.Now()
			if err := x.Commit(Savepoint{Index: p, Position: p}); err != nil {
				t.Error(err)
			}
			commit += time.Since(s)
		}
		close(done)
	}()
	start := time.Now()
	for pos < uint64(n) {
		for i := range evs {
			s := rng.IntN(len(versions))
			versions[s]++
			pos++
			evs[i] = event.Event{Position: pos, Version: uint64(versions[s]), Stream: fmt.Sprintf("account-%d", s), Type: "FundsMoved" + strconv.Itoa(rng.IntN(10)),
				Tags: []string{fmt.Sprintf("customer:%d", rng.IntN(n/50+1)), fmt.Sprintf("region:%d", rng.IntN(50)), fmt.Sprintf("day:%d", pos/10000)}}
			if ids {
				evs[i].ID = fmt.Sprintf("%08x-%04x-7000-8000-%012x", rng.Uint32(), i, rng.Uint64()>>16)
				evs[i].IDChosen = true
			}
		}
		s := cpu()
		x.AddAll(evs)
		add += cpu()-s
		if x.OverlayBytes() > 64<<20 {
			for x.Frozen() {
				time.Sleep(time.Millisecond)
			}
			x.Freeze()
			commitch <- pos
		}
	}
	for x.Frozen() {
		time.Sleep(time.Millisecond)
	}
	x.Freeze()
	commitch <- pos
	close(commitch)
	<-done
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	st := x.Stats()
	t.Logf("total %v, add %v (%v/event), commit %v; heap sys %d MB, %+v", time.Since(start), add, add/time.Duration(n), commit, m.Sys>>20, st)
	x.store.db.Flush()
	for x.store.db.Metrics().Compact.NumInProgress > 0 {
		time.Sleep(50 * time.Millisecond)
	}
	t.Logf("disk %.1f bytes/event", float64(x.Stats().DiskBytes)/float64(n))
	t.Log(x.store.db.Metrics().String())
	bench := func(what string, k int, f func(i int)) {
		s := cpu()
		for i := range k {
			f(i)
		}
		t.Logf("%s: %v", what, (cpu()-s)/time.Duration(k))
	}
	for range 2 {
		bench("head existing", 20000, func(i int) { x.Head(fmt.Sprintf("account-%d", rng.IntN(len(versions)))) })
		bench("head missing", 20000, func(i int) { x.Head(fmt.Sprintf("account-%d-new", rng.IntN(len(versions)))) })
		bench("lookup missing", 20000, func(i int) { x.Lookup(fmt.Sprintf("%08x-%04x-7000-8000-%012x", rng.Uint32(), i, 7), "account-1") })
		bench("conflict recent", 20000, func(i int) {
			x.Conflict(event.Query{Items: []event.QueryItem{{Types: []string{"FundsMoved1"}, Tags: []string{"customer:5"}}}}, pos-5)
		})
		bench("conflict far", 200, func(i int) {
			x.Conflict(event.Query{Items: []event.QueryItem{{Types: []string{"FundsMoved1"}, Tags: []string{"customer:5", "day:1"}}}}, 0)
		})
		bench("conflict never meet", 5, func(i int) {
			x.Conflict(event.Query{Items: []event.QueryItem{{Tags: []string{"region:1", "region:2"}}}}, 0)
		})
		bench("newest 100 of tag", 1000, func(i int) {
			v := x.View(pos)
			it, _, _ := v.Select(&event.Filter{Query: event.Query{Items: []event.QueryItem{{Tags: []string{fmt.Sprintf("region:%d", i%50)}}}}}, 0, true)
			for range 100 {
				it.Next()
			}
			it.Close()
			v.Close()
		})
		bench("stream", 1000, func(i int) {
			v := x.View(pos)
			it := v.Stream(fmt.Sprintf("account-%d", rng.IntN(len(versions))), 1, false)
			for _, ok := it.Next(); ok; _, ok = it.Next() {
			}
			it.Close()
			v.Close()
		})
		bench("iterate a type, per posting", 1, func(i int) {
			v := x.View(pos)
			it, _, _ := v.Select(&event.Filter{Query: event.Query{Items: []event.QueryItem{{Types: []string{"FundsMoved1"}}}}}, 0, false)
			k := 0
			s := time.Now()
			for _, ok := it.Next(); ok; _, ok = it.Next() {
				k++
			}
			t.Log(k, time.Since(s)/time.Duration(k))
			it.Close()
			v.Close()
		})
		bench("streams page of 100", 100, func(i int) {
			v := x.View(pos)
			v.Streams("", fmt.Sprintf("account-%d", rng.IntN(len(versions))), 100)
			v.Close()
		})
	}
	t.Logf("%+v", x.Stats())
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
}

func cpu() time.Duration {
	var r syscall.Rusage
	syscall.Getrusage(1, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
