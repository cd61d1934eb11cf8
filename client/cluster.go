package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
)

// Cluster is what a node says about its cluster.
type Cluster struct {
	Log     string   `json:"log"`
	Leader  string   `json:"leader"` // id; "" = none known
	Term    uint64   `json:"term"`
	Members []Member `json:"members"`
}

// Member is one node of a cluster.
type Member struct {
	ID      string `json:"id"`
	HTTP    string `json:"http"` // its address
	Role    string `json:"role"` // "leader", "voter" or "non-voter"
	Alive   bool   `json:"alive"`
	Applied uint64 `json:"applied"` // position
	Lag     uint64 `json:"lag"`
	Version string `json:"version"`
}

// LeaderHTTP returns the leader's address, or "" when none is known.
func (s *Cluster) LeaderHTTP() string {
	for _, m := range s.Members {
		if m.ID == s.Leader && s.Leader != "" {
			return m.HTTP
		}
	}
	return ""
}

// Cluster returns the cluster's state as some node sees it.
func (c *Client) Cluster(ctx context.Context) (Cluster, error) {
	a, err := c.do(ctx, &call{method: http.MethodGet, target: "/v1/cluster"})
	if err != nil {
		return Cluster{}, err
	}
	return c.takeCluster(a)
}

// takeCluster decodes a cluster's state and learns from it.
func (c *Client) takeCluster(a *answer) (Cluster, error) {
	var s Cluster
	if err := json.Unmarshal(a.body, &s); err != nil {
		return Cluster{}, fmt.Errorf("%s: the answer to /v1/cluster is not Cairn's: %w", a.node, err)
	}
	if c.cfg.Fixed {
		return s, nil
	}
	var members []string
	for _, m := range s.Members {
		if base, err := nodeURL(m.HTTP); err == nil && !slices.Contains(members, base) {
			members = append(members, base)
		}
	}
	leader, _ := nodeURL(s.LeaderHTTP())
	c.nodes.learn(members, leader)
	return s, nil
}

const (
	// discoverLimit is for a node to say who the members are, and discoverNext
	// when another is asked beside one that has not said so yet.
	discoverLimit = 2 * time.Second
	discoverNext  = 200 * time.Millisecond
	// changeLimit is for a change of the cluster, for which a server takes up
	// to 30 s.
	changeLimit = 35 * time.Second
)

// Discover asks the known nodes, each once, until one says who the members and
// the leader are. It is a quick way to see whether anybody is there; calls
// need no Discover before them.
func (c *Client) Discover(ctx context.Context) (Cluster, error) {
	type reply struct {
		cluster Cluster
		err     error
	}
	nodes := c.nodes.all()
	replies := make(chan reply, len(nodes))
	ctx, cancel := context.WithCancel(ctx)
	var asked sync.WaitGroup
	defer asked.Wait()
	defer cancel()
	timer := time.NewTimer(discoverNext)
	defer timer.Stop()
	var errs []error
	for next := 0; len(errs) < len(nodes); {
		if next < len(nodes) {
			node := nodes[next]
			next++
			asked.Go(func() {
				s, err := c.ask(ctx, node)
				replies <- reply{s, err}
			})
			timer.Reset(discoverNext)
		}
		select {
		case r := <-replies:
			if r.err == nil {
				return r.cluster, nil
			}
			errs = append(errs, r.err)
		case <-timer.C:
		}
	}
	return Cluster{}, &UnavailableError{Nodes: nodes, Attempts: len(errs), Err: errors.Join(errs...)}
}

// ask asks one node about the cluster.
func (c *Client) ask(ctx context.Context, node string) (Cluster, error) {
	a, err := c.attempt(ctx, node, &call{method: http.MethodGet, target: "/v1/cluster", limit: min(c.cfg.AttemptTimeout, discoverLimit)})
	if err != nil {
		if ctx.Err() == nil {
			c.nodes.failed(node)
		}
		return Cluster{}, err
	}
	c.nodes.answered(node, "", c.cfg.Fixed)
	return c.takeCluster(a)
}

// learnIfDue refreshes the membership when it is old. One caller does it; the
// others go on with what is known. It is no fault if nobody answers: the call
// itself will find out.
func (c *Client) learnIfDue(ctx context.Context) {
	if c.cfg.Fixed || !c.learning.TryLock() {
		return
	}
	defer c.learning.Unlock()
	if c.nodes.due() {
		_, _ = c.Discover(ctx)
	}
}

// Transfer hands leadership to the member with the id to, or to whichever is
// best placed if to is "".
func (c *Client) Transfer(ctx context.Context, to string) error {
	body := []byte("{}")
	if to != "" {
		var err error
		if body, err = json.Marshal(map[string]string{"to": to}); err != nil {
			return err
		}
	}
	return c.administer(ctx, &call{method: http.MethodPost, target: "/v1/cluster/transfer", body: body,
		header: map[string]string{"Content-Type": typeJSON}})
}

// Remove takes a member out of the cluster for good.
func (c *Client) Remove(ctx context.Context, id string) error {
	return c.administer(ctx, &call{method: http.MethodDelete, target: "/v1/cluster/members/" + url.PathEscape(id)})
}

// administer sends what must not be repeated blindly.
func (c *Client) administer(ctx context.Context, r *call) error {
	r.leader, r.write, r.once, r.limit = true, true, true, changeLimit
	_, err := c.do(ctx, r)
	var fate *fateError
	if errors.As(err, &fate) {
		return fmt.Errorf("it is not known whether this happened: %w", fate.error)
	}
	return err
}

// Ready returns nil when some node may be sent traffic.
func (c *Client) Ready(ctx context.Context) error {
	_, err := c.do(ctx, &call{method: http.MethodGet, target: "/readyz"})
	return err
}
