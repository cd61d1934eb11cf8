package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Status is the cluster as one node sees it: GET /v1/cluster.
type Status struct {
	Log        string   `json:"log"`    // id, "" before its birth
	Leader     string   `json:"leader"` // node id, "" if unknown
	LeaderHTTP string   `json:"-"`
	Term       uint64   `json:"term"`
	Members    []Member `json:"members"` // by id
}

// Member is one member of a Status. Of one that does not answer, Applied is the
// last that was heard.
type Member struct {
	ID      string `json:"id"`
	HTTP    string `json:"http"`
	Role    Role   `json:"role"`
	Alive   bool   `json:"alive"`   // it answered within the last second
	Applied uint64 `json:"applied"` // position
	Lag     uint64 `json:"lag"`     // positions behind the leader
	Version string `json:"version"`
}

// Role is what a member may do.
type Role string

// A non-voter holds all data and counts in no majority.
const (
	RoleLeader   Role = "leader"
	RoleVoter    Role = "voter"
	RoleNonVoter Role = "non-voter"
)

// statusRequest asks a node how it is.
type statusRequest struct {
	ID string `json:"id"` // who asks
}

// peerStatus is the answer.
type peerStatus struct {
	ID      string `json:"id"`
	Run     string `json:"run"`
	HTTP    string `json:"http"`
	Gossip  string `json:"gossip"`
	Version string `json:"version"`
	Clock   int64  `json:"clock"` // nanoseconds
	LogID   string `json:"log_id"`

	Term      uint64   `json:"term"`
	LastIndex uint64   `json:"last_index"`
	Applied   uint64   `json:"applied"`  // Raft index handed to the state machine
	Command   uint64   `json:"command"`  // Raft index of the last command applied
	Position  uint64   `json:"position"` // last position applied
	Servers   []string `json:"servers"`  // ids in its list of servers

	Removed bool `json:"removed"` // its log has the one who asks down as removed
	Voter   bool `json:"voter"`   // its list has the one who asks as a voter
}

// serveStatus answers a peer.
func (m *membership) serveStatus(_ context.Context, body []byte) ([]byte, error) {
	var q statusRequest
	if err := json.Unmarshal(body, &q); err != nil {
		return nil, err
	}
	s, err := m.ownStatus(q.ID)
	if err != nil {
		return nil, err
	}
	return json.Marshal(s)
}

// ownStatus is how this node is, for the one who asks.
func (m *membership) ownStatus(asker string) (peerStatus, error) {
	r := m.deps.raft()
	if r == nil {
		return peerStatus{}, errNotReady
	}
	s := peerStatus{
		ID:        m.cfg.NodeID,
		Run:       m.run,
		HTTP:      m.cfg.HTTP,
		Gossip:    m.gossipAddress(),
		Version:   m.cfg.Version,
		LogID:     m.deps.sm.LogID(),
		Term:      r.CurrentTerm(),
		LastIndex: r.LastIndex(),
		Applied:   r.AppliedIndex(),
		Removed:   m.deps.sm.Removed(asker),
	}
	s.Command, s.Position = m.deps.sm.Applied()
	list := servers(r)
	for _, server := range list {
		s.Servers = append(s.Servers, string(server.ID))
	}
	asking, ok := findServer(list, asker)
	s.Voter = ok && asking.Suffrage == raft.Voter
	s.Clock = m.clock.now().UnixNano() // last, so that it is as fresh as can be
	return s, nil
}

// askStatus asks the node at a Raft address.
func (m *membership) askStatus(ctx context.Context, addr string) (peerStatus, error) {
	var s peerStatus
	err := m.ask(ctx, addr, "status", statusRequest{ID: m.cfg.NodeID}, &s)
	return s, err
}

// answer is a peer's status and what is known about the call.
type answer struct {
	peerStatus
	at    time.Time     // when it came
	trip  time.Duration // there and back
	asked uint64        // our commit index before the call
}

// heard is what a node said last, and when.
type heard struct {
	peerStatus
	at time.Time
}

// freshness is how long a node counts as alive after it was heard.
const freshness = time.Second

// askAll asks nodes, by id and Raft address, at once and returns who answered
// in time. The answer of this node itself is among them if it is asked for.
func (m *membership) askAll(ctx context.Context, addrs map[string]string, within time.Duration) map[string]answer {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	var mu sync.Mutex
	answers := make(map[string]answer, len(addrs))
	var calls sync.WaitGroup
	for id, addr := range addrs {
		calls.Go(func() {
			a := answer{asked: m.deps.raft().CommitIndex()}
			sent := m.clock.mono()
			var err error
			if id == m.cfg.NodeID {
				a.peerStatus, err = m.ownStatus(id)
			} else {
				a.peerStatus, err = m.askStatus(ctx, addr)
			}
			a.at = m.clock.mono()
			a.trip = a.at.Sub(sent)
			if err == nil && a.ID == id {
				mu.Lock()
				defer mu.Unlock()
				answers[id] = a
			} else if ctx.Err() == nil {
				m.notThere(id, sent)
			}
		})
	}
	calls.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, a := range answers {
		m.seen[id] = heard{a.peerStatus, a.at}
	}
	return answers
}

// notThere notes that a node's address answered with an error, or for another
// node: unlike one that is only slow, it does not count as alive, unless it was
// heard since it was asked.
func (m *membership) notThere(id string, asked time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if last := m.seen[id]; last.at.Before(asked) {
		last.at = time.Time{}
		m.seen[id] = last
	}
}

// addresses returns where the servers of a list are, by id.
func (m *membership) addresses(list []raft.Server) map[string]string {
	addrs := make(map[string]string, len(list))
	for _, s := range list {
		addr := s.Address
		if known, ok := m.address(s.ID); ok {
			addr = known
		}
		addrs[string(s.ID)] = string(addr)
	}
	return addrs
}

// status describes the cluster as this node sees it. Before there is one it
// lists who has been found so far.
func (m *membership) status(ctx context.Context) Status {
	r := m.deps.raft()
	_, leader := r.LeaderWithID()
	st := Status{Log: m.deps.sm.LogID(), Leader: string(leader), Term: r.CurrentTerm(), Members: []Member{}}
	st.LeaderHTTP = m.httpURL(st.Leader)
	list := servers(r)
	if len(list) == 0 {
		for _, i := range m.roster.alive() {
			list = append(list, raft.Server{ID: raft.ServerID(i.ID), Address: raft.ServerAddress(i.Raft), Suffrage: raft.Nonvoter})
		}
	}
	m.askAll(ctx, m.addresses(list), m.tune.glance)
	m.mu.Lock()
	first := m.seen[st.Leader].Position
	m.mu.Unlock()
	for _, s := range list {
		st.Members = append(st.Members, m.member(s, st.Leader, first))
	}
	slices.SortFunc(st.Members, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	return st
}

// member describes one server.
func (m *membership) member(s raft.Server, leader string, first uint64) Member {
	id := string(s.ID)
	known, _ := m.roster.get(id)
	m.mu.Lock()
	last := m.seen[id]
	m.mu.Unlock()
	one := Member{
		ID:      id,
		HTTP:    cmp.Or(last.HTTP, known.HTTP),
		Role:    RoleNonVoter,
		Alive:   m.clock.mono().Sub(last.at) < freshness, // the zero time is long ago
		Applied: last.Position,
		Version: cmp.Or(last.Version, known.Version),
	}
	if s.Suffrage == raft.Voter {
		one.Role = RoleVoter
	}
	if id == leader {
		one.Role = RoleLeader
	}
	if first > one.Applied {
		one.Lag = first - one.Applied
	}
	return one
}
