package main

import (
	"math/rand/v2"
	"strconv"
)

const (
	batchEvents = 100 // events of an append of the load
	newStreams  = batchEvents / 10
	minStreams  = 1000 // picked from at the start, when there are fewer
	regions     = 20
	perCustomer = 4 // streams of a customer

	hundreds    = 20  // streams of 100 events for each row
	hundredSize = 100 // events of one of them
)

// generator makes the appends of the load. Append n is the same in every run,
// and any goroutine may make any of them.
type generator struct {
	rows []int  // events at each row
	size int    // bytes of data
	pool []byte // data is cut from here
}

func newGenerator(rows []int, size int) *generator {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789"
	random := rand.New(rand.NewPCG(1, 2))
	g := &generator{rows: rows, size: size, pool: make([]byte, 64<<10+size)}
	for i := range g.pool {
		g.pool[i] = letters[random.IntN(len(letters))]
	}
	return g
}

// batch puts the body of append n into dst, over what is there, and returns the
// bytes of its tags too.
func (g *generator) batch(dst []byte, n int) (body []byte, tagBytes int) {
	dst = append(dst[:0], `{"events":[`...)
	existing := max(minStreams, n*newStreams)
	others := batchEvents - newStreams
	slot := 0
	for row, events := range g.rows {
		for _, i := range dueHundreds(n, events) {
			dst = appendHundred(append(dst, `{"stream":"`...), row, i)
			dst = append(dst, `","type":"Measured","tags":["`...)
			tags := len(dst)
			dst = appendHundred(append(dst, "customer:"...), row, i)
			dst = g.end(dst, mix(uint64(n), uint64(slot)), &tags)
			tagBytes += tags
			slot++
		}
	}
	for ; slot < batchEvents; slot++ {
		h := mix(uint64(n), uint64(slot))
		stream := n*newStreams + slot - others
		if slot < others {
			// Each slot has a share of the streams, so that no two are the same.
			share := existing / others
			stream = slot*share + int(h%uint64(share))
		}
		dst = strconv.AppendInt(append(dst, `{"stream":"account-`...), int64(stream), 10)
		dst = append(dst, `","type":"Measured","tags":["`...)
		tags := len(dst)
		dst = strconv.AppendInt(append(dst, "customer:"...), int64(stream/perCustomer), 10)
		dst = g.end(dst, h, &tags)
		tagBytes += tags
	}
	dst[len(dst)-1] = ']'
	return append(dst, '}'), tagBytes
}

// end appends what follows the first tag of an event, and a comma. *tags is
// where the tags begin, and becomes their bytes.
func (g *generator) end(dst []byte, h uint64, tags *int) []byte {
	dst = strconv.AppendUint(append(dst, `","region:`...), h>>32%regions, 10)
	side := `","left:1`
	if h>>63 == 1 {
		side = `","right:1`
	}
	dst = append(dst, side...)
	*tags = len(dst) - *tags - 2*len(`","`)
	dst = append(dst, `"],"data":"`...)
	at := int(h>>8) & (64<<10 - 1)
	dst = append(dst, g.pool[at:at+g.size-len(`""`)]...)
	return append(dst, `"},`...)
}

// appendHundred appends the name of a stream of 100 events, which is that of
// its customer too.
func appendHundred(dst []byte, row, i int) []byte {
	dst = strconv.AppendInt(append(dst, "hundred-"...), int64(row), 10)
	return strconv.AppendInt(append(dst, '-'), int64(i), 10)
}

// dueHundreds returns which streams of 100 events of a row have an event in
// append n. Their events are spread evenly from the first append to the row.
func dueHundreds(n, events int) []int {
	batches, all := events/batchEvents, hundreds*hundredSize
	if n >= batches {
		return nil
	}
	var due []int
	for k := (n*all + batches - 1) / batches; k*batches < (n+1)*all; k++ {
		due = append(due, k%hundreds)
	}
	return due
}

// mix is a hash of two numbers (the finalizer of splitmix64).
func mix(a, b uint64) uint64 {
	x := a*0x9e3779b97f4a7c15 + b*0xd1342543de82ef95 + 1
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// single puts the body of an append of one event into dst, over what is there.
// conditions is a JSON array or "".
func (g *generator) single(dst []byte, stream, tags, mark, conditions string) []byte {
	dst = append(append(append(dst[:0], `{"events":[{"stream":"`...), stream...), `","type":"Measured","tags":[`...)
	dst = append(append(append(dst, tags...), `],"data":"`...), mark...)
	dst = append(append(dst, g.pool[:max(0, g.size-len(`""`)-len(mark))]...), `"}]`...)
	if conditions != "" {
		dst = append(append(dst, `,"conditions":`...), conditions...)
	}
	return append(dst, '}')
}

// likeTheLoad are tags of events that figures append, as many as the load's.
const likeTheLoad = `"customer:measured","region:1","left:1"`
