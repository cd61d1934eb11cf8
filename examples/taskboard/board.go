package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"strings"
	"time"

	"cairn/client"
	"cairn/event"
	"cairn/examples/internal/define"
)

//go:embed task.yaml
var taskYAML []byte

// board is the tasks. The rules about them are in task.yaml and hold for every
// agent, whatever program it is; what they refuse comes back as an error for
// which client.IsGuardFailed holds. Its methods may be called by any number of
// goroutines.
type board struct{ c *client.Client }

// openBoard returns when the guards hold.
func openBoard(ctx context.Context, c *client.Client) (*board, error) {
	return &board{c}, define.Apply(ctx, c, taskYAML)
}

// task is a row of the projection.
type task struct {
	ID     string    `json:"-"`
	Title  string    `json:"title"`
	State  string    `json:"state"` // open or done
	Owner  string    `json:"owner"` // "" = nobody yet
	Claim  uint64    `json:"claim"` // how often it was claimed; what its owner shows
	Until  time.Time `json:"until"` // when the lease ends
	Result string    `json:"result"`
}

// change is the data of all events of a task; each uses some of it.
type change struct {
	Title  string `json:"title,omitempty"`
	Agent  string `json:"agent,omitempty"`
	Claim  uint64 `json:"claim,omitempty"`
	Lease  string `json:"lease,omitempty"` // how long, from the event's time on
	To     string `json:"to,omitempty"`
	Result string `json:"result,omitempty"`
}

func (b *board) append(ctx context.Context, id, typ string, data change) error {
	encoded, err := json.Marshal(data)
	if err != nil {
		return err
	}
	_, err = b.c.Append(ctx, "task-"+id, []event.Event{{Type: typ, Data: encoded}})
	return err
}

func (b *board) add(ctx context.Context, id, title string) error {
	return b.append(ctx, id, "TaskAdded", change{Title: title})
}

// claim makes agent the owner of t as it was read. If another was faster it is
// refused.
func (b *board) claim(ctx context.Context, t task, agent string, lease time.Duration) (task, error) {
	t.Owner, t.Claim = agent, t.Claim+1
	return t, b.append(ctx, t.ID, "TaskClaimed", change{Agent: agent, Claim: t.Claim, Lease: lease.String()})
}

// renew lets the lease of t's owner begin again now. A lease that has run out
// can be renewed as long as nobody else has claimed the task.
func (b *board) renew(ctx context.Context, t task, lease time.Duration) error {
	return b.append(ctx, t.ID, "LeaseRenewed", change{Agent: t.Owner, Claim: t.Claim, Lease: lease.String()})
}

func (b *board) complete(ctx context.Context, t task, result string) error {
	return b.append(ctx, t.ID, "TaskCompleted", change{Agent: t.Owner, Claim: t.Claim, Result: result})
}

// handOver makes another agent the owner, under the next claim.
func (b *board) handOver(ctx context.Context, t task, to string, lease time.Duration) error {
	return b.append(ctx, t.ID, "TaskHandedOver", change{Agent: t.Owner, Claim: t.Claim, To: to, Lease: lease.String()})
}

// release gives the task back to all.
func (b *board) release(ctx context.Context, t task) error {
	return b.append(ctx, t.ID, "TaskReleased", change{Agent: t.Owner, Claim: t.Claim})
}

// tasks returns all tasks as of one position, in the order of their ids.
func (b *board) tasks(ctx context.Context) ([]task, error) {
	var all []task
	for row, err := range b.c.Rows(ctx, "task", client.RowsOptions{}) {
		if err != nil {
			return nil, err
		}
		t, err := taskOf(row)
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, nil
}

// task returns one task as it is now.
func (b *board) task(ctx context.Context, id string) (task, error) {
	row, err := b.c.Row(ctx, "task", "task-"+id, client.StateOptions{})
	if err != nil {
		return task{}, err
	}
	return taskOf(row)
}

func taskOf(row client.Row) (task, error) {
	t := task{ID: strings.TrimPrefix(row.Key, "task-")}
	err := json.Unmarshal(row.State, &t)
	return t, err
}
