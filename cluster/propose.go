package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cairn/event"
)

// Pauses of a retry while the view of who leads stays the same: it tells of
// most of what one has to wait for, but not, say, that a connection can be made
// again.
const (
	firstPause   = 5 * time.Millisecond
	longestPause = 100 * time.Millisecond
)

// errSchemaChanged is why an append is checked again. It is not seen outside.
var errSchemaChanged = errors.New("the schemas known here are not those in force")

// Result is what became of an append: an outcome, or an error of Propose.
type Result struct {
	Outcome event.Outcome
	Err     error
}

// Propose has an append decided, on any node, and returns when the outcome is
// applied on the leader. It waits for a leader, and tries again whatever was
// certainly not written, until ctx ends or, without a deadline, for
// Config.ProposeTimeout. Errors: ErrNoLeader, ErrOverloaded, ErrTimeout,
// ErrClosed and errors of the state machine's Precheck, after which nothing was
// written; *UnknownError otherwise.
func (n *Node) Propose(ctx context.Context, a *event.Append) (event.Outcome, error) {
	results := [1]Result{}
	n.propose(ctx, []*event.Append{a}, results[:])
	return results[0].Outcome, results[0].Err
}

// ProposeAll is Propose for several appends, each decided by itself, in their
// order. Those without conditions are written together or not at all, if their
// commands have at most 512 KiB: then none overtakes another, whatever becomes
// of the leader.
func (n *Node) ProposeAll(ctx context.Context, appends []*event.Append) []Result {
	results := make([]Result, len(appends))
	n.propose(ctx, appends, results)
	return results
}

func (n *Node) propose(ctx context.Context, appends []*event.Append, results []Result) {
	if !n.gate.enter() {
		fail(results, ErrClosed)
		return
	}
	defer n.gate.leave()
	ctx, cancel := n.bounded(ctx)
	defer cancel()
	n.proposeUntil(ctx, appends, make([][]byte, len(appends)), results)
}

// proposeUntil proposes until every append has a result or ctx ends. A command
// that is not nil stands for its append, as the one to propose.
func (n *Node) proposeUntil(ctx context.Context, appends []*event.Append, commands [][]byte, results []Result) {
	pending := make([]int, len(appends))
	for i := range pending {
		pending[i] = i
	}
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		v := n.views.load()
		switch {
		case v.open():
			pending = n.encode(ctx, appends, commands, pending, results, true)
			n.proposeLocal(ctx, commands, pending, results)
		case v.forward != nil:
			pending = n.encode(ctx, appends, commands, pending, results, false)
			n.submit(ctx, v.forward, commands, pending, results)
		default:
			for _, i := range pending {
				results[i].Err = &retryError{ErrNoLeader}
			}
		}
		if pending = unwritten(pending, commands, results); len(pending) == 0 {
			return
		}
		if err := n.views.await(ctx, v, pause); err != nil {
			n.giveUp(pending, results, err)
			return
		}
	}
}

// unwritten returns those of pending which may be tried again. An append that
// was checked against schemas of yesterday is checked anew.
func unwritten(pending []int, commands [][]byte, results []Result) []int {
	again := pending[:0]
	for _, i := range pending {
		if results[i].Err == nil && results[i].Outcome.Code == event.SchemaChanged {
			commands[i], results[i].Err = nil, &retryError{errSchemaChanged}
		}
		if retry := (*retryError)(nil); errors.As(results[i].Err, &retry) {
			again = append(again, i)
		}
	}
	return again
}

// giveUp sets the errors of appends that could not be written in time.
func (n *Node) giveUp(pending []int, results []Result, cause error) {
	for _, i := range pending {
		results[i].Err = n.tooLate(cause, results[i].Err)
	}
}

// tooLate is the error of a call that ended with cause while it waited for a
// leader; last is why its last attempt failed.
func (n *Node) tooLate(cause, last error) error {
	switch {
	case errors.Is(cause, ErrClosed):
		return ErrClosed
	case n.views.load().leader == "":
		return fmt.Errorf("%w: %w (%w)", ErrNoLeader, cause, last)
	}
	return fmt.Errorf("%w: %w (%w)", ErrTimeout, cause, last)
}

func fail(results []Result, err error) {
	for i := range results {
		results[i].Err = err
	}
}

// encode makes the commands of the pending appends. On the leader those that it
// refuses by itself get their outcome now. It returns what is still pending.
func (n *Node) encode(ctx context.Context, appends []*event.Append, commands [][]byte, pending []int, results []Result, leads bool) []int {
	rest := pending[:0]
	for _, i := range pending {
		results[i] = Result{}
		if commands[i] == nil {
			if !n.check(ctx, appends[i], &results[i]) {
				if results[i].Err != nil {
					return failAll(pending, results, results[i].Err)
				}
				continue
			}
			c := event.Command{Kind: event.KindAppend, Seed: event.NewSeed(), Append: *appends[i]}
			commands[i] = event.EncodeCommand(make([]byte, 0, commandSize(appends[i])), &c)
		}
		if !leads || n.precheck(ctx, appends[i], commands[i], &results[i]) {
			rest = append(rest, i)
		}
	}
	return rest
}

