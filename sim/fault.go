package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"cairn/jepsen-lite/history"
)

// fault is something that breaks a part of the cluster for a while, and then
// heals it. It returns what it did, for people, to whom, and what shows that it
// took effect. It ends at the latest when ctx does.
type fault func(n *nemesis, ctx context.Context) (what string, hosts []*host, bit map[string]int64)

// faults by name. Those of one group get into each other's way, so that one
// nemesis does them one after the other.
var faults = []struct {
	name, group string
	weight      int
	do          fault
}{
	{"kill", "process", 8, (*nemesis).kill},
	{"kill-all", "process", 1, (*nemesis).killAll},
	{"power", "process", 6, (*nemesis).power},
	{"restart", "process", 3, (*nemesis).restart},
	{"away", "process", 2, (*nemesis).away},
	{"partition", "network", 6, (*nemesis).partition},
	{"one-way", "network", 3, (*nemesis).oneWay},
	{"ring", "network", 2, (*nemesis).ring},
	{"pause", "network", 5, (*nemesis).pause},
	{"slow-net", "network", 3, (*nemesis).slowNet},
	{"usurp", "network", 2, (*nemesis).usurp},
	{"slow-disk", "other", 3, (*nemesis).slowDisk},
	{"clock", "other", 3, (*nemesis).clock},
	{"transfer", "other", 3, (*nemesis).transfer},
}

// nemesis does the faults of some groups.
type nemesis struct {
	w      *world
	rng    *rand.Rand
	groups string // separated by blanks
}

// work breaks and heals until the context ends. What is broken then is healed.
func (n *nemesis) work(ctx context.Context) {
	total := 0
	for _, f := range faults {
		if strings.Contains(n.groups, f.group) {
			total += f.weight
		}
	}
	for n.wait(ctx, 300*time.Millisecond, 4*time.Second) {
		at := n.rng.IntN(total)
		for _, f := range faults {
			if !strings.Contains(n.groups, f.group) {
				continue
			}
			if at -= f.weight; at < 0 {
				n.run(ctx, f.name, f.do)
				break
			}
		}
	}
}

func (n *nemesis) run(ctx context.Context, name string, do fault) {
	start := n.w.rec.Now()
	n.w.log.note("nemesis: %s", name)
	what, hosts, bit := do(n, ctx)
	if sum(bit) == 0 {
		n.w.log.note("nemesis: %s came to nothing, because of another fault", name)
		return
	}
	f := history.Fault{Nemesis: name, What: what, Start: start, End: n.w.rec.Now(), Bit: bit}
	for _, h := range hosts {
		f.Nodes = append(f.Nodes, h.name)
	}
	n.w.log.note("nemesis: healed %s: %s", name, what)
	n.w.rec.Fault(f)
}

func sum(bit map[string]int64) (all int64) {
	for _, n := range bit {
		all += n
	}
	return all
}

