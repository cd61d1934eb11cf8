package nemesis

import (
	"context"
	"fmt"
	"slices"
	"time"

	"cairn/jepsen-lite/lab"
)

// partition cuts links. Nobody is told: connections stay open and hang.
func (w *World) partition(ctx context.Context) (*fault, error) {
	nodes := w.Lab.Nodes()
	w.rng.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	all := numbers(nodes)
	half := all[:len(all)/2]
	// From here on "one" is the leader, if somebody knows it.
	one, who := nodes[0], ""
	if l := w.leader(ctx); l != nil {
		one, who = l, ", the leader,"
	}
	var others []int
	for _, n := range nodes {
		if n.Number() != one.Number() {
			others = append(others, n.Number())
		}
	}
	self := []int{one.Number()}
	var links []lab.Link
	var what string
	isolated := false
	switch w.rng.IntN(6) {
	case 0:
		links, what = lab.Between(half, all[len(half):]), fmt.Sprintf("halves: nodes %v cut off from the rest", half)
	case 1:
		links, what = lab.OneWay(self, others), fmt.Sprintf("one-way: what %s%s sends to the other nodes is lost", name(one), who)
	case 2:
		links, what = lab.OneWay(others, self), fmt.Sprintf("one-way: what the other nodes send to %s%s is lost", name(one), who)
	case 3:
		links, what = lab.Between(self, others), fmt.Sprintf("%s%s cut off from the other nodes, not from clients", name(one), who)
		isolated = who != ""
	case 4:
		links, what = lab.Between(self, []int{lab.Client}), fmt.Sprintf("%s%s cut off from clients, not from the other nodes", name(one), who)
	default:
		if links = lab.Ring(all); len(links) == 0 {
			links = lab.Between(self, others)
		}
		what = "ring: every node sees a majority, no two the same"
	}
	before := w.Lab.Traffic(links...)
	w.Lab.Cut(links...)
	return &fault{
		what: what, lasts: w.between(2*time.Second, 7*time.Second), leader: isolated,
		heal: func(context.Context) (map[string]int64, error) {
			w.Lab.Restore(links...)
			after := w.Lab.Traffic(links...)
			return map[string]int64{"packets dropped": int64(after.Cut - before.Cut)}, nil
		},
	}, nil
}

// slow makes links slow or lossy, of one node or between all.
func (w *World) slow(ctx context.Context) (*fault, error) {
	nodes := numbers(w.Lab.Nodes())
	links, where := lab.Between(nodes, []int{lab.Client}), "all links"
	for i, one := range nodes {
		links = append(links, lab.Between([]int{one}, nodes[i+1:])...)
	}
	if w.rng.IntN(2) == 0 {
		one := nodes[w.rng.IntN(len(nodes))]
		others := slices.DeleteFunc(slices.Clone(nodes), func(n int) bool { return n == one })
		links, where = lab.Between([]int{one}, append(others, lab.Client)), fmt.Sprintf("the links of n%d", one)
	}
	var q lab.Quality
	var what string
	if w.rng.IntN(2) == 0 {
		q = lab.Quality{Delay: w.between(5*time.Millisecond, 100*time.Millisecond), Jitter: w.between(0, 100*time.Millisecond)}
		what = fmt.Sprintf("%s are slow: %s more, and up to %s by chance", where, q.Delay.Round(time.Millisecond), q.Jitter.Round(time.Millisecond))
	} else {
		q = lab.Quality{Loss: 0.01 + 0.14*w.rng.Float64()}
		what = fmt.Sprintf("%s lose %.0f %% of their packets", where, 100*q.Loss)
	}
	before := w.Lab.Traffic(links...)
	w.Lab.Degrade(q, links...)
	return &fault{
		what: what, lasts: w.between(2*time.Second, 7*time.Second),
		heal: func(context.Context) (map[string]int64, error) {
			w.Lab.Degrade(lab.Quality{}, links...)
			after := w.Lab.Traffic(links...)
			return map[string]int64{
				"packets delayed": int64(after.Delayed - before.Delayed), "packets lost": int64(after.Lost - before.Lost),
			}, nil
		},
	}, nil
}

// transfer hands leadership over again and again.
func (w *World) transfer(ctx context.Context) (*fault, error) {
	return &fault{
		what: "a storm of leadership transfers", lasts: time.Millisecond, last: true,
		heal: func(ctx context.Context) (map[string]int64, error) {
			first, before := w.cluster(ctx)
			done := int64(0)
			for end := time.Now().Add(w.between(2*time.Second, 5*time.Second)); time.Now().Before(end); {
				if c, err := w.client(); err == nil {
					if c.Transfer(ctx, "") == nil {
						done++
					}
					c.Close()
				}
				sleep(ctx, 100*time.Millisecond)
			}
			last, err := w.cluster(ctx)
			if before != nil || err != nil { // nobody can say
				return map[string]int64{"transfers": done}, nil
			}
			return map[string]int64{"transfers": done, "terms": int64(last.Term) - int64(first.Term)}, nil
		},
	}, nil
}