// failAll gives all the same error, of which nothing was written: none may go
// ahead of one before it.
func failAll(pending []int, results []Result, err error) []int {
	for _, i := range pending {
		results[i] = Result{Err: err}
	}
	return nil
}

// check lets the state machine refuse an append for its data. A refusal counts
// only by all that was committed when the append came in: this node may not have
// applied a schema that its client knows of.
func (n *Node) check(ctx context.Context, a *event.Append, result *Result) (ok bool) {
	refused, err := n.sm.Check(a)
	if refused != nil && err == nil {
		if err := n.ReadIndex(ctx); err != nil {
			result.Err = fmt.Errorf("check schemas: %w", err)
			return false
		}
		refused, err = n.sm.Check(a)
	}
	switch {
	case err != nil:
		result.Err = fmt.Errorf("check schemas: %w", err)
	case refused != nil:
		result.Outcome = *refused
	default:
		return true
	}
	return false
}

// commandSize is about what an append takes, so that encoding it needs one
// allocation.
func commandSize(a *event.Append) int {
	size := 64 + 128*len(a.Conditions)
	for i := range a.Events {
		e := &a.Events[i]
		size += 160 + len(e.Stream) + len(e.Type) + len(e.Data) + len(e.Meta)
	}
	return size
}

// precheck lets the state machine refuse an append as of what is applied here.
// If it does not, the command says up to where its conditions were checked.
func (n *Node) precheck(ctx context.Context, a *event.Append, command []byte, result *Result) (ok bool) {
	verifiedTo, refused, err := n.sm.Precheck(a)
	if err == nil && refused != nil && refused.Code == event.Refused {
		// What it misses may be committed, and known to the client, but not applied.
		if err = n.ReadIndex(ctx); err == nil {
			verifiedTo, refused, err = n.sm.Precheck(a)
		}
	}
	switch {
	case err != nil:
		result.Err = fmt.Errorf("check conditions: %w", err)
	case refused != nil:
		result.Outcome = *refused
	default:
		event.SetVerifiedTo(command, verifiedTo)
		return true
	}
	return false
}

// submitter is a proposer or a forwarder.
type submitter interface {
	submit(ctx context.Context, t *ticket) ([]error, error)
}

// proposeLocal proposes the pending commands here, if the state machine keeps
// up.
func (n *Node) proposeLocal(ctx context.Context, commands [][]byte, pending []int, results []Result) {
	if len(pending) > 0 && n.sm.Overloaded() {
		for _, i := range pending {
			results[i].Err = ErrOverloaded
		}
		return
	}
	n.submit(ctx, n.proposer, commands, pending, results)
}

// submit has the pending commands decided and sets their results.
func (n *Node) submit(ctx context.Context, s submitter, commands [][]byte, pending []int, results []Result) {
	if len(pending) == 0 {
		return
	}
	picked := commands
	if len(pending) != len(commands) {
		picked = make([][]byte, len(pending))
		for k, i := range pending {
			picked[k] = commands[i]
		}
	}
	t := newTicket(picked)
	errs, err := s.submit(ctx, t)
	for k, i := range pending {
		switch {
		case err != nil:
			results[i].Err = err
		case errs != nil:
			results[i].Err = errs[k]
		default:
			results[i].Outcome, results[i].Err = t.proposals[k].outcome, t.proposals[k].err
		}
	}
}

// ProposeSystem has a command decided that appends to a '$' stream, on any node;
// otherwise it is as Propose. Such a command may be proposed again when its
// outcome is unknown: the state machine takes up nothing twice.
func (n *Node) ProposeSystem(ctx context.Context, c event.Command) (event.Outcome, error) {
	if !n.gate.enter() {
		return event.Outcome{}, ErrClosed
	}
	defer n.gate.leave()
	ctx, cancel := n.bounded(ctx)
	defer cancel()
	results := [1]Result{}
	n.proposeUntil(ctx, []*event.Append{&c.Append}, [][]byte{event.EncodeCommand(nil, &c)}, results[:])
	return results[0].Outcome, results[0].Err
}

// bounded gives a context without a deadline the usual one.
func (n *Node) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, n.cfg.ProposeTimeout)
}

// proposeSystem proposes a command of the cluster itself. It works on the
// leader only and does not try again.
func (n *Node) proposeSystem(ctx context.Context, c event.Command) (event.Outcome, error) {
	if !n.views.load().open() {
		return event.Outcome{}, ErrNoLeader
	}
	results := [1]Result{}
	n.submit(ctx, n.proposer, [][]byte{event.EncodeCommand(nil, &c)}, []int{0}, results[:])
	return results[0].Outcome, results[0].Err
}
