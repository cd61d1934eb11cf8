package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"cairn/event"
)

// Forming a cluster.
//
// The first list of servers is an entry at index 1 and term 1 that no majority
// has voted on. If two nodes ever wrote different lists that share members, two
// leaders could each win a majority at the same terms, and Raft, which takes
// entries of equal index and term for equal, would never notice. So all of a
// list's members must agree to it before anybody writes it, and no node may
// agree to two lists. Gossip can't give that: two nodes may see different
// members for a while. The protocol is an atomic commit with one writer:
//
//  1. Gossip shows exactly N live members that expect N, none of them with a
//     log. The one with the lowest id is the coordinator.
//  2. probe: the coordinator asks each of them. None may have Raft state, and
//     each must see the same list: ids and addresses, in order.
//  3. pledge: each checks that again and binds itself, durably, to this
//     coordinator. From now on it agrees to no other's list.
//  4. When all have pledged, the coordinator, and nobody else, writes the list.
//     The others get it from Raft: a node without a list votes for whoever asks.
//
// Why one writer and not all. If every node wrote the list once it had seen all
// agree, each would need to know that no other had changed its mind meanwhile,
// which is step 3 for N coordinators instead of one, and a pledge could never be
// taken back: nobody could tell whether some member had written the list. With
// one writer that question has one address, and since it writes only what all
// have pledged themselves to, two lists that share a member can't both be
// written: that member would have pledged itself to both.
//
// Taking back. A node whose members have changed asks its coordinator to give
// the attempt up (withdraw). The coordinator agrees unless it is writing or has
// state; the attempt's number keeps a late answer from releasing a newer pledge.
// If the coordinator died for good between 3 and the first election, the others
// stay bound: nobody can know whether it wrote the list. They say so in the log;
// their disks are empty, so the remedy is to wipe them.
//
// Never again. A node with Raft state refuses to probe and to pledge, and stops
// looking for a cluster to form when it has its first entry.

// formingCall is the body of probe, pledge and withdraw.
type formingCall struct {
	Pledge pledge `json:"pledge"`
	To     string `json:"to"` // node id that is meant: an address may have a new owner
}

// probeReply says what a node thinks of forming a cluster.
type probeReply struct {
	State   bool           `json:"state"` // it has Raft state
	Torn    bool           `json:"torn"`  // it crashed while writing a list, and can't write one any more
	Why     string         `json:"why"`   // it sees no complete list; for people
	Servers []listedServer `json:"servers"`
}

// formingReply answers pledge and withdraw.
type formingReply struct {
	OK  bool   `json:"ok"`
	Why string `json:"why"` // if not; for people
}

// expect returns how many nodes form a cluster as this one sees it. A node that
// expects itself only but is told of others wants to join them.
func (m *membership) expect() int {
	if m.cfg.Expect == 1 && slices.ContainsFunc(m.cfg.Join, func(seed string) bool {
		return seed != m.cfg.Gossip.Bind && seed != m.cfg.Gossip.Advertise
	}) {
		return 0
	}
	return m.cfg.Expect
}

// formLoop tries to form a cluster until this node is part of one.
func (m *membership) formLoop(ctx context.Context) {
	var told string
	var at time.Time // of the last line: reasons may alternate quickly
	for {
		r := m.deps.raft()
		if r.LastIndex() > 0 {
			if held := m.former.pledged(); held != nil {
				m.checked.Store(true) // the list that this node agreed to has come: it is no wiped voter
				if err := m.former.release(held.Attempt); err != nil {
					m.log.Warn("pledge not removed", "error", err) // it binds nobody who has state
				}
			}
			return
		}
		if !hasState(r) {
			err := m.form(ctx, r)
			if err != nil && err.Error() != told && time.Since(at) > m.tune.leaderTick {
				told, at = err.Error(), time.Now()
				m.log.Info("no cluster yet", "reason", told)
			}
		}
		if !pause(ctx, m.tune.formTick, m.formBell) {
			return
		}
	}
}

