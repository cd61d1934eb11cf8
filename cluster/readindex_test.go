package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// A leader that was cut off and deposed still thinks that it leads until its
// lease ends. In that time others have committed; it must not answer a read.
func TestReadIndex_DeposedLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, 3, func(_ int, cfg *Config) { cfg.LeaseTimeout = cfg.HeartbeatTimeout })
		defer c.closeAll()
		old := c.leader()
		c.propose(old, "before")
		deposed := c.nodes[old]
		term := deposed.views.load().term
		if _, err := deposed.readLocal(); err != nil {
			t.Fatalf("read index of the leader: %v", err)
		}

		c.hub.setCut(nodeID(old), true)
		if _, err := deposed.readLocal(); !errors.Is(err, errNoQuorum) {
			t.Errorf("read index of a leader that was cut off: %v, want %v", err, errNoQuorum)
		}
		if !deposed.leads(term) {
			t.Fatal("it knows already that it is cut off: this test shows nothing")
		}
		c.nodes[old] = nil
		next := c.leader()
		c.propose(next, "after")
		c.hub.setCut(nodeID(old), false)
		if _, err := deposed.readLocal(); err == nil {
			t.Error("a deposed leader answered a read")
		}
		c.nodes[old] = deposed
		if err := deposed.ReadIndex(context.Background()); err != nil {
			t.Fatalf("read index on the deposed leader, through the next one: %v", err)
		}
		if got := c.machines[old].events(); len(got) != 2 {
			t.Errorf("after a linearizable read it has %v", got)
		}
	})
}

// Voters that have moved on to a later term depose a leader that has not
// noticed, whose own Raft still says that it leads. Those that have not yet
// heard of its term do not confirm it.
func TestReadIndex_OtherTermsAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, 3, nil)
		defer c.closeAll()
		l := c.leader()
		n := c.nodes[l]
		synctest.Wait()
		real, term := n.peers, n.views.load().term
		defer func() { n.peers = real }()
		for _, tt := range []struct {
			terms [2]uint64 // of the two others; 0 = no answer
			want  error
		}{
			{[2]uint64{term, term}, nil},
			{[2]uint64{term, 0}, nil},
			{[2]uint64{0, 0}, errNoQuorum},
			{[2]uint64{term - 1, term - 1}, errNoQuorum},
			{[2]uint64{term + 1, 0}, errDeposed},
			{[2]uint64{term + 1, term + 1}, errDeposed},
		} {
			n.peers = &peerClient{&fakePeers{answer: func(_ context.Context, _ string, id []byte) ([]byte, error) {
				answer := tt.terms[0]
				if string(id) == nodeID((l+1)%3) {
					answer = tt.terms[1]
				}
				if answer == 0 {
					return nil, errors.New("no answer")
				}
				return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, answer), 0), nil
			}}}
			if err := n.confirmTerm(term); !errors.Is(err, tt.want) {
				t.Errorf("term %d, others at %v: %v, want %v", term, tt.terms, err, tt.want)
			}
			synctest.Wait()
		}
	})
}

// Non-voters count in no majority; Raft's own VerifyLeader counts them.
func TestReadIndex_NonVotersDoNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, 3, nil)
		defer c.closeAll()
		l := c.leader()
		n := c.nodes[l]
		a, b := (l+1)%3, (l+2)%3
		if err := n.raft.DemoteVoter(raft.ServerID(nodeID(a)), 0, 0).Error(); err != nil {
			t.Fatal(err)
		}
		term := n.views.load().term
		c.hub.setCut(nodeID(b), true)
		if err := n.confirmTerm(term); !errors.Is(err, errNoQuorum) && !errors.Is(err, errDeposed) {
			t.Errorf("one of two voters and a non-voter confirm the term: %v", err)
		}
		c.hub.setCut(nodeID(b), false)
	})
}

// A read on an idle cluster right after an election waits for a command, not for
// the no-op and the barrier after it, which never reach a state machine.
func TestReadIndex_AfterElectionWithoutCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, 3, nil)
		defer c.closeAll()
		c.propose(0, "one")
		for range 3 {
			old := c.leader()
			if err := c.nodes[old].Transfer(context.Background(), ""); err != nil {
				t.Fatalf("transfer: %v", err)
			}
			c.leader()
			for i, n := range c.nodes {
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				if err := n.ReadIndex(ctx); err != nil {
					t.Fatalf("read index on %s: %v", nodeID(i), err)
				}
				cancel()
				if got := c.machines[i].events(); len(got) != 1 {
					t.Fatalf("%s has %v", nodeID(i), got)
				}
			}
		}
	})
}

// Readers that come while a round runs share the next one.
func TestReadIndex_Batches(t *testing.T) {
	begun, release, ran := make(chan struct{}, 10), make(chan struct{}), 0
	r := &readRounds{run: func() (uint64, error) {
		ran++
		begun <- struct{}{}
		<-release
		return uint64(ran), nil
	}}
	start := func(f func()) { go f() }
	first := r.join(start)
	<-begun
	second, third := r.join(start), r.join(start)
	if second == first {
		t.Error("a reader joined a round that had begun: the index may be from before it came")
	}
	if second != third {
		t.Error("two readers that waited got two rounds")
	}
	close(release)
	<-third.done
	<-first.done
	if first.index != 1 || third.index != 2 || ran != 2 {
		t.Errorf("rounds answered %d and %d, %d ran", first.index, third.index, ran)
	}
}

func TestCommandFinder(t *testing.T) {
	const (
		cmd  = raft.LogCommand
		noop = raft.LogNoop
		bar  = raft.LogBarrier
		conf = raft.LogConfiguration
	)
	store := raft.NewInmemStore()
	types := []raft.LogType{conf, noop, cmd, cmd, noop, bar, conf, cmd, bar, bar} // from index 1
	for i, typ := range types {
		if err := store.StoreLog(&raft.Log{Index: uint64(i + 1), Type: typ}); err != nil {
			t.Fatal(err)
		}
	}
	applied := uint64(0)
	f := &commandFinder{log: store, applied: func() (uint64, uint64) { return applied, 0 }}
	check := func(committed, want uint64) {
		t.Helper()
		if got, err := f.find(committed); err != nil || got != want {
			t.Errorf("last command at or before %d: %d, %v; want %d", committed, got, err, want)
		}
	}
	check(2, 0)
	check(3, 3)
	check(7, 4)
	check(8, 8)
	check(10, 8)
	check(6, 4)
	// Compacted: what is no longer there has been applied.
	if err := store.DeleteRange(1, 8); err != nil {
		t.Fatal(err)
	}
	f = &commandFinder{log: store, applied: func() (uint64, uint64) { return applied, 0 }}
	applied = 8
	check(10, 8)
	f = &commandFinder{log: store, applied: func() (uint64, uint64) { return applied, 0 }}
	applied = 12 // a later one was applied meanwhile
	check(10, 12)
	applied = 8
	check(10, 8)
}
