package cluster

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"testing"
)

func TestPledge_Rules(t *testing.T) {
	p := func(coordinator, attempt string) *pledge { return &pledge{Coordinator: coordinator, Attempt: attempt} }
	t.Run("one coordinator at a time", func(t *testing.T) {
		f := &former{store: &memoryPledge{}}
		if err := f.accept(p("a", "1")); err != nil {
			t.Fatal(err)
		}
		if err := f.accept(p("b", "2")); err == nil || !f.wanted() {
			t.Errorf("accepted a second coordinator: %v", err)
		}
		if err := f.begin(p("c", "3")); err == nil {
			t.Error("began its own attempt while bound")
		}
		if err := f.accept(p("a", "4")); err != nil || f.pledged().Attempt != "4" || f.wanted() {
			t.Errorf("new attempt of the same coordinator: %v", err)
		}
		if err := f.release("1"); err != nil || f.pledged() == nil {
			t.Error("a late answer about an old attempt released a newer pledge")
		}
		if err := f.release("4"); err != nil || f.pledged() != nil {
			t.Error("not released")
		}
	})
	t.Run("who pledges itself stops", func(t *testing.T) {
		f := &former{store: &memoryPledge{}}
		own := p("c", "1")
		if err := f.begin(own); err != nil {
			t.Fatal(err)
		}
		if err := f.accept(p("a", "2")); err != nil {
			t.Fatal(err)
		}
		if f.commit(own) {
			t.Error("went on with an attempt it had given up")
		}
	})
	t.Run("no way back from writing", func(t *testing.T) {
		f := &former{store: &memoryPledge{}}
		own := p("c", "1")
		if err := f.begin(own); err != nil {
			t.Fatal(err)
		}
		if !f.commit(own) {
			t.Fatal("did not commit")
		}
		if f.giveUp("1", false) {
			t.Error("gave up what is being written")
		}
		if err := f.accept(p("a", "2")); err == nil {
			t.Error("pledged itself while writing")
		}
	})
	t.Run("a full disk", func(t *testing.T) {
		f := &former{store: &brokenPledge{}}
		if err := f.accept(p("a", "1")); !errors.Is(err, errDisk) || f.pledged() != nil {
			t.Errorf("accept: %v", err)
		}
	})
}

func TestPledge_File(t *testing.T) {
	path := filepath.Join(t.TempDir(), pledgeFile)
	store := filePledge(path)
	if p, err := store.load(); p != nil || err != nil {
		t.Fatalf("empty folder: %v %v", p, err)
	}
	want := &pledge{Coordinator: "a", Attempt: "1", Servers: []listedServer{{"a", "x:1"}, {"b", "y:2"}}}
	for range 2 {
		if err := store.save(want); err != nil {
			t.Fatal(err)
		}
		if got, err := store.load(); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %v, %v", got, err)
		}
	}
	for range 2 {
		if err := store.save(nil); err != nil {
			t.Fatal(err)
		}
		if p, err := store.load(); p != nil || err != nil {
			t.Fatalf("after removal: %v %v", p, err)
		}
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.load(); err == nil {
		t.Error("a damaged pledge was taken for none")
	}
	if _, err := newMembership(&Config{NodeID: "a", StableDB: filepath.Join(filepath.Dir(path), "stable.db")},
		membershipDeps{sm: &memberSM{}, server: newPeerServer()}); err == nil {
		t.Error("a node with a damaged pledge starts")
	}
}

// world is a model of nodes that form clusters over a network that loses,
// delays and reorders, with views of the members that are as wrong as can be.
type world struct {
	rng      *rand.Rand
	formers  map[string]*former
	stores   map[string]*memoryPledge
	state    map[string]bool     // has Raft state
	attempts map[string]*attempt // the coordinators' own, by node
	written  map[string]*pledge  // by coordinator
	late     map[string][]func() // answers under way, by their receiver
}

type attempt struct {
	p   *pledge
	oks map[string]bool // who has pledged itself, as far as the coordinator knows
}

// No two lists that share a member are ever written, whatever the views, the
// network and the restarts.
func TestPledge_ListsNeverOverlap(t *testing.T) {
	t.Parallel()
	rng := memberSeed(t)
	wrote := 0
	for range 6000 {
		w := &world{
			rng: rng, formers: map[string]*former{}, stores: map[string]*memoryPledge{}, state: map[string]bool{},
			attempts: map[string]*attempt{}, written: map[string]*pledge{}, late: map[string][]func(){},
		}
		for _, id := range worldIDs {
			w.stores[id] = &memoryPledge{}
			w.formers[id] = &former{store: w.stores[id]}
		}
		for i := range 120 {
			w.step(strconv.Itoa(i))
		}
		for x, p := range w.written {
			wrote++
			for y, q := range w.written {
				shared := slices.ContainsFunc(p.Servers, func(s listedServer) bool { return slices.Contains(q.Servers, s) })
				if x != y && shared {
					t.Fatalf("%s wrote %v, %s wrote %v", x, p.Servers, y, q.Servers)
				}
			}
		}
	}
	t.Logf("%d lists written", wrote)
	if wrote < 1000 {
		t.Errorf("only %d lists were written", wrote)
	}
}

var worldIDs = []string{"a", "b", "c"}

func (w *world) step(nonce string) {
	id := worldIDs[w.rng.IntN(len(worldIDs))]
	switch f := w.formers[id]; w.rng.IntN(12) {
	case 0, 1: // a view of some others and an attempt to form it
		w.begin(id, nonce)
	case 2, 3, 4, 5: // a pledge is asked for and, perhaps late or never, answered
		a := w.attempts[id]
		if a == nil {
			return
		}
		to := a.p.Servers[w.rng.IntN(len(a.p.Servers))].ID
		if to != id && !w.state[to] && w.formers[to].accept(a.p) == nil {
			w.answer(id, func() { a.oks[to] = true })
		}
	case 6, 7: // all have pledged
		w.commit(id)
	case 8, 9: // the coordinator is asked to give up
		if p := f.pledged(); p != nil && w.formers[p.Coordinator].giveUp(p.Attempt, w.state[p.Coordinator]) {
			w.answer(id, func() { _ = w.formers[id].release(p.Attempt) })
		}
	case 10: // answers arrive
		for _, arrive := range w.late[id] {
			arrive()
		}
		w.late[id] = nil
	case 11: // a restart: what is not on disk is lost, and with it the answers under way
		held, _ := w.stores[id].load()
		w.formers[id] = &former{store: w.stores[id], held: held}
		delete(w.attempts, id)
		delete(w.late, id)
	}
}

func (w *world) begin(id, nonce string) {
	if w.state[id] {
		return
	}
	p := &pledge{Coordinator: id, Attempt: nonce, Servers: []listedServer{{ID: id}}}
	for _, at := range w.rng.Perm(len(worldIDs))[:1+w.rng.IntN(2)] {
		if s := (listedServer{ID: worldIDs[at]}); s.ID != id {
			p.Servers = append(p.Servers, s)
		}
	}
	if w.formers[id].begin(p) == nil {
		w.attempts[id] = &attempt{p: p, oks: map[string]bool{id: true}}
	}
}

func (w *world) commit(id string) {
	a := w.attempts[id]
	if a == nil || w.state[id] || len(a.oks) < len(a.p.Servers) || !w.formers[id].commit(a.p) {
		return
	}
	w.written[id] = a.p
	w.state[id] = true
	w.formers[id].written()
}

func (w *world) answer(to string, arrive func()) {
	if w.rng.IntN(2) == 0 {
		arrive()
	} else {
		w.late[to] = append(w.late[to], arrive)
	}
}
