package client

import (
	"slices"
	"sync"
	"time"
)

const (
	// learnEvery is how old the known membership may get before it is asked
	// for again.
	learnEvery = 30 * time.Second
	// A node that failed is passed over for a while, longer each time.
	minCooldown = 250 * time.Millisecond
	maxCooldown = 10 * time.Second
)

// nodes is what the client knows of the cluster: whom to ask, and who leads.
type nodes struct {
	seeds []string // as configured; never changes

	mu      sync.Mutex
	members []string             // owned by mu, as is the rest: as learned, without duplicates
	leader  string               // "" = not known
	current string               // the node that answered last: reads stay with it
	failing map[string]*cooldown // nodes that failed and have not answered since
	learned time.Time            // when members were asked for last
}

type cooldown struct {
	length time.Duration
	until  time.Time
}

// pick returns the node to try next, passing over those in tried, or "" if all
// known ones were tried. Nodes that failed of late come last.
func (n *nodes) pick(preferLeader bool, tried []string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	last := ""
	for _, node := range n.candidatesLocked(preferLeader) {
		if node == "" || slices.Contains(tried, node) {
			continue
		}
		if cool := n.failing[node]; cool == nil || now.After(cool.until) {
			return node
		}
		if last == "" || n.failing[node].until.Before(n.failing[last].until) {
			last = node
		}
	}
	return last
}

func (n *nodes) candidatesLocked(preferLeader bool) []string {
	list := make([]string, 0, 2+len(n.members)+len(n.seeds))
	if preferLeader {
		list = append(list, n.leader)
	}
	list = append(list, n.current)
	// The configured addresses may name the members in another way, so that
	// they are only needed when no member answers.
	return append(append(list, n.members...), n.seeds...)
}

// all returns every known node, members first.
func (n *nodes) all() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var list []string
	for _, node := range n.candidatesLocked(false) {
		if node != "" && !slices.Contains(list, node) {
			list = append(list, node)
		}
	}
	return list
}

// answered notes that node gave an answer, and which leader it named, if any.
func (n *nodes) answered(node, leader string, fixed bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.failing, node)
	if fixed {
		return
	}
	n.current = node
	if leader != "" {
		n.leader = leader
	}
}

// failed notes that node did not answer or can't serve.
func (n *nodes) failed(node string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.leader == node {
		n.leader = ""
	}
	if n.current == node {
		n.current = ""
	}
	if n.failing == nil {
		n.failing = make(map[string]*cooldown)
	}
	cool := n.failing[node]
	if cool == nil {
		cool = &cooldown{length: minCooldown / 2}
		n.failing[node] = cool
	}
	cool.length = min(2*cool.length, maxCooldown)
	cool.until = time.Now().Add(cool.length)
}

// learn takes over a cluster's answer about itself.
func (n *nodes) learn(members []string, leader string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.members, n.leader, n.learned = members, leader, time.Now()
}

// due reports whether the membership should be asked for, and if so takes note
// that it has been.
func (n *nodes) due() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if time.Since(n.learned) < learnEvery {
		return false
	}
	n.learned = time.Now()
	return true
}