// form makes one attempt; nil says that the list is written.
func (m *membership) form(ctx context.Context, r *raft.Raft) error {
	list, err := m.formingList()
	held := m.former.pledged()
	if held != nil && (err != nil || !slices.Equal(held.Servers, list) || m.former.wanted()) {
		return m.withdraw(ctx, held)
	}
	if err != nil {
		return err
	}
	if torn(r) {
		return errors.New("a crash interrupted this node while it formed a cluster: another one must do it")
	}
	if err := m.probeAll(ctx, list); err != nil {
		return err
	}
	if held != nil { // its coordinator can't write any more, and we come next
		return m.withdraw(ctx, held)
	}
	p := &pledge{Coordinator: m.cfg.NodeID, Attempt: event.NewID(), Servers: list}
	if err := m.former.begin(p); err != nil {
		return fmt.Errorf("this node %w", err)
	}
	if err := callAll(ctx, m, "pledge", *p, func(s listedServer, reply formingReply) error {
		if !reply.OK {
			return fmt.Errorf("%s %s", s.ID, reply.Why)
		}
		return nil
	}); err != nil {
		return err
	}
	m.readClocks(ctx, list)
	if !m.former.commit(p) {
		return errors.New("the attempt was given up")
	}
	return m.writeList(ctx, r, list)
}

// writeList gives Raft its first list of servers.
func (m *membership) writeList(ctx context.Context, r *raft.Raft, list []listedServer) error {
	var first raft.Configuration
	for _, s := range list {
		first.Servers = append(first.Servers, raft.Server{
			Suffrage: raft.Voter, ID: raft.ServerID(s.ID), Address: raft.ServerAddress(s.Addr),
		})
	}
	if _, err := raftWait(ctx, func() raft.Future { return r.BootstrapCluster(first) }); err != nil {
		return fmt.Errorf("write the first list of servers: %w", err)
	}
	m.former.written()
	m.log.Info("cluster formed", "servers", len(list))
	return nil
}

// formingList returns the members that would form a cluster now, by id, or why
// there can be none.
func (m *membership) formingList() ([]listedServer, error) {
	expect := m.expect()
	if expect == 0 {
		return nil, errors.New("waits for a cluster to take it in")
	}
	var list []listedServer
	for _, i := range m.roster.alive() {
		switch {
		case i.LogID != "":
			return nil, errors.New("there is a cluster, waits to be taken in")
		case i.Expect == 0:
			continue
		case i.Expect != expect:
			return nil, fmt.Errorf("%s expects %d nodes, this one %d", i.ID, i.Expect, expect)
		}
		list = append(list, listedServer{ID: i.ID, Addr: i.Raft})
	}
	if len(m.roster.contested()) > 0 {
		return nil, errors.New("two nodes seem to have one id")
	}
	if len(list) != expect {
		return nil, fmt.Errorf("%d nodes are there, %d are expected", len(list), expect)
	}
	slices.SortFunc(list, func(a, b listedServer) int { return strings.Compare(a.ID, b.ID) })
	return list, nil
}

// probeAll asks all others of a list whether it may be written, and by us.
func (m *membership) probeAll(ctx context.Context, list []listedServer) error {
	return callAll(ctx, m, "probe", pledge{Servers: list}, func(s listedServer, reply probeReply) error {
		switch {
		case reply.State:
			return fmt.Errorf("%s has Raft state", s.ID)
		case s.ID < m.cfg.NodeID && !reply.Torn:
			return fmt.Errorf("waits for %s to form the cluster", s.ID)
		case reply.Why != "":
			return fmt.Errorf("%s %s", s.ID, reply.Why)
		case !slices.Equal(reply.Servers, list):
			return fmt.Errorf("%s sees other members", s.ID)
		}
		return nil
	})
}

// readClocks reads the clocks of those who form the cluster: the stamp of the
// log's birth is held back by them too.
func (m *membership) readClocks(ctx context.Context, list []listedServer) {
	var ids []string
	addrs := map[string]string{}
	for _, s := range list {
		ids, addrs[s.ID] = append(ids, s.ID), s.Addr
	}
	m.clock.update(ids, m.cfg.NodeID, m.askAll(ctx, addrs, m.tune.call))
}

