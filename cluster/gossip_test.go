package cluster

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestGossip_Key(t *testing.T) {
	a, err := gossipKey([]byte("one"))
	if err != nil {
		t.Fatal(err)
	}
	again, _ := gossipKey([]byte("one"))
	other, _ := gossipKey([]byte("two"))
	if len(a) != 32 || !bytes.Equal(a, again) || bytes.Equal(a, other) || bytes.Contains(a, []byte("one")) {
		t.Errorf("keys %x %x %x", a, again, other)
	}
}

func TestGossip_Secret(t *testing.T) {
	t.Parallel()
	board := newSwitchboard()
	a := startMember(t, board, memberOptions{id: "a", secret: "one"})
	b := startMember(t, board, memberOptions{id: "b", secret: "one"})
	for _, secret := range []string{"two", ""} {
		x := startMember(t, board, memberOptions{id: "x" + secret, secret: secret})
		if _, err := x.join(t.Context(), a.seeds()[0]); err == nil {
			t.Errorf("joined with secret %q", secret)
		}
	}
	if _, err := b.join(t.Context(), a.seeds()[0]); err != nil {
		t.Errorf("same secret: %v", err)
	}
	eventually(t, "a sees b and nobody else", func() bool { return len(a.roster.alive()) == 2 })
}

func TestGossip_ProfileTooLarge(t *testing.T) {
	build := func(size int) error {
		_, err := newMembership(&Config{NodeID: "a", HTTP: strings.Repeat("h", size)},
			membershipDeps{sm: &memberSM{}, server: newPeerServer()})
		return err
	}
	if err := build(512); err == nil {
		t.Error("a profile of more than 512 bytes was taken")
	}
	if err := build(256); err != nil {
		t.Errorf("a URL of 256 bytes: %v", err)
	}
}

func TestGossip_Addresses(t *testing.T) {
	for _, test := range []struct {
		addr string
		want string // "" = an error
	}{
		{"127.0.0.1:7012", "127.0.0.1:7012"},
		{"[::1]:0", "[::1]:0"},
		{":7", "0.0.0.0:7"},
		{"localhost:7", "127.0.0.1:7"},
		{"127.0.0.1", ""}, {"127.0.0.1:x", ""}, {"127.0.0.1:70000", ""}, {"nowhere.invalid:7", ""},
	} {
		got, err := lookup(t.Context(), test.addr, netip.IPv4Unspecified())
		if got.Addr() == netip.IPv6Loopback() && test.addr == "localhost:7" {
			continue // as good
		}
		if (err != nil) != (test.want == "") || err == nil && got.String() != test.want {
			t.Errorf("%s is %s, %v, want %q", test.addr, got, err, test.want)
		}
	}
}

func TestGossip_CannotStart(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	n := startMember(t, newSwitchboard(), memberOptions{id: "a"}) // lends its Raft
	for _, gossip := range []Endpoint{
		{Bind: taken.Addr().String()}, {Bind: "nonsense"}, {Bind: "[::]:0"}, {Bind: "127.0.0.1:0", Advertise: "nowhere.invalid:1"},
	} {
		m := bareMembership(t, &memberSM{}, &Config{NodeID: "b", Gossip: gossip})
		m.deps.raft = n.deps.raft
		if err := m.start(t.Context()); err == nil {
			t.Errorf("started on %v", gossip)
		}
		if err := m.close(); err != nil {
			t.Errorf("close after that: %v", err)
		}
	}
}

// A seed that takes the connection and never answers does not hold up close.
func TestGossip_CloseWithHangingSeed(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	n := startMember(t, newSwitchboard(), memberOptions{id: "a", join: []string{l.Addr().String()}})
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	begun := time.Now()
	n.stop(t, true)
	if took := time.Since(begun); took > 4*time.Second { // memberlist's own timeout is 5 s
		t.Errorf("close took %v", took)
	}
	if err := n.membership.close(); err != nil {
		t.Errorf("second close: %v", err)
	}
}

// A node that leaves is gone at once, without waiting for probes to fail.
func TestGossip_Farewell(t *testing.T) {
	t.Parallel()
	board := newSwitchboard()
	slow := func(tune *tuning) {
		tune.probeInterval, tune.probeTimeout, tune.leave = time.Hour, time.Hour, memberDeadline
	}
	a := startMember(t, board, memberOptions{id: "a", tune: slow})
	b := startMember(t, board, memberOptions{id: "b", join: a.seeds(), tune: slow})
	eventually(t, "they see each other", func() bool { return len(a.roster.alive()) == 2 && len(b.roster.alive()) == 2 })
	b.stop(t, true)
	eventually(t, "b is gone", func() bool { return len(a.roster.alive()) == 1 })
	if addr, ok := a.address("b"); !ok || addr != "raft-b" {
		t.Errorf("its last address is forgotten: %s %v", addr, ok)
	}
}

// Seeds are tried until they are there.
func TestGossip_SeedComesLater(t *testing.T) {
	t.Parallel()
	board := newSwitchboard()
	first := startMember(t, board, memberOptions{id: "a"})
	seed := first.gossipAddress()
	first.stop(t, true)
	b := startMember(t, board, memberOptions{id: "b", join: []string{"nowhere.invalid:1", seed}})
	if _, err := b.join(t.Context(), seed); err == nil {
		t.Fatal("the seed is still there")
	}
	a := startMember(t, board, memberOptions{id: "a", gossip: seed, join: []string{seed}})
	eventually(t, "they find each other", func() bool { return len(a.roster.alive()) == 2 && len(b.roster.alive()) == 2 })
}

