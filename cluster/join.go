package cluster

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// joinLoop keeps this node in touch with the others, for ever. A seed is tried
// until it was reached once; all of them again whenever this node is alone or a
// server of Raft's list is missing from the gossip, because memberlist never
// looks for a node again that it has buried: without this, two halves of a
// healed partition, or the nodes of a cluster that was stopped as a whole,
// would not find each other.
func (m *membership) joinLoop(ctx context.Context) {
	reached := map[string]bool{}
	addrs := map[string]bool{} // where seeds were reached
	wait := m.tune.joinMin
	for {
		if err := m.refuseStrangers(addrs); err != nil {
			m.deps.expel(err)
			return
		}
		targets := m.joinTargets(reached)
		errs, at := make([]error, len(targets)), make([]string, len(targets))
		var joins sync.WaitGroup
		for i, target := range targets {
			joins.Go(func() { at[i], errs[i] = m.join(ctx, target) })
		}
		joins.Wait()
		failed := false
		for i, target := range targets {
			reached[target] = errs[i] == nil
			addrs[at[i]] = addrs[at[i]] || errs[i] == nil && slices.Contains(m.cfg.Join, target)
			if errs[i] != nil {
				failed = true
				m.log.Debug("gossip address not reached", "address", target, "error", errs[i])
			}
		}
		if !failed {
			wait = m.tune.joinMin
			if !pause(ctx, m.tune.joinMax, m.joinBell) {
				return
			}
			continue
		}
		// Not woken by the bell: a lively roster must not make a busy loop of
		// it. Jitter, so that nodes started together do not knock in step.
		if !pause(ctx, wait/2+rand.N(wait), nil) {
			return
		}
		wait = min(2*wait, m.tune.joinMax)
	}
}

// refuseStrangers returns an error when an address that this node was told to
// join belongs to a node of another log, and no node of its own was ever there
// in this run: its data is not of the cluster that it is to be part of. Later on
// an address that has come into other hands must not end a running node.
func (m *membership) refuseStrangers(addrs map[string]bool) error {
	v := m.roster.view.Load()
	if v.met {
		return nil
	}
	for _, i := range v.strangers {
		if addrs[i.gossip] {
			return fmt.Errorf("the data directory is of another cluster: it holds log %s, and %s, at %s, holds log %s; join nodes of its own log, or start with an empty data directory",
				m.deps.sm.LogID(), i.ID, i.gossip, i.LogID)
		}
	}
	return nil
}

// joinTargets returns the gossip addresses to try now.
func (m *membership) joinTargets(reached map[string]bool) []string {
	alive := m.roster.alive()
	alone := !slices.ContainsFunc(alive, func(i instance) bool { return i.ID != m.cfg.NodeID })
	missing := m.missing(alive)
	if alone || len(missing) > 0 {
		clear(reached)
	}
	var targets []string
	for _, seed := range slices.Concat(m.cfg.Join, missing) {
		if !reached[seed] && !slices.Contains(targets, seed) {
			targets = append(targets, seed)
		}
	}
	return targets
}

// missing returns the last known gossip addresses of Raft's servers that the
// gossip does not know to be alive.
func (m *membership) missing(alive []instance) []string {
	var list []string
	for _, s := range servers(m.deps.raft()) {
		if s.ID == raft.ServerID(m.cfg.NodeID) ||
			slices.ContainsFunc(alive, func(i instance) bool { return raft.ServerID(i.ID) == s.ID }) {
			continue
		}
		m.mu.Lock()
		known := m.seen[string(s.ID)].Gossip
		m.mu.Unlock()
		if i, ok := m.roster.get(string(s.ID)); ok && known == "" {
			known = i.gossip
		}
		if known != "" {
			list = append(list, known)
		}
	}
	return list
}

// join exchanges all that is known with the nodes at a gossip address. memberlist
// would look the name up without a context, so it is given plain addresses. It
// returns the one that was reached, "" if that is this node itself.
func (m *membership) join(ctx context.Context, target string) (reached string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	addrs, err := lookupAll(ctx, target, netip.Addr{})
	if err != nil {
		return "", err
	}
	for _, a := range addrs {
		if a.String() == m.gossipAddress() {
			continue
		}
		if _, joinErr := m.list.Join([]string{a.String()}); joinErr != nil {
			err = fmt.Errorf("join %s: %w", a, joinErr)
			continue
		}
		return a.String(), nil
	}
	return "", err // nil if the seed is this node itself
}

// gossipAddress is where others find this node's gossip, "" before start.
func (m *membership) gossipAddress() string {
	if own := m.gossip.Load(); own != nil {
		return *own
	}
	return ""
}
