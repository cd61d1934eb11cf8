// Package workload is the clients of a run: programs that use Cairn the way
// users do, each for another promise, and write down every operation and what
// they learned of it.
//
// A client sends each operation once, to one node, so that an outcome is what
// that one request told. Trying again is an operation of its own.
//
// Everything random comes from Options.Seed, but what clients do depends also on
// the answers they get, and these on time.
package workload

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"cairn/client"
	"cairn/jepsen-lite/history"
)

// attempt is how long a client waits for an answer.
const attempt = 3 * time.Second

// Node is a node as clients reach it.
type Node struct{ Name, URL string }

// Options are what the workloads run against.
type Options struct {
	Names    []string // workloads, of those that All returns
	Nodes    []Node
	Rate     float64 // operations a second, of all clients together
	Seed     uint64
	Recorder *history.Recorder
}

// load is a workload of clients that take one step after another.
type load struct {
	name, does string
	clients    int
	share      float64                             // of the rate, relative to the others
	begin      func(*actor, context.Context) error // once, before any step; nil = nothing
	step       func(*actor, context.Context)
}

func loads() []load {
	return []load{
		{"append", "optimistic concurrency on a few streams, linearizable reads on any node", 8, 8, nil, (*actor).stepAppend},
		{"transfer", "money moves between accounts, each time in an append to two streams", 4, 4, (*actor).payIn, (*actor).stepTransfer},
		{"unique", "clients race for names, which a query condition gives away once", 3, 2, nil, (*actor).stepUnique},
		{"retry", "an append without a definite answer is sent again with the same ids", 4, 4, nil, (*actor).stepRetry},
		{"readback", "what one node acknowledged is read at another with min_position", 3, 3, nil, (*actor).stepReadback},
		{"big", "events and appends up to the limits", 1, 0.02, nil, (*actor).stepBig},
		{"streams", "every append begins a new stream", 2, 3, nil, (*actor).stepStreams},
		{"bank-guarded", "money moves blindly, and a guard keeps accounts from debt", 6, 6, (*actor).beginBank, (*actor).stepBank},
		{"projection", "events fold into rows of five projections, one of which is replaced again and again", 4, 5, (*actor).beginRows, (*actor).stepRows},
		{"schema-change-under-load", "a type gets four schemas with upcasts while events of it are appended, folded and read", 4, 4, (*actor).beginSchemas, (*actor).stepSchemas},
	}
}

// follow is the workload of followers, which take no steps.
const follow = "follow"

// All returns the names of all workloads.
func All() []string {
	var names []string
	for _, l := range loads() {
		names = append(names, l.name)
	}
	return append(names, follow)
}

// Money reports whether a workload promises that no account is overdrawn.
func Money(name string) bool { return name == "transfer" || name == "bank-guarded" }

// Describe returns a line of help for each workload.
func Describe() string {
	var text strings.Builder
	for _, l := range loads() {
		fmt.Fprintf(&text, "  %-24s %s\n", l.name, l.does)
	}
	fmt.Fprintf(&text, "  %-24s %s\n", follow, "followers over SSE and NDJSON that reconnect to any node, again and again")
	return text.String()
}

// Run is workloads that run.
type Run struct {
	opts      Options
	clients   []*client.Client // one of each node
	stop      context.CancelFunc
	loads     sync.WaitGroup
	followers []*follower
}

// Start starts the workloads. They run until Stop.
func Start(ctx context.Context, o Options) (*Run, error) {
	r := &Run{opts: o}
	for _, n := range o.Nodes {
		c, err := client.New(client.Config{Nodes: []string{n.URL}, Fixed: true, AttemptTimeout: attempt, RetryFor: -1})
		if err != nil {
			return nil, err
		}
		r.clients = append(r.clients, c)
	}
	var chosen []load
	total := 0.0
	for _, l := range loads() {
		if slices.Contains(o.Names, l.name) {
			chosen = append(chosen, l)
			total += l.share
		}
	}
	running, stop := context.WithCancel(ctx)
	r.stop = stop
	number := 0
	for _, l := range chosen {
		group := &group{}
		pause := time.Duration(float64(time.Second) * float64(l.clients) * total / (l.share * o.Rate))
		for i := range l.clients {
			number++
			a := r.newActor(number, l.name, group)
			if i == 0 && l.begin != nil {
				if err := l.begin(a, ctx); err != nil {
					r.Stop()
					return nil, fmt.Errorf("begin of workload %s: %w", l.name, err)
				}
			}
			r.loads.Go(func() { a.run(running, pause, l.step) })
		}
	}
	if slices.Contains(o.Names, follow) {
		r.follow(ctx)
	}
	return r, nil
}

// Stop ends the clients, at the latest after what they have under way. The
// followers go on.
func (r *Run) Stop() {
	r.stop()
	r.loads.Wait()
}

// Finish lets the followers go on until each has been given everything up to
// position, or ctx is done, and ends them.
func (r *Run) Finish(ctx context.Context, position uint64) []history.Follower {
	var found []history.Follower
	for _, f := range r.followers {
		found = append(found, f.finish(ctx, position))
	}
	for _, c := range r.clients {
		c.Close()
	}
	return found
}

// group is what the clients of one workload share.
type group struct {
	mu     sync.Mutex
	count  int    // under mu
	newest uint32 // under mu; of the schemas of the workload's type, as far as its clients know
}

// next returns 1, 2, 3, …
func (g *group) next() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.count++
	return g.count
}

func (r *Run) newActor(number int, name string, g *group) *actor {
	return &actor{
		of: r, number: number, workload: name, group: g, known: map[string]uint64{},
		rng: rand.New(rand.NewPCG(r.opts.Seed, uint64(number))),
	}
}