// withdraw asks the coordinator of our pledge to give it up.
func (m *membership) withdraw(ctx context.Context, held *pledge) error {
	at := slices.IndexFunc(held.Servers, func(s listedServer) bool { return s.ID == held.Coordinator })
	if at < 0 {
		return fmt.Errorf("bound to %s, which is not on its own list", held.Coordinator)
	}
	addr := held.Servers[at].Addr
	if known, ok := m.address(raft.ServerID(held.Coordinator)); ok {
		addr = string(known)
	}
	ctx, cancel := context.WithTimeout(ctx, m.tune.call)
	defer cancel()
	var reply formingReply
	if err := m.ask(ctx, addr, "withdraw", formingCall{Pledge: *held, To: held.Coordinator}, &reply); err != nil {
		return fmt.Errorf("bound to form a cluster with %s, which does not answer (if it is gone for good, wipe this node, which holds no data): %w",
			held.Coordinator, err)
	}
	if !reply.OK {
		return fmt.Errorf("bound to form a cluster with %s: it %s", held.Coordinator, reply.Why)
	}
	return m.former.release(held.Attempt)
}

// callAll makes a call to all others of a list at once and returns the first
// error in the list's order.
func callAll[Reply any](ctx context.Context, m *membership, name string, p pledge, check func(listedServer, Reply) error) error {
	ctx, cancel := context.WithTimeout(ctx, m.tune.call)
	defer cancel()
	errs := make([]error, len(p.Servers))
	var calls sync.WaitGroup
	for i, s := range p.Servers {
		if s.ID == m.cfg.NodeID {
			continue
		}
		calls.Go(func() {
			var reply Reply
			if errs[i] = m.ask(ctx, s.Addr, name, formingCall{Pledge: p, To: s.ID}, &reply); errs[i] == nil {
				errs[i] = check(s, reply)
			}
		})
	}
	calls.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// serveProbe answers a coordinator.
func (m *membership) serveProbe(_ context.Context, body []byte) ([]byte, error) {
	if _, err := m.formingCall(body); err != nil {
		return nil, err
	}
	r := m.deps.raft()
	reply := probeReply{State: hasState(r), Torn: torn(r)}
	list, err := m.formingList()
	if err != nil {
		reply.Why = "says: " + err.Error()
	}
	reply.Servers = list
	return json.Marshal(reply)
}

// servePledge binds this node to a coordinator if it sees the same members.
func (m *membership) servePledge(_ context.Context, body []byte) ([]byte, error) {
	call, err := m.formingCall(body)
	if err != nil {
		return nil, err
	}
	p := &call.Pledge
	list, why := m.formingList()
	switch {
	case hasState(m.deps.raft()):
		why = errors.New("has Raft state")
	case why == nil && !slices.Equal(list, p.Servers):
		why = errors.New("sees other members")
	case why == nil && !slices.ContainsFunc(list, func(s listedServer) bool { return s.ID == p.Coordinator }):
		why = errors.New("is asked by a node that is not on the list")
	}
	if why == nil {
		why = m.former.accept(p)
	}
	return replyForming(why)
}

// serveWithdraw gives up an attempt of ours.
func (m *membership) serveWithdraw(_ context.Context, body []byte) ([]byte, error) {
	call, err := m.formingCall(body)
	if err != nil {
		return nil, err
	}
	if call.Pledge.Coordinator != m.cfg.NodeID {
		return nil, errors.New("asked about an attempt of another node")
	}
	var why error
	if !m.former.giveUp(call.Pledge.Attempt, hasState(m.deps.raft())) {
		why = errors.New("has written the list")
	}
	return replyForming(why)
}

func replyForming(why error) ([]byte, error) {
	reply := formingReply{OK: why == nil}
	if why != nil {
		reply.Why = why.Error()
	}
	return json.Marshal(reply)
}

// formingCall decodes a call that is meant for this node, whose Raft runs.
func (m *membership) formingCall(body []byte) (formingCall, error) {
	var call formingCall
	if err := json.Unmarshal(body, &call); err != nil {
		return call, err
	}
	if call.To != m.cfg.NodeID {
		return call, fmt.Errorf("meant for %s, this is %s", call.To, m.cfg.NodeID)
	}
	if m.deps.raft() == nil {
		return call, errNotReady
	}
	return call, nil
}

// torn says that a crash hit this node between the two writes of
// BootstrapCluster. Raft refuses to write a list here ever after; one that comes
// from another node is welcome.
func torn(r *raft.Raft) bool { return r.LastIndex() == 0 && r.CurrentTerm() == 1 }
