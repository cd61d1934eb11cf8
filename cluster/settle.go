package cluster

import (
	"context"
	"sync"

	"github.com/hashicorp/raft"
)

// settleLoop settles whenever the roster has changed, and again while two nodes
// fight for one id.
func (m *membership) settleLoop(ctx context.Context) {
	for pause(ctx, m.tune.leaderTick, m.settleBell) {
		m.settle(ctx)
	}
}

// settle decides which instance counts for ids that have several live ones in
// gossip. Usually one is the last run of a node that was restarted elsewhere,
// and gossip has not noticed its death yet: it does not answer a call, so the
// new one takes over at once. If two answer, two nodes have the same id (a
// copied data directory); Raft must never hear both, or one voter would vote
// twice. Then the one that stands in Raft's list keeps the id, else the one that
// was there first, and the other is refused.
func (m *membership) settle(ctx context.Context) {
	for id, rivals := range m.roster.contested() {
		answers := m.answering(ctx, rivals)
		current, _ := m.roster.get(id)
		if ctx.Err() != nil || len(answers) == 0 {
			continue
		}
		listed, _ := findServer(servers(m.deps.raft()), id)
		winner := answers[0]
		for _, i := range answers {
			if i.name == current.name {
				winner = i
			}
		}
		for _, i := range answers {
			if raft.ServerAddress(i.Raft) == listed.Address {
				winner = i
			}
		}
		for _, i := range answers {
			if i.name != winner.name {
				m.roster.once(i.name, func() {
					m.log.Error("node refused: its id belongs to another live node",
						"id", id, "refused", i.Raft, "kept", winner.Raft)
				})
			}
		}
		if winner.name != current.name || !current.alive {
			m.roster.choose(winner)
			m.log.Info("member restarted", "id", id, "raft", winner.Raft)
		}
	}
}

// answering returns those of the instances that answer a call as the run that
// gossip says they are.
func (m *membership) answering(ctx context.Context, list []instance) []instance {
	ctx, cancel := context.WithTimeout(ctx, m.tune.call)
	defer cancel()
	ok := make([]bool, len(list))
	var calls sync.WaitGroup
	for at, i := range list {
		if i.Run == m.run {
			ok[at] = true // this node
			continue
		}
		calls.Go(func() {
			s, err := m.askStatus(ctx, i.Raft)
			ok[at] = err == nil && s.ID == i.ID && s.Run == i.Run
		})
	}
	calls.Wait()
	var answers []instance
	for at, i := range list {
		if ok[at] {
			answers = append(answers, i)
		}
	}
	return answers
}
