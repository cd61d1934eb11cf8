package main

import (
	"testing"
	"time"
)

func TestSpreadOf(t *testing.T) {
	var d []time.Duration
	for i := 200; i > 0; i-- {
		d = append(d, time.Duration(i)*time.Millisecond)
	}
	got := spreadOf(d)
	want := spread{200, 100 * time.Millisecond, 198 * time.Millisecond, 200 * time.Millisecond}
	if got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := spreadOf(nil); got != (spread{}) {
		t.Errorf("of nothing: %v", got)
	}
}

func TestPercentile_Small(t *testing.T) {
	for _, c := range []struct {
		n, p int
		want time.Duration
	}{{1, 50, 1}, {1, 99, 1}, {2, 50, 1}, {2, 99, 2}, {3, 50, 2}, {100, 99, 99}, {101, 99, 100}} {
		var sorted []time.Duration
		for i := range c.n {
			sorted = append(sorted, time.Duration(i+1))
		}
		if got := percentile(sorted, c.p); got != c.want {
			t.Errorf("p%d of 1 to %d = %d, want %d", c.p, c.n, got, c.want)
		}
	}
}

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0.00 µs", 999 * time.Nanosecond: "1.00 µs", 8590 * time.Microsecond: "8.59 ms", 38 * time.Millisecond: "38.0 ms",
		175 * time.Millisecond: "175 ms", 2310 * time.Millisecond: "2.31 s",
	} {
		if got := short(d); got != want {
			t.Errorf("short(%d) = %q, want %q", d, got, want)
		}
	}
}

func TestCount(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 20_000_000: "20,000,000", -1000: "-1,000", -100: "-100"} {
		if got := count(n); got != want {
			t.Errorf("count(%d) = %q, want %q", n, got, want)
		}
	}
}
