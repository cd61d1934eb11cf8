package index

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// Whatever was thrown out, a head that is found is the one that was put last.
func TestHeadCache_NeverLies(t *testing.T) {
	c := newHeadCache(2, 8)
	want := map[string]Head{}
	rng := rand.New(rand.NewPCG(1, 2))
	hits, misses := 0, 0
	for position := uint64(1); position < 20_000; position++ {
		stream := fmt.Sprintf("s-%d", rng.IntN(1+rng.IntN(200)))
		got, ok := c.get(stream)
		if ok && got != want[stream] {
			t.Fatalf("%s stands at %+v, want %+v", stream, got, want[stream])
		}
		if ok {
			hits++
		} else if want[stream].Version > 0 {
			misses++
		}
		want[stream] = Head{Version: want[stream].Version + 1, Last: position}
		c.put(stream, want[stream])
	}
	if c.sets != 8 || hits == 0 || misses == 0 || c.used > 8*headWays {
		t.Errorf("%d sets, %d slots used, %d hits, %d misses", c.sets, c.used, hits, misses)
	}
}

// As long as there is room next to nothing is lost, however the table grows.
func TestHeadCache_Grows(t *testing.T) {
	c := newHeadCache(1, 1<<12)
	const streams = 4000
	for i := range streams {
		c.put(fmt.Sprintf("s-%d", i), Head{Version: uint64(i + 1), Last: uint64(i + 1)})
	}
	lost := 0
	for i := range streams {
		if h, ok := c.get(fmt.Sprintf("s-%d", i)); !ok {
			lost++
		} else if h.Version != uint64(i+1) {
			t.Fatalf("s-%d stands at %+v", i, h)
		}
	}
	if lost > streams/20 { // a set may be full before the table is
		t.Errorf("%d of %d heads are lost in %d sets", lost, streams, c.sets)
	}
}
