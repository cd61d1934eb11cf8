package index

import "hash/maphash"

// headCache keeps the heads of the streams that were appended to, as of now.
// Apply needs the head of the stream of every event; without this a long history
// makes that a read of the store for nearly each.
//
// A set-associative table of fixed slots: what does not fit takes the place of
// the stream in its set that was appended to longest ago. It begins small and
// doubles up to maxHeadSets. A stream goes by two independent 64-bit hashes of
// its name: that two of some million streams have both in common is as likely as
// that a disk returns wrong bytes with the right SHA-256 cut to 128 bits.
//
// One goroutine, Apply, uses it. It is right only because every head that changes
// is put.
type headCache struct {
	seeds [2]maphash.Seed
	sets  []headSet
	used  int
	most  int // sets
}

const (
	headWays    = 8
	minHeadSets = 1 << 9
	maxHeadSets = 1 << 18 // two million streams, 64 MiB
)

type headSet [headWays]headSlot

// headSlot is one stream; version 0 = free.
type headSlot struct {
	key     [2]uint64
	version uint64
	last    uint64
}

func newHeadCache(least, most int) *headCache {
	return &headCache{seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}, sets: make([]headSet, least), most: most}
}

func (c *headCache) key(stream string) [2]uint64 {
	return [2]uint64{maphash.String(c.seeds[0], stream), maphash.String(c.seeds[1], stream)}
}

func (c *headCache) set(key [2]uint64) *headSet { return &c.sets[key[0]&uint64(len(c.sets)-1)] }

// get returns the head of a stream if it is there.
func (c *headCache) get(stream string) (Head, bool) {
	key := c.key(stream)
	for i := range c.set(key) {
		if s := &c.set(key)[i]; s.version > 0 && s.key == key {
			return Head{Version: s.version, Last: s.last}, true
		}
	}
	return Head{}, false
}

// put notes where a stream stands now.
func (c *headCache) put(stream string, h Head) {
	if c.used >= len(c.sets)*headWays/2 && len(c.sets) < c.most {
		c.grow()
	}
	c.place(headSlot{key: c.key(stream), version: h.Version, last: h.Last})
}

func (c *headCache) place(slot headSlot) {
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

func (c *headCache) grow() {
	old := c.sets
	c.sets, c.used = make([]headSet, 2*len(old)), 0
	for i := range old {
		for _, slot := range old[i] {
			if slot.version > 0 {
				c.place(slot)
			}
		}
	}
}