// wait sleeps for some time between least and most; false says that ctx has
// ended.
func (n *nemesis) wait(ctx context.Context, least, most time.Duration) bool {
	select {
	case <-time.After(least + time.Duration(n.rng.Int64N(int64(most-least)))):
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// some returns one host, a minority, a majority or all, most often one.
func (n *nemesis) some() []*host {
	size := len(n.w.hosts)
	count := []int{1, 1, 1, size / 2, size/2 + 1, size}[n.rng.IntN(6)]
	return n.pick(count)
}

// pick returns so many hosts; every other time the leader is one of them.
func (n *nemesis) pick(count int) []*host {
	var chosen []*host
	leader := n.w.leader()
	if n.rng.IntN(2) == 0 && leader != nil {
		chosen = append(chosen, leader.host)
	}
	for _, i := range n.rng.Perm(len(n.w.hosts)) {
		if h := n.w.hosts[i]; len(chosen) < count && (len(chosen) == 0 || h != chosen[0]) {
			chosen = append(chosen, h)
		}
	}
	return chosen
}

func hostNames(hosts []*host) string {
	var names []string
	for _, h := range hosts {
		names = append(names, h.name)
	}
	return strings.Join(names, ",")
}

// fuseLength is how many changes of its disk a host survives that is to lose
// power in the middle of one.
func (n *nemesis) fuseLength() int64 { return 1 + n.rng.Int64N(150) }

// kill ends some nodes between two of their steps, and starts them again.
func (n *nemesis) kill(ctx context.Context) (string, []*host, map[string]int64) {
	return n.killThese(ctx, n.some())
}

func (n *nemesis) killAll(ctx context.Context) (string, []*host, map[string]int64) {
	return n.killThese(ctx, n.w.hosts)
}

func (n *nemesis) killThese(ctx context.Context, hosts []*host) (string, []*host, map[string]int64) {
	percent := []int{0, 50, 100}[n.rng.IntN(3)]
	ended := int64(0)
	for _, h := range hosts {
		if h.kill(percent, n.w.fork()) {
			ended++
		}
	}
	n.wait(ctx, 10*time.Millisecond, 5*time.Second)
	for _, h := range hosts {
		h.start(0)
	}
	return fmt.Sprintf("kill %s, %d%% of what was not synced kept", hostNames(hosts), percent), hosts, map[string]int64{"ended": ended}
}

// power has some nodes lose power in the middle of a write, every other time
// once more while they start. Where nothing is written in time, it just goes.
func (n *nemesis) power(ctx context.Context) (string, []*host, map[string]int64) {
	hosts := n.some()
	ended, before := int64(0), n.w.powerLosses()
	for _, h := range hosts {
		if r := h.starting(); r != nil {
			r.disk.fuse.Store(n.fuseLength())
		}
	}
	n.wait(ctx, 500*time.Millisecond, 3*time.Second)
	for _, h := range hosts {
		if h.kill(0, n.w.fork()) {
			ended++
		}
		if n.rng.IntN(2) == 0 {
			h.start(n.fuseLength())
		}
	}
	n.wait(ctx, 100*time.Millisecond, 2*time.Second)
	for _, h := range hosts {
		if r := h.starting(); r != nil {
			r.disk.fuse.Store(0)
		}
		h.start(0)
	}
	burnt := int64(n.w.powerLosses() - before)
	return "power loss of " + hostNames(hosts), hosts, map[string]int64{"ended": ended, "in a write": burnt}
}

// restart stops nodes cleanly, one after the other, and starts them again.
func (n *nemesis) restart(ctx context.Context) (string, []*host, map[string]int64) {
	hosts := n.some()
	ended := int64(0)
	for _, h := range hosts {
		if h.current() == nil {
			continue
		}
		if err := h.stop(); err != nil {
			n.w.fail("%s does not stop cleanly: %v", h.name, err)
		}
		ended++
		n.wait(ctx, 10*time.Millisecond, time.Second)
		h.start(0)
	}
	return "rolling restart of " + hostNames(hosts), hosts, map[string]int64{"ended": ended}
}

// away keeps one node down for so long that it needs a snapshot.
func (n *nemesis) away(ctx context.Context) (string, []*host, map[string]int64) {
	h := n.w.hosts[n.rng.IntN(len(n.w.hosts))]
	ended := int64(0)
	if h.kill(100, n.w.fork()) {
		ended++
	}
	n.wait(ctx, 8*time.Second, 15*time.Second)
	h.start(0)
	return h.name + " is away", []*host{h}, map[string]int64{"ended": ended}
}

// disturb changes the links for a while.
func (n *nemesis) disturb(ctx context.Context, links map[way]quality) map[string]int64 {
	held, lost, slowed := n.w.net.held.Load(), n.w.net.lost.Load(), n.w.net.slowed.Load()
	n.w.net.set(links)
	n.wait(ctx, 500*time.Millisecond, 8*time.Second)
	n.w.net.set(map[way]quality{})
	return map[string]int64{"held": n.w.net.held.Load() - held, "lost": n.w.net.lost.Load() - lost, "slowed": n.w.net.slowed.Load() - slowed}
}

// between returns the ways that separate chooses, disturbed by q.
func (n *nemesis) between(q quality, separate func(from, to *host) bool) map[way]quality {
	links := map[way]quality{}
	for _, a := range n.w.hosts {
		for _, b := range n.w.hosts {
			if a != b && separate(a, b) {
				links[way{a.address, b.address}] = q
			}
		}
	}
	return links
}

// partition cuts the cluster into two parts.
func (n *nemesis) partition(ctx context.Context) (string, []*host, map[string]int64) {
	part := n.pick(1 + n.rng.IntN(len(n.w.hosts)-1))
	in := members(part)
	bit := n.disturb(ctx, n.between(quality{cut: true}, func(a, b *host) bool { return in[a] != in[b] }))
	return "cut off " + hostNames(part), part, bit
}

// oneWay cuts what one node, or some, sends to the others, or hears of them.
func (n *nemesis) oneWay(ctx context.Context) (string, []*host, map[string]int64) {
	part := n.pick(1 + n.rng.IntN(len(n.w.hosts)/2))
	in, deaf := members(part), n.rng.IntN(2) == 0
	bit := n.disturb(ctx, n.between(quality{cut: true}, func(a, b *host) bool { return in[a] != in[b] && in[b] == deaf }))
	if deaf {
		return "nothing reaches " + hostNames(part), part, bit
	}
	return "nothing leaves " + hostNames(part), part, bit
}

// ring leaves each node with its two neighbours alone; of three nodes the ring
// is cut at one place.
func (n *nemesis) ring(ctx context.Context) (string, []*host, map[string]int64) {
	place, size := map[*host]int{}, len(n.w.hosts)
	for at, i := range n.rng.Perm(size) {
		place[n.w.hosts[i]] = at
	}
	bit := n.disturb(ctx, n.between(quality{cut: true}, func(a, b *host) bool {
		apart := (place[a] - place[b] + size) % size
		if size == 3 {
			return place[a]+place[b] == 2 && apart != 0
		}
		return apart != 1 && apart != size-1
	}))
	return "a ring in which each node sees its neighbours alone", n.w.hosts, bit
}

// pause comes as near as it can to stopping the processes of some nodes: they
// neither hear nor are heard, and what they write to disk hangs, so that Raft
// does not find out that its time is up.
func (n *nemesis) pause(ctx context.Context) (string, []*host, map[string]int64) {
	part := n.some()
	in := members(part)
	for _, h := range part {
		h.stall.Store(int64(5 * time.Second))
	}
	bit := n.disturb(ctx, n.between(quality{cut: true}, func(a, b *host) bool { return in[a] || in[b] }))
	for _, h := range part {
		h.stall.Store(0)
	}
	return "frozen " + hostNames(part), part, bit
}

// slowNet makes links slow and lossy.
func (n *nemesis) slowNet(ctx context.Context) (string, []*host, map[string]int64) {
	q := quality{delay: time.Duration(1+n.rng.Int64N(200)) * time.Millisecond, loss: n.rng.IntN(30)}
	in := members(n.some())
	bit := n.disturb(ctx, n.between(q, func(a, b *host) bool { return in[a] || in[b] }))
	return fmt.Sprintf("links take up to %s more and lose %d%%", q.delay, q.loss), n.w.hosts, bit
}

func members(hosts []*host) map[*host]bool {
	in := map[*host]bool{}
	for _, h := range hosts {
		in[h] = true
	}
	return in
}

// slowDisk makes the syncs of some disks slow.
func (n *nemesis) slowDisk(ctx context.Context) (string, []*host, map[string]int64) {
	hosts := n.some()
	longest := 50*time.Millisecond + time.Duration(n.rng.Int64N(int64(2*time.Second)))
	before := int64(0)
	for _, h := range hosts {
		before += h.stalled.Load()
		h.stall.Store(int64(longest))
	}
	n.wait(ctx, time.Second, 8*time.Second)
	after := int64(0)
	for _, h := range hosts {
		h.stall.Store(0)
		after += h.stalled.Load()
	}
	return fmt.Sprintf("syncs of %s take up to %s", hostNames(hosts), longest), hosts, map[string]int64{"stalled": after - before}
}

// clock sets the clocks of some nodes wrong.
func (n *nemesis) clock(ctx context.Context) (string, []*host, map[string]int64) {
	hosts := n.some()
	by := time.Duration(n.rng.Int64N(int64(2*time.Hour))) - time.Hour
	if n.rng.IntN(2) == 0 {
		by = time.Duration(n.rng.Int64N(int64(10*time.Second))) - 5*time.Second
	}
	for _, h := range hosts {
		h.skew.Store(int64(by))
	}
	n.wait(ctx, time.Second, 8*time.Second)
	for _, h := range hosts {
		h.skew.Store(0)
	}
	return fmt.Sprintf("clocks of %s off by %s", hostNames(hosts), by), hosts, map[string]int64{"set": int64(len(hosts))}
}

// transfer has leadership handed on a few times.
func (n *nemesis) transfer(ctx context.Context) (string, []*host, map[string]int64) {
	moved := int64(0)
	for range 1 + n.rng.IntN(5) {
		r := n.w.leader()
		if r != nil && r.enter() {
			limit, cancel := context.WithTimeout(r.lifetime, 3*time.Second)
			if r.node.Cluster().Transfer(limit, "") == nil {
				moved++
			}
			cancel()
			r.leave()
		}
		if !n.wait(ctx, 10*time.Millisecond, time.Second) {
			break
		}
	}
	return fmt.Sprintf("leadership handed on %d times", moved), nil, map[string]int64{"moved": moved}
}

// usurp cuts the leader off from the others at about the moment at which it has
// told another node to take over: for a while it does not know that it was
// succeeded.
func (n *nemesis) usurp(ctx context.Context) (string, []*host, map[string]int64) {
	r := n.w.leader()
	if r == nil || !r.enter() {
		return "", nil, nil
	}
	var transfer sync.WaitGroup
	transfer.Go(func() {
		defer r.leave()
		limit, cancel := context.WithTimeout(r.lifetime, 3*time.Second)
		defer cancel()
		_ = r.node.Cluster().Transfer(limit, "") // whether it learns of its end is not the point
	})
	time.Sleep(time.Duration(n.rng.Int64N(int64(4 * time.Millisecond))))
	bit := n.disturb(ctx, n.between(quality{cut: true}, func(a, b *host) bool { return a == r.host || b == r.host }))
	transfer.Wait()
	return r.host.name + " is cut off while it hands leadership on", []*host{r.host}, bit
}
