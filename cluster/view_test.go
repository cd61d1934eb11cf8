package cluster

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// What a leader was sent that stands still is given up once another node leads,
// and not before: as long as none does, it may yet be decided.
func TestViews_AbandonTheFormerLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hangs := func(ctx context.Context, _ string, _ []byte) ([]byte, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		v := newViews("self", func(raft.ServerAddress, raft.ServerID) *forwarder {
			f := newTestForwarder(hangs)
			f.timeout = time.Minute
			return f
		}, nil)
		leads := func(id raft.ServerID) {
			v.refresh(func() (raft.ServerAddress, raft.ServerID) { return raft.ServerAddress(id), id })
		}
		leads("a")
		f := v.load().forward
		sent := newTicket([][]byte{[]byte("x")})
		begun := time.Now()
		go func() { _, _ = f.submit(t.Context(), sent) }()
		for _, id := range []raft.ServerID{"", "a", "", "a", ""} {
			time.Sleep(time.Second)
			leads(id)
		}
		time.Sleep(time.Second)
		select {
		case <-sent.done:
			t.Fatalf("given up after %s, while nobody else led", time.Since(begun))
		default:
		}
		leads("b")
		changed := time.Now()
		<-sent.done
		var unknown *UnknownError
		if took := time.Since(changed); took > time.Second || !errors.As(sent.proposals[0].err, &unknown) {
			t.Errorf("after %s: %v", took, sent.proposals[0].err)
		}
	})
}
