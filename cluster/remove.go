package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"cairn/event"
)

// Errors of Remove, beside ErrUnknownMember and ErrNoLeader.
var (
	// ErrLastVoter means that the member is the only voter.
	ErrLastVoter = errors.New("the last voter can't be removed")
	// ErrNoQuorum means that of the voters that would remain too few are alive
	// to decide anything, not even this removal.
	ErrNoQuorum = errors.New("too few of the remaining voters are alive")
)

// ErrRemoved ends a node that was removed from the cluster.
var ErrRemoved = errors.New("this node was removed from the cluster; to take part again it needs an empty data directory and a new node id")

// errNotLeader says that it must be tried again: by another node, or by this
// one when it leads again. A removal can be repeated at any point.
var errNotLeader = errors.New("not the leader")

// Codes of a PeerError that answers a remove, beside codeUnknownMember.
const (
	codeLastVoter = "last-voter"
	codeNoQuorum  = "no-quorum"
	codeNotLeader = "not-leader"
)

var removeCodes = map[string]error{
	codeUnknownMember: ErrUnknownMember,
	codeLastVoter:     ErrLastVoter,
	codeNoQuorum:      ErrNoQuorum,
	codeNotLeader:     errNotLeader,
}

// removeCall is the body of remove.
type removeCall struct {
	ID string `json:"id"`
}

// remove takes a member out for good. Any node may be asked: the leader does
// it, and a leader that is to go itself hands over first. Only when the log says
// so is the server taken off Raft's list; from the first on it is decided, and
// every later leader finishes it.
func (m *membership) remove(ctx context.Context, id string) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, m.tune.remove)
		defer cancel()
	}
	for {
		err := m.tryRemove(ctx, id)
		if !errors.Is(err, errNotLeader) {
			return err
		}
		if !pause(ctx, 50*time.Millisecond, nil) {
			return fmt.Errorf("%w: %w", ErrNoLeader, err)
		}
	}
}

// tryRemove does it here or where the leader is.
func (m *membership) tryRemove(ctx context.Context, id string) error {
	r := m.deps.raft()
	addr, leader := r.LeaderWithID()
	if leader == "" {
		return errNotLeader
	}
	if leader == raft.ServerID(m.cfg.NodeID) {
		return m.removeHere(ctx, r, id)
	}
	if known, ok := m.address(leader); ok {
		addr = known
	}
	var done struct{}
	err := m.ask(ctx, string(addr), "remove", removeCall{ID: id}, &done)
	var refused *PeerError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &refused):
		return fmt.Errorf("%w: %w", errNotLeader, err) // it may be gone, and the next one will do it
	}
	if known, ok := removeCodes[refused.Code]; ok {
		return fmt.Errorf("%w (asked %s)", known, leader)
	}
	return err
}

// serveRemove does what another node was asked for, if this one leads.
func (m *membership) serveRemove(ctx context.Context, body []byte) ([]byte, error) {
	var call removeCall
	if err := json.Unmarshal(body, &call); err != nil {
		return nil, err
	}
	r := m.deps.raft()
	if r == nil {
		return nil, errNotReady
	}
	err := m.removeHere(ctx, r, call.ID)
	for code, known := range removeCodes {
		if errors.Is(err, known) {
			return nil, &PeerError{Code: code, Message: err.Error()}
		}
	}
	return []byte("{}"), err
}

// removeHere removes a member if this node leads.
func (m *membership) removeHere(ctx context.Context, r *raft.Raft, id string) error {
	if r.State() != raft.Leader {
		return errNotLeader
	}
	list := servers(r)
	_, listed := findServer(list, id)
	if !listed {
		if m.deps.sm.Removed(id) {
			return nil
		}
		if i, ok := m.roster.get(id); !ok || !i.alive {
			return ErrUnknownMember
		}
	}
	if err := m.mayRemove(ctx, list, id); err != nil {
		return err
	}
	if id == m.cfg.NodeID {
		if err := m.deps.handover(ctx); err != nil {
			return fmt.Errorf("hand over before leaving: %w", err)
		}
		return errNotLeader // the new leader removes us
	}
	if !m.deps.sm.Removed(id) {
		if err := m.declareRemoved(ctx, id); err != nil {
			return err
		}
	}
	if err := m.apply(ctx, change{kind: changeRemove, id: id}); err != nil {
		return fmt.Errorf("%w: take %s off the list of servers: %w", errNotLeader, id, err)
	}
	return nil
}

// declareRemoved puts the removal into the log.
func (m *membership) declareRemoved(ctx context.Context, id string) error {
	c, err := event.SystemCommand(event.StreamMembers, event.TypeMemberRemoved, event.MemberRemoved{NodeID: id})
	if err != nil {
		return err
	}
	out, err := m.deps.proposeSystem(ctx, c)
	var unknown *UnknownError
	switch {
	case errors.Is(err, ErrNoLeader), errors.As(err, &unknown):
		return fmt.Errorf("%w: %w", errNotLeader, err)
	case err != nil:
		return fmt.Errorf("declare %s removed: %w", id, err)
	case !out.OK():
		return fmt.Errorf("declare %s removed: refused: %s", id, out.Reason)
	}
	m.log.Info("member removed", "id", id)
	return nil
}

// mayRemove refuses what would leave the cluster unable to decide. Raft counts
// the majority for a removal among those who remain, so a removal that leaves
// too few alive would never be committed, and nothing else after it.
func (m *membership) mayRemove(ctx context.Context, list []raft.Server, id string) error {
	s, ok := findServer(list, id)
	if !ok || s.Suffrage != raft.Voter {
		return nil
	}
	remain := voters(list)
	if len(remain) == 1 {
		return ErrLastVoter
	}
	answers := m.askAll(ctx, m.addresses(list), m.tune.call)
	alive := 0
	for _, voter := range remain {
		if _, ok := answers[voter]; ok && voter != id {
			alive++
		}
	}
	if alive < (len(remain)-1)/2+1 {
		return fmt.Errorf("%w: %d of %d", ErrNoQuorum, alive, len(remain)-1)
	}
	return nil
}
