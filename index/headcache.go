package index

import "hash/maphash"

// headCache keeps the heads of the streams that were appended to, as of now.
// Apply needs the head of the stream of every event; without this a long history
// makes that a read of the store for nearly each.
//
// A set-associative table of fixed slots: what does not fit takes the place of
// the stream in its set that was appended to longest ago. It begins small and
// grows set by set up to maxHeadSets, by linear hashing: no append ever waits for
// a table to be built anew. A stream goes by two independent 64-bit hashes of
// its name: that two of some million streams have both in common is as likely as
// that a disk returns wrong bytes with the right SHA-256 cut to 128 bits.
//
// One goroutine, Apply, uses it. It is right only because every head that changes
// is put.
type headCache struct {
	seeds  [2]maphash.Seed
	chunks [][]headSet // chunkSets each
	sets   uint64
	half   uint64 // the greatest power of two ≤ sets: of so many the first sets-half are split
	used   uint64
	most   uint64 // sets
}

const (
	headWays    = 8
	chunkSets   = 1 << 9
	minHeadSets = chunkSets
	maxHeadSets = 1 << 18 // two million streams, 64 MiB
	// usedPerSet is how many slots a set has in use, on average, when the next one
	// is split: those that wait for that have up to twice as many.
	usedPerSet = 3
)

type headSet [headWays]headSlot

// headSlot is one stream; version 0 = free.
type headSlot struct {
	key     [2]uint64
	version uint64
	last    uint64
}

// newHeadCache begins with least sets, a power of two.
func newHeadCache(least, most uint64) *headCache {
	c := &headCache{seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}, sets: least, half: least, most: most}
	for range (least + chunkSets - 1) / chunkSets {
		c.chunks = append(c.chunks, make([]headSet, chunkSets))
	}
	return c
}

func (c *headCache) key(stream string) [2]uint64 {
	return [2]uint64{maphash.String(c.seeds[0], stream), maphash.String(c.seeds[1], stream)}
}

// set returns the set of a key: by one more bit of its hash where sets are split.
func (c *headCache) set(key [2]uint64) *headSet {
	i := key[0] & (2*c.half - 1)
	if i >= c.sets {
		i -= c.half
	}
	return c.at(i)
}

func (c *headCache) at(i uint64) *headSet { return &c.chunks[i/chunkSets][i%chunkSets] }

// get returns the head of a stream if it is there.
func (c *headCache) get(stream string) (Head, bool) {
	key := c.key(stream)
	set := c.set(key)
	for i := range set {
		if s := &set[i]; s.version > 0 && s.key == key {
			return Head{Version: s.version, Last: s.last}, true
		}
	}
	return Head{}, false
}

// put notes where a stream stands now.
func (c *headCache) put(stream string, h Head) {
	if c.used >= c.sets*usedPerSet && c.sets < c.most {
		c.split()
	}
	slot := headSlot{key: c.key(stream), version: h.Version, last: h.Last}
	set := c.set(slot.key)
	into := &set[0] // the free one, or else the oldest: a free one has last 0
	for i := range set {
		s := &set[i]
		if s.version > 0 && s.key == slot.key {
			*s = slot
			return
		}
		if s.last < into.last {
			into = s
		}
	}
	if into.version == 0 {
		c.used++
	}
	*into = slot
}

// split adds a set and moves to it what belongs there of the one it is split from.
func (c *headCache) split() {
	if c.sets%chunkSets == 0 {
		c.chunks = append(c.chunks, make([]headSet, chunkSets))
	}
	from, to := c.at(c.sets-c.half), c.at(c.sets)
	for i, slot := range from {
		if slot.key[0]&(2*c.half-1) == c.sets {
			to[i], from[i] = slot, headSlot{}
		}
	}
	if c.sets++; c.sets == 2*c.half {
		c.half = c.sets
	}
}
