package cluster

import (
	"sync"

	"github.com/hashicorp/raft"
)

// pipeline keeps one of the library's from locking up. There (v1.7.3) a sender
// waits in AppendEntries until answers are taken from Consumer. Whoever takes
// them stops at the first refusal or newer term, and the sender, that would close
// the pipeline, waits for ever: the follower gets nothing more from this leader,
// or heartbeats of a term that is over, and Shutdown does not return. With few
// messages in flight, as here, that takes no more than two behind the refusal
// (hashicorp/raft#612).
//
// So answers are taken at once and kept until somebody wants them. They are as
// many as a sender sends after nobody listens any more, which is few: it looks
// between any two messages.
type pipeline struct {
	raft.AppendPipeline
	answers chan raft.AppendFuture
	closed  chan struct{}
	once    sync.Once
	running sync.WaitGroup
}

func newPipeline(under raft.AppendPipeline) *pipeline {
	p := &pipeline{AppendPipeline: under, answers: make(chan raft.AppendFuture), closed: make(chan struct{})}
	p.running.Go(p.take)
	return p
}

// take passes answers on in their order, until Close.
func (p *pipeline) take() {
	var kept []raft.AppendFuture
	for {
		var out chan<- raft.AppendFuture // nil, on which nothing can be sent, while there is nothing
		var next raft.AppendFuture
		if len(kept) > 0 {
			out, next = p.answers, kept[0]
		}
		select {
		case answer := <-p.AppendPipeline.Consumer():
			kept = append(kept, answer)
		case out <- next:
			kept = kept[1:]
		case <-p.closed:
			return
		}
	}
}

// Consumer returns where answers come, in the order of the messages.
func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.answers }

// Close gives the connection back and drops what nobody took.
func (p *pipeline) Close() error {
	p.once.Do(func() { close(p.closed) })
	p.running.Wait()
	return p.AppendPipeline.Close()
}
