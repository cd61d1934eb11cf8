package client

import (
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Given one node, the client learns the others, writes to the leader and
// carries on without the node it was given.
func TestClient_LearnsTheCluster(t *testing.T) {
	var leader atomic.Pointer[string]
	var nodes [3]string
	var writes [3]atomic.Int32
	var dead [3]atomic.Bool
	for i := range nodes {
		nodes[i] = serve(t, func(w http.ResponseWriter, r *http.Request) {
			if dead[i].Load() {
				abort()
			}
			w.Header().Set(headerLeader, *leader.Load())
			if r.URL.Path == "/v1/cluster" {
				lead := "none"
				for j := range nodes {
					if nodes[j] == *leader.Load() {
						lead = fmt.Sprint("n", j)
					}
				}
				fmt.Fprintf(w, `{"log":"l","leader":%q,"term":3,"members":[{"id":"n0","http":%q,"role":"voter","alive":true},{"id":"n1","http":%q},{"id":"n2","http":%q}]}`,
					lead, nodes[0], nodes[1], nodes[2])
				return
			}
			writes[i].Add(1)
			_, _ = io.WriteString(w, accepted)
		})
	}
	leader.Store(&nodes[1])
	c := newClient(t, func(c *Config) { c.Fixed = false }, nodes[0])
	appendOne := func(want int) {
		t.Helper()
		before := writes[want].Load()
		if _, err := c.Append(testContext(t), "a", oneEvent()); err != nil {
			t.Fatal(err)
		}
		if writes[want].Load() != before+1 {
			t.Errorf("the append did not go to node %d", want)
		}
	}
	appendOne(1)
	leader.Store(&nodes[2]) // node 1 forwards and says so
	appendOne(1)
	appendOne(2)
	dead[0].Store(true)
	dead[2].Store(true)
	leader.Store(&nodes[1])
	appendOne(1)
	if s, err := c.Cluster(testContext(t)); err != nil || s.LeaderHTTP() != nodes[1] || len(s.Members) != 3 || s.Term != 3 {
		t.Errorf("got %+v, %v", s, err)
	}
}

func TestNodes_Pick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := nodes{seeds: []string{"a", "b"}}
		check := func(want string, leader bool, tried ...string) {
			t.Helper()
			if got := n.pick(leader, tried); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		check("a", true)
		check("b", true, "a")
		check("", true, "a", "b")
		n.answered("b", "a", false)
		check("b", false)
		check("a", true)
		n.learn([]string{"a", "c"}, "c")
		check("c", true)
		n.failed("c")
		check("b", true) // the leader is not known any more
		check("a", true, "b")
		check("c", true, "a", "b") // rather than none
		n.failed("b")
		n.failed("c")
		check("a", false)
		check("b", false, "a") // it failed less often
		time.Sleep(3 * minCooldown)
		check("c", false, "a") // a member again before a seed
		n.answered("c", "", false)
		n.failed("c")
		time.Sleep(minCooldown + 1)
		check("a", false)
		check("c", false, "a")
	})
}

func TestClient_Discover(t *testing.T) {
	node := serve(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, `{"log":"l","members":[]}`) })
	c := newClient(t, nil, deadNode(t), node)
	if s, err := c.Discover(testContext(t)); err != nil || s.Log != "l" {
		t.Errorf("got %+v, %v", s, err)
	}
	// One that says nothing does not hold up the others.
	silent := serve(t, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	start := time.Now()
	if s, err := newClient(t, nil, silent, node).Discover(testContext(t)); err != nil || s.Log != "l" || time.Since(start) > discoverLimit-discoverNext {
		t.Errorf("got %+v, %v after %s", s, err, time.Since(start))
	}
	start = time.Now()
	_, err := newClient(t, nil, deadNode(t), deadNode(t)).Discover(testContext(t))
	if !IsUnavailable(err) || time.Since(start) > time.Second {
		t.Errorf("got %v after %s, want it unavailable at once", err, time.Since(start))
	}
}

// What Discover has found out is not asked for again.
func TestClient_LearnsOnce(t *testing.T) {
	var asked atomic.Int32
	node := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/cluster" {
			asked.Add(1)
			_, _ = io.WriteString(w, `{"log":"l","members":[]}`)
			return
		}
		_, _ = io.WriteString(w, accepted)
	})
	c := newClient(t, func(c *Config) { c.Fixed = false }, node)
	_, err := c.Discover(testContext(t))
	for range 3 {
		if err == nil {
			_, err = c.Append(testContext(t), "a", oneEvent())
		}
	}
	if err != nil || asked.Load() != 1 {
		t.Errorf("asked %d times, %v", asked.Load(), err)
	}
}

func TestNew_Config(t *testing.T) {
	for _, cfg := range []Config{
		{}, {Nodes: []string{"ftp://x"}}, {Nodes: []string{"http://x/path"}}, {Nodes: []string{"http://"}},
		{Nodes: []string{"x"}, AttemptTimeout: -1},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v: no error", cfg)
		}
	}
	c, err := New(Config{Nodes: []string{" 127.0.0.1:7070/ ", "https://n.example"}})
	if err != nil || c.nodes.seeds[0] != "http://127.0.0.1:7070" || c.nodes.seeds[1] != "https://n.example" {
		t.Errorf("got %v, %v", c, err)
	}
}

func TestClient_Administration(t *testing.T) {
	var got string
	node := serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got = fmt.Sprint(r.Method, " ", r.URL.EscapedPath(), " ", string(b))
	})
	c := newClient(t, nil, node)
	for want, call := range map[string]func() error{
		`POST /v1/cluster/transfer {"to":"n/2"}`: func() error { return c.Transfer(testContext(t), "n/2") },
		`POST /v1/cluster/transfer {}`:           func() error { return c.Transfer(testContext(t), "") },
		`DELETE /v1/cluster/members/n%2F2 `:      func() error { return c.Remove(testContext(t), "n/2") },
		`GET /readyz `:                           func() error { return c.Ready(testContext(t)) },
	} {
		if err := call(); err != nil || got != want {
			t.Errorf("got %s, %v; want %s", got, err, want)
		}
	}
}
