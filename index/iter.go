package index

import "math"

// Iter yields positions in one direction, each once. It reads as it goes and
// its memory does not depend on how many there are. One goroutine may use it,
// at most until its View is closed.
type Iter interface {
	// Next returns the next position; ok is false at the end or after an error.
	Next() (position uint64, ok bool)
	// Seek passes over all positions that stand before p in the direction of
	// the iterator: the next one is the first ≥ p, or going backward the last
	// ≤ p. It never goes back.
	Seek(p uint64)
	// Err returns the first error. It stays after Close.
	Err() error
	// Close may be called more than once.
	Close()
}

// source is a set of positions that is only ever read onward. So that one code
// serves both directions, it speaks of keys: going forward the key of a
// position is the position, going backward its complement. Keys always ascend.
type source interface {
	// seek returns the least key ≥ k. No later call has a smaller k.
	seek(k uint64) (key uint64, ok bool)
}

// forward and backward are the postings of one term.
type (
	forward  struct{ *list }
	backward struct{ *list }
)

func (s forward) seek(k uint64) (uint64, bool) { return s.seekGE(k) }

func (s backward) seek(k uint64) (uint64, bool) {
	p, ok := s.seekLE(^k)
	return ^p, ok
}

// both is the intersection of its members by leapfrog: whoever is behind seeks
// to where the other one is, so that what lies between is never looked at.
type both []source

func (s both) seek(k uint64) (uint64, bool) {
	for agreed := 0; agreed < len(s); {
		for _, m := range s {
			found, ok := m.seek(k)
			if !ok {
				return 0, false
			}
			if found != k {
				k, agreed = found, 0
			}
			if agreed++; agreed == len(s) {
				break
			}
		}
	}
	return k, true
}

// either is the union of its members: a heap of them by the key each stands at.
type either struct {
	heap    []member
	started bool
}

type member struct {
	source
	key uint64
}

func newEither(sources []source) source {
	if len(sources) == 1 {
		return sources[0]
	}
	s := &either{heap: make([]member, len(sources))}
	for i, m := range sources {
		s.heap[i].source = m
	}
	return s
}

func (s *either) seek(k uint64) (uint64, bool) {
	if !s.started {
		s.start(k)
	}
	for len(s.heap) > 0 && s.heap[0].key < k {
		if found, ok := s.heap[0].seek(k); ok {
			s.heap[0].key = found
		} else {
			last := len(s.heap) - 1
			s.heap[0] = s.heap[last]
			s.heap = s.heap[:last]
		}
		s.down(0)
	}
	if len(s.heap) == 0 {
		return 0, false
	}
	return s.heap[0].key, true
}

func (s *either) start(k uint64) {
	s.started = true
	alive := s.heap[:0]
	for _, m := range s.heap {
		var ok bool
		if m.key, ok = m.seek(k); ok {
			alive = append(alive, m)
		}
	}
	s.heap = alive
	for i := len(s.heap)/2 - 1; i >= 0; i-- {
		s.down(i)
	}
}

// down restores the order of the heap below i.
func (s *either) down(i int) {
	for {
		least := i
		for _, child := range [...]int{2*i + 1, 2*i + 2} {
			if child < len(s.heap) && s.heap[child].key < s.heap[least].key {
				least = child
			}
		}
		if least == i {
			return
		}
		s.heap[i], s.heap[least] = s.heap[least], s.heap[i]
		i = least
	}
}

// userEvents is every event but those of '$' streams: positions have no gaps,
// so it is what lies between the few of the system term.
type userEvents struct {
	system      source
	first, last uint64 // keys: none is < first or > last
}

func (s userEvents) seek(k uint64) (uint64, bool) {
	for k = max(k, s.first); k <= s.last; k++ {
		if system, ok := s.system.seek(k); !ok || system != k {
			return k, true
		}
	}
	return 0, false
}

// nothing is the empty set.
type nothing struct{}

func (nothing) seek(uint64) (uint64, bool) { return 0, false }

// cursor is an Iter over a source.
type cursor struct {
	src      source
	backward bool
	next     uint64 // key
	done     bool
	err      *error
	lists    []*list // to close
}

func (c *cursor) Next() (uint64, bool) {
	if c.done || *c.err != nil {
		return 0, false
	}
	key, ok := c.src.seek(c.next)
	if !ok || *c.err != nil {
		c.done = true
		return 0, false
	}
	c.done = key == math.MaxUint64
	c.next = key + 1
	return c.position(key), true
}

func (c *cursor) Seek(p uint64) { c.next = max(c.next, c.position(p)) }

// position turns a key into its position, and a position into its key.
func (c *cursor) position(key uint64) uint64 {
	if c.backward {
		return ^key
	}
	return key
}

func (c *cursor) Err() error { return *c.err }

func (c *cursor) Close() {
	c.done = true
	for _, l := range c.lists {
		l.close()
	}
	c.lists = nil
}

// failedIter is an iterator that could not be opened.
func failedIter(err error) Iter { return &cursor{src: nothing{}, err: &err} }