// A seed that was reached and then went away is tried again.
func TestGossip_SeedComesBack(t *testing.T) {
	t.Parallel()
	board := newSwitchboard()
	a := startMember(t, board, memberOptions{id: "a"})
	b := startMember(t, board, memberOptions{id: "b", join: a.seeds()})
	eventually(t, "they see each other", func() bool { return len(a.roster.alive()) == 2 && len(b.roster.alive()) == 2 })
	a.stop(t, true)
	eventually(t, "b is alone", func() bool { return len(b.roster.alive()) == 1 })
	again := startMember(t, board, memberOptions{id: "a", gossip: a.gossipAddress()}) // it knows no seeds
	eventually(t, "they see each other again", func() bool { return len(again.roster.alive()) == 2 && len(b.roster.alive()) == 2 })
}

// All nodes stop, and the only seed never comes back: the others find each other
// by what their Raft knows.
func TestGossip_SeedGoneForGood(t *testing.T) {
	t.Parallel()
	board := newSwitchboard()
	nodes := formThree(t, board)
	seed := nodes[0].seeds()
	eventually(t, "all have heard of all", func() bool {
		return !slices.ContainsFunc(nodes, func(n *member) bool {
			return len(n.roster.alive()) != 3
		})
	})
	for _, n := range nodes {
		n.stop(t, false)
	}
	var back []*member
	for _, n := range nodes[1:] {
		back = append(back, startMember(t, board, memberOptions{id: n.id, expect: 3, join: seed, disk: n.disk}))
	}
	eventually(t, "they see each other", func() bool {
		return len(back[0].roster.alive()) == 2 && len(back[1].roster.alive()) == 2
	})
	eventually(t, "they go on", func() bool { return leaderOf(back) != nil })
}

func TestRoster_Ignores(t *testing.T) {
	lines := &memberLog{}
	changes := 0
	r := newRoster("a", slog.New(slog.NewTextHandler(lines, nil)), func() { changes++ })
	r.setLogID("ours")
	ours := profile{ID: "b", Raft: "rb", LogID: "ours"}
	none := profile{ID: "c", Raft: "rc"}
	other := profile{ID: "d", Raft: "rd", LogID: "theirs"}
	for range 3 {
		r.seen("b#1", "gb", ours.encode())
		r.seen("c#1", "gc", none.encode())
		r.seen("d#1", "gd", other.encode())
		r.seen("e#1", "ge", []byte("not a profile"))
		r.seen("f#1", "gf", []byte(`{"i":"f","r":"rf","later":{"version":[2]}}`))
	}
	var ids []string
	for _, i := range r.alive() {
		ids = append(ids, i.ID)
	}
	if !slices.Equal(ids, []string{"b", "c", "f"}) {
		t.Errorf("alive: %v", ids)
	}
	if lines.count("another log") != 1 || lines.count("not ours") != 1 {
		t.Errorf("told %d and %d times", lines.count("another log"), lines.count("not ours"))
	}
	if changes == 0 {
		t.Error("nobody was told")
	}
	// A node that turns out to be of another log leaves nothing behind.
	moved := profile{ID: "c", Raft: "rc", LogID: "theirs"}
	r.seen("c#1", "gc", moved.encode())
	if _, ok := r.get("c"); ok {
		t.Error("c is still there")
	}
	r.gone("b#1")
	if i, ok := r.get("b"); !ok || i.alive || i.Raft != "rb" {
		t.Errorf("dead b is %+v, %v", i, ok)
	}
}

// The first instance of an id counts until it is gone or another is chosen.
func TestRoster_Rivals(t *testing.T) {
	r := newRoster("a", slog.New(slog.DiscardHandler), func() {})
	first, second := profile{ID: "b", Run: "1", Raft: "r1"}, profile{ID: "b", Run: "2", Raft: "r2"}
	now := func() string { i, _ := r.get("b"); return i.Raft }
	r.seen("b#2", "", second.encode())
	r.seen("b#1", "", first.encode())
	if now() != "r2" || len(r.contested()["b"]) != 2 {
		t.Errorf("%s counts, rivals %v", now(), r.contested())
	}
	rivals := r.contested()["b"] // by gossip name
	r.choose(rivals[0])
	if now() != "r1" {
		t.Errorf("%s counts after the choice", now())
	}
	// The one that lost does not come back by itself.
	r.gone("b#1")
	if i, _ := r.get("b"); i.alive || i.Raft != "r1" || len(r.contested()["b"]) != 1 {
		t.Errorf("%+v counts after the winner is gone, rivals %v", i, r.contested())
	}
	r.choose(rivals[1])
	if i, _ := r.get("b"); !i.alive || i.Raft != "r2" || len(r.contested()) != 0 {
		t.Errorf("%+v counts after it has answered, rivals %v", i, r.contested())
	}
	r.choose(rivals[0]) // a late verdict about one that is gone
	if now() != "r2" {
		t.Errorf("%s counts after a late verdict", now())
	}
}

func TestMembership_NotStarted(t *testing.T) {
	m := bareMembership(t, &memberSM{}, &Config{NodeID: "a"})
	for name, serve := range map[string]PeerHandler{
		"status": m.serveStatus, "probe": m.serveProbe, "remove": m.serveRemove,
	} {
		if _, err := serve(t.Context(), []byte(`{"to":"a"}`)); !errors.Is(err, errNotReady) {
			t.Errorf("%s before Raft runs: %v", name, err)
		}
	}
}
