package cluster

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// A sender must not wait for somebody who takes the answers: he may have gone.
func TestPipeline_SenderNeverWaitsForTheConsumer(t *testing.T) {
	networks := [2]*tcpNetwork{newTestNetwork(t, nil), newTestNetwork(t, nil)}
	from, to := networks[0], networks[1]
	go func() {
		for rpc := range to.transport.Consumer() {
			args := rpc.Command.(*raft.AppendEntriesRequest)
			rpc.Respond(&raft.AppendEntriesResponse{Term: args.Term + 1}, nil) // a newer term: Raft's consumer stops here
		}
	}()
	p, err := from.transport.AppendEntriesPipeline(raft.ServerID(to.opts.NodeID), raft.ServerAddress(addrOf(to)))
	if err != nil {
		t.Fatal(err)
	}
	const messages = 20
	sent := make(chan error)
	go func() {
		for i := range messages {
			if _, err := p.AppendEntries(&raft.AppendEntriesRequest{Term: uint64(i)}, new(raft.AppendEntriesResponse)); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	select {
	case err := <-sent:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the sender waits for a consumer that has gone")
	}
	// Who looks after all finds the answers in order.
	for i := range messages - 1 {
		if got := (<-p.Consumer()).Request().Term; got != uint64(i) {
			t.Fatalf("answer %d is to message %d", i, got)
		}
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if err := p.Close(); err != nil {
		t.Errorf("a second time: %v", err)
	}
}
