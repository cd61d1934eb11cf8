package index

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"cairn/event"
)

// BenchmarkCommit is a history that grows: each iteration adds 100,000 events of
// two million streams, with three tags each, and commits them. Run it with a
// fixed number of iterations (-benchtime 30x): what it shows is of the last third.
func BenchmarkCommit(b *testing.B) {
	const perCommit, streams = 100_000, 2_000_000
	x, _, err := Open(Options{FS: vfs.Default, Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer x.Close()
	x.AllowMerges()
	rng := rand.New(rand.NewPCG(1, 1))
	versions := make([]uint64, streams)
	events := make([]event.Event, perCommit)
	var position uint64
	var adding, committing time.Duration
	var from uint64 // bytes written before the last third
	for i := range b.N {
		for k := range events {
			s := rng.IntN(streams)
			position++
			versions[s]++
			events[k] = event.Event{
				Position: position, Version: versions[s], Stream: fmt.Sprintf("account-%07d", s), Type: "Moved",
				Tags: []string{fmt.Sprintf("customer:%d", rng.IntN(streams/4)), fmt.Sprintf("product:%d", rng.IntN(10_000)), fmt.Sprintf("region:%d", rng.IntN(50))},
			}
		}
		if i == b.N-b.N/3 {
			adding, committing = 0, 0
			from = written(x)
		}
		start := time.Now()
		for k := range events {
			if _, err := x.Head(events[k].Stream); err != nil {
				b.Fatal(err)
			}
			x.Add(&events[k])
		}
		added := time.Now()
		x.Freeze()
		if err := x.Commit(Savepoint{Index: position, Position: position}); err != nil {
			b.Fatal(err)
		}
		adding += added.Sub(start)
		committing += time.Since(added)
	}
	n := float64(max(b.N/3, 1) * perCommit)
	b.ReportMetric(float64(adding.Nanoseconds())/n, "add-ns/event")
	b.ReportMetric(float64(committing.Nanoseconds())/n, "commit-ns/event")
	b.ReportMetric(float64(written(x)-from)/n, "written-B/event")
	b.ReportMetric(0, "ns/op")
}

// written returns how many bytes Pebble has written.
func written(x *Index) uint64 {
	m := x.store.db.Metrics()
	n := m.WAL.BytesWritten
	for _, l := range m.Levels {
		n += l.TableBytesFlushed + l.TableBytesCompacted
	}
	return n
}
