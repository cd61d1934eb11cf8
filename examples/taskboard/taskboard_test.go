package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cairn/client"
	"cairn/examples/internal/testnode"
)

func TestTaskboard(t *testing.T) {
	node := testnode.Start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	b, err := openBoard(ctx, newClient(t, node))
	if err != nil {
		t.Fatal(err)
	}
	// In this order: agents work until the whole board is done.
	t.Run("one owner", func(t *testing.T) { testOneOwner(ctx, t, b) })
	t.Run("hand over", func(t *testing.T) { testHandOver(ctx, t, b) })
	t.Run("agents", func(t *testing.T) { testAgents(ctx, t, node) })
	t.Run("commands", func(t *testing.T) { testCommands(ctx, t, node) })
}

// Of many that claim a task at once one gets it, also if none looks first.
func testOneOwner(ctx context.Context, t *testing.T, b *board) {
	free := addTask(ctx, t, b, "wanted")
	var wg sync.WaitGroup
	var got atomic.Int64
	for i := range 16 {
		wg.Go(func() {
			_, err := b.claim(ctx, free, fmt.Sprint("agent-", i), time.Hour)
			if err == nil {
				got.Add(1)
			} else if !client.IsGuardFailed(err) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	mine := readTask(ctx, t, b, "wanted")
	if got.Load() != 1 || mine.Owner == "" || mine.Claim != 1 {
		t.Errorf("%d have it; got %+v", got.Load(), mine)
	}
	stranger := mine
	stranger.Owner = "stranger"
	refused(t, b.renew(ctx, stranger, time.Hour), "does not have the task")
	refused(t, b.complete(ctx, stranger, ""), "does not have the task")
	refused(t, b.add(ctx, "wanted", "again"), "the task exists")
	_, err := b.claim(ctx, mine, "thief", time.Hour)
	refused(t, err, "another agent has the task")
	_, err = b.claim(ctx, task{ID: "nothing"}, "ann", time.Hour)
	refused(t, err, "no such task")
	done(t, b.renew(ctx, mine, time.Hour))
	done(t, b.release(ctx, mine))
	refused(t, b.complete(ctx, mine, ""), "does not have the task")
	_, err = b.claim(ctx, free, "ann", time.Hour) // as it was read before all this
	refused(t, err, "claimed meanwhile")
	again, err := b.claim(ctx, readTask(ctx, t, b, "wanted"), "ann", time.Hour)
	done(t, err)
	done(t, b.complete(ctx, again, "fine"))
	_, err = b.claim(ctx, readTask(ctx, t, b, "wanted"), "bob", time.Hour)
	refused(t, err, "the task is done")
}

// Who handed a task over, or slept while its lease ran out and another took
// over, can't touch it any more, even under the same name.
func testHandOver(ctx context.Context, t *testing.T, b *board) {
	anns, err := b.claim(ctx, addTask(ctx, t, b, "passed"), "ann", time.Hour)
	done(t, err)
	done(t, b.handOver(ctx, anns, "bob", time.Millisecond))
	refused(t, b.complete(ctx, anns, ""), "does not have the task")
	bobs := readTask(ctx, t, b, "passed")
	if bobs.Owner != "bob" || bobs.Claim != 2 {
		t.Errorf("got %+v", bobs)
	}
	// Bob's lease runs out, and ann has the task again under another claim. The
	// log's time decides, so this waits by trying.
	var again task
	for again.ID == "" {
		if again, err = b.claim(ctx, bobs, "ann", time.Hour); client.IsGuardFailed(err) {
			again = task{}
			continue
		}
		done(t, err)
	}
	refused(t, b.renew(ctx, bobs, time.Hour), "does not have the task")
	refused(t, b.complete(ctx, anns, ""), "does not have the task")
	done(t, b.complete(ctx, again, "fine"))
}

// Several agents share the board; one dies in the middle of a task.
func testAgents(ctx context.Context, t *testing.T, node string) {
	const tasks, lease = 20, 400 * time.Millisecond
	b := &board{newClient(t, node)}
	for i := range tasks {
		addTask(ctx, t, b, fmt.Sprintf("shared-%02d", i))
	}
	var mu sync.Mutex
	var said strings.Builder
	work := func(name string, die bool) error {
		a := (&board{newClient(t, node)}).agent(name, &settings{lease: lease, pace: 10 * time.Millisecond, die: die}, &bytes.Buffer{})
		a.say = func(what string) {
			mu.Lock()
			defer mu.Unlock()
			fmt.Fprintf(&said, "%s: %s\n", name, what)
		}
		return a.run(ctx)
	}
	if err := work("zed", true); !errors.Is(err, errDied) {
		t.Fatalf("got %v", err)
	}
	var wg sync.WaitGroup
	for i := range 5 {
		wg.Go(func() {
			if err := work(fmt.Sprint("agent-", i), false); err != nil {
				t.Errorf("agent %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	over := 0
	for i := range tasks {
		over += checkTask(ctx, t, b, fmt.Sprintf("shared-%02d", i))
	}
	if over == 0 || !strings.Contains(said.String(), "taken over from zed") {
		t.Errorf("nobody took over the task of the agent that died:\n%s", said.String())
	}
}

// checkTask goes through the events of a task that is done: it was completed
// once, by its owner, and nobody else claimed it while a lease ran. It returns
// how often it was taken over.
func checkTask(ctx context.Context, t *testing.T, b *board, id string) (over int) {
	t.Helper()
	owner, completed := "", 0
	var until time.Time
	for e, err := range b.c.AllOfStream(ctx, "task-"+id, client.ReadOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		var data change
		if err := json.Unmarshal(e.Data, &data); err != nil {
			t.Fatal(err)
		}
		at := time.Unix(0, e.Time)
		lease, _ := time.ParseDuration(data.Lease)
		switch e.Type {
		case "TaskClaimed":
			if owner != "" {
				over++
			}
			if owner != "" && !at.After(until) {
				t.Errorf("%s: %s claimed it while %s had it", id, data.Agent, owner)
			}
			owner = data.Agent
		case "TaskCompleted":
			completed++
		}
		if e.Type != "TaskAdded" && data.Agent != owner {
			t.Errorf("%s: %s by %s, while %s had it", id, e.Type, data.Agent, owner)
		}
		until = at.Add(lease)
	}
	if completed != 1 {
		t.Errorf("%s was completed %d times", id, completed)
	}
	return over
}

func testCommands(ctx context.Context, t *testing.T, node string) {
	var out bytes.Buffer
	do := func(line string) error {
		return run(ctx, append([]string{"-node", node}, strings.Fields(line)...), &out)
	}
	done(t, do("add roof fix"))
	if err := do("-die -lease 1h work ann"); !errors.Is(err, errDied) {
		t.Errorf("got %v", err)
	}
	done(t, do("hand-over roof bob"))
	done(t, do("-pace 1ms work bob"))
	done(t, do("list"))
	for _, want := range []string{"ann: roof: fix (claim 1)\n", "bob: roof: fix (claim 2)\nbob: roof: done\n", "roof         done  bob        fix by bob"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, &out)
		}
	}
	if err := do("rest"); err == nil {
		t.Error("an unknown command was taken")
	}
}

func addTask(ctx context.Context, t *testing.T, b *board, id string) task {
	t.Helper()
	done(t, b.add(ctx, id, "do "+id))
	return readTask(ctx, t, b, id)
}

func readTask(ctx context.Context, t *testing.T, b *board, id string) task {
	t.Helper()
	read, err := b.task(ctx, id)
	done(t, err)
	return read
}

func done(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// refused fails the test unless a guard refused, with this message.
func refused(t *testing.T, err error, message string) {
	t.Helper()
	var p *client.Problem
	if !errors.As(err, &p) || p.Code != client.CodeGuardFailed || !strings.Contains(p.Message, message) {
		t.Errorf("got %v, want a refusal: %s", err, message)
	}
}

func newClient(t *testing.T, node string) *client.Client {
	t.Helper()
	c, err := client.New(client.Config{Nodes: []string{node}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}
