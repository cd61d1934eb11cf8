package cluster

import (
	"testing"

	"github.com/hashicorp/raft"
)

// A node that was empty when it started must not help anybody to win before it
// has entries: its vote may be one that it gave, and forgot.
func TestTransport_EmptyNodeDoesNotVote(t *testing.T) {
	in, out, closed := make(chan raft.RPC), make(chan raft.RPC), make(chan struct{})
	may, ended := false, make(chan struct{})
	go func() {
		defer close(ended)
		guardVotes(in, out, func() bool { return may }, closed)
	}()
	ask := func(command any) chan raft.RPCResponse {
		answer := make(chan raft.RPCResponse, 1)
		in <- raft.RPC{Command: command, RespChan: answer}
		return answer
	}
	for _, command := range []any{&raft.RequestVoteRequest{}, &raft.RequestPreVoteRequest{}} {
		if r := <-ask(command); r.Error == nil {
			t.Errorf("%T was not refused", command)
		}
	}
	_ = ask(&raft.AppendEntriesRequest{})
	if rpc := <-out; rpc.Command == nil {
		t.Error("entries did not pass")
	}
	may = true
	for _, command := range []any{&raft.RequestVoteRequest{}, &raft.RequestPreVoteRequest{}} {
		_ = ask(command)
		if rpc := <-out; rpc.Command != command {
			t.Errorf("%T did not pass", command)
		}
	}
	close(closed)
	<-ended
}
