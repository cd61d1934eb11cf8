package lab

import (
	"math/rand/v2"
	"sync"
	"time"
)

// Quality is how a link treats packets. The zero value is a good link.
type Quality struct {
	Delay  time.Duration // added to each packet
	Jitter time.Duration // at most so much more, by chance; the order stays
	Loss   float64       // probability from 0 to 1 that a packet is lost
}

// Traffic counts packets. A large TCP segment that the sender left to its
// device to cut counts as one.
type Traffic struct {
	Delivered uint64
	Cut       uint64 // dropped because the link was cut
	Lost      uint64 // dropped by chance, or because the receiver took no more
	Delayed   uint64 // of those delivered, the ones that were held back
}

func (t *Traffic) add(o Traffic) {
	t.Delivered += o.Delivered
	t.Cut += o.Cut
	t.Lost += o.Lost
	t.Delayed += o.Delayed
}

// link is one direction between two machines.
type link struct {
	net *ethernet
	to  int

	mu      sync.Mutex
	cut     bool
	quality Quality
	rng     *rand.Rand
	waiting int       // packets that are held back
	last    time.Time // when the last of them is due
	traffic Traffic
}

func newLink(net *ethernet, from, to int, seed uint64) *link {
	return &link{net: net, to: to, rng: rand.New(rand.NewPCG(seed, uint64(from*machines+to)))}
}

// carry delivers, delays or drops one frame. It keeps no reference to it.
func (l *link) carry(frame []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		l.traffic.Cut++
		return
	}
	if l.quality.Loss > 0 && l.rng.Float64() < l.quality.Loss {
		l.traffic.Lost++
		return
	}
	now := time.Now()
	due := now.Add(l.quality.Delay)
	if l.quality.Jitter > 0 {
		due = due.Add(time.Duration(l.rng.Int64N(int64(l.quality.Jitter))))
	}
	if l.waiting == 0 && !due.After(now) {
		l.deliverLocked(frame)
		return
	}
	if due.Before(l.last) {
		due = l.last // no packet overtakes another
	}
	if !l.net.delayed.hold(l, due, frame) {
		l.traffic.Lost++
		return
	}
	l.waiting++
	l.last = due
}

// arrive is the end of a packet's delay. A link that was cut meanwhile does not
// deliver what was under way either, so nothing passes once Cut has returned.
func (l *link) arrive(frame []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting--
	if l.cut {
		l.traffic.Cut++
		return
	}
	if l.deliverLocked(frame) {
		l.traffic.Delayed++
	}
}

func (l *link) deliverLocked(frame []byte) bool {
	if !l.net.deliver(l.to, frame) {
		l.traffic.Lost++
		return false
	}
	l.traffic.Delivered++
	return true
}

// change changes the link from the next packet on.
func (l *link) change(f func(cut *bool, q *Quality)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(&l.cut, &l.quality)
}

func (l *link) counted() Traffic {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.traffic
}
