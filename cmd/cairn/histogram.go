package main

import (
	"math/bits"
	"time"
)

// histogram counts durations in buckets that are 1.6 % wide, so that it can
// hold any number of them in a few kilobytes. One goroutine adds to it.
type histogram struct {
	counts [bucketOctaves * bucketsPerOctave]uint32
	total  uint64
	max    time.Duration
}

const (
	bucketBits       = 6
	bucketsPerOctave = 1 << bucketBits
	bucketOctaves    = 36 // up to 2^41 ns, 36 minutes
)

// bucketOf returns the bucket of a duration in nanoseconds: values below 64
// have one each, from then on every octave has 64.
func bucketOf(ns uint64) int {
	if ns < bucketsPerOctave {
		return int(ns)
	}
	octave := bits.Len64(ns) - bucketBits // 1 for 64..127
	i := octave*bucketsPerOctave + int(ns>>(octave-1)) - bucketsPerOctave
	return min(i, bucketOctaves*bucketsPerOctave-1)
}

// bucketMiddle returns the duration in the middle of a bucket.
func bucketMiddle(i int) time.Duration {
	if i < bucketsPerOctave {
		return time.Duration(i)
	}
	octave := i / bucketsPerOctave
	low := uint64(i%bucketsPerOctave+bucketsPerOctave) << (octave - 1)
	return time.Duration(low + 1<<(octave-1)/2)
}

func (h *histogram) add(d time.Duration) {
	h.counts[bucketOf(uint64(max(d, 0)))]++
	h.total++
	h.max = max(h.max, d)
}

func (h *histogram) merge(other *histogram) {
	for i, n := range other.counts {
		h.counts[i] += n
	}
	h.total += other.total
	h.max = max(h.max, other.max)
}

// quantile returns the duration that a part q of all do not exceed.
func (h *histogram) quantile(q float64) time.Duration {
	rank := uint64(q * float64(h.total))
	seen := uint64(0)
	for i, n := range h.counts {
		if seen += uint64(n); seen > rank {
			return min(bucketMiddle(i), h.max)
		}
	}
	return h.max
}
