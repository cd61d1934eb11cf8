package httpapi

const (
	// partBytes is what a part of a long answer holds, all but the first.
	partBytes = 256 << 10
	// pumpParts is how many parts of one answer there are at most: one that is
	// gathered, one that is sent, and one between them, so that neither side
	// waits for a hiccup of the other.
	pumpParts = 3
	// pumpBytes is how many bytes those hold at most that are on their way while
	// the next is gathered. One that is larger, for a large event is in it, goes
	// out before that.
	pumpBytes = 1 << 20
)

// pump sends the parts of a long answer on a goroutine of its own: while one is
// on its way the next is gathered. The goroutine that serves the request calls
// its methods, and leaves the exchange alone until close has returned.
type pump struct {
	x     *exchange
	parts chan *held // to be sent, in this order
	sent  chan sent
	count int // parts on their way: in parts, in sent, or being sent
	bytes int // their capacity
}

// sent is a part that is not needed any more. The error says that this part, or
// one before it, did not go out.
type sent struct {
	part *held
	err  error
}

func startPump(x *exchange) *pump {
	p := &pump{x: x, parts: make(chan *held, pumpParts), sent: make(chan sent, pumpParts)}
	go p.run()
	return p
}

func (p *pump) run() {
	defer close(p.sent)
	var err error
	for part := range p.parts {
		if err == nil {
			err = p.x.send(part.b)
		}
		p.sent <- sent{part, err}
	}
}

// push takes over a part and returns an empty buffer for the next one. It waits
// until that may be gathered. After an error nothing more goes out.
func (p *pump) push(part *held) (next *held, err error) {
	p.parts <- part
	p.count++
	p.bytes += cap(part.b)
	for err == nil && (p.count == pumpParts || p.bytes > pumpBytes) {
		if next != nil {
			next.release()
		}
		s := <-p.sent
		p.count--
		p.bytes -= cap(s.part.b)
		next, err = s.part, s.err
	}
	if next != nil && cap(next.b) > pumpBytes {
		next.release()
		next = nil
	}
	if next == nil {
		next = p.x.s.budget.hold()
	}
	next.b = next.b[:0]
	_ = next.grow(partBytes + freeBytes) // without it the next part is a smaller one
	return next, err
}

// close returns when everything was sent, or the error why not.
func (p *pump) close() (err error) {
	close(p.parts)
	for s := range p.sent {
		s.part.release()
		err = s.err
	}
	return err
}
