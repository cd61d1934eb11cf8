package sim

import (
	"time"

	"github.com/hashicorp/raft"
)

// pipelineDepth is how many messages may be on their way in a pipeline, the one
// being answered included.
const pipelineDepth = 2

// AppendEntriesPipeline opens a pipeline: messages follow each other without
// waiting for the answers, which come back in order.
func (t *transport) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	p := &pipeline{
		trans: t, id: id, target: target,
		sent: make(chan *future, pipelineDepth), done: make(chan raft.AppendFuture, pipelineDepth),
		broken: make(chan struct{}), closed: make(chan struct{}),
	}
	go p.run()
	return p, nil
}

// pipeline is used by one goroutine of Raft's; Consumer's channel by another.
type pipeline struct {
	trans  *transport
	id     raft.ServerID
	target raft.ServerAddress
	sent   chan *future
	done   chan raft.AppendFuture
	broken chan struct{} // closed when a message was not answered
	closed chan struct{}
}

func (p *pipeline) run() {
	for {
		select {
		case f := <-p.sent:
			f.err = p.trans.AppendEntries(p.id, p.target, f.args, f.resp)
			close(f.answered)
			if f.err != nil {
				close(p.broken)
			}
			select {
			case p.done <- f:
			case <-p.closed:
			}
			if f.err != nil {
				return // the connection is gone, and what else was sent on it
			}
		case <-p.closed:
			return
		}
	}
}

func (p *pipeline) AppendEntries(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	f := &future{start: time.Now(), args: args, resp: resp, answered: make(chan struct{})}
	select {
	case p.sent <- f:
		return f, nil
	case <-p.broken:
		return nil, errReset
	case <-p.closed:
		return nil, raft.ErrPipelineShutdown
	}
}

func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.done }

// Close ends the pipeline; Raft calls it once.
func (p *pipeline) Close() error {
	close(p.closed)
	return nil
}

// future is a message in a pipeline.
type future struct {
	start    time.Time
	args     *raft.AppendEntriesRequest
	resp     *raft.AppendEntriesResponse
	answered chan struct{} // closed when err and resp are set
	err      error
}

func (f *future) Error() error {
	<-f.answered
	return f.err
}

func (f *future) Start() time.Time                      { return f.start }
func (f *future) Request() *raft.AppendEntriesRequest   { return f.args }
func (f *future) Response() *raft.AppendEntriesResponse { return f.resp }
