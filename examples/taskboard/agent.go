package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"cairn/client"
)

// agent takes one task after the other. Its name is its own: no other agent
// that runs has it.
type agent struct {
	board *board
	name  string
	lease time.Duration
	// work does a task and returns its result. Its context ends if the agent
	// loses the task meanwhile. An error ends the agent, which lets go of
	// nothing then, as if it had died.
	work func(ctx context.Context, t task) (result string, err error)
	say  func(string)
}

// run works until all tasks are done.
func (a *agent) run(ctx context.Context) error {
	for {
		t, found, err := a.next(ctx)
		if err == nil && found {
			err = a.do(ctx, t)
		}
		if err != nil || t.ID == "" {
			return err
		}
		if !found {
			// Others have what is left. One of them may die.
			select {
			case <-time.After(a.lease / 4):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
}

// next returns a task that is the agent's: one that was handed to it or that it
// had when it was last started, or one it could claim. If there is none to be
// had, found is false and t is one that others have; t without an id says that
// all are done.
func (a *agent) next(ctx context.Context) (t task, found bool, err error) {
	all, err := a.board.tasks(ctx)
	if err != nil {
		return task{}, false, err
	}
	// Those who look at the same moment should not all want the same task.
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	var taken task
	for _, t := range all {
		switch {
		case t.State != "open":
			continue
		case t.Owner == a.name:
			return t, true, nil
		}
		taken = t
		// The agent's own clock only says what is worth trying.
		if t.Owner != "" && time.Now().Before(t.Until) {
			continue
		}
		from := t.Owner
		t, err = a.board.claim(ctx, t, a.name, a.lease)
		if client.IsGuardFailed(err) {
			continue // somebody was faster
		}
		if err == nil && from != "" {
			a.say(fmt.Sprintf("%s: taken over from %s", t.ID, from))
		}
		return t, err == nil, err
	}
	return taken, false, nil
}

// do works on a task and renews its lease meanwhile.
func (a *agent) do(ctx context.Context, t task) error {
	working, stop := context.WithCancel(ctx)
	renewed := make(chan error, 1)
	go func() {
		err := a.keep(working, t)
		stop()
		renewed <- err
	}()
	result, err := a.work(working, t)
	stop()
	// Joined before the task is completed: afterwards a renewal is refused.
	kept := <-renewed
	switch {
	case kept != nil && !client.IsGuardFailed(kept):
		return kept
	case kept == nil && err != nil:
		return err
	case kept == nil:
		kept = a.board.complete(ctx, t, result)
	}
	if client.IsGuardFailed(kept) {
		a.say(t.ID + ": lost to another agent")
		return nil
	}
	if kept == nil {
		a.say(t.ID + ": done")
	}
	return kept
}

// keep renews the lease until ctx ends or a renewal fails.
func (a *agent) keep(ctx context.Context, t task) error {
	for {
		select {
		case <-time.After(a.lease / 3):
		case <-ctx.Done():
			return nil
		}
		if err := a.board.renew(ctx, t, a.lease); err != nil {
			if errors.Is(err, context.Canceled) || ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}
