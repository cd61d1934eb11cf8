package node

import (
	"context"

	"cairn/cluster"
	"cairn/event"
	"cairn/fsm"
	"cairn/httpapi"
)

// The types of this file give httpapi what it needs of the state machine and of
// the cluster, in its own words. They hold no state and add no rules.

// reads is the state machine as httpapi.Reads and httpapi.Waiter.
type reads struct{ machine *fsm.Machine }

func (r reads) View(at uint64) httpapi.View { return view{r.machine.View(at)} }

func (r reads) LogID() string { return r.machine.LogID() }

func (r reads) Applied() uint64 {
	_, position := r.machine.Applied()
	return position
}

func (r reads) WaitPosition(ctx context.Context, position uint64) error {
	return r.machine.WaitPosition(ctx, position)
}

func (r reads) Changed() <-chan struct{} { return r.machine.Changed() }

// view is a view of the state machine as httpapi.View.
type view struct{ *fsm.View }

func (v view) Version(stream string) (uint64, error) {
	head, err := v.Head(stream)
	return head.Version, err
}

func (v view) Select(s httpapi.Selection) (httpapi.Cursor, error) {
	return cursor(v.View.Select(fsm.Selection(s)))
}

func (v view) Stream(name string, from uint64, backward bool) (httpapi.Cursor, error) {
	return cursor(v.View.Stream(name, from, backward))
}

// cursor keeps a nil *fsm.Cursor from becoming an interface that is not nil.
func cursor(c *fsm.Cursor, err error) (httpapi.Cursor, error) {
	if err != nil {
		return nil, err
	}
	return c, nil
}

// members is a node of the cluster as httpapi.Cluster and httpapi.Appender.
type members struct{ node *cluster.Node }

func (m members) Propose(ctx context.Context, a *event.Append) (event.Outcome, error) {
	return m.node.Propose(ctx, a)
}

func (m members) ProposeAll(ctx context.Context, appends []*event.Append) ([]event.Outcome, error) {
	outcomes := make([]event.Outcome, len(appends))
	var failed error
	decided := 0
	for i, r := range m.node.ProposeAll(ctx, appends) {
		if outcomes[i] = r.Outcome; r.Err != nil {
			failed = r.Err
		} else {
			decided++
		}
	}
	if failed != nil && decided > 0 { // not together after all: none may be called not written
		failed = &cluster.UnknownError{Cause: failed}
	}
	return outcomes, failed
}

func (m members) ReadIndex(ctx context.Context) error { return m.node.ReadIndex(ctx) }

func (m members) Ready() error { return m.node.Ready() }

func (m members) Leader() (id, url string) { return m.node.Leader() }

func (m members) Transfer(ctx context.Context, to string) error { return m.node.Transfer(ctx, to) }

func (m members) Remove(ctx context.Context, id string) error { return m.node.Remove(ctx, id) }

func (m members) Status(ctx context.Context) httpapi.ClusterStatus {
	s := m.node.Status(ctx)
	status := httpapi.ClusterStatus{Log: s.Log, Leader: s.Leader, Term: s.Term, Members: make([]httpapi.Member, len(s.Members))}
	for i, member := range s.Members {
		status.Members[i] = httpapi.Member{
			ID: member.ID, HTTP: member.HTTP, Role: string(member.Role), Alive: member.Alive,
			Applied: member.Applied, Lag: member.Lag, Version: member.Version,
		}
	}
	return status
}
